"""Gateway, login engine and vault against the budgets of vault-and-gateway.md §15, in less than a minute.

    python -m tests.bench.gateway [--seconds 3] [--ports package.module:function]

A tool, the gateway and the load are processes of their own; the gateway has a core for itself where there are two. CPU of the gateway
is read from the kernel: on a busy machine it says more than the clock. `--ports` names another implementation of the gateway's
ports: a function that gets a `Wanted` and returns `GatewayPorts`. Without it they are in memory, so the live checks cost a
dictionary and not a database.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import multiprocessing
import os
import secrets
import shutil
import signal
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

import aiohttp

from connectors.cookies import Jar
from connectors.egress import open_client
from connectors.engine.browser import chromium
from connectors.engine.browser_driver import BrowserDriver
from connectors.engine.http_driver import HttpDriver
from connectors.gateway.admit import COOKIE
from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from connectors.ports import GatewayPorts, GatewayView
from connectors.recipes.load import load
from connectors.recipes.model import Recipe
from connectors.scanset import ScanSet, build
from tests.bench import machine
from tests.fakes.device import GROUND, PASSWORD
from tests.fakes.house import GatewaySession, House, ToolSession
from tests.fakes.tools.site import SESSION, Site, recipe_text, running
from vault import Context, KeyClass, Purpose, Secret, Vault

DOMAIN = "bench.localhost"
MANY = 500
SOCKETS = 100
ROW = '<tr><td>髙橋 健</td><td>10-15</td><td><a href="http://{host}/shift/1">編集</a></td></tr>'
PAGE = '<!doctype html><html><head><meta charset="utf-8"><title>シフト</title></head><body><p data-staff-name>田中</p><table>{rows}</table></body></html>'
#: (name in the table, budget as text, whether a measured number holds it)
HELD = "holds", "**misses**"


@dataclass(frozen=True)
class Wanted:
    """What ports must serve. cookies: cookie → (gateway session, tool session, gateway host); hosts: gateway host → tool host; text: of the recipe."""

    recipe: Recipe
    cookies: Mapping[str, tuple[str, str, str]]
    tool_host: str
    jar: bytes
    scan: ScanSet
    text: bytes = b""


class InMemory(House):
    """The house of the tests with a dictionary for the live check: a loop over all sessions would be measured instead."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(self._no_login)
        self.recipes["recipe"] = wanted.recipe
        self._views: dict[bytes, GatewayView] = {}
        for cookie, (session, tool_session, host) in wanted.cookies.items():
            hosts = {host: wanted.tool_host}
            self.tool_sessions[tool_session] = ToolSession(wanted.jar, scan=wanted.scan)
            self.sessions[session] = GatewaySession(tool_session, "recipe", hosts)
            digest = hashlib.sha256(cookie.encode()).digest()
            self._views[digest] = GatewayView(session, tool_session, "recipe", host, hosts, "live", 1, 1)

    async def _no_login(self) -> Jar | None:
        return None

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        found = {digest: self._views[digest] for digest in cookie_digests if digest in self._views}
        return {digest: view for digest, view in found.items() if self.sessions[view.gateway_session].ended is None}


def in_memory(wanted: Wanted) -> GatewayPorts:
    """The ports of this benchmark."""
    return InMemory(wanted).ports()


# --- processes ---------------------------------------------------------------------------------------------------------


class _ToolProtocol(asyncio.Protocol):
    """A tool that answers every request with the same page, as fast as Python can; `/live` is an echoing WebSocket's handshake."""

    page: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            _, _, self._data = self._data.partition(b"\r\n\r\n")
            self._transport.write(self.page)  # type: ignore[attr-defined]


def tool(pipe: Pipe) -> None:
    """The tool's process: tells its port, serves until the pipe closes."""
    machine.pin(1)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_ToolProtocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        body = PAGE.format(rows=ROW.format(host=f"localhost:{port}") * 28).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        _ToolProtocol.page = head.encode() + body
        pipe.send((port, len(body)))
        await asyncio.to_thread(pipe.recv)

    with contextlib.suppress(EOFError):
        asyncio.run(main())


def gateway(pipe: Pipe, wanted: Wanted, maker: str) -> None:
    """The gateway's process: tells its port, serves until the pipe closes; a session's name sent through it is cut."""
    machine.pin(0)
    module, _, name = maker.partition(":")
    ports: GatewayPorts = getattr(importlib.import_module(module), name)(wanted)

    async def main() -> None:
        settings = GatewaySettings(domain=DOMAIN, idp="http://localhost:8000", scheme="http", loopback=True)
        app = create_gateway(ports, settings, now=time.time, new_secret=lambda: secrets.token_urlsafe(32))
        async with serving(app, "127.0.0.1", 0) as port:
            pipe.send(port)
            await asyncio.to_thread(pipe.recv)

    with contextlib.suppress(EOFError):
        asyncio.run(main())


@contextlib.contextmanager
def process(target: Callable[..., None], *arguments: Any) -> Any:
    """Start one; yields what it told first, and its pid."""
    near, far = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=target, args=(far, *arguments))
    child.start()
    far.close()
    try:
        yield near.recv(), child.pid
    finally:
        near.close()
        child.join(10)
        if child.is_alive():
            child.kill()


