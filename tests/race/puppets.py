"""Threads that stop where a test says: before their n-th statement or commit. Hooks of the engine; nothing of ours is patched.

A *step* is one statement that reaches the database, or one commit. Stopping one thread before step n and letting another one
run until it has finished, or waits for a lock that the first one holds, is the barrier test of RE-20 at that statement pair.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from flask import Flask
from sqlalchemy import Connection, event

from idp.core.db import db

PATIENCE_S = 30.0
#: what carries no decision: connection set-up, and the read-only switch of SQLite
FRAME = ("PRAGMA", "ROLLBACK", "SELECT PG_CATALOG", "SHOW ", "SELECT CURRENT_SCHEMA")
WRITE = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"


class Puppet:
    """One piece of work in a thread of its own. pause: stop before the first step for which it is true."""

    def __init__(
        self, stage: Stage, work: Callable[[], Any], *, pause: Callable[[int, str], bool] = lambda _n, _s: False
    ) -> None:
        self.stage = stage
        self.steps: list[str] = []
        self.result: Any = None
        self.error: BaseException | None = None
        self.paused = threading.Event()
        self.done = threading.Event()
        self._pause, self._work = pause, work
        self._go = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Puppet:
        """Begin. Returns at once."""
        self._thread.start()
        return self

    def _run(self) -> None:
        self.stage.enter(self)
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - handed to the test by `finish`
            self.error = error
        finally:
            self.stage.leave()
            self.done.set()

    def step(self, what: str) -> None:
        """Called by the hooks, in the puppet's own thread."""
        self.steps.append(what)
        if not self.paused.is_set() and self._pause(len(self.steps), what):
            self.paused.set()
            assert self._go.wait(PATIENCE_S), "a paused puppet was forgotten"

    @property
    def writing(self) -> bool:
        """True while it stands with SQLite's write lock in its hands. The step before which it stands has not happened."""
        happened = self.steps[:-1]
        begun = max((i for i, s in enumerate(happened) if s.startswith(WRITE)), default=-1)
        return begun >= 0 and COMMIT not in happened[begun:]

    def until_paused(self) -> bool:
        """Wait until it stands before its step, or has finished without coming there. True: it stands."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.paused.wait(0.002):
            if self.done.is_set():
                return self.paused.is_set()
            assert time.monotonic() < deadline, self.steps
        return True

    def until_waiting(self, holder: Puppet) -> bool:
        """Wait until it has finished or waits for a lock. True: it waits. holder: the only other thread, which stands."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.done.wait(0.003):
            if self.stage.is_waiting(self, holder):
                return True
            assert time.monotonic() < deadline, self.steps
        return False

    def let_go(self) -> None:
        """Go on from where it stands."""
        self._go.set()

    def finish(self) -> Any:
        """Wait for its end and return its result, or raise what it raised."""
        self._go.set()
        assert self.done.wait(PATIENCE_S), self.steps
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self.result


class Stage:
    """The hooks on every engine of one application, and a look at who waits for a lock."""

    def __init__(self, app: Flask, postgres_dsn: str | None) -> None:
        self._local = threading.local()
        self._dsn = postgres_dsn
        self._watch: psycopg.Connection[Any] | None = None
        with app.app_context():
            self._engines = list(db.engines.values())

    @contextmanager
    def hooked(self) -> Iterator[Stage]:
        """Listen for as long as the block lasts."""
        for engine in self._engines:
            event.listen(engine, "before_cursor_execute", self._statement)
            event.listen(engine, "commit", self._commit)
        try:
            yield self
        finally:
            for engine in self._engines:
                event.remove(engine, "before_cursor_execute", self._statement)
                event.remove(engine, "commit", self._commit)
            if self._watch is not None:
                self._watch.close()

    def enter(self, puppet: Puppet) -> None:
        """This thread is that puppet's."""
        self._local.puppet = puppet

    def leave(self) -> None:
        """This thread is nobody's."""
        self._local.puppet = None

    def _statement(self, _conn: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        puppet = getattr(self._local, "puppet", None)
        if puppet is not None and not statement.lstrip().upper().startswith(FRAME):
            puppet.step(" ".join(statement.split())[:90])

    def _commit(self, _conn: Connection) -> None:
        puppet = getattr(self._local, "puppet", None)
        if puppet is not None:
            puppet.step(COMMIT)

    def is_waiting(self, puppet: Puppet, holder: Puppet) -> bool:
        """PostgreSQL says who waits. SQLite has one writer: whoever begins while another writes, waits."""
        if self._dsn is None:
            return bool(puppet.steps) and puppet.steps[-1].startswith(WRITE) and holder.writing
        if self._watch is None:
            self._watch = psycopg.connect(self._dsn, autocommit=True)
        row = self._watch.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
        return row is not None and row[0] > 0

    def puppet(self, work: Callable[[], Any], *, pause: Callable[[int, str], bool] = lambda _n, _s: False) -> Puppet:
        """A puppet on this stage, not yet started."""
        return Puppet(self, work, pause=pause)

    def meet(
        self, first: Callable[[], Any], second: Callable[[], Any], *, pause: Callable[[int, str], bool]
    ) -> Meeting:
        """`first` runs to the step that `pause` chooses; `second` starts and runs until it ends or waits; then both finish.

        The one that waited comes second in the order of the database, whatever the clock says.
        """
        a, b = self.puppet(first, pause=pause), self.puppet(second)
        stood = a.start().until_paused()
        b.start()
        waited = b.until_waiting(a) if stood else False
        a.let_go()
        one, two = _outcome(a), _outcome(b)
        return Meeting(one, two, stood=stood, waited=waited, steps=tuple(a.steps))


class Meeting:
    """What came of two that met. stood: `first` came to its step; waited: `second` had to wait for it there."""

    def __init__(self, first: Any, second: Any, *, stood: bool, waited: bool, steps: tuple[str, ...]) -> None:
        self.first, self.second, self.stood, self.waited, self.steps = first, second, stood, waited, steps


def _outcome(puppet: Puppet) -> Any:
    return puppet.finish()


def committing(statement: str) -> Callable[[int, str], bool]:
    """Stop before the commit of the transaction in which a statement beginning so was run."""
    seen = False

    def pause(_n: int, step: str) -> bool:
        nonlocal seen
        if step != COMMIT:
            seen = seen or step.startswith(statement)
            return False
        mine, seen = seen, False
        return mine

    return pause


def before(text: str) -> Callable[[int, str], bool]:
    """Stop before the first statement that begins with a text."""
    return lambda _n, step: step.startswith(text)


def at(number: int) -> Callable[[int, str], bool]:
    """Stop before the n-th step."""
    return lambda n, _step: n == number


def together(*works: Callable[[], Any], offsets: tuple[float, ...] = ()) -> list[Any]:
    """Run in threads, released by one barrier, each after its offset in seconds. Results in order; errors are raised."""
    gate = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(i: int, work: Callable[[], Any]) -> None:
        try:
            gate.wait(PATIENCE_S)
            if offsets and offsets[i] > 0:
                time.sleep(offsets[i])  # the race itself: a tiny shift of the start, not a wait for anything
            results[i] = work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i, work), daemon=True) for i, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S * 2)
    assert not any(t.is_alive() for t in threads), "a thread hangs"
    if errors:
        raise errors[0]
    return results
