"""What our tokens say. One function per kind of token, each with its own `typ` (OA-25, C4)."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from typing import Any

from idp.core import ids
from idp.domain.applications.decide import Allowed, Facts
from idp.domain.tokens.grants import Grant

ID_TOKEN, ACCESS_TOKEN, LOGOUT_TOKEN = "JWT", "at+jwt", "logout+jwt"
BACKCHANNEL_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_LIFE = timedelta(minutes=2)
CLAIMS = ("sub", "name", "preferred_username", "locale", "company", "stores", "functions")
PROFILE = {"name", "preferred_username", "locale"}


def about(facts: Facts, allowed: Allowed, *, scope: str, asked: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The claims of D20. asked: names wished for by the `claims` parameter, on top of the scope's."""
    everything: dict[str, Any] = {
        "sub": facts.subject,
        "name": facts.name,
        "preferred_username": f"{facts.company_code}/{facts.login_name}",
        "locale": facts.locale,
        "company": {"code": facts.company_code, "name": facts.company_name},
        "stores": [{"code": s.code, "name": s.name, "role": s.role} for s in allowed.stores],
        "functions": list(allowed.functions),
    }
    hidden = set() if "profile" in scope.split() else PROFILE - asked
    return {name: value for name, value in everything.items() if name not in hidden}


def access_token(
    issuer: str, client_id: str, facts: Facts, grant: Grant, *, asked: list[str], now: datetime, life_s: int
) -> dict[str, Any]:
    """RFC 9068 claims. The audience is our userinfo endpoint alone (OA-26); `gid` names the family, so that every use
    finds the live row (OA-17). asked: names that userinfo owes on top of the scope's (OIDC Core §5.5)."""
    claims: dict[str, Any] = {
        "iss": issuer, "aud": f"{issuer}/oidc/userinfo", "sub": facts.subject, "client_id": client_id, "iat": _s(now),
        "exp": _s(now) + life_s, "jti": ids.new_secret(), "scope": grant.scope, "auth_time": _s(grant.auth_time), "acr": grant.acr,
        "amr": list(grant.amr), "gid": str(grant.family_id),
    }  # fmt: skip
    if not grant.offline:
        claims["sid"] = grant.sid
    if asked:
        claims["asked"] = asked
    return claims


def id_token(
    issuer: str,
    client_id: str,
    grant: Grant,
    person: dict[str, Any],
    *,
    access: str,
    nonce: str | None,
    now: datetime,
    life_s: int,
) -> dict[str, Any]:
    """OIDC Core §2. The audience is one string (D16); a refreshed one has the original auth_time and no nonce (§12.2)."""
    claims: dict[str, Any] = {
        **person, "iss": issuer, "aud": client_id, "azp": client_id, "iat": _s(now), "exp": _s(now) + life_s, "auth_time": _s(grant.auth_time),
        "acr": grant.acr, "amr": list(grant.amr), "sid": grant.sid, "at_hash": half_hash(access),
    }  # fmt: skip
    if nonce is not None:
        claims["nonce"] = nonce
    return claims


def logout_token(issuer: str, client_id: str, *, sub: str, sid: str | None, now: datetime) -> dict[str, Any]:
    """Back-Channel Logout 1.0 §2.4. sid None: every session of this subject. Never a nonce; a new jti each time (LO-04)."""
    claims: dict[str, Any] = {
        "iss": issuer, "aud": client_id, "iat": _s(now), "exp": _s(now + LOGOUT_LIFE), "jti": ids.new_secret(), "sub": sub,
        "events": {BACKCHANNEL_EVENT: {}},
    }  # fmt: skip
    if sid is not None:
        claims["sid"] = sid
    return claims


def half_hash(token: str) -> str:
    """at_hash for ES256 and RS256: the left half of SHA-256, base64url (OIDC Core §3.1.3.6)."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode("ascii")).digest()[:16]).rstrip(b"=").decode()


def _s(instant: datetime) -> int:
    return int(instant.timestamp())
