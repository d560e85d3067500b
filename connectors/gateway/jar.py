"""One opened copy of each jar per process, as fresh as the live check says, saved before an answer leaves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from connectors.cookies import Jar
from connectors.ports import Jars
from connectors.recipes.model import Recipe
from connectors.scanset import MIN_COOKIE_CHARS, Patterns, ScanSet, literals

TRIES: Final = 3
MAX_OPEN: Final = 10_000


class JarConflict(Exception):
    """The jar could not be stored: somebody else was faster three times."""


@dataclass(slots=True)
class Opened:
    """A jar in use. values, patterns: what the scan looks for, made again only when a cookie has changed."""

    jar: Jar
    version: int
    generation: int
    scan: ScanSet
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    values: tuple[tuple[str, str], ...] = ()
    patterns: Patterns | None = None

    def guarded(self, recipe: Recipe) -> Patterns:
        """What must not leave: the login's fields, long cookie values, the upstream Authorization (VA-53)."""
        values = self.jar.values()
        if self.patterns is None or values != self.values:
            shown = recipe.session.mirror | recipe.session.from_client
            secret = [v for name, v in values if name not in shown and len(v) >= MIN_COOKIE_CHARS]
            if self.jar.authorization:
                secret.append(self.jar.authorization.partition(" ")[2] or self.jar.authorization)
            self.values, self.patterns = values, Patterns(literals(secret), self.scan)
        return self.patterns


class JarKeeper:
    """The jars of all tool sessions that this process serves."""

    def __init__(self, jars: Jars) -> None:
        self._jars = jars
        self._opened: dict[str, Opened] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    async def current(self, tool_session: str, version: int) -> Opened:
        """The jar at `version` or newer: another process's change shows in the version of the live check."""
        found = self._opened.get(tool_session)
        if found is not None and found.version >= version:
            return found
        async with self._opening.setdefault(tool_session, asyncio.Lock()):
            found = self._opened.get(tool_session)
            if found is not None and found.version >= version:
                return found
            state = await self._jars.load(tool_session)
            if len(self._opened) >= MAX_OPEN:
                self._opened.clear()
                self._opening.clear()
            # A login that replaces the jar throws away what the old one still wanted to store: it is of an ended session.
            opened = Opened(state.jar, state.version, state.generation, state.scan)
            self._opened[tool_session] = opened
            return opened

    async def save(self, tool_session: str, opened: Opened) -> None:
        """Store what has changed, and whatever others changed in the same jar while we waited. Raises JarConflict."""
        if not opened.jar.changed and not opened.lock.locked():  # nothing new, and nobody is storing what was
            return
        async with opened.lock:
            if not opened.jar.changed or self._opened.get(tool_session) is not opened:
                return
            for _ in range(TRIES):
                changes = opened.jar.take_changes()
                try:
                    stored = await self._jars.save(tool_session, opened.jar, seen_version=opened.version)
                except BaseException:
                    opened.jar.put_back(changes)
                    raise
                if stored:
                    opened.version += 1
                    return
                opened.jar.put_back(changes)
                state = await self._jars.load(tool_session)
                if state.generation != opened.generation:
                    # A new login has replaced the jar. Our cookies are of the old one and would log it out.
                    self.forget(tool_session)
                    return
                opened.jar, opened.version = opened.jar.onto(state.jar), state.version
            raise JarConflict

    def forget(self, tool_session: str) -> None:
        """Drop the opened copy: the login behind it is gone."""
        self._opened.pop(tool_session, None)
