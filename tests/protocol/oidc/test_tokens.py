"""OA-17, OI-11, OI-12: what the tokens say, and userinfo."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from idp.core import clock
from idp.core.db import transaction
from idp.core.settings import RefusedToStart, Settings
from idp.domain.directory.roles import Role
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.actors import CLI
from tests.protocol.oidc.conftest import USERINFO, Provider

At = Callable[[float], datetime]


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_OI_12_the_id_token(provider: Provider, at: At, alg: str) -> None:
    """OIDC Core §2, §3.1.3.3, §3.1.3.6, D16, D20, D21. Suite: oidcc-server, oidcc-idtoken-signature, oidcc-userinfo-rs256's
    key. One audience, at_hash, azp, auth_time, sid, acr and amr; signed as the client registered."""
    begin = int(at(0).timestamp())
    _, client, browser = provider.enter(id_token_alg=alg)
    at(30)
    tokens = client.log_in(browser)
    header, claims = provider.verified(tokens["id_token"], alg=alg)
    assert (header["typ"], header["alg"]) == ("JWT", alg)
    assert set(header) == {"typ", "alg", "kid"}
    assert isinstance(claims["aud"], str)
    assert (
        claims["at_hash"]
        == base64.urlsafe_b64encode(hashlib.sha256(tokens["access_token"].encode()).digest()[:16]).rstrip(b"=").decode()
    )
    assert claims["aud"] == claims["azp"] == client.client_id
    assert (claims["iss"], claims["nonce"]) == (client.issuer, client.nonce)
    assert (claims["auth_time"], claims["iat"], claims["exp"]) == (begin, begin + 30, begin + 330)
    assert (claims["acr"], claims["amr"]) == ("urn:sekisho:aal1", ["pwd"])
    assert claims["sid"] != browser.cookie
    assert len(claims["sid"]) >= 43
    assert set(claims) == {
        "iss", "sub", "aud", "azp", "iat", "exp", "auth_time", "acr", "amr", "sid", "at_hash", "nonce",
        "name", "preferred_username", "locale", "company", "stores", "functions",
    }  # fmt: skip
    assert claims["company"] == {"code": "AOBA", "name": "あおばストア"}


def test_OI_12_two_factors_show(provider: Provider) -> None:
    """D21: password and code are aal2, with amr pwd, otp and mfa."""
    hq = provider.person(role=Role.HQ_ADMIN)
    claims = provider.verified(provider.application().log_in(provider.browser(hq))["id_token"])[1]
    assert (claims["acr"], claims["amr"]) == ("urn:sekisho:aal2", ["pwd", "otp", "mfa"])
    assert claims["stores"] == []


def test_OI_12_two_stores_and_nobody_elses_functions(provider: Provider) -> None:
    """D20: always all stores of the account; the functions of this application alone; no e-mail."""
    person = provider.person()
    provider.world.assign(person, "S2", Role.STORE_MANAGER)
    client = provider.application(functions=("points.view",))
    browser = provider.browser(person)
    provider.application(functions=("stock.count",)).log_in(browser)
    claims = provider.verified(client.log_in(browser)["id_token"])[1]
    assert claims["stores"] == [
        {"code": "S1", "name": "S1店", "role": "staff"},
        {"code": "S2", "name": "S2店", "role": "store_manager"},
    ]
    assert claims["functions"] == ["points.view"]
    assert "email" not in claims


def test_OA_17_the_access_token(provider: Provider, at: At) -> None:
    """RFC 9068 §2.1, §2.2: typ at+jwt and its claims; five minutes; ES256 whatever the client's ID tokens use."""
    begin = int(at(0).timestamp())
    _, client, browser = provider.enter(id_token_alg="RS256")
    tokens = client.log_in(browser)
    header, claims = provider.verified(tokens["access_token"])
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (client.issuer, USERINFO, client.client_id)
    assert (claims["iat"], claims["exp"], claims["auth_time"]) == (begin, begin + 300, begin)
    assert tokens["expires_in"] == 300
    assert (claims["acr"], claims["amr"], claims["scope"]) == ("urn:sekisho:aal1", ["pwd"], "openid profile")
    assert claims["sub"] == client.claims(tokens["id_token"])["sub"]
    assert claims["sid"] == client.claims(tokens["id_token"])["sid"]
    assert claims["jti"] != client.claims(client.log_in(browser)["access_token"])["jti"]
    assert "name" not in claims
    assert "nonce" not in claims


def test_OA_17_an_offline_token_names_its_family(provider: Provider) -> None:
    """OA-17: no sid, since no session bounds it; the family id finds the live row."""
    manager = provider.person(role=Role.STORE_MANAGER)
    client = provider.application(offline_allowed=True)
    claims = client.claims(client.log_in(provider.browser(manager), scope="openid offline_access")["access_token"])
    assert "sid" not in claims
    assert claims["gid"]


