"""The key that signs checkpoints of the audit log (AU-02): Ed25519, sealed like the token keys, used for nothing else.

It has a purpose of its own in the vault and no place in the published key set, so that no token is ever taken for a
checkpoint nor a checkpoint for a token.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from joserfc.jwk import OKPKey
from sqlalchemy import select

from idp.core import ids
from idp.core.db import reading, transaction
from idp.core.keystore import PLATFORM, SigningKey
from vault import Context, OpenEvent, Purpose, Sealed, Secret, Vault

PURPOSE = "log"


@dataclass(frozen=True)
class LogKey:
    """A usable key. public: 32 bytes; sign: 64 bytes over what it is given (RFC 8032)."""

    kid: str
    public: bytes
    sign: Callable[[bytes], bytes]


def make(vault: Vault, *, now: datetime) -> str:
    """Make and store a key; it is the newest from now on. Returns its id."""
    row_id, kid = ids.new_id(now), f"log-{now:%Y%m%d}-{ids.new_secret()[:8]}"
    key = OKPKey.generate_key("Ed25519")
    sealed = vault.seal({"key": Secret(key.as_pem(private=True))}, _context(row_id))
    with transaction() as session:
        session.add(
            SigningKey(
                id=row_id, created_at=now, purpose=PURPOSE, kid=kid, alg="Ed25519", public_jwk=key.as_dict(private=False),
                sealed=sealed.to_bytes(), not_before=now,
            )
        )  # fmt: skip
    return kid


def load(vault: Vault, audit: Callable[[OpenEvent], object]) -> LogKey | None:
    """Open the newest key; None when there is none. `audit` commits the row that an open needs (VA-32)."""
    with reading() as session:
        row = session.scalars(
            select(SigningKey)
            .where(SigningKey.purpose == PURPOSE, SigningKey.withdrawn_at.is_(None))
            .order_by(SigningKey.id.desc())
            .limit(1)
        ).one_or_none()
    if row is None:
        return None
    pem = vault.open(Sealed.from_bytes(row.sealed), _context(row.id), record=audit)["key"].reveal_bytes()
    key = OKPKey.import_key(pem)
    public = base64.urlsafe_b64decode(str(key.as_dict(private=False)["x"]) + "=")
    private: Any = key.get_op_key("sign")
    return LogKey(row.kid, public, private.sign)


def checker(public: bytes) -> Callable[[bytes, bytes], bool]:
    """Whether a signature over a message is this key's. For whole logs; `verify.py` does the same without a library."""
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    key: Any = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x}).get_op_key("verify")

    def check(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except Exception:  # noqa: BLE001 - the library's one error for "no" is not ours to import
            return False
        return True

    return check


def _context(row_id: object) -> Context:
    return Context(company=PLATFORM, record=str(row_id), version=1, purpose=Purpose.LOG_KEY)
