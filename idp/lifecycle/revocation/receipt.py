"""The receipt: cuts as people read them. One pure function turns a cut into its line state; nothing else prints one.

*Sent* is not *cut*, and nothing is green while a line is open (promise 3, AU-20).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from idp.core.errors import NotFound
from idp.domain.applications.models import Application, RelyingParty, ServiceProvider
from idp.domain.directory import scope
from idp.domain.directory.models import Account, Assignment, Company, Store
from idp.domain.directory.roles import Power
from idp.domain.directory.scope import Viewer
from idp.domain.sessions.models import AppSession
from idp.lifecycle.revocation.destinations import TOOL
from idp.lifecycle.revocation.models import Cut, Evidence, Revocation
from idp.lifecycle.revocation.words import CutKind, CutState, Grade, Scope, weakest

LineState = Literal[
    "queued", "cutting", "confirmed", "acknowledged", "nothing", "expiring", "manual", "failed", "unknown"
]
Contract = Literal[
    "LOCAL_DEAD", "VERIFIED", "ACKED", "ATTESTED", "RESIDUAL", "UNCONFIRMED", "MANUAL", "IMPOSSIBLE", "NO_PATH"
]
RED = {"manual", "failed", "unknown"}
#: lines that we finish ourselves: a line that is tried again has not failed unless something went wrong
OURS = {CutKind.GATEWAY_SESSION.value, CutKind.TOOL_SESSION.value, CutKind.TOOL_PASSWORD.value}


def line_state(cut: Cut) -> LineState:
    """The line state of `ux.md` 4.1."""
    if cut.state == CutState.DONE.value:
        return _closed_state(cut)
    if cut.state == CutState.NEEDS_PERSON.value:
        return "unknown" if cut.kind == CutKind.APPLICATION_LOGIN.value else "manual"
    if cut.residual_until is not None:
        return "expiring"
    if cut.kind in OURS and cut.last_error:
        return "failed"
    if (
        cut.state == CutState.LEASED.value
        or cut.kind == CutKind.GATEWAY_SESSION.value
        or (cut.kind in OURS and cut.attempts)
    ):
        return "cutting"
    return "failed" if cut.attempts else "queued"


def _closed_state(cut: Cut) -> LineState:
    if cut.count == 0:
        return "nothing"
    if cut.grade in {Grade.VERIFIED.value, Grade.RECORDED.value}:
        return "confirmed"
    if cut.grade == Grade.ACKNOWLEDGED.value:
        return "acknowledged"
    if cut.grade == Grade.ATTESTED.value:
        return "manual"
    return "expiring" if cut.closed_by is None else "unknown"


def contract_state(cut: Cut) -> Contract:
    """The contract state of `requirements.md` 13.1."""
    state, is_open = line_state(cut), cut.state != CutState.DONE.value
    if state == "expiring":
        return "RESIDUAL"
    if is_open and cut.kind == CutKind.GATEWAY_SESSION.value and state == "cutting":
        return (
            "LOCAL_DEAD"  # nothing that was asked after T0 passes; that every open screen is closed is not verified yet
        )
    if is_open:
        return "MANUAL" if state == "manual" else "UNCONFIRMED"
    by_grade: dict[str, Contract] = {
        Grade.VERIFIED.value: "VERIFIED", Grade.RECORDED.value: "LOCAL_DEAD", Grade.ACKNOWLEDGED.value: "ACKED",
        Grade.ATTESTED.value: "ATTESTED",
    }  # fmt: skip
    return "NO_PATH" if state == "nothing" else by_grade.get(cut.grade or "", "IMPOSSIBLE")


@dataclass(frozen=True)
class Line:
    """One line as a page or a pack shows it. open: not closed yet; grade: only on a closed line."""

    cut: Cut
    state: LineState
    contract: Contract
    grade: str | None
    open: bool
    application_name: str | None
    closed_by_name: str | None


@dataclass(frozen=True)
class Verdict:
    """The banner (ux.md 4.3). counts: lines per state; everything_cut: every path LOCAL_DEAD or VERIFIED, and none
    still open."""

    word: Literal["action", "waiting", "done"]
    total: int
    closed: int
    counts: dict[str, int]
    weakest: Grade | None
    weakest_count: int
    everything_cut: bool
    needs_person: int
    not_cut: int
    until: datetime | None
    next_try_at: datetime | None


@dataclass(frozen=True)
class Receipt:
    """A revocation with its lines and verdict."""

    revocation: Revocation
    account: Account
    company: Company
    store: Store | None
    requested_by: Account | None
    lines: tuple[Line, ...]
    verdict: Verdict


def verdict(lines: Sequence[Line]) -> Verdict:
    """Pure. Red while an open line needs somebody or failed; amber while one waits; green only when none is open."""
    open_lines = [line for line in lines if line.open]
    red = [line for line in open_lines if line.state in RED]
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.state] = counts.get(line.state, 0) + 1
    grades = [Grade(line.grade) for line in lines if line.grade is not None and line.state != "nothing"]
    low = weakest(grades)
    person = sum(line.state in {"manual", "unknown"} for line in red)
    waits = [line.cut.residual_until for line in open_lines if line.cut.residual_until is not None]
    tries = [line.cut.next_try_at for line in red if line.cut.next_try_at is not None]
    return Verdict(
        word="action" if red else "waiting" if open_lines else "done",
        total=len(lines),
        closed=len(lines) - len(open_lines),
        counts=counts,
        weakest=low,
        weakest_count=sum(grade is low for grade in grades),
        everything_cut=not open_lines and all(line.contract in {"LOCAL_DEAD", "VERIFIED", "NO_PATH"} for line in lines),
        needs_person=person,
        not_cut=len(red) - person,
        until=max(waits, default=None),
        next_try_at=min(tries, default=None),
    )


def load(session: Session, number: str, viewer: Viewer | None) -> Receipt:
    """One receipt, inside the viewer's scope. Raises NotFound."""
    closer, asker = aliased(Account), aliased(Account)
    query = (
        select(Revocation, Account, Company, Store, asker)
        .join(Account, Account.id == Revocation.account_id)
        .join(Company, Company.id == Revocation.company_id)
        .outerjoin(Store, Store.id == Revocation.store_id)
        .outerjoin(asker, asker.id == Revocation.requested_by)
        .where(Revocation.number == number.upper())
    )
    if viewer is not None:
        query = query.where(_mine(viewer))
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"receipt {number}")
    cuts = session.execute(
        select(Cut, Application.name, closer.name)
        .outerjoin(Application, Application.id == Cut.application_id)
        .outerjoin(closer, closer.id == Cut.closed_by)
        .where(Cut.revocation_id == row[0].id)
        .order_by(Cut.position)
    )
    lines = tuple(_line(cut, application, by) for cut, application, by in cuts)
    return Receipt(row[0], row[1], row[2], row[3], row[4], lines, verdict(lines))


