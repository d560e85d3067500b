"""RE-41, RE-46: who waits for SQLite's write lock, in which order, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from idp.core.turns import Turns


class Lock:
    """What only one may hold; `ask` as the queue calls it."""

    def __init__(self) -> None:
        self.free = False
        self.asked: list[str] = []

    def asker(self, name: str) -> Callable[[], bool]:
        """Tries to take it for `name`."""

        def ask() -> bool:
            self.asked.append(name)
            if not self.free:
                return False
            self.free = False
            return True

        return ask


def test_RE_46_revocation_goes_first_and_the_others_in_order() -> None:
    """Five logins and a revocation wait; the lock is given back once at a time."""
    turns, lock, went = Turns(), Lock(), list[str]()
    threads = []
    for name in ("login 0", "login 1", "login 2", "login 3", "revocation"):

        def wait(name: str = name) -> None:
            assert turns.wait(lock.asker(name), reserved=name == "revocation", seconds=60)
            went.append(name)

        before = _queued(turns)
        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        _until(lambda before=before: _queued(turns) > before)
    assert set(lock.asked) <= {"login 0"}  # one asks at a time
    for number in range(5):
        lock.free = True
        _until(lambda number=number: len(went) > number)
    assert went == ["login 0", "revocation", "login 1", "login 2", "login 3"]
    for thread in threads:
        thread.join()
    assert _queued(turns) == 0


def test_RE_40_nobody_waits_longer_than_said() -> None:
    """The lock never comes free: the first gives up, the one behind it too, and the queue is empty again."""
    turns, lock, answers = Turns(), Lock(), list[bool]()

    def wait() -> None:
        answers.append(turns.wait(lock.asker("x"), reserved=False, seconds=0.2))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [False, False, False]
    assert _queued(turns) == 0
    lock.free = True
    assert turns.wait(lock.asker("x"), reserved=False, seconds=0.2)


def _queued(turns: Turns) -> int:
    with turns._lock:
        return len(turns._waiting) + turns._asking


def _until(held: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not held():
        assert time.monotonic() < until
        time.sleep(0.001)
