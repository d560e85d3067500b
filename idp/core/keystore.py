"""The tables behind keys, and the vault's view of one of them.

Every row is ciphertext. `company_key` serves the vault through `KeyStore`; `signing_key` holds our own keys, sealed
under the company key of the platform.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, LargeBinary, String, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from idp.core.db import Base, change, claim, insert_into, reading, transaction
from vault import CACHE_LIFETIME, CompanyKey, Context, KeyClass, KeyState, Purpose, RootCheck

#: the `company` of contexts that belong to the installation itself
PLATFORM = "platform"
#: `signing_key.purpose` → what the vault calls it
PURPOSES = {
    "jwt": Purpose.SIGNING_KEY, "saml": Purpose.SIGNING_KEY, "refresh": Purpose.REFRESH_KEY, "web": Purpose.REFRESH_KEY,
    "log": Purpose.LOG_KEY, "use_ticket": Purpose.USE_TICKET_KEY,
}  # fmt: skip


def key_context(row_id: uuid.UUID, purpose: str) -> Context:
    """The place of one of our own keys. purpose: of its row in `signing_key`."""
    return Context(company=PLATFORM, record=str(row_id), version=1, purpose=PURPOSES[purpose])


class CompanyKeyRow(Base):
    """A company's key of one class, wrapped by a root key."""

    __tablename__ = "company_key"
    __table_args__ = (Index("uq_company_key_version", "company", "key_class", "version", unique=True),)

    company: Mapped[str] = mapped_column(String(64))
    key_class: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    root_key_id: Mapped[str] = mapped_column(String(100))
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    check_value: Mapped[bytes] = mapped_column(LargeBinary)
    wraps: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(16))
    #: of a retiring key: when it began to retire, or when the last record was moved away from it
    moved_at: Mapped[datetime | None]


class SigningKey(Base):
    """One of our keys. Published from the start, used from `not_before`, kept until what it signed has expired (OI-15)."""

    __tablename__ = "signing_key"

    purpose: Mapped[str] = mapped_column(String(32), index=True)
    kid: Mapped[str] = mapped_column(String(64), unique=True)
    alg: Mapped[str] = mapped_column(String(16))
    public_jwk: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    not_before: Mapped[datetime]
    #: when it leaves the published set; set when a newer one takes over
    ends_at: Mapped[datetime | None]
    #: an emergency: out of the set at once, and what it signed is refused
    withdrawn_at: Mapped[datetime | None]


