"""Emptying rows: the personal block at an erasure, the body when its class's time is over. Proofs stay valid (AU-09).

The only module that does either; the triggers let nothing else through. A verifier tells an emptied row from a tampered one by a
row that says why (docs/protocols/evidence.md 2), so whoever empties writes one in the same transaction, or before:

- an erasure: `Tag.PERSONAL_ERASED` with `subject_id`; it covers the personal block of rows whose subject or actor this is;
- the end of a retention period: `Tag.RETENTION_ENDED` with detail `tag`, `before` (`leaf.instant`) and `part` (`body` or
  `personal`); it covers rows of that tag from before that instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from idp.core.errors import Conflict
from idp.ledgers.audit import leaf
from idp.ledgers.audit.models import AuditEvent

_TABLE: Table = AuditEvent.__table__  # type: ignore[assignment]

EMPTY_PERSONAL: dict[str, Any] = {"personal": None, "personal_salt": None}
EMPTY_BODY: dict[str, Any] = {
    "result": "", "actor_kind": "", "actor_id": None, "store_id": None, "subject_id": None, "application_id": None,
    "request_id": "", "software": "", "detail": {},
}  # fmt: skip


def personal(session: Session, *which: ColumnElement[bool], limit: int = 1000) -> int:
    """Erase the personal block of sealed rows that match. Returns how many; call again until 0.

    Raises Conflict when a row is not what was sealed: emptying it would hide that.
    """
    rows = _sealed(session, *which, AuditEvent.personal_salt.is_not(None), limit=limit)
    return _write(session, [
        {"row": row.id, "personal_hash": leaf.personal_digest(row), **EMPTY_PERSONAL} for row in rows
    ], {*EMPTY_PERSONAL, "personal_hash"})  # fmt: skip


def body(session: Session, *which: ColumnElement[bool], limit: int = 1000) -> int:
    """Empty the body of sealed rows that match. Returns how many; call again until 0. Raises Conflict as `personal`."""
    rows = _sealed(session, *which, AuditEvent.body_hash.is_(None), limit=limit)
    return _write(session, [
        {"row": row.id, "body_hash": leaf.body_digest(row), **EMPTY_BODY} for row in rows
    ], {*EMPTY_BODY, "body_hash"})  # fmt: skip


def _sealed(session: Session, *which: ColumnElement[bool], limit: int) -> Sequence[Any]:
    """Sealed rows of a version that we can encode, each checked against its leaf hash."""
    query = (
        select(_TABLE)
        .where(*which, AuditEvent.leaf_index.is_not(None), AuditEvent.leaf_version == leaf.VERSION)
        .order_by(AuditEvent.leaf_index)
        .limit(limit)
        .with_for_update()
    )
    rows = session.execute(query).all()
    for row in rows:
        if leaf.leaf_hash(row) != row.leaf_hash:
            raise Conflict(
                "監査ログの行が、封印したときと違います。消さずに調べてください。",
                f"audit_event {row.id} is not its leaf",
            )
    return rows


def _write(session: Session, rows: list[dict[str, Any]], columns: set[str]) -> int:
    if rows:
        values: dict[str, Any] = {name: bindparam(name) for name in columns}
        session.connection().execute(update(_TABLE).where(_TABLE.c.id == bindparam("row")).values(values), rows)
    return len(rows)
