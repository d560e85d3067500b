"""Company keys: made at first use, unwrapped by the root key provider, held for at most five minutes.

Rows are read at every use and never cached, so a rotation or a shred holds from its commit; what is cached is only
the unwrapped key, which keeps openers alive through a short absence of the provider. Called by `Sealer` and `Vault`
for keys, and by the commands `sekisho vault …` for rotation.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from vault.context import KeyClass
from vault.envelope import KEY_BYTES
from vault.errors import (
    Damaged,
    IntegrityFailure,
    KeyExhausted,
    KeyShredded,
    SealedRoot,
    UnknownSuite,
    VaultError,
    WrongContext,
    WrongKey,
)
from vault.keystore import CompanyKey, KeyState, KeyStore
from vault.providers import RootKeyProvider

CACHE_LIFETIME: Final = timedelta(minutes=5)
#: SP 800-38D §8.3 forbids more than 2^32 random nonces under one key; we stop there with GCM-SIV too (VA-02).
WRAPS_ALARM: Final = 2**28
WRAPS_LIMIT: Final = 2**32
#: Wraps are counted in blocks, before they are made: one write per 256 seals, and a crash counts too many, never too few.
WRAPS_BLOCK: Final = 256

_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class UnwrappedKey:
    """A company key ready for use: `id` as the 16 bytes that headers carry, `key` 32 bytes."""

    id: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What became of one company key. problem: None when it is under the new root key now, else why it is not."""

    key_id: UUID
    problem: VaultError | None = None


