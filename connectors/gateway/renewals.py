"""One fresh login for everybody who waits, in this process; the port makes it one for all processes."""

from __future__ import annotations

import asyncio

from connectors.gateway.jar import JarKeeper
from connectors.ports import Door, Now, RenewResult


class Renewals:
    """Renewals under way, by tool session and the generation that the tool has logged out."""

    def __init__(self, door: Door, jars: JarKeeper, now: Now, *, wait_s: float) -> None:
        self._door, self._jars, self._now, self._wait_s = door, jars, now, wait_s
        self._running: dict[tuple[str, int], asyncio.Task[RenewResult]] = {}

    def start(self, tool_session: str, generation: int) -> asyncio.Task[RenewResult]:
        """The renewal, begun or joined."""
        key = (tool_session, generation)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._renew(tool_session, generation))
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    async def wait(self, tool_session: str, generation: int) -> RenewResult:
        """Its result, at most `wait_s` from now; one impatient browser does not cancel it for the others."""
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(self.start(tool_session, generation))
        except TimeoutError:
            return RenewResult("late")

    async def _renew(self, tool_session: str, generation: int) -> RenewResult:
        result = await self._door.renew(tool_session, generation=generation, deadline=self._now() + self._wait_s)
        if result.state == "live":
            self._jars.forget(tool_session)
        return result

    def _finished(self, key: tuple[str, int], task: asyncio.Task[RenewResult]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen here, raised to whoever waits
