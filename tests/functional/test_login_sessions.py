"""Login sessions: cookies, limits, my devices, ending them, logging out (AC-40 to AC-43, M09, L12)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select

from idp.app import create_app
from idp.core import clock
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import LoginSession
from idp.ledgers.audit.events import Tag
from tests.actors import Browser, World, receipt_number
from tests.conftest import Database, dispose
from tests.fakes.outbound import RecordingOutbound
from tests.functional.steps import count, token_on

PASSWORD = "quiet river under the bridge 9"


def is_out(browser: Browser) -> bool:
    """The next page is the login page."""
    return "/login" in str(browser.get("/me/sessions").url)


@pytest.fixture
def https_app(database: Database) -> Iterator[Flask]:
    """The product as it runs in public."""
    app = create_app(database.settings(issuer="https://login.sekisho.example"), outbound=RecordingOutbound())
    yield app
    dispose(app)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # cookies do not depend on the database
def test_cookies_are_bound_to_the_host_ac40(https_app: Flask) -> None:
    """AC-40, WB-03: __Host-, Secure, HttpOnly, Lax, Path=/, no Domain, gone with the browser; HSTS; the plain name is no login."""
    world = World(https_app)
    person = world.person("0413", totp=True)
    with Browser(https_app, base_url="https://login.sekisho.example") as phone:
        set_by = [c for path in ("/login?lang=en",) for c in phone.get(path).headers.get_list("set-cookie")]
        for fields in ({"login_id": person.login, "password": person.password}, {"code": person.code()}):
            answer = phone.submit(follow=False, **fields)
            set_by += answer.headers.get_list("set-cookie")
            phone.get(answer.headers["location"])
            assert answer.headers["Strict-Transport-Security"].startswith("max-age=63072000; includeSubDomains")
        names = {c.split("=")[0] for c in set_by}
        assert {
            "__Host-sekisho",
            "__Host-sekisho-2fa",
            "__Host-sekisho-device",
            "__Host-sekisho-lang",
            "__Host-sekisho-form",
        } <= names
        for cookie in set_by:
            attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
            assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes, cookie
            assert not any(a.startswith("domain") for a in attributes), cookie
            assert cookie.startswith("__Host-"), cookie
        login = next(c for c in set_by if c.startswith("__Host-sekisho=") and "max-age=0" not in c.lower())
        assert "max-age" not in login.lower()
        assert "expires" not in login.lower()
        value = phone.http.cookies["__Host-sekisho"]
    for header in (f"sekisho={value}", f"=__Host-sekisho={value}", f"__Host-sekisho-device={value}"):
        with Browser(https_app, base_url="https://login.sekisho.example") as thief:
            answer = thief.http.get("/", headers={"Cookie": header})
            assert answer.headers["location"].startswith("/login"), header
    with Browser(https_app, base_url="http://login.sekisho.example") as plain:
        assert plain.http.get("/login", headers={"Cookie": f"__Host-sekisho={value}"}).status_code == 200


def test_fixation_and_rotation_in_place_ac40(world: World) -> None:
    """AC-40: a planted cookie becomes nobody's login; a login makes a new row; step-up keeps the row and kills the old cookie."""
    hq = world.person("hq1", role=Role.HQ_ADMIN)
    with (
        time_machine.travel(clock.now(), tick=False) as frozen,
        Browser(world.app) as desk,
        Browser(world.app) as thief,
    ):
        planted = "p" * 43
        desk.http.cookies.set("sekisho", planted, domain="localhost.local", path="/")
        desk.log_in(hq)
        values = [c.value for c in desk.http.cookies.jar if c.name == "sekisho"]
        assert any(value != planted for value in values)
        thief.http.cookies.set("sekisho", planted, domain="localhost.local", path="/")
        assert is_out(thief)
        for cookie in [c for c in desk.http.cookies.jar if c.name == "sekisho" and c.value == planted]:
            desk.http.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)

        old, rows = (
            desk.cookie,
            select(LoginSession.id, LoginSession.cookie_digest, LoginSession.auth_time).where(
                LoginSession.account_id == hq.id
            ),
        )
        before = world.rows(rows)
        frozen.shift(timedelta(minutes=10))
        desk.get("/login/step-up?next=/me/security")
        desk.submit(code=hq.code())
        assert str(desk.page.url).endswith("/me/security")  # type: ignore[union-attr]
        after = world.rows(rows)
        assert [row.id for row in after] == [row.id for row in before]
        assert after[0].cookie_digest != before[0].cookie_digest
        assert after[0].auth_time > before[0].auth_time
        thief.http.cookies.set("sekisho", old, domain="localhost.local", path="/")
        assert is_out(thief)
        assert not is_out(desk)


