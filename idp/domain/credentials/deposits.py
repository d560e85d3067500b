"""Depositing: one account by hand, or a whole table of them, all or nothing.

Both check first, seal outside any transaction, and store in one. A cell of a table is never repeated in a message, not even of
a column that holds no secret: in a table whose columns have slipped, any cell may be a password.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from connectors.recipes.hosts import Ground
from connectors.recipes.model import Recipe
from idp.core.db import transaction
from idp.core.errors import Invalid, NotFound
from idp.domain.credentials import service
from idp.domain.credentials.service import BadFields, CheckedFields, Fresh
from idp.domain.directory.models import Account, Store
from idp.domain.tools import health, recipes, registry
from idp.domain.tools.models import RecipeText, ToolAccount
from idp.ledgers.audit.log import Actor
from vault import Sealer

#: columns that say whose account it is; the others are fields of the recipe
TARGET = ("store", "role", "person", "label", "recovery_owner")
MOST_ROWS = 2000


@dataclass(frozen=True)
class Deposited:
    """One account that has a new current version. folded: fields whose full-width characters became half-width."""

    tool_account_id: uuid.UUID
    version: int
    folded: tuple[str, ...]


def deposit(
    sealer: Sealer, account: ToolAccount, recipe: Recipe, given: Mapping[str, str], *, actor: Actor, now: datetime
) -> Deposited:
    """Check, seal and store what a person typed for one account. Raises BadFields (422, every field), Conflict."""
    checked = service.check_fields(recipe, account, given)
    fresh = service.seal(sealer, account, checked.fields, now=now)
    with transaction() as session:
        version = service.put(session, account, fresh, actor=actor, now=now)
        health.retyped(session, account.id, actor=actor, now=now)
    return Deposited(account.id, version, checked.folded)


@dataclass(frozen=True)
class Row:
    """One good row. number: as a spreadsheet counts, the heading is 1. is_new: the account is registered with the deposit."""

    number: int
    account: ToolAccount
    fields: CheckedFields
    is_new: bool


@dataclass(frozen=True)
class Sheet:
    """A table as it was read. problems: each names its row and its column; with one of them nothing is stored."""

    rows: tuple[Row, ...]
    problems: tuple[Invalid, ...]


def decode(data: bytes) -> str:
    """A file from a spreadsheet: UTF-8 with or without a mark, else CP932. Raises Invalid."""
    for encoding in ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Invalid("文字コードが分かりません。UTF-8かシフトJIS(CP932)のCSVにしてください。", field="file")


def read_sheet(
    session: Session, data: bytes, *, application_id: uuid.UUID, company_id: uuid.UUID, on: Ground, now: datetime
) -> Sheet:
    """Read a table for one tool and company, whole. Raises Invalid only for what is no table."""
    _, text = registry.tool_of(session, application_id)
    recipe = recipes.load_recipe(text, on)
    try:
        lines = list(csv.reader(io.StringIO(decode(data), newline=""), strict=True))
    except csv.Error:
        raise Invalid("CSVとして読めません。引用符がそろっているか確かめてください。", field="file") from None
    if len(lines) < 2:
        raise Invalid("見出しの行と、1行以上の中身が要ります。", field="file")
    if len(lines) - 1 > MOST_ROWS:
        raise Invalid("一度に預けられるのは%(most)s行までです。", field="file", values={"most": MOST_ROWS})
    reader = _Reader(session, recipe, text, application_id, company_id, on, now)
    columns = reader.heading(lines[0])
    if not reader.problems:
        for number, cells in enumerate(lines[1:], 2):
            if any(cells):
                reader.row(number, columns, cells)
    return Sheet(tuple(reader.rows), tuple(reader.problems))


class _Reader:
    """Collects the rows and the problems of one table."""

    def __init__(
        self, session: Session, recipe: Recipe, text: RecipeText, application_id: uuid.UUID, company_id: uuid.UUID, on: Ground, now: datetime
    ) -> None:  # fmt: skip
        self.rows: list[Row] = []
        self.problems: list[Invalid] = []
        self._recipe, self._text, self._on, self._now = recipe, text, on, now
        self._application_id, self._company_id = application_id, company_id
        of_mine = (
            ToolAccount.application_id == application_id,
            ToolAccount.company_id == company_id,
            ToolAccount.ended_at.is_(None),
        )
        self._known = {_target(a): a for a in session.scalars(select(ToolAccount).where(*of_mine))}
        stores = select(Store.code, Store.id).where(Store.company_id == company_id, Store.ended_at.is_(None))
        people = select(Account.login_name, Account.id).where(
            Account.company_id == company_id, Account.ended_at.is_(None)
        )
        self._stores = {row.code: row.id for row in session.execute(stores)}
        self._people = {row.login_name: row.id for row in session.execute(people)}
        self._seen: set[tuple[object, ...]] = set()

    def heading(self, cells: Sequence[str]) -> list[str]:
        """The columns by name; a field may be called by its name or by its label, in either language."""
        fields = self._recipe.fields
        by_label = {f.label.en: n for n, f in fields.items()} | {str(f.label): n for n, f in fields.items()}
        names = [by_label.get(cell.strip(), cell.strip()) for cell in cells]
        for position, name in enumerate(names, 1):
            if name not in TARGET and name not in self._recipe.fields:
                # the number and not the word: without a heading this is the first account's password
                self.problems.append(
                    Invalid("見出しの%(column)s列目は、このツールの項目ではありません。", row=1, field=str(position), values={"column": position})
                )  # fmt: skip
            elif names.index(name) != position - 1:
                self.problems.append(
                    Invalid("見出しに「%(field)s」が2つあります。", row=1, field=name, values={"field": name})
                )
        self.problems += [
            Invalid("見出しに「%(field)s」がありません。", row=1, field=name, values={"field": field.label})
            for name, field in self._recipe.fields.items()
            if name not in names
        ]
        return names

    def row(self, number: int, columns: Sequence[str], cells: Sequence[str]) -> None:
        """One line of the table."""
        if len(cells) != len(columns):
            self.problems.append(
                Invalid("列の数が見出しと違います(%(have)s列)。", row=number, field="", values={"have": len(cells)})
            )
            return
        given = dict(zip(columns, cells, strict=True))
        try:
            account, is_new = self._account(given)
            fields = {
                name: value for name, value in given.items() if name not in TARGET and name not in account.host_fields
            }
            checked = service.check_fields(self._account_recipe(account), account, fields)
        except BadFields as error:
            self.problems += [Invalid(p.public, row=number, field=p.field, values=p.values) for p in error.problems]
        except (Invalid, NotFound) as error:
            self.problems.append(Invalid(error.public, row=number, field=error.field, values=error.values))
        else:
            self.rows.append(Row(number, account, checked, is_new))

    def _account(self, given: Mapping[str, str]) -> tuple[ToolAccount, bool]:
        """The account of a line, an existing one or one to be registered. Raises Invalid naming the column."""
        wanted = {name: given.get(name, "").strip() for name in TARGET}
        store_id = self._stores.get(wanted["store"].upper())
        if wanted["store"] and store_id is None:
            raise Invalid("この店舗コードはありません。", field="store")
        account_id = self._people.get(wanted["person"])
        if wanted["person"] and account_id is None:
            raise Invalid("このスタッフ番号の人はいません。", field="person")
        role = wanted["role"] or None
        key = (store_id, role, account_id)
        if key in self._seen:
            raise Invalid("同じ相手の行が、上にもあります。", field="store")
        self._seen.add(key)
        names = recipes.host_field_names(self._text)
        host_fields = registry.check_host_fields(self._text, {name: given.get(name, "") for name in names})
        if (known := self._known.get(key)) is not None:
            if known.host_fields != host_fields:
                raise Invalid("登録してあるアカウントと、ホスト名の項目が違います。", field=names[0])
            return known, False
        made = registry.draft_account(
            application_id=self._application_id, company_id=self._company_id, store_id=store_id, role=role, account_id=account_id,
            label=wanted["label"] or wanted["store"] or wanted["person"] or role or "-", host_fields=host_fields,
            recovery_owner=wanted["recovery_owner"] or "unknown", now=self._now,
        )  # fmt: skip
        return made, True

    def _account_recipe(self, account: ToolAccount) -> Recipe:
        return recipes.for_account(self._text, account, self._on) if account.host_fields else self._recipe


def _target(account: ToolAccount) -> tuple[object, ...]:
    return (account.store_id, account.role, account.account_id)


def deposit_sheet(sealer: Sealer, sheet: Sheet, *, actor: Actor, now: datetime) -> list[Deposited]:
    """Store a table without problems: new accounts and every version in one transaction. Raises Conflict, and nothing is stored."""
    if sheet.problems:
        raise Invalid("直す行があるので、何も預けていません。", field="file")
    sealed: list[tuple[Row, Fresh]] = [
        (row, service.seal(sealer, row.account, row.fields.fields, now=now)) for row in sheet.rows
    ]
    done = []
    with transaction() as session:
        for row, fresh in sealed:
            if row.is_new:
                registry.store_account(session, row.account, actor=actor, now=now)
            version = service.put(session, row.account, fresh, actor=actor, now=now)
            health.retyped(session, row.account.id, actor=actor, now=now)
            done.append(Deposited(row.account.id, version, row.fields.folded))
    return done
