"""OA-15, OA-16, OA-26, OI-13, OI-14: refresh tokens."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from idp.core import clock
from idp.core.db import transaction
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens import ends
from idp.domain.tokens.models import TokenFamily
from idp.ledgers.audit.events import Tag
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.actors import CLI, Browser, RelyingParty
from tests.protocol.oidc.conftest import Provider

At = Callable[[float], datetime]
OFFLINE = "openid profile offline_access"


def refreshed(client: RelyingParty, token: str, **over: str) -> dict[str, Any]:
    """A refresh that must work."""
    answer = client.refresh(token, **over)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: RelyingParty, token: str) -> bool:
    """A refresh that must not."""
    answer = client.refresh(token)
    return (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_OA_15_a_confidential_client_keeps_its_token(provider: Provider) -> None:
    """D4, RFC 9700 §4.14: no rotation where the client authenticates. Suite: oidcc-refresh-token."""
    client, browser = provider.visit()
    tokens = client.log_in(browser)
    first, second = refreshed(client, tokens["refresh_token"]), refreshed(client, tokens["refresh_token"])
    assert first["refresh_token"] == second["refresh_token"] == tokens["refresh_token"]
    assert first["access_token"] != tokens["access_token"]
    assert client.userinfo(second["access_token"]).status_code == 200


def test_OA_15_only_a_client_registered_for_it_gets_one(provider: Provider) -> None:
    """OA-15 *when issued*."""
    client, browser = provider.visit(refresh_allowed=False, offline_allowed=True)
    tokens = client.log_in(browser, scope=OFFLINE)
    assert "refresh_token" not in tokens
    assert client.refresh("x").json()["error"] == "unauthorized_client"


def test_OA_15_a_public_client_rotates(provider: Provider, at: At) -> None:
    """RFC 9700 §4.14.2: each use gives a new token, and the chain can go on."""
    at(0)
    person = provider.somebody()
    client, browser = provider.public(), provider.browser(person)
    token = client.log_in(browser)["refresh_token"]
    seen = {token}
    for second in (60, 120, 180):
        at(second)
        token = refreshed(client, token)["refresh_token"]
        seen.add(token)
    assert len(seen) == 4


def test_OA_15_a_lost_answer_gives_the_same_successor(provider: Provider, at: At) -> None:
    """OA-15: the same client, within 10 seconds, while the successor is unused, gets the *same* successor: one branch."""
    at(0)
    client = provider.public()
    browser = provider.browser(provider.somebody())
    first = client.log_in(browser)["refresh_token"]
    at(60)
    second = refreshed(client, first)["refresh_token"]
    at(65)
    assert refreshed(client, first)["refresh_token"] == second
    at(70)
    again = refreshed(client, first)
    assert again["refresh_token"] == second
    assert client.userinfo(again["access_token"]).status_code == 200
    third = refreshed(client, second)["refresh_token"]
    assert third not in {first, second}


@pytest.mark.parametrize("case", ["after the grace", "after the successor was used", "two generations old"])
def test_OA_15_reuse_ends_the_family_and_its_app_session(provider: Provider, at: At, case: str) -> None:
    """RFC 9700 §4.14.2, ASVS 10.4.5: one of the two who presented it is a thief. Family, access tokens and app session end,
    the relying party is told, the log has `refresh_reuse`; the login and other applications live on."""
    at(0)
    person = provider.person()
    client, other = provider.public(), provider.application()
    browser = provider.browser(person)
    tokens, elsewhere = client.log_in(browser), other.log_in(browser)
    first = tokens["refresh_token"]
    at(60)
    newest = refreshed(client, first)
    if case == "after the grace":
        at(71)
    else:
        newest = refreshed(client, newest["refresh_token"])
    if case == "two generations old":
        at(63)
        newest = refreshed(client, newest["refresh_token"])
    assert client.userinfo(newest["access_token"]).status_code == 200
    assert refused(client, first)
    assert refused(client, newest["refresh_token"])
    assert client.userinfo(newest["access_token"]).status_code == 401
    assert provider.count(Tag.REFRESH_REUSE, person) == 1
    provider.world.deliver()
    (call,) = provider.outbound.to(client.logout_uri or "")
    assert client.claims(call.form["logout_token"])["sid"] == client.claims(tokens["id_token"])["sid"]
    assert refreshed(other, elsewhere["refresh_token"])
    assert client.log_in(browser)["refresh_token"]
    rows = provider.world.rows(
        select(TokenFamily.end_reason).where(TokenFamily.account_id == person.id, TokenFamily.ended_at.is_not(None))
    )
    assert [row[0] for row in rows] == ["refresh_reuse"]


def test_OA_15_reuse_in_an_offline_family(provider: Provider, at: At) -> None:
    """The family concerned ends although it would outlive a logout (LO-06)."""
    at(0)
    manager = provider.person(role=Role.STORE_MANAGER)
    client = provider.public(offline_allowed=True)
    browser = provider.browser(manager)
    first = client.log_in(browser, scope=OFFLINE)["refresh_token"]
    at(60)
    second = refreshed(client, first)["refresh_token"]
    at(90)
    assert refused(client, first)
    assert refused(client, second)


def test_OA_15_only_the_client_it_was_given_to(provider: Provider) -> None:
    """RFC 6749 §6: another client's try is refused and harms nobody."""
    person, client, browser = provider.enter(own=True)
    token = client.log_in(browser)["refresh_token"]
    assert refused(provider.application(), token)
    assert refused(provider.public(), token)
    assert refreshed(client, token)
    assert provider.count(Tag.REFRESH_REUSE, person) == 0


