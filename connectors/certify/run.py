"""The order of a certification: one login, two looks at the same pages, then what only the gateway can answer, and the logout last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from playwright.async_api import Browser

from connectors.certify import checks, look, tokens
from connectors.certify.checks import Found, failed, not_run, passed, tried
from connectors.certify.look import Look, Traffic
from connectors.certify.model import NAMES, Certification, Check, canonical
from connectors.certify.stand import Guest, Stand, standing
from connectors.cookies import Jar
from connectors.egress import Refused, open_client
from connectors.engine.browser_driver import BrowserDriver
from connectors.engine.failures import Failed
from connectors.engine.http_driver import BeforeSubmit, HttpDriver
from connectors.engine.outcome import LoginResult
from connectors.ports import NewSecret, Now, Revealable
from connectors.recipes import urls
from connectors.recipes.checks import condition_holds
from connectors.recipes.model import Recipe
from connectors.scanset import Patterns, literals

_NO_ADDRESS: Final = ("data:", "blob:", "about:", "chrome-error:", "chrome:")


async def certify(
    recipe: Recipe,
    values: Mapping[str, Revealable],
    *,
    browser: Browser,
    now: Now,
    new_secret: NewSecret,
    loopback: bool,
    before_submit: BeforeSubmit,
    pages: Sequence[str] = (),
) -> Certification:
    """Run every check of `model.NAMES`; see the package for what is promised.

    values: of the fields of the tool account; browser: a running Chromium (`connectors.engine.browser.chromium`); loopback: as
    in the drivers, tools on this machine may be called (WB-20); pages: further pages of the tool to look at, paths beside
    `routes.landing`, such as the one that opens a WebSocket.
    """
    began = now()
    async with open_client(loopback=loopback, total_s=None) as client:

        def engine() -> HttpDriver:
            return HttpDriver(
                client, recipe, values, now=now, new_secret=new_secret, loopback=loopback, before_submit=before_submit
            )

        http, traffic, found = engine(), Traffic(), dict[str, Found]()
        driver: HttpDriver | BrowserDriver = http
        if recipe.login.driver == "browser":
            driver = BrowserDriver(
                browser, http, recipe, values, new_secret=new_secret, loopback=loopback, before_submit=before_submit,
                watch=traffic.watch,
            )  # fmt: skip
        result: LoginResult | None = None
        try:
            result = await driver.login()
            found["login"] = passed(driver=recipe.login.driver, probe=recipe.checks.probe)
        except Failed as error:
            found["login"] = failed(error.code, driver=recipe.login.driver, line=error.line)
        await traffic.settle()
        if result is None:
            found["token_in_body"] = await tried(_token_in_body, client, recipe, traffic, loopback)
            if found["token_in_body"].code == "token_in_body":  # that is why the cookies alone were no login
                found["login"] = failed("token_in_body", **found["login"].evidence, engine=found["login"].code)
            else:
                del found["token_in_body"]
        else:
            async with standing(
                recipe, result.jar, result.scan, now=now, new_secret=new_secret, loopback=loopback
            ) as stand:
                await _all(found, stand, result, client, engine(), browser, traffic, pages, loopback=loopback)
    listed = tuple(_check(name, found.get(name, not_run("login_failed"))) for name in NAMES)
    unguarded = result.unguarded if result is not None else ()
    return Certification(recipe.digest, began, listed, unguarded, driver.submitted)


def _check(name: str, found: Found) -> Check:
    return Check(name, found.outcome, found.code, canonical(found.evidence))


async def _all(
    found: dict[str, Found], stand: Stand, result: LoginResult, client: aiohttp.ClientSession, engine: HttpDriver, browser: Browser,
    traffic: Traffic, pages: Sequence[str], *, loopback: bool,
) -> None:  # fmt: skip
    """Every check after the login."""
    recipe, guest = stand.tool, stand.guest()
    tool = f"{urls.parts(recipe.login.url).scheme}://{recipe.hosts.primary}"
    paths = (recipe.routes.landing, *pages)
    allowed = (*recipe.hosts.declared, *recipe.hosts.public)
    there = await look.at_the_tool(
        browser, [tool + path for path in paths], stand.current(), allowed, loopback=loopback
    )
    here = await look.through_the_gateway(
        browser, [guest.origin + path for path in paths], guest.values, recipe.hosts.public, there
    )
    found["declared"] = _declared(recipe, there, traffic)
    for source in (there.traffic, here.traffic):
        traffic.sent += [sent for sent in source.sent if source is there.traffic]
        traffic.bodies += source.bodies
        traffic.stored += source.stored
        traffic.wires += source.wires
    found["token_in_body"] = await tried(_token_in_body, client, recipe, traffic, loopback)
    found["client_cookies"] = await tried(checks.client_cookies, stand, engine)
    found["host_guard"] = _host_guard(guest, paths, there, here)
    found["leak"] = _leak(stand, guest, result, here)
    found["login_page"] = await tried(checks.login_page, stand)
    found["deny"] = await tried(checks.deny, stand)
    found["logout"] = await tried(checks.logout, stand, engine)
    wires = {urls.parts(wire.url).path: wire.carried and not wire.failed for wire in here.traffic.wires}
    found["sockets"] = await tried(checks.sockets, guest, wires)
    found["scan"] = await tried(checks.scan, stand, _parts(recipe, there))
    found["ended"] = await tried(checks.ended, stand, engine)


def _parts(recipe: Recipe, there: Look) -> list[str]:
    """Paths on the primary host that the pages loaded, scripts and data alike, in the order in which they were asked for."""
    asked = [urls.parts(sent.url) for sent in there.traffic.sent if sent.method == "GET"]
    return list(dict.fromkeys(one.path for one in asked if one.netloc.lower() == recipe.hosts.primary and one.path))


def _declared(recipe: Recipe, there: Look, traffic: Traffic) -> Found:
    """Every address that a page asked for, in the login and at work."""
    known = {*recipe.hosts.declared, *recipe.hosts.public}
    asked = {urls.parts(sent.url).netloc.lower() for sent in (*traffic.sent, *there.traffic.sent) if not sent.url.startswith(_NO_ADDRESS)}  # fmt: skip
    asked |= {urls.parts(wire.url).netloc.lower() for wire in (*traffic.wires, *there.traffic.wires)}
    others = sorted(asked - known - {""})
    seen = {"hosts": sorted(asked & known), "others": others}
    return failed("host_not_declared", **seen) if others else passed(**seen)


async def _token_in_body(client: aiohttp.ClientSession, recipe: Recipe, traffic: Traffic, loopback: bool) -> Found:  # noqa: FBT001 - called through `tried`
    """No token of a body, a script or a socket is a login by itself."""
    tried_ones = []
    for candidate in tokens.candidates(traffic, recipe):
        tried_ones.append(candidate.place)
        try:
            if await tokens.logs_in(client, recipe, candidate, loopback=loopback):
                return failed("token_in_body", place=candidate.place, tried=tried_ones)
        except Refused:
            continue
    return passed(tried=tried_ones)


def _host_guard(guest: Guest, paths: Sequence[str], there: Look, here: Look) -> Found:
    """What a person sees through the gateway is what they see at the tool."""
    recipe, seen = guest.stand.tool, {}
    asked_the_tool = sorted(set(here.asked_else) & set(recipe.hosts.declared))
    wanted = [one for one in recipe.checks.logged_in.conditions if one.css or one.text]
    problem = "asks_for_itself" if asked_the_tool else None
    for path, direct, through in zip(paths, there.sights, here.sights, strict=True):
        alike = round(look.alike(direct.words, through.words), 2)
        stayed = urls.parts(through.page.url).netloc.lower() in guest.hosts
        lost = any(condition_holds(one, direct.page) and not condition_holds(one, through.page) for one in wanted)
        seen[path] = {"alike": alike, "stayed": stayed, "lost": lost}
        if not stayed:
            problem = problem or "leads_away"
        elif lost or alike < look.ALIKE:
            problem = problem or "differs"
    if problem is None:
        return passed(pages=seen)
    return failed("host_guard", how=problem, pages=seen, asked=asked_the_tool)


def _leak(stand: Stand, guest: Guest, result: LoginResult, here: Look) -> Found:
    """Nothing that the pages of this look held was a secret of the login; the profile holds none either (VA-41)."""
    stopped = [code for name, code in stand.alarms if name == guest.name]
    if stopped:
        return failed("secret_in_answer", alarms=sorted(set(stopped)))
    shown = stand.tool.session.mirror
    jars: list[Jar] = [result.jar, stand.current()]
    secret = [value for jar in jars for name, value in jar.values() if name not in shown and len(value) >= 16]
    patterns = Patterns(literals(secret), result.scan)
    got = [*here.traffic.bodies, *here.traffic.stored, *(value for _, value in here.cookies)]
    if any(patterns.found_in(text.encode()) for text in got):
        return failed("secret_on_device", texts=len(got))
    return passed(texts=len(got), unguarded=list(result.unguarded))
