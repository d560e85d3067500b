"""The pack of a period: every row between two checkpoints, and for each person who was cut the HR date against the cut (AU-22).

The population is complete because the second root needs each leaf: two checkpoints and a count (SOC 2, J-SOX).
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import IO

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.logkey import LogKey
from idp.core.settings import Settings
from idp.domain.directory.models import Account, Company, Store
from idp.ledgers.audit import bundle, leaf
from idp.ledgers.audit import store as sealed_store
from idp.lifecycle.revocation.models import Revocation

HEAD = (
    "number",
    "company",
    "store",
    "person",
    "scope",
    "reason",
    "hr_at",
    "requested_at",
    "t0",
    "completed_at",
    "late_s",
)


def write(
    file: IO[bytes], session: Session, key: LogKey, settings: Settings, *, begins: datetime, ends: datetime,
    company_id: uuid.UUID | None, now: datetime,
) -> int:  # fmt: skip
    """Write the pack. company_id: show only this company's content. Returns the number of rows. Raises Conflict."""
    at = bundle.sealed(session)
    span = bundle.span(session, at, begins=begins, ends=ends, key=key)
    made = bundle.Bundle(file)
    made.text("checkpoint.txt", at.checkpoint.note)
    made.text("first-checkpoint.txt", span.first_note)
    made.text("second-checkpoint.txt", span.second.note)
    rows = made.lines("leaves.jsonl", bundle.between(session, span.first_size, span.second.size, company_id=company_id))
    made.lines("covers.jsonl", bundle.covers(session, at))
    made.lines("cuts.csv", _cuts(session, begins, ends, company_id))
    said = bundle.manifest(session, at, kind="period", issuer=settings.issuer, places=settings.anchor_places, now=now)
    proofs = {(p["from"], p["to"]): p for p in said["consistency"]}
    pair = (span.second.size, at.checkpoint.size)
    proofs.setdefault(pair, bundle.proof(sealed_store.reader(session), *pair))
    made.close(
        {
            **said, "consistency": list(proofs.values()), "rows": rows, "company_id": str(company_id) if company_id else None,
            "begins": leaf.instant(begins), "ends": leaf.instant(ends),
            "frontier": [h.hex() for h in bundle.frontier(session, span.first_size)],
        },
        key, at.origin.name,
    )  # fmt: skip
    return rows


def _cuts(session: Session, begins: datetime, ends: datetime, company_id: uuid.UUID | None) -> Iterator[bytes]:
    """One line per revocation of the period. late_s: seconds from the HR date to T0; empty where nobody gave a date."""
    query = (
        select(Revocation, Company.code, Store.code.label("store"), Account.login_name)
        .join(Company, Company.id == Revocation.company_id)
        .join(Account, Account.id == Revocation.account_id)
        .outerjoin(Store, Store.id == Revocation.store_id)
        .where(Revocation.t0 >= begins, Revocation.t0 < ends)
        .order_by(Revocation.t0, Revocation.id)
    )
    if company_id is not None:
        query = query.where(Revocation.company_id == company_id)
    yield _csv(HEAD)
    for r, code, store, login_name in session.execute(query):
        late = round((r.t0 - r.hr_at).total_seconds()) if r.hr_at else ""
        moments = ["" if at is None else leaf.instant(at) for at in (r.hr_at, r.requested_at, r.t0, r.completed_at)]
        yield _csv((r.number, code, store or "", _safe(login_name), r.scope_kind, r.reason, *moments, late))


def _csv(cells: tuple[object, ...]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()


def _safe(text: str) -> str:
    """A login name that a spreadsheet would take for a formula gets an apostrophe (WB-08)."""
    return f"'{text}" if text[:1] in "=+-@\t\r＝＋－＠" else text
