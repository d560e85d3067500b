"""Revocations, their cuts, the evidence of each. Nothing here is ever deleted."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class Revocation(Base):
    """The decision, written once. `number` is what people read aloud: R-2026-1121-0Q7K3M."""

    __tablename__ = "revocation"
    __table_args__ = (
        Index("ix_revocation_company_t0", "company_id", "t0"),
        Index("ix_revocation_account", "account_id"),
    )

    number: Mapped[str] = mapped_column(String(32), unique=True)
    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    store_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("store.id"))
    scope_kind: Mapped[str] = mapped_column(String(16))
    scope_id: Mapped[uuid.UUID]
    reason: Mapped[str] = mapped_column(String(40))
    door: Mapped[str] = mapped_column(String(16))
    actor_kind: Mapped[str] = mapped_column(String(16))
    requested_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    idempotency_key: Mapped[str | None] = mapped_column(String(80), unique=True)
    #: when access should have ended by the personnel record, and when somebody asked for the cut; None = nobody said (AU-22)
    hr_at: Mapped[datetime | None]
    requested_at: Mapped[datetime | None]
    t0: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    reopened_at: Mapped[datetime | None]


class Cut(Base):
    """One thing that a revocation ends. state: waiting, needs_person, done. grade is set only when done (ux.md 4.2)."""

    __tablename__ = "cut"
    __table_args__ = (
        Index("uq_cut_target", "revocation_id", "kind", "target_ref", unique=True),
        Index("ix_cut_open", "state", "residual_until"),
    )

    revocation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("revocation.id"))
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32))
    target_ref: Mapped[str] = mapped_column(String(200))
    application_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("application.id"))
    count: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(16))
    grade: Mapped[str | None] = mapped_column(String(16))
    residual_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(String(200))
    next_try_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    closed_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    close_note: Mapped[str | None] = mapped_column(Text)
    #: SHA-256 of a note that was erased: the receipt's sealed facts still agree with the row (AU-09)
    close_note_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    done_at: Mapped[datetime | None]


class Evidence(Base):
    """What proves a cut, append only. detail: HTTP status, `jti`, counts; never a body that a peer sent."""

    __tablename__ = "evidence"

    cut_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("cut.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    grade: Mapped[str | None] = mapped_column(String(16))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
