"""The clock and the random source of the console, and nothing else.

The house rule sends both to `idp.core`; the demo imports nothing of `idp` by design (it stands for somebody else's
system), so this is its one place for them and the one argued exception to that rule. Every other module of the
console takes `now` and the secrets it needs from here.
"""

import hashlib
import secrets  # noqa: TID251 - imports nothing of idp by design, see the module docstring
import time
from datetime import date, datetime, timedelta, timezone

JST = timezone(timedelta(hours=9), "JST")


def now() -> float:
    """Seconds since 1970-01-01 UTC, with fractions. Read once per request and passed on."""
    return time.time()  # noqa: TID251 - imports nothing of idp by design, see the module docstring


def local(at: float) -> datetime:
    """An instant in seconds as the time on a shop's wall (Japan has one zone and no summer time)."""
    return datetime.fromtimestamp(at, JST)


def today(at: float) -> date:
    """The calendar day of an instant in Japan."""
    return local(at).date()


def new_secret() -> str:
    """256 random bits as 43 characters of base64url: session ids, state, nonce and (RFC 7636 §4.1) code_verifier."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """SHA-256 of a secret, 32 bytes: what is stored, so that a copy of the database opens no session."""
    return hashlib.sha256(secret.encode()).digest()
