"""The audit table, and the counter of anonymous refusals that becomes one row a minute."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


REFUSED = text("result = 'refused'")


def _some(column: str) -> Index:
    some = text(f"{column} IS NOT NULL")
    return Index(f"ix_audit_event_{column[:-3]}", column, "id", postgresql_where=some, sqlite_where=some)


class AuditEvent(Base):
    """One thing that happened. Holds ids, never names: erasing a person leaves the row and its proof valid (AU-09).

    No foreign keys: the log outlives what it speaks of. `leaf_index` and `leaf_hash` are the sealer's and start empty.
    """

    __tablename__ = "audit_event"
    # ids are UUIDv7: (column, id) is (column, time). Partial, so that a row pays only for what it names (ADR 0025)
    __table_args__ = (
        Index("ix_audit_event_company", "company_id", "id"),
        Index("ix_audit_event_tag", "company_id", "tag", "id"),
        _some("subject_id"), _some("actor_id"), _some("store_id"), _some("application_id"),
        Index("ix_audit_event_refused", "company_id", "id", postgresql_where=REFUSED, sqlite_where=REFUSED),
    )  # fmt: skip

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
    #: whose log the row goes to; None where nobody can know
    company_id: Mapped[uuid.UUID | None]
    count: Mapped[int] = mapped_column(default=1)
