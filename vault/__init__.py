"""The vault: keeps secrets of partner companies so that a stolen database opens nothing.

Envelope encryption in three steps. A root key, held by a provider, wraps one company key per company and key class;
a company key wraps a fresh data key per record version; a data key seals the fields of that version. Every
ciphertext is bound to its place (`Context`), commits to its key, and is opened only after the open is on record.

    sealed = vault.seal({"seed": Secret(seed)}, context)
    fields = vault.open(sealed, context, record=commit_audit_row)
    sealed = vault.rewrap(sealed, context, to=new_company_key_id)

A library: no database, no web, nothing of `idp` or `connectors`; it imports the standard library and `cryptography`.
Rows come in through `KeyStore`, time and ids as callables. There is no algorithm for the caller to choose.

What it does not do. It does not decide who may ask (tickets, gate rows and the brake on bulk opens are `idp`'s); it
only holds each process to its key classes. It hides no lengths: a payload is as long as its value. It does not notice
an old row put back in the place of a newer one of the same version, or a row deleted: the audit log does. It cannot
keep a value from an intruder in the process that may open it, and CPython cannot promise to erase one from memory.

Compatibility: what was sealed by a release opens with every later one. Source: docs of the design,
vault-and-gateway.md §2; requirements VA-01 to VA-05, VA-20 to VA-22, VA-32, VA-33.
"""

from vault.context import Context, KeyClass, KeyContext, Purpose
from vault.errors import (
    CannotRotate,
    ClassRefused,
    Damaged,
    IntegrityFailure,
    KeyExhausted,
    KeyShredded,
    NotRecorded,
    RootRefused,
    SealedRoot,
    UnknownSuite,
    VaultError,
    WrongContext,
    WrongKey,
)
from vault.keyring import CACHE_LIFETIME, Keyring, Rewrapped
from vault.keystore import CompanyKey, KeyState, KeyStore, RootCheck
from vault.providers import Health, RootKeyProvider
from vault.sealed import Sealed
from vault.sealing import OpenEvent, Recorder, Sealer, Vault
from vault.secret import Secret

__all__ = [
    "CACHE_LIFETIME",
    "CannotRotate",
    "ClassRefused",
    "CompanyKey",
    "Context",
    "Damaged",
    "Health",
    "IntegrityFailure",
    "KeyClass",
    "KeyContext",
    "KeyExhausted",
    "KeyShredded",
    "KeyState",
    "KeyStore",
    "Keyring",
    "NotRecorded",
    "OpenEvent",
    "Purpose",
    "Recorder",
    "Rewrapped",
    "RootCheck",
    "RootKeyProvider",
    "RootRefused",
    "Sealed",
    "SealedRoot",
    "Sealer",
    "Secret",
    "UnknownSuite",
    "Vault",
    "VaultError",
    "WrongContext",
    "WrongKey",
]
