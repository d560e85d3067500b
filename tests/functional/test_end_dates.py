"""Stopping at closing time, on a date, and what holds with the worker stopped (F9, AT-M3, RV-35, AC-42)."""

from __future__ import annotations

import datetime as dt
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from sqlalchemy import select

from idp.core import clock
from idp.core.db import transaction
from idp.domain.directory import people
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation.models import Revocation
from tests.actors import CLI, Browser, World
from tests.fakes.outbound import RecordingOutbound
from tests.functional.steps import choose, count, japanese_day, shown_code

PASSWORD = "quiet river under the bridge 9"


def test_closing_today_in_japan_rv35(world: World, outbound: RecordingOutbound) -> None:
    """RV-35, AT-M3, AC-42: booked at three in the afternoon, everything works until 23:59:59 in Japan and nothing after, with the
    worker stopped; then the sweep writes the receipt, says schedule, and tells the application."""
    with time_machine.travel(japanese_day(2, 15), tick=False) as frozen:
        manager, staff, colleague = (
            world.person("0101", role=Role.STORE_MANAGER),
            world.person("0413"),
            world.person("0414"),
        )
        console = world.application("points")
        with Browser(world.app) as desk, Browser(world.app) as phone, Browser(world.app) as other:
            desk.log_in(manager)
            desk.get(f"/store/S1/staff/{staff.id}/stop")
            booked = desk.submit(when="today")
            assert str(booked.url).endswith(f"/store/S1/staff/{staff.id}")
            rows = world.rows(select(AuditEvent).where(AuditEvent.tag == Tag.REVOCATION_BOOKED.value))
            assert [row[0].actor_id for row in rows] == [manager.id]
            assert count(world, Tag.REVOKED) == 0

            frozen.move_to(japanese_day(0, 23, 50))
            other.log_in(colleague)
            phone.log_in(staff)
            frozen.move_to(japanese_day(0, 23, 59) + timedelta(seconds=1))
            tokens, code = console.log_in(phone), console.code(phone)
            frozen.move_to(japanese_day(0, 23, 59) + timedelta(seconds=59))
            assert staff.name in phone.get("/").text
            assert console.userinfo(tokens["access_token"]).status_code == 200

            frozen.shift(timedelta(seconds=1))
            assert clock.now().astimezone(ZoneInfo("Asia/Tokyo")).time() == dt.time(0)
            assert "/login" in str(phone.get("/").url)
            assert "/login" in str(phone.get(console.authorization_url()).url)
            assert console.userinfo(tokens["access_token"]).status_code == 401
            assert console.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
            assert console.redeem(code).json()["error"] == "invalid_grant"
            assert phone.log_in(staff).status_code == 401
            assert colleague.name in other.get("/").text
            assert count(world, Tag.REVOKED) == 0

            frozen.shift(timedelta(minutes=90))  # the worker comes back late
            world.deliver()
            world.deliver()
            receipts = world.rows(select(Revocation).where(Revocation.account_id == staff.id))
            assert [(r[0].door, r[0].reason, r[0].scope_kind) for r in receipts] == [
                ("schedule", "end_date", "account")
            ]
            assert len(outbound.to("https://points.example/backchannel")) >= 1


def test_the_last_day_of_a_hire_and_a_store_elsewhere_rv35(world: World) -> None:
    """RV-35: the last day given at hiring ends when that day ends where the store is, not at midnight UTC or in Tokyo."""
    auckland = ZoneInfo("Pacific/Auckland")
    with world.app.app_context(), transaction() as session:
        company = people.get_company(session, "AOBA")
        people.add_store(
            session, company, code="NZ", name="オークランド店", actor=CLI, now=clock.now(), time_zone="Pacific/Auckland"
        )
    hq = world.person("hq1", role=Role.HQ_ADMIN)
    day = clock.now().astimezone(auckland).date() + timedelta(days=3)
    midnight = dt.datetime.combine(day + timedelta(days=1), dt.time.min, tzinfo=auckland)
    with Browser(world.app) as desk:
        desk.log_in(hq)
        desk.get("/hq/people/new")
        wish = {"name": "山本 健", "kana": "ヤマモト", "login_name": "0413", "role": "staff", "store": "NZ"}
        code = shown_code(desk.submit(**wish, ends_on=day.isoformat()))
    with Browser(world.app) as phone:
        choose(phone, code, PASSWORD)
        for at, inside in ((midnight - timedelta(seconds=1), True), (midnight, False)):
            with time_machine.travel(at, tick=False):
                phone.get("/login")
                assert ("山本 健" in phone.submit(login_id="AOBA/0413", password=PASSWORD).text) is inside, at


