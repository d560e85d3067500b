"""A private gateway with its ports in memory: the gateway that is certified is the real one, and no person's session is touched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from connectors.cookies import Jar
from connectors.egress import open_client
from connectors.gateway.admit import COOKIE, digest_of
from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from connectors.ports import (
    AccessRow,
    Admission,
    GatewayPorts,
    GatewayView,
    JarState,
    NewSecret,
    Now,
    RenewResult,
)
from connectors.recipes.model import Recipe
from connectors.scanset import NO_GUARDS, ScanSet

#: tool sessions of a stand: the jar of the login, an empty jar, and the jar of the login with a planted secret
LIVE: Final = "live"
DEAD: Final = "dead"
PLANTED: Final = "planted"
PORTAL: Final = "http://portal.certify.localhost"
ASK_S: Final = 40.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a guest got. page: which page of the gateway's own, or None for one of the tool's."""

    status: int
    location: str | None
    page: str | None
    body: bytes


@dataclass(slots=True)
class Guest:
    """One person at one browser, admitted already.

    hosts: gateway host → tool host, the primary one first; values: gateway host → its cookie.
    """

    stand: Stand
    name: str
    tool_session: str
    hosts: dict[str, str]
    values: dict[str, str]

    @property
    def host(self) -> str:
        """The gateway host of the recipe's primary host."""
        return next(iter(self.hosts))

    @property
    def origin(self) -> str:
        """Its origin."""
        return f"http://{self.host}"

    @property
    def _cookie(self) -> str:
        return f"{COOKIE}={self.values[self.host]}"

    async def ask(self, method: str, path: str, *, form: bytes | None = None) -> Answer:
        """One request to the primary origin, redirects not followed."""
        headers = {"Cookie": self._cookie, "Origin": self.origin, "Accept": "text/html,*/*"}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = URL(f"{self.origin}{path}", encoded=True)
        async with self.stand.client.request(method, url, headers=headers, data=form, allow_redirects=False) as got:
            return Answer(got.status, got.headers.get("Location"), got.headers.get("X-Sekisho-Page"), await got.read())

    async def visit(self, path: str) -> Answer:
        """Open a page and follow where it leads inside this origin."""
        answer = await self.ask("GET", path)
        for _ in range(5):
            if answer.location is None or not answer.location.startswith(f"{self.origin}/"):
                break
            answer = await self.ask("GET", answer.location.removeprefix(self.origin))
        return answer

    async def socket_opens(self, path: str) -> bool:
        """Whether a WebSocket can be opened there."""
        headers = {"Cookie": self._cookie, "Origin": self.origin}
        try:
            async with self.stand.client.ws_connect(f"{self.origin}{path}", headers=headers):
                return True
        except aiohttp.ClientError:
            return False


@dataclass(slots=True)
class Stand:
    """Every port at once, and what they saw. tool: the recipe; rows: of the access log; alarms: (session, code); ended: session → reason."""

    tool: Recipe
    jar: bytes
    scans: dict[str, ScanSet]
    new_secret: NewSecret
    domain: str
    client: aiohttp.ClientSession
    version: int = 1
    guests: dict[bytes, tuple[Guest, str]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    rows: list[AccessRow] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    def guest(self, tool_session: str = LIVE) -> Guest:
        """Somebody new."""
        name = hashlib.sha256(self.new_secret().encode()).hexdigest()[:20]
        declared = self.tool.hosts.declared
        labels = [f"{name}-{n}" if n else name for n in range(len(declared))]
        hosts = {f"{label}.{self.domain}": host for label, host in zip(labels, declared, strict=True)}
        made = Guest(self, name, tool_session, hosts, {host: self.new_secret() for host in hosts})
        self.guests |= {digest_of(value): (made, host) for host, value in made.values.items()}
        return made

    def current(self) -> Jar:
        """The jar as the tool has left it."""
        return Jar.from_json(self.jar)

    # --- the ports ---

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        """See ports.Live."""
        found = {}
        for digest in cookie_digests:
            guest, host = self.guests.get(digest, (None, ""))
            if guest is not None and guest.name not in self.ended:
                found[digest] = GatewayView(
                    guest.name, guest.tool_session, "recipe", host, guest.hosts, "live", 1, self.version
                )
        return found

    async def load(self, tool_session: str) -> JarState:
        """See ports.Jars."""
        jar = Jar(user_agent=self.current().user_agent) if tool_session == DEAD else self.current()
        return JarState(jar, self.version, 1, self.scans.get(tool_session, NO_GUARDS))

    async def save(self, tool_session: str, jar: Jar, *, seen_version: int) -> bool:
        """See ports.Jars. What the tool gives to an empty jar is thrown away."""
        if tool_session == DEAD:
            return True
        if seen_version != self.version:
            return False
        self.jar, self.version = jar.to_json(), self.version + 1
        return True

    async def recipe(self, recipe_key: str) -> Recipe:
        """See ports.Recipes."""
        return self.tool

    async def admit(self, ticket: str, *, host: str, challenge: bytes) -> Admission | None:
        """See ports.Door. Guests are in already."""
        return None

    async def renew(self, tool_session: str, *, generation: int, deadline: float) -> RenewResult:
        """See ports.Door. There is one login in a certification."""
        return RenewResult("needs_human", "certification")

    async def leave(self, cookie_digest: bytes) -> None:
        """See ports.Door."""
        if cookie_digest in self.guests:
            self.ended[self.guests[cookie_digest][0].name] = "signed_out"

    async def requests(self, rows: Sequence[AccessRow]) -> None:
        """See ports.Trail."""
        self.rows.extend(rows)

    async def alarm(self, code: str, **ids: str) -> None:
        """See ports.Trail."""
        self.alarms.append((ids.get("gateway_session", ""), code))

    async def swept(self, began_at: float) -> bool:
        """See ports.Process."""
        return True

    async def doorbell(self) -> None:
        """See ports.Process."""
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def standing(
    recipe: Recipe, jar: Jar, scan: ScanSet, *, now: Now, new_secret: NewSecret, loopback: bool
) -> AsyncIterator[Stand]:
    """Serve a gateway on a free port of loopback for one login."""
    bound = socket.create_server(("127.0.0.1", 0))
    domain = f"certify.localhost:{bound.getsockname()[1]}"
    settings = GatewaySettings(domain=domain, idp=PORTAL, scheme="http", loopback=loopback)
    async with open_client(loopback=True, total_s=ASK_S) as client:
        stand = Stand(recipe, jar.to_json(), {LIVE: scan}, new_secret, domain, client)
        ports = GatewayPorts(live=stand, jars=stand, recipes=stand, door=stand, trail=stand, process=stand)
        app = create_gateway(ports, settings, now=now, new_secret=new_secret)
        async with serving(app, "127.0.0.1", 0, bound=bound):
            yield stand
