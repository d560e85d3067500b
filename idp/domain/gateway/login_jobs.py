"""Work of the engine at tool sessions: leased with a fence, marked before a secret is sent, finished once (VA-47).

An engine that was killed leaves a lease of 20 s. What it had not submitted is tried once more; what it had is never run again
by a machine, and its try stays counted. Lock order: tool account, tool session, job.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from idp.core.db import change, claim
from idp.domain.credentials import rotations
from idp.domain.credentials.models import Rotation, SealedCredential
from idp.domain.gateway import tool_sessions
from idp.domain.gateway.models import LoginJob, ToolSession, UseTicket
from idp.domain.gateway.tickets import Purpose, issue_again, issue_use_ticket
from idp.domain.tools import tries
from idp.domain.tools.models import ToolAccount

LEASE: Final = timedelta(seconds=20)
#: the first run, and one more after a death before anything was submitted
MOST_RUNS: Final = 2
WAITING_FOR_LOGIN: Final = ("opening", "renewing")

Task = Literal["login", "logout"]


@dataclass(frozen=True)
class Job:
    """A leased job. task: what is to be done now, by the state of the session at the lease; ticket_id: for a login."""

    id: uuid.UUID
    fence: int
    task: Task
    purpose: Purpose
    tool_session_id: uuid.UUID
    tool_account_id: uuid.UUID
    company_id: uuid.UUID
    store_id: uuid.UUID | None
    generation: int
    ticket_id: uuid.UUID | None
    created_at: datetime
    deadline_at: datetime


def due(session: Session, *, now: datetime, limit: int) -> Sequence[uuid.UUID]:
    """Open jobs that nobody holds, oldest first."""
    return session.scalars(
        select(LoginJob.id).where(*_free(now)).order_by(LoginJob.next_at, LoginJob.id).limit(limit)
    ).all()


def lease(session: Session, ticket_key: bytes, job_id: uuid.UUID, *, now: datetime) -> Job | None:
    """Take a job for 20 s; None when somebody else has it, or works at the same tool account.

    What is to be done is decided here, from the state of the session: a login whose session is ending becomes a logout, and a
    renewal is done only while somebody is inside. For it the ticket is written here, signed, under this lease.
    """
    row = session.execute(
        select(LoginJob.tool_session_id, ToolSession.tool_account_id)
        .join(ToolSession, ToolSession.id == LoginJob.tool_session_id)
        .where(LoginJob.id == job_id)
    ).one_or_none()
    if row is None:
        return None
    tries.lock(session, row.tool_account_id)
    session.scalar(select(ToolSession.id).where(ToolSession.id == row.tool_session_id).with_for_update(key_share=True))
    if is_busy(session, row.tool_account_id, now=now, login=True):
        return None
    taken = claim(
        session,
        update(LoginJob)
        .where(LoginJob.id == job_id, *_free(now))
        .values(leased_until=now + LEASE, fence=LoginJob.fence + 1, attempts=LoginJob.attempts + 1),
    )
    return _begin(session, ticket_key, session.get_one(LoginJob, job_id), now=now) if taken else None


def _begin(session: Session, ticket_key: bytes, job: LoginJob, *, now: datetime) -> Job | None:
    owner = session.get_one(ToolSession, job.tool_session_id)
    store_id = session.scalar(select(ToolAccount.store_id).where(ToolAccount.id == owner.tool_account_id))
    purpose, task, ticket_id = Purpose.RENEW, "login", job.use_ticket_id
    if owner.state not in {*WAITING_FOR_LOGIN, "ending"} or owner.ended_at is not None:
        _close(session, job.id, job.fence, result="obsolete", now=now)
        return None
    if owner.state in WAITING_FOR_LOGIN and ticket_id is not None and job.kind == "login":
        purpose = Purpose.LOGIN
        if job.attempts > 1:
            ticket_id = issue_again(session, ticket_key, ticket_id, now=now, until=job.deadline_at)
    elif owner.state in WAITING_FOR_LOGIN and _somebody_inside(session, owner.id, now=now):
        ticket_id = issue_use_ticket(
            session, ticket_key, purpose=Purpose.RENEW, company_id=owner.company_id, store_id=store_id,
            tool_account_id=owner.tool_account_id, person=None, job_id=job.id, now=now,
        )  # fmt: skip
    else:
        # nobody waits for this login, or it is over: what is left to do is to leave the tool
        tool_sessions.move(session, owner.id, WAITING_FOR_LOGIN, now=now, state="ending", end_reason="nobody_inside")
        purpose, task, ticket_id = Purpose.END_SESSION, "logout", None
    change(session, update(LoginJob).where(LoginJob.id == job.id).values(use_ticket_id=ticket_id))
    return Job(
        job.id, job.fence, "login" if task == "login" else "logout", purpose, owner.id, owner.tool_account_id, owner.company_id,
        store_id, owner.generation, ticket_id, job.created_at, job.deadline_at,
    )  # fmt: skip


def held(job: Job, now: datetime) -> ColumnElement[bool]:
    """This engine still holds the job. For the WHERE of what is done under the lease."""
    return exists(select(LoginJob.id).where(*_mine(job, now)))


def extend(session: Session, job: Job, *, now: datetime) -> bool:
    """Hold it for another 20 s. False: it was taken away, and nothing more may be sent."""
    return bool(change(session, update(LoginJob).where(*_mine(job, now)).values(leased_until=now + LEASE)))


def submitting(session: Session, job: Job, *, now: datetime) -> bool:
    """Commit that a secret is about to be sent, before it is. False: the lease is lost, and nothing may be sent."""
    return claim(
        session,
        update(LoginJob)
        .where(*_mine(job, now))
        .values(submitted_at=func.coalesce(LoginJob.submitted_at, now), leased_until=now + LEASE),
    )


def finish(session: Session, job: Job, *, result: str, now: datetime) -> bool:
    """Close a job under its fence, whatever its lease says: the fence is only ever taken by somebody else's lease."""
    change(
        session,
        update(UseTicket)
        .where(UseTicket.job_id == job.id, UseTicket.used_at.is_not(None), UseTicket.outcome.is_(None))
        .values(outcome=result),
    )
    return _close(session, job.id, job.fence, result=result, now=now)


