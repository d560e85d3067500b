"""Finding rows of the log, newest first, in tens of millions of them: no COUNT, no OFFSET, and a bound on what one page reads.

Row ids are UUIDv7, so the primary key is the order of time, a range of time is a range of ids, and every index is
(column, id). One filter drives: the one whose column usually has the fewest rows. The others are tested on the rows it
yields, of which one page reads at most `SCAN`. What was not reached is said, with the place to go on from (ADR 0025):
a combination that matches nothing must not read a company's whole log, and an index for each combination would be paid
for at every token. Whose rows somebody may see is decided above (`lifecycle.oversight`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, literal_column, select
from sqlalchemy.orm import Session, aliased

from idp.core import ids
from idp.ledgers.audit.models import AuditEvent

#: candidates that one page reads before it says how far it came
SCAN = 10_000
#: a condition on rows, built for the table or for the candidates read from it
Test = Callable[[Any], ColumnElement[bool]]
#: which filters one index answers, the most selective first
DRIVERS = (
    ("subject_id",), ("actor_id",), ("store_id",), ("application_id",), ("company_id", "tag"), ("company_id", "refused"), ("company_id",),
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What is looked for; None is *any*. since and until: instants, until excluded. also: what else whoever asks is held to."""

    company_id: uuid.UUID | None = None
    subject_id: uuid.UUID | None = None
    actor_id: uuid.UUID | None = None
    store_id: uuid.UUID | None = None
    application_id: uuid.UUID | None = None
    tag: str | None = None
    result: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    also: Test | None = None


@dataclass(frozen=True)
class Found:
    """One page. after: go on below this id; None when there is nothing more. stopped_at: set when the page is not full
    because `SCAN` was reached: everything newer than this instant has been searched."""

    rows: tuple[AuditEvent, ...]
    after: uuid.UUID | None
    stopped_at: datetime | None = None


def query(wanted: Wanted, *, before: uuid.UUID | None, scan: int = SCAN) -> Select[AuditEvent]:
    """The statement behind a page, without its limit: candidates of the driving filter, at most `scan`, and the other tests."""
    driving, rest = _split(wanted)
    reached = (*_span(wanted, before), *(test(AuditEvent) for test in driving))
    candidates = select(AuditEvent).where(*reached).order_by(AuditEvent.id.desc())
    if not rest:
        return candidates
    row = aliased(AuditEvent, candidates.limit(scan).subquery())
    return select(row).where(*(test(row) for test in rest)).order_by(row.id.desc())


def find(session: Session, wanted: Wanted, *, before: uuid.UUID | None, limit: int, scan: int = SCAN) -> Found:
    """At most `limit` rows older than `before`, newest first."""
    rows = tuple(session.scalars(query(wanted, before=before, scan=scan).limit(limit + 1)))
    if len(rows) > limit:
        return Found(rows[:limit], rows[limit - 1].id)
    driving, rest = _split(wanted)
    if not rest:
        return Found(rows, None)
    reached = (*_span(wanted, before), *(test(AuditEvent) for test in driving))
    read = select(AuditEvent.id).where(*reached).order_by(AuditEvent.id.desc()).limit(scan).subquery()
    last = session.scalar(select(read.c.id).order_by(read.c.id).limit(1))
    older = select(AuditEvent.id).where(*_span(wanted, last), *(test(AuditEvent) for test in driving))
    if last is None or session.scalar(older.order_by(AuditEvent.id.desc()).limit(1)) is None:
        return Found(rows, None)
    return Found(rows, last, ids.instant_of(last))


def each(session: Session, wanted: Wanted, *, chunk: int = 1000) -> Iterator[Sequence[AuditEvent]]:
    """Everything wanted, newest first, in chunks: for exports, in constant memory. Nothing is left out."""
    before: uuid.UUID | None = None
    while True:
        found = find(session, wanted, before=before, limit=chunk)
        yield found.rows
        session.expunge_all()
        if found.after is None:
            return
        before = found.after


def one(session: Session, event_id: uuid.UUID, wanted: Wanted) -> AuditEvent | None:
    """One row by id, if it is among the wanted."""
    tests = _tests(wanted).values()
    return session.scalar(select(AuditEvent).where(AuditEvent.id == event_id, *(test(AuditEvent) for test in tests)))


def _span(wanted: Wanted, before: uuid.UUID | None) -> tuple[ColumnElement[bool], ...]:
    bounds: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        bounds.append(AuditEvent.id >= ids.first_id(wanted.since))
    ceilings = [ids.first_id(wanted.until)] if wanted.until is not None else []
    if before is not None:
        ceilings.append(before)
    if ceilings:
        bounds.append(AuditEvent.id < min(ceilings))
    return tuple(bounds)


def _split(wanted: Wanted) -> tuple[tuple[Test, ...], tuple[Test, ...]]:
    """The conditions that one index answers, and the others."""
    tests = _tests(wanted)
    driver = next((names for names in DRIVERS if tests.keys() >= set(names)), ())
    return tuple(tests[name] for name in driver), tuple(test for name, test in tests.items() if name not in driver)


def _tests(wanted: Wanted) -> dict[str, Test]:
    found: dict[str, Test] = {}
    for name in ("subject_id", "actor_id", "store_id", "application_id", "company_id", "tag"):
        if getattr(wanted, name) is not None:
            found[name] = _equals(name, getattr(wanted, name))
    if wanted.result is not None:
        name = "refused" if wanted.result == "refused" else "result"
        # written out: a parameter would hide the partial index on refusals from the planner
        found[name] = _equals("result", literal_column("'refused'" if name == "refused" else "'ok'"))
    if wanted.also is not None:
        found["also"] = wanted.also
    return found


def _equals(column: str, value: Any) -> Test:
    return lambda row: getattr(row, column) == value