def _mine(viewer: Viewer) -> ColumnElement[bool]:
    """A receipt may be seen by whoever may see the person, as far as it is about their own stores, and by whoever ordered it.

    Below company reach: one assignment's receipt belongs to its store. A whole person's belongs to the stores they worked in
    at that moment, or had left last: whoever managed somebody years ago learns nothing of what another store does with them
    (WB-07).
    """
    power = Power.SEE_RECEIPTS
    wide = Revocation.company_id.in_(select(Company.id).where(scope.companies(viewer, power)))
    mine = select(Store.id).where(scope.stores(viewer, power))
    later = aliased(Assignment)
    elsewhere = exists(
        select(later.id).where(
            later.account_id == Assignment.account_id, later.store_id.not_in(mine),
            or_(later.ended_at.is_(None), later.ended_at > Assignment.ended_at),
        )
    )  # fmt: skip
    worked_here = exists(
        select(Assignment.id).where(
            Assignment.account_id == Revocation.account_id, Assignment.store_id.in_(mine), Assignment.created_at <= Revocation.t0,
            or_(Assignment.ended_at.is_(None), Assignment.ended_at >= Revocation.t0, ~elsewhere),
        )
    )  # fmt: skip
    one_place = Revocation.scope_kind == Scope.ASSIGNMENT.value
    here = or_(and_(one_place, Revocation.store_id.in_(mine)), and_(~one_place, worked_here))
    return or_(and_(scope.accounts(viewer, power), or_(wide, here)), Revocation.requested_by == viewer.account_id)


