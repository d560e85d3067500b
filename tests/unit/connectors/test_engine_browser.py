"""The `browser` driver with a real Chromium: forms made by scripts, and a browser that can reach nothing else (§7; VA-44, VA-45)."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.egress import open_client
from connectors.engine.browser import CannotStart, chromium, executable, refusals
from connectors.engine.browser_driver import BrowserDriver
from connectors.engine.failures import Failed
from connectors.engine.http_driver import HttpDriver
from connectors.engine.outcome import LoginResult
from connectors.recipes.load import load
from tests.fakes.device import GROUND, PASSWORD, in_loop_for
from tests.fakes.tools.site import SESSION, Site, recipe_text, running
from vault.secret import Secret

needs_chromium = pytest.mark.skipif(
    not shutil.which("chromium") and not os.environ.get("SEKISHO_REQUIRE_ALL"), reason="no chromium here"
)


def site(**habits: object) -> Site:
    return Site({"login_id": "store-7", "password": PASSWORD}, scripted=True, **habits)  # type: ignore[arg-type]


@asynccontextmanager
async def driver(
    tool: Site, browser: object, *, password: str = PASSWORD, timeout_s: int = 10, steps: str = ""
) -> AsyncIterator[BrowserDriver]:
    async with running(tool), open_client(loopback=True, total_s=None) as client:
        replace = {"driver: http": "driver: browser", "timeout_s: 5": f"timeout_s: {timeout_s}"}
        if steps:
            replace["    - submit: {by: [{role: button, name: ログイン}]}"] = steps
        recipe = load(recipe_text(tool, replace=replace), GROUND).recipe
        values = {"login_id": Secret("store-7"), "password": Secret(password)}

        async def before_submit() -> None:
            tool.hits.append(tool.hits[-1])

        async def at_once(seconds: float) -> None:
            assert seconds > 0

        http = HttpDriver(
            client,
            recipe,
            values,
            now=time.time,
            new_secret=lambda: secrets.token_urlsafe(32),
            loopback=True,
            before_submit=before_submit,
            sleep=at_once,
        )
        yield BrowserDriver(
            browser,
            http,
            recipe,
            values,
            new_secret=lambda: secrets.token_urlsafe(32),
            loopback=True,
            before_submit=before_submit,  # type: ignore[arg-type]
        )


async def failing(tool: Site, browser: object, **kwargs: object) -> Failed:
    async with driver(tool, browser, **kwargs) as engine:  # type: ignore[arg-type]
        with pytest.raises(Failed) as failed:
            await engine.login()
    assert PASSWORD not in str(failed.value)
    return failed.value


@needs_chromium
@in_loop_for(90)
async def test_VA_44_VA_56_forms_that_scripts_make() -> None:
    """One Chromium for all cases: starting it costs more than they do."""
    async with chromium(sandbox=os.geteuid() != 0) as browser:
        tool = site()
        async with driver(
            tool, browser, steps="    - wait_for: {css: '#login'}\n    - submit: {by: [{role: button, name: ログイン}]}"
        ) as engine:
            result: LoginResult = await engine.login()
            assert dict(result.jar.values())[SESSION] in tool.sessions
            assert "HeadlessChrome" in (result.jar.user_agent or "")
            assert result.scan.guards

        wrong = site()
        failed = await failing(wrong, browser, password="wrong-password-1")
        assert (failed.code, failed.submitted, wrong.failures) == ("refused", True, 1)

        for habits, code in (
            ({"captcha": True, "renamed": True}, "human_check"),
            ({"twin_field": True}, "ambiguous_field"),
            ({"action": "https://evil.example/collect"}, "origin_mismatch"),
        ):
            tool = site(**habits)
            failed = await failing(tool, browser)
            assert (failed.code, failed.submitted) == (code, False)
            assert not [hit for hit in tool.hits if hit.method == "POST"], "nothing was typed into a form that left"

        # answers that are lost after the password was sent: looked for again, and never a reason to send it again
        shaky = site(lost=["GET /home"] * 7)
        async with driver(shaky, browser) as engine:
            await engine.login()
        assert (shaky.lost, shaky.paths().count("POST /login")) == ([], 1)
        away = site(lost=["GET /home"] * 1000)
        failed = await failing(away, browser)
        assert (failed.code, failed.submitted, away.paths().count("POST /login")) == ("tool_away", True, 1)

        drifted = await failing(site(renamed=True), browser, timeout_s=1)
        assert (drifted.code, drifted.submitted) == ("tool_away", False)
        other = Site({"password": "x"})
        async with running(other, name="127.0.0.1"):
            tool = site(calls_home=f"http://{other.host}/collect?p=1")
            async with driver(tool, browser) as engine:
                await engine.login()
        assert other.hits == [], "VA-56: a host that the recipe does not declare"
        assert not browser.contexts, "nothing of any job is left open"


@pytest.mark.parametrize(
    ("env", "uid", "sandbox", "count"),
    [
        ({}, 1000, True, 0),
        ({"DEBUG": "pw:api"}, 1000, True, 1),
        ({"PWDEBUG": "1"}, 1000, True, 1),
        ({}, 0, True, 1),
        ({}, 1000, False, 1),
    ],
)
def test_VA_45_reasons_not_to_start(env: dict[str, str], uid: int, sandbox: bool, count: int) -> None:
    assert len(refusals(env, uid=uid, sandbox=sandbox)) == count


def test_a_named_browser_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CannotStart):
        executable({"SEKISHO_BROWSER": "/nowhere/chromium"})
