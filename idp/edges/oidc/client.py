"""A relying party as Authlib sees it, and the requests we hand to Authlib."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime
from typing import Any

from authlib.oauth2.rfc6749 import ClientMixin, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from werkzeug.datastructures import Headers, MultiDict

from idp.core import ids
from idp.domain.applications.decide import application_facts

SCOPES = ("openid", "profile", "offline_access")
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,64}")
_LOOPBACK = re.compile(r"(?P<origin>http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]+)?(?P<rest>(?:[/?].*)?)")


class Client(ClientMixin):  # type: ignore[misc]
    """One row of `grants.client_query`, valid for the transaction that read it."""

    def __init__(self, row: Any, now: datetime) -> None:
        self.row = row
        self.now = now
        self.client_id: str = row.client_id
        self.application = application_facts(row)

    @property
    def is_public(self) -> bool:
        """True for a client without a secret."""
        return bool(self.row.auth_method == "none")

    def get_client_id(self) -> str:
        """See ClientMixin."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """None: OpenID Connect requires the parameter, so a missing one is an error."""
        return

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Exact string; for native clients only, any port of a registered loopback address (OA-01, RFC 8252 §7.3)."""
        if redirect_uri in self.row.redirect_uris:
            return True
        return self.is_public and any(_same_but_port(redirect_uri, known) for known in self.row.redirect_uris)

    def check_client_secret(self, client_secret: str) -> bool:
        """Against both live secrets, in constant time (OA-24)."""
        given = ids.digest(client_secret)
        good = self.row.secret_digest is not None and ids.same(given, self.row.secret_digest)
        old_lives = self.row.old_secret_digest is not None and self.row.old_secret_ends_at > self.now
        return good or (old_lives and ids.same(given, self.row.old_secret_digest))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """One method per client, exactly as registered (OA-14)."""
        return bool(method == self.row.auth_method) and endpoint == "token" and self.application.alive

    def check_response_type(self, response_type: str) -> bool:
        """Code only (OA-08)."""
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        """Codes for all, refresh for those registered for it."""
        return grant_type == "authorization_code" or (grant_type == "refresh_token" and bool(self.row.refresh_allowed))

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Those of the wished scopes that exist, in our order; unknown ones are ignored (OIDC Core §3.1.2.1). None: no openid."""
        wished = set((scope or "").split())
        if "openid" not in wished:
            return None
        if not self.row.offline_allowed:
            wished.discard("offline_access")
        return " ".join(name for name in SCOPES if name in wished)


def _same_but_port(given: str, known: str) -> bool:
    """The registered loopback address with any port or none; every other character as registered.

    Compared as text: a URL parser folds case and drops tabs and newlines, and what it drops would reach the Location header.
    """
    parts = _LOOPBACK.fullmatch(known)
    if parts is None:
        return False
    wanted = f"{re.escape(parts['origin'])}(:[1-9][0-9]{{0,4}})?{re.escape(parts['rest'])}"
    return re.fullmatch(wanted, given) is not None


class Payload(OAuth2Payload):  # type: ignore[misc]
    """Parameters of one place only: the query of a GET or the body of a POST, never both mixed (libraries.md 2.7)."""

    def __init__(self, values: MultiDict[str, str]) -> None:
        self._data = values.to_dict(flat=True)
        self._lists: defaultdict[str, list[str]] = defaultdict(list, {k: values.getlist(k) for k in values})

    @property
    def data(self) -> dict[str, str]:
        """One value each."""
        return self._data

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        """All values."""
        return self._lists


class Request(OAuth2Request):  # type: ignore[misc]
    """What Authlib's grants read. headers: any mapping with the names as sent."""

    def __init__(self, method: str, uri: str, values: MultiDict[str, str], headers: Headers) -> None:
        super().__init__(method, uri, headers=_readable(headers))
        self.payload = Payload(values)

    @property
    def form(self) -> dict[str, str]:
        """The body's parameters, for the token endpoint."""
        found: dict[str, str] = self.payload.data
        return found


def _readable(headers: Headers) -> dict[str, str]:
    """The headers, without an Authorization that Authlib cannot read: it raises where a 401 is due (RFC 7617 §2)."""
    kept = dict(headers)
    try:
        extract_basic_authorization(kept)
    except ValueError:
        del kept["Authorization"]
    return kept


def could_be_client_id(text: str) -> bool:
    """False for what no client is called: a NUL, for one, is an error of PostgreSQL and not an unknown client."""
    return _CLIENT_ID.fullmatch(text) is not None


def repeated(values: MultiDict[str, str]) -> str | None:
    """The name of a parameter that was sent twice, or None (OA-02). `resource` may be: see `wrong_resource`."""
    return next((name for name in values if name != "resource" and len(values.getlist(name)) > 1), None)


def wrong_resource(values: MultiDict[str, str], issuer: str) -> bool:
    """True when an access token is wanted for anything but the one API that ours are for (RFC 8707 §2, OA-26)."""
    return values.getlist("resource") not in ([], [f"{issuer}/oidc/userinfo"])
