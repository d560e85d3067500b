"""Put, lease, finish. Selected by status, never by position (RE-03); a lease carries a fencing number (RE-02)."""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import claim, prepared, run
from idp.ledgers.outbox.models import OutboxRow

LEASE = timedelta(seconds=30)
FIRST_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Order:
    """A leased delivery: what to do, and the fence under which its result may be written."""

    id: uuid.UUID
    topic: str
    ref: uuid.UUID | None
    destination: str
    detail: Mapping[str, Any]
    tries: int
    fence: int
    created_at: datetime
    give_up_at: datetime


def delivery(
    *,
    topic: str,
    destination: str,
    dedup_key: str,
    now: datetime,
    give_up_after: timedelta,
    ref: uuid.UUID | None = None,
    subject_epoch: int = 0,
    **detail: Any,
) -> dict[str, Any]:
    """One delivery for `put_all`. dedup_key: what makes two of them the same one."""
    return {
        "id": ids.new_id(now), "created_at": now, "topic": topic, "ref": ref, "destination": destination,
        "dedup_key": dedup_key, "subject_epoch": subject_epoch, "detail": detail, "state": "waiting", "run_at": now,
        "give_up_at": now + give_up_after, "tries": 0, "fence": 0,
    }  # fmt: skip


def put_all(session: Session, deliveries: Sequence[Mapping[str, Any]]) -> None:
    """Write deliveries in one statement; a second one with the same dedup_key is the same delivery and changes nothing."""
    if deliveries:
        run(session, _put(session.get_bind().dialect.name), deliveries)


def put(session: Session, **what: Any) -> None:
    """Write one `delivery`."""
    put_all(session, [delivery(**what)])


@prepared
def _put(dialect: str) -> Any:
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(OutboxRow)
    return insert.on_conflict_do_nothing(index_elements=["dedup_key"])


@dataclass(frozen=True)
class Due:
    """A delivery that may start now."""

    id: uuid.UUID
    destination: str


def due(session: Session, *, now: datetime, limit: int, full: Collection[str], per_destination: int) -> list[Due]:
    """Deliveries that may start now, oldest first, at most `per_destination` of each destination.

    full: destinations at their limit, which are passed over, so that one hung relying party holds its own few slots and
    nobody else's (RE-05).
    """
    rank = func.row_number().over(partition_by=OutboxRow.destination, order_by=(OutboxRow.run_at, OutboxRow.id))
    ready = or_(
        and_(OutboxRow.state == "waiting", OutboxRow.run_at <= now),
        and_(OutboxRow.state == "leased", OutboxRow.lease_until < now),
    )
    ranked = select(OutboxRow.id, OutboxRow.destination, OutboxRow.run_at, rank.label("rank")).where(ready)
    if full:
        ranked = ranked.where(OutboxRow.destination.not_in(full))
    inner = ranked.subquery()
    chosen = (
        select(inner.c.id, inner.c.destination)
        .where(inner.c.rank <= per_destination)
        .order_by(inner.c.run_at, inner.c.id)
        .limit(limit)
    )
    return [Due(row.id, row.destination) for row in session.execute(chosen)]


def lease(session: Session, row_id: uuid.UUID, *, now: datetime) -> Order | None:
    """Claim one delivery for this worker; None when another was faster."""
    went = claim(
        session,
        update(OutboxRow)
        .where(
            OutboxRow.id == row_id,
            or_(
                and_(OutboxRow.state == "waiting", OutboxRow.run_at <= now),
                and_(OutboxRow.state == "leased", OutboxRow.lease_until < now),
            ),
        )
        .values(state="leased", lease_until=now + LEASE, fence=OutboxRow.fence + 1, tries=OutboxRow.tries + 1),
    )
    if not went:
        return None
    row = session.execute(select(OutboxRow).where(OutboxRow.id == row_id)).scalar_one()
    return Order(
        row.id, row.topic, row.ref, row.destination, row.detail, row.tries, row.fence, row.created_at, row.give_up_at
    )


def done(session: Session, order: Order, *, outcome: str, now: datetime) -> bool:
    """Finish under the order's fence. False: the lease was lost meanwhile, and the result must be thrown away."""
    return claim(
        session,
        update(OutboxRow)
        .where(OutboxRow.id == order.id, OutboxRow.fence == order.fence, OutboxRow.state == "leased")
        .values(state="done", done_at=now, lease_until=None, outcome=outcome),
    )


def retry_later(
    session: Session,
    order: Order,
    *,
    at: datetime,
    outcome: str,
    told: int = 0,
    memory: Mapping[str, Any] | None = None,
) -> bool:
    """Put it back under the order's fence. told: parts of it that went well and are not repeated; memory: what the next try
    should know. False: the lease was lost meanwhile."""
    detail = {**order.detail, "told": told, **({"memory": dict(memory)} if memory else {})}
    return claim(
        session,
        update(OutboxRow)
        .where(OutboxRow.id == order.id, OutboxRow.fence == order.fence, OutboxRow.state == "leased")
        .values(state="waiting", run_at=at, lease_until=None, outcome=outcome, detail=detail),
    )


def next_try_at(order: Order, *, now: datetime, retry_after_s: int | None = None) -> datetime:
    """Full jitter from 1 s to 5 min in the first hour, then every 30 min (RE-05). `Retry-After` is honoured, at most 1 h.

    The last try is when the time is up, so that a person is asked then and not half an hour later.
    """
    if now - order.created_at < FIRST_HOUR:
        ceiling = min(300.0, 2.0 ** min(order.tries, 9))
        wait = max(1.0, random.uniform(0, ceiling))  # noqa: S311 - spreads load, protects nothing
    else:
        wait = 1800.0
    if retry_after_s is not None:
        wait = max(wait, float(min(retry_after_s, 3600)))
    return min(now + timedelta(seconds=wait), max(order.give_up_at, now))


def next_run_at(session: Session, order: Order) -> datetime | None:
    """When a delivery that was put back will be tried again."""
    return session.scalar(select(OutboxRow.run_at).where(OutboxRow.id == order.id, OutboxRow.state == "waiting"))
