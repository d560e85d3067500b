"""A tool's time stands still while we wait for ourselves (§7; VA-47): a stalled database of ours is never taken for a tool that is away.

The loop's clock leaps when a test says so, so nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from connectors.engine.browser import chromium
from connectors.engine.browser_driver import BrowserDriver
from connectors.engine.failures import Failed
from connectors.engine.tool_time import ToolTime
from tests.fakes.device import PASSWORD
from tests.fakes.tools.site import Site
from tests.unit.connectors.test_engine_browser import driver, needs_chromium
from tests.unit.connectors.test_engine_http import bench

MINUTE = {"timeout_s: 5": "timeout_s: 60"}
STALL_S = 3600.0


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be set forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def leap(seconds: float) -> None:
    """So much time passes, and every timer that it passes has rung."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, LeapingLoop)
    loop.ahead += seconds
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(test())


class Walk:
    submitted = False


def test_VA_47_only_the_tools_time_counts() -> None:
    """Before and after the stop together; what is left at the stop is what is left after it, be it nothing."""

    async def go() -> None:
        walk = Walk()
        time = ToolTime(walk, 10)
        async with time.running():
            await leap(6)
            await time.stopped(lambda: leap(STALL_S))
            await leap(3)
        walk.submitted = True

        async def too_long() -> None:
            async with time.running():  # the next walk has the whole time again
                await leap(6)
                await time.stopped(lambda: leap(STALL_S))
                await leap(5)
                raise AssertionError("eleven seconds")

        assert await ended(too_long()) == ("tool_away", True)

    run(go)


def test_VA_47_what_goes_wrong_with_us_is_not_the_tools() -> None:
    """An error of the hook is passed on as it is, a time-out of ours as well; and no stop without a walk."""

    async def go() -> None:
        time = ToolTime(Walk(), 10)

        async def fails() -> None:
            await leap(STALL_S)
            raise TimeoutError("our own")

        with pytest.raises(TimeoutError, match="our own"):
            async with time.running():
                await time.stopped(fails)
        with pytest.raises(RuntimeError):
            await time.stopped(lambda: leap(1))

    run(go)


def site(*, thinks: tuple[float, float], **habits: Any) -> Site:
    """A tool that thinks so long about its form when it is first asked for it, and about what was sent."""
    made = Site({"login_id": "store-7", "password": PASSWORD}, **habits)
    login, left = made._login, dict(zip(("GET", "POST"), thinks, strict=True))

    async def slowly(request: Any, body: bytes) -> Any:
        await leap(
            left.pop(request.method, 0.0)
        )  # a browser asks more than once: its picture leads to the form as well
        return await login(request, body)

    made._login = slowly  # type: ignore[method-assign]
    return made


def stalls(engine: Any) -> None:
    """Our database hangs for an hour when the driver asks whether it may send."""
    before: Callable[[], Awaitable[None]] = engine._before_submit

    async def hook() -> None:
        await leap(STALL_S)
        await before()

    engine._before_submit = hook


SLOW = [
    # how long the tool thinks before and after the stall, and what follows; a minute is allowed
    ((20.0, 20.0), None),
    ((40.0, 40.0), ("tool_away", True)),
    ((61.0, 0.0), ("tool_away", False)),
]


def test_VA_47_the_http_driver_waits_for_our_database() -> None:
    """A stall of an hour costs the tool nothing; its own thinking is counted on both sides of it."""

    async def go() -> None:
        for thinks, code in SLOW:
            tool = site(thinks=thinks)
            async with bench(tool, replace=MINUTE) as on:
                stalls(on.driver)
                assert await ended(on.driver.login()) == code, thinks
                assert len(on.submits) == (code is None or code[1]), thinks

    run(go)


@needs_chromium
def test_VA_47_the_browser_driver_waits_for_our_database() -> None:
    """The same with a real Chromium, which is not asked about the tool that is away at once."""

    async def go() -> None:
        async with chromium(sandbox=os.geteuid() != 0) as browser:
            for thinks, code in SLOW[:2]:
                tool = site(thinks=thinks, scripted=True)
                async with driver(tool, browser, timeout_s=60) as engine:
                    assert isinstance(engine, BrowserDriver)
                    stalls(engine)
                    assert await ended(engine.login()) == code, thinks

    run(go)


async def ended(login: Awaitable[Any]) -> tuple[str, bool] | None:
    """None for a login, else code and whether it counts as sent."""
    try:
        await login
    except Failed as failed:
        return failed.code, failed.submitted
    return None
