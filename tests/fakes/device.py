"""A browser as the gateway sees one, that remembers every byte it got; and a stage with gateway, tool and house."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from http.cookies import SimpleCookie
from typing import Any

import aiohttp

from connectors.cookies import Jar
from connectors.gateway.admit import COOKIE
from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from connectors.recipes.load import load
from connectors.scanset import build
from tests.fakes.house import GROUND, House
from tests.fakes.tools.site import CSRF, SESSION, Site, recipe_text, running

IDP = "http://localhost:8000"
PASSWORD = "P&ssw0rd/髙<1>x"
Test = Callable[..., Coroutine[Any, Any, None]]


def in_loop_for(seconds: float) -> Callable[[Test], Callable[..., None]]:
    """Run a test that is a coroutine, and end it when it hangs."""

    def wrap(test: Test) -> Callable[..., None]:
        @wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            async def limited() -> None:
                async with asyncio.timeout(seconds):
                    await test(*args, **kwargs)

            asyncio.run(limited())

        return run

    return wrap


#: ends a test that hangs; long, because a slow disk is no hang
in_loop = in_loop_for(120)


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that the other side does; the test's own time limit ends it."""
    while not true():  # noqa: ASYNC110 - the tool has no event for it
        await asyncio.sleep(0.005)


@dataclass
class Got:
    """One answer, whole."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str | None:
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k.lower() == name.lower()]

    @property
    def page(self) -> str | None:
        """Which page of the gateway's own, if it is one."""
        return self.header("X-Sekisho-Page")


@dataclass
class Device:
    """One browser profile at one origin of the gateway. seen: every byte that it received."""

    client: aiohttp.ClientSession
    port: int
    host: str
    cookies: dict[str, str] = field(default_factory=dict)
    seen: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    def outgoing(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        line = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        base = {"Host": self.host, "User-Agent": "Device/1", **({"Cookie": line} if line else {})}
        return {**base, **self.headers, **(extra or {})}

    def url(self, path: str) -> Any:
        from yarl import URL

        return URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)

    async def ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any) -> Got:
        async with self.client.request(
            method, self.url(path), headers=self.outgoing(headers), allow_redirects=False, **kwargs
        ) as answer:
            self._remember(answer)
            body = await answer.read()
            self.seen += body
            return Got(answer.status, [(k, v) for k, v in answer.headers.items()], body)

    async def get(self, path: str, **kwargs: Any) -> Got:
        return await self.ask("GET", path, **kwargs)

    async def post(self, path: str, data: Any = b"", **kwargs: Any) -> Got:
        headers = {"Origin": self.origin, **kwargs.pop("headers", {})}
        return await self.ask("POST", path, data=data, headers=headers, **kwargs)

    def _remember(self, answer: aiohttp.ClientResponse) -> None:
        for name, value in answer.headers.items():
            self.seen += f"{name}: {value}\r\n".encode()
        for line in answer.headers.getall("Set-Cookie", ()):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value

    def socket(self, path: str, *, protocols: tuple[str, ...] = ("v1",), **headers: str) -> Any:
        return self.client.ws_connect(
            self.url(path), headers=self.outgoing({"Origin": self.origin, **headers}), protocols=protocols, origin=None
        )


@dataclass
class Place:
    """What a stage wants to know of a tool that is not ours."""

    host: str
    other_host: str = ""


@dataclass
class Stage:
    """A tool, a gateway in front of it, and the house behind it."""

    site: Site | Place
    house: Any
    port: int
    client: aiohttp.ClientSession
    settings: GatewaySettings

    def person(self, session: str = "gs-1", *, label: str | None = None) -> Device:
        """Somebody who has been admitted already."""
        host = f"shift-note-{label or session}.{self.settings.domain}"
        hosts = {host: self.site.host}
        if self.site.other_host:
            hosts[f"shift-note-{label or session}-2.{self.settings.domain}"] = self.site.other_host
        cookie = f"cookie-{session}-{secrets.token_hex(8)}"
        self.house.open_session(session, hosts)
        self.house.give_cookie(session, host, cookie)
        return Device(self.client, self.port, host, {COOKIE: cookie})

    def stranger(self, session: str = "gs-1") -> Device:
        """A browser that has not been admitted."""
        return Device(self.client, self.port, f"shift-note-{session}.{self.settings.domain}")

    def ticket(self, session: str, host: str, challenge: bytes) -> str:
        """What the portal issues."""
        return self.house.give_ticket(session, host, challenge)


#: which house the stage is built on: `(login) -> House` or the like of it
HOUSES: list[Callable[[Callable[[], Awaitable[Jar | None]]], Any]] = [House]


@contextlib.asynccontextmanager
async def staged(
    site: Site | None = None, *, scan: bool = True, replace: dict[str, str] | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    """Everything running on loopback, logged in."""
    site = site or Site({"login_id": "store-7", "password": PASSWORD})

    async def login() -> Jar | None:
        session, token = site.open_session()
        jar = Jar(user_agent="Engine/1")
        jar.set_from(f"{SESSION}={session}; Path=/; HttpOnly", url=f"http://{site.host}/", now=0)
        jar.set_from(f"{CSRF}={token}; Path=/", url=f"http://{site.host}/", now=0)
        return jar

    async with (
        running(site),
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True) as client,
    ):
        house = HOUSES[-1](login)
        jar = await login()
        assert jar is not None
        guards = (
            build([site.credentials["password"]], key=secrets.token_bytes(32), charset=site.charset) if scan else None
        )
        text = recipe_text(site, replace=replace or {})
        house.furnish(text, load(text, GROUND).recipe.digest, jar, guards)
        told = GatewaySettings(
            domain="gw.localhost", idp=IDP, scheme="http", loopback=True, **{"sweep_s": 0.1, **settings}
        )
        app = create_gateway(house.ports(), told, now=house.now, new_secret=lambda: secrets.token_urlsafe(32))
        async with house.running(), serving(app, "127.0.0.1", 0) as port:
            yield Stage(site, house, port, client, told)
