"""Sealed credentials. A value is never in a row: fields are SKS1 records under a data key of their version."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base
from idp.domain.directory.models import LIVE


class SealedCredential(Base):
    """The secret of one tool account. current_version holds; pending_version is being set at the tool."""

    __tablename__ = "sealed_credential"

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    tool_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_account.id"), unique=True)
    current_version: Mapped[int | None]
    pending_version: Mapped[int | None]
    #: false only after a proven rotation to a value that a machine made; true again when a person types one
    known_to_people: Mapped[bool] = mapped_column(default=True)
    known_since: Mapped[datetime]
    #: a part of it did not open as sealed: nobody opens it until a person decides (`vault_integrity`)
    locked_reason: Mapped[str | None] = mapped_column(String(40))


class CredentialVersion(Base):
    """One version. state: pending, current, previous, discarded, shredded."""

    __tablename__ = "credential_version"
    __table_args__ = (
        Index("uq_credential_version", "credential_id", "version", unique=True),
        Index("ix_credential_version_key", "key_id"),
    )

    credential_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sealed_credential.id"))
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    wrapped_dek: Mapped[bytes] = mapped_column(LargeBinary)
    #: the company key that wraps it, so that a rotation finds what is still under the old one
    key_id: Mapped[uuid.UUID]
    #: a login with it worked then
    proven_at: Mapped[datetime | None]


class CredentialField(Base):
    """One field of one version; user names and notes are fields too (VA-06)."""

    __tablename__ = "credential_field"
    __table_args__ = (Index("uq_credential_field", "credential_id", "version", "field", unique=True),)

    credential_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sealed_credential.id"))
    version: Mapped[int]
    field: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)


class Rotation(Base):
    """One change of a password at the tool, in two phases. One open row per credential (VA-42, VA-43).

    state: planned, pending, submitting, verifying, uncertain, promoted, then ended as done or abandoned; needs_human stays
    open until a person decides. evidence: which probe said what, in order; no value.
    """

    __tablename__ = "rotation"
    __table_args__ = (
        Index("uq_rotation_open", "credential_id", unique=True, postgresql_where=LIVE, sqlite_where=LIVE),
        Index("ix_rotation_waiting", "next_at", postgresql_where=LIVE, sqlite_where=LIVE),
    )

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    credential_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sealed_credential.id"))
    old_version: Mapped[int]
    new_version: Mapped[int | None]
    #: import, leaver, leak, schedule, owner
    trigger: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="planned")
    code: Mapped[str | None] = mapped_column(String(40))
    #: rounds of NEW that the tool refused for a rule
    rounds: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    leased_until: Mapped[datetime | None]
    next_at: Mapped[datetime]
    evidence: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    deadline_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
