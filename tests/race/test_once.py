"""What may happen once, presented many times at once: codes, refresh tokens, TOTP steps, recovery codes, activations, stops."""

from __future__ import annotations

import random
import re
import uuid
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select

from idp.domain.directory.roles import Role
from idp.domain.tokens.models import TokenFamily
from idp.lifecycle.revocation.models import Revocation
from tests.actors import Browser, RelyingParty, receipt_number
from tests.race.arena import Arena, accepted, offline_tokens, receipt_of
from tests.race.puppets import committing, together

RECOVERY = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){3}\b")


def family_of(arena: Arena, tokens: dict[str, Any]) -> Any:
    """The stored family behind an access token."""
    family = uuid.UUID(RelyingParty.claims(tokens["access_token"])["gid"])
    return arena.world.rows(TokenFamily.__table__.select().where(TokenFamily.id == family))[0]


def test_OA_06_parallel_redemptions_have_one_success(arena: Arena) -> None:
    """T− 200 parallel redemptions (50 on SQLite, which runs them one by one) → exactly one success; the replays end its family."""
    browser = arena.logged_in(arena.person())
    code = arena.web.code(browser)
    answers = together(*[lambda: arena.web.redeem(code)] * (200 if arena.engine == "postgresql" else 50))
    count = Counter(answer.status_code for answer in answers)
    assert count[200] == 1
    assert set(count) <= {200, 400, 503}, count  # 503: no connection became free within five seconds; come back
    assert {a.json()["error"] for a in answers if a.status_code == 400} == {"invalid_grant"}
    tokens = next(a for a in answers if a.status_code == 200).json()
    row = family_of(arena, tokens)
    assert (row.end_reason, row.generation) == ("code_replayed", 1)
    assert arena.world.rows(
        select(func.count()).select_from(TokenFamily).where(TokenFamily.account_id == row.account_id)
    ) == [(1,)]
    assert not accepted(arena.web.refresh(tokens["refresh_token"]))
    assert not accepted(arena.web.userinfo(tokens["access_token"]))


def test_OA_07_replay_at_the_moment_of_redemption(arena: Arena) -> None:
    """The second redemption arrives while the first one stands before its commit: it waits, is refused, and ends the family."""
    browser = arena.logged_in(arena.person())
    code = arena.web.code(browser)
    met = arena.stage.meet(
        lambda: arena.web.redeem(code), lambda: arena.web.redeem(code), pause=committing("INSERT INTO token_family")
    )
    assert met.stood
    assert met.waited
    assert (met.first.status_code, met.second.status_code) == (200, 400)
    assert family_of(arena, met.first.json()).end_reason == "code_replayed"
    assert not accepted(arena.web.userinfo(met.first.json()["access_token"]))


def test_OA_15_two_refreshes_at_once_are_one_branch(arena: Arena) -> None:
    """T− two parallel refreshes → one branch: the one that waited gets the *same* successor, not a second one."""
    tokens = arena.native.log_in(arena.logged_in(arena.person()))
    old = tokens["refresh_token"]
    met = arena.stage.meet(
        lambda: arena.native.refresh(old), lambda: arena.native.refresh(old), pause=committing("UPDATE token_family")
    )
    assert met.stood
    assert met.waited
    first, second = met.first.json(), met.second.json()
    assert first["refresh_token"] == second["refresh_token"] != old
    assert family_of(arena, tokens).generation == 2


def test_OA_15_random_schedules_never_leave_two_branches(arena: Arena, dice: random.Random, rounds: int) -> None:
    """T− random interleavings of refreshes with any token ever seen → never two live branches.

    200 schedules at CI's ten rounds. A schedule: two threads present one token each, the newest or an older one. Whatever
    comes of it, every generation has had one token, and at most one token of the family still opens anything new.
    """
    browser = arena.logged_in(arena.person())
    schedules = 0
    while schedules < 20 * rounds:
        tokens = arena.native.log_in(browser)
        seen: dict[str, set[str]] = {}
        known = [tokens["refresh_token"]]
        alive = True
        while alive and schedules < 20 * rounds:
            schedules += 1
            wishes = [dice.choice(known[-2:] if dice.random() < 0.9 else known) for _ in range(2)]
            offsets = (dice.uniform(0, 0.004), dice.uniform(0, 0.004))
            answers = together(*[lambda w=w: arena.native.refresh(w) for w in wishes], offsets=offsets)  # type: ignore[misc]
            for answer in filter(accepted, answers):
                new = answer.json()["refresh_token"]
                seen.setdefault(new.split(".")[1], set()).add(new)
                if new not in known:
                    known.append(new)
            assert all(len(values) == 1 for values in seen.values()), "two tokens of one generation: two branches"
            row = family_of(arena, tokens)
            assert row.generation >= max(map(int, seen), default=1), (
                "a token was given out that the family does not know"
            )
            alive = row.ended_at is None
            assert alive or row.end_reason == "refresh_reuse"
        if not alive:
            assert not any(accepted(arena.native.refresh(token)) for token in known), "a branch outlived its family"
            continue
        known.sort(key=lambda token: int(token.split(".")[1]))
        if len(known) > 2:
            assert accepted(arena.native.refresh(known[-1]))
            assert not accepted(arena.native.refresh(known[-3])), "an old branch lives"
            assert not accepted(arena.native.refresh(known[-1])), "the reuse did not end the family"


