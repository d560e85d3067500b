"""Everything the gateway may touch, in memory: what `idp` will implement on a database, with the same promises."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from connectors.cookies import Jar
from connectors.ports import AccessRow, Admission, GatewayPorts, GatewayView, JarState, RenewResult, ToolState
from connectors.recipes.hosts import Ground
from connectors.recipes.load import load
from connectors.recipes.model import Recipe
from connectors.scanset import NO_GUARDS, ScanSet

GROUND = Ground(today=date(2026, 11, 22), loopback=True)


class DatabaseAway(Exception):
    """What a port raises when its database does not answer."""


@dataclass
class ToolSession:
    """Our login inside a tool."""

    jar: bytes
    state: ToolState = "live"
    generation: int = 1
    version: int = 1
    code: str | None = None
    scan: ScanSet = NO_GUARDS
    renewed_at: float | None = None


@dataclass
class GatewaySession:
    """One person in one tool from one browser; a cookie per origin."""

    tool_session: str
    recipe_key: str
    hosts: dict[str, str]
    cookies: dict[bytes, str] = field(default_factory=dict)
    ended: str | None = None


@dataclass
class Ticket:
    """An admission ticket."""

    session: str
    host: str
    challenge: bytes
    next_host: str | None
    landing: str
    used: bool = False


class House:
    """All ports at once. `away` makes every one of them fail; `login` is what a renewal does."""

    def __init__(self, login: Callable[[], Awaitable[Jar | None]]) -> None:
        self.login = login
        self.recipes: dict[str, Recipe] = {}
        self.tool_sessions: dict[str, ToolSession] = {}
        self.sessions: dict[str, GatewaySession] = {}
        self.tickets: dict[str, Ticket] = {}
        self.rows: list[AccessRow] = []
        self.alarms: list[tuple[str, dict[str, str]]] = []
        self.sweeps: list[float] = []
        self.renewals = 0
        self.renew_calls = 0
        self.questions = 0
        self.lease = True
        self.away = False
        self.trail_away = False
        self.before_alive: Callable[[], Awaitable[None]] | None = None
        self.conflicts = 0
        self._bell = asyncio.Event()
        self._renewing: dict[str, asyncio.Task[RenewResult]] = {}

    def ports(self) -> GatewayPorts:
        """As the gateway gets them."""
        return GatewayPorts(live=self, jars=self, recipes=self, door=self, trail=self, process=self)

    # --- what a test puts in, and looks at; `DatabaseHouse` has the same ---

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing to start here."""
        yield

    @property
    def now(self) -> Callable[[], float]:
        """The clock that the gateway is given."""
        return time.time

    def furnish(self, text: bytes, digest: str, jar: Jar, scan: ScanSet | None) -> None:
        """A tool that is logged in."""
        self.recipes["recipe-1"] = load(text, GROUND).recipe
        self.tool_sessions["ts-1"] = ToolSession(jar.to_json(), scan=scan or NO_GUARDS)

    def replace_login(self, jar: Jar) -> None:
        """A new login of the engine."""
        tool = self.tool_sessions["ts-1"]
        tool.jar, tool.version, tool.generation = jar.to_json(), tool.version + 1, tool.generation + 1

    def set_tool(self, *, state: ToolState, code: str | None = None) -> None:
        """How our login inside the tool stands."""
        self.tool_sessions["ts-1"].state, self.tool_sessions["ts-1"].code = state, code

    def open_session(self, name: str, hosts: Mapping[str, str]) -> None:
        """Somebody opened the tool."""
        self.sessions.setdefault(name, GatewaySession("ts-1", "recipe-1", dict(hosts)))

    def give_cookie(self, name: str, host: str, cookie: str) -> None:
        """They were admitted to one origin."""
        self.sessions[name].cookies[hashlib.sha256(cookie.encode()).digest()] = host

    def give_ticket(self, name: str, host: str, challenge: bytes) -> str:
        """What the portal issues."""
        ticket = secrets.token_hex(8)
        hosts = list(self.sessions[name].hosts)
        after = hosts[hosts.index(host) + 1 :] if host in hosts else []
        self.tickets[ticket] = Ticket(name, host, challenge, after[0] if after else None, f"http://{hosts[0]}/home")
        return ticket

    def ended(self, name: str) -> str | None:
        """Why a session ended."""
        return self.sessions[name].ended

    def cut(self, session: str, *, ring: bool = True) -> None:
        """T0: the session has ended."""
        self.sessions[session].ended = "cut"
        if ring:
            self.ring()

    def ring(self) -> None:
        """The doorbell."""
        self._bell.set()

    # --- Live ---

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        if self.before_alive is not None:
            await self.before_alive()
        if self.away:
            raise DatabaseAway
        self.questions += 1
        found = {}
        for name, session in self.sessions.items():
            for digest in cookie_digests:
                if digest in session.cookies and session.ended is None:
                    tool = self.tool_sessions[session.tool_session]
                    found[digest] = GatewayView(
                        gateway_session=name, tool_session=session.tool_session, recipe_key=session.recipe_key,
                        host=session.cookies[digest], hosts=session.hosts, state=tool.state, generation=tool.generation,
                        jar_version=tool.version, code=tool.code,
                    )  # fmt: skip
        return found

    # --- Jars ---

    async def load(self, tool_session: str) -> JarState:
        tool = self.tool_sessions[tool_session]
        return JarState(Jar.from_json(tool.jar), tool.version, tool.generation, tool.scan)

    async def save(self, tool_session: str, jar: Jar, *, seen_version: int) -> bool:
        tool = self.tool_sessions[tool_session]
        if self.conflicts:
            self.conflicts -= 1
            other = Jar.from_json(tool.jar)
            other.set_from(f"other{tool.version}=theirs; Path=/", url="http://localhost/", now=0)
            tool.jar, tool.version = other.to_json(), tool.version + 1
        if seen_version != tool.version:
            return False
        tool.jar, tool.version = jar.to_json(), tool.version + 1
        return True

    # --- Recipes ---

    async def recipe(self, recipe_key: str) -> Recipe:
        return self.recipes[recipe_key]

    # --- Door ---

    async def admit(self, ticket: str, *, host: str, challenge: bytes) -> Admission | None:
        found = self.tickets.get(ticket)
        if found is None or found.used or found.host != host or found.challenge != challenge:
            return None
        if self.sessions[found.session].ended is not None:
            return None
        found.used = True
        cookie = f"cookie-{ticket}"
        self.sessions[found.session].cookies[hashlib.sha256(cookie.encode()).digest()] = host
        return Admission(cookie, found.next_host, found.landing)

    async def renew(self, tool_session: str, *, generation: int, deadline: float) -> RenewResult:
        self.renew_calls += 1
        tool = self.tool_sessions[tool_session]
        if tool.generation != generation:
            return RenewResult("live") if tool.state == "live" else RenewResult("needs_human", tool.code)
        if tool_session not in self._renewing:
            self._renewing[tool_session] = asyncio.create_task(self._renew(tool))
            self._renewing[tool_session].add_done_callback(lambda _: self._renewing.pop(tool_session, None))
        return await asyncio.shield(self._renewing[tool_session])

    async def _renew(self, tool: ToolSession) -> RenewResult:
        now = time.monotonic()
        if tool.renewed_at is not None and now - tool.renewed_at < 60:
            tool.state, tool.code = "needs_human", "session_flaps"
            return RenewResult("needs_human", tool.code)
        tool.state, tool.renewed_at = "renewing", now
        self.renewals += 1
        jar = await self.login()
        if jar is None:
            tool.state, tool.code = "needs_human", "refused"
            return RenewResult("needs_human", tool.code)
        tool.jar, tool.version, tool.generation, tool.state = (
            jar.to_json(),
            tool.version + 1,
            tool.generation + 1,
            "live",
        )
        return RenewResult("live")

    async def leave(self, cookie_digest: bytes) -> None:
        for session in self.sessions.values():
            if cookie_digest in session.cookies and session.ended is None:
                session.ended = "signed_out"

    # --- Trail ---

    async def requests(self, rows: Sequence[AccessRow]) -> None:
        if self.trail_away:
            raise DatabaseAway
        self.rows.extend(rows)

    async def alarm(self, code: str, **ids: str) -> None:
        self.alarms.append((code, ids))

    # --- Process ---

    async def swept(self, began_at: float) -> bool:
        self.sweeps.append(began_at)
        return self.lease

    async def doorbell(self) -> None:
        await self._bell.wait()
        self._bell.clear()
