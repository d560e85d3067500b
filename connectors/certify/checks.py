"""The checks that ask the gateway: each gives an outcome, a code where it failed, and what was seen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp

from connectors.certify.model import Outcome
from connectors.certify.stand import DEAD, LIVE, PLANTED, Guest, Stand
from connectors.engine.failures import Failed
from connectors.engine.http_driver import HttpDriver
from connectors.recipes import urls
from connectors.recipes.checks import Page, holds
from connectors.recipes.globs import Glob
from connectors.recipes.model import Recipe
from connectors.scanset import build

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
NOT_APPLICABLE, NOT_RUN = Outcome.NOT_APPLICABLE, Outcome.NOT_RUN
#: a piece of a page that can be taken for a secret: plain in every encoding of the page
_PLAIN: Final = re.compile(rb"[A-Za-z0-9 _,.:-]{16,48}")


@dataclass(frozen=True, slots=True)
class Found:
    """How one check ended. evidence: of values that JSON knows, and none of them a secret."""

    outcome: Outcome
    code: str | None
    evidence: Mapping[str, Any]


def passed(**evidence: Any) -> Found:
    """It holds."""
    return Found(PASSED, None, evidence)


def failed(code: str, **evidence: Any) -> Found:
    """It does not hold."""
    return Found(FAILED, code, evidence)


def nothing_there(code: str) -> Found:
    """The recipe has nothing to look at."""
    return Found(NOT_APPLICABLE, code, {})


def not_run(code: str, **evidence: Any) -> Found:
    """It could not be tried."""
    return Found(NOT_RUN, code, evidence)


async def client_cookies(stand: Stand, engine: HttpDriver) -> Found:
    """Cookies that a browser may hold are no login by themselves (VA-52)."""
    session = stand.tool.session
    names = session.mirror | session.from_client
    if not names:
        return nothing_there("no_client_cookies")
    standing = await engine.probe(stand.current().only(names))
    seen = {"names": sorted(names), "probe": standing}
    return passed(**seen) if standing == "logged_out" else failed("cookie_is_login", **seen)


async def login_page(stand: Stand) -> Found:
    """The tool's login page is never shown, whether its session lives or not (VA-55)."""
    recipe, seen = stand.tool, {}
    path = _path(recipe.login.url)
    tries = {
        "live, login page": (LIVE, path),
        "dead, login page": (DEAD, path),
        "dead, landing": (DEAD, recipe.routes.landing),
    }
    for name, (session, where) in tries.items():
        answer = await stand.guest(session).ask("GET", where)
        shown = answer.page is None and answer.location is None
        page = Page(recipe.login.url, answer.status, answer.body.decode(recipe.charset, "replace"))
        seen[name] = [answer.status, answer.page or ("the tool" if shown else "moved")]
        # A page of the tool may be shown where the same address holds work: then it must be the logged-in one.
        if shown and (session == DEAD or _looks_out(recipe, page)):
            return failed("login_page_served", **seen)
    return passed(**seen)


def _looks_out(recipe: Recipe, page: Page) -> bool:
    """Whether a page is a login page by what it holds; its address is the one that was asked for."""
    inside = holds(recipe.checks.logged_in, page)
    return not inside and (
        holds(recipe.checks.logged_out, page) or page.tree.css_first("input[type=password]") is not None
    )


