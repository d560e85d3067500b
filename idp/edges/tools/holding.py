"""Holding a lease while something is done at a tool: extended every few seconds, and the work ends when it is taken away (VA-47)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

HEARTBEAT_S: Final = 5.0


class LeaseLost(Exception):
    """Another engine has the job, or nobody: nothing more may be sent and nothing stored."""


@contextlib.asynccontextmanager
async def beating(extend: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """Hold a lease while the block runs. Raises LeaseLost in the block when it is taken away."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio runs every job as a task
    lost = False

    async def beat() -> None:
        nonlocal lost
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not await extend():
                lost = True
                task.cancel()
                return

    heart = asyncio.create_task(beat())
    try:
        yield
    except asyncio.CancelledError:
        if lost:
            task.uncancel()
            raise LeaseLost from None
        raise
    finally:
        heart.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await heart
