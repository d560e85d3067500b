"""OA-25: no token is accepted where another kind is expected, and none that says itself how it is to be verified."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from idp.core import clock
from idp.domain.directory.roles import Role
from idp.edges.oidc import claims
from tests.actors import Browser, Person, RelyingParty, receipt_number
from tests.protocol.oidc.conftest import Provider

#: every kind of JWT that we sign: a new one belongs here and in the fixture below
KINDS = {"JWT", "at+jwt", "logout+jwt", "sekisho-receipt+jwt"}


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header_of(token: str) -> dict[str, Any]:
    """A JWT's header, unverified."""
    part = token.split(".", maxsplit=1)[0]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


class Places:
    """Where a token can be presented, each answering True when it was accepted."""

    def __init__(self, provider: Provider, client: RelyingParty, browser: Browser, person: Person) -> None:
        self.provider, self.client, self.browser, self.person = provider, client, browser, person

    def userinfo(self, token: str) -> bool:
        """As a bearer token, in the header and in the body."""
        answer = self.client.userinfo(token)
        posted = self.client.http.post("/oidc/userinfo", data={"access_token": token})
        assert answer.status_code == posted.status_code
        assert answer.status_code in {200, 401}
        return answer.status_code == 200

    def authorize(self, token: str) -> bool:
        """As id_token_hint of a silent request."""
        answer = self.client.answer(
            self.browser.get(self.client.authorization_url(prompt="none", id_token_hint=token), follow=False)
        )
        assert answer.get("error") in {None, "invalid_request"}
        return "code" in answer

    def logout(self, token: str) -> bool:
        """As id_token_hint of a logout, which must not even ask; nobody is logged out by the question."""
        with Browser(self.provider.app) as nobody:
            answer = nobody.get(f"/oidc/logout?id_token_hint={token}", follow=False)
        assert answer.status_code in {200, 400}
        return answer.status_code == 200

    def code(self, token: str) -> bool:
        """As an authorization code."""
        return self.client.redeem(token).status_code == 200

    def refresh(self, token: str) -> bool:
        """As a refresh token."""
        return self.client.refresh(token).status_code == 200

    def cookie(self, token: str) -> bool:
        """As our login cookie."""
        with Browser(self.provider.app) as thief:
            thief.http.cookies.set("sekisho", token, domain="localhost.local")
            thief.http.cookies.set("sekisho", token)
            return "/login" not in str(thief.get("/").url)

    def secret(self, token: str) -> bool:
        """As a client secret."""
        mine, self.client.secret = self.client.secret, token
        try:
            return self.client.redeem("x").status_code != 401
        finally:
            self.client.secret = mine


PLACES = {"userinfo", "authorize", "logout", "code", "refresh", "cookie", "secret"}
BELONGS = {
    "access": {"userinfo"},
    "id": {"authorize", "logout"},
    "logout": set(),
    "receipt": set(),
    "refresh": {"refresh"},
    "login cookie": {"cookie"},
}


def test_OA_25_substitution_matrix(provider: Provider) -> None:
    """RFC 8725 §3.11, §3.12, RFC 9068 §4, BCL §2.6, trap F18: every kind of token at every place that takes one; each is
    accepted where it belongs and nowhere else. The kinds are those that the product signs."""
    hq = provider.person(role=Role.HQ_ADMIN)
    gone, client = provider.person(), provider.application()
    browser, leaver = provider.browser(hq), provider.browser(gone)
    desk = browser
    client.log_in(leaver)
    desk.get(f"/hq/people/{gone.id}/stop")
    number = receipt_number(desk.submit())
    provider.world.deliver()
    tokens = client.log_in(browser)
    pack = desk.get(f"/receipts/{number}.json")
    assert pack.status_code == 200, pack.text[:500]
    held = {
        "access": tokens["access_token"], "id": tokens["id_token"], "refresh": tokens["refresh_token"], "login cookie": browser.cookie,
        "logout": provider.outbound.to(client.logout_uri or "")[0].form["logout_token"], "receipt": pack.json()["signature"],
    }  # fmt: skip
    assert {header_of(held[kind])["typ"] for kind in ("access", "id", "logout", "receipt")} == KINDS
    places = Places(provider, client, browser, hq)
    for kind, token in held.items():
        accepted = {place for place in PLACES if getattr(places, place)(token)}
        assert accepted == BELONGS[kind], kind


@pytest.fixture
def forged(provider: Provider) -> tuple[Places, dict[str, dict[str, str]]]:
    """Forgeries of an ID token and an access token, by name."""
    person, client, browser = provider.enter()
    tokens = client.log_in(browser)
    return Places(provider, client, browser, person), {"id": tokens["id_token"], "access": tokens["access_token"]}  # type: ignore[return-value]


