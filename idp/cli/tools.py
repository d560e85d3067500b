"""`tool`: recipes of password-only tools, and the tools. Checking a recipe needs no database and no key.

Accounts inside a tool and their passwords are `tool_accounts.py`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from flask import Flask
from sqlalchemy.orm import Session

from connectors.recipes.hosts import Ground
from connectors.recipes.load import load
from connectors.recipes.problems import Problem, RecipeError
from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import NotFound
from idp.domain.applications import registry as applications
from idp.domain.applications.models import Application
from idp.domain.credentials.standing import Standing, standing
from idp.domain.directory import people
from idp.domain.tools import health, recipes, registry
from idp.domain.tools.models import RecipeText

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def tool() -> None:
    """Password-only tools: recipes, tools, accounts inside them, deposits."""


@tool.command()
@click.argument("recipe", type=FILE)
@click.option("--loopback", is_flag=True, help="Allow http and this machine, as a demonstration on localhost does.")
@json_option
def check(recipe: Path, *, loopback: bool, as_json: bool) -> None:
    """Read RECIPE and name every mistake with its line. Exit status 1 when it cannot be used."""
    on = Ground(today=clock.now().date(), loopback=loopback)
    try:
        loaded = load(recipe.read_bytes(), on)
    except RecipeError as error:
        _report({"ok": False, "file": str(recipe)}, error.problems, as_json=as_json)
        raise click.exceptions.Exit(1) from None
    found = loaded.recipe
    result = {"ok": True, "file": str(recipe), "id": found.id, "version": found.version, "digest": found.digest}
    _report(result, loaded.warnings, as_json=as_json)


def _report(result: dict[str, Any], problems: Iterable[Problem], *, as_json: bool) -> None:
    rows = [
        {
            "code": p.code,
            "line": p.line,
            "column": p.column,
            "path": p.path,
            "warning": p.is_warning,
            "ja": p.ja,
            "en": p.en,
        }
        for p in problems
    ]
    if as_json:
        click.echo(json.dumps({**result, "problems": rows}, ensure_ascii=False, indent=1))
        return
    for row in rows:
        click.echo(f"{'warning' if row['warning'] else 'error'} {row['code']}\n  {row['ja']}\n  {row['en']}")
    if result["ok"]:
        click.echo(f"OK  {result['id']} version {result['version']}  sha256:{result['digest']}")
    else:
        click.echo(f"{sum(not row['warning'] for row in rows)} to repair in {result['file']}", err=True)


# --- recipes -------------------------------------------------------------------------------------------------------


@tool.group("recipe")
def recipe_group() -> None:
    """Recipes: propose, approve, list."""


def ground_of(app: Flask) -> Ground:
    """The rules of this installation."""
    return recipes.ground(app.extensions["sekisho"].settings, now=clock.now())


@recipe_group.command("propose")
@click.argument("file", type=FILE)
@click.option("--company", "company_code", help="Owner; without it every company may use the recipe.")
@json_option
def propose(file: Path, company_code: str | None, *, as_json: bool) -> None:
    """Store a recipe. Somebody else approves it: on the page, because two commands of one shell are one person (VA-58)."""
    with product() as app:
        try:
            with transaction() as session:
                owner = people.get_company(session, company_code).id if company_code else None
                row = recipes.propose_recipe(
                    session, file.read_bytes().decode("utf-8", "replace"), on=ground_of(app), company_id=owner, actor=actor(), now=clock.now()
                )  # fmt: skip
                found = _recipe_row(row)
        except RecipeError as error:
            _report({"ok": False, "file": str(file)}, error.problems, as_json=as_json)
            raise click.exceptions.Exit(1) from None
        show(found, as_json=as_json)


@recipe_group.command("approve")
@click.argument("recipe_id")
@click.option("--digest", required=True, help="SHA-256 of the text that you read.")
@json_option
def approve(recipe_id: str, digest: str, *, as_json: bool) -> None:
    """Approve a recipe that a person proposed on the page."""
    with product():
        with transaction() as session:
            recipes.approve_recipe(session, parse_id(recipe_id), digest=digest, actor=actor(), now=clock.now())
        with reading() as session:
            show(_recipe_row(recipes.get_recipe(session, parse_id(recipe_id))), as_json=as_json)


@recipe_group.command("list")
@json_option
def list_recipes(*, as_json: bool) -> None:
    """List recipes, newest version first."""
    with product(), reading() as session:
        show([_recipe_row(row) for row in recipes.recipes(session, None)], as_json=as_json)


def _recipe_row(row: RecipeText) -> dict[str, Any]:
    return {
        "id": str(row.id), "recipe": row.slug, "version": row.version, "source": row.source, "approved_at": row.approved_at,
        "digest": row.digest,
    }  # fmt: skip


def parse_id(text: str) -> uuid.UUID:
    """An id that somebody typed. Raises NotFound."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound("この番号のものは見つかりません。", f"{text[:64]} is no id") from None