def test_OA_15_invented_tokens(provider: Provider) -> None:
    """OA-18: unguessable; family and generation are only read when the MAC is ours, and no text is a fault of ours."""
    person, client, browser = provider.enter(own=True)
    good = client.log_in(browser)["refresh_token"]
    family, generation, mac = good.split(".")
    nobody = base64.urlsafe_b64encode(bytes(16)).rstrip(b"=").decode()
    bad = [
        "", "x", "..", "あ.1.x", f"{family}.2.{mac}", f"{family}.0.{mac}", f"{family}.-1.{mac}", f"{family}.１.{mac}", f"{family}.{'9' * 30}.{mac}",
        f"{family}.{'9' * 9}.{mac}", f"{nobody}.1.{mac}", f"{family}.1.{mac[:-4]}AAAA", f"{family}.1.", f"{family}.1.{mac}.x", "x" * 5000, "\0",
    ]  # fmt: skip
    for token in bad:
        assert refused(client, token), token
    assert client.token(grant_type="refresh_token").json()["error"] == "invalid_request"
    both = client.token(grant_type="refresh_token", refresh_token=good, code="x")
    assert both.status_code == 200  # a parameter of another grant is not ours to read
    assert generation == "1"
    assert provider.count(Tag.REFRESH_REUSE, person) == 0


def test_OA_16_the_life_of_a_family_is_absolute(provider: Provider, at: At) -> None:
    """ASVS 10.4.8: 30 days at most, however often it is used. Offline, since a login session ends earlier."""
    at(0)
    manager = provider.person(role=Role.STORE_MANAGER)
    client, native = provider.application(offline_allowed=True), provider.public(offline_allowed=True)
    browser = provider.browser(manager)
    token, rotating = (
        client.log_in(browser, scope=OFFLINE)["refresh_token"],
        native.log_in(browser, scope=OFFLINE)["refresh_token"],
    )
    for day in (10, 20, 29.99):
        at(day * 86400)
        refreshed(client, token)
        rotating = refreshed(native, rotating)["refresh_token"]
    at(30 * 86400)
    assert refused(client, token)
    assert refused(native, rotating)


def test_OA_16_a_family_ends_with_its_login_session(provider: Provider, at: At) -> None:
    """OA-15, LO-06: idle and the end of the login end what lives in it, with no worker running; offline it lives on."""
    at(0)
    manager = provider.person(role=Role.STORE_MANAGER)
    client = provider.application(offline_allowed=True)
    browser = provider.browser(manager)
    offline = client.log_in(browser, scope=OFFLINE)["refresh_token"]
    inside = client.log_in(browser)
    at(29 * 60)
    assert refreshed(client, inside["refresh_token"])
    at(30 * 60)
    assert refused(client, inside["refresh_token"])
    assert client.userinfo(inside["access_token"]).status_code == 401
    assert refreshed(client, offline)


