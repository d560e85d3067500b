"""Questions to the log, inside the scope of whoever asks (WB-07, AU-12).

The operator sees every company, head office and auditors their company. Below that the log is a store's: its own rows, and
those of its people that name no other store and fall into the time in which they worked there. Somebody who left for
another store is not watched by the first one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.errors import Invalid, NotFound
from idp.domain.applications.models import Application
from idp.domain.directory import people, scope
from idp.domain.directory.models import Account, Assignment, Company, Store
from idp.domain.directory.roles import ROLES, Power, Reach
from idp.domain.directory.scope import Viewer
from idp.ledgers.audit import search
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.audit.search import Test, Wanted
from idp.lifecycle.oversight.access import Which
from idp.lifecycle.revocation.models import Cut, Revocation

DEFAULT_SPAN = timedelta(days=7)
MOST_CHOICES = 20
MISSING = "ページが見つかりません。URLが変わったか、見る権限がありません。"


@dataclass(frozen=True)
class Question:
    """What somebody typed: codes and numbers, not ids. Empty texts are *any*."""

    person: str = ""
    actor: str = ""
    store: str = ""
    application: str = ""
    company: str = ""
    tag: str = ""
    result: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Asked:
    """A question that can be answered. choices: people to choose from where a text meets several; then nothing is searched.
    needs_place: the viewer has to name a store or a person first."""

    wanted: Wanted
    person: Account | None = None
    actor: Account | None = None
    store: Store | None = None
    application: Application | None = None
    choices: tuple[Account, ...] = ()
    needs_place: bool = False

    @property
    def answerable(self) -> bool:
        """True when a search may run."""
        return not self.choices and not self.needs_place

    def as_detail(self) -> dict[str, Any]:
        """The question as ids and codes, for the row that says who looked (AU-12): no names."""
        w = self.wanted
        parts = {
            "about": w.subject_id, "by": w.actor_id, "in_store": w.store_id, "in_application": w.application_id, "in_company": w.company_id,
            "event": w.tag, "result_wanted": w.result, "since": w.since, "until": w.until,
        }  # fmt: skip
        return {name: value for name, value in parts.items() if value is not None}


def is_wide(viewer: Viewer) -> bool:
    """True when the viewer reads the log of a company or of the platform."""
    return bool(_reaches(viewer) & {Reach.PLATFORM, Reach.COMPANY})


def is_operator(viewer: Viewer) -> bool:
    """True when the viewer reads every company's log."""
    return Reach.PLATFORM in _reaches(viewer)


def _reaches(viewer: Viewer) -> set[Reach]:
    return {ROLES[s.role].reach for s in viewer.standings_with(Power.SEE_LOG)}


def own_stores(session: Session, viewer: Viewer, *, limit: int = 50) -> list[Store]:
    """The stores a narrow viewer may choose from, by code."""
    query = select(Store).where(scope.stores(viewer, Power.SEE_LOG)).order_by(Store.code, Store.id).limit(limit)
    return list(session.scalars(query))


def ask(session: Session, viewer: Viewer, question: Question) -> Asked:
    """Turn what was typed into a search. Raises Invalid at the field of what does not exist or is not this viewer's to see."""
    if question.since and question.until and question.since >= question.until:
        raise Invalid("終わりは始まりより後にしてください。", field="until")
    if question.tag and question.tag not in {tag.value for tag in Tag}:
        raise Invalid("この出来事の種類はありません。", field="event")
    if question.result not in {"", "ok", "refused"}:
        raise Invalid("この結果の種類はありません。", field="result")
    company_id = _company(session, viewer, question.company)
    store = _store(session, viewer, company_id, question.store)
    application = _application(session, viewer, question.application)
    found = [find_people(session, viewer, text, company_id=company_id) for text in (question.person, question.actor)]
    for people_found, field in zip(found, ("person", "actor"), strict=True):
        if getattr(question, field) and not people_found:
            raise Invalid("この番号や名前の人は見つかりません。", field=field)
    choices = next((tuple(several) for several in found if len(several) > 1), ())
    person, actor = (several[0] if len(several) == 1 else None for several in found)
    also: Test | None = None
    needs_place = False
    if not is_wide(viewer):
        if store is None and person is None and actor is None:
            mine = own_stores(session, viewer, limit=2)
            store = mine[0] if len(mine) == 1 else None
            needs_place = store is None
        whose = [p for p in (person, actor) if p is not None]
        also = _narrow(session, viewer, whose)
    wanted = Wanted(
        company_id=company_id, subject_id=person.id if person else None, actor_id=actor.id if actor else None,
        store_id=store.id if store else None, application_id=application.id if application else None, tag=question.tag or None,
        result=question.result or None, since=question.since, until=question.until, also=also,
    )  # fmt: skip
    return Asked(wanted, person, actor, store, application, choices, needs_place)


