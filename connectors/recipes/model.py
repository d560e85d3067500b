"""A recipe that has been read: plain values, nothing to look up, nothing left to doubt. `load.py` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final, Literal

from connectors.recipes.globs import Glob, UrlGlob
from connectors.recipes.password_rules import Rules

StepKind = Literal["open", "fill", "choose", "check", "click", "submit", "wait_for"]
ByKind = Literal["label", "name", "autocomplete", "type", "css", "role"]
Driver = Literal["http", "browser"]

STEP_KINDS: Final = ("open", "fill", "choose", "check", "click", "submit", "wait_for")
BY_KINDS: Final = ("label", "name", "autocomplete", "type", "css", "role")
BROWSER_ONLY: Final = frozenset({"click", "wait_for"})
DENY_KINDS: Final = ("password", "email", "users", "keys", "billing")
#: what a fill step names for the password that a rotation sets
NEW: Final = ".new"


@dataclass(frozen=True, slots=True)
class By:
    """One way to find an element. name: the accessible name, only beside `role`."""

    kind: ByKind
    value: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of a page: where it is (`url`), what it holds (`css`, `text`) or how it answered (`status`)."""

    url: UrlGlob | None = None
    css: str | None = None
    text: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Conditions of which all, or any, must hold. Never empty."""

    mode: Literal["all", "any"]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a form. field: of a fill, `password.new` for the value that a rotation sets; line: for messages."""

    kind: StepKind
    line: int
    by: tuple[By, ...] = ()
    field: str | None = None
    value: str | None = None
    url: str | None = None
    until: Condition | None = None


class Label(str):
    """What people call a field: Japanese, and `en`, the same word where a recipe gives one only."""

    __slots__ = ("en",)
    en: str

    def __new__(cls, ja: str, en: str | None = None) -> Label:
        """en None: one word for every reader."""
        made = super().__new__(cls, ja)
        made.en = ja if en is None else en
        return made


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a tool account. halfwidth: full-width digits and letters are normalised when typed."""

    name: str
    label: Label
    secret: bool
    halfwidth: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What the tool's terms of use say, and when a person read them (VA-48)."""

    url: str
    read_on: date
    shared_account: str
    automation: str

    @property
    def forbid(self) -> bool:
        """Whether the tool needs an attested written permission."""
        return "forbidden" in (self.shared_account, self.automation)


@dataclass(frozen=True, slots=True)
class Hosts:
    """`host` or, on loopback, `host:port`; lower case. public: fetched by the browser directly, never given anything."""

    primary: str
    also: tuple[str, ...] = ()
    public: tuple[str, ...] = ()

    @property
    def declared(self) -> tuple[str, ...]:
        """Hosts that we speak to; the primary one first."""
        return (self.primary, *self.also)


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in. attempts_max within attempts_window_minutes stays below the tool's own lock-out."""

    driver: Driver
    url: str
    steps: tuple[Step, ...]
    basic_auth: tuple[str, str] | None
    timeout_s: int
    attempts_max: int
    attempts_window_minutes: int


@dataclass(frozen=True, slots=True)
class Checks:
    """How a page shows that somebody is logged in, or not."""

    probe: str
    logged_in: Check
    logged_out: Check


@dataclass(frozen=True, slots=True)
class Request:
    """A method and an absolute URL."""

    method: str
    url: str


@dataclass(frozen=True, slots=True)
class Session:
    """How the tool's own session is shared, how long it may live, and which cookies may be seen by scripts."""

    shared: bool
    single: bool
    idle_minutes: int
    max_hours: int
    logout: Request | None
    engine_user_agent: bool
    mirror: frozenset[str]
    from_client: frozenset[str]
    device: frozenset[str]


@dataclass(frozen=True)
class Routes:
    """What the gateway does with which path. deny: kind → routes, or None where the tool has no such page."""

    landing: str
    logout: tuple[Glob, ...]
    deny: Mapping[str, tuple[Glob, ...] | None]
    cacheable: tuple[Glob, ...]
    websocket: tuple[Glob, ...]
    upload_max_bytes: int

    @cached_property
    def closed(self) -> tuple[tuple[Literal["deny", "logout"], tuple[Glob, ...]], ...]:
        """The routes that never reach the tool, without regard to case, in the order in which they are asked."""
        denied = (glob for globs in self.deny.values() for glob in globs or ())
        return (
            ("deny", tuple(glob.folded() for glob in denied)),
            ("logout", tuple(glob.folded() for glob in self.logout)),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """The tool's own form for a new password."""

    url: str
    steps: tuple[Step, ...]
    success: Check


@dataclass(frozen=True, slots=True)
class Password:
    """history: how many old passwords the tool refuses; change: None when no machine can change it."""

    rules: Rules
    history: int
    change: Change | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe. digest: SHA-256 of its text in hex, which approvals and certifications are bound to (VA-58)."""

    id: str
    version: int
    digest: str
    title_ja: str
    title_en: str
    terms: Terms
    hosts: Hosts
    charset: str
    fields: Mapping[str, Field]
    login: Login
    checks: Checks
    session: Session
    routes: Routes
    password: Password | None

    @property
    def secret_fields(self) -> tuple[str, ...]:
        """Names of the fields whose values must never reach a device."""
        return tuple(name for name, field in self.fields.items() if field.secret)
