"""Our logins inside tools: one row per tool account, or per person where the tool does not share (vault-and-gateway.md §4).

    opening → live ⇄ renewing → ending → ended; needs_human in between, until a person decides

Every transition is one claim on (state, generation). What is not listed is refused: a late engine or a second gateway cannot
move a session that has moved on. What is to be done at the tool is a row of `login_job`, and there is one open per session.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from connectors.recipes.model import Recipe
from idp.core import ids
from idp.core.db import change, claim, insert_into, run
from idp.core.errors import Conflict
from idp.domain.gateway import gateway_sessions
from idp.domain.gateway.models import GatewaySession, LoginJob, ToolSession, UseTicket
from idp.domain.gateway.tickets import Person, Purpose, issue_use_ticket, void
from idp.domain.tools.models import ToolAccount

#: a login or a logout that is not done by then is given up: nobody waits longer at a page
JOB_LIFE: Final = timedelta(seconds=60)
#: a tool that logs us out again within this time is not helped by a third login
FLAPS: Final = timedelta(seconds=60)
JOINABLE: Final = ("opening", "live", "renewing", "needs_human")

Renewal = Literal["renewing", "live", "needs_human", "ended"]


def join_or_open(
    session: Session,
    ticket_key: bytes,
    tool_account: ToolAccount,
    recipe: Recipe,
    *,
    person: Person,
    now: datetime,
) -> uuid.UUID:
    """The tool session that this person's gateway session will use; opened, with its job and ticket, where there is none.

    A second launcher joins the row that is there and makes no second job. The caller has claimed the person's gate in this
    transaction. Raises Conflict while the one before is still being logged out.
    """
    owner = None if recipe.session.shared else person.account_id
    found = _current(session, tool_account.id, owner)
    if found is not None and _is_abandoned(session, found, now=now):
        move(
            session,
            found.id,
            (found.state,),
            now=now,
            state="ended",
            ended_at=now,
            end_reason="engine_away",
            **SHREDDED,
        )
        _close_jobs(session, found.id, result="late", now=now)
        found = None
    if found is None:
        found = _insert(session, ticket_key, tool_account, recipe, owner=owner, person=person, now=now)
    if found.state not in JOINABLE:
        raise Conflict(
            "前の利用の終了処理をしています。1分ほど待って、もう一度開いてください。",
            f"tool session {found.id} is ending",
        )
    if found.state == "live" and found.ends_at <= now:
        renew_one(session, found.id, generation=found.generation, now=now)
    return found.id


def renew(session: Session, tool_session_id: uuid.UUID, *, generation: int, now: datetime) -> Renewal:
    """The tool has logged out this generation: one new login for everybody. Called by the gateway, which holds no ticket key.

    Of many callers one wins the claim; the others see `renewing`, or `live` when a newer generation is there already. A tool
    that logs us out twice within a minute needs a person (`session_flaps`), and no machine logs in against it.
    """
    row = session.get(ToolSession, tool_session_id)
    if row is None or row.ended_at is not None or row.state == "ending":
        return "ended"
    if row.state in {"opening", "renewing"}:
        return "renewing"
    if row.state == "needs_human":
        return "needs_human"
    if row.generation != generation:
        return "live"
    if row.renewed_at is not None and now - row.renewed_at < FLAPS:
        move(session, row.id, ("live",), generation=generation, now=now, state="needs_human", code="session_flaps")
        return "needs_human"
    renew_one(session, row.id, generation=generation, now=now, renewed_at=now)
    return "renewing"


def renew_one(session: Session, tool_session_id: uuid.UUID, *, generation: int, now: datetime, **values: Any) -> bool:
    """A new login of a live session of this generation, whatever the reason. False: it has moved on."""
    if not move(session, tool_session_id, ("live",), generation=generation, now=now, state="renewing", **values):
        return False
    return put_job(session, tool_session_id, kind="renew", now=now)


def renew_all(session: Session, tool_account_id: uuid.UUID, *, now: datetime) -> int:
    """A new password holds: every live session of the account logs in again, and its people wait for it. Returns how many."""
    rows = session.execute(
        select(ToolSession.id, ToolSession.generation).where(
            ToolSession.tool_account_id == tool_account_id, ToolSession.state == "live", ToolSession.ended_at.is_(None)
        )
    ).all()
    return sum(renew_one(session, row.id, generation=row.generation, now=now) for row in rows)


def resolved(session: Session, tool_account_id: uuid.UUID, *, now: datetime) -> int:
    """A person has put right what stopped a machine: sessions with people in log in again, the others end. Returns how many."""
    waiting = session.scalars(
        select(ToolSession.id).where(
            ToolSession.tool_account_id == tool_account_id,
            ToolSession.state == "needs_human",
            ToolSession.ended_at.is_(None),
        )
    ).all()
    for one in waiting:
        # the engine decides at the lease whether anybody is still inside, and ends it otherwise
        if move(session, one, ("needs_human",), now=now, state="renewing", code=None):
            put_job(session, one, kind="renew", now=now)
    return len(waiting)


def end(session: Session, *which: ColumnElement[bool], reason: str, now: datetime) -> Sequence[uuid.UUID]:
    """Let these sessions be logged out at the tool. Returns their ids; those that are ending already are not among them.

    Called in the transaction of a cut with `ToolSession.account_id == …`: opens no secret. A login that is under way finds the
    state changed when it comes back and is logged out by the engine instead of being stored. Tickets of these sessions that
    nobody used yet are void.
    """
    ending = [
        row[0]
        for row in run(
            session,
            update(ToolSession)
            .where(*which, ToolSession.ended_at.is_(None), ToolSession.state != "ending")
            .values(state="ending", end_reason=reason)
            .returning(ToolSession.id),
        )
    ]
    for one in ending:
        void(session, UseTicket.job_id.in_(select(LoginJob.id).where(LoginJob.tool_session_id == one)), now=now)
        put_job(session, one, kind="logout", now=now)
    session.expire_all()
    return ending


def put_job(session: Session, tool_session_id: uuid.UUID, *, kind: str, now: datetime) -> bool:
    """Work for the engine, without a ticket: a logout needs no password, and for a renewal the engine writes the ticket at the
    lease, while somebody is inside. False when a job is open: it does this as well when it sees the state."""
    row = session.execute(
        select(ToolSession.company_id, ToolSession.generation).where(ToolSession.id == tool_session_id)
    ).one()
    statement = insert_into(session, LoginJob).values(
        id=ids.new_id(now), created_at=now, company_id=row.company_id, tool_session_id=tool_session_id, generation=row.generation,
        kind=kind, next_at=now, deadline_at=now + JOB_LIFE, fence=0, attempts=0,
    )  # fmt: skip
    return run(session, statement.on_conflict_do_nothing().returning(LoginJob.id)).first() is not None


def put_job_if_ending(session: Session, tool_session_id: uuid.UUID, *, now: datetime) -> None:
    """A session that is ending and has no open job gets its logout."""
    state = session.scalar(
        select(ToolSession.state).where(ToolSession.id == tool_session_id, ToolSession.ended_at.is_(None))
    )
    if state == "ending":
        put_job(session, tool_session_id, kind="logout", now=now)


#: what ends with a session: the wraps of its data keys lie in these records, so nothing opens the jar afterwards
SHREDDED: Final[dict[str, Any]] = {"jar_sealed": None, "scan_sealed": None, "device_sealed": None}


def somebody_inside(now: datetime) -> ColumnElement[bool]:
    """A gateway session that hangs on this tool session, live with everything above it. A condition on `ToolSession`."""
    return exists(
        select(GatewaySession.id).where(GatewaySession.tool_session_id == ToolSession.id, *gateway_sessions.alive(now))
    ).correlate(ToolSession)


def move(
    session: Session,
    tool_session_id: uuid.UUID,
    states: Sequence[str],
    *,
    now: datetime,
    generation: int | None = None,
    generation_to: int | None = None,
    **values: Any,
) -> bool:
    """One transition: from one of these states, and of this generation. False: it has moved on, and nothing is written.

    generation_to: of the new login, for a transition to `live`.
    """
    if generation_to is not None:
        values["generation"] = generation_to
    if values.get("state") == "ended":
        values = {"ended_at": now, **values}
    which = [ToolSession.id == tool_session_id, ToolSession.state.in_(states), ToolSession.ended_at.is_(None)]
    if generation is not None:
        which.append(ToolSession.generation == generation)
    return claim(session, update(ToolSession).where(*which).values(**values))


def _current(session: Session, tool_account_id: uuid.UUID, owner: uuid.UUID | None) -> ToolSession | None:
    whose = ToolSession.account_id.is_(None) if owner is None else ToolSession.account_id == owner
    return session.scalar(
        select(ToolSession).where(ToolSession.tool_account_id == tool_account_id, whose, ToolSession.ended_at.is_(None))
    )


def _is_abandoned(session: Session, found: ToolSession, *, now: datetime) -> bool:
    """Its job has run out and no engine holds it: there is none, or it was away. Nobody would ever finish it."""
    if found.state not in {"opening", "ending"}:
        return False
    under_way = select(LoginJob.id).where(
        LoginJob.tool_session_id == found.id,
        LoginJob.done_at.is_(None),
        or_(LoginJob.deadline_at > now, and_(LoginJob.leased_until.is_not(None), LoginJob.leased_until > now)),
    )
    return session.scalar(under_way) is None


def _close_jobs(session: Session, tool_session_id: uuid.UUID, *, result: str, now: datetime) -> None:
    change(
        session,
        update(LoginJob)
        .where(LoginJob.tool_session_id == tool_session_id, LoginJob.done_at.is_(None))
        .values(done_at=now, result=result),
    )


def _insert(
    session: Session,
    ticket_key: bytes,
    tool_account: ToolAccount,
    recipe: Recipe,
    *,
    owner: uuid.UUID | None,
    person: Person,
    now: datetime,
) -> ToolSession:
    row_id = ids.new_id(now)
    statement = insert_into(session, ToolSession).values(
        id=row_id, created_at=now, company_id=tool_account.company_id, tool_account_id=tool_account.id, account_id=owner,
        state="opening", generation=0, jar_version=0, ends_at=now + timedelta(hours=recipe.session.max_hours),
    )  # fmt: skip
    if run(session, statement.on_conflict_do_nothing().returning(ToolSession.id)).first() is not None:
        job_id = ids.new_id(now)
        ticket_id = issue_use_ticket(
            session, ticket_key, purpose=Purpose.LOGIN, company_id=tool_account.company_id, store_id=tool_account.store_id,
            tool_account_id=tool_account.id, person=person, job_id=job_id, now=now,
        )  # fmt: skip
        session.add(
            LoginJob(
                id=job_id, created_at=now, company_id=tool_account.company_id, tool_session_id=row_id, generation=0, kind="login",
                use_ticket_id=ticket_id, next_at=now, deadline_at=now + JOB_LIFE,
            )
        )  # fmt: skip
        session.flush()
        return session.get_one(ToolSession, row_id)
    joined = _current(session, tool_account.id, owner)
    if joined is None:
        raise Conflict(
            "前の利用の終了処理をしています。1分ほど待って、もう一度開いてください。",
            f"a session of {tool_account.id} just ended",
        )
    return joined