class SqlKeyStore:
    """`vault.KeyStore` over `company_key`. Each method is one short transaction, as the protocol asks."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def newest(self, company: str, key_class: KeyClass) -> CompanyKey | None:
        """See `vault.KeyStore`."""
        with reading() as session:
            row = session.scalar(
                select(CompanyKeyRow)
                .where(CompanyKeyRow.company == company, CompanyKeyRow.key_class == key_class.value)
                .order_by(CompanyKeyRow.version.desc())
                .limit(1)
            )
            return _key(row) if row else None

    def get(self, key_id: uuid.UUID) -> CompanyKey | None:
        """See `vault.KeyStore`."""
        with reading() as session:
            row = session.get(CompanyKeyRow, key_id)
            return _key(row) if row else None

    def add(self, key: CompanyKey) -> bool:
        """See `vault.KeyStore`."""
        with transaction() as session:
            return self.insert(session, key)

    def insert(self, session: Session, key: CompanyKey) -> bool:
        """`add` inside a transaction of the caller's, for whoever writes the log beside it."""
        now = self._clock()
        row = {
            "id": key.id, "created_at": now, "company": key.company, "key_class": key.key_class.value,
            "version": key.version, "root_key_id": key.root_key_id, "wrapped": key.wrapped,
            "check_value": key.check_value, "wraps": key.wraps, "state": KeyState.ACTIVE.value,
        }  # fmt: skip
        statement = insert_into(session, CompanyKeyRow).values(row)
        added = session.execute(
            statement.on_conflict_do_nothing(index_elements=["company", "key_class", "version"]).returning(
                CompanyKeyRow.id
            )
        ).one_or_none()
        if added is None:
            return False
        change(
            session,
            update(CompanyKeyRow)
            .where(
                CompanyKeyRow.company == key.company, CompanyKeyRow.key_class == key.key_class.value,
                CompanyKeyRow.id != key.id, CompanyKeyRow.state == KeyState.ACTIVE.value,
            )
            .values(state=KeyState.RETIRING.value, moved_at=now),
        )  # fmt: skip
        return True

    def reserve_wraps(self, key_id: uuid.UUID, count: int) -> int:
        """See `vault.KeyStore`."""
        with transaction() as session:
            return session.execute(
                update(CompanyKeyRow)
                .where(CompanyKeyRow.id == key_id)
                .values(wraps=CompanyKeyRow.wraps + count)
                .returning(CompanyKeyRow.wraps)
                .execution_options(synchronize_session=False)
            ).scalar_one()

    def under_other_roots(
        self, key_class: KeyClass, root_key_id: str, *, after: uuid.UUID | None, limit: int
    ) -> Sequence[CompanyKey]:
        """See `vault.KeyStore`."""
        query = select(CompanyKeyRow).where(
            CompanyKeyRow.key_class == key_class.value,
            CompanyKeyRow.root_key_id != root_key_id,
            CompanyKeyRow.state != KeyState.SHREDDED.value,
        )
        if after is not None:
            query = query.where(CompanyKeyRow.id > after)
        with reading() as session:
            return [_key(row) for row in session.scalars(query.order_by(CompanyKeyRow.id).limit(limit))]

    def replace_wrap(self, key: CompanyKey, *, seen_root_key_id: str) -> bool:
        """See `vault.KeyStore`."""
        with transaction() as session:
            return self.rewrap(session, key, seen_root_key_id=seen_root_key_id)

    def rewrap(self, session: Session, key: CompanyKey, *, seen_root_key_id: str) -> bool:
        """`replace_wrap` inside a transaction of the caller's."""
        statement = update(CompanyKeyRow).where(
            CompanyKeyRow.id == key.id,
            CompanyKeyRow.root_key_id == seen_root_key_id,
            CompanyKeyRow.state != KeyState.SHREDDED.value,
        )
        values = {"root_key_id": key.root_key_id, "wrapped": key.wrapped, "check_value": key.check_value}
        return bool(change(session, statement.values(**values)))

    def root_checks(self) -> Iterable[RootCheck]:
        """See `vault.KeyStore`."""
        with reading() as session:
            rows = session.execute(
                select(CompanyKeyRow.key_class, CompanyKeyRow.root_key_id, CompanyKeyRow.check_value)
                .where(CompanyKeyRow.state != KeyState.SHREDDED.value)
                .distinct()
            ).all()
        return [RootCheck(key_class=KeyClass(r[0]), root_key_id=r[1], check_value=r[2]) for r in rows]


def switch_off(session: Session, key_id: uuid.UUID, *, now: datetime) -> bool:
    """Destroy the wrap of a retiring company key; the caller has counted in this transaction that nothing is under it.

    False until one CACHE_LIFETIME after the last record left it: a seal that began under it may be stored later, and a reader
    may hold a record as it was before.
    """
    return claim(
        session,
        update(CompanyKeyRow)
        .where(
            CompanyKeyRow.id == key_id, CompanyKeyRow.state == KeyState.RETIRING.value,
            CompanyKeyRow.moved_at <= now - CACHE_LIFETIME,
        )
        .values(state=KeyState.SHREDDED.value, wrapped=b""),
    )  # fmt: skip


def _key(row: CompanyKeyRow) -> CompanyKey:
    return CompanyKey(
        id=row.id, company=row.company, key_class=KeyClass(row.key_class), version=row.version, root_key_id=row.root_key_id,
        wrapped=row.wrapped, check_value=row.check_value, wraps=row.wraps, state=KeyState(row.state),
    )  # fmt: skip
