"""Coming and going at the reference relying party, against a real (fake) provider."""

import base64
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from console_actors import Browser
from console_fake_provider import HANAKO, KEN, FakeProvider
from joserfc.jwk import ECKey, OctKey
from joserfc.jws import JWSRegistry

from connectors.demo.console import create_console
from connectors.demo.console.config import Config
from connectors.demo.console.entropy import now


def test_login_brings_the_claims_of_the_person(browser: Browser) -> None:
    answer = browser.login()
    assert (answer.status_code, answer.location) == (303, "/")
    who = browser.get("/whoami").json
    assert {name: who[name] for name in ("sub", "name", "company", "stores", "functions")} == {
        name: HANAKO[name] for name in ("sub", "name", "company", "stores", "functions")
    }
    page = browser.get("/", headers={"Accept-Language": "ja"}).text
    assert "髙橋 花子" in page
    assert "AOBA/0413" in page
    assert "青葉商店" in page


def test_nobody_is_sent_to_the_provider_by_the_code_flow_with_pkce(browser: Browser, provider: FakeProvider) -> None:
    """OIDC Core §3.1.2.1, RFC 7636 §4.3."""
    assert browser.get("/").location == "/login"
    query = parse_qs(urlsplit(browser.get("/login?login_hint=AOBA/0413").location).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == ["http://localhost:8010/callback"]
    assert query["login_hint"] == ["AOBA/0413"]
    assert len(query["state"][0]) == len(query["nonce"][0]) == len(query["code_challenge"][0]) == 43
    assert browser.get("/whoami").status_code == 401


def test_session_cookie_is_hidden_from_scripts_and_holds_no_token(browser: Browser, config: Config) -> None:
    """ASVS 3.3; the row holds the digest of the cookie only."""
    answer = browser.login()
    cookie = next(c for c in answer.headers.getlist("Set-Cookie") if c.startswith("console_session="))
    assert {"HttpOnly", "Path=/", "SameSite=Lax"} == {part.strip() for part in cookie.split(";")[1:]}
    value = cookie.partition("=")[2].partition(";")[0]
    assert len(value) == 43
    for file in config.database.parent.iterdir():
        assert value.encode() not in file.read_bytes()


def test_third_party_initiated_login_lands_on_the_wished_page(browser: Browser, provider: FakeProvider) -> None:
    """OIDC Core §4."""
    target = "http://localhost:8010/members/1"
    answer = browser.login(f"/login?iss={provider.issuer}&target_link_uri={target}")
    assert answer.location == "/members/1"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "http://localhost:8010.evil.example/",
        "http://localhost:8010@evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/members/1/../../x",
        "javascript:alert(1)",
        "http://localhost:8010/logout",
    ],
)
def test_open_redirect_is_refused(settled: Browser, target: str) -> None:
    """OIDC Core §4, requirements.md OI-17."""
    assert settled.get("/login", query_string={"target_link_uri": target}).status_code == 400


def test_login_for_another_issuer_is_refused(browser: Browser) -> None:
    assert browser.get("/login?iss=https://other.example").status_code == 400


def test_answer_of_another_issuer_is_refused(browser: Browser, provider: FakeProvider) -> None:
    """RFC 9207 §2.4: wrong, and missing although the metadata promises it."""
    for wrong in ("&iss=https%3A%2F%2Fother.example", ""):
        callback = browser.start().partition("&iss=")[0]
        assert browser.get(callback + wrong).status_code == 400
    assert "/oidc/token" not in provider.requests


def test_state_works_once_and_in_the_browser_that_asked(browser: Browser, other_browser: Browser) -> None:
    """RFC 9700 §4.7: login CSRF and replay."""
    callback = browser.start()
    other_browser.start()
    assert other_browser.get(callback).status_code == 400
    assert not other_browser.logged_in
    assert browser.get(callback).status_code == 303
    assert browser.get(callback).status_code == 400


def test_two_tabs_can_log_in_side_by_side(browser: Browser) -> None:
    first, second = browser.start(), browser.start()
    assert browser.get(first).status_code == 303
    assert browser.get(second).status_code == 303


def test_refusal_of_the_provider_is_shown_without_its_free_text(browser: Browser, provider: FakeProvider) -> None:
    state = parse_qs(urlsplit(browser.start()).query)["state"][0]
    answer = browser.get(
        "/callback",
        query_string={
            "state": state,
            "iss": provider.issuer,
            "error": "access_denied",
            "error_description": "call 0120",
        },
    )
    assert answer.status_code == 400
    assert "0120" not in answer.text


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"aud": ["point-console", "another-client"]},
        {"azp": "another-client"},
        {"nonce": "another-login"},
        {"nonce": None},
        {"exp": 1000},
        {"iat": 99999999999},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"sub": ""},
        {"sid": None},
        {"exp": "soon"},
    ],
    ids=str,
)
def test_id_token_with_a_wrong_claim_opens_nothing(stranger: Browser, claims: dict) -> None:
    """OIDC Core §3.1.3.7, requirements.md OI-12."""
    stranger.provider.id_claims = claims
    assert stranger.login().status_code == 400
    assert not stranger.logged_in


