"""`tool`: recipes of password-only tools. Checking one needs no database and no key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from connectors.recipes.hosts import Ground
from connectors.recipes.load import load
from connectors.recipes.problems import Problem, RecipeError
from idp.cli.common import json_option
from idp.core import clock

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def tool() -> None:
    """Password-only tools: check a recipe."""


@tool.command()
@click.argument("recipe", type=FILE)
@click.option("--loopback", is_flag=True, help="Allow http and this machine, as a demonstration on localhost does.")
@json_option
def check(recipe: Path, *, loopback: bool, as_json: bool) -> None:
    """Read RECIPE and name every mistake with its line. Exit status 1 when it cannot be used."""
    ground = Ground(today=clock.now().date(), loopback=loopback)
    try:
        loaded = load(recipe.read_bytes(), ground)
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
