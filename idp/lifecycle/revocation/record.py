"""What the worker writes about a cut: leased, tried, acknowledged, given to a person, run out. Each with its evidence."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, claim
from idp.core.errors import Conflict, Invalid
from idp.domain.directory.people import company_of
from idp.domain.sessions.models import AppSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, Actor, record
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.queue import Order
from idp.lifecycle.revocation.cutter import CutOrder, Outcome
from idp.lifecycle.revocation.facts import of as facts_of
from idp.lifecycle.revocation.facts import stamp
from idp.lifecycle.revocation.models import Cut, Evidence, Revocation
from idp.lifecycle.revocation.words import CutState, Grade

OPEN = (CutState.WAITING.value, CutState.LEASED.value)
#: outcomes that close a line, and how good its evidence then is
CLOSES = {"verified": Grade.VERIFIED, "acknowledged": Grade.ACKNOWLEDGED}


#: app sessions that one delivery names: those that ended last; the token without `sid` reaches the others
MOST_SIDS = 50


def cut_order(session: Session, order: Order, *, now: datetime) -> CutOrder:
    """Build an attempt from durable facts at send time (RE-06).

    What ended by the moment of the cut is told; what is live or ended later belongs to a person who was let in again, and
    a late logout must not reach it (RE-04). The moment an app session *ended* decides and not the one it was opened: the
    revoking transaction wrote the first by its own clock, while the second may be that of a host some seconds ahead.
    """
    application_id, account_id = uuid.UUID(order.detail["application_id"]), uuid.UUID(order.detail["account_id"])
    there = (AppSession.application_id == application_id, AppSession.account_id == account_id)
    over = AppSession.ended_at <= order.created_at
    query = select(AppSession.sid).where(*there)
    if order.detail.get("login_session_id"):
        query = query.where(AppSession.login_session_id == uuid.UUID(order.detail["login_session_id"]))
    if order.detail.get("app_session_id"):
        query = query.where(AppSession.id == uuid.UUID(order.detail["app_session_id"]))
    else:
        query = query.where(over)
    sids = session.scalars(query.order_by(AppSession.ended_at.desc(), AppSession.id.desc()).limit(MOST_SIDS)).all()
    again = select(AppSession.id).where(*there, AppSession.ended_at.is_(None) | ~over).limit(1)
    whole = bool(order.detail.get("whole_subject")) and session.scalar(again) is None
    t0 = order.detail.get("t0")
    return CutOrder(
        order.id, application_id, account_id, tuple(sids[order.detail.get("told", 0) :]), whole, order.tries, now,
        target=order.detail.get("target", ""), revocation_id=_uuid(order.detail.get("revocation_id")),
        t0=datetime.fromisoformat(t0) if t0 else None, memory=order.detail.get("memory", {}),
    )  # fmt: skip


def _uuid(text: str | None) -> uuid.UUID | None:
    return uuid.UUID(text) if text else None


def leased(session: Session, cut_id: uuid.UUID) -> None:
    """An attempt begins: the line reads "cutting"."""
    change(
        session,
        update(Cut)
        .where(Cut.id == cut_id, Cut.state.in_(OPEN))
        .values(state=CutState.LEASED.value, attempts=Cut.attempts + 1),
    )


@dataclass(frozen=True)
class _Line:
    """A line of a receipt that changed, and what the log says of it. late: the line was closed before."""

    cut_id: uuid.UUID
    tag: Tag
    result: str = "ok"
    late: bool = False
    detail: dict[str, Any] = field(default_factory=dict)


def finished(session: Session, order: Order, outcome: Outcome, *, now: datetime) -> bool:
    """Write one attempt's outcome for the delivery and its cut. False: the lease was lost, and nothing was written."""
    return finished_all(session, [(order, outcome)], now=now)[0]


def finished_all(session: Session, results: Sequence[tuple[Order, Outcome]], *, now: datetime) -> list[bool]:
    """Write the outcomes of attempts. Those of cuts belong to one revocation: its facts are read once for all of them.

    An answer is *acknowledged*, never *cut*: the peer said yes, and nobody here can look inside it (LO-07, RV-24). *Verified* is
    said by a cutter that saw access refused.
    """
    kept, lines = [], []
    for order, outcome in results:
        kept.append(_settled(session, order, outcome, now=now))
        if not kept[-1]:
            continue
        if outcome.result == "later" and now < order.give_up_at:
            _wait_on(session, order)
        elif order.topic == "cut" and order.ref is not None:
            lines.append(_write_cut(session, order.ref, order, outcome, now=now))
        elif outcome.result != "retry" or now >= order.give_up_at:
            heard, account_id = outcome.result == "acknowledged", uuid.UUID(order.detail["account_id"])
            record(
                session, Tag.LOGOUT_DELIVERED if heard else Tag.LOGOUT_GIVEN_UP, actor=SYSTEM, now=now, result="ok" if heard else "refused",
                company_id=company_of(session, account_id), application_id=uuid.UUID(order.detail["application_id"]), subject_id=account_id,
                tries=order.tries, error=outcome.error,
            )  # fmt: skip
    if lines:
        _log(session, lines, actor=SYSTEM, now=now)
    return kept


