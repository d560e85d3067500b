"""The audit table and what seals it: tiles of the tree, signed checkpoints, origins, anchors; and the counter of refusals.

A row has three parts (docs/protocols/evidence.md, docs/decisions/0020): the *head* (id, time, tag, company), which stays for
ever; the *body*, which retention empties when its class is over; the *personal* block, which erasure empties. The leaf of the
tree holds the digests of the last two, so that emptying one leaves every proof valid (AU-09). Triggers on both engines allow
exactly these changes and no deletion (AU-06).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, SmallInteger, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base

REFUSED = text("result = 'refused'")


def _some(column: str) -> Index:
    some = text(f"{column} IS NOT NULL")
    return Index(f"ix_audit_event_{column[:-3]}", column, "id", postgresql_where=some, sqlite_where=some)


class AuditEvent(Base):
    """One thing that happened. Holds ids, never names; an address, and what else speaks of a person, is in `personal`.

    No foreign keys: the log outlives what it speaks of. `leaf_index` and `leaf_hash` are the sealer's and start empty.
    `body_hash` is set when the body was emptied (detail `{}`, texts empty, ids NULL), `personal_hash` when the personal block
    was: `idp.ledgers.audit.empty` is the only place that does either.
    """

    __tablename__ = "audit_event"
    # ids are UUIDv7: (column, id) is (column, time). Partial, so that a row pays only for what it names (ADR 0025)
    __table_args__ = (
        Index("ix_audit_event_company", "company_id", "id"),
        Index("ix_audit_event_tag", "company_id", "tag", "id"),
        _some("subject_id"), _some("actor_id"), _some("store_id"), _some("application_id"),
        Index("ix_audit_event_refused", "company_id", "id", postgresql_where=REFUSED, sqlite_where=REFUSED),
        Index(
            "ix_audit_event_unsealed",
            "created_at",
            "id",
            postgresql_where=text("leaf_index IS NULL"),
            sqlite_where=text("leaf_index IS NULL"),
        ),
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
    #: the version of Sekisho that wrote the row (AU-11)
    software: Mapped[str] = mapped_column(String(16), default="", server_default="")
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    #: `address` (where from) and other personal facts; NULL when there are none or when they were erased
    personal: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    personal_salt: Mapped[bytes | None] = mapped_column(LargeBinary(16))
    personal_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    body_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    #: the encoding of the leaf (AU-08): a newer one is an opaque leaf to older software
    leaf_version: Mapped[int] = mapped_column(SmallInteger, default=1, server_default="1")
    leaf_index: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    leaf_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class AuditTile(Base):
    """Stored nodes: up to 256 hashes of complete subtrees of 256^level leaves, from number 256 × position (tlog-tiles).

    Level 0 holds the leaf hashes. The last tile of a level grows; a trigger lets it do nothing else.
    """

    __tablename__ = "audit_tile"
    __table_args__ = (Index("uq_audit_tile_place", "level", "position", unique=True),)

    level: Mapped[int] = mapped_column(SmallInteger)
    position: Mapped[int] = mapped_column(BigInteger)
    hashes: Mapped[bytes] = mapped_column(LargeBinary)


class AuditOrigin(Base):
    """A name under which checkpoints are signed. A second one exists only after an operator said so, with a signed link."""

    __tablename__ = "audit_origin"

    name: Mapped[str] = mapped_column(String(200), unique=True)
    #: the verifier key of the log, as in C2SP signed-note: `name+hash+base64`
    vkey: Mapped[str] = mapped_column(String(400))
    #: the size at which this origin goes on from the one before it; 0 for the first
    began_at_size: Mapped[int] = mapped_column(BigInteger)
    #: signed note that names the origin before, what it had last signed, and why it was given up; NULL for the first
    link: Mapped[str | None] = mapped_column(Text)


class AuditCheckpoint(Base):
    """A signed head of the tree (C2SP tlog-checkpoint). Written once."""

    __tablename__ = "audit_checkpoint"
    __table_args__ = (Index("uq_audit_checkpoint_size", "origin_id", "size", unique=True),)

    origin_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("audit_origin.id"))
    size: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[bytes] = mapped_column(LargeBinary(32))
    note: Mapped[str] = mapped_column(Text)


class AuditSealer(Base):
    """One row: who seals (a lease with a fence), how far the tree goes, and why it stands still if it does (AU-03, AU-04)."""

    __tablename__ = "audit_sealer"

    name: Mapped[str] = mapped_column(String(16), unique=True)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    holder: Mapped[str] = mapped_column(String(80), default="")
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_until: Mapped[datetime | None]
    alarm: Mapped[str | None] = mapped_column(String(400))
    alarm_at: Mapped[datetime | None]


class AuditAnchor(Base):
    """A checkpoint that a second place took (AU-05)."""

    __tablename__ = "audit_anchor"
    __table_args__ = (Index("ix_audit_anchor_place_at", "place", "created_at"),)

    place: Mapped[str] = mapped_column(String(300))
    checkpoint_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("audit_checkpoint.id"))
    size: Mapped[int] = mapped_column(BigInteger)


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
