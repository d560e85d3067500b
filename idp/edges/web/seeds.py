"""TOTP seeds between the vault and the pages: sealed before they travel, opened for the check in hand (VA-30).

No transaction is open here: an open commits its audit row by itself, first (VA-32).
"""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pyotp

from idp.domain.authn.second_factor import SealedSeed, seed_context
from idp.edges import browser
from idp.services import record_open
from vault import IntegrityFailure, KeyShredded, Sealed, Sealer, Secret, UnknownSuite


def new_seed() -> str:
    """160 random bits in base32 (AC-25)."""
    return pyotp.random_base32(32)


def seal_seed(
    vault: Sealer, seed: str, authenticator_id: uuid.UUID, account_id: uuid.UUID, company_id: uuid.UUID
) -> SealedSeed:
    """Seal a seed to the authenticator, account and company it is for."""
    sealed = vault.seal({"seed": Secret(seed)}, seed_context(authenticator_id, account_id, company_id))
    return SealedSeed(authenticator_id, account_id, company_id, sealed.to_bytes())


def open_seed(found: SealedSeed) -> str:
    """Open a seed for one check. Raises vault errors: a row moved from another account does not open (VA-04)."""
    fields = browser.services().vault.open(
        Sealed.from_bytes(found.sealed),
        seed_context(found.authenticator_id, found.account_id, found.company_id),
        record=record_open,
    )
    return fields["seed"].reveal()


def to_form(found: SealedSeed) -> str:
    """A sealed seed as a hidden form value: the page that shows the QR code stores nothing yet."""
    return urlsafe_b64encode(found.sealed).decode()


def from_form(
    text: str, authenticator_id: str, account_id: uuid.UUID, company_id: uuid.UUID
) -> tuple[SealedSeed, str] | None:
    """Read it back with its seed; None when somebody changed it, or it is older than its key. Bound to this account, so another's does not fit."""
    try:
        found = SealedSeed(uuid.UUID(authenticator_id), account_id, company_id, urlsafe_b64decode(text.encode()))
        return found, open_seed(found)
    except (ValueError, IntegrityFailure, UnknownSuite, KeyShredded):
        return None
