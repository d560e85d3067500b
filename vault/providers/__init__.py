"""Root key providers: whoever holds the keys above the company keys (VA-20).

A provider wraps and unwraps 32-byte company keys; with a KMS or an HSM the root key never is in our memory. All
providers pass one contract suite, tests/unit/vault/test_vault_providers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vault.context import KeyClass, KeyContext


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the provider answers now. problem: one line for the HQ health page, empty when ok; never a value."""

    ok: bool
    problem: str = ""


class RootKeyProvider(Protocol):
    """Root keys by id, one current per key class. Every method may raise SealedRoot, `health` excepted.

    Key ids are text and never reused. Thread-safe.
    """

    @property
    def development_only(self) -> bool:
        """True: production refuses to start with it (D10)."""

    def key_ids(self, key_class: KeyClass) -> Sequence[str]:
        """All root keys of the class that are held, old ones too; empty if this process is not given the class."""

    def current(self, key_class: KeyClass) -> str:
        """The root key that wraps what is new. Raises SealedRoot if the class is not held."""

    def check_value(self, key_id: str) -> bytes:
        """32 bytes that follow from the key alone and tell nothing of it; same key id and bytes, same value (VA-22)."""

    def wrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        """Wrap a 32-byte key, bound to `context`. The bytes are the provider's own; up to 1 KiB."""

    def unwrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        """What `wrap` was given. Raises IntegrityFailure for another context, key or bent bytes."""

    def rotate(self, key_id: str) -> str:
        """Make a new current root key for the class of `key_id` and return its id; the old one stays held.

        Returns the current id without making one if `key_id` is current no more: a repeated call does no harm.
        Raises CannotRotate where keys are added by other means.
        """

    def health(self) -> Health:
        """Never raises."""
