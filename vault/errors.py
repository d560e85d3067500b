"""What can go wrong in the vault, one type per decision a caller has to make.

`code` is the only part meant for the outside (audit row, alarm, answer); the message is for the log and names ids,
never a value. `WrongContext`, `Damaged` and `WrongKey` share one code, because whoever can tell a row that was
swapped from one that was bent learns how far an attack got.
"""

from __future__ import annotations

from typing import ClassVar


class VaultError(Exception):
    """Base of everything the vault raises on purpose; nothing was opened or written."""

    code: ClassVar[str] = "vault"


class IntegrityFailure(VaultError):
    """The bytes are not what was sealed for this place: alarm, lock the credential, let a person decide."""

    code = "vault_integrity"


class WrongContext(IntegrityFailure):
    """Intact perhaps, but it belongs to another row, version, company, class or field (VA-04)."""


class Damaged(IntegrityFailure):
    """Not our bytes, or not any more: cut short, extended, bent, or put together from two records."""


class WrongKey(IntegrityFailure):
    """The root key behind a known key id is not the one that wrapped: found by its check value (VA-22)."""


class UnknownSuite(VaultError):
    """A suite outside the allow-list of its format: a newer release wrote it, or somebody asks for a weaker one."""

    code = "vault_unknown_suite"


class NotRecorded(VaultError):
    """The audit row could not be written, so nothing was opened (VA-32). The cause is chained."""

    code = "open_not_recorded"


class ClassRefused(VaultError):
    """This process may not open that key class (VA-30)."""

    code = "vault_class_refused"


class SealedRoot(VaultError):
    """The root key provider is away or does not hold the key: opens fail closed, try again later (VA-20, VA-25)."""

    code = "vault_sealed"


class RootRefused(SealedRoot):
    """The provider is there and unsafe (mode, owner, place, placeholder key): refuse to start; waiting does not help."""

    code = "vault_root_refused"


class CannotRotate(VaultError):
    """This provider only reads keys; the message says what the operator does instead."""

    code = "vault_cannot_rotate"


class KeyShredded(VaultError):
    """The company's key was destroyed on purpose; what it protected is gone for good (VA-08)."""

    code = "vault_key_shredded"


class KeyExhausted(VaultError):
    """2^32 wraps under one company key: rotate it before sealing anything else (VA-02)."""

    code = "vault_key_exhausted"
