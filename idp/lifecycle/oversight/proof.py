"""One event with the proof that it is in the sealed log, for somebody who has a checkpoint and verify.py and nothing else."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from idp.ledgers.audit import leaf, store
from idp.ledgers.audit.models import AuditEvent

FORMAT = "sekisho-event-proof-1"


def of(session: Session, row: AuditEvent) -> dict[str, Any] | None:
    """The leaf, its body, the path to the newest checkpoint, and that checkpoint (docs/operations/audit.md). None: not sealed yet.

    `index`, `leaf`, `body` and `proof` are those of an export's leaves.jsonl. Raises Conflict where the row is sealed and
    no checkpoint holds it yet.
    """
    origin, checkpoint = store.origin(session), store.latest(session)
    if row.leaf_index is None or origin is None or checkpoint is None:
        return None
    path = store.inclusion(session, row.leaf_index, checkpoint)
    body = None if row.body_hash is not None else leaf.canonical(leaf.body(row)).decode()
    return {
        "format": FORMAT, "index": row.leaf_index, "leaf": leaf.encode(row).decode(), "body": body, "proof": [h.hex() for h in path],
        "size": checkpoint.size, "checkpoint": checkpoint.note, "vkey": origin.vkey,
    }  # fmt: skip
