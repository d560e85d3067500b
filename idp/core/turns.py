"""Whose turn it is to write, where only one can: the queue in front of SQLite's write lock (RE-41, RE-46).

SQLite's own waiting sleeps longer after every try, up to 100 ms, and asks nobody who came first: in a storm of logins a
revocation loses again and again until its five seconds are over. Here one thread of a process asks at a time, often, and
revocation stands in front.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

#: how often the first in the queue asks again, in seconds; other processes ask too, and revocation asks more often
ASK_S: Final = 0.003
RESERVED_ASK_S: Final = 0.0005


class Turns:
    """The writers of one process that found the lock taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._asking = False
        self._waiting: list[tuple[bool, int, threading.Event]] = []

    def wait(self, ask: Callable[[], bool], *, reserved: bool, seconds: float) -> bool:
        """Ask when it is our turn, until it is granted. False: the time is over.

        ask: tries to take the lock once, without waiting; reserved: goes before all that are not.
        """
        until = time.monotonic() + seconds
        place = (not reserved, next(self._order), threading.Event())
        with self._lock:
            if self._asking:
                heapq.heappush(self._waiting, place)
            else:
                self._asking = True
                place[2].set()
        if not place[2].wait(seconds) and self._gave_up(place):
            return False
        try:
            while not ask():
                if time.monotonic() >= until:
                    return False
                time.sleep(RESERVED_ASK_S if reserved else ASK_S)
            return True
        finally:
            self._next()

    def _gave_up(self, place: tuple[bool, int, threading.Event]) -> bool:
        """Leave the queue. False: the turn came at this very moment, and has to be handed on."""
        with self._lock:
            if place[2].is_set():
                return False
            self._waiting.remove(place)
            heapq.heapify(self._waiting)
            return True

    def _next(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._asking = False