def line_of(cut: Cut) -> Line:
    """One line alone, without names."""
    return _line(cut, None, None)


def _line(cut: Cut, application: str | None, closed_by: str | None) -> Line:
    is_open = cut.state != CutState.DONE.value
    return Line(
        cut, line_state(cut), contract_state(cut), None if is_open else cut.grade, is_open, application, closed_by
    )


@dataclass(frozen=True)
class Summary:
    """One line in a list of receipts."""

    revocation: Revocation
    account: Account


def recent(
    session: Session, viewer: Viewer | None, *, open_only: bool = False, account_id: uuid.UUID | None = None,
    before: uuid.UUID | None = None, limit: int = 50,
) -> list[Summary]:  # fmt: skip
    """Receipts, newest first, by keyset. before: id of the last one already shown."""
    query = select(Revocation, Account).join(Account, Account.id == Revocation.account_id)
    if viewer is not None:
        query = query.where(_mine(viewer))
    if open_only:
        query = query.where(Revocation.completed_at.is_(None))
    if account_id is not None:
        query = query.where(Revocation.account_id == account_id)
    if before is not None:
        query = query.where(Revocation.id < before)
    return [Summary(row[0], row[1]) for row in session.execute(query.order_by(Revocation.id.desc()).limit(limit))]


def evidence_of(session: Session, revocation_id: uuid.UUID) -> dict[uuid.UUID, list[Evidence]]:
    """All evidence of a revocation, by cut, oldest first."""
    rows = session.scalars(
        select(Evidence)
        .join(Cut, Cut.id == Evidence.cut_id)
        .where(Cut.revocation_id == revocation_id)
        .order_by(Evidence.id)
    )
    found: dict[uuid.UUID, list[Evidence]] = {}
    for row in rows:
        found.setdefault(row.cut_id, []).append(row)
    return found


def cut_of(session: Session, receipt: Receipt, position: int) -> Cut:
    """One cut by its position on the receipt. Raises NotFound."""
    cut = session.scalar(select(Cut).where(Cut.revocation_id == receipt.revocation.id, Cut.position == position))
    if cut is None:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"cut {position}")
    return cut


@dataclass(frozen=True)
class Entered:
    """An application that a person ever entered, and what a cut can do there: the dialog's line."""

    name: str
    tell: bool
    session_life_s: int | None


def applications_entered(session: Session, account_id: uuid.UUID) -> list[Entered]:
    """What the dialog before a cut lists: every application ever entered, and how it can be cut (ux.md F9). Tools are
    `tools.choices`."""
    rows = session.execute(
        select(
            Application.name,
            func.coalesce(RelyingParty.backchannel_logout_uri, ServiceProvider.soap_logout_url).label("logout_url"),
            Application.session_life_s,
        )
        .outerjoin(RelyingParty, RelyingParty.application_id == Application.id)
        .outerjoin(ServiceProvider, ServiceProvider.application_id == Application.id)
        .where(
            Application.id.in_(select(AppSession.application_id).where(AppSession.account_id == account_id)),
            Application.protocol != TOOL,
        )
        .order_by(Application.name)
    )
    return [Entered(row.name, row.logout_url is not None, row.session_life_s) for row in rows]


def open_cuts(
    session: Session, viewer: Viewer, *, limit: int = 200
) -> list[tuple[Cut, Revocation, Account, str | None]]:
    """Every line that is not closed, oldest first (H02): what head office has to chase."""
    rows = session.execute(
        select(Cut, Revocation, Account, Application.name)
        .join(Revocation, Revocation.id == Cut.revocation_id)
        .join(Account, Account.id == Revocation.account_id)
        .outerjoin(Application, Application.id == Cut.application_id)
        .where(Cut.state != CutState.DONE.value, _mine(viewer))
        .order_by(Revocation.id, Cut.position)
        .limit(limit)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
