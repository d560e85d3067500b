"""Gateway processes as a cut sees them: who has swept since, and whose lease has lapsed (vault-and-gateway.md §5.2 step 6).

All of it is in the time of the database, the one clock that several hosts share: a sweep that began on a host whose clock is
ahead would otherwise count for a cut that came after it. On SQLite there is one host, and its clock is ours.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from idp.core import clock, ids
from idp.core.db import add_all, change, claim
from idp.domain.gateway.models import GatewayAccess, GatewayProcess, GatewaySession

LEASE = timedelta(seconds=5)


def database_time(session: Session) -> datetime:
    """The database's clock, now and not at the begin of the transaction."""
    if session.get_bind().dialect.name == "sqlite":
        return clock.now()
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found


def enrol(session: Session) -> tuple[uuid.UUID, datetime]:
    """A process begins: it holds nothing, so it has swept. Returns its row and the database's time."""
    at = database_time(session)
    process_id = ids.new_id(at)
    row = {"id": process_id, "created_at": at, "started_at": at, "swept_at": at, "lease_until": at + LEASE}
    add_all(session, GatewayProcess, [row])
    return process_id, at


def swept(session: Session, process_id: uuid.UUID, *, began: datetime) -> datetime | None:
    """A sweep that began then is complete, and the lease goes on. began: in the database's time, never later than it was.

    None when the lease had lapsed: others have counted this process as gone, so it must close everything before it goes on.
    """
    at = database_time(session)
    held = update(GatewayProcess).where(
        GatewayProcess.id == process_id, GatewayProcess.ended_at.is_(None), GatewayProcess.lease_until > at
    )
    return at if claim(session, held.values(swept_at=began, lease_until=at + LEASE)) else None


def stopped(session: Session, process_id: uuid.UUID) -> None:
    """A process has closed everything and ends."""
    change(
        session, update(GatewayProcess).where(GatewayProcess.id == process_id).values(ended_at=database_time(session))
    )


def unswept(session: Session, stamp: datetime) -> int:
    """How many processes may still hold something open that ended before `stamp`: alive, and without a sweep that began later."""
    alive = (GatewayProcess.ended_at.is_(None), GatewayProcess.lease_until > database_time(session))
    return (
        session.scalar(select(func.count()).select_from(GatewayProcess).where(*alive, GatewayProcess.swept_at <= stamp))
        or 0
    )


@dataclass(frozen=True)
class Passed:
    """What the access log says about ended sessions. late: requests that were admitted after the stamp, which must be none;
    under_way: requests that had been sent when the cut came, whose answers were dropped."""

    late: int
    under_way: Sequence[tuple[datetime, str, str]]


def passed(session: Session, revocation_id: uuid.UUID, application_id: uuid.UUID, *, stamp: datetime) -> Passed:
    """Requests of the sessions that a revocation ended in one application."""
    mine = (
        select(GatewaySession.id)
        .where(GatewaySession.revocation_id == revocation_id, GatewaySession.application_id == application_id)
        .scalar_subquery()
    )
    late = (
        select(func.count())
        .select_from(GatewayAccess)
        .where(GatewayAccess.gateway_session_id.in_(mine), GatewayAccess.at > stamp)
    )
    under_way = session.execute(
        select(GatewayAccess.at, GatewayAccess.method, GatewayAccess.route)
        .where(GatewayAccess.gateway_session_id.in_(mine), GatewayAccess.rule == "cut")
        .order_by(GatewayAccess.at, GatewayAccess.id)
        .limit(20)
    ).all()
    return Passed(session.scalar(late) or 0, [(row.at, row.method, row.route) for row in under_way])


def forget_old(session: Session, *, keep: timedelta, now: datetime, limit: int = 5000) -> int:
    """Rows of processes that are long gone, and requests older than `keep` (AU-09). Returns how many were forgotten."""
    gone = change(session, delete(GatewayProcess).where(GatewayProcess.lease_until < now - timedelta(days=1)))
    old = select(GatewayAccess.id).where(GatewayAccess.at < now - keep).order_by(GatewayAccess.at).limit(limit)
    return gone + change(session, delete(GatewayAccess).where(GatewayAccess.id.in_(old)))
