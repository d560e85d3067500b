"""The `sekisho` command: one module per group, loaded when it is asked for. Every command that prints data takes `--json`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final

import click

from idp.core.errors import SekishoError
from idp.core.settings import RefusedToStart

#: command → the module that defines it, and those that add commands to it, in the order of `sekisho --help`
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "init": ("database",), "db": ("database",), "doctor": ("database",), "demo": ("demo",), "serve": ("serve",),
    "worker": ("worker",), "gateway": ("gateway",), "engine": ("engine",), "company": ("companies",), "region": ("companies",),
    "store": ("companies",), "staff": ("staff",), "app": ("apps", "saml_add"), "revoke": ("revoke",), "receipt": ("receipts",),
    "keys": ("keys",), "saml": ("saml",), "siem": ("siem",), "audit": ("audit",), "tool": ("tools", "tool_accounts", "tool_engine"),
    "vault": ("vault",),
}  # fmt: skip


class Commands(click.Group):
    """Loads what is asked for: the children of `serve` import this package, and would carry every command all day.

    context_class: a copy that speaks Japanese has another one, and so have its commands (`spoken.in_japanese`).
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - a signature of click
        """Their names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """One of them, with everything below it."""
        if cmd_name not in COMMANDS:
            return None
        first, *_ = [import_module(f"idp.cli.{name}") for name in COMMANDS[cmd_name]]
        found = next(one for one in vars(first).values() if isinstance(one, click.Command) and one.name == cmd_name)
        return found if self.context_class is click.Context else import_module("idp.cli.spoken").in_japanese(found)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=None, version="0.1.0", prog_name="sekisho")
def cli() -> None:
    """Sekisho (関所): one login, one console, one cut."""


def _japanese() -> bool:
    """Whether this terminal speaks Japanese: the first of the three variables that is set decides, as in POSIX."""
    found = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next(filter(None, found), "").lower().startswith("ja")


def root() -> click.Group:
    """The command as this terminal wants it. A server loads no catalogue for that before it needs one."""
    spoken = import_module("idp.cli.spoken") if _japanese() else None
    return spoken.in_japanese(cli) if spoken else cli


def main() -> None:
    """Run the command. Exit status: 0 done, 1 refused with a reason, 2 wrong usage."""
    try:
        status = root().main(standalone_mode=False)  # what a command asked to exit with, else its return value
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (SekishoError, RefusedToStart) as error:
        # here and not above: it brings the whole product, and the children of `serve` import this package
        public = import_module("idp.cli.common").said(error) if isinstance(error, SekishoError) else str(error)
        private = f" ({error.private})" if isinstance(error, SekishoError) and error.private else ""
        click.echo(f"sekisho: {public}{private}", err=True)
        sys.exit(1)
