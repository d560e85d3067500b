"""The one gate: may this account use this application now, and with which functions?

`load_facts` reads, in one statement and always after the gate row was claimed; `decide` is pure. What was decided
before a claim decides nothing (RE-20).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, bindparam, or_, select
from sqlalchemy.orm import Session

from idp.core.db import NOW, Query, prepared, run
from idp.domain.applications.models import Application, Entitlement
from idp.domain.directory.models import Account, Assignment, Company, Region, Store
from idp.domain.directory.scope import assignment_alive

ACR_ORDER = ("urn:sekisho:aal1", "urn:sekisho:aal2", "urn:sekisho:aal3")


@dataclass(frozen=True)
class StoreRole:
    """One assignment as a relying party sees it (D20)."""

    code: str
    name: str
    role: str


@dataclass(frozen=True)
class Place:
    """One live assignment: where, and with which role."""

    assignment_id: uuid.UUID
    role: str
    company_id: uuid.UUID
    store_id: uuid.UUID | None
    store: StoreRole | None
    path: str


@dataclass(frozen=True)
class Grant:
    """One live entitlement of the application. path: of the region, when subject_kind is `region`."""

    subject_kind: str
    subject_id: uuid.UUID | None
    role: str | None
    path: str | None
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Everything that decides, read in one statement after the claim."""

    account_id: uuid.UUID
    subject: str
    login_name: str
    name: str
    locale: str
    epoch: int
    company_id: uuid.UUID
    company_code: str
    company_name: str
    places: tuple[Place, ...]
    grants: tuple[Grant, ...]


@dataclass(frozen=True)
class ApplicationFacts:
    """The application's part, from its shared row: locked before the gate, so it cannot narrow meanwhile."""

    id: uuid.UUID
    company_id: uuid.UUID | None
    functions: tuple[str, ...]
    min_acr: str | None
    alive: bool


APPLICATION_COLUMNS = (
    Application.id.label("application_id"), Application.company_id.label("application_company_id"), Application.functions,
    Application.min_acr, Application.ended_at.label("application_ended_at"),
)  # fmt: skip


def application_facts(row: Any) -> ApplicationFacts:
    """The facts in a row that has `APPLICATION_COLUMNS`."""
    return ApplicationFacts(
        row.application_id,
        row.application_company_id,
        tuple(row.functions),
        row.min_acr,
        row.application_ended_at is None,
    )


@dataclass(frozen=True)
class Allowed:
    """Yes: the functions of this application (sorted) and all stores of the account."""

    functions: tuple[str, ...]
    stores: tuple[StoreRole, ...]
    roles: frozenset[str]


Reason = Literal["application_ended", "other_company", "no_assignment", "not_entitled", "assurance"]


@dataclass(frozen=True)
class Refused:
    """No, and why: a machine word for the log and for the blocked page."""

    reason: Reason


def decide(application: ApplicationFacts, facts: Facts, *, acr: str) -> Allowed | Refused:
    """The decision. acr: assurance of the login session in which it is asked.

    An account needs a live assignment, an entitlement that meets one of them, and the assurance the application wants.
    Functions are the union over all entitlements that meet any assignment, and never more than the application has.
    """
    if not application.alive:
        return Refused("application_ended")
    if application.company_id is not None and application.company_id != facts.company_id:
        return Refused("other_company")
    if not facts.places:
        return Refused("no_assignment")
    met = [grant for grant in facts.grants if any(meets(grant, place, facts.account_id) for place in facts.places)]
    if not met:
        return Refused("not_entitled")
    if application.min_acr is not None and not acr_at_least(acr, application.min_acr):
        return Refused("assurance")
    functions = {name for grant in met for name in grant.functions} & set(application.functions)
    return Allowed(
        functions=tuple(sorted(functions)),
        stores=tuple(place.store for place in facts.places if place.store is not None),
        roles=frozenset(place.role for place in facts.places),
    )


def acr_at_least(have: str, want: str) -> bool:
    """True when `have` is the class `want` or a stronger one (D21). An unknown wish is never met."""
    return have in ACR_ORDER and want in ACR_ORDER and ACR_ORDER.index(have) >= ACR_ORDER.index(want)


def meets(grant: Grant, place: Place, account_id: uuid.UUID) -> bool:
    """True when this entitlement is given to this assignment, or to its person."""
    if grant.role is not None and grant.role != place.role:
        return False
    match grant.subject_kind:
        case "role":
            return grant.role is not None
        case "company":
            return grant.subject_id == place.company_id
        case "region":
            return grant.path is not None and place.path.startswith(grant.path)
        case "store":
            return grant.subject_id is not None and grant.subject_id == place.store_id
        case "account":
            return grant.subject_id == account_id
        case _:
            return False


