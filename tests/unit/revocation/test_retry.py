"""When a delivery is tried again (RE-05). Arithmetic; no database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from idp.ledgers.outbox.queue import Order, next_try_at

BORN = datetime(2026, 11, 21, tzinfo=UTC)
DAY = timedelta(hours=24)


def order(tries: int) -> Order:
    """A delivery that was made at BORN and gives up after a day."""
    return Order(uuid.uuid4(), "cut", None, "d", {}, tries, 1, BORN, BORN + DAY)


@given(tries=st.integers(1, 5000), after=st.integers(0, 86399), wish=st.none() | st.integers(0, 10**7))
def test_RE_05_bounds(tries: int, after: int, wish: int | None) -> None:
    """At least a second, at most 5 min in the first hour and half an hour later; never before what the peer asked for, up to an
    hour; and never after the moment at which a person is asked."""
    now = BORN + timedelta(seconds=after)
    at = next_try_at(order(tries), now=now, retry_after_s=wish)
    asked = min(wish, 3600) if wish is not None else 0
    most = max(300 if after < 3600 else 1800, asked)
    assert at <= BORN + DAY
    assert at >= min(now + timedelta(seconds=max(1, asked)), BORN + DAY)
    assert at <= now + timedelta(seconds=most)


def test_RE_05_full_jitter_grows() -> None:
    """The ceiling doubles from 2 s to 5 min, and the waits spread over all of it: peers of one outage do not come in step."""
    for tries, ceiling in ((1, 2), (2, 4), (5, 32), (8, 256), (9, 300), (60, 300)):
        waits = [(next_try_at(order(tries), now=BORN) - BORN).total_seconds() for _ in range(400)]
        assert min(waits) >= 1
        assert max(waits) <= ceiling
        assert max(waits) > ceiling * 0.9
        assert len({round(wait, 3) for wait in waits}) > 50
        if ceiling > 4:
            assert min(waits) < ceiling * 0.2, "jitter from the bottom, not around the ceiling"