def which(session: Session, viewer: Viewer, *, company: str, store: str, application: str) -> Which | None:
    """What a report is about, from codes. None: a viewer of several stores has to name one. Raises Invalid at the field."""
    company_id = _company(session, viewer, company)
    found = _store(session, viewer, company_id, store)
    if found is None and not is_wide(viewer):
        mine = own_stores(session, viewer, limit=2)
        if len(mine) != 1:
            return None
        found = mine[0]
    return Which(company_id, found, _application(session, viewer, application))


def _company(session: Session, viewer: Viewer, code: str) -> uuid.UUID | None:
    if not is_operator(viewer):
        return viewer.company_id
    if not code:
        return None
    found = session.scalar(select(Company.id).where(Company.code == code.strip().upper()))
    if found is None:
        raise Invalid("この会社コードの会社はありません。", field="company")
    return found


def _store(session: Session, viewer: Viewer, company_id: uuid.UUID | None, code: str) -> Store | None:
    if not code.strip():
        return None
    query = select(Store).where(Store.code == code.strip().upper(), scope.stores(viewer, Power.SEE_LOG))
    if company_id is not None:
        query = query.where(Store.company_id == company_id)
    found = session.scalars(query.limit(2)).all()
    if len(found) > 1:
        raise Invalid("同じコードの店舗が、ほかの会社にもあります。会社コードも入れてください。", field="store")
    if not found:
        raise Invalid("この店舗コードの店舗はありません。", field="store")
    return found[0]


def _application(session: Session, viewer: Viewer, slug: str) -> Application | None:
    if not slug.strip():
        return None
    query = select(Application).where(Application.slug == slug.strip().lower())
    if not is_operator(viewer):
        query = query.where(or_(Application.company_id == viewer.company_id, Application.company_id.is_(None)))
    found = session.scalar(query)
    if found is None:
        raise Invalid("この短い名前のアプリはありません。", field="application")
    return found


def find_people(session: Session, viewer: Viewer, text: str, *, company_id: uuid.UUID | None) -> list[Account]:
    """People by id, by number (also of those who left, and all who ever had it), else by the beginning of name or kana."""
    text = text.strip()
    if not text:
        return []
    mine = select(Account).where(scope.accounts(viewer, Power.SEE_LOG))
    if company_id is not None:
        mine = mine.where(Account.company_id == company_id)
    try:
        return list(session.scalars(mine.where(Account.id == uuid.UUID(text))))
    except ValueError:
        pass
    company, _, number = text.rpartition("/")
    exact = mine.where(Account.login_name == number)
    if company:
        exact = exact.join(Company, Company.id == Account.company_id).where(Company.code == company.upper())
    found = session.scalars(exact.order_by(Account.id.desc()).limit(MOST_CHOICES)).all()
    if found or company:
        return list(found)
    return list(
        people.search_people(session, viewer, text=text, company_id=company_id, limit=MOST_CHOICES, power=Power.SEE_LOG)
    )