@pytest.mark.parametrize("header", [{"typ": "logout+jwt"}, {"typ": "at+jwt"}, {"kid": "unknown"}], ids=str)
def test_id_token_with_a_wrong_header_opens_nothing(stranger: Browser, header: dict) -> None:
    """RFC 8725 §3.11, requirements.md OA-25: one kind of token never passes for another."""
    stranger.provider.id_header = header
    assert stranger.login().status_code == 400
    assert not stranger.logged_in


def test_unknown_critical_header_is_refused(browser: Browser, provider: FakeProvider) -> None:
    """RFC 7515 §4.1.11. joserfc signs no unknown `crit`, so the token is put together by hand."""

    def sign_by_hand(claims: dict, header: dict) -> str:
        message = b".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)
        )
        signature = JWSRegistry().get_alg("ES256").sign(message, provider.key)
        return (message + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    provider.sign = lambda claims, header: sign_by_hand(claims, {"alg": "ES256", "kid": "k1", **header})
    assert browser.login().status_code == 303
    provider.id_header = {"crit": ["x"], "x": 1}
    assert browser.login().status_code == 400


def test_key_in_the_header_and_symmetric_key_are_not_believed(browser: Browser, provider: FakeProvider) -> None:
    """CVE-2026-27962 and the RS/HS confusion: only the provider's published keys count."""
    own = ECKey.generate_key("P-256", {"kid": "k1"})
    honest = provider.sign
    provider.sign = lambda claims, header, key=None: honest(claims, header, own)
    provider.id_header = {"jwk": own.as_dict(private=False)}
    assert browser.login().status_code == 400
    public = OctKey.import_key(provider.key.as_pem(private=False).hex())
    provider.sign = lambda claims, header, key=None: honest(claims, {**header, "alg": "HS256"}, public)
    provider.id_header = {}
    assert browser.login().status_code == 400
    assert not browser.logged_in


def test_rolled_key_is_fetched_when_it_is_met(browser: Browser, provider: FakeProvider, time_machine_at) -> None:
    """OIDC Core §10.1.1."""
    assert browser.login().status_code == 303
    provider.key = ECKey.generate_key("P-256", {"kid": "k2", "use": "sig"})
    with time_machine_at(now() + 10):
        assert browser.login().status_code == 303


@pytest.mark.parametrize("userinfo", [{"sub": "somebody"}, {"stores": "00123"}, {"company": None}, {"functions": [1]}])
def test_userinfo_of_another_shape_or_subject_opens_nothing(
    browser: Browser, provider: FakeProvider, userinfo: dict
) -> None:
    """OIDC Core §5.3.2, requirements.md D20."""
    callback = browser.start()
    for grant in provider.codes.values():
        grant["sub"] = grant["person"]["sub"]
    provider.after_exchange = lambda grant: provider.tokens.update(
        {token: {**HANAKO, **userinfo} for token in provider.tokens}
    )
    assert browser.get(callback).status_code in (400, 503)
    assert not browser.logged_in


def test_person_cut_between_token_and_userinfo_does_not_come_in(browser: Browser, provider: FakeProvider) -> None:
    provider.userinfo_status = 401
    assert browser.login().status_code == 503
    assert not browser.logged_in


def test_next_person_at_the_same_browser_replaces_the_former(browser: Browser, provider: FakeProvider) -> None:
    """requirements.md AC-45."""
    browser.login()
    former = browser.client.get_cookie("console_session").value
    provider.person = KEN
    browser.login()
    assert browser.get("/whoami").json["sub"] == KEN["sub"]
    browser.client.set_cookie("console_session", former)
    assert not browser.logged_in


def test_session_ends_after_eight_hours(browser: Browser, time_machine_at) -> None:
    browser.login()
    start = now()
    with time_machine_at(start + 8 * 3600 - 5):
        assert browser.logged_in
    with time_machine_at(start + 8 * 3600 + 5):
        assert not browser.logged_in


def test_logout_ends_the_own_session_and_goes_on_to_the_provider(browser: Browser, provider: FakeProvider) -> None:
    """RP-Initiated Logout 1.0 §2; LO-12."""
    browser.login()
    cookie = browser.client.get_cookie("console_session").value
    answer = browser.post("/logout", "/logout")
    assert answer.status_code == 303
    url = urlsplit(answer.location)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{provider.issuer}/oidc/logout"
    assert query["id_token_hint"].count(".") == 2
    assert query["post_logout_redirect_uri"] == "http://localhost:8010/logged-out"
    browser.client.set_cookie("console_session", cookie)
    assert not browser.logged_in
    japanese = {"Accept-Language": "ja"}
    assert "両方から" in browser.get(f"/logged-out?state={query['state']}", headers=japanese).text
    assert "両方から" not in browser.get("/logged-out?state=x.y", headers=japanese).text
    assert browser.get(f"/?state={query['state']}").location == f"/logged-out?state={query['state']}"


def test_logout_needs_the_token_of_the_page(browser: Browser) -> None:
    browser.login()
    assert browser.client.post("/logout").status_code == 400
    assert browser.logged_in


def test_provider_that_is_down_is_a_page_and_not_a_crash(config: Config) -> None:
    app = create_console(replace(config, issuer="http://localhost:9"))
    answer = app.test_client().get("/login")
    assert answer.status_code == 503
    assert app.test_client().get("/healthz").json == {"status": "ok"}
