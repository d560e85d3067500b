"""The doorbell: somebody's access ended. Only a hint that makes a sweep begin sooner; without it the timer sweeps (§5.2 step 2).

PostgreSQL notifies a listening connection with the commit. SQLite counts changes of the file, which is looked at often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from typing import Any

import psycopg
from sqlalchemy import make_url

from idp.domain.gateway.gateway_sessions import BELL

log = logging.getLogger(__name__)

LOOK_S = 0.25
AGAIN_S = 1.0


class Bell:
    """Rings while it is open. url: of the database, as SQLAlchemy writes it."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Return when something may have ended."""
        if self._task is None:
            listens = self._listen if self._url.get_backend_name() == "postgresql" else self._look
            self._task = asyncio.create_task(self._for_ever(listens))
        await self._rung.wait()
        self._rung.clear()

    async def close(self) -> None:
        """Hear nothing more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _for_ever(self, listens: Any) -> None:
        while True:
            try:
                await listens()
            except (psycopg.Error, sqlite3.Error, OSError) as error:
                log.warning("the doorbell is silent, sweeps go by the clock", extra={"why": type(error).__name__})
            await asyncio.sleep(AGAIN_S)

    async def _listen(self) -> None:
        parts: dict[str, Any] = {
            **self._url.translate_connect_args(username="user", database="dbname"),
            **self._url.query,
        }
        async with await psycopg.AsyncConnection.connect(**parts, autocommit=True) as connection:
            await connection.execute(f"LISTEN {BELL}")
            async for _ in connection.notifies():
                self._rung.set()

    async def _look(self) -> None:
        # in the loop itself: it reads one number from memory that SQLite shares, and never waits for a lock
        connection = sqlite3.connect(f"file:{self._url.database}?mode=ro", uri=True, isolation_level=None)
        try:
            seen = None
            while True:
                version = connection.execute("PRAGMA data_version").fetchone()[0]
                if seen is not None and version != seen:
                    self._rung.set()
                seen = version
                await asyncio.sleep(LOOK_S)
        finally:
            connection.close()