def test_OA_17_a_longer_life_refuses_to_start(tmp_path: Path) -> None:
    """D3: the number is the residual that a receipt prints. Settings, so no database."""
    for name, value in (
        ("access_token_s", 301),
        ("code_s", 61),
        ("refresh_grace_s", 11),
        ("family_life_s", 30 * 86400 + 1),
    ):
        with pytest.raises(RefusedToStart, match=name.upper()):
            Settings.from_env(root_key="x", pepper_file=tmp_path / "p", environment="development", **{name: value})


def test_OI_11_userinfo(provider: Provider) -> None:
    """OIDC Core §5.3. Suite: oidcc-userinfo-get, oidcc-userinfo-post-header, oidcc-userinfo-post-body. Same sub as the ID
    token; what the ID token says of the person, and nothing else."""
    client, browser = provider.visit()
    tokens = client.log_in(browser)
    token, bearer = tokens["access_token"], {"Authorization": f"Bearer {tokens['access_token']}"}
    answers = [
        client.http.get("/oidc/userinfo", headers=bearer), client.http.post("/oidc/userinfo", headers=bearer),
        client.http.post("/oidc/userinfo", data={"access_token": token}), client.http.get("/oidc/userinfo", headers={"Authorization": f"bearer {token}"}),
    ]  # fmt: skip
    claims = client.claims(tokens["id_token"])
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {
            k: claims[k] for k in ("sub", "name", "preferred_username", "locale", "company", "stores", "functions")
        }
    bare = client.log_in(browser, scope="openid")
    assert set(client.userinfo(bare["access_token"]).json()) == {"sub", "company", "stores", "functions"}


def test_OI_11_userinfo_refuses_everything_else(provider: Provider) -> None:
    """RFC 6750 §2, §3.1, RFC 9700 §4.3.2: never in the query; one way at a time; a challenge with every 401."""
    client, browser = provider.visit()
    token = client.log_in(browser)["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    head, body, mac = token.split(".")
    for answer in (
        client.http.get("/oidc/userinfo"), client.http.get("/oidc/userinfo", params={"access_token": token}),
        client.http.get("/oidc/userinfo", headers={"Authorization": token}), client.http.get("/oidc/userinfo", headers={"Authorization": f"Basic {token}"}),
        client.http.get("/oidc/userinfo", headers={"Authorization": "Bearer"}), client.userinfo("x"), client.userinfo("x.y.z"), client.userinfo(token[:-4]),
        client.userinfo(f"{head}.{body}x.{mac}"), client.userinfo(f"{head}.{body}."), client.userinfo("." * 9000), client.userinfo("e30.e30.e30"),
        client.userinfo("W10.W10.W10"), browser.http.get("/oidc/userinfo"),
    ):  # fmt: skip
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert "sub" not in answer.json()
    twice = client.http.post("/oidc/userinfo", headers=bearer, data={"access_token": token})
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    doubled = client.http.post(
        "/oidc/userinfo",
        content=f"access_token={token}&access_token={token}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert doubled.status_code == 400


def test_OA_17_an_access_token_expires(provider: Provider, at: At) -> None:
    """RV-23: 300 seconds, not one more, although the grant lives on."""
    at(0)
    _, client, browser = provider.enter()
    tokens = client.log_in(browser)
    at(299)
    assert client.userinfo(tokens["access_token"]).status_code == 200
    at(300)
    assert client.userinfo(tokens["access_token"]).status_code == 401
    fresh = client.refresh(tokens["refresh_token"]).json()
    assert client.userinfo(fresh["access_token"]).status_code == 200


@pytest.mark.parametrize("scope", ["openid profile", "openid profile offline_access"])
def test_OI_11_userinfo_after_the_cut(provider: Provider, scope: str) -> None:
    """OI-11, AC-42: from T0 on 401, although the token's signature and exp are good; offline ones too (LO-06, RV-22)."""
    manager = provider.person(role=Role.STORE_MANAGER)
    client = provider.application(offline_allowed=True)
    browser = provider.browser(manager)
    tokens, code = client.log_in(browser, scope=scope), client.code(browser)
    assert tokens["scope"] == scope
    with provider.app.app_context(), transaction() as session:
        cascade.revoke(
            session, Target(Scope.ACCOUNT, manager.id), Order(Reason.LEFT, Door.CLI), actor=CLI, now=clock.now()
        )
    assert client.userinfo(tokens["access_token"]).status_code == 401
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert client.redeem(code).json()["error"] == "invalid_grant"
    assert "/login?request=" in browser.get(client.authorization_url(), follow=False).headers["location"]
