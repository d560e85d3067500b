"""How fast a cut is: personnel record → request → local cut → everything confirmed (AU-22). p50, p95, longest, per store.

Percentiles are nearest-rank over every revocation of the period, no sample and no estimate. A cut that is not complete yet
has no duration; it is counted beside the figures instead, because leaving it out silently would make a slow store look fast.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.domain.directory import scope
from idp.domain.directory.models import Company, Store
from idp.domain.directory.roles import Power
from idp.domain.directory.scope import Viewer
from idp.lifecycle.oversight.access import Which
from idp.lifecycle.revocation.models import Revocation
from idp.lifecycle.revocation.words import Scope

CHUNK = 5000
STEPS = ("hr_to_cut", "asked_to_cut", "cut_to_confirmed", "hr_to_confirmed")
#: upper bounds of the bars, in seconds, of the time from the local cut to the last confirmation
BARS = (1, 10, 60, 300, 3600, 86400, math.inf)


@dataclass(frozen=True)
class Figures:
    """Of one step: how many were measured, and seconds."""

    count: int
    p50: float
    p95: float
    longest: float


@dataclass
class Line:
    """One company or store. open: not complete yet, oldest_open: the longest waiting of them."""

    company: str
    store: str
    name: str
    total: int = 0
    open: int = 0
    oldest_open: datetime | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})

    def figures(self, step: str) -> Figures | None:
        """None where nothing was measured."""
        return figures(self.seconds[step])


def figures(seconds: Sequence[float]) -> Figures | None:
    """Nearest-rank percentiles: the value that at least so many per cent do not exceed."""
    if not seconds:
        return None
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Figures(len(ordered), rank(0.5), rank(0.95), ordered[-1])


@dataclass
class Report:
    """The whole scope in one line, then one line for each store, the slowest first."""

    whole: Line
    stores: list[Line]

    def bars(self) -> list[int]:
        """How many cuts were confirmed within each bound of `BARS`."""
        found = [0] * len(BARS)
        for seconds in self.whole.seconds["cut_to_confirmed"]:
            found[next(n for n, bound in enumerate(BARS) if seconds <= bound)] += 1
        return found


def measure(session: Session, viewer: Viewer, which: Which, *, since: datetime, until: datetime) -> Report:
    """Read the revocations of a period, each once, in chunks. Only those that end a person or a place of work count: ending
    one login session is no departure."""
    whole, places = Line("", "", ""), dict[uuid.UUID | None, Line]()
    for row in _each(session, viewer, which, since, until):
        here = places.setdefault(row.store_id, Line(row.company, row.code or "", row.name or ""))
        for line in (whole, here):
            _add(line, row)
    return Report(whole, sorted(places.values(), key=_slowness))


def _slowness(line: Line) -> tuple[float, str, str]:
    found = line.figures("cut_to_confirmed")
    return (-(found.p95 if found else 0.0), line.company, line.store)


def _each(session: Session, viewer: Viewer, which: Which, since: datetime, until: datetime) -> Iterator[Any]:
    query = (
        select(
            Revocation.id, Revocation.store_id, Revocation.hr_at, Revocation.requested_at, Revocation.t0, Revocation.completed_at,
            Company.code.label("company"), Store.code, Store.name,
        )
        .join(Company, Company.id == Revocation.company_id)
        .outerjoin(Store, Store.id == Revocation.store_id)
        .where(
            # an id is made at t0, so the period is a range of the primary key
            Revocation.id >= ids.first_id(since), Revocation.id < ids.first_id(until),
            Revocation.scope_kind.in_((Scope.ACCOUNT.value, Scope.ASSIGNMENT.value)), _seen(viewer),
        )
        .order_by(Revocation.id)
        .limit(CHUNK)
    )  # fmt: skip
    if which.company_id is not None:
        query = query.where(Revocation.company_id == which.company_id)
    if which.store is not None:
        query = query.where(Revocation.store_id == which.store.id)
    after: uuid.UUID | None = None
    while True:
        rows = session.execute(query.where(Revocation.id > after) if after is not None else query).all()
        yield from rows
        if len(rows) < CHUNK:
            return
        after = rows[-1].id


def _seen(viewer: Viewer) -> ColumnElement[bool]:
    """Company reach sees all of it; below that a store's own."""
    return or_(scope.companies(viewer, Power.SEE_LOG), scope.stores(viewer, Power.SEE_LOG))


def _add(line: Line, row: Any) -> None:
    line.total += 1
    steps = {
        "hr_to_cut": (row.hr_at, row.t0), "asked_to_cut": (row.requested_at, row.t0), "cut_to_confirmed": (row.t0, row.completed_at),
        "hr_to_confirmed": (row.hr_at, row.completed_at),
    }  # fmt: skip
    for step, (begin, end) in steps.items():
        if begin is not None and end is not None:
            line.seconds[step].append(max(0.0, (end - begin).total_seconds()))
    if row.completed_at is None:
        line.open += 1
        line.oldest_open = min(line.oldest_open or row.t0, row.t0)
