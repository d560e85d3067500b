"""Who may do what: the whole of it is the table `ROLES`. Where they may do it is `scope.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """A role is given by an assignment. The text is stored and appears in the `stores` claim (D20)."""

    OPERATOR = "operator"
    HQ_ADMIN = "hq_admin"
    AREA_MANAGER = "area_manager"
    STORE_MANAGER = "store_manager"
    STAFF = "staff"
    AUDITOR = "auditor"


class Reach(StrEnum):
    """How far an assignment of this role reaches, and so what place it must name."""

    PLATFORM = "platform"
    COMPANY = "company"
    REGION = "region"
    STORE = "store"


class Power(StrEnum):
    """One thing that a page or command asks for."""

    SEE_PEOPLE = "people.see"
    HIRE = "people.hire"
    RESET = "people.reset"
    REVOKE = "people.revoke"
    REINSTATE = "people.reinstate"
    SEE_RECEIPTS = "receipts.see"
    SEE_LOG = "log.see"
    CLOSE_LINES = "receipts.close"
    MANAGE_APPLICATIONS = "applications.manage"
    MANAGE_PLACES = "places.manage"
    MANAGE_COMPANIES = "companies.manage"


@dataclass(frozen=True)
class Row:
    """One role: its reach, whether a second factor is mandatory, its powers, and the roles it may give to others."""

    reach: Reach
    second_factor: bool
    may: frozenset[Power]
    may_give: frozenset[Role]


_PEOPLE = {Power.SEE_PEOPLE, Power.HIRE, Power.RESET, Power.REVOKE, Power.SEE_RECEIPTS, Power.SEE_LOG}
_HQ = _PEOPLE | {Power.REINSTATE, Power.CLOSE_LINES, Power.MANAGE_APPLICATIONS, Power.MANAGE_PLACES}

ROLES: dict[Role, Row] = {
    #                         reach          2nd    powers                                          may give
    Role.OPERATOR:      Row(Reach.PLATFORM, True,  frozenset(_HQ | {Power.MANAGE_COMPANIES}),      frozenset(Role)),
    Role.HQ_ADMIN:      Row(Reach.COMPANY,  True,  frozenset(_HQ),                                 frozenset(Role) - {Role.OPERATOR}),
    Role.AREA_MANAGER:  Row(Reach.REGION,   False, frozenset(_PEOPLE | {Power.CLOSE_LINES}),       frozenset({Role.STORE_MANAGER, Role.STAFF})),
    Role.STORE_MANAGER: Row(Reach.STORE,    False, frozenset(_PEOPLE),                             frozenset({Role.STAFF})),
    Role.STAFF:         Row(Reach.STORE,    False, frozenset(),                                    frozenset()),
    Role.AUDITOR:       Row(Reach.COMPANY,  True,  frozenset({Power.SEE_RECEIPTS, Power.SEE_LOG}), frozenset()),
}  # fmt: skip


def needs_second_factor(roles: Iterable[str]) -> bool:
    """True when any of these roles demands two factors (issue policy: HQ admins, operators, auditors)."""
    return any(ROLES[Role(role)].second_factor for role in roles)
