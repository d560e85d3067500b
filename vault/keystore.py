"""The rows behind the company keys, and the small interface through which the vault reads and writes them.

`idp` implements `KeyStore` over its table `company_key`. Every row is ciphertext; nothing here needs a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from vault.context import KeyClass, KeyContext


class KeyState(StrEnum):
    """active seals and opens · retiring only opens · shredded: the wrap is gone and so is what it protected."""

    ACTIVE = "active"
    RETIRING = "retiring"
    SHREDDED = "shredded"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyKey:
    """One row of `company_key`.

    company: the text that contexts carry. version: from 1, without gaps, per (company, key_class).
    root_key_id, check_value: the root key that wrapped it and that key's check value. wrapped: opaque bytes of the
    provider, empty once shredded. wraps: an upper bound of the wraps made with it, up to 2^32 and a little: 64 bits.
    """

    id: UUID
    company: str
    key_class: KeyClass
    version: int
    root_key_id: str
    wrapped: bytes = field(repr=False)
    check_value: bytes = field(repr=False)
    wraps: int = 0
    state: KeyState = KeyState.ACTIVE

    @property
    def context(self) -> KeyContext:
        """What its wrap is bound to."""
        return KeyContext(company=self.company, key_class=self.key_class, key_id=self.id, version=self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCheck:
    """A root key in use, as the rows know it."""

    key_class: KeyClass
    root_key_id: str
    check_value: bytes = field(repr=False)


class KeyStore(Protocol):
    """Company key rows. Each method is one short transaction, committed when it returns.

    The vault calls it outside any transaction of the caller. (Where it shares one that is rolled back, nothing
    breaks: the key and what it sealed vanish together, and the count of wraps loses at most one block.)
    """

    def newest(self, company: str, key_class: KeyClass) -> CompanyKey | None:
        """The highest version whatever its state; None if the company never had a key of this class."""

    def get(self, key_id: UUID) -> CompanyKey | None:
        """One row whatever its state."""

    def add(self, key: CompanyKey) -> bool:
        """Insert it as the active one; in the same transaction an older active version becomes retiring.

        False, with nothing changed, when (company, key_class, version) exists: another process was first.
        """

    def reserve_wraps(self, key_id: UUID, count: int) -> int:
        """Add `count` to `wraps` and return the new sum: one atomic UPDATE."""

    def under_other_roots(
        self, key_class: KeyClass, root_key_id: str, *, after: UUID | None, limit: int
    ) -> Sequence[CompanyKey]:
        """Rows of the class, not shredded, under another root key than this; by id ascending, from beyond `after`."""

    def replace_wrap(self, key: CompanyKey, *, seen_root_key_id: str) -> bool:
        """Store root_key_id, wrapped and check_value of `key` if the row is still under `seen_root_key_id` and not
        shredded. Returns whether it was: a rewrap must not bring a shredded key back.
        """

    def root_checks(self) -> Iterable[RootCheck]:
        """The distinct (key_class, root_key_id, check_value) of all rows that are not shredded."""
