"""What an actor may see: conditions that become part of every query (WB-07).

A foreign object is never fetched and then refused: the query cannot return it, the page says *not found*, and the
caller writes the audit row. There is no second place that decides this.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, bindparam, exists, false, or_, select, true
from sqlalchemy.orm import Session

from idp.core.db import NOW, Moment, Query, prepared, run
from idp.domain.directory.models import Account, Assignment, Company, Region, Store
from idp.domain.directory.roles import ROLES, Power, Reach, Role
from idp.ledgers.audit.log import Actor

#: powers that only show something
LOOKING = {Power.SEE_PEOPLE, Power.SEE_RECEIPTS, Power.SEE_LOG}


@dataclass(frozen=True)
class Standing:
    """One live assignment of a viewer. path: the region's or store's materialised path."""

    role: Role
    company_id: uuid.UUID
    store_id: uuid.UUID | None
    store_code: str | None
    store_name: str | None
    region_path: str | None


@dataclass(frozen=True)
class Viewer:
    """A person who looks: account, live assignments, and the assurance of this login. at: the instant of this look."""

    account_id: uuid.UUID
    company_id: uuid.UUID
    company_code: str
    company_name: str
    name: str
    login_name: str
    locale: str
    standings: tuple[Standing, ...]
    actor: Actor
    at: datetime

    def can(self, power: Power) -> bool:
        """True when any live assignment has this power somewhere."""
        return any(power in ROLES[s.role].may for s in self.standings)

    def standings_with(self, power: Power) -> tuple[Standing, ...]:
        """The assignments that carry this power."""
        return tuple(s for s in self.standings if power in ROLES[s.role].may)

    @property
    def roles(self) -> frozenset[Role]:
        """The roles held anywhere."""
        return frozenset(s.role for s in self.standings)


def standings(session: Session, account_id: uuid.UUID, *, now: datetime) -> tuple[Standing, ...]:
    """The live assignments of an account: started, not ended, end date not reached, store open. One query."""
    rows = run(session, _standings_query(), {"account_id": account_id, "now": now})
    return tuple(Standing(Role(r.role), r.company_id, r.store_id, r.code, r.name, r.path) for r in rows)


@prepared
def _standings_query() -> Query:
    return (
        select(Assignment.role, Assignment.company_id, Assignment.store_id, Store.code, Store.name, Region.path)
        .outerjoin(Store, Store.id == Assignment.store_id)
        .outerjoin(Region, Region.id == Assignment.region_id)
        .where(Assignment.account_id == bindparam("account_id"), *assignment_alive(NOW), Store.ended_at.is_(None))
        .order_by(Assignment.id)
    )


def account_alive(now: Moment) -> tuple[ColumnElement[bool], ...]:
    """The tests of a live account; an end date holds with the worker stopped (D7)."""
    return (Account.ended_at.is_(None), or_(Account.ends_at.is_(None), Account.ends_at > now))


def assignment_alive(now: Moment) -> tuple[ColumnElement[bool], ...]:
    """The tests of a live assignment."""
    return (
        Assignment.ended_at.is_(None),
        Assignment.starts_at <= now,
        or_(Assignment.ends_at.is_(None), Assignment.ends_at > now),
    )


def companies(viewer: Viewer, power: Power) -> ColumnElement[bool]:
    """Condition on Company: where the viewer has this power over the company as a whole."""
    reach = {ROLES[s.role].reach for s in viewer.standings_with(power)}
    if Reach.PLATFORM in reach:
        return true()
    return Company.id == viewer.company_id if Reach.COMPANY in reach else false()


def stores(viewer: Viewer, power: Power) -> ColumnElement[bool]:
    """Condition on Store: the stores in which the viewer has this power."""
    parts: list[ColumnElement[bool]] = []
    for standing in viewer.standings_with(power):
        match ROLES[standing.role].reach:
            case Reach.PLATFORM:
                return true()
            case Reach.COMPANY:
                parts.append(Store.company_id == standing.company_id)
            case Reach.REGION:
                parts.append(
                    and_(
                        Store.company_id == standing.company_id,
                        Store.path.startswith(standing.region_path or "\0", autoescape=True),
                    )
                )
            case Reach.STORE:
                parts.append(Store.id == standing.store_id)
    return or_(*parts) if parts else false()


def accounts(viewer: Viewer, power: Power) -> ColumnElement[bool]:
    """Condition on Account: people over whom the viewer has this power.

    Below company reach that is everybody who has an assignment in a store of the viewer's. To look, having had one is
    enough: a manager must still find the receipt of somebody who left; to act on a person who lives on in other stores it
    is not (RV-30). Nobody below company reach has power over a person of wider reach than a store, and nobody hands out a
    new password of somebody who manages a store that is not theirs: the code would be that store's keys (WB-07).
    """
    parts: list[ColumnElement[bool]] = []
    narrow = False
    for standing in viewer.standings_with(power):
        match ROLES[standing.role].reach:
            case Reach.PLATFORM:
                return true()
            case Reach.COMPANY:
                parts.append(Account.company_id == standing.company_id)
            case _:
                narrow = True
    if narrow:
        theirs = exists(
            select(Assignment.id)
            .join(Store, Store.id == Assignment.store_id)
            .where(Assignment.account_id == Account.id, stores(viewer, power), still_here(viewer, power))
            .correlate(Account)
        )
        wider = exists(
            select(Assignment.id)
            .where(Assignment.account_id == Account.id, Assignment.store_id.is_(None), Assignment.ended_at.is_(None))
            .correlate(Account)
        )
        parts.append(and_(theirs, ~wider, *_not_mightier(viewer, power)))
    return or_(*parts) if parts else false()


def still_here(viewer: Viewer, power: Power) -> ColumnElement[bool]:
    """Condition on Assignment and Account: for a power that acts, the assignment goes on, or ended with the account."""
    if power in LOOKING:
        return true()
    goes_on = and_(
        Assignment.ended_at.is_(None), or_(Assignment.ends_at.is_(None), Assignment.ends_at > viewer.at)
    )  # an end date holds before any sweep has reached the row (D7)
    return or_(goes_on, Account.ended_at.is_not(None))


def reaches_beyond(
    session: Session, viewer: Viewer, power: Power, account_id: uuid.UUID, *, assignment_id: uuid.UUID | None = None
) -> bool:
    """True when the person works, or this one assignment is, in a store where the viewer lacks this power."""
    beyond = (
        select(Assignment.id)
        .join(Store, Store.id == Assignment.store_id)
        .where(Assignment.account_id == account_id, Assignment.ended_at.is_(None), ~stores(viewer, power))
    )
    if assignment_id is not None:
        beyond = beyond.where(Assignment.id == assignment_id)
    return session.scalar(beyond.limit(1)) is not None


def _not_mightier(viewer: Viewer, power: Power) -> tuple[ColumnElement[bool], ...]:
    if power is not Power.RESET:
        return ()
    mighty = [role.value for role, row in ROLES.items() if row.may]
    elsewhere = exists(
        select(Assignment.id)
        .join(Store, Store.id == Assignment.store_id)
        .where(
            Assignment.account_id == Account.id, Assignment.ended_at.is_(None), Assignment.role.in_(mighty), ~stores(viewer, power)
        )
        .correlate(Account)
    )  # fmt: skip
    return (~elsewhere,)
