"""OI-01 to OI-08: what a request may wish of the person's login. All of it is ours: the library ignores it (F16)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlencode

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.actors import Browser, RelyingParty
from tests.protocol.oidc.conftest import Provider, page_of

At = Callable[[float], datetime]
AAL1, AAL2, AAL3 = "urn:sekisho:aal1", "urn:sekisho:aal2", "urn:sekisho:aal3"


def ask(client: RelyingParty, browser: Browser, **extra: str | None) -> httpx2.Response:
    """One authorization request, without following the answer."""
    return browser.get(client.authorization_url(**extra), follow=False)


def error(client: RelyingParty, answer: httpx2.Response) -> str | None:
    """The error that the relying party got; None when it got a code."""
    got = client.answer(answer)
    assert ("error" in got) != ("code" in got)
    return got.get("error")


def waits(answer: httpx2.Response, page: str = "/login") -> bool:
    """The person is asked for something first."""
    return answer.status_code == 303 and answer.headers["location"].startswith(f"{page}?request=")


def acr(essential: bool, *values: str) -> str:
    """A claims parameter that asks for assurance."""
    return json.dumps({"id_token": {"acr": {"essential": essential, "values": list(values)}}})


# --- OI-01, OI-02, OI-03 ---------------------------------------------------------------------------------------------


def test_OI_01_prompt_none(provider: Provider) -> None:
    """OIDC Core §3.1.2.1, §3.1.2.6. Suite: oidcc-prompt-none-logged-in, oidcc-prompt-none-not-logged-in. Never a page of
    ours: the answer is a redirect, whatever is missing."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, prompt="none")) is None
    nobody = provider.browser()
    assert error(client, ask(client, nobody, prompt="none")) == "login_required"
    assert (
        error(
            client, ask(client, nobody, prompt="none", acr_values=AAL2, max_age="0", ui_locales="en", display="popup")
        )
        == "login_required"
    )
    nobody.http.cookies.set("sekisho", "x" * 43)
    assert error(client, ask(client, nobody, prompt="none")) == "login_required"
    strict = provider.application(min_acr=AAL2)
    assert error(strict, ask(strict, browser, prompt="none")) == "unmet_authentication_requirements"
    for answer in (ask(client, nobody, prompt="none"), ask(strict, browser, prompt="none")):
        assert answer.status_code == 303


@pytest.mark.parametrize(
    "prompt", ["none login", "login none", "none consent", "none none x", "NONE", "unknown", "login;none"]
)
def test_OI_01_contradictory_or_unknown_prompts(provider: Provider, prompt: str) -> None:
    """OIDC Core §3.1.2.1: none with anything else is an error."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, prompt=prompt)) == "invalid_request"


def test_OI_02_prompt_login(provider: Provider, at: At) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-prompt-login. The person logs in again, auth_time moves, and the same request then
    succeeds once; a remembered device skips nothing."""
    at(0)
    person, client, browser = provider.enter()
    before = client.claims(client.log_in(browser)["id_token"])
    at(10)
    for prompt in ("login", "select_account", "login consent"):
        answer = ask(client, browser, prompt=prompt)
        assert waits(answer)
        browser.get(answer.headers["location"])
        assert "password" in browser.forms()[-1]["fields"]
        again = browser.get(answer.headers["location"].replace("/login", "/oidc/authorize"), follow=False)
        assert waits(again)  # going on without logging in leads back to the login page
    at(20)
    browser.get(client.authorization_url(prompt="login"))
    done = browser.log_in(person, at="")
    after = client.claims(client.redeem(client.answer(done)["code"]).json()["id_token"])
    assert after["auth_time"] == before["auth_time"] + 20
    assert after["sub"] == before["sub"]


@pytest.mark.parametrize(
    ("max_age", "again"), [("1", True), ("9", True), ("10", False), ("10000", False), ("", False), ("999999999", False)]
)
def test_OI_03_max_age(provider: Provider, at: At, max_age: str, again: bool) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-max-age-1, oidcc-max-age-10000. auth_time is always there."""
    at(0)
    person, client, browser = provider.enter()
    at(10)
    assert error(client, ask(client, browser, max_age=max_age, prompt="none")) == ("login_required" if again else None)
    answer = ask(client, browser, max_age=max_age)
    assert waits(answer) == again
    if again:
        browser.get(answer.headers["location"])
        answer = browser.log_in(person, at="")
    claims = client.claims(client.redeem(client.answer(answer)["code"]).json()["id_token"])
    assert claims["iat"] - claims["auth_time"] == (0 if again else 10)


def test_OI_03_max_age_zero_is_a_fresh_login(provider: Provider, at: At) -> None:
    """OIDC Core §3.1.2.1: 0 means now, and the login it leads to satisfies it, however long the person takes."""
    at(0)
    person, client, browser = provider.enter()
    at(1)
    assert error(client, ask(client, browser, max_age="0", prompt="none")) == "login_required"
    browser.get(client.authorization_url(max_age="0"))
    at(200)
    assert client.answer(browser.log_in(person, at=""))["code"]


@pytest.mark.parametrize(
    "max_age", ["-1", "1.5", "1e3", "abc", "+1", "0x10", "１", "100000000000000000000", " 1", "1;2"]
)
def test_OI_03_max_age_that_is_no_number(provider: Provider, max_age: str) -> None:
    """OIDC Core §3.1.2.1: an error, not a guess and not a 500."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, max_age=max_age)) == "invalid_request"