def load_facts(session: Session, account_id: uuid.UUID, application_id: uuid.UUID, *, now: datetime) -> Facts | None:
    """What `decide` needs for one application, in one statement; None when the account is unknown."""
    values = {"account_id": account_id, "application_id": application_id, "now": now}
    return facts_of(run(session, _facts_of_one(), values), [application_id]).get(application_id)


def load_facts_of(
    session: Session, account_id: uuid.UUID, application_ids: Sequence[uuid.UUID], *, now: datetime
) -> dict[uuid.UUID, Facts]:
    """The same for several applications, still in one statement; empty when the account is unknown."""
    values = {"account_id": account_id, "application_ids": list(application_ids), "now": now}
    return facts_of(run(session, _facts_of_many(), values), application_ids)


@prepared
def _facts_of_one() -> Query:
    return _of_account(facts_query(Entitlement.application_id == bindparam("application_id")))


@prepared
def _facts_of_many() -> Query:
    return _of_account(facts_query(Entitlement.application_id.in_(bindparam("application_ids", expanding=True))))


def _of_account(query: Query) -> Query:
    return query.where(Account.id == bindparam("account_id"))


def facts_query(wanted: ColumnElement[bool], *, start: Any = Account, columns: Sequence[Any] = ()) -> Query:
    """Account, live assignments and candidate entitlements of the wanted applications; `facts_of` reads its rows.

    start: the account, or a join that leads to it; columns: what else to read along that join. Parameter: now.
    The join only narrows candidates, so that an application with thousands of entitlements costs no more; `decide` judges.
    """
    grant_region = Region.__table__.alias("grant_region")
    candidate = and_(
        wanted,
        Entitlement.ended_at.is_(None),
        or_(Entitlement.ends_at.is_(None), Entitlement.ends_at > NOW),
        or_(
            Entitlement.subject_id.is_(None),
            Entitlement.subject_kind == "region",
            Entitlement.subject_id.in_([Account.id, Account.company_id, Assignment.store_id]),
        ),
        or_(Entitlement.company_id.is_(None), Entitlement.company_id == Account.company_id),
    )
    return (
        select(
            *columns, Account.id.label("account_id"), Account.subject, Account.login_name, Account.name, Account.locale, Account.epoch, Account.company_id,
            Company.code.label("company_code"), Company.name.label("company_name"),
            Assignment.id.label("assignment_id"), Assignment.role, Assignment.store_id,
            Store.code.label("store_code"), Store.name.label("store_name"), Store.ended_at.label("store_ended_at"),
            Store.path.label("store_path"), Region.path.label("region_path"),
            Entitlement.id.label("entitlement_id"), Entitlement.application_id.label("grant_application_id"), Entitlement.subject_kind, Entitlement.subject_id,
            Entitlement.role.label("grant_role"), Entitlement.functions.label("grant_functions"), grant_region.c.path.label("grant_path"),
        )
        .select_from(start)
        .join(Company, Company.id == Account.company_id)
        .outerjoin(Assignment, and_(Assignment.account_id == Account.id, *assignment_alive(NOW)))
        .outerjoin(Store, Store.id == Assignment.store_id)
        .outerjoin(Region, Region.id == Assignment.region_id)
        .outerjoin(Entitlement, candidate)
        .outerjoin(grant_region, and_(grant_region.c.id == Entitlement.subject_id, Entitlement.subject_kind == "region"))
        .order_by(Assignment.id)
    )  # fmt: skip


def facts_of(rows: Sequence[Row[Any]], application_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Facts]:
    """The facts in the rows of one `facts_query`, all of one account; empty without rows."""
    if not rows:
        return {}
    places: dict[uuid.UUID, Place] = {}
    grants: dict[uuid.UUID, dict[uuid.UUID, Grant]] = {application_id: {} for application_id in application_ids}
    for r in rows:
        if r.assignment_id is not None and r.store_ended_at is None:
            store = StoreRole(r.store_code, r.store_name, r.role) if r.store_id else None
            places[r.assignment_id] = Place(
                r.assignment_id, r.role, r.company_id, r.store_id, store, r.store_path or r.region_path or "/"
            )
        if r.entitlement_id is not None:
            grants[r.grant_application_id][r.entitlement_id] = Grant(
                r.subject_kind, r.subject_id, r.grant_role, r.grant_path, tuple(r.grant_functions)
            )
    first = rows[0]
    return {
        application_id: Facts(
            first.account_id, first.subject, first.login_name, first.name, first.locale, first.epoch, first.company_id,
            first.company_code, first.company_name, tuple(places.values()), tuple(found.values()),
        )
        for application_id, found in grants.items()
    }  # fmt: skip
