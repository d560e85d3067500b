"""The back-channel logout receiver: what it believes, what it refuses, and what it ends."""

import threading
from typing import Any

import pytest
from console_actors import Browser
from console_fake_provider import KEN, LOGOUT_EVENT, FakeProvider
from flask import Flask
from joserfc.jwk import ECKey
from werkzeug.test import TestResponse

from connectors.demo.console.entropy import now
from connectors.demo.console.misbehave import SLOW_S, Misbehaviour


def send(browser: Browser, token: str) -> TestResponse:
    return browser.client.post("/backchannel-logout", data={"logout_token": token})


def test_sid_ends_that_session_only(browser: Browser, other_browser: Browser, provider: FakeProvider) -> None:
    """Back-Channel Logout 1.0 §2.6, §2.8; LO-05."""
    browser.login()
    other_browser.login()
    answer = send(browser, provider.logout_token(sub="acc-hanako", sid=browser.sid))
    assert (answer.status_code, answer.data, answer.headers["Cache-Control"]) == (200, b"", "no-store")
    assert not browser.logged_in
    assert other_browser.logged_in


def test_sub_alone_ends_three_sessions_and_nobody_elses(app: Flask, provider: FakeProvider) -> None:
    """LO-05: an RP with three sessions loses three."""
    three = [Browser(app, provider) for _ in range(3)]
    for browser in three:
        browser.login()
    provider.person = KEN
    ken = Browser(app, provider)
    ken.login()
    assert send(ken, provider.logout_token(sub="acc-hanako")).status_code == 200
    assert [browser.logged_in for browser in three] == [False, False, False]
    assert ken.logged_in


def test_sid_of_another_subject_ends_nothing(browser: Browser, provider: FakeProvider) -> None:
    browser.login()
    assert send(browser, provider.logout_token(sub="acc-ken", sid=browser.sid)).status_code == 200
    assert browser.logged_in


