"""What glibc keeps of the memory that a process has given back (decision 0061)."""

from __future__ import annotations

import ctypes
import os
from typing import Final

#: name of the setting in the environment → its number in `mallopt(3)`, and ours
SETTINGS: Final = {"MALLOC_ARENA_MAX": (-8, 2), "MALLOC_MMAP_THRESHOLD_": (-3, 1024 * 1024)}


def bound() -> None:
    """Two heaps for all threads, and what is larger than 1 MiB goes back at once: an Argon2id hash takes 19 MiB of it.

    Left to itself, glibc makes a heap for nearly every thread and keeps the first such 19 MiB in each of them. What the operator
    set in the environment stays; where the C library is another one, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, (number, value) in SETTINGS.items():
        if mallopt is not None and name not in os.environ:
            mallopt(number, value)
