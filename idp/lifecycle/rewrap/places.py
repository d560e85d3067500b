"""Every column in which a sealed record lies, and how its rows become records: what a rotation has to move (VA-21).

A column that is missing here would keep an old company key in use for ever, or lose what is under it when the key is switched
off: `tests/house/test_sealed_columns.py` compares this table with the models.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Update, bindparam, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from idp.core.db import Base, run
from idp.core.keystore import PLATFORM, PURPOSES, SigningKey, key_context
from idp.domain.authn.models import Authenticator
from idp.domain.authn.second_factor import seed_context
from idp.domain.credentials.contexts import JarPart, context_of, jar_context
from idp.domain.credentials.models import CredentialField, CredentialVersion, SealedCredential
from idp.domain.directory.models import Account
from idp.domain.gateway.models import ToolSession
from idp.domain.tools.models import ToolAccount
from vault import Context, Damaged, KeyClass, Sealed, UnknownSuite

#: where the id of the wrapping key begins, from 1: SKW1 has it after magic and suite, SKB1 holds an SKW1 after magic and length
IN_WRAP, IN_RECORD, ID_BYTES = 6, 14, 16


@dataclass(frozen=True)
class Lying:
    """One record: its row, the bytes of the column, and how it is sealed. sealed None: the bytes are no record at all."""

    row_id: uuid.UUID
    stored: bytes
    sealed: Sealed | None
    context: Context
    credential_id: uuid.UUID | None = None


Read = Callable[[Session, ColumnElement[bool], int], list[Lying]]


@dataclass(frozen=True)
class Place:
    """One column. read: the records of the rows that meet a condition, by row id, at most so many."""

    name: str
    key_class: KeyClass
    table: type[Base]
    column: Any
    id_at: int
    read: Read
    #: a copy of the wrapping key's id beside the bytes; it is kept in step and decides nothing
    key_column: Any = None

    def under(self, keys: Collection[uuid.UUID]) -> ColumnElement[bool]:
        """Rows whose record says of itself that it lies under one of these company keys."""
        said = func.substr(self.column, self.id_at, ID_BYTES, type_=LargeBinary)
        return said.in_([bindparam(None, key.bytes, LargeBinary) for key in sorted(keys)])

    def count(self, session: Session, keys: Collection[uuid.UUID]) -> int:
        """The gauge: how many are still under these keys."""
        return session.scalar(select(func.count()).select_from(self.table).where(self.under(keys))) or 0

    def batch(
        self, session: Session, keys: Collection[uuid.UUID], *, after: uuid.UUID | None, limit: int
    ) -> list[Lying]:
        """The next records under these keys. The rows are found first, in the order of the primary key and past every other index:
        one pass over the table for a whole rotation, where a sort per batch would be one pass for each."""
        found = select(self.table.id).where(self.under(keys)).order_by(self.table.id).limit(limit)
        rows = session.scalars(found if after is None else found.where(self.table.id > after)).all()
        return self.read(session, self.table.id.in_(rows), limit) if rows else []

    def store(self) -> Update:
        """Put a record back if nobody changed it meanwhile. Parameters: row, old, new and, with a key column, key."""
        table: Any = self.table.__table__
        column = table.c[self.column.key]
        values: dict[Any, Any] = {column: bindparam("new", type_=LargeBinary)}
        if self.key_column is not None:
            values[table.c[self.key_column.key]] = bindparam("key")
        old = bindparam("old", type_=LargeBinary)
        return update(table).where(table.c.id == bindparam("row"), column == old).values(values)

    def bytes_of(self, sealed: Sealed) -> bytes:
        """What the column holds of a record."""
        return sealed.wrapped_dek if self.id_at == IN_WRAP else sealed.to_bytes()


def _whole(data: bytes) -> Sealed | None:
    try:
        return Sealed.from_bytes(data)
    except (Damaged, UnknownSuite):
        return None


@dataclass(frozen=True)
class _Owner:
    """The account of a record, without loading it as an entity."""

    id: uuid.UUID
    company_id: uuid.UUID
    store_id: uuid.UUID | None
    application_id: uuid.UUID


OWNER = (ToolAccount.id.label("account_id"), ToolAccount.company_id, ToolAccount.store_id, ToolAccount.application_id)


def _owner(row: Any) -> _Owner:
    return _Owner(row.account_id, row.company_id, row.store_id, row.application_id)


def _credentials(session: Session, where: ColumnElement[bool], limit: int) -> list[Lying]:
    rows = run(
        session,
        select(CredentialVersion.id, CredentialVersion.credential_id, CredentialVersion.version, CredentialVersion.wrapped_dek, *OWNER)
        .join(SealedCredential, SealedCredential.id == CredentialVersion.credential_id)
        .join(ToolAccount, ToolAccount.id == SealedCredential.tool_account_id)
        .where(where)
        .order_by(CredentialVersion.id)
        .limit(limit),
    )  # fmt: skip
    fields: dict[tuple[uuid.UUID, int], dict[str, bytes]] = {}
    for found in run(
        session,
        select(CredentialField.credential_id, CredentialField.version, CredentialField.field, CredentialField.sealed).where(
            CredentialField.credential_id.in_([row.credential_id for row in rows])
        ),
    ):  # fmt: skip
        fields.setdefault((found.credential_id, found.version), {})[found.field] = found.sealed
    return [
        Lying(
            row.id, row.wrapped_dek, Sealed(row.wrapped_dek, fields.get((row.credential_id, row.version), {})),
            context_of(_owner(row), row.credential_id, row.version), row.credential_id,
        )
        for row in rows
    ]  # fmt: skip


def _of_session(part: JarPart, column: InstrumentedAttribute[Any], version: InstrumentedAttribute[int]) -> Read:
    def read(session: Session, where: ColumnElement[bool], limit: int) -> list[Lying]:
        rows = run(
            session,
            select(ToolSession.id, column.label("sealed"), version.label("version"), *OWNER)
            .join(ToolAccount, ToolAccount.id == ToolSession.tool_account_id)
            .where(where, column.is_not(None))
            .order_by(ToolSession.id)
            .limit(limit),
        )
        return [
            Lying(row.id, row.sealed, _whole(row.sealed), jar_context(_owner(row), row.id, part, max(row.version, 1)))
            for row in rows
        ]

    return read


def _seeds(session: Session, where: ColumnElement[bool], limit: int) -> list[Lying]:
    rows = session.execute(
        select(Authenticator.id, Authenticator.sealed, Authenticator.account_id, Account.company_id)
        .join(Account, Account.id == Authenticator.account_id)
        .where(where, Authenticator.sealed.is_not(None))
        .order_by(Authenticator.id)
        .limit(limit)
    ).all()
    return [
        Lying(row.id, row.sealed, _whole(row.sealed), seed_context(row.id, row.account_id, row.company_id))
        for row in rows
    ]


def _own_keys(purposes: Iterable[str]) -> Read:
    mine = sorted(purposes)

    def read(session: Session, where: ColumnElement[bool], limit: int) -> list[Lying]:
        rows = session.execute(
            select(SigningKey.id, SigningKey.sealed, SigningKey.purpose)
            .where(where, SigningKey.purpose.in_(mine))
            .order_by(SigningKey.id)
            .limit(limit)
        )
        return [Lying(row.id, row.sealed, _whole(row.sealed), key_context(row.id, row.purpose)) for row in rows]

    return read


def _purposes(key_class: KeyClass) -> list[str]:
    return [name for name, purpose in PURPOSES.items() if purpose.key_class is key_class]


PLACES: Sequence[Place] = (
    Place("credential_version", KeyClass.CREDENTIAL, CredentialVersion, CredentialVersion.wrapped_dek, IN_WRAP, _credentials, CredentialVersion.key_id),
    Place("tool_session.jar", KeyClass.SESSION, ToolSession, ToolSession.jar_sealed, IN_RECORD, _of_session("jar", ToolSession.jar_sealed, ToolSession.jar_version)),
    Place("tool_session.scan", KeyClass.SESSION, ToolSession, ToolSession.scan_sealed, IN_RECORD, _of_session("scan", ToolSession.scan_sealed, ToolSession.generation)),
    Place("tool_session.device", KeyClass.SESSION, ToolSession, ToolSession.device_sealed, IN_RECORD, _of_session("device", ToolSession.device_sealed, ToolSession.generation)),
    Place("authenticator", KeyClass.ACCOUNT, Authenticator, Authenticator.sealed, IN_RECORD, _seeds),
    Place("signing_key", KeyClass.SIGNING, SigningKey, SigningKey.sealed, IN_RECORD, _own_keys(_purposes(KeyClass.SIGNING))),
    Place("signing_key.ticket", KeyClass.TICKET, SigningKey, SigningKey.sealed, IN_RECORD, _own_keys(_purposes(KeyClass.TICKET))),
)  # fmt: skip


def places_of(key_class: KeyClass) -> list[Place]:
    """Where records of a class lie."""
    return [place for place in PLACES if place.key_class is key_class]


def company_of(company: str) -> uuid.UUID | None:
    """The company of a `company_key` row for the log; None for the installation's own."""
    return None if company == PLATFORM else uuid.UUID(company)
