"""What may be asked of a tool, and which headers pass: the tables of vault-and-gateway.md §8 as pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

from multidict import CIMultiDict, CIMultiDictProxy

from connectors.recipes.globs import Glob, path_matches
from connectors.recipes.model import Recipe

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 32 * 1024
HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
DROPPED_REQUEST: Final = HOP_BY_HOP | frozenset(
    {
        "host", "cookie", "authorization", "proxy-authorization", "accept-encoding", "expect", "content-length", "forwarded", "via",
        "x-real-ip", "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "origin",
        "referer",
    }
)  # fmt: skip
CONDITIONAL: Final = frozenset(
    {"range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)
_DROPPED_UNCONDITIONAL: Final = DROPPED_REQUEST | CONDITIONAL
DROPPED_STARTS: Final[tuple[str, ...]] = ("x-forwarded-", "sec-websocket-")
DROPPED_RESPONSE: Final = HOP_BY_HOP | frozenset(
    {
        "set-cookie", "set-cookie2", "www-authenticate", "proxy-authenticate", "authentication-info", "proxy-authentication-info",
        "strict-transport-security", "alt-svc", "clear-site-data", "service-worker-allowed", "accept-ch", "critical-ch", "nel",
        "report-to", "reporting-endpoints", "cache-control", "pragma", "expires", "content-length", "content-encoding", "location",
        "refresh", "x-robots-tag", "referrer-policy", "server", "x-powered-by", "public-key-pins", "expect-ct", "date",
        "x-sekisho-page",
    }
)  # fmt: skip
DROPPED_PREFIXES: Final = ("secure-session-", "sec-session-", "x-forwarded-")
#: these hold addresses; they are mapped as text and dropped when another host remains in them
MAPPED_RESPONSE: Final = frozenset(
    {"content-location", "link", "sourcemap", "x-sourcemap", "access-control-allow-origin"}
)
POLICIES: Final = frozenset({"content-security-policy", "content-security-policy-report-only"})
OUR_POLICY: Final = "frame-ancestors 'none'; object-src 'none'; base-uri 'self'"

#: nothing to decode, to cut or to resolve
_PLAIN: Final = re.compile(r"(?:/[\w~-][\w.~-]*)+/?", re.ASCII)
_STILL_ENCODED: Final = re.compile(rb"%[0-9A-Fa-f]{2}")

Verdict = Literal["allow", "deny", "logout", "login_page"]


class BadPath(ValueError):
    """A path that two readers could read in two ways."""


def normal_path(raw: str, charset: str) -> str:
    """The path as a tool will most likely read it: decoded once, `;parameters` cut, `//`, `.` and `..` resolved.

    Raises BadPath for what is still encoded after that, and for NUL and backslash: a tool that decodes twice, or takes
    `\\` for `/`, would otherwise reach a denied page behind our back (VA-54).
    """
    if _PLAIN.fullmatch(raw):
        return raw
    if not raw.startswith("/"):
        raise BadPath("not a path")
    data = unquote_to_bytes(raw)
    if _STILL_ENCODED.search(data) or b"\\" in data or b"\0" in data or b"\r" in data or b"\n" in data:
        raise BadPath("encoded twice, or holds NUL, a backslash or a line end")
    for name in ("utf-8", charset, "latin-1"):
        try:
            text = data.decode(name)
            break
        except UnicodeDecodeError:
            continue
    kept: list[str] = []
    for segment in text.split("/")[1:]:
        plain = segment.partition(";")[0]
        if plain == "..":
            del kept[-1:]
        elif plain not in {"", "."}:
            kept.append(plain)
    slash = "/" if kept and text.endswith(("/", "/.", "/..")) else ""
    return "/" + "/".join(kept) + slash


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the route rules see it. pairs: of the query and a form, decoded; opaque_body: there is one that is not read."""

    method: str
    path: str
    pairs: tuple[tuple[str, str], ...]
    opaque_body: bool = False


def pairs_of(text: str, charset: str) -> tuple[tuple[str, str], ...]:
    """Names and values of a query or an urlencoded body; `;` separates too, because some tools think so."""
    if not text:
        return ()
    found = parse_qsl(text, keep_blank_values=True, encoding=charset, errors="replace")
    if ";" in text:
        found += parse_qsl(text, keep_blank_values=True, encoding=charset, errors="replace", separator=";")
    return tuple(found)


def decide(recipe: Recipe, asked: Asked, url: str) -> Verdict:
    """What a request may do. url: the address at the tool."""
    path = asked.path.casefold()
    pairs = tuple((name.casefold(), value.casefold()) for name, value in asked.pairs)
    # HEAD runs what GET runs; `_method` in a form turns a POST into a PUT in many frameworks.
    methods = {asked.method, "GET" if asked.method == "HEAD" else asked.method}
    methods |= {value.upper() for name, value in pairs if name == "_method"}
    for verdict, globs in recipe.routes.closed:
        for glob in globs:
            if _covers(glob, methods, path, pairs, opaque=asked.opaque_body):
                return verdict
    for condition in recipe.checks.logged_out.conditions:
        if condition.url is not None and condition.url.matches(url):
            return "login_page"  # VA-55: a tool's login page is never served
    return "allow"


def _covers(glob: Glob, methods: set[str], path: str, pairs: tuple[tuple[str, str], ...], *, opaque: bool) -> bool:
    if not path_matches(glob.path, path) or not (glob.method is None or glob.method in methods):
        return False
    # The pair could be inside a body that we do not read, and that the tool reads as a form all the same.
    return glob.query is None or glob.query in pairs or opaque


def looks_at_fields(recipe: Recipe, asked: Asked) -> bool:
    """Whether some route depends on the fields of a form there."""
    path = asked.path.casefold()
    globs = (glob for _, closed in recipe.routes.closed for glob in closed)
    return any(glob.query is not None and path_matches(glob.path, path) for glob in globs)


def cacheable(recipe: Recipe, asked: Asked) -> bool:
    """Whether the browser may keep the answer for an hour."""
    return asked.method == "GET" and any(glob.matches("GET", asked.path) for glob in recipe.routes.cacheable)


def socket_allowed(recipe: Recipe, asked: Asked) -> bool:
    """Whether a WebSocket may be opened there."""
    return any(glob.matches("GET", asked.path, asked.pairs) for glob in recipe.routes.websocket)


def request_headers(
    given: CIMultiDictProxy[str], *, keep_conditional: bool, own_user_agent: str | None
) -> CIMultiDict[str]:
    """The headers that go to the tool, without those that the caller sets (Host, Cookie, Origin, Referer, lengths).

    own_user_agent: that of the login, for tools that tie a session to it; then the browser's hints would contradict it.
    """
    dropped, starts = DROPPED_REQUEST, DROPPED_STARTS
    if not keep_conditional:
        dropped = _DROPPED_UNCONDITIONAL
    if own_user_agent is not None:
        starts = (*DROPPED_STARTS, "sec-ch-")
    headers: CIMultiDict[str] = CIMultiDict(
        [
            (name, value)
            for name, value in given.items()
            if (low := name.lower()) not in dropped and not low.startswith(starts)
        ]
    )
    for value in given.getall("Connection", ()):  # it names what is of this hop alone
        for name in value.split(","):
            headers.popall(name.strip(), None)
    if own_user_agent is not None:
        headers["User-Agent"] = own_user_agent
    headers["Accept-Encoding"] = "gzip, deflate"
    return headers
