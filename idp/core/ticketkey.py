"""The key of use-tickets (VA-30): 32 bytes for HMAC, sealed under a class that serve, worker and engine open, and nobody else.

Symmetric, because whoever checks a ticket holds the passwords it leads to; and not a public key in a row, because whoever can
write a ticket into the database could write that row too. The gateway cannot open it: it parses hostile pages all day.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select

from idp.core import ids
from idp.core.db import reading, transaction
from idp.core.keystore import SigningKey, key_context
from vault import OpenEvent, Sealed, Sealer, Secret, Vault

PURPOSE = "use_ticket"


def make(vault: Sealer, *, now: datetime) -> None:
    """Make and store the key of a new installation."""
    row_id = ids.new_id(now)
    sealed = vault.seal({"key": Secret(ids.new_bytes(32))}, key_context(row_id, PURPOSE))
    with transaction() as session:
        session.add(
            SigningKey(
                id=row_id, created_at=now, purpose=PURPOSE, kid=f"ticket-{ids.new_secret()[:8]}", alg="HS256",
                sealed=sealed.to_bytes(), not_before=now,
            )
        )  # fmt: skip


def load(vault: Vault, audit: Callable[[OpenEvent], object]) -> bytes | None:
    """The key; None when `sekisho init` has not made one. `audit` commits the row that an open needs (VA-32)."""
    with reading() as session:
        row = session.execute(
            select(SigningKey.id, SigningKey.sealed).where(
                SigningKey.purpose == PURPOSE, SigningKey.withdrawn_at.is_(None)
            )
        ).one_or_none()
    if row is None:
        return None
    return vault.open(Sealed.from_bytes(row.sealed), key_context(row.id, PURPOSE), record=audit)["key"].reveal_bytes()
