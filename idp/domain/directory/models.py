"""Companies, regions, stores, accounts, assignments. Descriptions live beside the columns that decide access."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base

LIVE = text("ended_at IS NULL")
#: stopped, and still somebody
OVER = text("ended_at IS NOT NULL AND erased_at IS NULL")


class Company(Base):
    """A partner company, or the platform operator's own (`is_platform`). Shared gate row."""

    __tablename__ = "company"

    code: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    is_platform: Mapped[bool] = mapped_column(default=False)
    #: which passwords inside tools are changed when somebody leaves (§9): `known` to people, or `used` by the leaver
    change_on_leaving: Mapped[str] = mapped_column(String(16), default="known", server_default="known")
    ended_at: Mapped[datetime | None]


class Region(Base):
    """Any depth. `path` is materialised (`/east/tokyo/`), so that a prefix finds everything below."""

    __tablename__ = "region"
    __table_args__ = (Index("uq_region_company_code", "company_id", "code", unique=True),)

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("region.id"))
    code: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(200))
    path: Mapped[str] = mapped_column(String(500), index=True)


class Store(Base):
    """A shop. `path` is its region's path, so that an area manager's scope is one prefix. Shared gate row."""

    __tablename__ = "store"
    __table_args__ = (Index("uq_store_company_code", "company_id", "code", unique=True),)

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    region_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("region.id"))
    path: Mapped[str] = mapped_column(String(500), default="/", index=True)
    code: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(200))
    time_zone: Mapped[str] = mapped_column(String(64), default="Asia/Tokyo")
    ended_at: Mapped[datetime | None]


class Account(Base):
    """A person at one company: the gate of every login.

    subject: the `sub` that relying parties see; random, never reused, also on rehire (OI-10). epoch: only grows; +1 at
    every revocation, re-enable and credential change, so that what was read before a change opens nothing.
    """

    __tablename__ = "account"
    __table_args__ = (
        # a departed person's staff number may be given to somebody else; the old row keeps it for its receipts (RV-31)
        Index(
            "uq_account_login_live", "company_id", "login_name", unique=True, postgresql_where=LIVE, sqlite_where=LIVE
        ),
        Index("ix_account_company_kana", "company_id", "kana_search"),
        Index("ix_account_company_login", "company_id", "login_name"),
        Index("ix_account_over", "ended_at", postgresql_where=OVER, sqlite_where=OVER),
    )

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    login_name: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    kana: Mapped[str] = mapped_column(String(200), default="")
    kana_search: Mapped[str] = mapped_column(String(200), default="")
    locale: Mapped[str] = mapped_column(String(16), default="ja")
    epoch: Mapped[int] = mapped_column(default=1)
    ends_at: Mapped[datetime | None] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))
    #: when the personal columns were emptied: the row stays for its receipts, nobody can be read from it (AU-09)
    erased_at: Mapped[datetime | None]


class Assignment(Base):
    """Account × place × role × time. The place is a store, a region, or, with neither, the whole company."""

    __tablename__ = "assignment"
    __table_args__ = (
        Index("ix_assignment_account", "account_id"),
        Index("ix_assignment_store", "store_id"),
        Index("ix_assignment_due", "ends_at", postgresql_where=LIVE, sqlite_where=LIVE),
    )

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    store_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("store.id"))
    region_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("region.id"))
    role: Mapped[str] = mapped_column(String(32))
    epoch: Mapped[int] = mapped_column(default=1)
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))
