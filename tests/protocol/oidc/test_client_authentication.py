"""OA-14, OA-24 and the token endpoint's manners: each client in the one way it is registered for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlencode

import pytest
from sqlalchemy import select

from idp.core import clock
from idp.core.db import transaction
from idp.domain.applications import registry
from idp.domain.applications.models import RelyingParty as Party
from tests.actors import CLI, RelyingParty
from tests.protocol.oidc.conftest import Provider

At = Callable[[float], datetime]
METHODS = ["client_secret_basic", "client_secret_post", "none"]


def basic(client_id: str, secret: str) -> dict[str, str]:
    """The header of client_secret_basic."""
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def form(client: RelyingParty, code: str) -> dict[str, str]:
    """A redemption without any client authentication."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": client.verifier,
    }


@pytest.mark.parametrize("registered", METHODS)
def test_OA_14_only_the_registered_method(provider: Provider, registered: str) -> None:
    """RFC 6749 §2.3, RFC 9700 §2.5. Suite: oidcc-server-client-secret-post."""
    client, browser = provider.visit(auth_method=registered)
    code, secret = client.code(browser), client.secret or "none"
    ways = {
        "client_secret_basic": (basic(client.client_id, secret), {}),
        "client_secret_post": ({}, {"client_id": client.client_id, "client_secret": secret}),
        "none": ({}, {"client_id": client.client_id}),
    }
    good = ways.pop(registered)
    for headers, extra in ways.values():
        if registered == "none" and headers:
            continue
        answer = client.http.post("/oidc/token", data={**form(client, code), **extra}, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert "www-authenticate" in answer.headers  # RFC 6749 §5.2
    answer = client.http.post("/oidc/token", data={**form(client, code), **good[1]}, headers=good[0])
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"


def test_OA_14_two_methods_in_one_request(provider: Provider) -> None:
    """RFC 6749 §2.3: not more than one. 400, although each alone would be right, and the code is not spent."""
    client, browser = provider.visit()
    code, secret = client.code(browser), client.secret or ""
    both = {**form(client, code), "client_id": client.client_id, "client_secret": secret}
    answer = client.http.post("/oidc/token", data=both, headers=basic(client.client_id, secret))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    answer = client.http.post(
        "/oidc/token", data=form(client, code) | {"client_secret": ""}, headers=basic(client.client_id, secret)
    )
    assert answer.status_code == 400
    assert client.redeem(code).status_code == 200


@pytest.mark.parametrize("secret", ["", "x", "wrong" * 20, "あ", "\0"])
def test_OA_14_a_wrong_secret(provider: Provider, secret: str) -> None:
    """RFC 6749 §5.2: 401 for both ways of sending it, and the code is not spent."""
    for method in METHODS[:2]:
        client, browser = provider.visit(auth_method=method)
        code, good = client.code(browser), client.secret
        client.secret = secret
        answer = client.redeem(code)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        client.secret = good
        assert client.redeem(code).status_code == 200


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ", "Basic !!!", "Basic " + "A" * 9000, "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Basic " + base64.b64encode(b"\0:\0").decode(),
               "Basic " + base64.b64encode(b"no-colon").decode(), "Bearer x", "Digest x"]
)  # fmt: skip
def test_OA_14_a_broken_header_is_a_401(provider: Provider, header: str) -> None:
    """RFC 7617: no byte of a header is a fault of ours."""
    client = provider.application()
    answer = client.http.post("/oidc/token", data=form(client, "x"), headers={"Authorization": header})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_OA_14_parameters_belong_in_the_body(provider: Provider) -> None:
    """RFC 6749 §2.3.1, libraries.md 2.7: a URL is logged by everybody on the way."""
    client, browser = provider.visit(auth_method="client_secret_post")
    code = client.code(browser)
    full = {**form(client, code), "client_id": client.client_id, "client_secret": client.secret or ""}
    for name, value in full.items():
        rest = {k: v for k, v in full.items() if k != name}
        answer = client.http.post(f"/oidc/token?{urlencode({name: value})}", data=rest)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), name
    assert client.http.get(f"/oidc/token?{urlencode(full)}").status_code in {404, 405}
    assert client.http.post("/oidc/token", json=full).json()["error"] == "invalid_request"
    assert client.http.post("/oidc/token", data=full).status_code == 200


@pytest.mark.parametrize(
    "name", ["grant_type", "code", "redirect_uri", "code_verifier", "client_id", "client_secret", "scope", 'x"あ']
)
def test_OA_02_a_parameter_sent_twice_at_the_token_endpoint(provider: Provider, name: str) -> None:
    """RFC 6749 §3.2. The code is not spent."""
    client, browser = provider.visit(auth_method="client_secret_post")
    code = client.code(browser)
    full = {
        **form(client, code),
        "client_id": client.client_id,
        "client_secret": client.secret or "",
        "scope": "openid",
    }
    twice = urlencode([*full.items(), (name, full.get(name, "1")), *([] if name in full else [(name, "2")])])
    answer = client.http.post(
        "/oidc/token", content=twice, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert client.http.post("/oidc/token", data=full).status_code == 200


def test_OA_24_two_secrets_live_while_one_is_replaced(provider: Provider, at: At) -> None:
    """OA-24: made by us with 256 bits, stored as a digest; after a rotation old and new both work, for seven days; a further
    rotation ends the oldest at once."""
    at(0)
    client = provider.application()
    first = client.secret or ""

    def rotate() -> str:
        with provider.app.app_context(), transaction() as session:
            return registry.rotate_secret(session, client.application_id, actor=CLI, now=clock.now())[0]

    def works(secret: str) -> bool:
        client.secret = secret
        return bool(client.redeem("x").json()["error"] == "invalid_grant")  # past the authentication

    second = rotate()
    assert (works(first), works(second)) == (True, True)
    at(7 * 86400 - 1)
    assert works(first)
    at(7 * 86400)
    assert (works(first), works(second)) == (False, True)
    third = rotate()
    fourth = rotate()
    assert (works(second), works(third), works(fourth)) == (False, True, True)
    assert len({first, second, third, fourth}) == 4
    assert min(map(len, (first, second, third, fourth))) >= 43
    row = provider.world.rows(
        select(Party.secret_digest, Party.old_secret_digest).where(Party.client_id == client.client_id)
    )[0]
    assert [len(bytes(value)) for value in row] == [32, 32]
    assert provider.public().secret is None
