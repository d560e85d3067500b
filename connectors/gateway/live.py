"""The live check of every request and every release, and the sweep over what is held open (VA-50, D8).

No cache: the checks of one process are batched instead. One query runs at a time; the next takes all that waited for it,
so a check never sees a state older than its own beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from connectors.gateway.sockets import Held
from connectors.ports import GatewayPorts, GatewayView, Live, Now

log = logging.getLogger(__name__)


class LiveCheck:
    """Batches the questions of many requests into few queries."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._waiting: list[tuple[bytes, asyncio.Future[GatewayView | None]]] = []
        self._asking = False
        self._task: asyncio.Task[None] | None = None

    async def check(self, digest: bytes) -> GatewayView | None:
        """The view behind a cookie digest, or None when anything above it has ended. Raises what the port raises."""
        if self._asking:  # the query under way began before this question: the next one answers
            answer: asyncio.Future[GatewayView | None] = asyncio.get_running_loop().create_future()
            self._waiting.append((digest, answer))
            return await answer
        self._asking = True
        try:  # alone: asked in this very task, which costs no turn of the loop
            return (await self._live.alive((digest,))).get(digest)
        finally:
            if self._waiting:
                self._task = asyncio.create_task(self._ask())
            else:
                self._asking = False

    async def _ask(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._answer(batch)
        finally:
            self._asking = False

    async def _answer(self, batch: list[tuple[bytes, asyncio.Future[GatewayView | None]]]) -> None:
        try:
            views = await self._live.alive(list({digest for digest, _ in batch}))
        except Exception as error:  # noqa: BLE001 - every waiter gets it and refuses its request
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for digest, answer in batch:
            if not answer.done():  # a waiter whose connection is gone
                answer.set_result(views.get(digest))


class Sweep:
    """Checks everything held open every half second and at the doorbell, and closes what has ended.

    A process that cannot finish a sweep for `lease_s` closes everything itself: by then the others count it as gone, and a
    receipt may say so.
    """

    def __init__(self, ports: GatewayPorts, held: Held, now: Now, *, every_s: float, lease_s: float) -> None:
        self._ports = ports
        self._held = held
        self._now = now
        self._every_s = every_s
        self._lease_s = lease_s
        self._swept_at = 0.0

    @property
    def holds_lease(self) -> bool:
        """Whether the last sweep is fresh enough to admit anything."""
        return asyncio.get_running_loop().time() - self._swept_at < self._lease_s

    async def once(self) -> None:
        """One sweep: ask about all digests held, end the missing ones, and put the time on record."""
        loop = asyncio.get_running_loop()
        began, began_at = loop.time(), self._now()
        try:
            async with asyncio.timeout(self._lease_s):
                digests = self._held.digests()
                views = await self._alive(digests)
                self._held.end(digest for digest in digests if digest not in views)
                leased = await self._ports.process.swept(began_at)
        except Exception as error:  # noqa: BLE001 - a sweep must outlive any failure; the lease below decides
            log.warning("gateway sweep failed: %s", type(error).__name__)
            if not self.holds_lease:
                self._held.end_all()
            return
        if leased:
            self._swept_at = began
        else:
            log.error("gateway lease lost, everything is closed")
            self._swept_at = 0.0
            self._held.end_all()

    async def _alive(self, digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        return await self._ports.live.alive(digests) if digests else {}

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self.once()
            bell = asyncio.create_task(self._doorbell())
            try:
                await asyncio.wait({bell}, timeout=self._every_s)
            finally:
                bell.cancel()

    async def _doorbell(self) -> None:
        try:
            await self._ports.process.doorbell()
        except Exception as error:  # noqa: BLE001 - only a hint: without it the timer alone sweeps
            log.warning("gateway doorbell failed: %s", type(error).__name__)
            await asyncio.sleep(self._every_s)
