"""How far somebody has read the sealed log: the SIEM stream and the classes of retention, one row each."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class AuditReader(Base):
    """A position in the sealed log. `next_index` is a leaf index: gapless and given once, so a reader that goes by it skips
    nothing, which neither a serial number nor a time can promise (AU-04)."""

    __tablename__ = "audit_reader"

    name: Mapped[str] = mapped_column(String(32), unique=True)
    next_index: Mapped[int] = mapped_column(BigInteger, default=0)
    #: since when it has been behind, while it is
    behind_since: Mapped[datetime | None]
