"""The `http` driver against tools with every habit, over real connections (§7, §11; VA-44, VA-45, VA-56)."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.cookies import Jar
from connectors.egress import open_client
from connectors.engine.failures import CODES, Failed
from connectors.engine.http_driver import HttpDriver
from connectors.recipes.load import load
from connectors.scanset import Patterns
from tests.fakes.device import GROUND, PASSWORD, in_loop
from tests.fakes.tools.site import SESSION, Site, recipe_text, running
from vault.secret import Secret

THREE = {"corp_cd": "T-100", "login_id": "渋谷7", "password": PASSWORD}


class Waits(list[float]):
    """How long the driver would have waited."""

    async def append_later(self, seconds: float) -> None:
        self.append(seconds)


@dataclass
class Bench:
    """A driver with everything around it. submits: how often `submitted_at` was committed."""

    site: Site
    driver: HttpDriver
    submits: list[int] = field(default_factory=list)
    waits: Waits = field(default_factory=Waits)


@asynccontextmanager
async def bench(
    site: Site, *, values: dict[str, str] | None = None, replace: dict[str, str] | None = None, name: str = "localhost"
) -> AsyncIterator[Bench]:
    async with running(site, name=name), open_client(loopback=True, total_s=None) as client:
        recipe = load(recipe_text(site, replace=replace or {}), GROUND).recipe
        submits, waits = list[int](), Waits()

        async def before_submit() -> None:
            submits.append(len(site.hits))

        given = {k: Secret(v) for k, v in (values or site.credentials).items()}
        driver = HttpDriver(
            client,
            recipe,
            given,
            now=time.time,
            new_secret=lambda: secrets.token_urlsafe(32),
            loopback=True,
            before_submit=before_submit,
            sleep=waits.append_later,
        )
        yield Bench(site, driver, submits, waits)


SITES = {
    "1 plain form": Site({"login_id": "store-7", "password": PASSWORD}, csrf=False),
    "2 hidden fields": Site({"login_id": "store-7", "password": PASSWORD}),
    "3 two pages": Site({"login_id": "store-7", "password": PASSWORD}, two_pages=True),
    "4 three fields in cp932": Site(THREE, charset="cp932"),
    "11 logged out with status 200": Site({"login_id": "store-7", "password": PASSWORD}, expired_as_200=True),
}


@pytest.mark.parametrize("name", SITES)
def test_tools_that_let_us_in(name: str) -> None:
    @in_loop
    async def run() -> None:
        async with bench(SITES[name]) as on:
            result = await on.driver.login()
            cookies = dict(result.jar.values())
            assert cookies[SESSION] in on.site.sessions
            assert on.site.failures == 0
            assert len(on.submits) == 1
            assert all(hit.headers.get("User-Agent", "").endswith("Sekisho login engine)") for hit in on.site.hits)
            assert on.site.forms.get("website", "") == "", "a honeypot stays empty"
            assert Patterns(scan=result.scan).found_in(PASSWORD.encode())
            assert await on.driver.probe(result.jar) == "logged_in"
            assert await on.driver.probe(Jar()) == "logged_out"
            assert await on.driver.log_out(result.jar)
            assert cookies[SESSION] not in on.site.sessions

    run()


@in_loop
async def test_tool_14_basic_auth() -> None:
    async with bench(Site({"login_id": "store-7", "password": "Passw0rd-basic"}, basic=True)) as on:
        result = await on.driver.login()
        assert result.jar.authorization is not None
        assert result.jar.authorization.startswith("Basic ")
        assert await on.driver.probe(result.jar) == "logged_in"


FAILURES = [
    ("refused", {}, {"password": "wrong-password"}, True),
    ("locked", {"locked": True}, {}, True),
    ("code_asked", {"asks_code": True}, {}, True),
    ("human_check", {"captcha": True}, {}, False),
    ("recipe_drift", {"renamed": True}, {}, False),
    ("ambiguous_field", {"twin_field": True}, {}, False),
    ("unexpected_field", {"extra_password_field": True}, {}, False),
    ("origin_mismatch", {"action": "https://evil.example/collect"}, {}, False),
    ("origin_mismatch", {"action": "http://127.0.0.1:1/collect"}, {}, False),
    ("check_unproven", {"lets_everybody_in": True}, {}, True),
    ("tool_away", {"down": True}, {}, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "habits", "values", "submitted"), FAILURES, ids=[f"{i}-{row[0]}" for i, row in enumerate(FAILURES)]
)
def test_tools_that_do_not(code: str, habits: dict[str, object], values: dict[str, str], submitted: bool) -> None:
    @in_loop
    async def run() -> None:
        site = Site({"login_id": "store-7", "password": PASSWORD}, **habits)  # type: ignore[arg-type]
        narrow = {"{type: password}": "{name: password}"} if code == "unexpected_field" else {}
        async with bench(site, values={**site.credentials, **values}, replace=narrow) as on:
            with pytest.raises(Failed) as failed:
                await on.driver.login()
            assert failed.value.code == code
            assert failed.value.submitted is submitted
            assert len(on.submits) == (1 if submitted else 0)
            posts = [hit for hit in site.hits if hit.method == "POST"]
            assert len(posts) == len(on.submits), "no second try, and nothing sent before it is counted"
            assert PASSWORD not in str(failed.value)
            assert failed.value.__cause__ is None
            assert code in CODES

    run()


@in_loop
async def test_VA_44_a_password_is_never_sent_in_an_address_or_into_a_framed_page() -> None:
    site = Site({"login_id": "store-7", "password": PASSWORD})
    site._form = lambda second: (
        '<form action="/login"><label>ログインID<input name=a></label><input type=password name=p><button>ログイン</button></form>'
    )  # type: ignore[method-assign]
    async with bench(site) as on:
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert failed.value.code == "secret_in_url"
    framed = Site({"login_id": "store-7", "password": PASSWORD})
    plain = framed._form
    framed._form = lambda second: plain(second=second) + '<iframe src="/ad"></iframe>'  # type: ignore[method-assign]
    async with bench(framed) as on:
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert failed.value.code == "origin_mismatch"
        assert on.submits == []
    counted = Site({"login_id": "store-7", "password": PASSWORD})
    whole = counted._form
    counted._form = lambda second: whole(second=second) + '<noscript><iframe src="/count"></iframe></noscript>'  # type: ignore[method-assign]
    async with bench(counted) as on:
        await on.driver.login()


@in_loop
async def test_VA_44_redirects_away_are_not_followed() -> None:
    site = Site({"login_id": "store-7", "password": PASSWORD})
    async with bench(site, replace={"/login\n  steps": "/login-away\n  steps"}) as on:
        from aiohttp import web

        async def away(request: object, body: bytes) -> web.Response:
            return web.Response(status=302, headers={"Location": "https://evil.example/login"})

        site._login = away  # type: ignore[method-assign, assignment]
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert failed.value.code == "origin_mismatch"
        assert on.submits == []


LOST = [
    # which answers are lost, the tool's habits, the password, how it ends, how often the probe page was asked for, waits
    # the first of them is where a login that worked leads, the last one is without any cookie
    ("probe", ["GET /home"] * 4, {}, PASSWORD, None, 6, [0.5, 1.0, 2.0]),
    ("probe until the end", ["GET /home"] * 5, {}, PASSWORD, "tool_away", 5, [0.5, 1.0, 2.0]),
    ("probe without login", ["GET /home"], {}, "wrong-password", "refused", 2, [0.5]),
    ("login", ["POST /login"], {}, PASSWORD, "tool_away", 1, []),
    ("login in an early session", ["POST /login"], {"early_session": True}, PASSWORD, None, 2, []),
    ("wrong login in an early session", ["POST /login"], {"early_session": True}, "wrong-password", "tool_away", 1, []),
    ("login and probe", ["POST /login", "GET /home"], {"early_session": True}, PASSWORD, None, 3, [0.5]),
    ("login where everybody is let in", ["POST /login"], {"lets_everybody_in": True}, PASSWORD, "check_unproven", 2, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "habits", "password", "code", "looks", "waits"), [row[1:] for row in LOST], ids=[row[0] for row in LOST]
)
def test_VA_43_a_lost_answer_costs_a_look_and_not_a_try(
    lost: list[str], habits: dict[str, Any], password: str, code: str | None, looks: int, waits: list[float]
) -> None:
    """The probe is asked for again, also after an answer to the login itself that never came; the password leaves once, and
    what nobody answered is never read as a refusal."""

    @in_loop
    async def run() -> None:
        site = Site({"login_id": "store-7", "password": PASSWORD}, lost=list(lost), **habits)
        async with bench(site, values={"login_id": "store-7", "password": password}) as on:
            if code is None:
                result = await on.driver.login()
                assert dict(result.jar.values())[SESSION] in site.sessions
            else:
                with pytest.raises(Failed) as failed:
                    await on.driver.login()
                assert (failed.value.code, failed.value.submitted) == (code, True)
            assert (site.paths().count("GET /home"), on.waits) == (looks, waits)
            assert (len(on.submits), site.paths().count("POST /login")) == (1, 1)

    run()


@in_loop
async def test_VA_43_with_basic_auth_every_page_is_a_try() -> None:
    """A wrong password reaches the tool once, and a page that did not come is not asked for again."""
    wrong = Site({"login_id": "store-7", "password": "Passw0rd-basic"}, basic=True)
    async with bench(wrong, values={"login_id": "store-7", "password": "wrong-password"}) as on:
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert (failed.value.code, len(on.submits)) == ("refused", 1)
        assert wrong.paths() == ["GET /login", "GET /home"], "the probe would be one more wrong password"
    away = Site({"login_id": "store-7", "password": "Passw0rd-basic"}, basic=True, lost=["GET /home"] * 9)
    async with bench(away) as on:
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert (failed.value.code, failed.value.submitted, on.waits) == ("tool_away", True, [])
        assert away.paths().count("GET /home") == 1


@in_loop
async def test_a_slow_tool_counts_only_what_was_sent() -> None:
    site = Site({"login_id": "store-7", "password": PASSWORD}, login_delay=3.0)
    async with bench(site, replace={"timeout_s: 5": "timeout_s: 1"}) as on:
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert (failed.value.code, failed.value.submitted, failed.value.may_repeat) == ("tool_away", False, True)


@in_loop
async def test_a_missing_value_stops_before_anything_is_sent() -> None:
    async with bench(Site({"login_id": "a", "password": PASSWORD}), values={"login_id": "a"}) as on:
        with pytest.raises(Failed) as failed:
            await on.driver.login()
        assert failed.value.code == "field_missing"
        assert on.submits == []


@in_loop
async def test_VA_33_VA_45_no_value_in_any_log() -> None:
    lines: list[str] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Catch(level=1)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        async with bench(Site({"login_id": "store-7", "password": PASSWORD})) as on:
            result = await on.driver.login()
            assert PASSWORD not in repr(result)
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    assert not [line for line in lines if PASSWORD in line or "tool_sess=" in line]


CHANGES = [
    ("", "changed", True),
    ("rule", "rule_broken", False),
    ("keeps_old", "changed", False),
    ("truncates", "changed", False),
]


@pytest.mark.parametrize(("habit", "says", "works"), CHANGES)
def test_VA_43_what_the_tool_says_about_a_change_is_not_what_counts(habit: str, says: str, works: bool) -> None:
    """Tool 16: it may cut the new password short, or say OK and keep the old one; only a login decides."""

    @in_loop
    async def run() -> None:
        site = Site({"login_id": "store-7", "password": PASSWORD}, changing=habit)
        new = "New-Passw0rd-of-24-chars"
        async with bench(site) as on:
            result = await on.driver.login()
            assert await on.driver.change(result.jar, Secret(new)) == says
        async with bench(site, values={"login_id": "store-7", "password": new}) as on:
            if works:
                await on.driver.login()
            else:
                with pytest.raises(Failed) as failed:
                    await on.driver.login()
                assert failed.value.code == "refused"

    run()


@in_loop
async def test_VA_43_a_500_after_the_commit_is_a_doubt() -> None:
    site = Site({"login_id": "store-7", "password": PASSWORD}, changing="dies_after")
    async with bench(site) as on:
        result = await on.driver.login()
        with pytest.raises(Failed) as failed:
            await on.driver.change(result.jar, Secret("New-Passw0rd-1"))
        assert (failed.value.code, failed.value.submitted, failed.value.may_repeat) == ("tool_away", True, False)
        assert site.credentials["password"] == "New-Passw0rd-1"
