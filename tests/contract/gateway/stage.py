"""A stage on which one thing happens at a time, in an order that dice choose; the gateway's ports and a tool that come on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from multidict import CIMultiDict
from yarl import URL

from connectors.cookies import Jar
from connectors.ports import AccessRow, Admission, GatewayPorts, GatewayView, JarState, RenewResult

T = TypeVar("T")
SHOWN = b"<p data-staff-name>TANAKA</p>"


async def nothing() -> None:
    """An act that is only a moment."""


class Stage:
    """Acts that wait, and the dice that pick one. tick: how many were done."""

    def __init__(self, dice: random.Random) -> None:
        self._dice, self.tick = dice, 0
        self._waiting: list[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = []

    async def act(self, what: Callable[[], Awaitable[T]] = nothing) -> T:  # type: ignore[assignment]
        """Wait to be picked; then it is done, alone."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, done))
        return await done

    async def asked(self, what: Callable[[], Awaitable[T]]) -> T:
        """The same for a question whose answer takes its time to come back."""
        try:
            return await self.act(what)
        finally:
            await self.act()

    async def play(self, actors: Sequence[Awaitable[Any]]) -> list[Any]:
        """Until all have come to their end. Returns what they returned."""
        tasks, loop = [asyncio.ensure_future(one) for one in actors], cast("Any", asyncio.get_running_loop())
        while True:
            await asyncio.sleep(0)
            while loop._ready:  # noqa: ASYNC110 - somebody can still go on without the stage
                await asyncio.sleep(0)
            self._waiting = [(what, done) for what, done in self._waiting if not done.cancelled()]
            if not self._waiting:
                break
            what, done = self._waiting.pop(self._dice.randrange(len(self._waiting)))
            self.tick += 1
            try:
                found = await what()
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(found)
        return await asyncio.gather(*tasks)


@dataclass
class Log:
    """At which tick what happened."""

    cut_at: int = 0
    #: tick and digests that were found alive
    looks: list[tuple[int, frozenset[bytes]]] = field(default_factory=list)
    #: the number of a request → tick
    began: dict[str, int] = field(default_factory=dict)
    form_ended: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    recorded: list[AccessRow] = field(default_factory=list)


class Ports:
    """All ports of a house, on stage."""

    def __init__(self, house: Any, stage: Stage, log: Log) -> None:
        self._house, self._stage, self._log = house, stage, log

    async def alive(self, digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        async def look() -> Mapping[bytes, GatewayView]:
            found: Mapping[bytes, GatewayView] = await self._house.alive(digests)
            self._log.looks.append((self._stage.tick, frozenset(found)))
            return found

        return await self._stage.asked(look)

    async def load(self, tool_session: str) -> JarState:
        return await self._stage.asked(lambda: self._house.load(tool_session))

    async def save(self, tool_session: str, jar: Jar, *, seen_version: int) -> bool:
        return await self._stage.asked(lambda: self._house.save(tool_session, jar, seen_version=seen_version))

    async def recipe(self, recipe_key: str) -> Any:
        return await self._stage.asked(lambda: self._house.ports().recipes.recipe(recipe_key))

    async def admit(self, ticket: str, *, host: str, challenge: bytes) -> Admission | None:
        return await self._stage.asked(lambda: self._house.admit(ticket, host=host, challenge=challenge))

    async def renew(self, tool_session: str, *, generation: int, deadline: float) -> RenewResult:
        raise AssertionError("nobody is logged out here")

    async def leave(self, cookie_digest: bytes) -> None:
        raise AssertionError("nobody leaves here")

    async def requests(self, rows: Sequence[AccessRow]) -> None:
        async def store() -> None:
            self._log.recorded.extend(rows)

        await self._stage.asked(store)

    async def alarm(self, code: str, **ids: str) -> None:
        raise AssertionError(f"alarm {code}")

    async def swept(self, began_at: float) -> bool:
        await self._stage.asked(nothing)
        return True

    async def doorbell(self) -> None:
        raise AssertionError("sweeps are called by hand here")

    def all(self) -> GatewayPorts:
        return GatewayPorts(live=self, jars=self, recipes=self, door=self, trail=self, process=self)


class ToolClient:
    """The way to the tool: what it was asked, and one page for everything."""

    def __init__(self, stage: Stage, log: Log) -> None:
        self._stage, self._log = stage, log

    async def request(self, method: str, url: URL, **_: Any) -> ToolAnswer:
        number = url.query["r"]

        async def send() -> None:
            assert number not in self._log.sent, "sent twice"
            self._log.sent[number] = self._stage.tick

        async def answer() -> None:
            self._log.answered[number] = self._stage.tick

        await self._stage.act(send)
        await self._stage.act(answer)
        return ToolAnswer(method)


class ToolAnswer:
    """As much of aiohttp's answer as the gateway reads."""

    status, reason, content_type, charset = 200, "OK", "text/html", "utf-8"

    def __init__(self, method: str) -> None:
        self.method, self.headers, self.content_length = method, CIMultiDict({"Content-Type": "text/html"}), len(SHOWN)
        self.content, self._read = self, False

    def is_eof(self) -> bool:
        return True

    def at_eof(self) -> bool:
        return self._read

    async def readany(self) -> bytes:
        self._read = True
        return SHOWN

    def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