def test_nothing_left_to_end_is_a_success(browser: Browser, provider: FakeProvider) -> None:
    """Back-Channel Logout 1.0 §2.8: the RP is logged out, which is what was asked."""
    assert send(browser, provider.logout_token(sub="nobody")).status_code == 200


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ({"nonce": "n"}, "nonce"),
        ({"drop": ("events",)}, "events"),
        ({"events": {}}, "events"),
        ({"events": {LOGOUT_EVENT: {}, "https://x.example/event": {}}}, "events"),
        ({"events": {LOGOUT_EVENT: {"x": 1}}}, "events"),
        ({"events": [LOGOUT_EVENT]}, "events"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": ["point-console", "another-client"]}, "aud"),
        ({"drop": ("aud",)}, "aud"),
        ({"iss": "https://other.example"}, "iss"),
        ({"drop": ("iss",)}, "iss"),
        ({"iat": 1000, "exp": 1100}, "expired"),
        ({"drop": ("exp",)}, "exp"),
        ({"drop": ("iat",)}, "iat"),
        ({"in": {"iat": 3600, "exp": 3700}}, "iat"),
        ({"in": {"exp": 3600}}, "exp"),
        ({"exp": True}, "exp"),
        ({"drop": ("jti",)}, "jti"),
        ({"jti": 7}, "jti"),
        ({"drop": ("sub",)}, "neither"),
        ({"sub": ""}, "sub"),
        ({"sid": ["x"]}, "sid"),
        ({"acr": "urn:sekisho:aal1"}, "unexpected"),
        ({"header": {"typ": "JWT"}}, "typ"),
        ({"header": {"typ": None}}, "typ"),
        ({"header": {"kid": "unknown"}}, "signature"),
    ],
    ids=str,
)
def test_flawed_logout_token_is_refused_and_ends_nothing(settled: Browser, flaw: dict[str, Any], said: str) -> None:
    """Back-Channel Logout 1.0 §2.4 and §2.6; LO-04: each missing or extra claim. "in" is seconds from now:
    a test's name may not hold the clock, or two workers collect two different sets."""
    flaw = dict(flaw)
    times = {claim: int(now()) + seconds for claim, seconds in flaw.pop("in", {}).items()}
    answer = send(settled, settled.provider.logout_token(**{"sub": "acc-hanako", **flaw, **times}))
    assert answer.status_code == 400
    assert answer.json["error"] == "invalid_request"
    assert said in answer.json["error_description"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert settled.logged_in


def test_bad_signature_and_other_kinds_of_token_are_refused(browser: Browser, provider: FakeProvider) -> None:
    browser.login()
    token = provider.logout_token(sub="acc-hanako")
    head, body, signature = token.split(".")
    stranger = ECKey.generate_key("P-256", {"kid": "k1"})
    forged = provider.sign({"iss": provider.issuer, "sub": "acc-hanako"}, {"typ": "logout+jwt"}, stranger)
    flipped = f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    id_token = provider.id_token({"person": KEN, "sid": "s", "request": {"nonce": "n"}}, "t")
    for wrong in (forged, flipped, f"{head}.{body}.", id_token, "", "x.y.z", "é"):
        assert send(browser, wrong).status_code == 400
    assert browser.logged_in


def test_replayed_jti_is_refused(browser: Browser, provider: FakeProvider) -> None:
    """Back-Channel Logout 1.0 §2.6 step 8."""
    token = provider.logout_token(sub="acc-hanako")
    assert send(browser, token).status_code == 200
    browser.login()
    answer = send(browser, token)
    assert (answer.status_code, answer.json["error_description"]) == (400, "jti was already used")
    assert browser.logged_in


def test_only_one_form_parameter_is_a_request(browser: Browser, provider: FakeProvider) -> None:
    """Back-Channel Logout 1.0 §2.5."""
    token = provider.logout_token(sub="acc-hanako")
    assert browser.client.post("/backchannel-logout", json={"logout_token": token}).status_code == 400
    assert browser.client.post(f"/backchannel-logout?logout_token={token}").status_code == 400
    assert browser.client.post("/backchannel-logout", data={"logout_token": [token, token]}).status_code == 400
    assert browser.client.get("/backchannel-logout").status_code == 405


@pytest.mark.parametrize("names", ["sid", "sub"])
def test_logout_that_overtakes_the_code_exchange_is_not_lost(
    browser: Browser, other_browser: Browser, provider: FakeProvider, names: str
) -> None:
    """product.md promise 1: the notice arrives after the code was redeemed and before our session exists."""

    def cut(grant: dict[str, Any]) -> None:
        named = {"sid": grant["sid"]} if names == "sid" else {"sub": grant["person"]["sub"]}
        done = threading.Thread(target=lambda: send(other_browser, provider.logout_token(**named)))
        done.start()
        done.join()

    provider.after_exchange = cut
    assert browser.login().status_code == 400
    assert not browser.logged_in
    provider.after_exchange = None
    assert browser.login().status_code == 303


def test_form_of_an_ended_session_writes_nothing(browser: Browser, provider: FakeProvider) -> None:
    """No use after the cut: the page was open, the session was ended, then the person pressed the button."""
    browser.login()
    action = browser.get("/").text.split('<a href="/members/')[1].partition('"')[0]
    page = browser.get(f"/members/{action}")
    send(browser, provider.logout_token(sub="acc-hanako"))
    assert page.status_code == 200
    answer = browser.client.post(f"/members/{action}/points", data={"direction": "add", "amount": "5", "reason": "x"})
    assert answer.status_code == 401
    assert browser.get("/").location == "/login"


@pytest.mark.parametrize(
    ("flaw", "status", "lives"),
    [
        (Misbehaviour.LYING, 200, True),
        (Misbehaviour.REDIRECT, 302, True),
        (Misbehaviour.DOWN, 503, True),
        (Misbehaviour.SLOW, 200, False),
    ],
)
def test_misbehaving_console(
    misbehaving: Any, provider: FakeProvider, flaw: Misbehaviour, status: int, *, lives: bool
) -> None:
    """LO-07: the peers that a provider must survive and must not believe."""
    browser, pauses = misbehaving(flaw)
    assert send(browser, provider.logout_token(sub="acc-hanako")).status_code == status
    assert browser.logged_in is lives
    assert pauses == ([SLOW_S] if flaw is Misbehaviour.SLOW else [])
