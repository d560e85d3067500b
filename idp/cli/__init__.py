"""The `sekisho` command: one module per group. Every command that prints data takes `--json`."""

from __future__ import annotations

import sys

import click

from idp.cli import (
    apps,
    audit,
    common,
    companies,
    database,
    demo,
    engine,
    gateway,
    keys,
    receipts,
    revoke,
    saml,
    saml_add,
    server,
    siem,
    staff,
    tool_accounts,  # noqa: F401 - it adds commands to `tool`
    tool_engine,  # noqa: F401 - and so does this one
    tools,
    vault,
)
from idp.core.errors import SekishoError
from idp.core.settings import RefusedToStart


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=None, version="0.1.0", prog_name="sekisho")
def cli() -> None:
    """Sekisho (関所): one login, one console, one cut."""


for command in (
    database.init, database.database, database.doctor, demo.demo, server.serve, server.worker, gateway.gateway, engine.engine, companies.company, companies.region,
    companies.store, staff.staff, apps.app, revoke.revoke, receipts.receipt, keys.keys, saml.saml, siem.siem, audit.audit, tools.tool,
    vault.vault,
):  # fmt: skip
    cli.add_command(command)
apps.app.add_command(saml_add.add_saml)


def main() -> None:
    """Run the command. Exit status: 0 done, 1 refused with a reason, 2 wrong usage."""
    try:
        status = cli.main(standalone_mode=False)  # what a command asked to exit with, else its return value
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (SekishoError, RefusedToStart) as error:
        public = common.said(error) if isinstance(error, SekishoError) else str(error)
        private = f" ({error.private})" if isinstance(error, SekishoError) and error.private else ""
        click.echo(f"sekisho: {public}{private}", err=True)
        sys.exit(1)
