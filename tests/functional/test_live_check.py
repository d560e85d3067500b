"""The live check as the gateway asks it: straight on the driver, and still the same statement, types and moment (VA-50, decision 0060)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import create_engine, select, update

from idp.core import clock, ids
from idp.core.db import READING, db, reading, run, transaction
from idp.core.errors import Unavailable
from idp.domain.directory.models import Account
from idp.domain.gateway import gateway_sessions
from idp.domain.gateway.models import GatewayCookie, GatewaySession, ToolSession
from idp.edges.tools.straight import MOST, Straight
from tests.actors import World
from tests.tools import place
from tests.unit.connectors.recipe_texts import COMPLETE

COOKIES = [ids.digest(f"cookie {n}") for n in range(3)]
UNKNOWN = [ids.digest(f"unknown {n}") for n in range(MOST)]


@pytest.fixture
def inside(world: World) -> UUID:
    """A gateway session of one person, with two cookies of the three."""
    made = place(world.app, COMPLETE.encode())
    person = made.enter(world.person().id)
    now = clock.now()
    with world.app.app_context(), transaction() as session:
        row = ToolSession(
            created_at=now, company_id=made.account.company_id, tool_account_id=made.account.id, state="live",
            ends_at=now + timedelta(hours=1),
        )  # fmt: skip
        session.add(row)
        session.flush()
        inside = made.sit_down(session, person, row.id)
        session.add_all(
            GatewayCookie(created_at=now, gateway_session_id=inside, host=f"h{n}", cookie_digest=digest)
            for n, digest in enumerate(COOKIES[:2])
        )
    return inside


@pytest.fixture
def query(world: World) -> Iterator[Straight]:
    """What the port makes once per process."""
    with world.app.app_context():
        made = Straight(db.engines[READING], gateway_sessions.live_query(), many="digests", others=("now",))
    with closing(made):
        yield made


def test_VA_50_it_answers_what_the_statement_answers_however_many_ask(
    world: World, inside: UUID, query: Straight
) -> None:
    values = {"now": clock.now()}
    with world.app.app_context(), reading() as session:
        told = {
            tuple(row)
            for row in map(_plain, run(session, gateway_sessions.live_query(), {"digests": COOKIES, **values}))
        }
    assert len(told) == 2
    for asked in (COOKIES, COOKIES[::-1], COOKIES * 5, [*COOKIES, *UNKNOWN], [*UNKNOWN, *COOKIES]):
        assert {tuple(row) for row in map(_plain, query.rows(asked, values))} == told
    assert [row.host for row in query.rows(COOKIES[:1], values)] == ["h0"]
    assert query.rows([], values) == query.rows(UNKNOWN[:3], values) == query.rows(COOKIES[2:], values) == []


def _plain(row: object) -> list[str]:
    return [repr(bytes(value) if isinstance(value, memoryview) else value) for value in row]  # type: ignore[attr-defined]


def test_VA_50_nothing_is_kept_between_two_checks(world: World, inside: UUID, query: Straight) -> None:
    """D7: whatever above the row ends, and an end date that is reached, holds at the next check on the same connection."""
    now = clock.now()

    def hosts() -> int:
        return len(query.rows(COOKIES, {"now": now}))

    def store(**values: object) -> None:
        with world.app.app_context(), transaction() as session:
            owner = select(GatewaySession.account_id).where(GatewaySession.id == inside).scalar_subquery()
            session.execute(update(Account).where(Account.id == owner).values(**values))

    assert hosts() == 2
    store(ends_at=now + timedelta(minutes=5))
    assert hosts() == 2
    assert query.rows(COOKIES, {"now": now + timedelta(minutes=6)}) == [], "by the clock alone"
    whole = (now + timedelta(minutes=5)).replace(microsecond=0)
    store(ends_at=whole)
    assert query.rows(COOKIES, {"now": whole}) == [], "on the second: instants are compared as they are stored"
    store(ends_at=None)
    assert hosts() == 2
    with world.app.app_context(), transaction() as session:
        gateway_sessions.end_sessions(session, GatewaySession.id == inside, reason="cut", now=now)
        session.flush()
        assert hosts() == 2, "not committed yet"
    assert hosts() == 0


def test_VA_50_it_can_only_read_and_a_lost_connection_is_a_refusal_and_never_a_yes(
    inside: UUID, query: Straight
) -> None:
    values = {"now": clock.now()}
    assert len(query.rows(COOKIES, values)) == 2
    raw = query._free.get_nowait()
    with pytest.raises(Exception, match=r"(?i)read.?only"):
        raw.execute("DELETE FROM gateway_cookie")
    raw.close()
    query._free.put(raw)
    with pytest.raises(Unavailable):
        query.rows(COOKIES, values)
    assert len(query.rows(COOKIES, values)) == 2, "the next one is asked on a new connection"
    nowhere = Straight(
        create_engine("sqlite:////nowhere/at/all.sqlite"),
        gateway_sessions.live_query(),
        many="digests",
        others=("now",),
    )
    with pytest.raises(Unavailable):
        nowhere.rows(COOKIES, values)
