"""How long one walk through a tool's pages may take (§7). The tool's time, not ours: it stands still while we wait for ourselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from connectors.engine.failures import Failed


class Sender(Protocol):
    """The driver whose walk is timed."""

    submitted: bool


class ToolTime:
    """The clock of one driver: one walk at a time, each with the whole of the recipe's `timeout_s`."""

    def __init__(self, driver: Sender, seconds: float) -> None:
        self._driver, self._seconds = driver, seconds
        self._timeout: asyncio.Timeout | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let it run for the block. Raises Failed `tool_away` when it is over, counted if something was sent."""
        self._timeout = asyncio.timeout(self._seconds)
        try:
            async with self._timeout:
                yield
        except TimeoutError:
            if not self._timeout.expired():
                raise  # somebody else's, such as our own database's
            raise Failed("tool_away", submitted=self._driver.submitted) from None
        finally:
            self._timeout = None

    async def stopped(self, ours: Callable[[], Awaitable[None]]) -> None:
        """Wait for something of ours inside a walk; the walk goes on afterwards with the time that was left.

        Our database may stall longer than a tool may think. Counted as the tool's, that would be read as `tool_away`, and the
        walk would be cancelled while the commit that it waits for goes on in its thread.
        """
        timeout, loop = self._timeout, asyncio.get_running_loop()
        when = timeout.when() if timeout is not None else None
        if timeout is None or when is None:
            raise RuntimeError("no walk is under way")
        left = when - loop.time()
        timeout.reschedule(None)
        try:
            await ours()
        finally:
            timeout.reschedule(loop.time() + left)
