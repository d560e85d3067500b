"""Certification against the tools of vault-and-gateway.md §11: which pass, which are refused, and by which check (§7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from playwright.async_api import Browser

from connectors.certify import NAMES, Certification, Outcome, certify
from connectors.certify.checks import disguises, examples
from connectors.engine.browser import chromium
from connectors.recipes.globs import parse
from connectors.recipes.load import load
from tests.fakes.device import GROUND, PASSWORD, in_loop_for
from tests.fakes.spill import hits
from tests.fakes.tools.scripted import Guarded, Rotating, SinglePage, Strict
from tests.fakes.tools.site import Site, recipe_text, running
from vault.secret import Secret

needs_chromium = pytest.mark.skipif(
    not shutil.which("chromium") and not os.environ.get("SEKISHO_REQUIRE_ALL"), reason="no chromium here"
)
ACCOUNT = {"login_id": "store-7", "password": PASSWORD}


async def result_of(
    browser: Browser, site: Site, text: bytes, *, password: str = PASSWORD, pages: Sequence[str] = ()
) -> Certification:
    tries = 0

    async def before_submit() -> None:
        nonlocal tries
        tries += 1

    values = {name: Secret(password if name == "password" else value) for name, value in ACCOUNT.items()}
    result = await certify(
        load(text, GROUND).recipe, values, browser=browser, now=time.time, new_secret=lambda: secrets.token_urlsafe(32),
        loopback=True, before_submit=before_submit, pages=pages,
    )  # fmt: skip
    assert tries == int(result.submitted), "one try, counted before it is sent"
    assert [check.name for check in result.checks] == list(NAMES)
    told = "\n".join(check.evidence for check in result.checks)
    held = {"password": PASSWORD, **{f"session {n}": s for n, s in enumerate(site.sessions)}}
    assert hits(told.encode(), held) == [], "evidence holds no secret"
    return result


@contextlib.asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    async with chromium(sandbox=os.geteuid() != 0) as browser:
        yield browser


def outcomes(result: Certification) -> dict[str, str]:
    return {check.name: f"{check.outcome}{': ' + check.code if check.code else ''}" for check in result.checks}


@needs_chromium
@in_loop_for(240)
async def test_tools_6_and_9_are_certified() -> None:
    """A token that is only a CSRF token, and policies that hold: nothing stands in the way."""
    async with (
        a_browser() as browser,
        running(Rotating(dict(ACCOUNT))) as rotating,
        running(Strict(dict(ACCOUNT))) as strict,
    ):
        result, other = await asyncio.gather(
            result_of(browser, rotating, recipe_text(rotating)), result_of(browser, strict, recipe_text(strict))
        )
        assert outcomes(result) == dict.fromkeys(NAMES, "passed")
        assert result.certified
        assert (result.code, result.refused_for) == (None, ())
        assert result.expires_at - result.run_at == 90 * 86400
        assert rotating.logins == 1
        assert rotating.writes == 6, (
            "three at the tool and three through the gateway, with a header that changes each time"
        )
        assert "header x-csrf-token" in json.loads(result.check("token_in_body").evidence)["tried"]
        assert other.certified, outcomes(other)
        assert strict.paths().count("GET /sw.js") == 1, "registered at the tool, refused by the gateway"


@needs_chromium
@in_loop_for(240)
async def test_tools_5_and_13_are_refused() -> None:
    """Tokens that are logins, whether beside a cookie or alone; pages that look at their own name, or are bound by a digest."""
    alone, beside = SinglePage(dict(ACCOUNT)), SinglePage(dict(ACCOUNT), also_cookie=True)
    leaves, blank = Guarded(dict(ACCOUNT)), Guarded(dict(ACCOUNT), how="blank")
    bound = Strict(dict(ACCOUNT), names_itself=True)
    async with contextlib.AsyncExitStack() as stack:
        browser = await stack.enter_async_context(a_browser())
        for tool in (alone, beside, leaves, blank, bound):
            await stack.enter_async_context(running(tool))
        five, five_too, thirteen, thirteen_too, nine = await asyncio.gather(
            result_of(browser, alone, alone.recipe()),
            result_of(browser, beside, beside.recipe()),
            *(result_of(browser, tool, recipe_text(tool)) for tool in (leaves, blank, bound)),
        )
    assert (five.certified, five.code) == (False, "token_in_body")
    assert five.refused_for[:2] == ("login", "token_in_body")
    assert {check.outcome for check in five.checks[3:]} == {Outcome.NOT_RUN}
    assert five_too.check("login").outcome is Outcome.PASSED, "its cookies are a login as well"
    assert five_too.code == "token_in_body", "and its pages hand out another one"
    for result, how in ((thirteen, "asks_for_itself"), (thirteen_too, "differs"), (nine, "differs")):
        assert result.refused_for == ("host_guard",), outcomes(result)
        assert json.loads(result.check("host_guard").evidence)["how"] == how


@needs_chromium
@in_loop_for(240)
async def test_what_a_recipe_forgets_is_found() -> None:
    """A page that shows the password, a cookie that is the login, a host, a socket, a wrong password, a logout that ends nothing."""
    tool, calling, refusing = Site(dict(ACCOUNT)), Calling(dict(ACCOUNT)), Site(dict(ACCOUNT))
    async with a_browser() as browser, running(tool), running(calling), running(refusing):
        forgotten = {
            "mirror: [csrf_token]": "mirror: [tool_sess]",
            f'url: "http://{tool.host}/logout"': f'url: "http://{tool.host}/nothing"',
            'websocket: ["/live"]': 'websocket: ["/absent"]',
        }
        sloppy, elsewhere, refused = await asyncio.gather(
            result_of(browser, tool, recipe_text(tool, replace=forgotten), pages=["/leak"]),
            result_of(browser, calling, recipe_text(calling)),
            result_of(browser, refusing, recipe_text(refusing), password="another-password"),
        )
    codes = {check.name: check.code for check in sloppy.checks if check.outcome is Outcome.FAILED}
    assert codes == {
        "client_cookies": "cookie_is_login", "leak": "secret_in_answer", "sockets": "socket_broken", "ended": "still_logged_in",
    }  # fmt: skip
    assert "declared" in elsewhere.refused_for
    assert json.loads(elsewhere.check("declared").evidence)["others"] == ["127.0.0.1:9"]
    assert (refused.code, refusing.logins, refused.submitted) == ("refused", 0, True)
    assert refused.refused_for == ("login", *NAMES[1:])


class Calling(Site):
    """A tool whose pages load a picture from elsewhere."""

    async def do_home(self, request: object, body: bytes) -> object:  # type: ignore[override]
        return self.page(
            '<p data-staff-name>田中</p><img src="http://127.0.0.1:9/count.gif"><p>今日の予定はありません</p>'
        )


def test_every_route_has_requests_and_disguises() -> None:
    assert list(examples(parse("POST /staff/**"))) == [
        ("POST", "/staff", b""), ("POST", "/staff/x1", b""), ("POST", "/staff/x1/y2", b""),
    ]  # fmt: skip
    asked = list(examples(parse("/index.php?act=plan")))
    assert asked == [
        ("GET", "/index.php?act=plan", None), ("POST", "/index.php?act=plan", b""), ("POST", "/index.php", b"act=plan"),
    ]  # fmt: skip
    assert "/%69ndex.php?act=plan" in disguises("/index.php?act=plan")
    assert "/%2569ndex.php?act=plan" in disguises("/index.php?act=plan")
