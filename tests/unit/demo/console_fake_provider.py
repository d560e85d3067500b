"""A small real OpenID Provider on loopback for the console's tests: own EC key, real PKCE, single-use codes.

It can also issue what no honest provider would: `claims` and `header` overrides reach every token it signs.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

from connectors.demo.console.entropy import new_secret, now

CLIENT_ID = "point-console"
CLIENT_SECRET = "s3cret-of-the-console-client"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

HANAKO = {
    "sub": "acc-hanako",
    "preferred_username": "AOBA/0413",
    "name": "髙橋 花子",
    "locale": "ja",
    "company": {"code": "AOBA", "name": "青葉商店"},
    "stores": [
        {"code": "00123", "name": "渋谷駅前店", "role": "manager"},
        {"code": "00124", "name": "恵比寿店", "role": "staff"},
    ],
    "functions": ["points.view", "points.adjust", "coupon.publish"],
}
KEN = {
    **HANAKO,
    "sub": "acc-ken",
    "preferred_username": "AOBA/0777",
    "name": "𠮷田 健",
    "stores": [{"code": "00999", "name": "横浜店", "role": "staff"}],
    "functions": ["points.view"],
}


class FakeProvider:
    """`person` is who the next authorization logs in; `answer` replaces the redirect's parameters when set."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig", "alg": "ES256"})
        self.person: dict[str, Any] = HANAKO
        self.id_claims: dict[str, Any] = {}
        self.id_header: dict[str, Any] = {}
        self.userinfo_status = 200
        self.after_exchange: Any = None
        self.codes: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.issuer = ""

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/oidc/authorize",
            "token_endpoint": f"{self.issuer}/oidc/token",
            "userinfo_endpoint": f"{self.issuer}/oidc/userinfo",
            "end_session_endpoint": f"{self.issuer}/oidc/logout",
            "jwks_uri": f"{self.issuer}/oidc/jwks",
            "authorization_response_iss_parameter_supported": True,
        }

    def authorize(self, query: dict[str, str]) -> str:
        """What the provider's pages would do: check the request, log `person` in, answer with a redirect."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = new_secret()
        self.codes[code] = {"request": query, "person": self.person, "sid": new_secret()}
        answer = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        wanted = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {wanted}":
            return 401, {"error": "invalid_client"}
        grant = self.codes.pop(form.get("code", ""), None)
        challenge = _b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            grant is None
            or challenge != grant["request"]["code_challenge"]
            or form["redirect_uri"] != grant["request"]["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        access_token = new_secret()
        self.tokens[access_token] = grant["person"]
        id_token = self.id_token(grant, access_token)
        if self.after_exchange:
            self.after_exchange(grant)
        return 200, {"access_token": access_token, "token_type": "Bearer", "expires_in": 300, "id_token": id_token}

    def id_token(self, grant: dict[str, Any], access_token: str) -> str:
        moment = int(now())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "azp": CLIENT_ID,
            "sub": grant["person"]["sub"],
            "sid": grant["sid"],
            "iat": moment,
            "exp": moment + 300,
            "auth_time": moment,
            "acr": "urn:sekisho:aal1",
            "amr": ["pwd"],
            "nonce": grant["request"]["nonce"],
            "at_hash": _b64(hashlib.sha256(access_token.encode()).digest()[:16]),
        }
        return self.sign({**claims, **self.id_claims}, {"typ": "JWT", **self.id_header})

    def logout_token(self, *, drop: tuple[str, ...] = (), header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A logout token for what `claims` names; `drop` takes claims away again."""
        moment = int(now())
        whole = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": moment,
            "exp": moment + 120,
            "jti": new_secret(),
            "events": {LOGOUT_EVENT: {}},
            **claims,
        }
        for name in drop:
            del whole[name]
        return self.sign(whole, {"typ": "logout+jwt", **(header or {})})

    def sign(self, claims: dict[str, Any], header: dict[str, Any], key: Any = None) -> str:
        whole = {"alg": "ES256", "kid": self.key.kid, **header}
        present = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(present, claims, key or self.key, algorithms=["ES256", "HS256"], default_type=None)


class Handler(BaseHTTPRequestHandler):
    provider: FakeProvider

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.provider.requests.append(url.path)
        if url.path == "/.well-known/openid-configuration":
            self.json(200, self.provider.discovery())
        elif url.path == "/oidc/jwks":
            self.json(200, {"keys": [{"kty": "OKP", "crv": "X9", "x": ""}, self.provider.key.as_dict(private=False)]})
        elif url.path == "/oidc/userinfo":
            person = self.provider.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
            self.json(self.provider.userinfo_status if person else 401, person or {"error": "invalid_token"})
        else:
            self.json(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.provider.requests.append(self.path)
        self.json(*self.provider.redeem(form, self.headers.get("Authorization", "")))

    def json(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_provider() -> Iterator[FakeProvider]:
    provider = FakeProvider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"provider": provider}))
    provider.issuer = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
