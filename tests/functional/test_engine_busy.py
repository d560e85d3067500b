"""The engine over a database that is locked for a moment: what is refused once is asked again, and nothing is left undone (VA-32)."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from idp.core import clock
from idp.core.db import db
from idp.domain.gateway import tool_sessions
from idp.domain.gateway.models import ToolSession
from idp.ledgers.audit.events import Tag
from tests.actors import World
from tests.engine_room import room
from tests.fakes.device import in_loop
from tests.fakes.tools.site import Site, running
from tests.functional.test_engine import STORE, audit, person


@contextlib.contextmanager
def busy(app: Flask, folder: Path) -> Iterator[list[str]]:
    """Each transaction that writes to the log or seals a jar is refused once, with a real error of a database that is locked."""
    refused: list[str] = []
    again = threading.local()  # a transaction is repeated by the thread that tried it

    def refuse(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        wanted = text.startswith(("INSERT INTO audit_event", "UPDATE company_key"))
        if wanted and not getattr(again, "tried", False):
            again.tried = True
            refused.append(text.split("(", maxsplit=1)[0])
            raise OperationalError(text, {}, locked(folder))

    def committed(_conn: Any) -> None:
        again.tried = False

    with app.app_context():
        engines = list(db.engines.values())
    for engine in engines:
        event.listen(engine, "before_cursor_execute", refuse)
        event.listen(engine, "commit", committed)
    try:
        yield refused
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", refuse)
            event.remove(engine, "commit", committed)


def locked(folder: Path) -> sqlite3.OperationalError:
    """What SQLite says to the second writer."""
    first, second = (sqlite3.connect(folder / "other.sqlite", timeout=0, isolation_level=None) for _ in range(2))
    try:
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as error:
            second.execute("BEGIN IMMEDIATE")
        return error.value
    finally:
        first.close()
        second.close()


@in_loop
async def _busy(world: World, folder: Path) -> None:
    site = Site(STORE)
    async with running(site), room(world.app, site) as on:
        opened = await on.open(person(world, on))
        with busy(world.app, folder) as refused:
            await on.settle()
            assert await on.state(opened) == ("live", None)
            planned = await on.plan()
            await on.settle()
            assert (await on.rotation(planned)).state == "done"
            await on.call(lambda s: tool_sessions.end(s, ToolSession.id == opened, reason="cut", now=clock.now()))
            await on.settle()
        assert await on.state(opened) == ("ended", "cut")
        assert await on.jobs(opened) == ["live", "live", "logged_out"]
        assert len(refused) > 10, refused
        rows = await audit(on, Tag.SECRET_OPENED)
        tickets = [row.detail["ticket_id"] for row in rows if "ticket_id" in row.detail]
        assert len(tickets) == len(set(tickets)) == 3, "what was refused is written once"


def test_VA_32_a_database_that_is_busy_for_a_moment_leaves_nothing_undone(world: World, tmp_path: Path) -> None:
    """Each open is recorded again before it is given up; a login, a rotation and a logout come to their ends."""
    _busy(world, tmp_path)
