"""What pages share: cookies, who is looking, what they may do, CSRF, step-up, the headers of every answer.

A page begins with `look()`: the live check of AC-42, one SELECT against the primary database, with no cache behind it.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

from flask import Flask, Response, current_app, g, redirect, request
from werkzeug.wrappers import Response as WSGIResponse

from idp.core import clock, ids
from idp.core.db import reading, transaction
from idp.core.errors import Denied, NotFound, SekishoError, Stale
from idp.domain.directory import scope
from idp.domain.directory.roles import ROLES, Power, Reach, needs_second_factor
from idp.domain.directory.scope import Viewer
from idp.domain.sessions import live
from idp.domain.sessions.live import LiveLogin
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.services import Services

View = TypeVar("View", bound=Callable[..., Any])
Answer = str | Response | WSGIResponse | tuple[Any, ...]

LOGIN_COOKIE, PENDING_COOKIE, DEVICE_COOKIE, LANGUAGE_COOKIE, CHAIN_COOKIE = (
    "sekisho",
    "sekisho-2fa",
    "sekisho-device",
    "sekisho-lang",
    "sekisho-chain",
)
#: a right is missing, and somebody can give it; every other refusal says its own way out
NO_RIGHT = "この画面を使う権限がありません。"
#: endpoints that no cookie authenticates, or that store the request and answer 303 to GET (WB-01)
CSRF_EXEMPT = {
    "oidc.token", "oidc.userinfo", "oidc.authorize", "oidc.end_session", "saml.sso", "saml.slo", "saml.soap",
}  # fmt: skip
#: the part of the content security policy that is the same for every answer
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types sekisho"
)
EVERY_ANSWER = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Vary", "Cookie"),
]
#: pages a relying party may have opened as a popup, which must keep their opener (D17)
OPENER_PAGES = {
    "saml.sso",
    "saml.slo",
    "saml.chain",
    "oidc.authorize",
    "oidc.end_session",
    "login.login",
    "login.second_factor",
    "login.recovery",
    "login.step_up",
}


def services() -> Services:
    """The collaborators of this process."""
    return cast("Services", current_app.extensions["sekisho"])


def now() -> datetime:
    """The instant of this request: read once, so that every statement in it agrees."""
    if "now" not in g:
        g.now = clock.now()
    return cast("datetime", g.now)


def actor(account_id: uuid.UUID | None = None) -> Actor:
    """Who acts in this request, for the audit row."""
    return Actor("person" if account_id else "anonymous", account_id, g.request_id, address())


def address() -> str:
    """The peer's address, IPv6 cut to its /64: one subscriber holds that many addresses."""
    text = request.remote_addr or ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False).network_address)
    return text


# --- cookies -------------------------------------------------------------------------------------------------------


def cookie_name(name: str) -> str:
    """`__Host-` ties a cookie to this host and to https (AC-40). Plain http exists on loopback only."""
    return name if services().settings.issuer_is_loopback else f"__Host-{name}"


def read_cookie(name: str) -> str:
    """A cookie's value, or an empty text."""
    return request.cookies.get(cookie_name(name), "")


def set_cookie(answer: WSGIResponse, name: str, value: str, *, life: timedelta | None = None) -> None:
    """Set one of our cookies: HttpOnly, Lax, Secure outside loopback. life None: until the browser closes."""
    answer.set_cookie(
        cookie_name(name), value, httponly=True, samesite="Lax", secure=not services().settings.issuer_is_loopback, path="/",
        max_age=int(life.total_seconds()) if life else None,
    )  # fmt: skip


def delete_cookie(answer: WSGIResponse, name: str) -> None:
    """Delete one of our cookies by name (LO-12)."""
    answer.delete_cookie(
        cookie_name(name), path="/", httponly=True, samesite="Lax", secure=not services().settings.issuer_is_loopback
    )


# --- who is looking ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looking:
    """The live login of this request and what its person may do."""

    login: LiveLogin
    viewer: Viewer


def look() -> Looking | None:
    """The live check of this request, made once. None: nobody is logged in (or they no longer are)."""
    if "looking" not in g:
        g.looking = _look()
    return cast("Looking | None", g.looking)


def _look() -> Looking | None:
    cookie = read_cookie(LOGIN_COOKIE)
    if not cookie:
        return None
    with reading() as session:
        login = live.look(session, cookie, now=now())
        if login is None:
            return None
        held = scope.standings(session, login.account_id, now=now())
    if now() - login.last_seen_at > live.TOUCH_EVERY:
        with transaction() as session:
            if not live.touch(session, login, now=now()):
                return None
    viewer = Viewer(
        login.account_id, login.company_id, login.company_code, login.company_name, login.account_name, login.login_name, login.locale,
        held, actor(login.account_id), now(),
    )  # fmt: skip
    return Looking(login, viewer)


def to_login() -> WSGIResponse:
    """Send somebody to the login page; after it they come back to this path (a relative one of ours, WB-05)."""
    wanted = request.full_path.rstrip("?") if request.method == "GET" else "/"
    return redirect(f"/login?next={quoted(wanted)}" if wanted != "/" else "/login", 303)


def quoted(path: str) -> str:
    """A path as the value of a query parameter: its own query stays one value."""
    return quote(path, safe="/")


def safe_next(text: str) -> str:
    """A relative path of ours out of a `next` parameter, or `/` (WB-05).

    `//evil`, `/\\evil`, control characters and anything with a scheme or host would leave the site.
    """
    if (
        not text.startswith("/")
        or text.startswith("//")
        or "\\" in text
        or any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in text)
    ):
        return "/"
    parts = urlsplit(text)
    return text if not parts.scheme and not parts.netloc and "//" not in parts.path else "/"


