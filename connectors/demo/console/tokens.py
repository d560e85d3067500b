"""What the provider signs, checked as lists: the ID token and the logout token. Pure; the keys are given.

Only joserfc verifies, with an explicit algorithm list and the provider's own keys: a key or a key URL inside a token's
header is never read (CVE-2026-27962). Each kind of token has its own `typ`, so that none passes for another
(requirements.md OA-25).
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from authlib.oidc.core.util import create_half_hash
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from connectors.demo.console.sessions import LogoutNotice

ALGORITHMS = ("ES256", "RS256")
LEEWAY_S = 60.0
LOGOUT_LIFETIME_S = 120.0
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_CLAIMS = frozenset({"iss", "aud", "iat", "exp", "jti", "events", "sub", "sid"})


class InvalidToken(ValueError):
    """A token was refused. The text is a constant that names the check: safe to answer, in ASCII."""


class Keys(Protocol):
    """Where the provider's keys come from."""

    def __call__(self, *, fresh: bool) -> KeySet:
        """The known keys, or with `fresh` those published now: a `kid` was not among the known ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Whose tokens we accept: `iss` by exact string, and the one client that `aud` must name."""

    issuer: str
    client_id: str


def verify_id_token(
    token: str, keys: Keys, expected: Expected, *, nonce: str, access_token: str, now: float
) -> dict[str, object]:
    """Check an ID token of the code flow and return its claims.

    now: seconds.
    Raises InvalidToken. Clock tolerance 60 s. Source: OIDC Core §3.1.3.7 and §3.1.3.8, requirements.md OI-12.
    """
    header, claims = _open(token, keys)
    if header.get("typ", "JWT") != "JWT":
        raise InvalidToken("typ is not that of an ID token")
    _check_parties(claims, expected)
    if "azp" in claims and claims["azp"] != expected.client_id:
        raise InvalidToken("azp is not this client")
    if _number(claims, "exp") + LEEWAY_S <= now:
        raise InvalidToken("the token has expired")
    if _number(claims, "iat") > now + LEEWAY_S:
        raise InvalidToken("iat lies in the future")
    if not _equal(claims.get("nonce"), nonce):
        raise InvalidToken("nonce is not that of this login")
    half_hash = create_half_hash(access_token, header["alg"]).decode()
    if "at_hash" in claims and not _equal(claims["at_hash"], half_hash):
        raise InvalidToken("at_hash does not fit the access token")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise InvalidToken("sub is missing")
    return claims


def verify_logout_token(token: str, keys: Keys, expected: Expected, *, now: float) -> LogoutNotice:
    """Check a logout token and return what it ends; its replay is checked where notices are kept.

    Stricter than the standard on purpose: an unknown claim, a second event or a life over 2 minutes is refused, because
    this console is the fixture that proves what our provider sends. A product MUST ignore what it does not understand.
    Raises InvalidToken. Source: Back-Channel Logout 1.0 §2.4 and §2.6, requirements.md LO-04.
    """
    header, claims = _open(token, keys)
    if header.get("typ") != "logout+jwt":
        raise InvalidToken("typ is not logout+jwt")
    if "nonce" in claims:
        raise InvalidToken("nonce must not be present")
    if not claims.keys() <= LOGOUT_CLAIMS:
        raise InvalidToken("an unexpected claim is present")
    _check_parties(claims, expected)
    issued_at, expires_at = _number(claims, "iat"), _number(claims, "exp")
    if expires_at + LEEWAY_S <= now:
        raise InvalidToken("the token has expired")
    if issued_at > now + LEEWAY_S:
        raise InvalidToken("iat lies in the future")
    if not 0 < expires_at - issued_at <= LOGOUT_LIFETIME_S:
        raise InvalidToken("exp is more than 2 minutes after iat")
    if claims.get("events") != {LOGOUT_EVENT: {}}:
        raise InvalidToken("events is not exactly the back-channel logout event")
    sub, sid = _optional_text(claims, "sub"), _optional_text(claims, "sid")
    if sub is None and sid is None:
        raise InvalidToken("neither sub nor sid is present")
    jti = _optional_text(claims, "jti")
    if jti is None:
        raise InvalidToken("jti is missing")
    return LogoutNotice(jti=jti, sub=sub, sid=sid, issued_at=issued_at)


def _open(token: str, keys: Keys) -> tuple[dict[str, str], dict[str, object]]:
    try:
        try:
            opened = jwt.decode(token, keys(fresh=False), algorithms=ALGORITHMS)
        except InvalidKeyIdError:
            opened = jwt.decode(token, keys(fresh=True), algorithms=ALGORITHMS)
    except (JoseError, ValueError) as error:
        raise InvalidToken("the signature cannot be verified") from error
    return opened.header, opened.claims


def _check_parties(claims: Mapping[str, object], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise InvalidToken("iss is not the configured issuer")
    # A second audience could replay the token here (requirements.md OI-12), so one in a list of two is refused as well.
    if claims.get("aud") not in (expected.client_id, [expected.client_id]):
        raise InvalidToken("aud is not this client alone")


def _number(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"{name} is missing or not a number")
    return float(value)


def _optional_text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if name in claims and (not isinstance(value, str) or not value):
        raise InvalidToken(f"{name} is not a text")
    return value if isinstance(value, str) else None


def _equal(value: object, wanted: str) -> bool:
    return isinstance(value, str) and hmac.compare_digest(value.encode(), wanted.encode())
