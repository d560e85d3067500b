"""Logging in with a password: what a failure tells (nothing), what slows a guesser down, what a storm leaves working."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx2
import psycopg
import pytest
import time_machine
from flask import Flask
from sqlalchemy import select

from idp.app import create_app
from idp.core import clock
from idp.domain.authn.models import Activation, Authenticator
from idp.domain.directory.models import Company
from idp.domain.directory.roles import Role
from idp.ledgers.audit.events import Tag
from tests.actors import Browser, Person, World
from tests.conftest import Database, dispose
from tests.fakes.outbound import RecordingOutbound
from tests.functional.steps import JST, busy, change_row, choose, count, cut, issue, page_id, token_on, told, type_code

WRONG = "not-the-password-at-all"


class Guesser:
    """Somebody at the login page whose browser was never here before; one form token serves all tries."""

    def __init__(self, app: Flask, *, address: str = "127.0.0.1", at: str = "/login") -> None:
        self.browser, self.at = Browser(app, address=address), at
        self.token = token_on(self.browser.get(at))

    def tries(self, login: str, password: str) -> httpx2.Response:
        """One try. A login that succeeds is thrown away with its cookies, so that the next try is a stranger's again."""
        form = {"csrf_token": self.token, "login_id": login, "password": password, "request": "", "next": ""}
        answer = self.browser.post(self.at, form, follow=False)
        for name in ("sekisho", "sekisho-device", "sekisho-2fa"):
            self.browser.http.cookies.delete(name) if name in self.browser.http.cookies else None
        return answer

    def is_locked_out(self, login: str) -> None:
        """Five wrong passwords."""
        for _ in range(5):
            assert self.tries(login, WRONG).status_code == 401


def test_every_failure_looks_alike_ac06(world: World) -> None:
    """AC-06, ux.md 11 row 1: wrong id, wrong password, stopped, end date reached, ended company: one answer, byte for byte."""
    soon = clock.now() + timedelta(hours=1)
    live, stopped = world.person("0001"), world.person("0002")
    dated = world.person("0003", ends_at=soon)
    dated_hq = world.person("hq1", role=Role.HQ_ADMIN, ends_at=soon)
    gone = world.person("0413", company="HOSHI", store="H1")
    gone_hq = world.person("hq1", company="HOSHI", role=Role.HQ_ADMIN)
    cut(world, stopped)
    change_row(
        world, Company, world.rows(select(Company.id).where(Company.code == "HOSHI"))[0][0], ended_at=clock.now()
    )
    with time_machine.travel(soon + timedelta(seconds=1), tick=False):
        tries: list[tuple[str, str]] = [
            ("AOBA/9999", live.password), (live.login, WRONG), (stopped.login, stopped.password),
            (dated.login, dated.password), (dated_hq.login, dated_hq.password), (gone.login, gone.password),
            (gone_hq.login, gone_hq.password), ("NOWHERE/0001", WRONG), ("0001", live.password), (live.login, "p" * 5000),
            (live.login, "nul\0" + WRONG),
        ]  # fmt: skip
        everywhere = Guesser(world.app, address="192.0.2.1")
        answers = {(login, password[:20]): told(everywhere.tries(login, password), login) for login, password in tries}
        reference = answers[("AOBA/9999", live.password[:20])]
        assert reference[0] == 401
        assert "ログインできませんでした" in reference[1]
        for key, answer in answers.items():
            assert answer == reference, key
        company_page = Guesser(world.app, address="192.0.2.2", at="/c/aoba")
        pages = [
            told(company_page.tries(n, WRONG), n)
            for n in (live.login_name, stopped.login_name, dated_hq.login_name, "9999")
        ]
        assert [page[0] for page in pages] == [401] * 4
        assert all(page == pages[0] for page in pages)
        assert Guesser(world.app).tries(live.login, live.password).status_code == 303


def test_login_id_as_people_type_it_d19(world: World) -> None:
    """D19: COMPANY/NUMBER, the number alone on the company's address, full width of an IME; two companies share a number."""
    aoba, hoshi = (
        world.person("0413", name="山本 健"),
        world.person("0413", company="HOSHI", store="H1", name="田中 光"),
    )
    for typed, at, who in (
        ("AOBA/0413", "/login", aoba), ("aoba/0413", "/login", aoba), ("ＡＯＢＡ／０４１３", "/login", aoba), (" AOBA/0413 ", "/login", aoba),
        ("0413", "/c/aoba", aoba), ("0413", "/c/HOSHI", hoshi), ("HOSHI/0413", "/c/aoba", hoshi),
    ):  # fmt: skip
        with Browser(world.app) as browser:
            browser.get(at)
            page = browser.submit(login_id=typed, password=who.password)
            assert who.name in page.text, (typed, at)
    assert Guesser(world.app).tries("AOBA/0413", hoshi.password).status_code == 401