# --- tools ---------------------------------------------------------------------------------------------------------


@tool.command("add")
@click.argument("slug")
@click.argument("name")
@click.option("--recipe", "recipe_id", required=True, help="Id of an approved recipe (`tool recipe list`).")
@click.option("--company", "company_code", help="Owner; without it the tool serves every company.")
@click.option("--function", "functions", multiple=True, help="Such as shifts.view; repeat for several.")
@click.option("--lane", type=click.Choice(["gateway", "none"]), default="gateway", show_default=True)
@json_option
def add(
    slug: str,
    name: str,
    recipe_id: str,
    company_code: str | None,
    functions: tuple[str, ...],
    lane: str,
    *,
    as_json: bool,
) -> None:
    """Register a tool. Who may use it is `app grant`; its accounts are `tool account add`."""
    with product() as app, transaction() as session:
        owner = people.get_company(session, company_code).id if company_code else None
        row = recipes.get_recipe(session, parse_id(recipe_id))
        application, _ = registry.add_tool(
            session, slug=slug, name=name, company_id=owner, recipe=row, on=ground_of(app), functions=functions, lane=lane, actor=actor(),
            now=clock.now(),
        )  # fmt: skip
        show(
            {"slug": application.slug, "id": str(application.id), "recipe": row.slug, "version": row.version},
            as_json=as_json,
        )


@tool.command("list")
@json_option
def list_tools(*, as_json: bool) -> None:
    """List tools."""
    with product(), reading() as session:
        rows = []
        for application, _ in applications.list_all(session, None):
            if application.protocol == registry.PROTOCOL:
                found, text = registry.tool_of(session, application.id)
                rows.append(
                    {
                        "slug": application.slug, "name": application.name, "recipe": f"{text.slug} {text.version}", "lane": found.lane,
                        "accounts": len(registry.accounts(session, application.id, None)), "ended_at": application.ended_at,
                    }
                )  # fmt: skip
        show(rows, as_json=as_json)


@tool.command("show")
@click.argument("slug")
@json_option
def show_tool(slug: str, *, as_json: bool) -> None:
    """The accounts of a tool and how each of them stands. Never a value."""
    with product() as app, reading() as session:
        application = find_tool(session, slug)
        accounts = registry.accounts(session, application.id, None)
        found = standing(session, [account.id for account in accounts], ground_of(app), now=clock.now())
        show([standing_row(found[account.id]) for account in accounts], as_json=as_json)


def find_tool(session: Session, slug: str) -> Application:
    """A tool by its slug. Raises NotFound for another kind of application too."""
    application = applications.find_application(session, slug, None)
    registry.tool_of(session, application.id)
    return application


def standing_row(found: Standing) -> dict[str, Any]:
    """What a list says of one account."""
    account = found.account
    return {
        "id": str(account.id), "label": account.label, "store": account.store_id, "role": account.role, "person": account.account_id,
        "state": account.state, "code": account.code, "refused_as": found.refusal, "certification": found.certification,
        "certified_until": found.certified_until, "known_to_people": found.knowledge.known_to_people, "cut_class": found.cut_class.value,
        "machine_can_change": found.machine_can_change,
    }  # fmt: skip


@tool.command("attest-terms")
@click.argument("slug")
@click.option("--note", required=True, help="Where the written permission lies, and who gave it.")
@json_option
def attest_terms(slug: str, note: str, *, as_json: bool) -> None:
    """Register a written permission for a tool whose terms forbid automation or sharing (VA-48)."""
    with product(), transaction() as session:
        application = find_tool(session, slug)
        health.attest_terms(session, application.id, note=note, actor=actor(), now=clock.now())
        show({"slug": slug, "terms_attested_at": clock.now()}, as_json=as_json)
