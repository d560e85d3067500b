"""Rotating keys while everything runs (VA-21): in batches, resumable at any point, the old key off only when nothing is under it.

A company key: a new version is made, and every data key under the old one is wrapped anew; payloads keep their bytes, no
plaintext is made, nothing is recorded as opened. A root key: the same with company keys. Readers work throughout, because an
old key opens until it is switched off. Killed anywhere, the next run goes on from what the rows say; there is no other state.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core.db import change, reading, run, transaction
from idp.core.errors import Conflict
from idp.core.keystore import CompanyKeyRow, SqlKeyStore, switch_off
from idp.domain.credentials import service
from idp.domain.credentials.models import SealedCredential
from idp.domain.tools import health
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.lifecycle.rewrap.places import Lying, Place, company_of, places_of
from vault import (
    CACHE_LIFETIME,
    CompanyKey,
    IntegrityFailure,
    KeyClass,
    Keyring,
    KeyShredded,
    KeyState,
    RootKeyProvider,
    Sealed,
    UnknownSuite,
    Vault,
    VaultError,
)

log = logging.getLogger(__name__)

BATCH = 500


class LoggedKeyStore(SqlKeyStore):
    """The key rows for a rotation: each change is in the log with it, and rows are read once per batch instead of per record."""

    def __init__(self, clock: Callable[[], datetime], actor: Actor) -> None:
        super().__init__(clock)
        self._now, self._actor = clock, actor
        self._read: dict[uuid.UUID, CompanyKey] = {}

    def forget(self) -> None:
        """Read the rows again: another process may have rotated or shredded."""
        self._read.clear()

    def get(self, key_id: uuid.UUID) -> CompanyKey | None:
        """See `vault.KeyStore`; as it was when the batch began. A record that moves under a key that was retired meanwhile is
        found by the next rotation like any other."""
        if key_id not in self._read:
            found = super().get(key_id)
            if found is None:
                return None
            self._read[key_id] = found
        return self._read[key_id]

    def add(self, key: CompanyKey) -> bool:
        """See `vault.KeyStore`."""
        with transaction() as session:
            went = self.insert(session, key)
            if went:
                self._record(session, Tag.COMPANY_KEY_MADE, key, version=key.version, root_key_id=key.root_key_id)
        return went

    def replace_wrap(self, key: CompanyKey, *, seen_root_key_id: str) -> bool:
        """See `vault.KeyStore`."""
        with transaction() as session:
            went = self.rewrap(session, key, seen_root_key_id=seen_root_key_id)
            if went:
                self._record(session, Tag.COMPANY_KEY_REWRAPPED, key, old=seen_root_key_id, root_key_id=key.root_key_id)
        return went

    def _record(self, session: Session, tag: Tag, key: CompanyKey, **detail: object) -> None:
        record(
            session, tag, actor=self._actor, now=self._now(), company_id=company_of(key.company), key_id=key.id,
            key_class=key.key_class.value, **detail,  # type: ignore[arg-type]
        )  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """One rotation of a company's key of one class: to the active one, from those that retire."""

    company: str
    key_class: KeyClass
    to: uuid.UUID
    old: tuple[uuid.UUID, ...]


@dataclass
class Progress:
    """How far a run came. left: still under an old key; stuck: rows that do not open, by place."""

    moved: int = 0
    left: int = 0
    stuck: tuple[tuple[str, uuid.UUID], ...] = ()


def keys_of(session: Session, company: str | None = None) -> Sequence[CompanyKeyRow]:
    """The company keys of one company, or all of them, oldest first."""
    query = select(CompanyKeyRow).order_by(CompanyKeyRow.company, CompanyKeyRow.key_class, CompanyKeyRow.version)
    return session.scalars(query.where(CompanyKeyRow.company == company) if company else query).all()


def begin(keyring: Keyring, company: str, key_class: KeyClass) -> Turn:
    """Go on with a rotation that was stopped, or begin one. Raises Conflict when the company has no key of this class."""

    def look() -> tuple[list[uuid.UUID], list[uuid.UUID]]:
        with reading() as session:
            rows = [row for row in keys_of(session, company) if row.key_class == key_class.value]
            return tuple(
                [row.id for row in rows if row.state == state.value] for state in (KeyState.ACTIVE, KeyState.RETIRING)
            )  # type: ignore[return-value]

    active, retiring = look()
    if not active:
        raise Conflict("この会社には、この種類の鍵がありません。", f"no active {key_class.value} key of {company}")
    if not retiring:
        keyring.new_version(company, key_class)
        active, retiring = look()
    return Turn(company, key_class, active[-1], tuple(retiring))


def under(session: Session, key_class: KeyClass, keys: Sequence[uuid.UUID]) -> int:
    """The gauge *still under the old key*, by what the records say of themselves."""
    return sum(place.count(session, keys) for place in places_of(key_class)) if keys else 0


