"""The outbox table."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class OutboxRow(Base):
    """One delivery. state: waiting, leased, done. The payload is built at send time; `detail` holds durable facts only."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_due", "state", "run_at"),
        Index("uq_outbox_dedup", "dedup_key", unique=True),
    )

    topic: Mapped[str] = mapped_column(String(32))
    ref: Mapped[uuid.UUID | None] = mapped_column(index=True)
    destination: Mapped[str] = mapped_column(String(2000))
    dedup_key: Mapped[str] = mapped_column(String(200))
    subject_epoch: Mapped[int] = mapped_column(default=0)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    run_at: Mapped[datetime]
    give_up_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)
    #: grows with every lease; a result is written only with the fence it was leased under (RE-02)
    fence: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(40))