# --- the load ----------------------------------------------------------------------------------------------------------


class Caller(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, until: float, took: list[float]) -> None:
        self._request, self._until, self._took = request, until, took
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left, self._head = -1, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, mark, data = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(head[:300].decode()))
                self._transport.close()
                return
            self._left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            self._head = b""
        self._left -= len(data)
        if self._left == 0:
            self._left = -1
            now = time.perf_counter()
            self._took.append(now - self._began)
            if now < self._until:
                self._ask()
            else:
                self._transport.close()
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed"))


async def press(port: int, request: bytes, connections: int, seconds: float) -> list[float]:
    """Ask over so many connections for so long; how long each answer took, in seconds. Raises for any answer but 200."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    callers = []
    for _ in range(connections):
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: Caller(request, until, took), "127.0.0.1", port
        )
        callers.append(caller)
    await asyncio.gather(*(caller.done for caller in callers))
    return took


def ask_for(host: str, cookie: str | None = None) -> bytes:
    """A browser's request for the page."""
    line = f"Cookie: {COOKIE}={cookie}\r\n" if cookie else ""
    return (
        f"GET /shifts HTTP/1.1\r\nHost: {host}\r\n{line}User-Agent: Mozilla/5.0\r\nAccept: text/html\r\nAccept-Language: ja\r\n"
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n"
    ).encode()