def move(
    vault: Vault, store: LoggedKeyStore, turn: Turn, *, actor: Actor, clock: Callable[[], datetime], batch: int = BATCH
) -> Iterator[Progress]:
    """Move every record to the new key, yielding after each batch; run again until nothing is left but what does not open.

    Raises vault.SealedRoot when the root key goes away: start again later.
    """
    done = Progress()
    stuck: list[tuple[str, uuid.UUID]] = []
    for place in places_of(turn.key_class):
        after: uuid.UUID | None = None
        while True:
            store.forget()
            with reading() as session:
                found = place.batch(session, turn.old, after=after, limit=batch)
            if not found:
                break
            after = found[-1].row_id
            failed = _move_batch(vault, place, turn, found, actor=actor, now=clock())
            stuck += [(place.name, lying.row_id) for lying in failed]
            done.moved += len(found) - len(failed)
            done.stuck = tuple(stuck)
            yield done
    with reading() as session:
        done.left = under(session, turn.key_class, turn.old)
    yield done


def _move_batch(
    vault: Vault, place: Place, turn: Turn, found: Sequence[Lying], *, actor: Actor, now: datetime
) -> list[Lying]:
    """Wrap anew outside, store inside one transaction. Returns the records that do not open."""
    rows, failed = [], []
    for lying in found:
        try:
            moved = vault.rewrap(
                Sealed.from_bytes(lying.stored) if lying.sealed is None else lying.sealed, lying.context, to=turn.to
            )
        except (IntegrityFailure, UnknownSuite, KeyShredded) as error:
            failed.append(lying)
            log.error(  # noqa: TRY400 - an alarm, not a fault of ours
                "a sealed record does not open; it stays under its old key",
                extra={
                    "code": "vault_integrity",
                    "place": place.name,
                    "row": str(lying.row_id),
                    "why": type(error).__name__,
                },
            )
            continue
        row = {"row": lying.row_id, "old": lying.stored, "new": place.bytes_of(moved)}
        rows.append({**row, "key": turn.to} if place.key_column is not None else row)
    with transaction(reserved=True) as session:
        if rows:
            run(session, place.store(), rows)
            change(session, update(CompanyKeyRow).where(CompanyKeyRow.id.in_(turn.old)).values(moved_at=now))
            record(
                session, Tag.RECORDS_REWRAPPED, actor=actor, now=now, company_id=company_of(turn.company), key_id=turn.to, place=place.name,
                count=len(rows),
            )  # fmt: skip
        for lying in failed:
            if lying.credential_id is not None:
                account = session.scalar(
                    select(SealedCredential.tool_account_id).where(SealedCredential.id == lying.credential_id)
                )
                if account is not None:
                    health.degrade(session, account, "vault_integrity", actor=actor, now=now)
                service.lock(session, lying.credential_id, "vault_integrity", actor=actor, now=now)
    return failed


def finish(turn: Turn, *, actor: Actor, now: datetime) -> tuple[list[uuid.UUID], datetime | None]:
    """Switch off the old keys under which nothing is. Returns those, and when the next one may go; None: not before records move."""
    off: list[uuid.UUID] = []
    later: datetime | None = None
    for key_id in turn.old:
        with transaction(reserved=True) as session:
            if under(session, turn.key_class, [key_id]):
                continue
            if switch_off(session, key_id, now=now):
                off.append(key_id)
                record(
                    session, Tag.COMPANY_KEY_OFF, actor=actor, now=now, company_id=company_of(turn.company), key_id=key_id,
                    key_class=turn.key_class.value,
                )  # fmt: skip
                continue
            moved_at = session.scalar(select(CompanyKeyRow.moved_at).where(CompanyKeyRow.id == key_id))
        if moved_at is not None:
            later = max(later or moved_at, moved_at + CACHE_LIFETIME)
    return off, later


@dataclass(frozen=True)
class RootTurn:
    """One rotation of a root key. old: root keys that are held beside the new one; left: company keys still under them."""

    to: str
    old: tuple[str, ...]
    moved: int
    problems: tuple[uuid.UUID, ...]
    left: int


def rotate_root(
    keyring: Keyring, provider: RootKeyProvider, key_class: KeyClass, *, actor: Actor, now: datetime
) -> RootTurn:
    """Make a new root key of a class and move the company keys under it, or go on with a move that was stopped.

    Raises Conflict when the provider only reads keys and holds no newer one.
    """
    before = provider.current(key_class)
    if not under_other_roots(key_class, before):
        try:
            provider.rotate(before)
        except VaultError as error:
            raise Conflict(
                "この場所の鍵は、コマンドでは作れません。新しい鍵を先頭に加えてから、もう一度実行してください。",
                str(error),
            ) from error
    to, moved, problems = provider.current(key_class), 0, []
    for one in keyring.rewrap_company_keys(to):
        moved += one.problem is None
        if one.problem is not None:
            problems.append(one.key_id)
            log.error(
                "a company key does not open; it stays under its old root key",
                extra={"code": "vault_integrity", "key": str(one.key_id)},
            )
    old = tuple(held for held in provider.key_ids(key_class) if held != to)
    left = under_other_roots(key_class, to)
    with transaction() as session:
        record(
            session,
            Tag.ROOT_KEY_ROTATED,
            actor=actor,
            now=now,
            key_class=key_class.value,
            root_key_id=to,
            moved=moved,
            left=left,
        )
    return RootTurn(to, old, moved, tuple(problems), left)


def under_other_roots(key_class: KeyClass, root_key_id: str) -> int:
    """The gauge of a root key: company keys of the class that are under another one."""
    with reading() as session:
        return sum(
            row.key_class == key_class.value and row.root_key_id != root_key_id and row.state != KeyState.SHREDDED.value
            for row in keys_of(session)
        )
