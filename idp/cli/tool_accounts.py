"""`tool account` and `tool deposit`: accounts inside tools and their passwords.

A value comes from standard input, a prompt without echo, or a file, never from an argument: arguments stand in the process
list and in the history of the shell. Nothing here prints a value.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from flask import Flask

from connectors.recipes.model import Recipe
from idp.cli.common import actor, json_option, product, said, show
from idp.cli.tools import FILE, find_tool, ground_of, parse_id, tool
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import Invalid
from idp.domain.credentials import deposits, rotations, service
from idp.domain.credentials.deposits import Deposited
from idp.domain.credentials.service import BadFields
from idp.domain.directory import people
from idp.domain.directory.roles import Power, Role
from idp.domain.gateway import tool_sessions
from idp.domain.tools import health, recipes, registry
from idp.domain.tools.models import ToolAccount


@tool.group("account")
def account_group() -> None:
    """Accounts inside tools."""


@account_group.command("add")
@click.argument("slug")
@click.option("--company", "company_code", required=True)
@click.option("--store", "store_code", help="Only for people of this store.")
@click.option("--role", type=click.Choice([r.value for r in Role]), help="Only for people with this role.")
@click.option("--person", help="Only for this staff number.")
@click.option("--label", required=True)
@click.option("--recovery-owner", type=click.Choice(registry.RECOVERY_OWNERS), default="unknown", show_default=True,
              help="Whose mailbox a password reset of the tool reaches.")  # fmt: skip
@click.option("--host", "hosts", multiple=True, help="FIELD=VALUE for a field that stands in the tool's host name.")
@json_option
def add_account(slug: str, company_code: str, *, hosts: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Register an account of a tool: of a company, a store, a role in either, or one person."""
    if any("=" not in part for part in hosts):
        raise click.UsageError("--host takes FIELD=VALUE")
    with product(), transaction() as session:
        application = find_tool(session, slug)
        company = people.get_company(session, company_code)
        store = (
            people.get_store(session, company.id, given["store_code"], None, Power.HIRE)
            if given["store_code"]
            else None
        )
        person = people.get_by_login_name(session, company.id, given["person"]) if given["person"] else None
        made = registry.add_account(
            session, application_id=application.id, company_id=company.id, store_id=store.id if store else None, role=given["role"],
            account_id=person.id if person else None, label=given["label"], recovery_owner=given["recovery_owner"],
            host_fields=dict(part.split("=", 1) for part in hosts), actor=actor(), now=clock.now(),
        )  # fmt: skip
        show({"id": str(made.id), "label": made.label, "host_fields": made.host_fields}, as_json=as_json)


@account_group.command("resolve")
@click.argument("account_id")
@click.option("--note", required=True, help="What you found and did.")
@json_option
def resolve(account_id: str, note: str, *, as_json: bool) -> None:
    """Somebody looked: let a degraded account be used again."""
    with product(), transaction() as session:
        account = registry.get_account(session, parse_id(account_id), None)
        health.resolve(session, account.id, note=note, actor=actor(), now=clock.now())
        waiting = tool_sessions.resolved(session, account.id, now=clock.now())
        show({"id": account_id, "state": "active", "sessions_logging_in": waiting}, as_json=as_json)


