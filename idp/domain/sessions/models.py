"""Login sessions, app sessions, pending requests. All are gates: nothing is issued inside one that has ended."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base
from idp.domain.directory.models import LIVE


class LoginSession(Base):
    """One browser at Sekisho. The cookie's digest rotates by UPDATE in place, never by a second row (AC-40, RE-20)."""

    __tablename__ = "login_session"
    __table_args__ = (Index("ix_login_session_account", "account_id"),)

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    cookie_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    acr: Mapped[str] = mapped_column(String(64))
    amr: Mapped[list[str]] = mapped_column(JSON, default=list)
    auth_time: Mapped[datetime]
    user_agent: Mapped[str] = mapped_column(String(300), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    last_seen_at: Mapped[datetime]
    idle_s: Mapped[int]
    idle_until: Mapped[datetime]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))


class AppSession(Base):
    """One application inside a login session: the ledger row, committed before anything leaves (LO-02). Never deleted."""

    __tablename__ = "app_session"
    __table_args__ = (
        Index(
            "uq_app_session_live",
            "login_session_id",
            "application_id",
            unique=True,
            postgresql_where=LIVE,
            sqlite_where=LIVE,
        ),
        Index("ix_app_session_account", "account_id"),
        Index("ix_app_session_application", "application_id"),
    )

    login_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("login_session.id"))
    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    #: random per app session, never the cookie (LO-02)
    sid: Mapped[str] = mapped_column(String(64), unique=True)
    #: the subject as this relying party sees it; it outlives the account's erasure so that a logout can still name it
    sub: Mapped[str] = mapped_column(String(255))
    #: SAML: the format of that name; the service provider is told to end exactly (name, format, `sid` as SessionIndex)
    name_id_format: Mapped[str | None] = mapped_column(String(80))
    last_issued_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))


class PendingRequest(Base):
    """An authorization request that waits for a person; the login page carries its handle, never a URL (WB-05)."""

    __tablename__ = "pending_request"

    handle_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    protocol: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    ends_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