def test_five_wrong_tries_pause_a_stranger_only_ac05(world: World, database: Database) -> None:
    """AC-05, ux.md 11 row 2: the pause is the same for an invented id, tells its end, spares colleagues and known devices,
    survives a restart, and cannot be dodged with an invented device."""
    person, colleague = world.person("0001"), world.person("0002")
    shop, elsewhere = "192.0.2.7", "203.0.113.9"
    with Browser(world.app, address=shop) as known, time_machine.travel(clock.now(), tick=False) as frozen:
        known.log_in(person)
        known.post("/logout", {"csrf_token": token_on(known.get("/"))})
        guesser = Guesser(world.app, address=shop)
        for login in (person.login, "AOBA/7777"):
            guesser.is_locked_out(login)
        real, invented = guesser.tries(person.login, person.password), guesser.tries("AOBA/7777", person.password)
        assert told(real, person.login) == told(invented, "AOBA/7777")
        assert real.status_code == 429
        assert page_id(real) == "X07"
        wait = int(real.headers["Retry-After"])
        assert 295 <= wait <= 301
        assert (clock.now() + timedelta(seconds=wait)).astimezone(JST).strftime("%H:%M") in real.text

        assert guesser.tries(colleague.login, colleague.password).status_code == 303
        assert Guesser(world.app, address=elsewhere).tries(person.login, person.password).status_code == 303
        assert person.name in known.log_in(person).text  # their own browser, on the attacker's Wi-Fi

        with Browser(world.app) as neighbour:
            neighbour.log_in(colleague)
            theirs = neighbour.http.cookies.get("sekisho-device", default="")
        assert "." in theirs
        for value in ("x" * 43 + ".", "x" * 43 + "." + "y" * 43, theirs):
            guesser.browser.http.cookies.set("sekisho-device", value, domain="localhost.local", path="/")
            assert "sekisho-device" in guesser.browser.http.build_request("GET", "/login").headers.get("cookie", "")
            assert guesser.tries(person.login, person.password).status_code == 429, value

        restarted = create_app(database.settings(), outbound=RecordingOutbound())
        assert Guesser(restarted, address=shop).tries(person.login, person.password).status_code == 429
        dispose(restarted)

        frozen.shift(timedelta(minutes=5, seconds=2))
        assert Guesser(world.app, address=shop).tries(person.login, person.password).status_code == 303


def test_pauses_double_and_a_success_forgets_ac05(world: World) -> None:
    """AC-05: only *consecutive* failures count; the next five double the pause; IPv6 neighbours in one /64 are one guesser."""
    person = world.person("0001")
    with time_machine.travel(clock.now(), tick=False) as frozen:
        here, neighbour, far = (Guesser(world.app, address=f"2001:db8:1:{net}") for net in ("2::a", "2::b", "3::a"))
        for _ in range(4):
            here.tries(person.login, WRONG)
        assert here.tries(person.login, person.password).status_code == 303
        here.is_locked_out(person.login)
        assert neighbour.tries(person.login, WRONG).status_code == 429
        assert far.tries(person.login, WRONG).status_code == 401
        frozen.shift(timedelta(minutes=5, seconds=2))
        here.is_locked_out(person.login)
        wait = int(here.tries(person.login, person.password).headers["Retry-After"])
        assert 598 <= wait <= 601
        assert count(world, Tag.LOGIN_REFUSED) == 0, (
            "failures are counted by the minute, not written one by one (AU-01)"
        )
        frozen.shift(timedelta(minutes=2))
        world.deliver()  # the worker's sweep must not forget a pause that runs
        assert here.tries(person.login, person.password).status_code == 429
        assert count(world, Tag.LOGIN_REFUSED) > 0


def test_a_storm_leaves_the_cut_working_ac03_re46(world: World) -> None:
    """AC-03, RE-46: with every hash slot and waiting place taken a login is told to come back, real or invented, and nobody is
    counted as a guesser; a revocation in the meantime works."""
    staff, manager = world.person("0413"), world.person("0101", role=Role.STORE_MANAGER)
    with Browser(world.app) as desk, Browser(world.app) as phone:
        desk.log_in(manager)
        phone.log_in(staff)
        with busy(world.services.hasher, queue_too=True):
            stranger = Guesser(world.app)
            for login in (staff.login, "AOBA/7777"):
                for _ in range(6):
                    page = stranger.tries(login, staff.password)
                    assert page.status_code == 429
                    assert int(page.headers["Retry-After"]) <= 5
                    assert "続けて間違えた" not in page.text, "nobody typed anything wrong"
            desk.get(f"/store/S1/staff/{staff.id}/stop")
            assert "R-" in str(desk.submit().url)
            assert "/login" in str(phone.get("/").url)
        other = world.person("0414")
        assert Guesser(world.app).tries(other.login, other.password).status_code == 303