def id_argument(name: str) -> uuid.UUID | None:
    """An id in the query, None without one. Raises NotFound for a text that is none."""
    text = request.args.get(name)
    if not text:
        return None
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound(
            "ページが見つかりません。URLが変わったか、見る権限がありません。", f"{name} is not an id"
        ) from None


def require(power: Power | None = None, *, wide: bool = False) -> Callable[[View], View]:
    """A page for people who are logged in, with both factors where their role demands it, and who hold a power somewhere.

    Over *whom* they hold it is part of each query (`directory.scope`), not of this decorator. wide: a page of head office,
    whose cut takes the whole person; a power that reaches one store only opens the store's pages, not these (RV-30).
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            looking = look()
            if looking is None:
                return to_login()
            if lacks_second_factor(looking):
                return redirect("/me/security/totp/new", 303)
            if power is not None and not _holds(looking.viewer, power, wide=wide):
                raise Denied(NO_RIGHT, f"needs {power}")
            return view(looking, *args, **kwargs)

        return cast("View", wrapped)

    return decorate


def _holds(viewer: Viewer, power: Power, *, wide: bool) -> bool:
    held = viewer.standings_with(power)
    return any(ROLES[s.role].reach is not Reach.STORE for s in held) if wide else bool(held)


def lacks_second_factor(looking: Looking) -> bool:
    """True while a role demands two factors and this login has shown one: such a login may only enrol the second."""
    return needs_second_factor(s.role for s in looking.viewer.standings) and looking.login.acr == "urn:sekisho:aal1"


def fresh(looking: Looking) -> bool:
    """True while the last authentication is recent enough for a sensitive act (AC-26)."""
    return now() - looking.login.auth_time <= timedelta(seconds=services().settings.step_up_s)


def to_step_up() -> WSGIResponse:
    """Ask for a fresh proof, then come back to this page."""
    back = request.full_path.rstrip("?") if request.method == "GET" else request.path
    return redirect(f"/login/step-up?next={quoted(back)}", 303)


# --- guards and headers --------------------------------------------------------------------------------------------


def install(app: Flask) -> None:
    """Install the guards that every request passes and the headers that every answer carries."""
    app.before_request(_identify)
    app.before_request(_refuse_foreign_host)
    app.before_request(_refuse_nul)
    app.before_request(_refuse_cross_site)
    app.after_request(_headers)


def _identify() -> None:
    g.request_id = ids.new_secret()[:12].replace("-", "x").replace("_", "y")
    g.csp_nonce = ids.new_secret()[:22]
    g.form_targets = []
    if request.endpoint not in {"health.live", "static"}:  # liveness has no dependencies (RE-45)
        services().signer.refresh(now=now())


def _refuse_foreign_host() -> None:
    """Only the issuer's own Host is answered: a forged one must not reach a reset link or the discovery (WB-04)."""
    if request.host != services().settings.issuer_host and request.endpoint not in {"health.live", "health.ready"}:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"host {request.host[:80]!r}")


def _refuse_nul() -> None:
    """No address of ours holds a NUL. PostgreSQL takes none in a text, so one would be an error of ours instead of theirs."""
    if "\0" in request.path or any("\0" in part for pair in request.args.items(multi=True) for part in pair):
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", "NUL in the address")


def _refuse_cross_site() -> None:
    """CSRF, first half: where does an unsafe request come from (WB-01)? The second half is the form's token."""
    if request.method in {"GET", "HEAD", "OPTIONS"} or request.endpoint in CSRF_EXEMPT or request.endpoint is None:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        good = site in {"same-origin", "none"}
    else:
        origin = request.headers.get("Origin") or _origin_of(request.headers.get("Referer", ""))
        good = origin == services().settings.issuer
    if not good:
        raise Stale("画面の期限が切れました。もう一度送ってください。", "cross-site request")


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme else ""


def allow_form_target(url: str) -> None:
    """Let this page's forms lead to a relying party: Chromium applies `form-action` to the redirect after a POST (WB-02)."""
    parts = urlsplit(url)
    g.form_targets.append(f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:")


def _headers(answer: Response) -> Response:
    h = answer.headers
    if "Content-Security-Policy" not in h:
        nonce = f"'nonce-{g.csp_nonce}'" if "csp_nonce" in g else "'none'"
        targets = g.get("form_action") or " ".join(["'self'", *dict.fromkeys(g.get("form_targets", []))])
        policy = f"script-src {nonce} 'strict-dynamic'; style-src {nonce}; form-action {targets}; {POLICY}"
        h.add("Content-Security-Policy", policy)
    h.extend(EVERY_ANSWER)
    if request.endpoint not in OPENER_PAGES:
        h.add("Cross-Origin-Opener-Policy", "same-origin")
    if not services().settings.issuer_is_loopback:
        h.add("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
    if "Cache-Control" not in h:
        h.add("Cache-Control", "no-store")
    h.add("X-Request-Id", g.get("request_id", ""))
    return answer


def log_foreign(error: SekishoError, looking: Looking | None) -> None:
    """Somebody asked for an object outside their scope: the page says *not found*, the log says who asked (WB-07)."""
    if looking is None or not isinstance(error, NotFound | Denied):
        return
    with transaction() as session:
        record(
            session, Tag.FOREIGN_OBJECT, actor=looking.viewer.actor, now=now(), result="refused", company_id=looking.viewer.company_id,
            path=request.path[:200], what=error.private[:200],
        )  # fmt: skip