class Keyring:
    """The company keys of one process. Safe to share between threads; no lock is held during slow calls.

    clock: returns the instant, aware. new_id: ids for new company keys. alarm: called with the row and the count, once
    for every block of wraps from 2^28 on, before anything is sealed with it.
    """

    def __init__(
        self,
        store: KeyStore,
        provider: RootKeyProvider,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
        alarm: Callable[[CompanyKey, int], None],
    ) -> None:
        self._store = store
        self._provider = provider
        self._clock = clock
        self.new_id: Final = new_id
        self._alarm = alarm
        self._lock = threading.Lock()
        self._cache: dict[UUID, tuple[datetime, bytes]] = {}
        self._reserved: dict[tuple[int, UUID], int] = {}
        self._roots_checked = False

    def check_roots(self) -> None:
        """Compare the check value of every root key that rows name with the provider's, for the classes it serves.

        Called at start-up, and by the keyring itself before it first writes a wrap (VA-22). Raises WrongKey for
        another key under a known id, SealedRoot for a root key that is not held.
        """
        for row in self._store.root_checks():
            if not self._provider.key_ids(row.key_class):
                continue  # a class of another process
            if not hmac.compare_digest(self._provider.check_value(row.root_key_id), row.check_value):
                raise WrongKey(f"root key {row.root_key_id} is not the one that wrapped the company keys")
        self._roots_checked = True

    def for_sealing(self, company: str, key_class: KeyClass) -> UnwrappedKey:
        """The active company key, made now if the company has none; counts one wrap.

        Raises SealedRoot, WrongKey, KeyShredded (a shredded company does not come back by sealing), KeyExhausted.
        """
        row = self._store.newest(company, key_class)
        if row is None or row.state is not KeyState.ACTIVE:
            row = self._add_version(company, key_class, after=row)
        key = self._unwrap(row)
        self._count_wrap(row)
        return UnwrappedKey(row.id.bytes, key)

    def for_rewrapping(self, key_id: UUID, *, company: str, key_class: KeyClass) -> UnwrappedKey:
        """The named company key as the target of a rewrap; counts one wrap. Raises WrongContext unless it is active."""
        row = self._row(key_id, company=company, key_class=key_class)
        if row.state is not KeyState.ACTIVE:
            raise WrongContext(f"company key {key_id} is {row.state.value}: nothing new goes under it")
        key = self._unwrap(row)
        self._count_wrap(row)
        return UnwrappedKey(row.id.bytes, key)

    def for_opening(self, key_id: UUID, *, company: str, key_class: KeyClass) -> bytes:
        """A company key that a header names, active or retiring: 32 bytes.

        Raises WrongContext when it is another company's or class's, Damaged when there is no such key, KeyShredded,
        SealedRoot, WrongKey.
        """
        return self._unwrap(self._row(key_id, company=company, key_class=key_class))

    def new_version(self, company: str, key_class: KeyClass) -> CompanyKey:
        """A new active company key; the one before becomes retiring. Then rewrap what is under the old one.

        Two callers at once make one version, and both get it. The old key may be shredded when nothing is under it,
        counted at least one CACHE_LIFETIME later: a seal that began before this call may be stored after it.
        """
        return self._add_version(company, key_class, after=self._store.newest(company, key_class))

    def rewrap_company_keys(self, to_root: str) -> Iterator[Rewrapped]:
        """Move the company keys of the class of `to_root` under it, in batches, reporting each one.

        Stop and start again as you like: finished ones are not visited again, and readers work throughout since both
        root keys are held. A key that does not open is reported and passed over, so that one damaged row cannot
        keep the others under an old root key; the old one stays until a run meets nothing.
        Raises SealedRoot, and WrongKey before the first write.
        """
        key_class = self._class_of_root(to_root)
        self.check_roots()
        after: UUID | None = None
        while batch := self._store.under_other_roots(key_class, to_root, after=after, limit=_BATCH):
            for row in batch:
                try:
                    moved = self._wrapped(row, self._unwrap_fresh(row), root_key_id=to_root)
                except (IntegrityFailure, UnknownSuite) as problem:
                    yield Rewrapped(row.id, problem)
                    continue
                if self._store.replace_wrap(moved, seen_root_key_id=row.root_key_id):
                    yield Rewrapped(row.id)
            after = batch[-1].id

    def forget(self) -> None:
        """Drop every unwrapped key now (an alarm, a drill, an end of work)."""
        with self._lock:
            self._cache.clear()

    def _add_version(self, company: str, key_class: KeyClass, *, after: CompanyKey | None) -> CompanyKey:
        if after is not None and after.state is KeyState.SHREDDED:
            raise KeyShredded(f"the {key_class.value} key of this company was shredded")
        if not self._roots_checked:
            # A wrong root key would seal new data that only the wrong key opens: find it before the write (VA-22).
            self.check_roots()
        root_key_id = self._provider.current(key_class)
        blank = CompanyKey(
            id=self.new_id(),
            company=company,
            key_class=key_class,
            version=after.version + 1 if after else 1,
            root_key_id=root_key_id,
            wrapped=b"",
            check_value=b"",
        )
        row = self._wrapped(blank, os.urandom(KEY_BYTES), root_key_id=root_key_id)
        if self._store.add(row):
            return row
        first = self._store.newest(company, key_class)
        if first is None:
            raise Damaged("the key store refuses a version that it does not have")
        return first

    def _wrapped(self, row: CompanyKey, key: bytes, *, root_key_id: str) -> CompanyKey:
        return replace(
            row,
            root_key_id=root_key_id,
            wrapped=self._provider.wrap(root_key_id, row.context, key),
            check_value=self._provider.check_value(root_key_id),
        )

    def _row(self, key_id: UUID, *, company: str, key_class: KeyClass) -> CompanyKey:
        row = self._store.get(key_id)
        if row is None:
            raise Damaged(f"no company key {key_id}")
        # The associated data would refuse it as well, but only after the key of another company was unwrapped.
        if row.company != company or row.key_class is not key_class:
            raise WrongContext(f"company key {key_id} is of another company or class")
        if row.state is KeyState.SHREDDED:
            raise KeyShredded(f"company key {key_id} was shredded")
        return row

    def _unwrap(self, row: CompanyKey) -> bytes:
        now = self._clock()
        with self._lock:
            cached = self._cache.get(row.id)
        # The lower bound: after the clock stepped back, an old entry would otherwise live on.
        if cached is not None and cached[0] <= now < cached[0] + CACHE_LIFETIME:
            return cached[1]
        with self._lock:
            self._cache.pop(row.id, None)
        key = self._unwrap_fresh(row)
        with self._lock:
            self._cache[row.id] = (now, key)
        return key

    def _unwrap_fresh(self, row: CompanyKey) -> bytes:
        if not hmac.compare_digest(self._provider.check_value(row.root_key_id), row.check_value):
            raise WrongKey(f"root key {row.root_key_id} is not the one that wrapped company key {row.id}")
        key = self._provider.unwrap(row.root_key_id, row.context, row.wrapped)
        if len(key) != KEY_BYTES:
            raise Damaged(f"company key {row.id} has a wrong length")
        return key

    def _count_wrap(self, row: CompanyKey) -> None:
        # Per process id: after fork() both sides would otherwise spend the same block.
        slot = (os.getpid(), row.id)
        with self._lock:
            left = self._reserved.get(slot, 0)
            if left:
                self._reserved[slot] = left - 1
                return
        total = self._store.reserve_wraps(row.id, WRAPS_BLOCK)
        if total >= WRAPS_ALARM:
            self._alarm(row, total)
        if total > WRAPS_LIMIT:
            raise KeyExhausted(f"company key {row.id} has made 2^32 wraps; rotate it")
        with self._lock:
            self._reserved[slot] = self._reserved.get(slot, 0) + WRAPS_BLOCK - 1

    def _class_of_root(self, root_key_id: str) -> KeyClass:
        for key_class in KeyClass:
            if root_key_id in self._provider.key_ids(key_class):
                return key_class
        raise SealedRoot(f"root key {root_key_id} is not held here")
