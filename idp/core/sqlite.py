"""The SQLite half of the house: a connection that leaves nothing open, and the queue for the one write lock (RE-41)."""

from __future__ import annotations

import sqlite3
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from idp.core.turns import Turns

#: how long anything of ours waits for SQLite's write lock
BUSY_S = 5
BUSY = f"busy_timeout={BUSY_S * 1000}"


class ClosingConnection(sqlite3.Connection):
    """A connection that can close what was left open on it.

    A result of which a row is left unread keeps SQLite's snapshot, past COMMIT and past the way back into the pool, for as long
    as anybody holds it. Whoever takes that connection next reads the past, also in a live check, and can never write: BEGIN
    IMMEDIATE on an old snapshot is busy however long one waits.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """As it is, and remembered while it lives."""
        made = super().cursor(*args, **kwargs)
        self._cursors.add(made)
        return made

    def close_cursors(self) -> None:
        """End every statement that is still open."""
        for left in tuple(self._cursors):
            left.close()
        self._cursors.clear()


def prepare_engine(engine: Engine, turns: Turns, *, read_only: bool = False, reserved: bool = False) -> None:
    """Install the SQLite rules of RE-41 on an engine; PostgreSQL needs none.

    turns: of this process's writers; read_only: its connections can write nothing; reserved: it stands first in the queue.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None  # first: `foreign_keys` does nothing inside a transaction
        # synchronous=FULL, not the usual NORMAL: a lost commit resurrects access (RE-41)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", BUSY, "foreign_keys=ON"):
            dbapi.execute(f"PRAGMA {pragma}")
        if (
            read_only
        ):  # last, once per connection: each such PRAGMA throws away every statement that SQLite has prepared
            dbapi.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "checkin")
    def _checkin(dbapi: ClosingConnection | None, _record: Any) -> None:
        if dbapi is not None:  # None: it was thrown away
            dbapi.close_cursors()

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        if not read_only:
            _take_write_lock(conn, turns, reserved=reserved)


def _take_write_lock(conn: Connection, turns: Turns, *, reserved: bool) -> None:
    """Begin a writing transaction on SQLite: at once, or in the order of the queue. Raises OperationalError after `BUSY_S`."""
    raw = cast("sqlite3.Connection", conn.connection.dbapi_connection)

    def ask() -> bool:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return False
            raise
        return True

    raw.execute("PRAGMA busy_timeout=0")
    try:
        conn.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError as error:
        if not is_busy(error.orig) or not turns.wait(ask, reserved=reserved, seconds=BUSY_S):
            raise
    finally:
        raw.execute(f"PRAGMA {BUSY}")


def is_busy(error: BaseException | None) -> bool:
    """True where somebody else held the write lock for too long. error: the driver's."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