def test_AC_25_totp_code_used_twice_in_parallel(arena: Arena) -> None:
    """T− same code twice in parallel → one success."""
    person = arena.person(totp=True)
    browsers = [arena.pending_login(person) for _ in range(2)]
    for browser in browsers:
        browser.get("/login/totp")
    code = person.code()
    met = arena.stage.meet(
        *(lambda b=b: b.submit(code=code, follow=False) for b in browsers),
        pause=committing("INSERT INTO login_session"),
    )  # type: ignore[misc]
    assert met.stood
    assert met.waited
    assert [a.status_code for a in (met.first, met.second)] == [303, 401]
    assert [bool(b.cookie) for b in browsers] == [True, False]
    again = arena.pending_login(person)
    again.get("/login/totp")
    assert again.submit(code=code, follow=False).status_code == 401


def test_AC_09_recovery_code_used_twice_in_parallel(arena: Arena) -> None:
    """A recovery code opens one login, also when two browsers send it at once."""
    person = arena.person(totp=True)
    desk = arena.logged_in(person, acr="urn:sekisho:aal2")
    desk.get("/me/security")
    page = desk.submit(action="/me/security/recovery")
    code = RECOVERY.findall(page.text)[0]
    browsers = [arena.pending_login(person) for _ in range(3)]
    for browser in browsers:
        browser.get("/login/recovery")
    met = arena.stage.meet(
        *(lambda b=b: b.submit(code=code, follow=False) for b in browsers[:2]),
        pause=committing("INSERT INTO login_session"),
    )  # type: ignore[misc]
    assert met.stood
    assert met.waited
    assert [a.status_code for a in (met.first, met.second)] == [303, 401]
    assert browsers[2].submit(code=code, follow=False).status_code == 401


def test_AC_25_one_unfinished_login_becomes_one_login(arena: Arena) -> None:
    """The same half-finished login in two browsers with two good codes: one login session, not two."""
    person = arena.person(totp=True)
    browsers = [arena.pending_login(person), Browser(arena.app)]
    browsers[1].http.cookies.update(browsers[0].http.cookies)
    for browser in browsers:
        browser.get("/login/totp")
    codes = [person.code(), person.code(offset_s=30)]
    met = arena.stage.meet(
        *(lambda b=b, c=c: b.submit(code=c, follow=False) for b, c in zip(browsers, codes, strict=True)),
        pause=committing("INSERT INTO login_session"),
    )  # type: ignore[misc]
    assert met.stood
    assert [a.status_code for a in (met.first, met.second)] == [303, 401]


def test_AC_25_the_sixth_try_is_refused_even_when_it_was_read_before(arena: Arena) -> None:
    """Five tries, exactly: six good or bad codes at once are five tries and one refusal."""
    person = arena.person(totp=True)
    first = arena.pending_login(person)
    first.get("/login/totp")
    others = [Browser(arena.app) for _ in range(5)]
    for other in others:
        other.http.cookies.update(first.http.cookies)
        other.get("/login/totp")
    good = person.code()

    def use_up() -> list[int]:
        return [other.submit(code="000000", follow=False).status_code for other in others]

    met = arena.stage.meet(
        lambda: first.submit(code=good, follow=False), use_up,
        pause=lambda _n, step: step.startswith(("UPDATE pending_login", "BEGIN IMMEDIATE")),
    )  # fmt: skip
    assert met.stood
    assert met.second == [401] * 5
    assert met.first.status_code == 401
    assert not first.cookie


