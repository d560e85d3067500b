"""The second store of AU-03: a small file, outside the database, that remembers what was last signed.

It is written before a checkpoint is signed, and only ever forwards; the sealer signs nothing that does not begin with it. A
database restored from yesterday meets today's file and is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


class HeadRefused(Exception):
    """The file is ahead, speaks of another log, or cannot be read; the text says which."""


@dataclass(frozen=True)
class Head:
    """What was last signed. root: hexadecimal."""

    origin: str
    vkey: str
    size: int
    root: str


class HeadFile:
    """The file at `path`. Its folder is made on the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Head | None:
        """What was last signed; None before the first time. Raises HeadRefused for a file that is not one of ours."""
        try:
            return Head(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, OSError) as error:
            raise HeadRefused(f"{self.path}: {type(error).__name__}") from error

    def advance(self, head: Head) -> None:
        """Remember a head of the same log that is at least as large. Raises HeadRefused for anything else.

        Under a lock of the file: a sealer that lost its lease while it slept must not write over its successor.
        """
        with self._locked():
            before = self.read()
            if before is not None:
                if (before.origin, before.vkey) != (head.origin, head.vkey):
                    raise HeadRefused(f"{self.path} is of {before.origin}")
                if before.size > head.size or (before.size == head.size and before.root != head.root):
                    raise HeadRefused(f"{self.path} is at {before.size}, the database at {head.size}")
            if before != head:
                self._write(head)

    def replace(self, head: Head) -> None:
        """Begin again from here, whatever was remembered: an operator decided it (`sekisho audit new-origin`)."""
        with self._locked():
            self._write(head)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_name(self.path.name + ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise HeadRefused(f"{self.path} cannot be written: {type(error).__name__}") from error

    def _write(self, head: Head) -> None:
        """Whole or not at all, and on the disk before this returns."""
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(head), file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
