"""Brakes on guessing: counters in the database, shared by all processes and surviving a restart (AC-05).

A key names who is guessing at what. The key of a login is (login name, known device or network), so that somebody on a
shop's Wi-Fi cannot lock out the colleagues beside them; an invented login name is counted exactly like a real one, so
the waiting page tells nothing (AC-06). Nobody is locked for good.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, insert_into
from idp.core.errors import Throttled
from idp.domain.authn.models import Throttle

#: tries before the first pause, and how long it is; every further `TRIES` double it
TRIES = 5
PAUSE = timedelta(minutes=5)
LONGEST = timedelta(hours=4)
FORGET_AFTER = timedelta(hours=12)


def key(kind: str, *parts: str) -> str:
    """A counter's key. The parts are hashed: login names typed by mistake are often passwords."""
    joined = "\0".join(parts)
    return f"{kind}:{hashlib.sha256(joined.encode()).hexdigest()}"


def check(session: Session, keys: list[str], *, now: datetime) -> None:
    """Raise Throttled while any of these keys is paused. Reads only."""
    until = session.scalars(
        select(Throttle.blocked_until).where(Throttle.key.in_(keys), Throttle.blocked_until > now)
    ).all()
    if until:
        wait = max(t for t in until if t is not None) - now
        raise Throttled(
            "続けて間違えたため、いまはログインできません。",
            "throttled",
            retry_after_s=max(1, int(wait.total_seconds()) + 1),
        )


def count_failure(
    session: Session, counter: str, *, now: datetime, tries: int = TRIES, pause: timedelta = PAUSE
) -> None:
    """Count one failure, exactly, also in parallel: one upsert. Every `tries` failures pause the key, doubling."""
    row = {"id": ids.new_id(now), "created_at": now, "key": counter, "count": 1, "updated_at": now}
    statement = insert_into(session, Throttle).values(row)
    count = session.execute(
        statement.on_conflict_do_update(
            index_elements=["key"], set_={"count": Throttle.count + 1, "updated_at": now}
        ).returning(Throttle.count)
    ).scalar_one()
    if count % tries == 0:
        length = min(pause * 2 ** min(count // tries - 1, 16), LONGEST)
        change(session, update(Throttle).where(Throttle.key == counter).values(blocked_until=now + length))


def forget(session: Session, counter: str) -> None:
    """Start over after a success."""
    change(session, delete(Throttle).where(Throttle.key == counter))


def sweep(session: Session, *, now: datetime) -> int:
    """Drop counters that nobody has touched for 12 hours."""
    return change(session, delete(Throttle).where(Throttle.updated_at < now - FORGET_AFTER))
