"""Identifiers and secrets: the one source of randomness inside `idp`.

Row ids are UUIDv7 (RFC 9562 §5.7): sortable by creation, so that lists page by key and B-trees append; they are
names, never secrets. Secrets carry 256 bits and are stored as SHA-256 digests only (OA-18): a digest needs no salt
because nobody can guess 256 random bits.
"""

from __future__ import annotations

import hashlib
import secrets  # noqa: TID251 - this module is the fence that the rule protects
import unicodedata
import uuid
from datetime import UTC, datetime

from idp.core import clock

#: Crockford's alphabet without I, L, O and U: an activation code is read aloud and typed (AC-08).
TYPED_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(now: datetime | None = None) -> uuid.UUID:
    """A new UUIDv7. `now` (aware) puts its milliseconds into the id."""
    millis = int((now or clock.now()).timestamp() * 1000)
    value = (millis & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return uuid.UUID(int=value)


def first_id(instant: datetime) -> uuid.UUID:
    """The smallest id that a row of this millisecond or later can have: a range of time is a range of the primary key."""
    return uuid.UUID(int=int(instant.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62)


def instant_of(row_id: uuid.UUID) -> datetime:
    """The millisecond in which a row's id was made, aware, UTC."""
    return datetime.fromtimestamp((row_id.int >> 80) / 1000, tz=UTC)


def new_secret() -> str:
    """256 random bits as 43 URL-safe characters: session ids, codes, client secrets (OA-18, AC-40)."""
    return secrets.token_urlsafe(32)


def new_bytes(size: int) -> bytes:
    """`size` random bytes, for keys and salts."""
    return secrets.token_bytes(size)


def new_typed_code() -> str:
    """An activation code of 26 characters (130 bits, AC-08) that survives reading aloud and upper-casing."""
    return "".join(secrets.choice(TYPED_ALPHABET) for _ in range(26))


def below(limit: int) -> int:
    """A uniform random number from 0 to `limit` - 1, for passwords that a machine makes (VA-42)."""
    return secrets.randbelow(limit)


def fold_typed_code(text: str) -> str:
    """Undo what people and input methods do to a typed code: full-width forms, lower case, spaces, hyphens, O for 0."""
    folded = unicodedata.normalize("NFKC", text).upper()
    kept = "".join(c for c in folded if c.isalnum())
    return kept.translate(str.maketrans("OIL", "011"))


def digest(secret: str) -> bytes:
    """SHA-256 of a secret: the only form in which the database holds it (OA-18). 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def same(left: bytes | str, right: bytes | str) -> bool:
    """Compare two digests or codes in constant time."""
    as_bytes = (value.encode() if isinstance(value, str) else value for value in (left, right))
    return secrets.compare_digest(*as_bytes)
