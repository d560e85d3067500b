"""Who could use what on a day: from the rows' own beginnings and ends, by the rule that the gate itself uses.

What the schema can tell about the past: assignments, entitlements, applications, stores and companies are never deleted and
never change their meaning in place; each carries when it began and when it ended, and somebody who came back has new
assignment rows, so the gap between is seen. What it cannot tell is on the page and in docs/operations/audit.md: it lists what
somebody was allowed to do, not what they did, and an end date that was moved is known by its last value only.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from idp.domain.applications.decide import Grant, Place, StoreRole, meets
from idp.domain.applications.models import Application, Entitlement
from idp.domain.directory import scope
from idp.domain.directory.models import Account, Assignment, Company, Region, Store
from idp.domain.directory.roles import Power
from idp.domain.directory.scope import Viewer


@dataclass(frozen=True)
class Span:
    """A stretch of time: begin included, end excluded, None = not ended yet."""

    begin: datetime
    end: datetime | None

    def cut(self, other: Span) -> Span | None:
        """What both have in common, or None."""
        begin = max(self.begin, other.begin)
        end = min((e for e in (self.end, other.end) if e is not None), default=None)
        return Span(begin, end) if end is None or end > begin else None


@dataclass(frozen=True)
class Which:
    """Of whom: a company, or None for every one; perhaps one store, one application."""

    company_id: uuid.UUID | None
    store: Store | None = None
    application: Application | None = None


@dataclass(frozen=True)
class Right:
    """What one person was allowed to use on the day. until: None where it had not ended."""

    account_id: uuid.UUID
    login: str
    name: str
    places: tuple[StoreRole | str, ...]
    application: str
    application_name: str
    functions: tuple[str, ...]
    since: datetime
    until: datetime | None


@dataclass(frozen=True)
class _Placed:
    place: Place
    span: Span


@dataclass(frozen=True)
class _Granted:
    application: Application
    grant: Grant
    span: Span
    company_id: uuid.UUID | None


@dataclass(frozen=True)
class Page:
    """Some people and their rights, by account id. after: go on behind this one; None when there are no more."""

    people: tuple[tuple[uuid.UUID, str, str], ...]
    rights: tuple[Right, ...]
    after: uuid.UUID | None


def on_day(
    session: Session, viewer: Viewer, which: Which, day: Span, *, after: uuid.UUID | None = None, limit: int = 25
) -> Page:
    """The rights that touched the day, for at most `limit` people. People without any right are left out of `rights`."""
    found = session.execute(_people(viewer, which, day, after).limit(limit + 1)).all()
    rows = found[:limit]
    whose = [row.id for row in rows]
    placed = _placed(session, viewer, whose, which, day)
    granted = _granted(session, which, rows, day)
    rights = [
        right
        for row in rows
        for right in _rights(
            row, placed.get(row.id, []), granted, Span(row.created_at, _end(row.ended_at, row.ends_at)), day
        )
    ]
    people = tuple((row.id, f"{row.code}/{row.login_name}", row.name) for row in rows)
    return Page(people, tuple(rights), rows[-1].id if len(found) > limit else None)


def _people(viewer: Viewer, which: Which, day: Span, after: uuid.UUID | None) -> Any:
    there = [
        Assignment.account_id == Account.id,
        *_touches(day, Assignment.starts_at, Assignment.ended_at, Assignment.ends_at),
    ]
    if which.store is not None:
        there.append(Assignment.store_id == which.store.id)
    query = (
        select(
            Account.id, Account.login_name, Account.name, Account.company_id, Account.created_at, Account.ended_at, Account.ends_at,
            Company.code, Company.ended_at.label("company_ended_at"),
        )
        .join(Company, Company.id == Account.company_id)
        .where(
            scope.accounts(viewer, Power.SEE_LOG), *_touches(day, Account.created_at, Account.ended_at, Account.ends_at),
            exists(select(Assignment.id).where(*there)),
        )
        .order_by(Account.id)
    )  # fmt: skip
    if which.company_id is not None:
        query = query.where(Account.company_id == which.company_id)
    if which.store is not None:  # begins at the store's few assignments instead of at everybody
        query = query.where(Account.id.in_(select(Assignment.account_id).where(Assignment.store_id == which.store.id)))
    return query.where(Account.id > after) if after is not None else query


def _touches(day: Span, begin: Any, *ends: Any) -> list[ColumnElement[bool]]:
    return [begin < day.end, *(or_(end.is_(None), end > day.begin) for end in ends)]


def _end(*ends: datetime | None) -> datetime | None:
    return min((end for end in ends if end is not None), default=None)


def _placed(
    session: Session, viewer: Viewer, whose: Sequence[uuid.UUID], which: Which, day: Span
) -> dict[uuid.UUID, list[_Placed]]:
    """The assignments of these people that touched the day, as far as the viewer may know of them."""
    wide = scope.companies(viewer, Power.SEE_LOG)
    rows = session.execute(
        select(Assignment, Store, Region, Company.ended_at)
        .join(Company, Company.id == Assignment.company_id)
        .outerjoin(Store, Store.id == Assignment.store_id)
        .outerjoin(Region, Region.id == Assignment.region_id)
        .where(
            Assignment.account_id.in_(whose), *_touches(day, Assignment.starts_at, Assignment.ended_at, Assignment.ends_at),
            or_(wide, and_(Store.id.is_not(None), scope.stores(viewer, Power.SEE_LOG))),
        )
        .order_by(Assignment.id)
    )  # fmt: skip
    found: dict[uuid.UUID, list[_Placed]] = {}
    for assignment, store, region, company_ended_at in rows:
        if which.store is not None and (store is None or store.id != which.store.id):
            continue
        at = StoreRole(store.code, store.name, assignment.role) if store else None
        path = store.path if store else region.path if region else "/"
        place = Place(assignment.id, assignment.role, assignment.company_id, assignment.store_id, at, path)
        over = _end(assignment.ended_at, assignment.ends_at, store.ended_at if store else None, company_ended_at)
        found.setdefault(assignment.account_id, []).append(_Placed(place, Span(assignment.starts_at, over)))
    return found


def _granted(session: Session, which: Which, people: Sequence[Any], day: Span) -> list[_Granted]:
    """The entitlements that touched the day and may concern these people."""
    companies = {row.company_id for row in people}
    own = or_(Entitlement.subject_kind != "account", Entitlement.subject_id.in_([row.id for row in people]))
    query = (
        select(Entitlement, Application, Region.path)
        .join(Application, Application.id == Entitlement.application_id)
        .outerjoin(Region, and_(Region.id == Entitlement.subject_id, Entitlement.subject_kind == "region"))
        .where(
            *_touches(day, Entitlement.created_at, Entitlement.ended_at, Entitlement.ends_at), own,
            *_touches(day, Application.created_at, Application.ended_at),
            or_(Entitlement.company_id.is_(None), Entitlement.company_id.in_(companies)),
            or_(Application.company_id.is_(None), Application.company_id.in_(companies)),
        )
        .order_by(func.lower(Application.name), Application.id, Entitlement.id)
    )  # fmt: skip
    if which.application is not None:
        query = query.where(Application.id == which.application.id)
    found = []
    for entitlement, application, path in session.execute(query):
        grant = Grant(
            entitlement.subject_kind, entitlement.subject_id, entitlement.role, path, tuple(entitlement.functions)
        )
        over = _end(entitlement.ended_at, entitlement.ends_at, application.ended_at)
        begin = max(entitlement.created_at, application.created_at)
        found.append(_Granted(application, grant, Span(begin, over), entitlement.company_id))
    return found


def _rights(row: Any, placed: list[_Placed], granted: list[_Granted], life: Span, day: Span) -> Iterator[Right]:
    """One line for each application that an entitlement opened to one of these assignments while all three lived."""
    met: dict[uuid.UUID, list[tuple[_Granted, _Placed, Span]]] = {}
    for g in granted:
        if g.application.company_id not in {None, row.company_id} or g.company_id not in {None, row.company_id}:
            continue
        for p in placed:
            both = g.span.cut(p.span) if meets(g.grant, p.place, row.id) else None
            span = both.cut(life) if both is not None else None
            if span is not None and span.cut(day) is not None:
                met.setdefault(g.application.id, []).append((g, p, span))
    for several in met.values():
        application = several[0][0].application
        functions = {name for g, _, _ in several for name in g.grant.functions} & set(application.functions)
        ends = [span.end for _, _, span in several]
        places = dict.fromkeys(p.place.store or p.place.role for _, p, _ in several)
        yield Right(
            row.id, f"{row.code}/{row.login_name}", row.name, tuple(places), application.slug, application.name, tuple(sorted(functions)),
            min(span.begin for _, _, span in several), None if None in ends else max(end for end in ends if end is not None),
        )  # fmt: skip
