"""What a person would see, and what a page's scripts send: a tool's pages in a Chromium that is watched.

The same pages are looked at twice, at the tool with the jar and through the gateway without it. What differs is what the gateway
breaks, or what the tool does when it finds itself under another name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from playwright.async_api import Browser, BrowserContext, Request, Response, WebSocket
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page as Tab

from connectors.cookies import Jar
from connectors.engine.egress_proxy import EgressProxy
from connectors.gateway.admit import COOKIE
from connectors.recipes.checks import Page
from connectors.recipes.glance import folded

LOAD_MS: Final = 45_000
IDLE_MS: Final = 6_000
SETTLE_S: Final = 2.0
REST_S: Final = 15.0
STILL_S: Final = 1.0
POLL_S: Final = 0.1
#: how much of what a person reads at the tool must be there through the gateway; clocks and names of the day differ
ALIKE: Final = 0.6
MAX_BODY: Final = 1024 * 1024
_TEXTS: Final = ("json", "html", "text/plain", "xml")


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of a page. place: method and address without query; url: whole, never evidence."""

    method: str
    url: str
    headers: dict[str, str]


@dataclass(slots=True)
class Wire:
    """One WebSocket of a page. carried: something came in; failed: it could not be opened."""

    url: str
    carried: bool = False
    failed: bool = False
    said: list[str] = field(default_factory=list)


@dataclass  # without slots: Playwright keeps a note on the object whose methods it calls
class Traffic:
    """Everything that one browser context sent and got."""

    sent: list[Sent] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    _reading: set[asyncio.Task[None]] = field(default_factory=set)

    def watch(self, context: BrowserContext) -> None:
        """Look at every page of a context."""
        context.on("request", self._request)
        context.on("response", self._response)
        context.on("page", lambda tab: tab.on("websocket", self._socket))

    async def settle(self) -> None:
        """Wait a moment for the bodies that are still being read; a stream never ends, and some answers never get one."""
        if self._reading:
            _, late = await asyncio.wait(set(self._reading), timeout=SETTLE_S)
            for task in late:
                task.cancel()

    async def keep_storage(self, context: BrowserContext) -> None:
        """What scripts have stored in the profile."""
        state = await context.storage_state()
        for origin in state.get("origins", []):
            self.stored += [item["value"] for item in origin.get("localStorage", [])]

    def _request(self, request: Request) -> None:
        self.sent.append(Sent(request.method, request.url, dict(request.headers)))

    def _response(self, response: Response) -> None:
        kind = response.headers.get("content-type", "")
        if any(text in kind for text in _TEXTS):
            task = asyncio.create_task(self._read(response))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, response: Response) -> None:
        with contextlib.suppress(PlaywrightError):  # redirects have no body, and a page that moves on drops some
            self.bodies.append((await response.text())[:MAX_BODY])

    def _socket(self, socket: WebSocket) -> None:
        wire = Wire(socket.url)
        self.wires.append(wire)

        def received(_: Any) -> None:
            wire.carried = True

        def said(data: str | bytes) -> None:
            if isinstance(data, str):
                wire.said.append(data[:4096])

        def failed(_: Any) -> None:
            wire.failed = True

        socket.on("framereceived", received)
        socket.on("framesent", said)
        socket.on("socketerror", failed)


@dataclass(frozen=True, slots=True)
class Sight:
    """One page as it stood when it was at rest. words: what a person reads."""

    page: Page
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class Look:
    """Pages seen in one context. asked_else: hosts that were not allowed; cookies: those that the profile holds."""

    sights: tuple[Sight, ...]
    traffic: Traffic
    asked_else: tuple[str, ...]
    cookies: tuple[tuple[str, str], ...]


async def at_the_tool(
    browser: Browser, urls: Sequence[str], jar: Jar, allowed: Collection[str], *, loopback: bool
) -> Look:
    """Look with the jar, as the engine's browser would."""
    context_cookies = [
        {"name": c.name, "value": c.value, "domain": c.domain if c.host_only else f".{c.domain}", "path": c.path, "secure": c.secure}
        for c in jar
    ]  # fmt: skip
    return await _look(browser, urls, context_cookies, allowed, loopback=loopback, agent=jar.user_agent)


async def through_the_gateway(
    browser: Browser, urls: Sequence[str], values: dict[str, str], allowed: Collection[str], there: Look
) -> Look:
    """Look as a member of staff, until it looks as it did `there`, at the tool. values: gateway host → its cookie."""
    cookies = [
        {"name": COOKIE, "value": value, "url": f"https://{host.partition(':')[0]}/", "secure": True, "httpOnly": True,
         "sameSite": "Lax"} for host, value in values.items()
    ]  # fmt: skip
    wanted = [sight.words for sight in there.sights]
    return await _look(browser, urls, cookies, (*values, *allowed), loopback=True, agent=None, wanted=wanted)


def alike(wanted: frozenset[str], words: frozenset[str]) -> float:
    """How much of what a person reads there can be read here, from 0 to 1."""
    return len(wanted & words) / len(wanted) if wanted else 1.0


async def _look(
    browser: Browser, urls: Sequence[str], cookies: Iterable[Any], allowed: Collection[str], *, loopback: bool, agent: str | None,
    wanted: Sequence[frozenset[str]] = (),
) -> Look:  # fmt: skip
    proxy, traffic = EgressProxy(allowed, loopback=loopback), Traffic()
    async with proxy.running() as address:
        context = await browser.new_context(
            accept_downloads=False,
            locale="ja-JP",
            proxy={"server": address, "bypass": "<-loopback>"},
            user_agent=agent,
        )
        try:
            traffic.watch(context)
            await context.add_cookies(list(cookies))
            tab = await context.new_page()
            sights = [await _sight(tab, url, like) for url, like in zip_longest(urls, wanted)]
            await traffic.settle()
            await traffic.keep_storage(context)
            kept = tuple((str(c["name"]), str(c["value"])) for c in await context.cookies())
        finally:
            await context.close()
    return Look(tuple(sights), traffic, tuple(sorted(set(proxy.refused))), kept)


async def _sight(tab: Tab, url: str, wanted: frozenset[str] | None) -> Sight:
    status, words = 0, frozenset[str]()
    try:
        answer = await tab.goto(url, wait_until="load", timeout=LOAD_MS)
        status = answer.status if answer is not None else 0
        with contextlib.suppress(PlaywrightError):  # some pages never fall silent
            await tab.wait_for_load_state("networkidle", timeout=IDLE_MS)
        words = await _words(tab, wanted)
        html = await tab.content()
    except PlaywrightError:  # it led away to where it may not go, or tore itself down
        html = ""
    return Sight(Page(tab.url, status, html), words)


async def _words(tab: Tab, wanted: frozenset[str] | None) -> frozenset[str]:
    """What a person reads once the scripts have come to rest: as wanted, or else something that has not changed for a second."""
    clock = asyncio.get_running_loop().time
    until, changed, words = clock() + REST_S, clock(), frozenset[str]()
    while True:
        now = frozenset(folded(word) for word in (await tab.inner_text("body")).split())
        if now != words:
            words, changed = now, clock()
        still = bool(words) and clock() - changed >= STILL_S
        if clock() >= until or (still if wanted is None else alike(wanted, words) >= ALIKE):
            return words
        await asyncio.sleep(POLL_S)
