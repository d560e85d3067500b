"""The second factor: enrolling, using, losing; and who gets nowhere without it (L06, L07, L09, M06, M07)."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pyotp
import pytest
import time_machine
from sqlalchemy import select, update

from idp.core import clock
from idp.core.db import change, transaction
from idp.domain.authn.models import Authenticator, PendingLogin
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import LoginSession
from idp.ledgers.audit.events import Tag
from tests.actors import Browser, Person, World
from tests.functional.steps import count, dump, page_id, recovery_codes, token_on, told

WRONG_CODE = "000000"


def to_code_page(browser: Browser, person: Person) -> None:
    """The password, and no more."""
    browser.get("/login")
    browser.submit(login_id=person.login, password=person.password)
    assert "/login/totp" in str(browser.page.url)  # type: ignore[union-attr]


def enrol(browser: Browser) -> tuple[str, list[str]]:
    """Read the seed off the page, prove it, and keep the recovery codes."""
    page = browser.get("/me/security/totp/new")
    found = re.search(r"(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}", page.text)
    assert found is not None, page.text
    seed = found.group().replace(" ", "")
    done = browser.submit(code=pyotp.TOTP(seed).at(clock.now()))
    return seed, recovery_codes(done)


def test_codes_of_the_minute_and_no_replay_ac25(world: World) -> None:
    """AC-25: one step early or late fits, two do not; an accepted step and everything before it never fits again."""
    with time_machine.travel(clock.now(), tick=False) as frozen:
        person = world.person("0413", totp=True)
        for offset, fits in ((-60, False), (60, False), (-30, True), (0, True), (30, True)):
            with Browser(world.app) as browser:
                to_code_page(browser, person)
                code = person.code(offset_s=offset)
                assert (person.name in browser.submit(code=code).text) is fits, offset
        # accepted: the step 30 s ahead. Nothing up to it opens anything now.
        with Browser(world.app) as thief:
            to_code_page(thief, person)
            for offset in (-30, 0, 30):
                answer = thief.submit(code=person.code(offset_s=offset))
                assert answer.status_code == 401
                assert page_id(answer) == "L06"
            frozen.shift(timedelta(seconds=60))
            full_width = person.code().translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789"})
            assert person.name in thief.submit(code=full_width).text


def test_one_code_typed_twice_at_once_opens_one_login_ac25(world: World) -> None:
    """AC-25: the same code from two browsers at the same instant: one success, on both engines."""
    person = world.person("0413", totp=True)
    with time_machine.travel(clock.now(), tick=False), ThreadPoolExecutor(4) as pool:
        browsers = [Browser(world.app) for _ in range(4)]
        for browser in browsers:
            to_code_page(browser, person)
        code = person.code()
        answers = list(pool.map(lambda b: b.submit(code=code, follow=False).status_code, browsers))
        for browser in browsers:
            browser.http.close()
    assert sorted(answers) == [303, 401, 401, 401]
    assert len(world.rows(select(LoginSession.id).where(LoginSession.account_id == person.id))) == 1


def test_guessing_the_code_ends_after_five_tries_ac25(world: World) -> None:
    """AC-25: five tries per five minutes, however many passwords are typed in between or half-finished logins were opened
    before; then the right code opens nothing either, and a known device goes on."""
    person = world.person("0413", totp=True)
    with time_machine.travel(clock.now(), tick=False) as frozen, Browser(world.app, address="192.0.2.9") as known:
        known.log_in(person)
        known.post("/logout", {"csrf_token": token_on(known.get("/"))})
        hoard = [Browser(world.app) for _ in range(3)]
        for browser in hoard:
            to_code_page(browser, person)
        for _ in range(5):
            assert hoard[0].submit(code=person.wrong_code()).status_code == 401
        assert hoard[0].submit(code=person.wrong_code()).status_code in {200, 429}
        for browser in hoard[1:]:
            browser.get("/login/totp")
            assert browser.submit(code=person.code(offset_s=30)).status_code == 429
        again = Browser(world.app)
        again.get("/login")
        assert again.submit(login_id=person.login, password=person.password).status_code == 429
        frozen.shift(timedelta(seconds=60))
        to_code_page(known, person)
        assert person.name in known.submit(code=person.code()).text
        frozen.shift(timedelta(minutes=5))
        to_code_page(again, person)
        assert person.name in again.submit(code=person.code()).text
        for browser in (*hoard, again):
            browser.http.close()


def test_an_unfinished_login_is_none_ac25(world: World) -> None:
    """AC-25, RE-20: after the password alone nothing is open; the step lapses after five minutes, at a credential change, and
    cannot be moved to another person."""
    person, other = world.person("0413", totp=True), world.person("0414", totp=True)
    console = world.application("points")
    with (
        time_machine.travel(clock.now(), tick=False) as frozen,
        Browser(world.app) as browser,
        Browser(world.app) as second,
    ):
        to_code_page(browser, person)
        for path in ("/", "/me/security", "/me/security/totp/new", "/me/sessions"):
            assert "/login" in str(browser.get(path).url), path
        assert "/login" in str(browser.get(console.authorization_url()).url)
        browser.get("/login/totp")
        assert browser.submit(code=other.code()).status_code == 401
        frozen.shift(timedelta(minutes=5, seconds=1))
        assert str(browser.get("/login/totp").url).endswith("/login")

        to_code_page(browser, person)
        to_code_page(second, person)
        second.submit(code=person.code())
        second.get("/me/password")
        second.submit(
            current=person.password, password="quiet river under bridge 9", again="quiet river under bridge 9"
        )
        frozen.shift(timedelta(seconds=60))
        browser.get("/login/totp")
        assert browser.submit(code=person.code()).status_code == 401, "the password it began with is no more"


def test_without_a_second_factor_an_admin_gets_nowhere(world: World) -> None:
    """Issue policy, AC-41, OI-06: HQ, operator and auditor without a second factor see the enrolment page and nothing else, get no
    code for an application, and go on in the same login session after enrolling."""
    console = world.application("points", initiate_login_uri="https://points.example/start")
    pages = [
        rule.rule for rule in world.app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and not rule.arguments and rule.endpoint.split(".")[0] in {"portal", "security", "hq", "apps", "receipts"}
        and rule.endpoint != "security.new_totp"
    ]  # fmt: skip
    assert len(pages) >= 10
    for number, role in (("op", Role.OPERATOR), ("hq1", Role.HQ_ADMIN), ("audit", Role.AUDITOR)):
        person = world.person(number, company="SEKISHO" if role is Role.OPERATOR else "AOBA", role=role, totp=False)
        with Browser(world.app) as browser:
            assert "/me/security/totp/new" in str(browser.log_in(person).url)
            for path in (*pages, "/apps/points/open", f"/hq/people/{person.id}", "/receipts/R-2026-0101-AAAAAA"):
                assert "/me/security/totp/new" in str(browser.get(path).url), (role, path)
            answer = browser.get(console.authorization_url())
            assert not answer.has_redirect_location
            assert "/login/step-up" in str(answer.url) or "/me/security/totp/new" in str(answer.url)
            before = world.rows(
                select(LoginSession.id, LoginSession.cookie_digest).where(LoginSession.account_id == person.id)
            )
            enrol(browser)
            after = world.rows(
                select(LoginSession.id, LoginSession.cookie_digest).where(LoginSession.account_id == person.id)
            )
            assert [row.id for row in before] == [row.id for row in after], "rotated in place (AC-40)"
            assert before[0].cookie_digest != after[0].cookie_digest
            assert person.name in browser.get("/").text
            assert console.claims(console.log_in(browser)["id_token"])["acr"] == "urn:sekisho:aal2"


def test_enrolling_needs_a_proof_and_leaks_nothing_ac25_ac26(world: World) -> None:
    """AC-25, AC-26, VA-30: a fresh login first; a wrong code enables nothing; a sealed seed of somebody else, a changed one or one
    sent twice does not fit; other logins end; neither seed nor codes are in the database."""
    person, other = world.person("0413"), world.person("0414")
    with (
        time_machine.travel(clock.now(), tick=False) as frozen,
        Browser(world.app) as phone,
        Browser(world.app) as lost,
        Browser(world.app) as thief,
    ):
        phone.log_in(person)
        lost.log_in(person)
        thief.log_in(other)
        theirs = {**thief.forms(thief.get("/me/security/totp/new"))[-1]["fields"]}
        frozen.shift(timedelta(minutes=5, seconds=1))
        assert "/login/step-up" in str(phone.get("/me/security/totp/new").url)
        phone.submit(password=person.password)
        assert "/me/security/totp/new" in str(phone.page.url)  # type: ignore[union-attr]

        assert phone.submit(code=WRONG_CODE).status_code == 400
        good = phone.forms()[-1]["fields"]
        for change_to in (
            {"sealed": theirs["sealed"]}, {**theirs, "csrf_token": good["csrf_token"]}, {"sealed": good["sealed"][:-8] + "AAAAAAAA"}, {"sealed": ""},
            {"sealed": "!"}, {"sealed": "AAAA"}, {"authenticator_id": "x"}, {"authenticator_id": theirs["authenticator_id"]},
            {"sealed": base64.urlsafe_b64encode(b"\x00" * 200).decode()},
        ):  # fmt: skip
            answer = phone.post("/me/security/totp/new", {**good, **change_to, "code": WRONG_CODE})
            assert answer.status_code in {200, 400}, change_to
            assert "予備コード" not in answer.text
        assert not world.rows(select(Authenticator.id).where(Authenticator.kind == "totp"))

        seed, codes = enrol(phone)
        assert "/login" in str(lost.get("/").url), "every other login ends (AC-43)"
        stolen = dump(world)
        for secret in (
            seed.encode(),
            base64.b32decode(seed),
            *(c.encode() for c in codes),
            *(c.replace("-", "").encode() for c in codes),
        ):
            assert secret not in stolen
        assert count(world, Tag.TOTP_ADDED) == 1

        # the same page again, with the next code: refused, not an error of ours
        frozen.shift(timedelta(seconds=30))
        form = phone.forms(phone.get("/me/security/totp/new"))[-1]["fields"]
        rows = world.rows(
            select(Authenticator.id, Authenticator.sealed).where(
                Authenticator.kind == "totp", Authenticator.ended_at.is_(None)
            )
        )
        again = {
            **form, "authenticator_id": str(rows[0].id), "sealed": base64.urlsafe_b64encode(rows[0].sealed).decode(),
            "code": pyotp.TOTP(seed).at(clock.now()),
        }  # fmt: skip
        assert phone.post("/me/security/totp/new", again).status_code == 400
        # and what authenticates the first login after it is not the code that proved it
        with Browser(world.app) as fresh:
            to_code_page(fresh, person)
            assert fresh.submit(code=pyotp.TOTP(seed).at(clock.now() - timedelta(seconds=30))).status_code == 401


def test_a_seed_moved_to_another_row_does_not_open_va04(world: World) -> None:
    """VA-04: who can write the database but not open the vault cannot give somebody their own authenticator app."""
    victim, attacker = world.person("0413", totp=True), world.person("0414", totp=True)
    sealed = world.rows(
        select(Authenticator.sealed).where(Authenticator.account_id == attacker.id, Authenticator.kind == "totp")
    )[0][0]
    with world.app.app_context(), transaction() as session:
        change(
            session,
            update(Authenticator)
            .where(Authenticator.account_id == victim.id, Authenticator.kind == "totp")
            .values(sealed=sealed),
        )
    with Browser(world.app) as browser:
        to_code_page(browser, victim)
        answer = browser.submit(code=attacker.code())
        assert answer.status_code == 500
        assert "/login" in str(browser.get("/").url)


def test_recovery_codes_ac09(world: World) -> None:
    """AC-09: ten codes; each opens one login, written down as used; a new set kills the old one; somebody else's do not fit."""
    person, other = world.person("0413"), world.person("0414")
    with Browser(world.app) as phone, Browser(world.app) as theirs:
        phone.log_in(person)
        seed, codes = enrol(phone)
        theirs.log_in(other)
        _, foreign = enrol(theirs)
        known = Person(**{**vars(person), "totp_secret": seed})
        with Browser(world.app) as lost:
            for bad in (foreign[0], "AAAA-BBBB-CCCC-DDDD"):
                to_code_page(lost, known)
                lost.get("/login/recovery")
                assert lost.submit(code=bad).status_code == 401
            assert person.name in lost.submit(code=codes[0].lower().replace("-", " ")).text
            assert count(world, Tag.RECOVERY_CODE_USED) == 1
        with Browser(world.app) as again:
            to_code_page(again, known)
            again.get("/login/recovery")
            assert again.submit(code=codes[0]).status_code == 401
            phone.get("/me/security")
            fresh = recovery_codes(phone.submit(action="/me/security/recovery"))
            assert not set(fresh) & set(codes)
            to_code_page(again, known)
            again.get("/login/recovery")
            assert again.submit(code=codes[1]).status_code == 401
            assert person.name in again.submit(code=fresh[1]).text


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the same throttle rows as in test_login
def test_step_up_is_braked_and_generic_ac26(world: World) -> None:
    """AC-26, AC-05: the step-up page takes the strongest proof the account has, not the password beside it, and is braked."""
    hq = world.person("hq1", role=Role.HQ_ADMIN)
    with time_machine.travel(clock.now(), tick=False) as frozen, Browser(world.app) as desk:
        desk.log_in(hq)
        device = desk.http.cookies
        frozen.shift(timedelta(minutes=5, seconds=1))
        desk.get("/login/step-up?next=/me/security/totp/new")
        for form in ({"password": hq.password, "code": ""}, {"code": hq.wrong_code(), "password": hq.password}):
            assert desk.submit(**form).status_code == 401
        for _ in range(3):
            refused = desk.submit(code=hq.wrong_code())
        assert told(refused)[0] == 401
        assert desk.submit(code=hq.code()).status_code == 429
        assert device is desk.http.cookies
        assert count(world, Tag.SECOND_FACTOR_REFUSED) == 5
    assert world.rows(select(PendingLogin.id).where(PendingLogin.used_at.is_(None))) == []