def _narrow(session: Session, viewer: Viewer, whose: Sequence[Account]) -> Test:
    """Below company reach: rows of the viewer's stores, and rows without a store of these people while they worked there."""
    stores = select(Store.id).where(scope.stores(viewer, Power.SEE_LOG))
    spans = session.execute(
        select(Assignment.account_id, Assignment.starts_at, Assignment.ends_at, Assignment.ended_at)
        .join(Store, Store.id == Assignment.store_id)
        .where(Assignment.account_id.in_([a.id for a in whose]), scope.stores(viewer, Power.SEE_LOG))
    ).all()

    def test(row: Any) -> ColumnElement[bool]:
        there = [_inside(row, span.starts_at, span.ends_at, span.ended_at) for span in spans]
        # `== None` in SQL: a row that names another store is that store's
        return or_(row.store_id.in_(stores), and_(row.store_id.is_(None), or_(false(), *there)))

    return test


def _inside(row: Any, starts_at: datetime, *ends: datetime | None) -> ColumnElement[bool]:
    over = min((end for end in ends if end is not None), default=None)
    begun: ColumnElement[bool] = row.id >= ids.first_id(starts_at)
    # the millisecond of the end itself belongs to it: the cut is part of the story
    return begun if over is None else and_(begun, row.id < ids.first_id(over + timedelta(milliseconds=1)))


def get(session: Session, viewer: Viewer, event_id: uuid.UUID) -> AuditEvent:
    """One row, inside the viewer's scope. Raises NotFound."""
    wanted = Wanted(company_id=None if is_operator(viewer) else viewer.company_id)
    if not is_wide(viewer):
        row = session.get(AuditEvent, event_id)
        whose = row.subject_id if row is not None else None
        known = select(Account).where(Account.id == whose, scope.accounts(viewer, Power.SEE_LOG))
        wanted = replace(wanted, also=_narrow(session, viewer, session.scalars(known).all()))
    found = search.one(session, event_id, wanted)
    if found is None:
        raise NotFound(MISSING, f"event {event_id}")
    return found


def receipt_of(session: Session, row: AuditEvent) -> str | None:
    """The number of the receipt that an event belongs to, if it names one."""
    if "revocation_id" in row.detail:
        found = select(Revocation.number).where(Revocation.id == uuid.UUID(row.detail["revocation_id"]))
    elif "cut_id" in row.detail:
        found = (
            select(Revocation.number)
            .join(Cut, Cut.revocation_id == Revocation.id)
            .where(Cut.id == uuid.UUID(row.detail["cut_id"]))
        )
    else:
        return None
    return session.scalar(found)


@dataclass(frozen=True)
class Named:
    """A person as the log's pages show one: the login name, and the name where it is the viewer's company's."""

    login: str
    name: str


@dataclass(frozen=True)
class Names:
    """What the ids of some rows are called."""

    people: dict[uuid.UUID, Named]
    stores: dict[uuid.UUID, tuple[str, str]]
    applications: dict[uuid.UUID, tuple[str, str]]
    companies: dict[uuid.UUID, str]


def names(session: Session, viewer: Viewer | None, rows: Sequence[AuditEvent]) -> Names:
    """Look the ids of these rows up, four queries whatever their number. viewer None: the command line."""
    every = viewer is None or is_operator(viewer)
    who = {i for row in rows for i in (row.actor_id, row.subject_id) if i is not None}
    accounts = session.execute(
        select(Account.id, Account.company_id, Account.login_name, Account.name, Company.code)
        .join(Company, Company.id == Account.company_id)
        .where(Account.id.in_(who))
    )
    own = viewer.company_id if viewer is not None else None
    stores = session.execute(
        select(Store.id, Store.code, Store.name).where(Store.id.in_({r.store_id for r in rows if r.store_id}))
    )
    applications = session.execute(
        select(Application.id, Application.slug, Application.name).where(
            Application.id.in_({r.application_id for r in rows if r.application_id})
        )
    )
    companies = session.execute(
        select(Company.id, Company.code).where(Company.id.in_({r.company_id for r in rows if r.company_id}))
    )
    return Names(
        {a.id: Named(f"{a.code}/{a.login_name}", a.name if every or a.company_id == own else "") for a in accounts},
        {s.id: (s.code, s.name) for s in stores},
        {a.id: (a.slug, a.name) for a in applications},
        {c.id: c.code for c in companies},
    )
