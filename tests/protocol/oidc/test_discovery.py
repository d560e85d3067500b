"""OA-28, LO-01, OA-34: the metadata says exactly what works, and who may call from a browser."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from idp.domain.directory.roles import Role
from tests.protocol.oidc.conftest import Provider

SEEN = {"exp", "iat", "aud", "iss"}


def test_OA_28_every_advertised_value_works(provider: Provider) -> None:
    """RFC 8414, OIDC Discovery §3. Suite: oidcc-config-certification-test-plan, oidcc-discovery-endpoint-verification. Each
    value of each list is used here; a new one without a line below fails."""
    person = provider.person(role=Role.STORE_MANAGER, totp=True)
    client = provider.application(offline_allowed=True)
    browser = provider.browser(person)
    data = client.metadata()
    used: set[str] = set()

    def values(name: str) -> list[str]:
        used.add(name)
        return data[name]  # type: ignore[no-any-return]

    assert values("issuer") == client.issuer
    assert values("claims_parameter_supported") is True
    assert values("authorization_response_iss_parameter_supported") is True
    for name in ("request_parameter_supported", "request_uri_parameter_supported"):
        assert values(name) is False  # OI-16 shows that it is so; the default of the second would be true
    for scope in values("scopes_supported"):
        assert scope in client.log_in(browser, scope=f"openid {scope}")["scope"].split()
    for kind in values("response_types_supported"):
        assert client.code(browser, response_type=kind)
    for mode in values("response_modes_supported"):
        answer = browser.get(client.authorization_url(response_mode=mode), follow=False)
        code = client.answer(answer)["code"] if mode == "query" else browser.forms(answer)[0]["fields"]["code"]
        assert client.redeem(code).status_code == 200
    tokens = client.log_in(browser)
    for grant in values("grant_types_supported"):
        assert client.token(grant_type=grant).json()["error"] == "invalid_request"  # known, and incomplete
    for method in values("code_challenge_methods_supported"):
        assert client.code(browser, code_challenge_method=method)
    for method in values("token_endpoint_auth_methods_supported"):
        other = provider.application(auth_method=method)
        assert other.log_in(browser)["id_token"]
    for alg in values("id_token_signing_alg_values_supported"):
        other = provider.application(id_token_alg=alg)
        assert provider.verified(other.log_in(browser)["id_token"], alg=alg)[0]["alg"] == alg
    assert values("subject_types_supported") == ["public"]
    assert client.claims(tokens["id_token"])["sub"] == client.claims(other.log_in(browser)["id_token"])["sub"]
    for prompt in values("prompt_values_supported"):
        answer = browser.get(client.authorization_url(prompt=prompt), follow=False)
        assert answer.headers["location"].startswith(
            "/login?request=" if prompt in {"login", "select_account"} else client.redirect_uri
        )
    for acr in values("acr_values_supported"):
        assert client.code(browser, claims=f'{{"id_token":{{"acr":{{"essential":true,"value":"{acr}"}}}}}}')
    assert values("claim_types_supported") == ["normal"]
    assert set(values("claims_supported")) == set(client.claims(client.log_in(browser)["id_token"]))
    assert values("backchannel_logout_supported") is True
    assert values("backchannel_logout_session_supported") is True
    endpoints = {name for name in data if name.endswith("_endpoint")} | {"jwks_uri"}
    assert set(data) - used == endpoints


def test_OA_28_every_advertised_endpoint_answers_and_nothing_else(provider: Provider) -> None:
    """RFC 8414, D22: the paths under /oidc and /.well-known are the advertised ones; methods that nobody documents do not answer."""
    client = provider.application()
    data = client.metadata()
    advertised = {urlsplit(v).path for k, v in data.items() if k.endswith(("_endpoint", "_uri"))}
    assert advertised == {"/oidc/authorize", "/oidc/token", "/oidc/userinfo", "/oidc/jwks", "/oidc/logout"}
    assert all(v.startswith(client.issuer + "/") for k, v in data.items() if k.endswith(("_endpoint", "_uri")))
    routed = {
        rule.rule
        for rule in provider.app.url_map.iter_rules()
        if re.match(r"/(oidc|\.well-known|oauth|connect)", rule.rule)
    }
    assert routed <= advertised
    good = {"/oidc/authorize": 403, "/oidc/token": 400, "/oidc/userinfo": 401, "/oidc/jwks": 200, "/oidc/logout": 200}
    for path, status in good.items():
        answer = client.http.post(path) if path == "/oidc/token" else client.http.get(path)
        assert answer.status_code == status, path
    for path in (
        "introspect",
        "revoke",
        "par",
        "register",
        "device",
        "device_authorization",
        "check_session",
        "ciba",
        "scim",
        "authorize/",
        "token/x",
    ):
        assert client.http.get(f"/oidc/{path}").status_code in {404, 405}, path
        assert client.http.post(f"/oidc/{path}").status_code in {404, 405}, path
    for path in ("oauth-authorization-server", "webfinger", "jwks.json", "ssf-configuration"):
        assert client.http.get(f"/.well-known/{path}").status_code == 404, path
    for path in advertised:
        for method in ("PUT", "DELETE", "PATCH", "TRACE"):
            assert client.http.request(method, path).status_code in {404, 405}, (method, path)


def test_OA_28_the_documents_are_cacheable_and_for_our_host_alone(provider: Provider) -> None:
    """OIDC Discovery §4.2, OI-15, WB-04: JSON, an ETag, no cookie, a max-age of the time that a new key waits; a forged Host
    gets nothing."""
    browser = provider.browser()
    for path, age in (("/.well-known/openid-configuration", 3600), ("/oidc/jwks", 10)):
        answer = browser.http.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == f"public, max-age={age}"
        assert "set-cookie" not in answer.headers
        same = browser.http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        head = browser.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert browser.http.get(path, headers={"Host": "evil.example"}).status_code == 404
        assert browser.http.post(path).status_code in {404, 405}
    for key in browser.http.get("/oidc/jwks").json()["keys"]:
        assert key["use"] == "sig"
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(key)
        assert key["kty"] == "EC" or len(key["n"]) >= 512  # 3072 bits


def test_LO_01_logout_is_advertised(provider: Provider) -> None:
    """BCL §2.1, RP-Initiated §2.1. Suite: oidcc-rp-initiated-logout-discovery-endpoint-verification,
    oidcc-backchannel-logout-discovery-endpoint-verification. The front-channel twins are not (LO-09)."""
    data = provider.application().metadata()
    assert data["end_session_endpoint"] == "http://localhost:8000/oidc/logout"
    assert data["backchannel_logout_supported"] is data["backchannel_logout_session_supported"] is True
    assert not [name for name in data if "frontchannel" in name or "check_session" in name]


def test_OA_34_registered_browser_applications_may_call(provider: Provider) -> None:
    """RFC 10017: the origin of a public client's redirect URI may call token and userinfo, with the preflight that an
    Authorization header needs; without credentials mode. Code flow and userinfo as a page at that origin does them."""
    client = provider.public(redirect_uris=("https://spa.example/callback",))
    browser = provider.browser(provider.somebody())
    client.http.headers["Origin"] = "https://spa.example"
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    for path in ("/oidc/userinfo", "/oidc/token"):
        preflight = client.http.request("OPTIONS", path, headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://spa.example"
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        assert {"GET", "POST"} <= set(re.split(r",\s*", preflight.headers["access-control-allow-methods"]))
    answer = client.redeem(client.code(browser))
    refused = client.redeem("x")
    info = client.userinfo(answer.json()["access_token"])
    no = client.userinfo("x")
    for got in (answer, refused, info, no):
        assert got.headers["access-control-allow-origin"] == "https://spa.example"
        assert "Origin" in got.headers["vary"]
        assert "access-control-allow-credentials" not in got.headers
    for path in ("/.well-known/openid-configuration", "/oidc/jwks"):
        assert client.http.get(path).headers["access-control-allow-origin"] == "*"


def test_OA_34_nobody_else_may(provider: Provider) -> None:
    """RFC 10017: no wildcard, no null, no origin of a confidential client or of a look-alike; and no page of ours ever."""
    provider.public(redirect_uris=("https://spa2.example/callback", "jp.example.spa:/cb"))
    server = provider.application(redirect_uris=("https://bff.example/callback",))
    for origin in ("null", "https://evil.example", "http://spa2.example", "https://spa2.example.evil.example", "https://spa2.example:444",
                   "https://bff.example", "jp.example.spa:", "*", "http://localhost:8000", "HTTPS://SPA2.EXAMPLE"):  # fmt: skip
        server.http.headers["Origin"] = origin
        for answer in (
            server.redeem("x"), server.userinfo("x"), server.http.request("OPTIONS", "/oidc/userinfo", headers={"Access-Control-Request-Method": "GET"}),
            server.http.request("OPTIONS", "/oidc/token", headers={"Access-Control-Request-Method": "POST"}),
        ):  # fmt: skip
            assert not [name for name in answer.headers if name.startswith("access-control-")], origin
    server.http.headers["Origin"] = "https://spa2.example"
    for path in ("/oidc/authorize", "/oidc/logout", "/login", "/", "/status"):
        assert not [name for name in server.http.get(path).headers if name.startswith("access-control-")], path
