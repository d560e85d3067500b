"""Authenticators, activations, unfinished logins, counters. Verifiers and digests only; a TOTP seed is sealed."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base
from idp.domain.directory.models import LIVE


class Authenticator(Base):
    """One way to prove who you are. kind: password, totp, recovery_code. Ending one raises the account's epoch."""

    __tablename__ = "authenticator"
    __table_args__ = (
        Index("ix_authenticator_account", "account_id"),
        Index(
            "uq_authenticator_recovery",
            "account_id",
            "code_digest",
            unique=True,
            postgresql_where=LIVE,
            sqlite_where=LIVE,
        ),
    )

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    kind: Mapped[str] = mapped_column(String(16))
    verifier: Mapped[str | None] = mapped_column(Text)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    code_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    #: the last TOTP time step that was accepted; only a larger one is (AC-25)
    last_step: Mapped[int] = mapped_column(default=0)
    confirmed_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Activation(Base):
    """A one-time code with which a person chooses their password. Nobody else ever sets or sees it (AC-07, AC-08)."""

    __tablename__ = "activation"

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"), index=True)
    purpose: Mapped[str] = mapped_column(String(16))
    code_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    epoch: Mapped[int]
    ends_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class PendingLogin(Base):
    """The password was right and a second factor is still due. It is no login session and opens nothing."""

    __tablename__ = "pending_login"

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"), index=True)
    handle_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    epoch: Mapped[int]
    tries: Mapped[int] = mapped_column(default=0)
    ends_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Throttle(Base):
    """A counter of consecutive failures under one key. Written in short transactions of its own (AC-05)."""

    __tablename__ = "throttle"

    key: Mapped[str] = mapped_column(String(128), unique=True)
    count: Mapped[int] = mapped_column(default=0)
    blocked_until: Mapped[datetime | None]
    updated_at: Mapped[datetime]
