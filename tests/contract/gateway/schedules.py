"""One gateway on a stage where one thing happens at a time, in an order that dice choose: no socket, no clock, no luck.

Everything of the gateway is the real thing: door, live check with its batches, routes, release, sweep. Its ports and the tool
come on stage: each call waits until it is picked, is then done alone, and its answer waits to be picked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from connectors.cookies import Jar
from connectors.gateway.admit import COOKIE, NONCE, digest_of
from connectors.gateway.app import Gateway
from connectors.gateway.settings import GatewaySettings
from connectors.recipes.load import load
from tests.contract.gateway.stage import SHOWN, Log, Ports, Stage, ToolClient
from tests.fakes.device import HOUSES, IDP
from tests.fakes.house import GROUND
from tests.fakes.tools.site import Site, recipe_text

SETTINGS = GatewaySettings(domain="gw.localhost", idp=IDP, scheme="http", loopback=True, lease_s=86400.0)


@dataclass
class Theatre:
    """A house with a tool that is logged in; people come for each play anew. spoil: may put a fault into the ports."""

    house: Any
    site: Site
    spoil: Callable[[Ports], None] | None = None
    _count: int = 0

    def enters(self) -> tuple[str, str, str]:
        """Somebody new with a cookie: name, host, cookie."""
        self._count += 1
        name = f"p{self._count}"
        host, cookie = f"shift-note-{name}.{SETTINGS.domain}", f"cookie-{name}"
        self.house.open_session(name, {host: self.site.host})
        self.house.give_cookie(name, host, cookie)
        return name, host, cookie

    async def closed(self) -> None:
        """Let go of what the house holds."""
        async with self.house.running():
            pass

    async def play(self, dice: random.Random) -> Log:
        """One play: requests of somebody who is cut in it, their form, a second browser of theirs, a colleague. Judges it."""
        stage, log = Stage(dice), Log()
        ports = Ports(self.house, stage, log)
        if self.spoil is not None:
            self.spoil(ports)
        gateway = Gateway(ports.all(), SETTINGS, now=self.house.now, new_secret=lambda: secrets.token_urlsafe(32))
        gateway._client = ToolClient(stage, log)  # type: ignore[assignment] # what `running` would open
        name, host, cookie = self.enters()
        _, other_host, other_cookie = self.enters()
        challenge = hashlib.sha256(b"nonce").digest()
        ticket = self.house.give_ticket(name, host, challenge)
        gateway.sweep._swept_at = asyncio.get_running_loop().time()  # the first sweep was done

        async def page(number: str, at: str, with_cookie: str) -> bytes:
            await stage.act()
            log.began[number] = stage.tick
            request = _request("GET", f"/home?r={number}", headers=_headers(at, with_cookie))
            return _body(await gateway.handle(request))

        async def form(number: str) -> bytes:
            await stage.act()
            log.began[number] = stage.tick
            body = _body_reader()
            headers = {**_headers(host, cookie), "Origin": f"http://{host}", "Content-Type": "application/x-www-form-urlencoded", "Content-Length": "3"}  # fmt: skip
            request = _request("POST", f"/home?r={number}", headers=headers, payload=body)
            answer = asyncio.ensure_future(gateway.handle(request))
            await stage.act()
            body.feed_data(b"a=")
            await stage.act()
            body.feed_data(b"1")
            body.feed_eof()
            log.form_ended[number] = stage.tick
            return _body(await answer)

        async def second_browser() -> tuple[bool, bytes]:
            await stage.act()
            headers = {"Host": host, "Cookie": f"{NONCE}=nonce", "Sec-Fetch-Dest": "document"}
            entering = _request("GET", f"/.sekisho/enter?ticket={ticket}", headers=headers)
            answer = await gateway.handle(entering)
            fresh = answer.cookies.get(COOKIE)
            if fresh is None or not fresh.value:
                return False, b""
            digests.append(digest_of(fresh.value))
            return True, await page("entered", host, fresh.value)

        async def cut() -> None:
            async def commit() -> None:
                self.house.cut(name, ring=False)
                log.cut_at = stage.tick

            for _ in range(
                dice.randrange(40)
            ):  # later than a fair draw would have it: much has to happen before some orders
                await stage.act()
            await stage.act(commit)
            await gateway.sweep.once()

        async def sweep() -> None:
            await stage.act()
            await gateway.sweep.once()

        digests = [digest_of(cookie)]
        mine = ["1", "2", "3"]
        shown = await stage.play([
            *(page(number, host, cookie) for number in mine), form("form"), second_browser(),
            page("colleague", other_host, other_cookie), cut(), sweep(),
        ])  # fmt: skip
        pages: dict[str, bytes] = dict(zip([*mine, "form"], shown, strict=False))
        entered, pages["entered"] = shown[4]
        assert SHOWN in shown[5], "a colleague on the same login loses nothing"
        _judge(log, pages, frozenset(digests))
        if not entered:
            assert "entered" not in log.began
        late = _request("GET", "/home?r=late", headers=_headers(host, cookie))
        (after,) = await stage.play([gateway.handle(late)])
        assert after.status == 403
        assert "late" not in log.sent
        assert await self.house.admit(ticket, host=host, challenge=challenge) is None, "the ticket is void or used"
        return log


def _judge(log: Log, pages: Mapping[str, bytes], digests: frozenset[bytes]) -> None:
    """§17, claim 2, for everything of the person who was cut."""
    t0 = log.cut_at
    looks = [tick for tick, alive in log.looks if alive & digests]
    assert all(tick < t0 for tick in looks), "found alive after the cut"
    for number, tick in log.sent.items():
        if number == "colleague":
            continue
        began = log.began[number]
        assert began < t0, f"{number} went to the tool and began at {began}, after T0 = {t0}"
        assert log.form_ended.get(number, 0) < t0, f"{number} was finished after T0 and sent"
        assert any(began <= look < tick for look in looks), f"{number} was sent without a look of its own"
    for number, page in pages.items():
        if SHOWN in page:
            assert any(log.answered[number] < look < t0 for look in looks), f"the answer to {number} was not looked at"
    posts = [row for row in log.recorded if row.method == "POST"]
    assert "form" not in log.sent or posts, "a form was sent that is not on record"


def _request(method: str, path: str, *, headers: Mapping[str, str], payload: StreamReader | None = None) -> web.Request:
    """A request as aiohttp's server would hand it on, from no connection."""
    raw = tuple((name.encode(), value.encode()) for name, value in headers.items())
    message = RawRequestMessage(
        method, path, HttpVersion11, CIMultiDictProxy(CIMultiDict(headers)), raw, should_close=False, compression=None,
        upgrade=False, chunked=False, url=URL(path),
    )  # fmt: skip
    nowhere: Any = SimpleNamespace(ssl_context=None, peername=None, sockname=None, transport=None)
    task: Any = asyncio.current_task()
    return web.Request(message, payload or EMPTY_PAYLOAD, nowhere, nowhere, task, asyncio.get_running_loop())


def _body_reader() -> StreamReader:
    """The body of a request that is still on its way."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 2**16, loop=loop)


def _headers(host: str, cookie: str) -> dict[str, str]:
    return {"Host": host, "Cookie": f"{COOKIE}={cookie}"}


def _body(answer: web.StreamResponse) -> bytes:
    assert isinstance(answer, web.Response)
    body = answer.body
    return body if isinstance(body, bytes) else b""


def theatre() -> Theatre:
    """A house of the kind that the test runs over, furnished."""
    site = Site({"login_id": "store-7", "password": "nobody-types-it"})
    site.host = "tool.localhost:8443"

    async def login() -> Jar | None:
        raise AssertionError("nobody logs in here")

    house = HOUSES[-1](login)
    jar = Jar(user_agent="Engine/1")
    jar.set_from("sid=abcdefghijklmnop; Path=/", url=f"http://{site.host}/", now=0)
    text = recipe_text(site)
    house.furnish(text, load(text, GROUND).recipe.digest, jar, None)
    return Theatre(house, site)