def test_OI_01_a_silent_request_is_no_activity(provider: Provider, at: At) -> None:
    """AC-41, OI-01: opening an application moves the idle limit; a script that asks every minute does not keep a login alive."""
    at(0)
    _, client, browser = provider.enter()
    at(20 * 60)
    assert error(client, ask(client, browser)) is None
    for minute in range(21, 50, 4):
        at(minute * 60)
        assert error(client, ask(client, browser, prompt="none")) is None
    at(50 * 60)
    assert error(client, ask(client, browser, prompt="none")) == "login_required"


# --- OI-04, OI-05 ----------------------------------------------------------------------------------------------------


def test_OI_04_id_token_hint(provider: Provider, at: At) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-id-token-hint. The person of the hint goes straight on, also with an expired token;
    another one gets `login_required` silently and the login page otherwise."""
    at(0)
    person, client, browser = provider.enter()
    hint = client.log_in(browser)["id_token"]
    other = provider.person()
    elsewhere = provider.browser(other)
    at(600)
    assert error(client, ask(client, browser, prompt="none", id_token_hint=hint)) is None
    assert error(client, ask(client, elsewhere, prompt="none", id_token_hint=hint)) == "login_required"
    answer = ask(client, elsewhere, id_token_hint=hint)
    assert waits(answer)
    page = elsewhere.get(answer.headers["location"])
    assert person.login_name not in page.text.replace(client.slug, "")  # the hint discloses nothing about its subject
    assert person.name not in page.text
    at(601)
    wrong = elsewhere.log_in(other, at="")
    assert error(client, wrong) == "login_required"  # logged in afresh, and still not the one who was meant
    at(602)
    elsewhere.get(client.authorization_url(id_token_hint=hint))
    right = elsewhere.log_in(person, at="")
    assert client.answer(right)["code"]


def test_OI_04_hints_that_are_none(provider: Provider) -> None:
    """OIDC Core §3.1.2.2: signature, iss, own aud and the typ of an ID token. Access, logout and foreign tokens: OA-25 has
    the matrix; here another client's ID token and an unsigned one."""
    client, browser = provider.visit()
    other = provider.application()
    theirs, mine = other.log_in(browser), client.log_in(browser)
    foreign = ECKey.generate_key("P-256")
    made_up = jwt.encode(
        {"alg": "ES256", "typ": "JWT", "kid": "x"}, client.claims(mine["id_token"]), foreign, algorithms=["ES256"]
    )
    for hint in (
        theirs["id_token"],
        mine["access_token"],
        mine["refresh_token"],
        made_up,
        "x",
        "x.y.z",
        "." * 3000,
        "あ",
    ):
        for prompt in ("none", None):
            assert error(client, ask(client, browser, prompt=prompt, id_token_hint=hint)) == "invalid_request", hint
    assert error(client, ask(client, browser, prompt="none", id_token_hint="")) is None


@pytest.mark.parametrize(
    "hint", ["AOBA/0413", "nobody@example.com", '"><script>alert(1)</script>', "'{{7*7}}", "x" * 4000, "あ"]
)
def test_OI_05_login_hint(provider: Provider, hint: str) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-login-hint. It decides nothing: whoever is logged in goes on, and the login page is
    the same for a known and an unknown name, with nothing of it as markup."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, login_hint=hint)) is None
    nobody = provider.browser()
    page = page_of(nobody.get(client.authorization_url(login_hint=hint)))
    assert "<script>alert" not in page
    assert "49" not in page.partition("login_id")[2][:120]
    assert "login_id" in nobody.forms()[-1]["fields"]


# --- OI-06, OI-07 ----------------------------------------------------------------------------------------------------


