"""What the commands share: the application, the actor, printing."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from flask import Flask

from idp.app import create_app, create_database_app
from idp.core import clock, logs
from idp.core.db import db
from idp.core.errors import SekishoError
from idp.core.settings import Settings, shipped_templates
from idp.edges import language
from idp.ledgers.audit.log import Actor

json_option: Callable[..., Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def actor() -> Actor:
    """Whoever has a shell on the server: the host's user name goes into the log as the address of the act."""
    return Actor("cli", None, "", f"{getpass.getuser()}@{socket.gethostname()}"[:64])


@contextmanager
def product(**over: Any) -> Iterator[Flask]:
    """The whole product with its application context. Raises RefusedToStart."""
    logs.configure(level="WARNING")
    app = create_app(Settings.from_env(**over))
    with app.app_context():
        try:
            app.extensions["sekisho"].signer.refresh(now=clock.now())
            app.extensions["sekisho"].saml_keys.refresh(now=clock.now())
            yield app
        finally:
            for engine in db.engines.values():
                engine.dispose()


@contextmanager
def database_only(**over: Any) -> Iterator[Flask]:
    """The database alone: for migrations, before there are keys."""
    logs.configure(level="WARNING")
    app = create_database_app(Settings.read(**over))
    with app.app_context():
        yield app


def said(error: SekishoError) -> str:
    """What is wrong, in Japanese and English on one line: the language of a server's shell says little about its reader."""
    english = language.load(shipped_templates() / "locale")["en"].gettext(error.public)
    values = {name: getattr(value, "en", value) for name, value in error.values.items()}
    both = [text % filled if filled else text for text, filled in ((error.public, error.values), (english, values))]
    return " / ".join(dict.fromkeys(both))


def show(data: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print one thing or a list: JSON, or aligned text."""
    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False, indent=1, default=str))
        return
    if isinstance(data, Mapping):
        width = max((len(key) for key in data), default=0)
        for key, value in data.items():
            click.echo(f"{key:<{width}}  {_cell(value)}")
        return
    if not data:
        click.echo("(none)")
        return
    columns = list(data[0])
    rows = [[_cell(row[c]) for c in columns] for row in data]
    widths = [max(len(c), *(len(r[i]) for r in rows)) for i, c in enumerate(columns)]
    click.echo("  ".join(f"{c:<{w}}" for c, w in zip(columns, widths, strict=True)).rstrip())
    for row in rows:
        click.echo("  ".join(f"{v:<{w}}" for v, w in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "-"
    return str(value)
