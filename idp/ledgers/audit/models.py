"""The audit table, and the counter of anonymous refusals that becomes one row a minute."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class AuditEvent(Base):
    """One thing that happened. Holds ids, never names: erasing a person leaves the row and its proof valid (AU-09).

    No foreign keys: the log outlives what it speaks of. `leaf_index` and `leaf_hash` are the sealer's and start empty.
    """

    __tablename__ = "audit_event"
    __table_args__ = (
        Index("ix_audit_event_company_at", "company_id", "created_at"),
        Index("ix_audit_event_subject_at", "subject_id", "created_at"),
    )

    tag: Mapped[str] = mapped_column(String(64))
    result: Mapped[str] = mapped_column(String(16))
    actor_kind: Mapped[str] = mapped_column(String(16))
    actor_id: Mapped[uuid.UUID | None]
    company_id: Mapped[uuid.UUID | None]
    store_id: Mapped[uuid.UUID | None]
    subject_id: Mapped[uuid.UUID | None]
    application_id: Mapped[uuid.UUID | None]
    request_id: Mapped[str] = mapped_column(String(32), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    leaf_index: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    leaf_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class RefusalCount(Base):
    """Anonymous refusals of one kind under one key within one minute (AU-01): a flood must not fill the log."""

    __tablename__ = "refusal_count"
    __table_args__ = (Index("uq_refusal_count_key_minute", "tag", "key", "minute", unique=True),)

    tag: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(128))
    minute: Mapped[datetime]
    count: Mapped[int] = mapped_column(default=1)