def test_OI_06_voluntary_assurance_is_reported_as_reached(provider: Provider) -> None:
    """OIDC Core §3.1.2.1, §5.5.1.1. Suite: oidcc-ensure-request-with-acr-values-succeeds. Silently the request never fails."""
    client, browser = provider.visit()
    for extra in (
        {"acr_values": AAL2},
        {"acr_values": "urn:mace:incommon:iap:silver 1"},
        {"claims": acr(False, AAL2)},
        {"claims": acr(False, "x")},
        {"acr_values": f"x {AAL1}"},
    ):
        code = client.answer(ask(client, browser, prompt="none", **extra))["code"]
        assert client.claims(client.redeem(code).json()["id_token"])["acr"] == AAL1
    assert error(client, ask(client, browser, acr_values="urn:unknown")) is None  # nothing that we could ask for


@pytest.mark.parametrize(
    "extra",
    [
        {"acr_values": AAL2},
        {"claims": acr(False, AAL2)},
        {"claims": acr(True, AAL2)},
        {"claims": acr(True, AAL3, AAL2)},
    ],
)
def test_OI_06_step_up_reaches_it(provider: Provider, at: At, extra: dict[str, str]) -> None:
    """D21, OI-06: a person who has a second factor is asked for it, and the ID token says what was reached."""
    at(0)
    person = provider.person(totp=True)
    client = provider.application()
    browser = provider.browser()
    browser.get("/login")
    browser.submit(login_id=person.login, password=person.password)
    at(40)
    browser.submit(code=person.code())
    assert browser.cookie
    assert error(client, ask(client, browser, **extra)) is None  # two factors shown at login are enough
    weak = provider.browser(provider.somebody())
    at(50)
    answer = ask(client, weak, **extra)
    if "acr_values" in extra or "false" in extra["claims"]:
        assert error(client, answer) is None  # voluntary, and there is no second factor to ask for
        return
    assert waits(answer, "/login/step-up")
    assert "/me/security/totp/new" in weak.get(answer.headers["location"], follow=False).headers["location"]


def test_OI_06_an_unmet_essential_class_fails(provider: Provider) -> None:
    """OIDC Core §5.5.1.1: never in silence. Suite: fapi2 …-essential-acr."""
    client, browser = provider.visit()
    for claims in (acr(True, AAL3), acr(True, "urn:unknown"), acr(True, AAL3, "x")):
        for prompt in ("none", None):
            assert (
                error(client, ask(client, browser, claims=claims, prompt=prompt)) == "unmet_authentication_requirements"
            )
    assert (
        error(client, ask(client, browser, claims=acr(True, AAL2), prompt="none"))
        == "unmet_authentication_requirements"
    )
    assert error(client, ask(client, browser, claims=acr(True, AAL3, AAL1), prompt="none")) is None
    assert error(client, ask(client, browser, claims='{"id_token":{"acr":{"essential":true}}}', prompt="none")) is None


def test_OI_06_an_application_that_demands_two_factors(provider: Provider) -> None:
    """D21: a request cannot wish for less than the application demands; nor may it confuse it with more."""
    client, browser = provider.visit(min_acr=AAL2)
    for extra in ({}, {"acr_values": AAL1}, {"claims": acr(True, AAL1)}, {"claims": acr(True, AAL1, AAL2)}):
        assert waits(ask(client, browser, **extra), "/login/step-up"), extra
        assert error(client, ask(client, browser, prompt="none", **extra)) == "unmet_authentication_requirements"
    assert error(client, ask(client, browser, claims=acr(True, "urn:unknown"))) == "unmet_authentication_requirements"


def test_OI_06_the_whole_step_up(provider: Provider, at: At) -> None:
    """OI-06 end to end: one factor at login, the code asked for by the request, aal2 in the ID token, the same subject."""
    at(0)
    person = provider.person()
    client = provider.application(min_acr=AAL2)
    browser = provider.browser(person)
    with provider.app.app_context():
        person.totp_secret = provider.world._totp(person.id)
    at(60)
    assert waits(ask(client, browser, acr_values=AAL2, prompt=None), "/login/step-up")
    browser.get(client.authorization_url())
    assert "/login/step-up" in str(browser.page.url) if browser.page else False
    tokens = client.redeem(client.answer(browser.submit(code=person.code()))["code"]).json()
    assert client.claims(tokens["id_token"])["acr"] == AAL2
    assert client.claims(tokens["id_token"])["amr"] == ["pwd", "otp", "mfa"]