def test_AC_07_activation_used_twice_in_parallel(arena: Arena) -> None:
    """One code, two browsers, two passwords: one of them is the password, the other one opens nothing."""
    person = arena.person(active=False)
    code = arena.activation_code(person)
    browsers = [Browser(arena.app) for _ in range(2)]
    for browser in browsers:
        browser.get("/e")
        browser.submit(code=code)
    chosen = ["a-blue-heron-counts-to-nine", "seven-paper-boats-go-north"]
    met = arena.stage.meet(
        *(lambda b=b, p=p: b.submit(password=p, again=p, follow=False) for b, p in zip(browsers, chosen, strict=True)),
        pause=committing("INSERT INTO authenticator"),
    )  # type: ignore[misc]
    assert met.stood
    assert met.waited
    assert [met.first.status_code, met.second.status_code] == [200, 303]
    entered = []
    for password in chosen:
        person.password = password
        with Browser(arena.app) as phone:
            entered.append(phone.log_in(person).status_code)
    assert entered == [200, 401]


def test_AC_07_a_new_code_while_the_old_one_is_being_used(arena: Arena) -> None:
    """The old code's page is sent while the manager prints a new one: the old one is refused politely, the new one works."""
    person = arena.person(active=False)
    old = arena.activation_code(person)
    with Browser(arena.app) as phone:
        phone.get("/e")
        phone.submit(code=old)
        password = person.password
        met = arena.stage.meet(
            lambda: phone.submit(password=password, again=password, follow=False), lambda: arena.activation_code(person),
            pause=lambda _n, step: step.startswith(("SELECT company.ended_at", "BEGIN IMMEDIATE")),
        )  # fmt: skip
        assert met.stood
        assert not met.waited
        assert met.first.status_code < 500, "the old code crashes instead of being refused"
        assert phone.log_in(person).status_code == 401
    assert arena.code_works(met.second)


def test_RE_07_double_click_is_one_revocation(arena: Arena) -> None:
    """「すべて切断」 pressed twice at once: one revocation, one receipt, two polite answers."""
    person = arena.person()
    desk, once = arena.admins[0], "double-click-" + str(person.login_name)
    met = arena.stage.meet(
        lambda: desk.stop(person, once=once),
        lambda: desk.stop(person, once=once),
        pause=committing("INSERT INTO revocation"),
    )
    assert met.stood
    assert met.waited
    assert receipt_of(met.first) == receipt_of(met.second)
    assert arena.world.rows(select(func.count()).select_from(Revocation).where(Revocation.account_id == person.id)) == [
        (1,)
    ]


def test_RE_20_parallel_revocations_of_one_person(arena: Arena, rounds: int, dice: random.Random) -> None:
    """Account, assignment, application and login session at once, by two administrators: each has its receipt, none is lost."""
    for _ in range(rounds):
        _revoke_five_times_at_once(arena, dice)


def _revoke_five_times_at_once(arena: Arena, dice: random.Random) -> None:
    person = arena.person(stores=("S1", "S2"))
    browser = arena.logged_in(person)
    tokens = arena.web.log_in(browser)
    one, two = arena.admins
    row = arena.login_session_of(browser)
    before = arena.deadlocks()
    wishes = [
        lambda: one.stop(person), lambda: two.stop(person), lambda: one.stop_one(person, "assignment", person.assignment_id),
        lambda: two.stop_one(person, "application", arena.web.application_id), lambda: one.stop_one(person, "login_session", row),
    ]  # fmt: skip
    dice.shuffle(wishes)
    answers = together(*wishes, offsets=tuple(dice.uniform(0, 0.01) for _ in wishes))
    assert {answer.status_code for answer in answers} == {303}
    assert len({receipt_number(answer) for answer in answers}) == len(wishes)
    assert arena.deadlocks() == before
    assert not arena.is_in(browser.cookie)
    assert not accepted(arena.web.userinfo(tokens["access_token"]))


@pytest.mark.parametrize("revoker_stands", [True, False])
def test_RE_20_logout_meets_revocation(arena: Arena, revoker_stands: bool) -> None:
    """Logging out while being cut: both are answered, nothing deadlocks, and the offline family dies although a logout spares it."""
    person = arena.person(role=Role.STORE_MANAGER)
    browser = arena.logged_in(person, acr="urn:sekisho:aal2")
    tokens = offline_tokens(arena, browser)
    csrf = browser.forms(browser.get("/me/password"))[-1]["fields"]["csrf_token"]
    before = arena.deadlocks()

    def stop() -> Any:
        return arena.admins[0].stop(person)

    def leave() -> Any:
        return browser.post("/logout", {"csrf_token": csrf}, follow=False)

    works = [(stop, leave), (leave, stop)][not revoker_stands]
    met = arena.stage.meet(*works, pause=committing("UPDATE app_session SET ended_at"))
    assert met.stood
    assert met.waited
    assert {met.first.status_code, met.second.status_code} == {200, 303}
    assert arena.deadlocks() == before
    assert not accepted(arena.offline.refresh(tokens["refresh_token"]))
