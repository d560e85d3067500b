"""A real application behind engine and gateway: logged in by its recipe, tapped on its wire, used by recording devices."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest

from connectors.cookies import Jar
from connectors.egress import open_client
from connectors.engine.http_driver import HttpDriver
from connectors.engine.outcome import LoginResult
from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from connectors.recipes.load import load
from connectors.recipes.model import Recipe
from tests.fakes.device import GROUND, IDP, Device, Got, Place, Stage, until
from tests.fakes.house import House, ToolSession
from tests.fakes.spill import hits
from tests.fakes.tap import Tap
from tests.interop.tools.peers import Peer
from vault.secret import Secret


@dataclass
class Behind:
    """The application, its recipe, the wire to it, and a stage. devices: every browser of the test."""

    peer: Peer
    recipe: Recipe
    tap: Tap
    stage: Stage
    result: LoginResult
    engine: aiohttp.ClientSession
    devices: list[Device] = field(default_factory=list)

    def person(self, session: str) -> Device:
        """Somebody who has been admitted; called twice for one session, they sit at a second terminal."""
        device = self.stage.person(session)
        self.devices.append(device)
        return device

    async def guarded(self) -> dict[str, str]:
        """What no device may have got: fields, every cookie of the jar as it is now and was at first."""
        state = await self.stage.house.load("ts-1")
        fields = {name: self.peer.account[name] for name in self.recipe.secret_fields}
        cookies = {f"cookie {name}": value for name, value in self.result.jar.values()}
        later = {f"later cookie {name}": value for name, value in state.jar.values()}
        shown = self.recipe.session.mirror
        return {**fields, **{k: v for k, v in {**cookies, **later}.items() if k.rpartition(" ")[2] not in shown}}

    async def assert_nothing_spilt(self) -> None:
        """Every byte that every device got, against every secret in every dress (§17, claim 1)."""
        guarded = await self.guarded()
        assert guarded
        for device in self.devices:
            assert len(device.seen) > 0
            found = hits(bytes(device.seen), guarded)
            assert found == [], found


def driver(client: aiohttp.ClientSession, recipe: Recipe, account: dict[str, str]) -> HttpDriver:
    """The engine's driver for one job."""

    async def before_submit() -> None:
        return None

    values = {name: Secret(account[name]) for name in recipe.fields}
    return HttpDriver(
        client, recipe, values, now=time.time, new_secret=lambda: secrets.token_urlsafe(32), loopback=True,
        before_submit=before_submit,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def behind(peer: Peer, *, scan: bool = True) -> AsyncIterator[Behind]:
    """Log in with the recipe, prove it, and open the gateway."""
    recipe = load(peer.recipe(), GROUND).recipe

    async def no_login() -> Jar | None:
        return None

    house = House(no_login)
    house.recipes["recipe-1"] = recipe
    settings = GatewaySettings(domain="gw.localhost", idp=IDP, scheme="http", loopback=True, sweep_s=0.2)
    app = create_gateway(house.ports(), settings, now=time.time, new_secret=lambda: secrets.token_urlsafe(32))
    async with (
        Tap(peer.port).listening(peer.front) as tap,
        open_client(loopback=True, total_s=None) as engine,
        serving(app, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True) as client,
    ):
        result = await driver(engine, recipe, peer.account).login()
        house.tool_sessions["ts-1"] = ToolSession(result.jar.to_json(), **({"scan": result.scan} if scan else {}))
        yield Behind(peer, recipe, tap, Stage(Place(peer.host), house, port, client, settings), result, engine)


@dataclass
class Work:
    """What a person has open at the moment of the cut. page: any page; upload: where a body of any length may be sent, its headers,
    how it begins and how many bytes it announces; socket: opens one and proves that it carries.
    """

    page: str
    upload: str
    headers: dict[str, str]
    begins: bytes
    announced: int
    method: str = "POST"
    socket: Callable[[Device], Awaitable[aiohttp.ClientWebSocketResponse]] | None = None
    carries: Callable[[Device, aiohttp.ClientWebSocketResponse], Awaitable[None]] | None = None


async def cut_in_the_middle(tool: Behind, work: Work) -> None:
    """Page open, upload running, socket open, second terminal: cut; and a colleague on the same login goes on (§17, claim 2)."""
    leaver, second, colleague = tool.person("gs-1"), tool.person("gs-1"), tool.person("gs-2")
    mark = "&" if "?" in work.page else "?"
    for device in (leaver, second, colleague):
        assert (await device.get(work.page)).status == 200
    sockets = []
    if work.socket is not None and work.carries is not None:
        sockets = [await work.socket(device) for device in (leaver, second, colleague)]
        for device, socket in zip((leaver, second, colleague), sockets, strict=True):
            await work.carries(device, socket)
    stop = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield work.begins
        while not stop.is_set():
            yield b"A" * 16384
            await asyncio.sleep(0.01)

    async def upload() -> Got | None:
        try:
            return await leaver.ask(
                work.method, work.upload, data=body(),
                headers={"Origin": leaver.origin, "Content-Length": str(work.announced), **work.headers},
            )  # fmt: skip
        except aiohttp.ClientError:
            return None  # the gateway broke the connection while this side was still writing

    statuses: list[int] = []

    async def go_on() -> None:
        while not stop.is_set():
            statuses.append((await colleague.get(f"{work.page}{mark}colleague=1")).status)

    uploading, going = asyncio.create_task(upload()), asyncio.create_task(go_on())
    await until(lambda: len(tool.tap.requests("colleague=1")) > 1 and bool(tool.tap.requests(work.upload)))
    wire = tool.tap.carrying(work.upload)
    seen = len(wire.said)
    await until(lambda: len(wire.said) > seen + 32768)
    saved = [dict(leaver.cookies), dict(second.cookies)]

    tool.stage.house.cut("gs-1")

    answer = await uploading
    assert answer is None or answer.page == "ended"
    await until(lambda: not wire.open)
    arrived = len(wire.said)
    for socket in sockets[:2]:
        async for _ in socket:
            pass  # what had been said before the cut
        assert socket.close_code == 1008
    for device, cookies in zip((leaver, second), saved, strict=True):
        for method in ("GET", "POST"):
            device.cookies = dict(cookies)
            late = await device.ask(method, f"{work.page}{mark}leaver=1", headers={"Origin": device.origin})
            assert (late.status, late.page) == (403, "ended")
        device.cookies = dict(cookies)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with device.socket("/leaver=1"):
                pass
    before = len(statuses)
    await until(lambda: len(statuses) > before + 2)
    stop.set()
    await going
    assert set(statuses) == {200}, "the colleague was never disturbed"
    if sockets and work.carries is not None:
        await work.carries(colleague, sockets[2])
        await sockets[2].close()
    assert tool.tap.requests("leaver=1") == [], "nothing that was asked after the cut reached the tool"
    assert len(wire.said) == arrived
    assert tool.stage.house.alarms == []