def test_OI_07_claims_parameter(provider: Provider) -> None:
    """OIDC Core §5.5. Suite: oidcc-claims-essential. A claim asked for by name is there without its scope, in the place where
    it was asked for, after a refresh too; an unknown one is ignored."""
    client, browser = provider.visit()
    claims = {
        "userinfo": {"name": {"essential": True}, "picture": None},
        "id_token": {"locale": None, "auth_time": {"essential": True}, "unknown": {"value": "x"}},
    }
    tokens = client.log_in(browser, scope="openid", claims=json.dumps(claims))
    for found in (tokens, client.refresh(tokens["refresh_token"]).json()):
        info, id_token = client.userinfo(found["access_token"]).json(), client.claims(found["id_token"])
        assert info["name"] == "山本 健"
        assert "locale" not in info
        assert id_token["locale"]
        assert id_token["auth_time"]
        assert not {"name", "preferred_username"} & set(id_token)
        assert not {"picture", "unknown"} & (set(info) | set(id_token))


def test_OI_07_a_sub_of_somebody_else(provider: Provider) -> None:
    """OIDC Core §5.5.1: with a `sub` value that is not the person's the request fails; it is never issued for another."""
    client, browser = provider.visit()
    mine = client.claims(client.log_in(browser)["id_token"])
    other = provider.browser(provider.person())
    theirs = client.log_in(other)
    sub = client.claims(theirs["id_token"])["sub"]

    def wish(value: object) -> str:
        return json.dumps({"id_token": {"sub": value}})

    assert error(client, ask(client, browser, prompt="none", claims=wish({"value": mine["sub"]}))) is None
    assert error(client, ask(client, browser, prompt="none", claims=wish({"value": sub}))) == "login_required"
    assert error(client, ask(client, browser, prompt="none", claims=wish({"values": [sub]}))) == "login_required"
    assert waits(ask(client, browser, claims=wish({"value": sub})))
    # hint and claim name two people: whoever is logged in, it cannot be both
    for who in (browser, other):
        both = ask(client, who, prompt="none", claims=wish({"value": mine["sub"]}), id_token_hint=theirs["id_token"])
        assert error(client, both) == "login_required"


@pytest.mark.parametrize(
    "claims",
    [
        "[", "[]", "1", "null", '"x"', "true", '{"id_token": 1}', '{"userinfo": "x"}', '{"id_token": ["acr"]}', "[" * 5000,
        '{"id_token": {"acr": {"essential": true, "values": 5}}}', '{"id_token": {"acr": {"essential": true, "values": "aal2"}}}',
        '{"id_token": {"acr": {"essential": true, "values": [1]}}}', '{"id_token": {"acr": {"value": {"a": 1}}}}', '{"id_token": {"sub": {"value": 1}}}',
    ],
)  # fmt: skip
def test_OI_07_claims_that_are_none(provider: Provider, claims: str) -> None:
    """OIDC Core §5.5: a JSON object of objects, or an error."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, claims=claims)) == "invalid_request"


@pytest.mark.parametrize(
    "claims",
    [
        "{}",
        "",
        '{"id_token": null}',
        '{"id_token": {"acr": null, "sub": null}}',
        '{"id_token": {"acr": {}}}',
        '{"x": 1}',
        '{"userinfo": {"あ": {"value": []}}}',
    ],
)
def test_OI_07_claims_that_ask_for_nothing(provider: Provider, claims: str) -> None:
    """OIDC Core §5.5: null means in the default manner; other members are ignored."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, claims=claims)) is None


# --- OI-08 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ui_locales", "claims_locales", "display"])
@pytest.mark.parametrize(
    "value",
    [
        "en",
        "se",
        "fr-CA fr en",
        "page",
        "popup",
        "touch",
        "wap",
        "../../../../etc/passwd",
        "ja\0en"[:2],
        "x" * 4096,
        "%2e%2e/ja",
        "'\";--",
        "あ",
    ],
)
def test_OI_08_preferences_are_never_an_error(provider: Provider, name: str, value: str) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-ui-locales, oidcc-claims-locales, oidcc-display-page, oidcc-display-popup. No locale is
    a path."""
    client, browser = provider.visit()
    assert error(client, ask(client, browser, **{name: value})) is None
    page = provider.browser().get(client.authorization_url(**{name: value}))
    assert page.status_code == 200
    assert "root:" not in page.text
    assert "login_id" in page.text
    assert provider.browser().get(f"/login?{urlencode({'lang': value})}").status_code == 200


def test_the_way_back_is_no_url(provider: Provider, at: At) -> None:
    """WB-05, OA-10: the login page carries a handle; it is good for half an hour, for one answer, and for nothing else."""
    at(0)
    person, client, browser = provider.somebody(), provider.application(), provider.browser()
    browser.get(client.authorization_url())
    handle = browser.forms()[-1]["fields"]["request"]
    assert client.redirect_uri not in handle
    assert "://" not in str(browser.page.url).partition("?")[2] if browser.page else False
    at(30 * 60)
    answer = browser.submit(login_id=person.login, password=person.password)
    assert answer.status_code == 400
    page_of(answer)