@pytest.mark.parametrize("who", ["the same person", "somebody else"])
def test_OA_15_a_second_login_in_a_browser_ends_the_first(provider: Provider, at: At, who: str) -> None:
    """OA-15 *switch*, AC-40: after a new login and a logout nothing of this browser lives on."""
    at(0)
    person, client, browser = provider.enter(own=True)
    token = client.log_in(browser)["refresh_token"]
    at(10)
    browser.get(client.authorization_url(prompt="select_account"))
    browser.log_in(person if who == "the same person" else provider.person(), at="")
    fields = next(f for f in browser.forms(browser.get("/me/sessions")) if f["action"] == "/logout")["fields"]
    assert browser.post("/logout", fields).status_code == 200
    assert refused(client, token)


def test_OA_16_a_changed_password_ends_every_family(provider: Provider) -> None:
    """OA-16, ASVS 7.4.3: other browsers and everything offline; what belongs to the browser that changed it lives on."""
    person = provider.person(role=Role.STORE_MANAGER)
    client = provider.application(offline_allowed=True)
    here, there = provider.browser(person), provider.browser()
    mine, offline = client.log_in(here), client.log_in(here, scope=OFFLINE)
    with provider.app.app_context(), transaction() as session:
        # what the page does after the new password is stored
        keep = session.scalar(select(LoginSession.id).where(LoginSession.account_id == person.id))
        ends.end_other_logins(session, person.id, keep=keep, reason="password_changed", now=clock.now())
    assert there.cookie == ""
    assert refreshed(client, mine["refresh_token"])
    assert refused(client, offline["refresh_token"])


def test_OA_16_a_password_changed_on_the_page(provider: Provider) -> None:
    """OA-16 by the page itself: the colleague who knew the old password holds nothing afterwards."""
    person, client, browser = provider.enter(own=True)
    with Browser(provider.app) as thief:
        thief.log_in(person)
        stolen = client.log_in(thief)
        browser.get("/me/password")
        fields = browser.forms()[-1]["fields"]
        names = [name for name in fields if name != "csrf_token"]
        new = "a new and quiet river 42"
        values = {name: person.password if "old" in name or "current" in name else new for name in names}
        answer = browser.submit(**values)
        assert answer.status_code == 200, (names, answer.text[-1500:])
        assert refused(client, stolen["refresh_token"])
        assert client.userinfo(stolen["access_token"]).status_code == 401
        assert "/login" in str(thief.get("/").url)


def test_OA_16_a_new_authenticator_ends_what_other_browsers_hold(provider: Provider, at: At) -> None:
    """OA-16, ASVS 7.4.3: enrolling a second factor on the page; this browser's own sessions go on, offline grants do not."""
    at(0)
    person = provider.person(role=Role.STORE_MANAGER, totp=False)
    client = provider.application(offline_allowed=True)
    here, there = provider.browser(person), provider.browser(person)
    mine, theirs, offline = client.log_in(here), client.log_in(there), client.log_in(here, scope=OFFLINE)
    page = here.get("/me/security/totp/new")
    seed = re.search(r"(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}", page.text)
    assert seed is not None
    person.totp_secret = seed[0].replace(" ", "")
    assert here.submit(code=person.code()).status_code == 200
    assert refreshed(client, mine["refresh_token"])
    assert refused(client, theirs["refresh_token"])
    assert refused(client, offline["refresh_token"])
    assert client.userinfo(theirs["access_token"]).status_code == 401


@pytest.mark.parametrize("scope", ["openid profile", OFFLINE])
def test_OA_16_a_changed_store_ends_every_family(provider: Provider, scope: str) -> None:
    """OA-16, RV-27: claims list all stores, so leaving one ends all grants; the login lives on and issues claims with the
    other store alone."""
    person = provider.person(role=Role.STORE_MANAGER)
    provider.world.assign(person, "S2", Role.STORE_MANAGER)
    client = provider.application(offline_allowed=True)
    browser = provider.browser(person)
    tokens, code = client.log_in(browser, scope=scope), client.code(browser)
    with provider.app.app_context(), transaction() as session:
        target, order = Target(Scope.ASSIGNMENT, person.assignment_id), Order(Reason.MOVED, Door.CLI)
        cascade.revoke(session, target, order, actor=CLI, now=clock.now())
    assert refused(client, tokens["refresh_token"])
    assert client.userinfo(tokens["access_token"]).status_code == 401
    assert client.redeem(code).json()["error"] == "invalid_grant"
    again = client.claims(client.log_in(browser)["id_token"])
    assert [store["code"] for store in again["stores"]] == ["S2"]


