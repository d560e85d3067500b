"""Discovery and JWKS: bytes that are the same for everybody, answered in front of Flask (performance.md 4.4).

Only what works is advertised (OA-28). Both carry an ETag; the key set may be cached for as long as a new key is published
before it signs (OI-15).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

from idp.core import clock
from idp.core.errors import Unavailable
from idp.core.keys import ALGORITHMS
from idp.domain.applications.decide import ACR_ORDER
from idp.edges.oidc.claims import CLAIMS
from idp.edges.oidc.client import SCOPES
from idp.services import Services

DISCOVERY, JWKS = "/.well-known/openid-configuration", "/oidc/jwks"
CACHE_DISCOVERY_S = 3600

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


def discovery(issuer: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0 §3, RFC 8414, RFC 9207, Back-Channel Logout §2.1, RP-Initiated Logout §2.1."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oidc/authorize",
        "token_endpoint": f"{issuer}/oidc/token",
        "userinfo_endpoint": f"{issuer}/oidc/userinfo",
        "jwks_uri": f"{issuer}{JWKS}",
        "end_session_endpoint": f"{issuer}/oidc/logout",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ALGORITHMS),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "acr_values_supported": list(ACR_ORDER[:2]),
        "claim_types_supported": ["normal"],
        "claims_supported": [
            *CLAIMS,
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "acr",
            "amr",
            "azp",
            "at_hash",
            "sid",
        ],
        "claims_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "authorization_response_iss_parameter_supported": True,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }


class Documents:
    """WSGI in front of Flask for the two documents; everything else goes through."""

    def __init__(self, app: Flask, inner: WSGIApp, services: Services) -> None:
        self._app = app
        self._inner = inner
        self._services = services
        self._host = services.settings.issuer_host
        body = json.dumps(discovery(services.settings.issuer), separators=(",", ":")).encode()
        self._discovery = (body, _etag(body))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path not in {DISCOVERY, JWKS} or environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return self._inner(environ, start_response)
        if environ.get("HTTP_HOST") != self._host:
            return self._inner(environ, start_response)
        if path == DISCOVERY:
            return _answer(environ, start_response, *self._discovery, CACHE_DISCOVERY_S)
        with self._app.app_context():
            try:
                body = self._services.signer.jwks(now=clock.now())
            except Unavailable:
                start_response("503 Service Unavailable", [("Retry-After", "5"), ("Content-Length", "0")])
                return [b""]
        return _answer(environ, start_response, body, _etag(body), self._services.settings.jwks_cache_s)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _answer(
    environ: dict[str, Any], start_response: StartResponse, body: bytes, etag: str, max_age_s: int
) -> Iterable[bytes]:
    headers = [
        ("ETag", etag),
        ("Cache-Control", f"public, max-age={max_age_s}"),
        ("Access-Control-Allow-Origin", "*"),  # public documents, without cookies (OA-34)
        ("X-Content-Type-Options", "nosniff"),
    ]
    if environ.get("HTTP_IF_NONE_MATCH") == etag:
        start_response("304 Not Modified", headers)
        return [b""]
    start_response("200 OK", [*headers, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [body]
