"""The processes that are killed, as fixtures: one parent per run, one condemned per test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import Database

ROOT = Path(__file__).resolve().parents[2]


class Parent:
    """The process that forks those that die; one for all tests, because it takes seconds to start."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def write(self, order: dict[str, Any]) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """One line of the answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the parent of the condemned is gone"
        found: dict[str, Any] = json.loads(line)
        return found


class Condemned:
    """Processes on one database, each of which dies at a step, or lives."""

    def __init__(self, parent: Parent, database: Database) -> None:
        self._parent = parent
        self._where = {"url": database.url, "folder": str(database.folder)}
        self._pid: int | None = None

    def begin(self, do: str, at: int | None = None, **order: str) -> int:
        """Start one; it dies at step `at`. Returns its pid; `ended` comes next."""
        self._parent.write({**self._where, "do": do, "at": at, **order})
        self._pid = int(self._parent.read()["pid"])
        return self._pid

    def ended(self) -> tuple[bool, list[str]]:
        """Wait for the process that was begun. Returns whether it was killed, and the steps it reached."""
        found = self._parent.read()
        self._pid = None
        assert found["exit"] in {-signal.SIGKILL, 0}, found
        return found["exit"] != 0, list(found["steps"])

    def run(self, do: str, at: int | None = None, **order: str) -> tuple[bool, list[str]]:
        """Begin one and wait."""
        self.begin(do, at, **order)
        return self.ended()

    def rehearse(self, do: str, **order: str) -> list[str]:
        """Do it in the parent, where nobody dies. Returns every step."""
        self._parent.write({**self._where, "do": f"rehearse {do}", **order})
        return list(self._parent.read()["steps"])

    def bury(self) -> None:
        """After a test that failed in the middle: nobody is left behind."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self.ended()


@pytest.fixture(scope="session")
def parent() -> Iterator[Parent]:
    """One per run and process of tests."""
    with Parent() as made:
        yield made


@pytest.fixture
def condemned(parent: Parent, database: Database) -> Iterator[Condemned]:
    """On this test's database."""
    made = Condemned(parent, database)
    yield made
    made.bury()