def test_idle_and_absolute_limits_ac41(world: World) -> None:
    """AC-41, RE-20: 30 minutes idle and 12 hours for staff, 15 minutes and 8 hours for admins; use moves the idle limit and never
    the absolute one; what an application holds ends with it."""
    staff, hq = world.person("0413"), world.person("hq1", role=Role.HQ_ADMIN)
    console = world.application("points")
    for person, idle, life in ((staff, 30, 12), (hq, 15, 8)):
        with (
            time_machine.travel(clock.now(), tick=False) as frozen,
            Browser(world.app) as phone,
            Browser(world.app) as left,
        ):
            phone.log_in(person)
            left.log_in(person) if person is staff else None
            tokens = console.log_in(phone)
            frozen.shift(timedelta(minutes=idle, seconds=-1))
            assert not is_out(phone)
            if person is staff:
                frozen.shift(timedelta(seconds=2))
                assert is_out(left), "nobody used this one"
            for _ in range(life * 60 // (idle - 1)):
                frozen.shift(timedelta(minutes=idle - 1))
                if is_out(phone):
                    break
            started = world.rows(
                select(LoginSession.created_at, LoginSession.ends_at).where(LoginSession.account_id == person.id)
            )[0]
            assert started.ends_at - started.created_at == timedelta(hours=life)
            assert is_out(phone) == (clock.now() >= started.ends_at)
            frozen.move_to(started.ends_at)
            assert is_out(phone)
            assert console.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_my_devices_list_and_end_ac43(world: World) -> None:
    """AC-43, ux.md 11 rows 18, 19, 24: each device with what it opened; ending one cuts that one at once, with a receipt; ending
    the others leaves this one; a colleague's cannot be ended; both ask for a fresh proof first."""
    person, colleague = world.person("0413"), world.person("0414")
    console = world.application("points")
    with time_machine.travel(clock.now(), tick=False) as frozen:
        here, tablet, terminal, theirs = (Browser(world.app, address=f"192.0.2.{n}") for n in range(4))
        for browser in (tablet, terminal, here):
            browser.log_in(person)
        theirs.log_in(colleague)
        tokens = console.log_in(tablet)
        page = here.get("/me/sessions")
        assert page.text.count("いま使っている端末") == 1
        assert "points コンソール" in page.text
        assert "192.0.2.1" in page.text
        assert "192.0.2.3" not in page.text, "somebody else's"
        rows = {row.address: row.id for row in world.rows(select(LoginSession.address, LoginSession.id))}
        form = {"csrf_token": token_on(page)}

        frozen.shift(timedelta(minutes=5, seconds=1))
        for path, more in (("/me/sessions/end", {"id": str(rows["192.0.2.1"])}), ("/me/sessions/end-others", {})):
            asked = here.post(path, {**form, **more}, follow=False)
            assert "/login/step-up" in asked.headers["location"]
        assert not is_out(tablet)
        here.get("/login/step-up?next=/me/sessions")
        here.submit(password=person.password)

        for foreign in (rows["192.0.2.3"], uuid.uuid4(), "x", ""):
            assert here.post("/me/sessions/end", {**form, "id": str(foreign)}).status_code == 404
        assert count(world, Tag.FOREIGN_OBJECT, actor_id=person.id) == 4
        assert not is_out(theirs)

        ended = here.post("/me/sessions/end", {**form, "id": str(rows["192.0.2.1"])})
        assert receipt_number(ended) in ended.text
        assert is_out(tablet)
        assert not is_out(terminal)
        assert console.userinfo(tokens["access_token"]).status_code == 401
        here.post("/me/sessions/end-others", form)
        assert is_out(terminal)
        assert not is_out(here)
        assert not is_out(theirs)
        for browser in (here, tablet, terminal, theirs):
            browser.http.close()


def test_password_change_ends_the_others_oa16(world: World) -> None:
    """AC-43, OA-16: the other devices and what they hold end, offline grants included; this device stays; the old password is
    asked for, wrong ones are braked, and the new one obeys the rules."""
    hq = world.person("hq1", role=Role.HQ_ADMIN)
    console = world.application("points", offline_allowed=True)
    with (
        time_machine.travel(clock.now(), tick=False) as frozen,
        Browser(world.app) as here,
        Browser(world.app) as other,
    ):
        other.log_in(hq)
        offline = console.log_in(other, scope="openid offline_access", prompt="consent")
        frozen.shift(timedelta(seconds=60))
        here.log_in(hq)
        kept = console.log_in(here)
        here.get("/me/password")
        for current, new, again in (
            ("wrong", PASSWORD, PASSWORD),
            (hq.password, "short", "short"),
            (hq.password, PASSWORD, PASSWORD + "x"),
        ):
            assert here.submit(current=current, password=new, again=again).status_code == 400
        assert not is_out(other)
        here.get("/me/password")
        changed = here.submit(current=hq.password, password=PASSWORD, again=PASSWORD)
        assert changed.status_code == 200
        assert PASSWORD not in changed.text
        assert is_out(other)
        assert not is_out(here)
        assert console.refresh(offline["refresh_token"]).json()["error"] == "invalid_grant"
        assert console.userinfo(kept["access_token"]).status_code == 200
        here.get("/me/password")
        for _ in range(5):
            here.submit(current="wrong", password=PASSWORD, again=PASSWORD)
        assert "続けて間違えた" in here.submit(current=PASSWORD, password=PASSWORD + "2", again=PASSWORD + "2").text


def test_logging_out_lo12(world: World, outbound: RecordingOutbound) -> None:
    """LO-12, AC-40: the button ends the row, deletes the cookie by name, clears the cache and nothing else, tells the applications;
    a copy of the cookie is worth nothing; Back shows nothing; a GET does nothing."""
    person = world.person("0413")
    console = world.application("points")
    with Browser(world.app) as phone, Browser(world.app) as copy:
        phone.log_in(person)
        tokens = console.log_in(phone)
        for path in ("/", "/me/sessions", "/me/security"):
            assert phone.get(path).headers["cache-control"] == "no-store"
        assert phone.get("/logout").status_code == 405
        assert not is_out(phone)
        copy.http.cookies.update(phone.http.cookies)
        answer = phone.post("/logout", {"csrf_token": token_on(phone.get("/"))})
        assert answer.headers["clear-site-data"] == '"cache"'
        deleted = [c for c in answer.headers.get_list("set-cookie") if c.startswith("sekisho=;")]
        assert len(deleted) == 1
        assert not any(c.startswith("sekisho-device") for c in answer.headers.get_list("set-cookie"))
        assert person.name not in answer.text
        assert is_out(phone)
        assert is_out(copy)
        assert console.userinfo(tokens["access_token"]).status_code == 401
        world.deliver()
        assert len(outbound.to("https://points.example/backchannel")) == 1
        assert count(world, Tag.LOGOUT_REQUESTED, subject_id=person.id) == 1
        assert count(world, Tag.REVOKED) == 0, "a logout is no revocation (LO-06)"
        assert phone.post("/logout", {"csrf_token": token_on(phone.get("/login"))}).status_code == 200, "twice is fine"