def _wait_on(session: Session, order: Order) -> None:
    """Nothing happened that a receipt should say: the line waits on, without evidence and without a row in the log."""
    change(session, update(Cut).where(Cut.id == order.ref, Cut.state.in_(OPEN)).values(state=CutState.WAITING.value))


def _settled(session: Session, order: Order, outcome: Outcome, *, now: datetime) -> bool:
    """The delivery's own row. False: the lease was lost."""
    match outcome.result:
        case "verified" | "acknowledged":
            return queue.done(session, order, outcome=outcome.result, now=now)
        case "later" | "retry" if now < order.give_up_at:
            at = outcome.again_at or queue.next_try_at(order, now=now, retry_after_s=outcome.retry_after_s)
            told = order.detail.get("told", 0) + outcome.told
            return queue.retry_later(
                session, order, at=min(at, order.give_up_at), outcome=outcome.error or outcome.result, told=told,
                memory=outcome.memory,
            )  # fmt: skip
        case _:
            why = "refused" if outcome.result == "refused" else "gave_up"
            return queue.done(session, order, outcome=why, now=now)


def _write_cut(session: Session, cut_id: uuid.UUID, order: Order, outcome: Outcome, *, now: datetime) -> _Line:
    facts: dict[str, Any] = {"attempt": order.tries, **outcome.evidence}
    if outcome.error:
        facts["error"] = outcome.error
    values: dict[str, Any] = {"last_error": outcome.error}
    grade: Grade | None = None
    tag, result = Tag.CUT_ATTEMPTED, "refused"
    if outcome.result in CLOSES:
        grade, tag, result = CLOSES[outcome.result], Tag.CUT_CLOSED, "ok"
        values |= {
            "state": CutState.DONE.value,
            "grade": grade.value,
            "done_at": now,
            "next_try_at": None,
            "last_error": None,
        }
    elif outcome.result == "refused" or now >= order.give_up_at:
        tag = Tag.CUT_NEEDS_PERSON
        values |= {"state": CutState.NEEDS_PERSON.value, "next_try_at": None}
    else:
        values |= {"state": CutState.WAITING.value, "next_try_at": queue.next_run_at(session, order)}
    went = claim(session, update(Cut).where(Cut.id == cut_id, Cut.state.in_(OPEN)).values(**values))
    _evidence(session, cut_id, kind=f"attempt_{outcome.result}", grade=grade, detail=facts, now=now)
    if not went:
        # the line was closed before this answer came: what it says is kept, and a sealed receipt opens again (RV-07)
        tag, result = Tag.CUT_ATTEMPTED, "ok" if outcome.result in CLOSES else "refused"
    return _Line(cut_id, tag, result, late=not went, detail={"error": outcome.error, "attempt": order.tries})


def close_by_person(
    session: Session, cut: Cut, *, impossible: bool, note: str, closed_by: uuid.UUID, actor: Actor, now: datetime
) -> None:
    """A named person, after step-up, confirms that a line is done by hand, or that it cannot be done. Raises Invalid, Conflict."""
    note = note.strip()
    if not note or len(note) > 2000:
        raise Invalid("何をしたか、または切れない理由を書いてください(2000文字まで)。", field="note")
    grade = Grade.NONE if impossible else Grade.ATTESTED
    went = claim(
        session,
        update(Cut)
        .where(Cut.id == cut.id, Cut.state == CutState.NEEDS_PERSON.value)
        .values(state=CutState.DONE.value, grade=grade.value, closed_by=closed_by, close_note=note, done_at=now),
    )
    if not went:
        raise Conflict("この行は、ほかの人が先に変えました。", f"cut {cut.id}")
    kind = "impossible" if impossible else "attested"
    _evidence(session, cut.id, kind=kind, grade=grade, detail={"by": str(closed_by)}, now=now)
    tag = Tag.CUT_IMPOSSIBLE if impossible else Tag.CUT_ATTESTED
    _log(session, [_Line(cut.id, tag)], actor=actor, now=now)