@tool.command("deposit")
@click.argument("target")
@click.option("--file", "file", type=FILE, help="A CSV file; TARGET is then the tool's short name.")
@click.option("--company", "company_code", help="Whose accounts the file holds.")
@click.option("--check", "check_only", is_flag=True, help="With --file: say what is wrong, store nothing.")
@click.option(
    "--rotate/--no-rotate",
    default=False,
    help="Let the engine change it at the tool at once, to a value that nobody knows.",
)
@json_option
def deposit(
    target: str, file: Path | None, company_code: str | None, *, check_only: bool, rotate: bool, as_json: bool
) -> None:
    """Deposit the fields of one account (TARGET: its id), as a JSON object on standard input or typed without echo.

    With --file a whole table, all or nothing: the columns are fields of the recipe and store, role, person, label,
    recovery_owner. Rows whose account is not registered yet register it. Remove the file afterwards.
    """
    with product() as app:
        if file is not None:
            done = _from_file(app, target, file, company_code, check_only=check_only, as_json=as_json)
        else:
            done = [_from_input(app, target)]
        planned = _after(app, done, rotate=rotate)
        rows = [
            {"account": str(one.tool_account_id), "version": one.version, "made_half_width": list(one.folded)}
            for one in done
        ]
        if as_json:
            show({"deposited": rows, "rotations_planned": planned}, as_json=True)
        else:
            show(rows, as_json=False)
            click.echo(f"{len(rows)} deposited, {planned} rotations planned")


def _from_input(app: Flask, target: str) -> Deposited:
    with reading() as session:
        account = registry.get_account(session, parse_id(target), None)
        recipe = recipes.for_account(registry.tool_of(session, account.application_id)[1], account, ground_of(app))
    given = _typed(recipe, account)
    try:
        return deposits.deposit(app.extensions["sekisho"].vault, account, recipe, given, actor=actor(), now=clock.now())
    except BadFields as error:
        _say(error.problems)
        raise click.exceptions.Exit(1) from None


def _typed(recipe: Recipe, account: ToolAccount) -> Mapping[str, str]:
    if sys.stdin.isatty():
        names = service.typed_fields(recipe, account)
        return {
            n: click.prompt(recipe.fields[n].label, hide_input=recipe.fields[n].secret, default="", show_default=False)
            for n in names
        }
    try:
        given = json.load(sys.stdin)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Invalid("標準入力には、項目の名前と文字の値だけのJSONを渡してください。", "not an object of texts")
    return given


def _from_file(
    app: Flask, slug: str, file: Path, company_code: str | None, *, check_only: bool, as_json: bool
) -> list[Deposited]:  # fmt: skip
    if not company_code:
        raise click.UsageError("--file needs --company")
    now = clock.now()
    with reading() as session:
        application, company = find_tool(session, slug), people.get_company(session, company_code)
        sheet = deposits.read_sheet(
            session, file.read_bytes(), application_id=application.id, company_id=company.id, on=ground_of(app), now=now
        )
    if sheet.problems:
        _say(sheet.problems, as_json=as_json)
        raise click.exceptions.Exit(1)
    if check_only:
        click.echo(f"{len(sheet.rows)} rows are good; nothing was stored", err=True)
        return []
    return deposits.deposit_sheet(app.extensions["sekisho"].vault, sheet, actor=actor(), now=now)


def _say(problems: Iterable[Invalid], *, as_json: bool = False) -> None:
    rows = [{"row": p.row, "field": p.field, "problem": said(p)} for p in problems]
    if as_json:
        click.echo(json.dumps({"deposited": [], "problems": rows}, ensure_ascii=False, indent=1))
        return
    for row in rows:
        place = f"row {row['row']}, {row['field']}: " if row["row"] else f"{row['field']}: "
        click.echo(f"{place}{row['problem']}", err=True)


def _after(app: Flask, done: Iterable[Deposited], *, rotate: bool) -> int:
    """What a new password sets going: sessions that waited for it log in again, and the machine makes one that nobody knows."""
    planned, on = 0, ground_of(app)
    for one in done:
        with transaction() as session:
            tool_sessions.resolved(session, one.tool_account_id, now=clock.now())
            if rotate and _machine_can(session, one.tool_account_id, on):
                rotations.plan(session, one.tool_account_id, trigger="import", actor=actor(), now=clock.now())
                planned += 1
    return planned


def _machine_can(session: Any, tool_account_id: uuid.UUID, on: Any) -> bool:
    account = registry.get_account(session, tool_account_id, None)
    recipe = recipes.load_recipe(registry.tool_of(session, account.application_id)[1], on)
    return recipe.password is not None and recipe.password.change is not None
