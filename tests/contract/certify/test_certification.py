"""Certification against the tools of vault-and-gateway.md §11: which pass, which are refused, and by which check (§7)."""

from __future__ import annotations

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
@in_loop_for(90)
async def test_tools_6_and_9_are_certified() -> None:
    """A token that is only a CSRF token, and policies that hold: nothing stands in the way."""
    async with a_browser() as browser:
        async with running(Rotating(dict(ACCOUNT))) as tool:
            result = await result_of(browser, tool, recipe_text(tool))
            assert outcomes(result) == {
                "login": "passed", "declared": "passed", "token_in_body": "passed", "client_cookies": "passed", "host_guard": "passed",
                "login_page": "passed", "deny": "passed", "logout": "passed", "sockets": "passed", "scan": "passed", "leak": "passed",
                "ended": "passed",
            }  # fmt: skip
            assert result.certified
            assert (result.code, result.refused_for) == (None, ())
            assert result.expires_at - result.run_at == 90 * 86400
            assert tool.logins == 1
            assert tool.writes == 6, "three at the tool and three through the gateway, with a header that changes each time"
            assert "header x-csrf-token" in json.loads(result.check("token_in_body").evidence)["tried"]
        async with running(Strict(dict(ACCOUNT))) as tool:
            result = await result_of(browser, tool, recipe_text(tool))
            assert result.certified, outcomes(result)
            assert "GET /sw.js" in tool.paths()
            assert tool.paths().count("GET /sw.js") == 1, "registered at the tool, refused by the gateway"


@needs_chromium
@in_loop_for(90)
async def test_tool_5_is_refused_for_token_in_body() -> None:
    async with a_browser() as browser:
        async with running(SinglePage(dict(ACCOUNT))) as tool:
            result = await result_of(browser, tool, tool.recipe())
            assert not result.certified
            assert result.code == "token_in_body"
            assert result.refused_for[:2] == ("login", "token_in_body")
            assert {check.outcome for check in result.checks[3:]} == {Outcome.NOT_RUN}
        async with running(SinglePage(dict(ACCOUNT), also_cookie=True)) as tool:
            result = await result_of(browser, tool, tool.recipe())
            assert result.check("login").outcome is Outcome.PASSED, "its cookies are a login as well"
            assert "token_in_body" in result.refused_for, "and its pages hand out another one"
            assert result.code == "token_in_body"


@needs_chromium
@in_loop_for(90)
async def test_tool_13_is_refused_for_host_guard() -> None:
    async with a_browser() as browser:
        for how, seen in (("leave", "asks_for_itself"), ("blank", "differs")):
            async with running(Guarded(dict(ACCOUNT), how=how)) as tool:
                result = await result_of(browser, tool, recipe_text(tool))
                assert result.refused_for == ("host_guard",), outcomes(result)
                assert json.loads(result.check("host_guard").evidence)["how"] == seen
        async with running(Strict(dict(ACCOUNT), names_itself=True)) as tool:
            result = await result_of(browser, tool, recipe_text(tool))
            assert result.refused_for == ("host_guard",), "a script bound by its digest cannot be rewritten"


@needs_chromium
@in_loop_for(90)
async def test_what_a_recipe_forgets_is_found() -> None:
    """A page that shows the password, a cookie that is the login, a host, a socket, a wrong password, a logout that ends nothing."""
    async with a_browser() as browser:
        async with running(Site(dict(ACCOUNT))) as tool:
            result = await result_of(browser, tool, recipe_text(tool), pages=["/leak"])
            assert "leak" in result.refused_for, outcomes(result)
            assert result.check("leak").code == "secret_in_answer"
            text = recipe_text(tool, replace={"mirror: [csrf_token]": "mirror: [tool_sess]"})
            assert "client_cookies" in (await result_of(browser, tool, text)).refused_for
            text = recipe_text(tool, replace={f'url: "http://{tool.host}/logout"': f'url: "http://{tool.host}/nothing"'})
            assert (await result_of(browser, tool, text)).refused_for == ("ended",)
            text = recipe_text(tool, replace={'websocket: ["/live"]': 'websocket: ["/absent"]'})
            result = await result_of(browser, tool, text)
            assert (result.refused_for, result.check("sockets").code) == (("sockets",), "socket_broken")
            before = tool.logins
            result = await result_of(browser, tool, recipe_text(tool), password="another-password")
            assert (result.code, tool.logins, result.submitted) == ("refused", before, True)
            assert result.refused_for == ("login", *NAMES[1:])
        async with running(Calling(dict(ACCOUNT))) as tool:
            result = await result_of(browser, tool, recipe_text(tool))
            assert "declared" in result.refused_for
            assert json.loads(result.check("declared").evidence)["others"] == ["127.0.0.1:9"]


class Calling(Site):
    """A tool whose pages load a picture from elsewhere."""

    async def do_home(self, request: object, body: bytes) -> object:  # type: ignore[override]
        return self.page('<p data-staff-name>田中</p><img src="http://127.0.0.1:9/count.gif"><p>今日の予定はありません</p>')


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