def test_dates_that_cannot_be(world: World) -> None:
    """ux.md 11 row 45: a date in the past, none, the end of time: said at the field, and nothing is booked."""
    manager, staff = world.person("0101", role=Role.STORE_MANAGER), world.person("0413")
    yesterday = (japanese_day(0, 12) - timedelta(days=1)).date().isoformat()
    with Browser(world.app) as desk:
        desk.log_in(manager)
        for on in ("", yesterday, "0001-01-01", "9999-12-31", "2026-02-30", "tomorrow"):
            desk.get(f"/store/S1/staff/{staff.id}/stop")
            page = desk.submit(when="date", on=on)
            assert page.status_code == 400, on
            assert "エラー" in page.text, on
        for ends_on in (yesterday, "0001-01-01", "9999-12-31"):
            desk.get("/store/S1/staff/new")
            page = desk.submit(name="新 花子", kana="シン", login_name="0500", ends_on=ends_on)
            assert page.status_code == 400, ends_on
        desk.get(f"/store/S1/staff/{staff.id}/stop")
        assert desk.submit(when="whenever").status_code == 400
    assert [row[0] for row in world.rows(select(Account.ends_at).where(Account.id == staff.id))] == [None]
    assert count(world, Tag.REVOKED) == count(world, Tag.REVOCATION_BOOKED) == 0


def test_one_of_two_stores_ends_on_a_date_rv27_rv35(world: World) -> None:
    """RV-27, RV-35: the booked end of one store's assignment ends that store only; at the date a new login of the application
    names the other store alone, with the worker stopped."""
    manager, staff = world.person("0101", role=Role.STORE_MANAGER), world.person("0413")
    world.assign(staff, "S2")
    console = world.application("points")
    with (
        time_machine.travel(japanese_day(1, 10), tick=False) as frozen,
        Browser(world.app) as desk,
        Browser(world.app) as phone,
    ):
        desk.log_in(manager)
        desk.get(f"/store/S1/staff/{staff.id}/stop")
        desk.submit(when="date", on=japanese_day(0, 0).date().isoformat())
        frozen.move_to(japanese_day(0, 23, 50))
        phone.log_in(staff)
        assert [s["code"] for s in console.claims(console.log_in(phone)["id_token"])["stores"]] == ["S1", "S2"]
        frozen.shift(timedelta(minutes=10))
        assert staff.name in phone.get("/").text
        assert [s["code"] for s in console.claims(console.log_in(phone)["id_token"])["stores"]] == ["S2"]
        world.deliver()
        found = world.rows(select(Revocation.scope_kind, Revocation.door).where(Revocation.account_id == staff.id))
        assert [tuple(row) for row in found] == [("assignment", "schedule")]
        assert staff.name in phone.get("/").text


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # which page is shown; the rows are tried above
def test_a_booked_person_is_shown_as_such(world: World) -> None:
    """S01, S04: who is to leave is still active and marked; after the date they are among the stopped, with the worker stopped."""
    manager = world.person("0101", role=Role.STORE_MANAGER, name="鈴木 一郎")
    leaver = world.person("0413", ends_at=japanese_day(1, 0))
    with time_machine.travel(clock.now(), tick=False) as frozen, Browser(world.app) as desk:
        desk.log_in(manager)
        assert leaver.name in desk.get("/store/S1/staff").text
        assert leaver.name not in desk.get("/store/S1/staff?tab=ended").text
        frozen.move_to(japanese_day(1, 0))
        desk.log_in(manager)
        assert leaver.name not in desk.get("/store/S1/staff").text
        assert leaver.name in desk.get("/store/S1/staff?tab=ended").text
        assert desk.get(f"/store/S1/staff/{leaver.id}").status_code == 200
