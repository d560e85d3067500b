"""Letting somebody back in: two people, nothing old revives (AC-08, RV-29)."""

from __future__ import annotations

from datetime import timedelta

import time_machine
from sqlalchemy import select

from idp.core import clock
from idp.domain.authn.models import Authenticator
from idp.domain.directory.models import Account, Assignment
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens.models import TokenFamily
from idp.ledgers.audit.events import Tag
from tests.actors import Browser, Person, World
from tests.functional.steps import choose, count, cut, issue, page_id, shown_code, token_on, type_code

PASSWORD = "quiet river under the bridge 9"


def test_two_people_bring_somebody_back_rv29(world: World) -> None:
    """AC-08, RV-29: one asks with a reason, another approves after a fresh proof; the epoch grew; no session, token, code, password,
    authenticator or recovery code of before opens anything, an unfinished login neither; the person starts with a new code, has
    the same `sub` by decision of two, and only the stores held at the end."""
    one, two = world.person("hq1", role=Role.HQ_ADMIN), world.person("hq2", role=Role.HQ_ADMIN)
    manager, staff = world.person("0101", role=Role.STORE_MANAGER), world.person("0413", totp=True)
    console = world.application("points", offline_allowed=True)
    with time_machine.travel(clock.now(), tick=False) as frozen:
        phone, half, desk, office, shop = (Browser(world.app) for _ in range(5))
        phone.log_in(staff)
        tokens = console.log_in(phone)
        half.get("/login")
        half.submit(login_id=staff.login, password=staff.password)
        old_code = issue(world, staff, life=timedelta(hours=1))
        unredeemed = console.code(phone)
        sub = console.claims(tokens["id_token"])["sub"]
        epoch = world.rows(select(Account.epoch).where(Account.id == staff.id))[0][0]
        cut(world, staff)
        page = f"/hq/people/{staff.id}"

        shop.log_in(manager)
        form = {"csrf_token": token_on(shop.get("/")), "note": "x"}
        for path in (f"{page}/reinstate", f"{page}/reinstate/approve"):
            assert shop.post(path, form).status_code == 403, "a store manager brings nobody back"
        desk.log_in(one)
        token = {"csrf_token": token_on(desk.get(page))}
        assert desk.post(f"{page}/reinstate/approve", token).status_code == 404, "nobody asked"
        assert desk.post(f"{page}/reinstate", {**token, "note": "  "}).status_code == 400
        desk.get(page)
        desk.submit(action=f"{page}/reinstate", note="同じ人だと、店長と電話で確かめました。")
        assert desk.post(f"{page}/reinstate", {**token, "note": "again"}).status_code == 409
        assert desk.post(f"{page}/reinstate/approve", token).status_code == 403, "not the one who asked"
        assert count(world, Tag.ACCOUNT_REINSTATED) == 0
        assert phone.log_in(staff).status_code == 401

        office.log_in(two)
        frozen.shift(timedelta(minutes=5, seconds=1))
        office.get(page)
        assert "/login/step-up" in str(office.submit(action=f"{page}/reinstate/approve").url)
        office.submit(code=two.code())
        office.get(page)
        code = shown_code(office.submit(action=f"{page}/reinstate/approve"))
        assert count(world, Tag.ACCOUNT_REINSTATED, subject_id=staff.id) == 1
        assert office.post(f"{page}/reinstate/approve", {"csrf_token": token_on(office.get("/"))}).status_code == 404, (
            "once"
        )

        row = world.rows(select(Account).where(Account.id == staff.id))[0][0]
        assert row.epoch >= epoch + 2
        assert row.ended_at is None
        for model in (Authenticator, LoginSession, TokenFamily):
            alive = select(model.id).where(model.account_id == staff.id, model.ended_at.is_(None))
            assert not world.rows(alive), model.__tablename__
        assert "/login" in str(phone.get("/").url)
        assert console.userinfo(tokens["access_token"]).status_code == 401
        assert console.refresh(tokens["refresh_token"]).status_code == 400
        assert console.redeem(unredeemed).status_code == 400
        assert type_code(phone, old_code).status_code == 400
        assert str(half.get("/login/totp").url).endswith("/login")
        assert phone.log_in(staff).status_code == 401

        assert page_id(choose(phone, code, PASSWORD)) == "L08"
        phone.log_in(Person(**{**vars(staff), "password": PASSWORD, "totp_secret": None}))
        claims = console.claims(console.log_in(phone)["id_token"])
        assert claims["sub"] == sub
        assert [s["code"] for s in claims["stores"]] == ["S1"]
        states = world.rows(select(Assignment.ended_at).where(Assignment.account_id == staff.id))
        assert sorted(row[0] is None for row in states) == [False, True], "a new row; the old one stays ended"
        for browser in (phone, half, desk, office, shop):
            browser.http.close()


def test_a_number_given_away_stays_given_rv31(world: World) -> None:
    """RV-31: when the staff number belongs to somebody else meanwhile, the departed person cannot come back under it."""
    one, two, staff = (
        world.person("hq1", role=Role.HQ_ADMIN),
        world.person("hq2", role=Role.HQ_ADMIN),
        world.person("0413"),
    )
    cut(world, staff)
    heir = world.person("0413", name="新 花子")
    page = f"/hq/people/{staff.id}"
    with Browser(world.app) as desk, Browser(world.app) as office, Browser(world.app) as phone:
        desk.log_in(one)
        desk.get(page)
        desk.submit(action=f"{page}/reinstate", note="もどります")
        office.log_in(two)
        office.get(page)
        assert office.submit(action=f"{page}/reinstate/approve").status_code == 409
        assert heir.name in phone.log_in(heir).text
    assert world.rows(select(Account.ended_at).where(Account.id == staff.id))[0][0] is not None