def _close(session: Session, job_id: uuid.UUID, fence: int, *, result: str, now: datetime) -> bool:
    return claim(
        session,
        update(LoginJob)
        .where(LoginJob.id == job_id, LoginJob.fence == fence, LoginJob.done_at.is_(None))
        .values(done_at=now, result=result),
    )


@dataclass(frozen=True)
class Lost:
    """A job that no engine will finish. submitted: a try was used, and its answer is not known."""

    id: uuid.UUID
    fence: int
    tool_session_id: uuid.UUID
    tool_account_id: uuid.UUID
    company_id: uuid.UUID
    kind: str
    result: str


def lost(session: Session, *, now: datetime, limit: int = 100) -> Sequence[Lost]:
    """Jobs whose engine died after it had submitted (`interrupted`) or twice before that, or whose time has run out (`late`)."""
    over = or_(LoginJob.leased_until.is_(None), LoginJob.leased_until <= now)
    rows = session.execute(
        select(LoginJob, ToolSession.tool_account_id)
        .join(ToolSession, ToolSession.id == LoginJob.tool_session_id)
        .where(
            LoginJob.done_at.is_(None), over,
            or_(LoginJob.submitted_at.is_not(None), LoginJob.attempts >= MOST_RUNS, LoginJob.deadline_at <= now),
        )
        .order_by(LoginJob.id)
        .limit(limit)
    ).all()  # fmt: skip
    return [
        Lost(
            job.id, job.fence, job.tool_session_id, account_id, job.company_id, job.kind,
            "interrupted" if job.submitted_at is not None else "late",
        )
        for job, account_id in rows
    ]  # fmt: skip


def give_up(session: Session, one: Lost, *, now: datetime) -> bool:
    """Close a lost job and end its session: the next launch opens a new one, within the budget. False: it was finished."""
    tries.lock(session, one.tool_account_id)
    session.scalar(select(ToolSession.id).where(ToolSession.id == one.tool_session_id).with_for_update(key_share=True))
    if not _close(session, one.id, one.fence, result=one.result, now=now):
        return False
    return tool_sessions.move(
        session, one.tool_session_id, (*WAITING_FOR_LOGIN, "ending"), now=now, state="ended",
        end_reason=one.result, **tool_sessions.SHREDDED,
    )  # fmt: skip


def is_busy(session: Session, tool_account_id: uuid.UUID, *, now: datetime, login: bool) -> bool:
    """Somebody works at this tool account: two logins at once are two tries, and may end each other's session (VA-47).

    Also while a rotation does not know yet which password holds: a login with the wrong one would be a try for nothing.
    Asked with the account's row taken.
    """
    job = (
        select(LoginJob.id)
        .join(ToolSession, ToolSession.id == LoginJob.tool_session_id)
        .where(ToolSession.tool_account_id == tool_account_id, LoginJob.done_at.is_(None), LoginJob.leased_until > now)
    )
    rotation = (
        select(Rotation.id)
        .join(SealedCredential, SealedCredential.id == Rotation.credential_id)
        .where(
            SealedCredential.tool_account_id == tool_account_id,
            Rotation.ended_at.is_(None),
            or_(Rotation.leased_until > now, Rotation.state.in_(rotations.IN_DOUBT if login else ())),
        )
    )
    held = select(ToolAccount.id).where(ToolAccount.id == tool_account_id, ToolAccount.held_until > now)
    return bool(session.scalar(select(or_(job.exists(), rotation.exists(), held.exists()))))


def _free(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        LoginJob.done_at.is_(None), LoginJob.submitted_at.is_(None), LoginJob.next_at <= now, LoginJob.deadline_at > now,
        LoginJob.attempts < MOST_RUNS, or_(LoginJob.leased_until.is_(None), LoginJob.leased_until <= now),
    )  # fmt: skip


def _mine(job: Job, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        LoginJob.id == job.id, LoginJob.fence == job.fence, LoginJob.done_at.is_(None),
        and_(LoginJob.leased_until.is_not(None), LoginJob.leased_until > now),
    )  # fmt: skip


def _somebody_inside(session: Session, tool_session_id: uuid.UUID, *, now: datetime) -> bool:
    found = select(ToolSession.id).where(ToolSession.id == tool_session_id, tool_sessions.somebody_inside(now))
    return session.scalar(found) is not None
