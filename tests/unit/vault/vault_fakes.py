"""Small real classes for the vault's tests: a key store in memory, a clock that is set, a provider that goes away."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from vault import (
    CompanyKey,
    Context,
    Health,
    KeyClass,
    KeyContext,
    Keyring,
    KeyState,
    OpenEvent,
    Purpose,
    RootCheck,
    SealedRoot,
    Secret,
)
from vault.providers import RootKeyProvider
from vault.providers.env import EnvProvider

MASTER = base64.b64encode(bytes(range(32))).decode()
OTHER_MASTER = base64.b64encode(bytes(range(100, 132))).decode()


_ids: Iterator[UUID] = (UUID(int=number) for number in itertools.count(1000))


def new_id() -> UUID:
    """Never the same twice, ascending like the real ones."""
    return next(_ids)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2027, 4, 1, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


class MemoryKeyStore:
    """A `KeyStore` in a dictionary, with one lock where a database has transactions."""

    def __init__(self) -> None:
        self.rows: dict[UUID, CompanyKey] = {}
        self.reservations = 0
        self._lock = threading.Lock()

    def newest(self, company: str, key_class: KeyClass) -> CompanyKey | None:
        with self._lock:
            rows = [row for row in self.rows.values() if (row.company, row.key_class) == (company, key_class)]
        return max(rows, key=lambda row: row.version, default=None)

    def get(self, key_id: UUID) -> CompanyKey | None:
        return self.rows.get(key_id)

    def add(self, key: CompanyKey) -> bool:
        with self._lock:
            siblings = [r for r in self.rows.values() if (r.company, r.key_class) == (key.company, key.key_class)]
            if any(row.version == key.version for row in siblings):
                return False
            for row in siblings:
                if row.state is KeyState.ACTIVE:
                    self.rows[row.id] = replace(row, state=KeyState.RETIRING)
            self.rows[key.id] = key
            return True

    def reserve_wraps(self, key_id: UUID, count: int) -> int:
        with self._lock:
            row = self.rows[key_id]
            self.rows[key_id] = replace(row, wraps=row.wraps + count)
            self.reservations += 1
            return row.wraps + count

    def under_other_roots(
        self, key_class: KeyClass, root_key_id: str, *, after: UUID | None, limit: int
    ) -> Sequence[CompanyKey]:
        with self._lock:
            rows = [
                row
                for row in sorted(self.rows.values(), key=lambda row: row.id)
                if row.key_class is key_class
                and row.root_key_id != root_key_id
                and row.state is not KeyState.SHREDDED
                and (after is None or row.id > after)
            ]
        return rows[:limit]

    def replace_wrap(self, key: CompanyKey, *, seen_root_key_id: str) -> bool:
        with self._lock:
            row = self.rows[key.id]
            if row.root_key_id != seen_root_key_id or row.state is KeyState.SHREDDED:
                return False
            self.rows[key.id] = replace(
                row, root_key_id=key.root_key_id, wrapped=key.wrapped, check_value=key.check_value
            )
            return True

    def root_checks(self) -> Iterable[RootCheck]:
        return {
            (row.root_key_id, row.check_value): RootCheck(
                key_class=row.key_class, root_key_id=row.root_key_id, check_value=row.check_value
            )
            for row in self.rows.values()
            if row.state is not KeyState.SHREDDED
        }.values()

    # What an operator, or an intruder with the database, does:

    def change(self, key_id: UUID, **over: object) -> None:
        self.rows[key_id] = replace(self.rows[key_id], **over)  # type: ignore[arg-type]

    def shred(self, key_id: UUID) -> None:
        self.change(key_id, state=KeyState.SHREDDED, wrapped=b"")


class FragileProvider:
    """A real provider behind a line that can be cut."""

    def __init__(self, inner: RootKeyProvider) -> None:
        self.inner = inner
        self.away = False
        self.calls: list[str] = []
        self.development_only = inner.development_only

    def _answer(self, call: str) -> RootKeyProvider:
        self.calls.append(call)
        if self.away:
            raise SealedRoot("the provider is away")
        return self.inner

    def key_ids(self, key_class: KeyClass) -> Sequence[str]:
        return self._answer("key_ids").key_ids(key_class)

    def current(self, key_class: KeyClass) -> str:
        return self._answer("current").current(key_class)

    def check_value(self, key_id: str) -> bytes:
        return self._answer("check_value").check_value(key_id)

    def wrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        return self._answer("wrap").wrap(key_id, context, data)

    def unwrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        return self._answer("unwrap").unwrap(key_id, context, data)

    def rotate(self, key_id: str) -> str:
        return self._answer("rotate").rotate(key_id)

    def health(self) -> Health:
        return Health(ok=not self.away)


class Trail:
    """A recorder that keeps what it was told, or fails."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.events: list[OpenEvent] = []
        self.failure = failure

    def __call__(self, event: OpenEvent) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(event)


def make_context(**over: object) -> Context:
    parts: dict[str, object] = {
        "company": "sakura",
        "store": "store-12",
        "tool": "shift-note",
        "record": "credential-7",
        "version": 1,
        "purpose": Purpose.TOOL_LOGIN,
    }
    return Context(**(parts | over))  # type: ignore[arg-type]


def make_provider(*masters: str) -> EnvProvider:
    return EnvProvider({"SEKISHO_ROOT_KEY": " ".join(masters or (MASTER,))})


def make_keyring(
    store: MemoryKeyStore, provider: RootKeyProvider, *, clock: Clock | None = None, alarms: list[int] | None = None
) -> Keyring:
    return Keyring(
        store,
        provider,
        clock=clock or Clock(),
        new_id=new_id,
        alarm=lambda _row, count: alarms.append(count) if alarms is not None else None,
    )


def revealed(fields: dict[str, Secret]) -> dict[str, str]:
    return {name: value.reveal() for name, value in fields.items()}
