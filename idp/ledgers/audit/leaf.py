"""The leaf of a row: its canonical bytes and their hash. Format: docs/protocols/evidence.md 2 (AU-08, AU-09).

A leaf is canonical JSON (RFC 8785; there are no floating-point numbers in it):

    {"at", "body", "company", "id", "personal", "tag", "v"}

`body` is the SHA-256 of the canonical body, `personal` the SHA-256 of salt and canonical personal block, or null for a row
that never had one. Emptying either leaves the leaf as it was. `v` is the version; software that does not know it takes the
stored hash as an opaque leaf.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import Any, Protocol

VERSION = 1


class Row(Protocol):
    """What is read of an `audit_event` row, mapped or not."""

    id: Any
    created_at: Any
    tag: Any
    result: Any
    actor_kind: Any
    actor_id: Any
    company_id: Any
    store_id: Any
    subject_id: Any
    application_id: Any
    request_id: Any
    software: Any
    detail: Any
    personal: Any
    personal_salt: Any
    personal_hash: Any
    body_hash: Any


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def canonical(data: Any) -> bytes:
    """RFC 8785 for what we put in: objects with ASCII keys, texts, integers, booleans, null, lists. UTF-8.

    Never raises for what a JSON column held: half a surrogate pair becomes `?`, because a row that cannot be encoded would
    stop the sealer, and somebody would send one.
    """
    return _encode(data).encode("utf-8", "replace")


def instant(at: datetime) -> str:
    """UTC with microseconds, which is what both engines keep: 2026-11-22T02:03:04.000005Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def body(row: Row) -> dict[str, Any]:
    """The body as it is hashed and exported."""
    return {
        "result": row.result, "actor_kind": row.actor_kind, "actor": _id(row.actor_id), "store": _id(row.store_id),
        "subject": _id(row.subject_id), "application": _id(row.application_id), "request": row.request_id,
        "software": row.software, "detail": row.detail,
    }  # fmt: skip


def body_digest(row: Row) -> bytes:
    """32 bytes: of the body, or the one kept when the body was emptied."""
    kept: bytes | None = row.body_hash
    return kept if kept is not None else hashlib.sha256(canonical(body(row))).digest()


def personal_digest(row: Row) -> bytes | None:
    """32 bytes: of salt and personal block, or the one kept when it was erased; None for a row without one."""
    if row.personal is None:
        kept: bytes | None = row.personal_hash
        return kept
    return hashlib.sha256(row.personal_salt + canonical(row.personal)).digest()


def encode(row: Row) -> bytes:
    """The canonical bytes of the leaf, version 1."""
    personal = personal_digest(row)
    return canonical({
        "v": VERSION, "id": str(row.id), "at": instant(row.created_at), "tag": row.tag, "company": _id(row.company_id),
        "body": body_digest(row).hex(), "personal": personal.hex() if personal is not None else None,
    })  # fmt: skip


def leaf_hash(row: Row) -> bytes:
    """RFC 9162 2.1.1: SHA-256 over 0x00 and the leaf."""
    return hashlib.sha256(b"\x00" + encode(row)).digest()


def _id(value: uuid.UUID | None) -> str | None:
    return str(value) if value is not None else None
