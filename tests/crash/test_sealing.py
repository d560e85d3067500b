"""RE-30, AU-04: kill -9 between any two steps of sealing and signing, in real processes, on both databases.

K13. A dry run lists the steps; each must have a name below. After each death another process goes on when the lease is over, and
the whole log is checked from its first row: nothing twice, nothing lost, no alarm, nothing signed that the tree does not hold.
"""

from __future__ import annotations

from datetime import timedelta

import time_machine

from idp.cli.audit import _log
from idp.core import clock
from idp.core.db import reading, transaction
from idp.ledgers.audit import check
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.worker import Worker
from tests.actors import World
from tests.conftest import Database
from tests.crash.conftest import Condemned
from tests.crash.test_kill_nine import SEAL, points

STEPS = {
    *SEAL, "SELECT signing_key", "INSERT company_key", "UPDATE company_key", "INSERT audit_event", "BEGIN", "BEGIN IMMEDIATE",
    "COMMIT", "committed", "remembering", "remembered",
}  # fmt: skip


def write(world: World, count: int) -> None:
    with world.app.app_context():
        for number in range(count):
            with transaction() as session:
                record(session, Tag.STEP_UP, actor=Actor("cli", None, "", "x@y"), now=clock.now(), number=number)


def whole(world: World) -> int:
    """The check of `sekisho audit verify`. Returns the number of rows."""
    with world.app.app_context(), reading() as session:
        report = check.check(_log(session, world.services, [], []))
    assert report.findings == []
    return report.rows


def test_RE_30_AU04_killed_at_every_step_of_sealing(world: World, condemned: Condemned, database: Database) -> None:
    """Between reading, writing rows, tiles, the second store, and the checkpoint: the next one goes on from what is there."""
    write(world, 3)
    first = condemned.rehearse("seal")
    write(world, 3)
    steps = condemned.rehearse("seal")
    assert set(first) | set(steps) <= STEPS, f"a step without a failpoint: {(set(first) | set(steps)) - STEPS}"
    assert {"UPDATE audit_event", "INSERT audit_tile", "INSERT audit_checkpoint", "remembered"} <= set(steps)
    rows = whole(world)
    with time_machine.travel(clock.now(), tick=False) as frozen:
        for at in points(steps, database.engine):
            write(world, 2)
            killed, reached = condemned.run("seal", at)
            assert killed, (at, reached)
            frozen.shift(timedelta(seconds=16))
            Worker(world.app).drain()
            now = whole(world)
            assert now >= rows + 2, (at, reached[-1])
            rows = now
