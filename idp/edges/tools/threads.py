"""The database from a coroutine: SQLAlchemy works in threads, with the application's own pools."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from flask import Flask
from sqlalchemy.orm import Session

from idp.core.db import READING, db, reading, retrying, transaction

T = TypeVar("T")


#: the checks of requests come one after the other (`connectors.gateway.live`), and beside them those of the sweep
CHECKERS: Final = 2


class Checkers:
    """Threads for the live checks alone: no login waits before one, and no check behind a login.

    Each page needs two of them, and the way to an executor's thread and back takes twice as long as this one.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        # Daemons: they only read, so a process that ends need not wait for a disk that does not answer.
        self._threads = [
            threading.Thread(target=self._work, name=f"live-{number}", daemon=True) for number in range(CHECKERS)
        ]
        for thread in self._threads:
            thread.start()

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, from one of the threads. RuntimeError after the end."""
        if self._closed:
            raise RuntimeError("closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                told: tuple[Callable[[Any], None], Any] = answer.set_result, work()
            except BaseException as error:  # noqa: BLE001 - raised to who has asked
                told = answer.set_exception, error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_tell, answer, *told)

        self._asked.put(run)
        return await answer

    def close(self) -> None:
        """Finish what has been asked, and take nothing more."""
        self._closed = True
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (run := self._asked.get()) is not None:
            run()


def _tell(answer: asyncio.Future[T], tell: Callable[[Any], None], what: Any) -> None:
    if not answer.done():  # who has asked may have given up
        tell(what)


class Threads:
    """Work on the database outside the event loop."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        with app.app_context():
            self.reading = db.engines[READING]
        self._others = ThreadPoolExecutor(max_workers=6, thread_name_prefix="ports")

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