def test_OA_25_the_token_does_not_choose_how_it_is_verified(
    provider: Provider, forged: tuple[Places, dict[str, str]]
) -> None:
    """RFC 8725 §3.1, §3.2, F20 (CVE-2026-27962, CVE-2026-28802): alg none, HMAC with the public key, a key in the header, an
    unknown `crit`, the other algorithm, an unknown kid, another typ. Each is refused as bearer and as hint."""
    places, genuine = forged
    published = provider.browser().http.get("/oidc/jwks").json()["keys"]
    mine = ECKey.generate_key("P-256")
    for kind, token in genuine.items():
        head, payload = header_of(token), places.client.claims(token)
        body = token.split(".")[1]
        (public,) = [key for key in published if key["kid"] == head["kid"]]
        bad: dict[str, str] = {}
        for alg in ("none", "None", "nOnE", ""):
            bad[f"alg {alg!r}"] = f"{b64(json.dumps({**head, 'alg': alg}).encode())}.{body}."
            bad[f"alg {alg!r}, signature kept"] = (
                f"{b64(json.dumps({**head, 'alg': alg}).encode())}.{body}.{token.split('.')[2]}"
            )
        pem = ECKey.import_key(public).as_pem(private=False)
        for name, secret in (
            ("PEM", pem),
            ("JWK", json.dumps(public).encode()),
            ("JWK, compact", json.dumps(public, separators=(",", ":")).encode()),
            ("x", public["x"].encode()),
        ):
            signed = f"{b64(json.dumps({**head, 'alg': 'HS256'}).encode())}.{body}"
            bad[f"HS256 with the public {name}"] = (
                f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
            )
        own = mine.as_dict(private=False)
        bad["own key in the header"] = jwt.encode({**head, "jwk": own}, payload, mine, algorithms=["ES256"])
        bad["own key in the header, no kid"] = jwt.encode(
            {"alg": "ES256", "typ": head["typ"], "jwk": own}, payload, mine, algorithms=["ES256"]
        )
        bad["own key with our kid"] = jwt.encode(head, payload, mine, algorithms=["ES256"])
        bad["jku"] = jwt.encode({**head, "jku": "https://evil.example/jwks"}, payload, mine, algorithms=["ES256"])
        bad["unknown kid"] = jwt.encode({**head, "kid": "x"}, payload, mine, algorithms=["ES256"])
        bad["symmetric"] = jwt.encode(
            {**head, "alg": "HS256"}, payload, OctKey.import_key(b"x" * 32), algorithms=["HS256"]
        )
        signer = provider.app.extensions["sekisho"].signer
        with provider.app.app_context():
            for typ in (KINDS | {"jwt", "at+JWT", "", "secevent+jwt", "application/at+jwt"}) - {head["typ"]}:
                bad[f"typ {typ}"] = signer.sign(payload, typ=typ, alg="ES256", now=clock.now())
            bad["another issuer"] = signer.sign(
                {**payload, "iss": "https://evil.example"}, typ=head["typ"], alg="ES256", now=clock.now()
            )
            bad["another audience"] = signer.sign(
                {**payload, "aud": "rp_other"}, typ=head["typ"], alg="ES256", now=clock.now()
            )
            bad["several audiences"] = signer.sign(
                {**payload, "aud": [payload["aud"], "x"]}, typ=head["typ"], alg="ES256", now=clock.now()
            )
            assert (places.userinfo if kind == "access" else places.authorize)(
                signer.sign(payload, typ=head["typ"], alg="ES256", now=clock.now())
            )
        for name, token_ in bad.items():
            assert not places.userinfo(token_), (kind, name)
            assert not places.authorize(token_), (kind, name)
            if name not in {"another audience", "several audiences", "typ JWT"}:  # there the hint only names a client
                assert not places.logout(token_), (kind, name)


def test_OA_25_crit_is_refused(provider: Provider, forged: tuple[Places, dict[str, str]]) -> None:
    """RFC 7515 §4.1.11: an extension that must be understood and is not. Signed with our own key, so that only `crit` is wrong."""
    places, genuine = forged
    signer = provider.app.extensions["sekisho"].signer
    for kind, token in genuine.items():
        head, payload = header_of(token), places.client.claims(token)
        (key,) = [k.key for k in signer._keys() if k.kid == head["kid"]]
        for extra in ({"crit": ["b64"], "b64": True}, {"crit": ["exp"], "exp": 1}, {"crit": []}):
            protected = {**head, **extra}
            try:
                bad = jwt.encode(protected, payload, key, algorithms=["ES256"])
            except Exception:  # noqa: BLE001 - the library refuses to make it; then it is put together by hand
                signed = f"{b64(json.dumps(protected).encode())}.{token.split('.')[1]}"
                bad = f"{signed}.{token.split('.')[2]}"
            assert not (places.userinfo if kind == "access" else places.authorize)(bad), extra


def test_OA_25_one_typ_per_kind() -> None:
    """RFC 8725 §3.11. Pure, so no database."""
    kinds = [claims.ID_TOKEN, claims.ACCESS_TOKEN, claims.LOGOUT_TOKEN]
    assert len(set(kinds)) == 3
    assert set(kinds) < KINDS
