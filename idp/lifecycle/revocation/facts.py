"""The facts of a revocation as the log records them: every row about one carries the SHA-256 of this, so that a pack taken at any
later time can be held against the tree (AU-20, RV-07).

Ids, states, times and evidence; no names, which the directory owns and erasure takes away. Only what never changes without an
audit row is here: a lease or the time of the next try is not.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from idp.core.db import Query, prepared, run
from idp.ledgers.audit import leaf
from idp.lifecycle.revocation.models import Cut, Evidence, Revocation
from idp.lifecycle.revocation.receipt import contract_state
from idp.lifecycle.revocation.words import CutState

FORMAT = "sekisho-facts-1"


@prepared
def _revocation() -> Query:
    return select(*Revocation.__table__.c).where(Revocation.id == bindparam("revocation_id"))


@prepared
def _lines() -> Query:
    return select(*Cut.__table__.c).where(Cut.revocation_id == bindparam("revocation_id")).order_by(Cut.position)


@prepared
def _proofs() -> Query:
    return (
        select(*Evidence.__table__.c)
        .join(Cut, Cut.id == Evidence.cut_id)
        .where(Cut.revocation_id == bindparam("revocation_id"))
        .order_by(Evidence.id)
    )


def of(session: Session, revocation_id: uuid.UUID) -> dict[str, Any]:
    """The facts as they are in this transaction. Take the revocation's row before, or another line may close meanwhile.

    Plain rows and not entities: they are read again for every change, and a receipt may have a thousand lines.
    """
    key = {"revocation_id": revocation_id}
    r = run(session, _revocation(), key).one()
    proofs: dict[uuid.UUID, list[Any]] = {}
    for row in run(session, _proofs(), key):
        proofs.setdefault(row.cut_id, []).append(row)
    return {
        "format": FORMAT, "id": str(r.id), "number": r.number, "company": str(r.company_id), "account": str(r.account_id),
        "store": _id(r.store_id), "scope": r.scope_kind, "scope_id": str(r.scope_id), "reason": r.reason, "door": r.door,
        "actor_kind": r.actor_kind, "requested_by": _id(r.requested_by), "requested_at": _t(r.requested_at), "hr_at": _t(r.hr_at), "t0": _t(r.t0),
        "completed_at": _t(r.completed_at), "reopened_at": _t(r.reopened_at),
        "lines": [_line(cut, proofs.get(cut.id, ())) for cut in run(session, _lines(), key)],
    }  # fmt: skip


def stamp(facts: dict[str, Any]) -> dict[str, Any]:
    """What a row of the log says of the facts: their digest, and a number that only grows, because the order of rows inside a
    batch means nothing (D15). It counts the evidence, and every row about a line comes with a new piece of it."""
    return {"facts": digest(facts), "facts_no": sum(len(line["evidence"]) for line in facts["lines"])}


def digest(facts: dict[str, Any]) -> str:
    """SHA-256 of the canonical facts, hexadecimal."""
    return hashlib.sha256(leaf.canonical(facts)).hexdigest()


def _line(cut: Any, proofs: Sequence[Any]) -> dict[str, Any]:
    done = cut.state == CutState.DONE.value
    return {
        "position": cut.position, "kind": cut.kind, "application": _id(cut.application_id), "count": cut.count,
        "contract": contract_state(cut), "open": not done, "grade": cut.grade if done else None,
        "residual_until": _t(cut.residual_until), "deadline_at": _t(cut.deadline_at), "done_at": _t(cut.done_at),
        "closed_by": _id(cut.closed_by),
        "note_sha256": _note(cut),
        "evidence": [
            {"id": str(e.id), "at": _t(e.created_at), "kind": e.kind, "grade": e.grade, "detail": e.detail} for e in proofs
        ],
    }  # fmt: skip


def _note(cut: Cut) -> str | None:
    if cut.close_note_hash is not None:
        return cut.close_note_hash.hex()
    return hashlib.sha256(cut.close_note.encode()).hexdigest() if cut.close_note else None


def _id(value: uuid.UUID | None) -> str | None:
    return str(value) if value is not None else None


def _t(at: datetime | None) -> str | None:
    return leaf.instant(at) if at is not None else None