def reopen(session: Session, cut: Cut, *, why: str, actor: Actor, now: datetime) -> None:
    """Something came to light that a closed line does not say: the login lived on, the token was accepted (ux.md 4.3).

    The line needs a person again, the receipt is open again and says since when. Raises Invalid, Conflict.
    """
    why = why.strip()
    if not why or len(why) > 500:
        raise Invalid("何がわかったかを書いてください(500文字まで)。", field="note")
    went = claim(
        session,
        update(Cut)
        .where(Cut.id == cut.id, Cut.state == CutState.DONE.value)
        .values(state=CutState.NEEDS_PERSON.value, grade=None, closed_by=None, close_note=None, done_at=None),
    )
    if not went:
        raise Conflict("この行は、もう開いています。", f"cut {cut.id}")
    _evidence(session, cut.id, kind="contradicted", grade=None, detail={"what": why}, now=now)
    _log(session, [_Line(cut.id, Tag.CUT_NEEDS_PERSON, late=True)], actor=actor, now=now)


def close_elapsed(session: Session, *, now: datetime, limit: int = 200) -> int:
    """Close residuals whose time has come. Returns how many.

    An access token's expiry is ours (its only audience is our userinfo endpoint), so it counts as our record; a login
    inside an application merely *was said* to end, and gets no grade above none (ux.md 4.1 `expiring`).
    """
    due = session.execute(
        select(Cut.id, Cut.kind, Cut.revocation_id)
        .where(Cut.state == CutState.WAITING.value, Cut.residual_until <= now)
        .order_by(Cut.revocation_id, Cut.id)  # two workers take them in one order (D7)
        .limit(limit)
    ).all()
    for _, rows in groupby(due, key=lambda row: row.revocation_id):
        lines = [_expire(session, row.id, row.kind, now=now) for row in rows]
        if went := [line for line in lines if line is not None]:
            _log(session, went, actor=SYSTEM, now=now)
    return len(due)


def _expire(session: Session, cut_id: uuid.UUID, kind: str, *, now: datetime) -> _Line | None:
    grade = Grade.RECORDED if kind == "ACCESS_TOKEN" else Grade.NONE
    went = claim(
        session,
        update(Cut)
        .where(Cut.id == cut_id, Cut.state == CutState.WAITING.value, Cut.residual_until <= now)
        .values(state=CutState.DONE.value, grade=grade.value, done_at=now),
    )
    if not went:
        return None
    _evidence(session, cut_id, kind="expired", grade=grade, detail={}, now=now)
    return _Line(cut_id, Tag.CUT_CLOSED, detail={"by": "expiry"})


def _log(session: Session, lines: Sequence[_Line], *, actor: Actor, now: datetime) -> None:
    """The audit rows of lines of one revocation that changed, with the digest of all facts after them. The last line seals the
    receipt, a late one opens it again (RV-07).

    The revocation's row is taken first, in a statement of its own: of two lines that close at once each would see the other
    one open, and record facts that never were.
    """
    rows = session.execute(
        select(Cut.id, Cut.revocation_id, Cut.application_id).where(Cut.id.in_([line.cut_id for line in lines]))
    ).all()
    (revocation_id,) = {row.revocation_id for row in rows}
    applications = {row.id: row.application_id for row in rows}
    session.scalar(select(Revocation.id).where(Revocation.id == revocation_id).with_for_update(key_share=True))
    still_open = select(Cut.id).where(Cut.revocation_id == revocation_id, Cut.state != CutState.DONE.value).exists()
    mine = update(Revocation).where(Revocation.id == revocation_id)
    reopened = any(line.late for line in lines) and change(
        session, mine.where(Revocation.completed_at.is_not(None)).values(completed_at=None, reopened_at=now)
    )
    sealed = change(session, mine.where(Revocation.completed_at.is_(None), ~still_open).values(completed_at=now))
    facts = facts_of(session, revocation_id)
    about: dict[str, Any] = {
        "actor": actor, "now": now, "company_id": uuid.UUID(facts["company"]), "subject_id": uuid.UUID(facts["account"]),
        "store_id": uuid.UUID(facts["store"]) if facts["store"] else None, "revocation_id": revocation_id, **stamp(facts),
    }  # fmt: skip
    for line in lines:
        record(
            session, line.tag, result=line.result, application_id=applications[line.cut_id], cut_id=line.cut_id,
            **about, **line.detail,
        )  # fmt: skip
    if reopened:
        record(session, Tag.RECEIPT_REOPENED, **about)
    if sealed:
        record(session, Tag.RECEIPT_SEALED, **about)


def _evidence(
    session: Session, cut_id: uuid.UUID, *, kind: str, grade: Grade | None, detail: dict[str, Any], now: datetime
) -> None:
    session.add(
        Evidence(
            id=ids.new_id(now),
            created_at=now,
            cut_id=cut_id,
            kind=kind,
            grade=grade.value if grade else None,
            detail=detail,
        )
    )
    session.flush()
