"""The database from a coroutine: SQLAlchemy works in threads, with the application's own pools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flask import Flask
from sqlalchemy.orm import Session

from idp.core.db import READING, db, reading, retrying, transaction

T = TypeVar("T")


class Threads:
    """Work on the database outside the event loop. Live checks have threads of their own: no login waits before one."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        with app.app_context():
            self.reading = db.engines[READING]
        self._checks = ThreadPoolExecutor(max_workers=2, thread_name_prefix="live")
        self._others = ThreadPoolExecutor(max_workers=6, thread_name_prefix="ports")

    async def check(self, work: Callable[[], T]) -> T:
        """Ask what a live check asks, at once. work: brings its own connection."""
        return await asyncio.get_running_loop().run_in_executor(self._checks, work)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read."""
        return await self._in(self._others, lambda: self._reads(work))

    async def write(self, work: Callable[[Session], T]) -> T:
        """One transaction; again as a whole where the database asks for it."""
        return await self._in(self._others, lambda: retrying(lambda: self._writes(work)))

    async def work(self, work: Callable[[], T]) -> T:
        """Something that opens its own short transactions, such as opening a secret."""
        return await self._in(self._others, work)

    def close(self) -> None:
        """Finish what has begun, and take nothing more."""
        self._checks.shutdown()
        self._others.shutdown()

    def _reads(self, work: Callable[[Session], T]) -> T:
        with reading() as session:
            return work(session)

    def _writes(self, work: Callable[[Session], T]) -> T:
        with transaction() as session:
            return work(session)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        def run() -> T:
            with self._app.app_context():
                return work()

        return await asyncio.get_running_loop().run_in_executor(pool, run)