def test_OA_26_scope_only_shrinks(provider: Provider) -> None:
    """RFC 6749 §6, RFC 9068: less on request, for that access token alone; never more."""
    client, browser = provider.visit()
    tokens = client.log_in(browser)
    less = refreshed(client, tokens["refresh_token"], scope="openid")
    assert less["scope"] == "openid"
    assert "name" not in client.userinfo(less["access_token"]).json()
    assert "name" not in client.claims(less["id_token"])
    assert refreshed(client, tokens["refresh_token"])["scope"] == "openid profile"
    for scope in ("openid profile offline_access", "openid email", "profile", "openid admin"):
        assert client.refresh(tokens["refresh_token"], scope=scope).json()["error"] == "invalid_scope", scope
    narrow = client.log_in(browser, scope="openid")
    assert client.refresh(narrow["refresh_token"], scope="openid profile").json()["error"] == "invalid_scope"
    assert client.refresh(tokens["refresh_token"], resource="https://b.example").json()["error"] == "invalid_target"


def test_OA_26_a_token_of_one_api_is_no_token_of_another(provider: Provider) -> None:
    """RFC 8707: the audience is one string, our userinfo endpoint; each client's tokens show that client's functions."""
    client, browser = provider.visit(functions=("points.view",))
    other = provider.application(functions=("stock.count",))
    mine, theirs = client.log_in(browser)["access_token"], other.log_in(browser)["access_token"]
    assert client.claims(mine)["aud"] == client.claims(theirs)["aud"] == "http://localhost:8000/oidc/userinfo"
    assert client.userinfo(theirs).json()["functions"] == ["stock.count"]
    assert client.userinfo(mine).json()["functions"] == ["points.view"]


@pytest.mark.parametrize("prompt", [None, "consent", "consent login"])
def test_OI_13_a_part_timer_gets_no_offline_grant(provider: Provider, prompt: str | None) -> None:
    """OI-13: by no path, also where the application may."""
    person = provider.person()
    client, native = provider.application(offline_allowed=True), provider.public(offline_allowed=True)
    for rp in (client, native):
        browser = provider.browser(person)
        answer = browser.get(rp.authorization_url(scope=OFFLINE, prompt=prompt))
        if "/login" in str(answer.url):
            answer = browser.log_in(person, at="")
        tokens = rp.redeem(rp.answer(answer)["code"]).json()
        assert tokens["scope"] == "openid profile"
        assert rp.refresh(tokens["refresh_token"], scope=OFFLINE).json()["error"] == "invalid_scope"
        browser.get("/")
        browser.post("/logout", browser.forms()[0]["fields"])
        assert refused(rp, tokens["refresh_token"])


def test_OI_13_only_an_application_that_may(provider: Provider) -> None:
    """OIDC Core §11: the scope is dropped where policy does not allow it. Suite: oidcc-refresh-token."""
    manager = provider.person(role=Role.STORE_MANAGER)
    browser = provider.browser(manager)
    assert provider.application().log_in(browser, scope=OFFLINE)["scope"] == "openid profile"
    allowed = provider.application(offline_allowed=True)
    assert allowed.log_in(browser, scope=OFFLINE, prompt="consent")["scope"] == OFFLINE


def test_OI_14_the_id_token_of_a_refresh(provider: Provider, at: At) -> None:
    """OIDC Core §12.2: same iss, sub, aud, sid; the original auth_time; no nonce. Suite: oidcc-refresh-token."""
    at(0)
    person = provider.person()
    client, browser = provider.application(), provider.browser(person)
    tokens = client.log_in(browser)
    at(300)
    browser.get("/login/step-up")
    assert (
        browser.submit(password=person.password).status_code < 400
    )  # a later proof must not move the old token's auth_time
    before, after = (
        client.claims(tokens["id_token"]),
        client.claims(refreshed(client, tokens["refresh_token"])["id_token"]),
    )
    for name in ("iss", "sub", "aud", "azp", "sid", "auth_time", "acr", "amr"):
        assert after[name] == before[name], name
    assert "nonce" not in after
    assert after["iat"] == before["iat"] + 300
    assert after["at_hash"] != before["at_hash"]
