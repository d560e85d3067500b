"""The OpenID Provider seen from here: its metadata, its keys, and the three calls we make to it.

The only module that opens a socket. Every call ends within 5 s per step, follows no redirect and uses no proxy from the
environment: a code or client secret goes to the endpoint that discovery names, or nowhere.
"""

import functools
import logging
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import httpx2
from authlib.integrations.httpx_client import OAuth2Client, OAuthError
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey, import_key

from connectors.demo.console.config import Config
from connectors.demo.console.sessions import PendingLogin

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
FRESH_S = 300.0
REFETCH_EVERY_S = 3.0
"""A forged `kid` must not make us call the provider for every request; a rolled key waits this long at most."""


class ProviderUnavailable(Exception):
    """The provider did not answer, or not with what the standards say. The text is for the log."""


class LoginRefused(Exception):
    """The provider answered with an OAuth error; the text is its code, such as `invalid_grant`."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What we use of `/.well-known/openid-configuration`. `sends_iss`: RFC 9207 §3."""

    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    end_session_endpoint: str
    jwks_uri: str
    sends_iss: bool


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """The answer of the token endpoint; `repr` is off, so no log line can hold one."""

    id_token: str
    access_token: str


class Provider:
    """Discovery and keys are cached for 5 minutes, under a lock; nothing else is kept. Safe for threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def metadata(self, *, now: float) -> Metadata:
        """Discovery, at most 5 minutes old. Raises ProviderUnavailable. Source: OIDC Discovery §4.3."""
        with self._lock:
            if self._metadata is None or self._metadata[0] + FRESH_S <= now:
                self._metadata = (now, self._discover())
            return self._metadata[1]

    def keys(self, *, fresh: bool, now: float) -> KeySet:
        """The signing keys; `fresh` asks for those published right now, at most once in 3 s.

        Raises ProviderUnavailable. Source: OIDC Core §10.1.1.
        """
        jwks_uri = self.metadata(now=now).jwks_uri
        with self._lock:
            if self._keys is None or self._keys[0] + (REFETCH_EVERY_S if fresh else FRESH_S) <= now:
                self._keys = (now, _key_set(self._get_json(jwks_uri)))
            return self._keys[1]

    def authorization_url(self, state: str, pending: PendingLogin, *, login_hint: str, now: float) -> str:
        """Where the browser goes to log in: code flow, PKCE S256, state and nonce (RFC 9700 §2.1.1)."""
        hint = {"login_hint": login_hint} if login_hint else {}
        with self._client() as client:
            url, _ = client.create_authorization_url(
                self.metadata(now=now).authorization_endpoint,
                state=state,
                nonce=pending.nonce,
                code_verifier=pending.code_verifier,
                **hint,
            )
        return str(url)

    def exchange(self, code: str, pending: PendingLogin, *, now: float) -> Tokens:
        """Redeem the code. Raises LoginRefused or ProviderUnavailable; nothing is verified yet."""
        with self._client() as client:
            try:
                answer = client.fetch_token(
                    self.metadata(now=now).token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=pending.code_verifier,
                )
            except OAuthError as error:
                raise LoginRefused(str(error.error)) from error
            except (httpx2.HTTPError, ValueError) as error:
                raise ProviderUnavailable(f"token endpoint: {type(error).__name__}") from error
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str) or not isinstance(access_token, str):
            raise ProviderUnavailable("token endpoint: no id_token or no access_token")
        return Tokens(id_token, access_token)

    def userinfo(self, tokens: Tokens, *, sub: str, now: float) -> Mapping[str, object]:
        """The claims of userinfo, whose `sub` must be that of the ID token (OIDC Core §5.3.2).

        Raises ProviderUnavailable, also for a 401: a person cut between the two calls does not come in.
        """
        claims = self._get_json(
            self.metadata(now=now).userinfo_endpoint, headers={"Authorization": f"Bearer {tokens.access_token}"}
        )
        if claims.get("sub") != sub:
            raise ProviderUnavailable("userinfo: sub is not that of the ID token")
        return claims

    def logout_url(self, id_token: str, *, state: str, now: float) -> str:
        """Where the browser goes to log out. Source: RP-Initiated Logout 1.0 §2. Raises ProviderUnavailable."""
        endpoint = self.metadata(now=now).end_session_endpoint
        query = {
            "id_token_hint": id_token,
            "client_id": self._config.client_id,
            "post_logout_redirect_uri": self._config.post_logout_redirect_uri,
            "state": state,
        }
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def _client(self) -> OAuth2Client:
        return OAuth2Client(
            client_id=self._config.client_id,
            client_secret=self._config.client_secret or None,
            redirect_uri=self._config.redirect_uri,
            scope=self._config.scope,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
            verify=_tls(),
            trust_env=False,
        )

    def _discover(self) -> Metadata:
        document = self._get_json(f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration")
        # A document that names another issuer is how a mix-up begins (OIDC Discovery §4.3, RFC 9207 §4).
        if document.get("issuer") != self._config.issuer:
            raise ProviderUnavailable("discovery: issuer is not the configured one")
        return Metadata(
            authorization_endpoint=self._endpoint(document, "authorization_endpoint"),
            token_endpoint=self._endpoint(document, "token_endpoint"),
            userinfo_endpoint=self._endpoint(document, "userinfo_endpoint"),
            end_session_endpoint=self._endpoint(document, "end_session_endpoint"),
            jwks_uri=self._endpoint(document, "jwks_uri"),
            sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, document: Mapping[str, object], name: str) -> str:
        url = document.get(name)
        wanted = urlsplit(self._config.issuer).scheme
        if not isinstance(url, str) or urlsplit(url).scheme not in {"https", wanted}:
            raise ProviderUnavailable(f"discovery: {name} is missing or less safe than the issuer")
        return url

    def _get_json(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, object]:
        try:
            with httpx2.Client(timeout=TIMEOUT_S, verify=_tls(), trust_env=False) as client:
                answer = client.get(url, headers={"Accept": "application/json", **(headers or {})})
            document = answer.json() if answer.status_code == httpx2.codes.OK else None
        except (httpx2.HTTPError, ValueError) as error:
            raise ProviderUnavailable(f"{url}: {type(error).__name__}") from error
        if not isinstance(document, dict):
            raise ProviderUnavailable(f"{url}: status {answer.status_code} or not a JSON object")
        return document


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reads the host's certificate store once; a context per call would cost 50 ms each."""
    return ssl.create_default_context()


def _key_set(document: Mapping[str, object]) -> KeySet:
    """The EC and RSA keys for signatures; others are skipped, so a key kind of tomorrow breaks no login today."""
    values = document.get("keys")
    keys: list[ECKey | RSAKey] = []
    for value in values if isinstance(values, list) else []:
        if isinstance(value, dict) and value.get("kty") in {"EC", "RSA"} and value.get("use", "sig") == "sig":
            try:
                key = import_key(value)
            except (JoseError, ValueError):
                log.warning("skipped a malformed key of the provider")
                continue
            if isinstance(key, ECKey | RSAKey):
                keys.append(key)
    if not keys:
        raise ProviderUnavailable("jwks: no usable key")
    return KeySet(list(keys))
