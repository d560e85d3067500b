"""OA-05, OA-07: the authorization code, bound and used once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from sqlalchemy import select, update

from idp.core.db import transaction
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.domain.tokens.models import AuthorizationCode
from idp.ledgers.audit.events import Tag
from tests.protocol.oidc.conftest import Provider

At = Callable[[float], datetime]


def test_OA_05_a_code_lives_sixty_seconds(provider: Provider, at: At) -> None:
    """RFC 6749 §4.1.2, FAPI 2.0 §5.3.2.1, ASVS 10.4.3. At 60 seconds it is over, at 59 it is not."""
    at(0)
    _, client, browser = provider.enter()
    code = client.code(browser)
    at(60)
    assert client.redeem(code).json()["error"] == "invalid_grant"
    at(0)
    code = client.code(browser)
    at(59)
    assert client.redeem(code).status_code == 200


def test_OA_05_a_code_is_long_and_never_the_same(provider: Provider) -> None:
    """OA-05, OA-18: at least 128 bits, and only its digest is stored."""
    client, browser = provider.visit()
    codes = {client.code(browser) for _ in range(5)}
    assert len(codes) == 5
    assert min(map(len, codes)) >= 43  # 256 bits in base64url
    stored = provider.world.rows(select(AuthorizationCode.code_digest))
    assert all(len(bytes(row[0])) == 32 for row in stored)


def test_OA_05_a_code_is_bound_to_client_address_and_challenge(provider: Provider) -> None:
    """RFC 6749 §4.1.3, RFC 9700 §4.5. Suite: oidcc-server. None of the wrong tries spends it for its owner."""
    client, browser = provider.visit(redirect_uris=("https://rp.example/a", "https://rp.example/b"))
    other, native = provider.application(), provider.public()
    code = client.code(browser)
    for thief in (other, native):
        thief.verifier = client.verifier
        assert thief.redeem(code, redirect_uri=client.redirect_uri).json()["error"] == "invalid_grant"
    for uri in ("https://rp.example/b", "https://rp.example/a/", "", "https://rp.example/a\0"):
        assert client.redeem(code, redirect_uri=uri).json()["error"] == "invalid_grant", uri
    without = client.token(grant_type="authorization_code", code=code, code_verifier=client.verifier)
    assert without.json()["error"] == "invalid_grant"
    assert client.redeem(code).status_code == 200


@pytest.mark.parametrize("code", ["", "x", "あ", "\0", "x" * 5000, "%00"])
def test_OA_05_an_invented_code(provider: Provider, code: str) -> None:
    """RFC 6749 §5.2: invalid_grant, whatever it looks like."""
    client = provider.application()
    answer = client.redeem(code)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    both = client.token(grant_type="authorization_code", refresh_token="x", redirect_uri=client.redirect_uri)
    assert both.json()["error"] == "invalid_request"


def test_OA_05_a_code_carries_the_nonce_of_its_request(provider: Provider) -> None:
    """OIDC Core §3.1.3.7: two requests in one browser, each with its own nonce; a long one survives."""
    client, browser = provider.visit()
    first, verifier, nonce = client.code(browser), client.verifier, client.nonce
    second = client.code(browser, nonce="n" * 1000)
    assert client.claims(client.redeem(second).json()["id_token"])["nonce"] == "n" * 1000
    assert client.claims(client.redeem(first, code_verifier=verifier).json()["id_token"])["nonce"] == nonce
    assert "nonce" not in client.claims(client.log_in(browser, nonce=None)["id_token"])


def test_OA_05_a_code_dies_with_the_epoch_and_with_its_session(provider: Provider) -> None:
    """D7: what was issued before a revocation or a credential change is not redeemed after it."""
    person, client, browser = provider.enter(own=True)
    code = client.code(browser)
    with provider.app.app_context(), transaction() as session:
        session.execute(update(Account).where(Account.id == person.id).values(epoch=Account.epoch + 1))
    assert client.redeem(code).json()["error"] == "invalid_grant"
    code = client.code(browser)
    browser.get("/")
    browser.post("/logout", browser.forms()[0]["fields"])
    assert client.redeem(code).json()["error"] == "invalid_grant"


def test_OA_07_a_replayed_code_ends_what_it_opened(provider: Provider) -> None:
    """RFC 6749 §4.1.2, ASVS 10.4.2. Suite: oidcc-codereuse. The 400 commits: access token, refresh token and app session of
    the first use are dead afterwards, the relying party is told, and the log has it. The login itself lives on."""
    person, client, browser = provider.enter(own=True)
    code = client.code(browser)
    tokens = client.redeem(code).json()
    assert client.userinfo(tokens["access_token"]).status_code == 200
    second = client.redeem(code)
    assert (second.status_code, second.json()["error"]) == (400, "invalid_grant")
    assert client.userinfo(tokens["access_token"]).status_code == 401
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.count(Tag.CODE_REPLAYED, person) == 1
    provider.world.deliver()
    (call,) = provider.outbound.to(client.logout_uri or "")
    assert client.claims(call.form["logout_token"])["sid"] == client.claims(tokens["id_token"])["sid"]
    fresh = client.log_in(browser)
    assert client.claims(fresh["id_token"])["sid"] != client.claims(tokens["id_token"])["sid"]


def test_OA_07_a_replay_half_a_minute_and_a_day_later(provider: Provider, at: At) -> None:
    """Suite: oidcc-codereuse-30seconds, without its warning. The row recognises it long after the code has expired."""
    at(0)
    person, client, browser = provider.enter(own=True, offline_allowed=True)
    code, verifier = client.code(browser), client.verifier
    tokens = client.redeem(code).json()
    at(30)
    assert client.redeem(code).json()["error"] == "invalid_grant"
    assert client.userinfo(tokens["access_token"]).status_code == 401
    at(31)
    code, verifier = client.code(browser), client.verifier
    tokens = client.redeem(code).json()
    at(900)
    assert client.redeem(code, code_verifier=verifier).status_code == 400
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.count(Tag.CODE_REPLAYED, person) == 2


@pytest.mark.parametrize("how", ["without the verifier", "another address", "after the logout"])
def test_OA_07_a_replay_is_recognised_before_anything_else(provider: Provider, how: str) -> None:
    """OA-07: whoever holds a used code has stolen something, also when the rest of the request is wrong; and an offline grant
    ends by it although its login session is over."""
    manager = provider.person(role=Role.STORE_MANAGER)
    client, browser = provider.application(offline_allowed=True), provider.browser(manager)
    code = client.code(browser, scope="openid offline_access")
    tokens = client.redeem(code).json()
    if how == "after the logout":
        fields = next(f for f in browser.forms(browser.get("/me/sessions")) if f["action"] == "/logout")["fields"]
        browser.post("/logout", fields)
        assert client.userinfo(tokens["access_token"]).status_code == 200
    over = {
        "without the verifier": {"code_verifier": "x" * 43},
        "another address": {"redirect_uri": "https://x.example"},
    }
    assert client.redeem(code, **over.get(how, {})).json()["error"] == "invalid_grant"
    assert client.userinfo(tokens["access_token"]).status_code == 401
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.count(Tag.CODE_REPLAYED, manager) == 1


def test_OA_07_a_stranger_cannot_end_a_grant_by_replaying(provider: Provider) -> None:
    """The client is authenticated first: a code seen in a log is no weapon against the session (RV-30)."""
    person, client, browser = provider.enter(own=True)
    code = client.code(browser)
    tokens = client.redeem(code).json()
    stranger = provider.application()
    stranger.verifier = client.verifier
    assert stranger.redeem(code, redirect_uri=client.redirect_uri).json()["error"] == "invalid_grant"
    client.secret = "wrong"
    assert client.redeem(code).status_code == 401
    assert client.userinfo(tokens["access_token"]).status_code == 200
    assert provider.count(Tag.CODE_REPLAYED, person) == 0
