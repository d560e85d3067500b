"""OA-03: PKCE with S256 from every client (D5), and the one exception."""

from __future__ import annotations

import pytest

from idp.core.errors import Invalid
from idp.domain.applications.registration import Registration, check_registration
from tests.protocol.oidc.conftest import Provider

NONE = {"code_challenge": None, "code_challenge_method": None}


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_OA_03_s256_works_for_every_kind_of_client(provider: Provider, method: str) -> None:
    """RFC 7636 §4. Suite: oidcc-ensure-request-with-valid-pkce-succeeds."""
    client, browser = provider.visit(auth_method=method)
    assert client.log_in(browser)["access_token"]


@pytest.mark.parametrize("method", ["client_secret_basic", "none"])
@pytest.mark.parametrize(
    "extra",
    [
        {"code_challenge_method": "plain"},
        {"code_challenge_method": None},  # RFC 7636 §4.3: that would mean plain
        {"code_challenge_method": ""},
        {"code_challenge_method": "s256"},
        {"code_challenge_method": "S512"},
        {"code_challenge": None},
        {"code_challenge": ""},
        {"code_challenge": "", "code_challenge_method": None},
        {"code_challenge": "short"},
        {"code_challenge": "x" * 129},
        {"code_challenge": "あ" * 43},
        {"code_challenge": "x" * 42 + "=", "code_challenge_method": "S256"},
        NONE,
    ],
)
def test_OA_03_everything_weaker_is_refused_at_the_front_door(
    provider: Provider, method: str, extra: dict[str, str | None]
) -> None:
    """RFC 9700 §2.1.1, RFC 7636 §4.4.1, trap F14. Suite: fapi2 …-par-plain-pkce-rejected, …-par-ensure-pkce-required."""
    client, browser = provider.visit(auth_method=method)
    answer = client.answer(browser.get(client.authorization_url(**extra), follow=False))
    assert answer["error"] == "invalid_request"
    assert "code" not in answer


@pytest.mark.parametrize("method", ["client_secret_basic", "none"])
def test_OA_03_the_verifier_must_fit(provider: Provider, method: str) -> None:
    """RFC 7636 §4.6. Suite: fapi2 …-incorrect-pkce-code-verifier-rejected. A thief's wrong guess does not spend the code."""
    client, browser = provider.visit(auth_method=method)
    code = client.code(browser)
    challenge = client.authorization_url().split("code_challenge=")[1].split("&")[0]
    client_verifier, bad = client.verifier, {"invalid_grant", "invalid_request"}
    code = client.code(browser)
    verifier = client.verifier
    for wrong in (
        "x" * 43,
        verifier[:-1] + ("A" if verifier[-1] != "A" else "B"),
        verifier.swapcase(),
        challenge,
        client_verifier,
        "",
        "short",
        "あ" * 43,
        verifier + "\0",
    ):
        answer = client.redeem(code, code_verifier=wrong)
        assert (answer.status_code, answer.json()["error"] in bad) == (400, True), wrong
    missing = client.token(grant_type="authorization_code", code=code, redirect_uri=client.redirect_uri)
    assert missing.status_code == 400
    assert client.redeem(code, code_verifier=verifier).status_code == 200


def test_OA_03_the_excepted_client_sends_a_nonce_instead(provider: Provider) -> None:
    """D5, C1: the exception is per confidential client, and the nonce then binds the code to the browser."""
    client, browser = provider.visit(pkce_exempt=True)
    for nonce in (None, ""):
        answer = client.answer(browser.get(client.authorization_url(nonce=nonce, **NONE), follow=False))
        assert answer["error"] == "invalid_request"
    code = client.code(browser, **NONE)
    token = client.token(grant_type="authorization_code", code=code, redirect_uri=client.redirect_uri)
    assert client.claims(token.json()["id_token"])["nonce"] == client.nonce
    assert client.log_in(browser, nonce=None)["id_token"]  # with PKCE it needs none (D16)


def test_OA_03_the_exception_is_no_downgrade(provider: Provider) -> None:
    """RFC 9700 §4.8.2: a verifier without a challenge is an attack; a challenge once sent must be met."""
    client, browser = provider.visit(pkce_exempt=True)
    code = client.code(browser, **NONE)
    answer = client.redeem(code, code_verifier="x" * 43)
    assert answer.json()["error"] == "invalid_request"
    code = client.code(browser)
    missing = client.token(grant_type="authorization_code", code=code, redirect_uri=client.redirect_uri)
    assert missing.json()["error"] == "invalid_request"
    plain = client.answer(browser.get(client.authorization_url(code_challenge_method="plain"), follow=False))
    assert plain["error"] == "invalid_request"


def test_OA_03_a_public_client_cannot_be_excepted() -> None:
    """D5. Pure, so no database."""
    wish = Registration("x", ("https://rp.example/cb",), auth_method="none", pkce_exempt=True)
    with pytest.raises(Invalid) as refused:
        check_registration(wish, loopback=True)
    assert refused.value.field == "pkce_exempt"
