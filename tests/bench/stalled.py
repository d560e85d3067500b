"""What a revocation and the insert of an audit row cost while the sealer rests, stands still with a backlog, and works it off (D1).

    python -m tests.bench.stalled sqlite|postgresql

People are cut one after another by the product's own `revoke`; milliseconds of each, as p50, p95 and the longest.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
import uuid
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

from flask import Flask

from idp.core import clock
from idp.core.db import db, transaction
from idp.core.errors import Unavailable
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from tests.actors import World
from tests.bench import big_log
from tests.bench.install import Installation
from tests.fakes.lives import cut, furnish

PEOPLE, BACKLOG = 40, 20_000


def measure(app: Flask, world: World, batch: str) -> str:
    """Cut people and write rows; the figures as text."""
    accounts = [furnish(world, [], f"{batch}{number:03}") for number in range(PEOPLE)]
    cuts, rows = [], []
    for account in accounts:
        began = time.perf_counter()
        cut(world, account)
        cuts.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        with app.app_context(), transaction() as session:
            record(session, Tag.LOGIN_SUCCEEDED, actor=Actor("person", None, "r", "192.0.2.1"), now=clock.now())
        rows.append((time.perf_counter() - began) * 1000)
    return f"revocation {_three(cuts)}   one row {_three(rows)}"


def _three(values: list[float]) -> str:
    ordered = sorted(values)
    return f"p50 {statistics.median(ordered):6.1f} p95 {ordered[int(len(ordered) * 0.95) - 1]:6.1f} max {ordered[-1]:6.1f} ms"


def main(engine: str) -> None:
    """The command."""
    installation = Installation(engine, destinations=1, victims=1, crowd=1, drivers=1)
    app = installation.app
    try:
        world = cast(
            "World", SimpleNamespace(app=app, services=app.extensions["sekisho"])
        )  # the company is there already
        with app.app_context():
            big_log.seal(app)
        sys.stdout.write(f"{engine}\n  rests        {measure(app, world, 'x')}\n")
        with app.app_context():
            big_log.load(db.engine, BACKLOG, companies=[uuid.uuid4()])
            stuck = app.extensions["sekisho"].sealer()
            stuck.step()
            big_log.load(db.engine, BACKLOG, companies=[uuid.uuid4()], days=364)
        sys.stdout.write(f"  stands still {measure(app, world, 'y')}\n")

        def work() -> None:
            with app.app_context():
                left = True
                while left:
                    with suppress(Unavailable):  # SQLite's lock, five seconds in vain: the worker comes back too
                        left = bool(stuck.step())
                stuck.release()

        working = threading.Thread(target=work)
        working.start()
        sys.stdout.write(f"  works        {measure(app, world, 'z')}\n")
        working.join()
    finally:
        installation.close()


if __name__ == "__main__":
    main(sys.argv[1])