def write_at_once(database: Database) -> None:
    """Write from outside without waiting for anybody: fails at once while a transaction of the product is open."""
    if database.engine == "sqlite":
        with sqlite3.connect(database.url.removeprefix("sqlite:///"), timeout=0, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE account SET locale = 'en'")
            other.execute("COMMIT")
        other.close()
        return
    with psycopg.connect(
        database.url.replace("postgresql+psycopg", "postgresql"), options="-c lock_timeout=200"
    ) as other:
        other.execute("UPDATE account SET locale = 'en'")
        idle = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        assert idle.fetchone() == (0,)


def test_no_transaction_is_open_while_hashing_re20(world: World, database: Database) -> None:
    """RE-20, AC-07: a login, a password change and a first password wait for the hasher with the database free; and a code
    that a newer one voided meanwhile opens nothing, without an error of ours."""
    person, newcomer = world.person("0001"), world.person("0002")
    code = issue(world, newcomer)
    hasher = world.services.hasher
    with Browser(world.app) as a, Browser(world.app) as b, Browser(world.app) as c, ThreadPoolExecutor(3) as pool:
        b.log_in(person)
        a.get("/login"), b.get("/me/password"), type_code(c, code)
        with busy(hasher):
            free = hasher._places._value
            jobs = [
                pool.submit(a.submit, login_id=person.login, password=person.password, follow=False),
                pool.submit(
                    b.submit,
                    current=person.password,
                    password="quiet river under the bridge",
                    again="quiet river under the bridge",
                ),
                pool.submit(
                    c.submit,
                    password="quiet river under the bridge",
                    again="quiet river under the bridge",
                    follow=False,
                ),
            ]
            deadline = time.monotonic() + 20
            while hasher._places._value > free - 3:
                assert time.monotonic() < deadline, "the three never came to the hasher"
                time.sleep(0.005)
            write_at_once(database)
            second = issue(world, newcomer)
        entered, changed, chosen = (job.result(timeout=30) for job in jobs)
        assert changed.status_code == 200
        assert entered.status_code in {303, 401}  # 401: the change was faster and raised the epoch
        assert (chosen.status_code, chosen.headers["location"]) == (303, "/e")
        assert "おわり" in choose(c, second, "another quiet river here").text
    used = world.rows(
        select(Activation.used_at).where(Activation.account_id == newcomer.id, Activation.used_at.is_not(None))
    )
    assert len(used) == 2, "the first of world.person, and the second code; never the voided one"


def test_hash_made_with_an_older_pepper_or_cost_is_renewed_ac04(world: World, database: Database) -> None:
    """AC-03, AC-04: after a rotation everybody still logs in, and the login renews the verifier; without the old pepper a
    stolen verifier is worth nothing."""
    person, later = world.person("0001"), world.person("0002")

    def verifier(who: Person) -> str:
        query = select(Authenticator.verifier).where(
            Authenticator.account_id == who.id, Authenticator.kind == "password"
        )
        return str(world.rows(query)[0][0])

    folder = database.folder / f"rotated-{database.engine}-{threading.get_ident()}"
    folder.mkdir()
    pepper = folder / "pepper"
    pepper.touch(mode=0o600)
    first = (database.folder / "pepper").read_text()
    pepper.write_text(first + "2 " + "cXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXE=" + "\n")
    assert verifier(person).split("$")[1:3] == ["1", "19456,2,1"]

    rotated = create_app(
        database.settings().model_copy(update={"pepper_file": pepper, "argon2_time": 3}), outbound=RecordingOutbound()
    )
    assert Guesser(rotated).tries(person.login, person.password).status_code == 303
    assert verifier(person).split("$")[1:3] == ["2", "19456,3,1"]
    assert Guesser(rotated).tries(person.login, person.password).status_code == 303
    assert verifier(later).split("$")[1] == "1"
    dispose(rotated)

    pepper.write_text("2 cXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXE=\n")
    stolen = create_app(database.settings().model_copy(update={"pepper_file": pepper}), outbound=RecordingOutbound())
    assert Guesser(stolen).tries(later.login, later.password).status_code == 401
    assert Guesser(stolen).tries(person.login, person.password).status_code == 303
    dispose(stolen)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the body never reaches the database
def test_a_huge_body_costs_nothing_ac01_wb09(world: World) -> None:
    """AC-01, WB-09: 10 MB of password, or thousands of fields, are refused before anything is hashed or parsed."""
    with Browser(world.app) as browser:
        browser.get("/login")
        started = time.thread_time()  # the application answers in this thread
        for data in ({"password": "p" * 10_000_000}, {f"field{i}": "x" for i in range(30_000)}):
            answer = browser.http.post("/login", data=data, headers={"Sec-Fetch-Site": "same-origin"})
            assert answer.status_code == 413
            assert answer.headers["X-Request-Id"] in answer.text
        assert time.thread_time() - started < 5
