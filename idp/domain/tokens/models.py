"""Authorization codes and token families."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class AuthorizationCode(Base):
    """One code, for 60 seconds and one redemption (OA-05). `family_id` is reserved at issue, so that a replay finds it."""

    __tablename__ = "authorization_code"
    __table_args__ = (Index("ix_authorization_code_account", "account_id"),)

    code_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    app_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("app_session.id"), index=True)
    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    family_id: Mapped[uuid.UUID]
    redirect_uri: Mapped[str] = mapped_column(String(2000))
    code_challenge: Mapped[str | None] = mapped_column(String(128))
    nonce: Mapped[str | None] = mapped_column(String(1000))
    scope: Mapped[str] = mapped_column(String(1000))
    claims: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    epoch: Mapped[int]
    ends_at: Mapped[datetime]
    redeemed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class TokenFamily(Base):
    """One grant and all its refresh tokens. Only the newest generation lives; every older one is a replay (OA-15).

    The row rotates in place, so it is itself the gate of a refresh: a revocation must update this very row.
    """

    __tablename__ = "token_family"
    __table_args__ = (
        Index("ix_token_family_account", "account_id"),
        Index("ix_token_family_app_session", "app_session_id"),
    )

    app_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("app_session.id"))
    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    offline: Mapped[bool] = mapped_column(default=False)
    scope: Mapped[str] = mapped_column(String(1000))
    acr: Mapped[str] = mapped_column(String(64))
    amr: Mapped[list[str]] = mapped_column(JSON, default=list)
    auth_time: Mapped[datetime]
    #: 0 = the client may not refresh; otherwise the generation that is valid now
    generation: Mapped[int] = mapped_column(default=0)
    rotated_at: Mapped[datetime]
    #: the latest expiry of an access token issued in it: the residual that a receipt prints (RV-23)
    access_until: Mapped[datetime]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))


class SeenMessage(Base):
    """Replay memory: a SAML message that was accepted, by who sent it and its ID; kept longer than it is valid (RE-22, SA-09)."""

    __tablename__ = "seen_message"

    #: SHA-256 of sender and ID: both are as long as a stranger likes
    message_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    ends_at: Mapped[datetime] = mapped_column(index=True)
