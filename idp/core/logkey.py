"""The key that signs checkpoints of the audit log (AU-02): Ed25519, sealed like the token keys, used for nothing else.

It has a purpose of its own in the vault and no place in the published key set, so that no token is ever taken for a
checkpoint nor a checkpoint for a token.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

from joserfc.jwk import OKPKey
from sqlalchemy import select

from idp.core import ids
from idp.core.db import reading, transaction
from idp.core.keystore import SigningKey, key_context
from vault import OpenEvent, Sealed, Secret, Vault

PURPOSE = "log"


class LogKey:
    """A key whose private part is opened at the first signature: a worker that has nothing to sign opens nothing.

    public: 32 bytes. Opening commits an audit row (VA-32), so `open` comes before any writing transaction.
    """

    def __init__(self, kid: str, public: bytes, private: Callable[[], Callable[[bytes], bytes]]) -> None:
        self.kid, self.public = kid, public
        self._make = private
        self._sign: Callable[[bytes], bytes] | None = None

    def open(self) -> Callable[[bytes], bytes]:
        """Open the private part, once. Returns what signs."""
        if self._sign is None:
            self._sign = self._make()
        return self._sign

    def sign(self, message: bytes) -> bytes:
        """64 bytes over the message (RFC 8032)."""
        return self.open()(message)


def make(vault: Vault, *, now: datetime) -> str:
    """Make and store a key; it is the newest from now on. Returns its id."""
    row_id, kid = ids.new_id(now), f"log-{now:%Y%m%d}-{ids.new_secret()[:8]}"
    key = OKPKey.generate_key("Ed25519")
    sealed = vault.seal({"key": Secret(key.as_pem(private=True))}, key_context(row_id, PURPOSE))
    with transaction() as session:
        session.add(
            SigningKey(
                id=row_id, created_at=now, purpose=PURPOSE, kid=kid, alg="Ed25519", public_jwk=key.as_dict(private=False),
                sealed=sealed.to_bytes(), not_before=now,
            )
        )  # fmt: skip
    return kid


def load(vault: Vault, audit: Callable[[OpenEvent], object]) -> LogKey | None:
    """The newest key; None when there is none. `audit` commits the row that an open needs (VA-32)."""
    with reading() as session:
        row = session.scalars(
            select(SigningKey)
            .where(SigningKey.purpose == PURPOSE, SigningKey.withdrawn_at.is_(None))
            .order_by(SigningKey.id.desc())
            .limit(1)
        ).one_or_none()
    if row is None:
        return None

    def private() -> Callable[[bytes], bytes]:
        pem = vault.open(Sealed.from_bytes(row.sealed), key_context(row.id, PURPOSE), record=audit)[
            "key"
        ].reveal_bytes()
        opened: Any = OKPKey.import_key(pem).get_op_key("sign")
        sign: Callable[[bytes], bytes] = opened.sign
        return sign

    return LogKey(row.kid, base64.urlsafe_b64decode((row.public_jwk or {})["x"] + "="), private)


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