def _path(url: str) -> str:
    parts = urls.parts(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def examples(glob: Glob) -> Iterator[tuple[str, str, bytes | None]]:
    """Requests that fall under a route, as a browser would send them: method, path, form."""
    methods = (glob.method,) if glob.method else ("GET", "POST")
    paths = {glob.path.replace("**", between).replace("*", "x1") for between in ("x1", "x1/y2")}
    if glob.path.endswith("/**"):
        paths.add(glob.path.removesuffix("/**") or "/")
    for path in sorted(paths):
        plain = quote(path, safe="/@:+,=!$&'()~")
        for method in methods:
            if glob.query is None:
                yield method, plain, b"" if method != "GET" else None
                continue
            pair = urlencode([glob.query])
            yield method, f"{plain}?{pair}", b"" if method != "GET" else None
            if method != "GET":
                yield method, plain, pair.encode()


def disguises(path: str) -> list[str]:
    """The same place written otherwise."""
    bare, mark, query = path.partition("?")
    tail = mark + query
    letter = next((i for i, c in enumerate(bare) if c.isalpha()), None)
    found = [bare.upper() + tail, "/." + bare + tail, "/x/.." + bare + tail, "/" + bare + tail, bare + ";v=1" + tail]
    if letter is not None:
        found.append(f"{bare[:letter]}%{ord(bare[letter]):02x}{bare[letter + 1 :]}{tail}")
        found.append(f"{bare[:letter]}%25{ord(bare[letter]):02x}{bare[letter + 1 :]}{tail}")
    return found


async def deny(stand: Stand) -> Found:
    """Every denied route is refused, however it is written, and nothing of it goes to the tool (VA-54)."""
    globs = [(kind, glob) for kind, listed in stand.tool.routes.deny.items() for glob in listed or ()]
    if not globs:
        return nothing_there("all_absent")
    guest, asked, let_through = stand.guest(), 0, []
    for kind, glob in globs:
        for method, path, form in examples(glob):
            for written in (path, *disguises(path)):
                answer = await guest.ask(method, written, form=form)
                asked += 1
                if answer.page != "route_denied" and answer.status != 400:
                    let_through.append(f"{kind}: {method} {written.partition('?')[0]}")
    landing = await stand.guest().visit(stand.tool.routes.landing)
    seen = {"routes": [f"{kind}: {glob}" for kind, glob in globs], "requests": asked, "let_through": let_through}
    if landing.page is not None:
        return failed("landing_refused", landing=landing.page, **seen)
    return failed("route_open", **seen) if let_through else passed(**seen)


async def logout(stand: Stand, engine: HttpDriver) -> Found:
    """Who presses the tool's logout leaves alone; the login that others use stays."""
    globs = stand.tool.routes.logout
    if not globs:
        return nothing_there("no_logout_route")
    seen: dict[str, Any] = {}
    for glob in globs:
        method, path, form = next(examples(glob))
        guest = stand.guest()
        answer = await guest.ask(method, path, form=form)
        after = await guest.ask("GET", stand.tool.routes.landing)
        seen[str(glob)] = [answer.status, stand.ended.get(guest.name), after.page]
        if stand.ended.get(guest.name) != "signed_out" or after.page != "ended":
            return failed("logout_passed", **seen)
    seen["probe"] = await engine.probe(stand.current())
    colleague = await stand.guest().visit(stand.tool.routes.landing)
    seen["colleague"] = colleague.page or "the tool"
    return passed(**seen) if seen["probe"] == "logged_in" and colleague.page is None else failed("login_lost", **seen)


async def scan(stand: Stand, parts: Sequence[str]) -> Found:
    """A piece of the tool's own page is declared a secret: then that page may not leave (VA-53).

    parts: paths that the landing page loads; the shell of a page that scripts make holds no text of its own.
    """
    guest = stand.guest()
    path, planted = stand.tool.routes.landing, ""
    for path in (stand.tool.routes.landing, *parts):
        bodies = [(await guest.visit(path)).body for _ in range(2)]
        if planted := _plain_run(bodies, own=guest.name.encode()):
            break
    if not planted:
        return not_run("nothing_to_plant")
    stand.scans[PLANTED] = build([planted], key=stand.new_secret().encode()[:32].ljust(32, b"."))
    other = stand.guest(PLANTED)
    answer = await other.visit(path)
    seen = {"status": answer.status, "page": answer.page or "the tool", "bytes": len(planted)}
    told = (other.name, "secret_in_answer") in stand.alarms
    return passed(**seen) if answer.page == "secret_in_answer" and told else failed("scan_blind", **seen)


def _plain_run(bodies: Sequence[bytes], *, own: bytes) -> str:
    """The longest piece of plain text that both have and that does not name the origin; empty when there is none."""
    runs = {run for run in _PLAIN.findall(bodies[0]) if run in bodies[1] and own not in run and run.strip() == run}
    return max(sorted(runs), key=len, default=b"").decode()


async def ended(stand: Stand, engine: HttpDriver) -> Found:
    """The tool's logout ends the login: the jar is worth nothing after it."""
    request = stand.tool.session.logout
    if request is None:
        return nothing_there("no_logout")
    out = await engine.log_out(stand.current())
    seen = {"request": f"{request.method} {_path(request.url).partition('?')[0]}", "refused_after": out}
    return passed(**seen) if out else failed("still_logged_in", **seen)


async def tried(check: Any, *arguments: Any) -> Found:
    """Run a check; a tool that is away in the middle fails it with the engine's code."""
    try:
        found: Found = await check(*arguments)
    except Failed as error:
        return failed(error.code)
    except (aiohttp.ClientError, TimeoutError):
        return failed("tool_away")
    return found


async def sockets(guest: Guest, wires: Mapping[str, bool]) -> Found:
    """Declared WebSockets carry. wires: path of each socket that a page opened through the gateway → whether it carried."""
    recipe = guest.stand.tool
    declared = recipe.routes.websocket
    undeclared = [path for path in wires if not any(glob.matches("GET", path) for glob in declared)]
    if undeclared:
        return failed("socket_not_declared", paths=undeclared)
    if not declared:
        return nothing_there("no_sockets")
    seen = dict(wires)
    for glob in declared:
        if "*" not in glob.path and glob.path not in seen:
            query = f"?{urlencode([glob.query])}" if glob.query else ""
            seen[glob.path] = await guest.socket_opens(glob.path + query)
    if not seen:
        return not_run("no_page_opens_one", declared=[str(glob) for glob in declared])
    return passed(sockets=seen) if all(seen.values()) else failed("socket_broken", sockets=seen)