# --- what is measured --------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows: what, measured, budget, verdict."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, measured: str, budget: str, holds: bool | None) -> None:
        self.rows.append((what, measured, budget, "" if holds is None else HELD[0] if holds else HELD[1]))

    def __str__(self) -> str:
        lines = ["| what | measured | budget | |", "|---|--:|--:|---|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)])


def ms(values: Sequence[float], share: float = 0.5) -> float:
    """A percentile, in milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def pages(table: Table, seconds: float, maker: str) -> None:
    """The gateway's added time, its throughput, its memory."""
    with process(tool) as ((tool_port, length), _):
        host = f"localhost:{tool_port}"
        site = Site({"login_id": "store-7", "password": PASSWORD}, host=host)
        recipe = load(recipe_text(site), GROUND).recipe
        cookies = {secrets.token_urlsafe(32): (f"gs-{n}", f"ts-{n}", f"desk-{n}.{DOMAIN}") for n in range(MANY)}
        jar = Jar(user_agent="Engine/1")
        jar.set_from(f"{SESSION}={secrets.token_hex(16)}; Path=/; HttpOnly", url=f"http://{host}/", now=0)
        scan = build([PASSWORD], key=secrets.token_bytes(32))
        wanted = Wanted(recipe, cookies, host, jar.to_json(), scan, recipe_text(site))
        with process(gateway, wanted, maker) as (port, pid):
            first = next(iter(cookies))
            request = ask_for(cookies[first][2], first)
            asyncio.run(press(port, request, 1, 0.3))  # warm
            at_rest = machine.memory_mib(pid)[0]
            direct = asyncio.run(press(tool_port, ask_for(host), 1, seconds / 2))
            single = asyncio.run(press(port, request, 1, seconds))
            added = ms(single) - ms(direct)
            table.add(
                f"added to a page of {length / 1024:.1f} KB, p50, 1 connection", f"{added:.2f} ms", "≤ 1 ms", added <= 1
            )
            table.add(
                "… direct, and through the gateway",
                f"{ms(direct):.2f}, {ms(single):.2f} ms (p99 {ms(single, 0.99):.2f})",
                "",
                None,
            )
            before, began = machine.cpu_s(pid), time.perf_counter()
            many = asyncio.run(press(port, request, 32, seconds))
            took, cpu = time.perf_counter() - began, machine.cpu_s(pid) - before
            rate = len(many) / took
            table.add("pages per second, one process, 32 connections", f"{rate:,.0f}", "≥ 1,500", rate >= 1500)
            table.add("… CPU of the gateway per page", f"{cpu / len(many) * 1e6:,.0f} µs", "", None)
            for cookie, (_, _, name) in cookies.items():
                asyncio.run(press(port, ask_for(name, cookie), 1, 0))
            memory = machine.memory_mib(pid)[0]
            limit = 150 + MANY * 100 / 1024
            table.add(
                f"memory with {MANY} live sessions",
                f"{memory:.0f} MiB (one: {at_rest:.0f})",
                f"≤ {limit:.0f} MiB",
                memory <= limit,
            )


async def sockets(table: Table) -> None:
    """How long the sockets of a session stay open after the cut."""
    site = Site({"login_id": "store-7", "password": PASSWORD})
    async with running(site):
        recipe = load(recipe_text(site), GROUND).recipe
        session, _ = site.open_session()
        jar = Jar(user_agent="Engine/1")
        jar.set_from(f"{SESSION}={session}; Path=/", url=f"http://{site.host}/", now=0)
        cookies = {f"c{n}": (f"gs-{n}", "ts", f"desk-{n}.{DOMAIN}") for n in range(SOCKETS)}
        house = InMemory(Wanted(recipe, cookies, site.host, jar.to_json(), build([PASSWORD], key=b"k" * 32)))
        settings = GatewaySettings(domain=DOMAIN, idp="http://localhost:8000", scheme="http", loopback=True)
        app = create_gateway(house.ports(), settings, now=time.time, new_secret=lambda: secrets.token_urlsafe(32))
        async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as client:
            open_ones = []
            for cookie, (_, _, host) in cookies.items():
                headers = {"Host": host, "Origin": f"http://{host}", "Cookie": f"{COOKIE}={cookie}"}
                open_ones.append(await client.ws_connect(f"http://127.0.0.1:{port}/live", headers=headers))
            began = time.perf_counter()
            for session_name in house.sessions.values():
                session_name.ended = "cut"

            async def closed(one: aiohttp.ClientWebSocketResponse) -> float:
                async for _ in one:
                    pass
                return time.perf_counter() - began

            took = await asyncio.gather(*(closed(one) for one in open_ones))
    slowest = ms(took, 0.99) / 1000
    table.add(
        f"{SOCKETS} sockets closed after a cut, without the doorbell, p99", f"{slowest:.2f} s", "≤ 1 s", slowest <= 1
    )


async def logins(table: Table) -> None:
    """One login with either driver, verified on two probes."""

    async def before_submit() -> None:
        return None

    account = {"login_id": "store-7", "password": PASSWORD}
    values = {name: Secret(value) for name, value in account.items()}

    @contextlib.asynccontextmanager
    async def engine(site: Site) -> AsyncIterator[tuple[Recipe, Callable[[], HttpDriver]]]:
        async with running(site), open_client(loopback=True, total_s=None) as client:
            text = recipe_text(site, replace={"driver: http": "driver: browser"} if site.scripted else {})
            recipe = load(text, GROUND).recipe
            yield recipe, lambda: HttpDriver(
                client, recipe, values, now=time.time, new_secret=lambda: secrets.token_urlsafe(32), loopback=True,
                before_submit=before_submit,
            )  # fmt: skip

    async with engine(Site(dict(account))) as (_, http):
        took = [await _timed(http().login) for _ in range(20)]
    table.add("login, `http` driver, p50", f"{ms(took):.0f} ms", "< 150 ms", ms(took) < 150)
    if shutil.which("chromium") is None:
        table.add("login, `browser` driver, p50", "no Chromium here", "< 2 s", None)
        return
    async with (
        chromium(sandbox=os.geteuid() != 0) as browser,
        engine(Site(dict(account), scripted=True)) as (recipe, http),
    ):
        took = []
        for _ in range(4):
            driver = BrowserDriver(
                browser, http(), recipe, values, new_secret=lambda: secrets.token_urlsafe(32), loopback=True,
                before_submit=before_submit,
            )  # fmt: skip
            took.append(await _timed(driver.login))
    table.add("login, `browser` driver, Chromium running, p50", f"{ms(took):.0f} ms", "< 2 s", ms(took) < 2000)


async def _timed(login: Callable[[], Any]) -> float:
    began = time.perf_counter()
    await login()
    return time.perf_counter() - began


def sealing(table: Table) -> None:
    """One field sealed and opened, the company key cached."""
    sys.path.insert(0, str(machine.Path(__file__).parents[1] / "unit" / "vault"))
    from vault_fakes import Clock, MemoryKeyStore, make_keyring, make_provider

    vault = Vault(make_keyring(MemoryKeyStore(), make_provider(), clock=Clock(), alarms=[]), opens=KeyClass)
    context = Context(
        company=str(uuid.UUID(int=1)), store="s", tool="t", record="r", version=1, field="", purpose=Purpose.TOOL_LOGIN
    )
    fields = {"password": Secret(PASSWORD)}
    sealed = vault.seal(fields, context)
    for name, act in (("seal", lambda: vault.seal(fields, context)), ("open", lambda: vault.open(sealed, context, record=lambda _: None))):  # fmt: skip
        took = []
        for _ in range(2000):
            began = time.perf_counter()
            act()
            took.append(time.perf_counter() - began)
        table.add(
            f"{name} of one field, key cached, p50",
            f"{statistics.median(took) * 1000:.3f} ms",
            "< 0.1 ms",
            statistics.median(took) < 1e-4,
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure of the gateway (default 3)")
    parser.add_argument("--ports", default="tests.bench.gateway:in_memory", help="package.module:function")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is stopped
    table = Table()
    load_before = os.getloadavg()[0]
    pages(table, options.seconds, options.ports)
    asyncio.run(sockets(table))
    asyncio.run(logins(table))
    sealing(table)
    about = machine.describe()
    print(f"{about['Machine']}; {about['Python']}; aiohttp {aiohttp.__version__}; ports: {options.ports}")
    print(
        f"Load average before and after: {load_before:.1f}, {os.getloadavg()[0]:.1f}. Yardstick: {machine.yardstick_us():.0f} µs.\n"
    )
    print(table)


if __name__ == "__main__":
    main()
