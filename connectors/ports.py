"""What engine and gateway need from outside, as protocols: the only way from here to a database or a secret.

`idp/edges/tools/ports.py` implements them. A process gets these, the clock and a source of secrets, and nothing else: no
database session, no settings, no key of another class (vault-and-gateway.md §1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from connectors.cookies import Jar
from connectors.recipes.model import Recipe
from connectors.scanset import NO_GUARDS, ScanSet

#: seconds since 1970 in UTC
Now = Callable[[], float]
#: 256 random bits as URL-safe text
NewSecret = Callable[[], str]

ToolState = Literal["opening", "live", "renewing", "needs_human", "ending", "ended"]


@dataclass(frozen=True, slots=True)
class GatewayView:
    """One gateway session that passed the live check just now, as seen by one cookie of one origin.

    host: the gateway host whose cookie this is; hosts: every gateway host of the session → the tool's host, the primary
    one first; recipe_key: names the recipe with its host fields filled in, the same for the life of the row; state, code:
    of the tool session; generation, jar_version: which login and which jar are current.
    """

    gateway_session: str
    tool_session: str
    recipe_key: str
    host: str
    hosts: Mapping[str, str]
    state: ToolState
    generation: int
    jar_version: int
    code: str | None = None


@dataclass(frozen=True, slots=True)
class JarState:
    """A jar as stored. version: for the conditional update; generation: the login that made it; scan: what that login's
    fields look like on the wire.
    """

    jar: Jar
    version: int
    generation: int
    scan: ScanSet = field(default=NO_GUARDS)


@dataclass(frozen=True, slots=True)
class Admission:
    """A claimed admission ticket. cookie: for this origin, stored as a digest; next_host: the next origin to admit."""

    cookie: str
    next_host: str | None
    landing: str


@dataclass(frozen=True, slots=True)
class RenewResult:
    """How a renewal ended: a new login is `live`, a person is needed (code says why), or the deadline passed."""

    state: Literal["live", "needs_human", "late"]
    code: str | None = None


@dataclass(frozen=True, slots=True)
class AccessRow:
    """One request of one person. route: path without query; status: None when it is about to be sent."""

    gateway_session: str
    at: float
    method: str
    route: str
    status: int | None
    sent_bytes: int
    rule: str


class Revealable(Protocol):
    """A secret that knows how to be read once, on purpose; `vault.Secret` is one."""

    def reveal(self) -> str:
        """The value."""


class Desk(Protocol):
    """The engine's only way to a field value; the audit row is committed first (VA-32)."""

    async def open_fields(self, ticket: str) -> Mapping[str, Revealable]:
        """The fields of the account that a use-ticket names, once. Raises for a ticket used, late or void."""


class Live(Protocol):
    """The live check: every request, every release, every sweep (VA-50, D8). No cache behind it."""

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        """Views of the cookies (SHA-256) whose gateway session and everything above it are alive; others are absent."""


class Jars(Protocol):
    """Sealed jars of tool sessions."""

    async def load(self, tool_session: str) -> JarState:
        """Open the jar. Raises when the vault is away."""

    async def save(self, tool_session: str, jar: Jar, *, seen_version: int) -> bool:
        """Seal and store it if `seen_version` is still current, as the next version; False when it is not."""


class Recipes(Protocol):
    """Approved recipes."""

    async def recipe(self, recipe_key: str) -> Recipe:
        """The recipe behind a key of a view."""


class Door(Protocol):
    """Coming in, going out, and a fresh login for those inside."""

    async def admit(self, ticket: str, *, host: str, challenge: bytes) -> Admission | None:
        """Claim a ticket for one origin; None when it is used, late, of another host or another browser."""

    async def renew(self, tool_session: str, *, generation: int, deadline: float) -> RenewResult:
        """The tool has logged `generation` out: one new login for everybody, of all processes; wait until `deadline`.

        The implementation answers `needs_human(session_flaps)` for the second renewal within 60 s.
        """

    async def leave(self, cookie_digest: bytes) -> None:
        """The person logged out inside the tool: end the gateway session (`signed_out`), never the tool session."""


class Trail(Protocol):
    """The access log and the alarms."""

    async def requests(self, rows: Sequence[AccessRow]) -> None:
        """Store access rows."""

    async def alarm(self, code: str, **ids: str) -> None:
        """Something that a person must look at: a code and ids, never contents."""


class Process(Protocol):
    """This gateway process in the eyes of the others (`gateway_process`)."""

    async def swept(self, began_at: float) -> bool:
        """All sockets were checked in a sweep that began then. False: the lease is lost, close everything."""

    async def doorbell(self) -> None:
        """Return when something may have ended. Only a hint; a sweep runs every 500 ms anyway."""


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Everything the gateway may touch."""

    live: Live
    jars: Jars
    recipes: Recipes
    door: Door
    trail: Trail
    process: Process
