"""What the worker writes about a cut: leased, tried, acknowledged, given to a person, run out. Each with its evidence."""

from __future__ import annotations

import uuid
from datetime import datetime
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


def finished(session: Session, order: Order, outcome: Outcome, *, now: datetime) -> bool:
    """Write one attempt's outcome for the delivery and its cut. False: the lease was lost, and nothing was written.

    An answer is *acknowledged*, never *cut*: the peer said yes, and nobody here can look inside it (LO-07, RV-24). *Verified* is
    said by a cutter that saw access refused.
    """
    match outcome.result:
        case "verified" | "acknowledged":
            kept = queue.done(session, order, outcome=outcome.result, now=now)
        case "later" | "retry" if now < order.give_up_at:
            at = outcome.again_at or queue.next_try_at(order, now=now, retry_after_s=outcome.retry_after_s)
            told = order.detail.get("told", 0) + outcome.told
            kept = queue.retry_later(
                session,
                order,
                at=min(at, order.give_up_at),
                outcome=outcome.error or outcome.result,
                told=told,
                memory=outcome.memory,
            )
        case _:
            kept = queue.done(session, order, outcome="refused" if outcome.result == "refused" else "gave_up", now=now)
    if not kept:
        return False
    if outcome.result == "later" and now < order.give_up_at and order.ref is not None:
        # nothing happened that a receipt should say: the line waits on, without evidence and without a row in the log
        change(
            session, update(Cut).where(Cut.id == order.ref, Cut.state.in_(OPEN)).values(state=CutState.WAITING.value)
        )
        return True
    if order.topic == "cut" and order.ref is not None:
        _write_cut(session, order, outcome, now=now)
    elif outcome.result != "retry" or now >= order.give_up_at:
        heard, account_id = outcome.result == "acknowledged", uuid.UUID(order.detail["account_id"])
        record(
            session, Tag.LOGOUT_DELIVERED if heard else Tag.LOGOUT_GIVEN_UP, actor=SYSTEM, now=now, result="ok" if heard else "refused",
            company_id=company_of(session, account_id), application_id=uuid.UUID(order.detail["application_id"]), subject_id=account_id,
            tries=order.tries, error=outcome.error,
        )  # fmt: skip
    return True


def _write_cut(session: Session, order: Order, outcome: Outcome, *, now: datetime) -> None:
    cut_id = order.ref
    if cut_id is None:
        return
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
    _log(
        session, tag, cut_id, late=not went, actor=SYSTEM, now=now, result=result, error=outcome.error, attempt=order.tries
    )  # fmt: skip


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
    _log(session, Tag.CUT_IMPOSSIBLE if impossible else Tag.CUT_ATTESTED, cut.id, actor=actor, now=now)


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
    _log(session, Tag.CUT_NEEDS_PERSON, cut.id, late=True, actor=actor, now=now)


def close_elapsed(session: Session, *, now: datetime, limit: int = 200) -> int:
    """Close residuals whose time has come. Returns how many.

    An access token's expiry is ours (its only audience is our userinfo endpoint), so it counts as our record; a login
    inside an application merely *was said* to end, and gets no grade above none (ux.md 4.1 `expiring`).
    """
    due = session.execute(
        select(Cut.id, Cut.kind)
        .where(Cut.state == CutState.WAITING.value, Cut.residual_until <= now)
        .order_by(Cut.revocation_id, Cut.id)  # two workers take them in one order (D7)
        .limit(limit)
    ).all()
    for row in due:
        grade = Grade.RECORDED if row.kind == "ACCESS_TOKEN" else Grade.NONE
        went = claim(
            session,
            update(Cut)
            .where(Cut.id == row.id, Cut.state == CutState.WAITING.value, Cut.residual_until <= now)
            .values(state=CutState.DONE.value, grade=grade.value, done_at=now),
        )
        if went:
            _evidence(session, row.id, kind="expired", grade=grade, detail={}, now=now)
            _log(session, Tag.CUT_CLOSED, row.id, actor=SYSTEM, now=now, by="expiry")
    return len(due)


def _log(
    session: Session, tag: Tag, cut_id: uuid.UUID, *, actor: Actor, now: datetime, late: bool = False, result: str = "ok",
    **detail: Any,
) -> None:  # fmt: skip
    """The audit row of a line that changed, with the digest of all facts after it. The last line seals the receipt, a late one
    opens it again (RV-07).

    The revocation's row is taken first, in a statement of its own: of two lines that close at once each would see the other
    one open, and record facts that never were.
    """
    revocation_id, application_id = session.execute(
        select(Cut.revocation_id, Cut.application_id).where(Cut.id == cut_id)
    ).one()
    session.execute(select(Revocation.id).where(Revocation.id == revocation_id).with_for_update(key_share=True))
    still_open = select(Cut.id).where(Cut.revocation_id == revocation_id, Cut.state != CutState.DONE.value).exists()
    mine = update(Revocation).where(Revocation.id == revocation_id)
    reopened = late and change(
        session, mine.where(Revocation.completed_at.is_not(None)).values(completed_at=None, reopened_at=now)
    )
    sealed = change(session, mine.where(Revocation.completed_at.is_(None), ~still_open).values(completed_at=now))
    facts = facts_of(session, revocation_id)
    about: dict[str, Any] = {
        "actor": actor, "now": now, "company_id": uuid.UUID(facts["company"]), "subject_id": uuid.UUID(facts["account"]),
        "store_id": uuid.UUID(facts["store"]) if facts["store"] else None, "revocation_id": revocation_id, **stamp(facts),
    }  # fmt: skip
    record(session, tag, result=result, application_id=application_id, cut_id=cut_id, **about, **detail)
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
