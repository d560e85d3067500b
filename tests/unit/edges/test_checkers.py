"""The threads of the live check: a disk that stalls holds up a check, never the loop, which has sockets to close (VA-50)."""

from __future__ import annotations

import asyncio
import threading

import pytest

from idp.edges.tools.threads import CHECKERS, Checkers


def test_VA_50_a_check_that_stalls_stops_neither_the_loop_nor_the_next_check() -> None:
    stalled = threading.Event()

    async def run() -> None:
        checkers = Checkers()
        try:
            stuck = asyncio.create_task(checkers.do(stalled.wait))
            given_up = asyncio.create_task(checkers.do(lambda: "too late for anybody"))
            await asyncio.sleep(0)
            given_up.cancel()
            assert await checkers.do(threading.get_ident) != threading.get_ident(), "by another thread than the loop's"
            assert not stuck.done()
            stalled.set()
            assert await stuck is True
        finally:
            stalled.set()
            checkers.close()

    asyncio.run(run())


def test_VA_50_what_a_check_raises_reaches_who_has_asked() -> None:
    async def run() -> None:
        checkers = Checkers()
        for _ in range(2 * CHECKERS):  # no thread dies of it
            with pytest.raises(ZeroDivisionError):
                await checkers.do(lambda: 1 // 0)
        assert await checkers.do(lambda: 1) == 1
        checkers.close()
        with pytest.raises(RuntimeError):
            await checkers.do(lambda: 1)

    asyncio.run(run())


def test_a_loop_that_ends_while_a_check_is_under_way_leaves_the_thread_whole() -> None:
    stalled, checkers = threading.Event(), Checkers()

    async def leave() -> None:
        asking = asyncio.create_task(checkers.do(stalled.wait))
        await asyncio.sleep(0)
        asking.cancel()

    async def ask() -> list[int]:
        return await asyncio.gather(*(checkers.do(lambda: 1) for _ in range(2 * CHECKERS)))

    asyncio.run(leave())
    stalled.set()
    assert asyncio.run(ask()) == [1] * 2 * CHECKERS
    checkers.close()
