"""RE-30: kill -9 at every step of reading a service provider's metadata again (SA-15).

Killed anywhere, the document is either taken with its audit row and its delivery done, or nothing of it is there and the delivery
waits for another worker. A changed address is never taken by half.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update

from idp.app import create_app
from idp.core import clock
from idp.core.db import transaction
from idp.core.outbound import HttpOutbound, Rules
from idp.domain.applications import sp_metadata
from idp.domain.applications.models import ServiceProvider as Row
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox.models import OutboxRow
from tests.actors import World
from tests.conftest import Database, dispose
from tests.crash.conftest import Condemned
from tests.crash.test_kill_nine import DELIVER, points
from tests.fakes.rp import Handler, Peer, Received, ok
from tests.saml import ServiceProvider

#: beside those of every worker
READ = {*DELIVER, "asked", "SELECT application", "UPDATE service_provider"}


@pytest.fixture
def real_app(database: Database) -> Iterator[Flask]:
    """The product with its own outbound client."""
    settings = database.settings()
    made = create_app(settings, outbound=HttpOutbound(Rules.from_settings(settings)))
    yield made
    dispose(made)


def test_RE_30_SA_15_killed_at_every_step_of_reading_again(
    real_app: Flask, condemned: Condemned, database: Database
) -> None:
    """Documents alternate: one with another date, which is taken, and one with another address, which is held."""
    world = World(real_app)
    with Peer(ok) as peer:
        sp = world.service_provider(ServiceProvider("coupon"), metadata_url=peer.url)
        begin = clock.now()

        def document(number: int) -> bytes:
            acs = (f"https://coupon.example/{number}",) if number % 2 else None
            return sp.metadata(valid_until=begin + timedelta(days=1, seconds=number), acs=acs)

        def due(number: int) -> None:
            def serve(handler: Handler, _call: Received) -> None:
                handler.answer(200, document(number))

            peer.behaviour = serve
            with real_app.app_context(), transaction() as session:
                session.execute(update(Row).values(metadata_checked_at=None))
                session.execute(update(OutboxRow).values(dedup_key=OutboxRow.id))
                assert sp_metadata.put_due(session, now=clock.now()) == 1

        def found() -> tuple[object, ...]:
            (row,) = world.rows(select(Row.acs, Row.held, Row.metadata_until))
            (last,) = world.rows(select(OutboxRow.state).order_by(OutboxRow.id.desc()).limit(1))
            events = world.rows(select(AuditEvent.id).where(AuditEvent.tag.like("saml:metadata:%")))
            assert row.acs[0]["url"] == sp.acs[0], "an address was taken that nobody approved"
            held = row.held["acs"][0]["url"] if row.held else None
            return held, row.metadata_until, len(events), last.state

        due(0)
        steps = condemned.rehearse("deliver")
        assert set(steps) <= READ, f"a step without a failpoint: {set(steps) - READ}"
        assert {"asked", "answered", "UPDATE service_provider"} <= set(steps)
        until = steps.index("UPDATE service_provider") + 5
        for number, at in enumerate(points(steps, database.engine, until=until), start=1):
            if at > until:
                continue
            before = found()
            due(number)
            assert condemned.run("deliver", at)[0]
            after = found()
            assert after[:3] == before[:3] or after[3] == "done", (at, steps[at - 1], before, after)
            with time_machine.travel(datetime.now(UTC) + timedelta(seconds=31), tick=False):
                world.deliver()
            held, _, events, state = found()
            assert state == "done"
            assert held == (f"https://coupon.example/{number}" if number % 2 else None)
            assert events == before[2] + 1, (at, steps[at - 1])  # type: ignore[operator]
