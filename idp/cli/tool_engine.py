"""`tool certify` and `tool rotate`: what needs the engine. Certifying opens the fields, so it runs as the engine's OS user."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

import click

from connectors.certify.model import Certification
from idp.app import create_database_app
from idp.cli.common import actor, json_option, product, show
from idp.cli.engine import engine_means, harden, refusals
from idp.cli.tools import find_tool, ground_of, parse_id, tool
from idp.core import clock, logs
from idp.core.db import reading, transaction
from idp.core.errors import Conflict
from idp.core.settings import RefusedToStart, Settings
from idp.domain.credentials import rotations
from idp.domain.credentials.rotations import TRIGGERS
from idp.domain.credentials.standing import standing
from idp.domain.tools import registry
from idp.edges.tools.certifying import certify_account


@tool.command("certify")
@click.argument("target")
@click.option(
    "--page", "pages", multiple=True, help="A further path of the tool to look at, such as one with a WebSocket."
)
@json_option
def certify(target: str, pages: tuple[str, ...], *, as_json: bool) -> None:
    """Certify an account inside a tool (TARGET: its id), or every account of a tool (its short name).

    One login each, in a real browser, then every check of the gateway lane. Holds for 90 days. Exit status 1 when one failed.
    """
    settings = Settings.without_pepper()
    if reasons := refusals(settings, os.environ, uid=os.geteuid()):
        raise RefusedToStart("\n".join(reasons))
    harden()
    logs.configure(level="WARNING")
    app = create_database_app(settings)  # not the whole product: this user holds neither signing keys nor a pepper
    with app.app_context():
        accounts = _accounts(target)
        found = asyncio.run(_certify(app, settings, accounts, pages))
    show([_row(account_id, result) for account_id, result in found], as_json=as_json)
    if not all(result.certified for _, result in found):
        raise click.exceptions.Exit(1)


async def _certify(
    app: Any, settings: Settings, accounts: list[uuid.UUID], pages: tuple[str, ...]
) -> list[tuple[uuid.UUID, Certification]]:
    async with engine_means(app, settings) as means:
        if means.browser is None:
            raise RefusedToStart(
                "Certification looks at the tool in a browser: install the extra `browser` and Chromium, and run it as the engine's"
                " OS user, not as root (docs/operations/engine.md)."
            )
        return [(one, await certify_account(means, means.browser, one, actor=actor(), pages=pages)) for one in accounts]


def _accounts(target: str) -> list[uuid.UUID]:
    with reading() as session:
        try:
            return [registry.get_account(session, uuid.UUID(target), None).id]
        except ValueError:
            application = find_tool(session, target)
            return [account.id for account in registry.accounts(session, application.id, None)]


def _row(account_id: uuid.UUID, found: Certification) -> dict[str, Any]:
    return {
        "account": str(account_id), "certified": found.certified, "refused_for": ", ".join(found.refused_for),
        "checks": {check.name: check.outcome.value for check in found.checks}, "unguarded": list(found.unguarded),
        "evidence": found.evidence_digest,
    }  # fmt: skip


@tool.command("rotate")
@click.argument("account_id")
@click.option("--trigger", type=click.Choice(TRIGGERS), default="owner", show_default=True, help="Why, for the log.")
@json_option
def rotate(account_id: str, trigger: str, *, as_json: bool) -> None:
    """Let the engine change the password of an account inside a tool to a value that nobody knows."""
    with product() as app, transaction() as session:
        account = registry.get_account(session, parse_id(account_id), None)
        now = clock.now()
        if not standing(session, [account.id], ground_of(app), now=now)[account.id].machine_can_change:
            raise Conflict(
                "このツールのレシピは、パスワードの変え方を知りません。ツールの画面で変えて、`sekisho tool deposit` で預けてください。",
                f"tool account {account.id}",
            )
        planned = rotations.plan(session, account.id, trigger=trigger, actor=actor(), now=now)
        show(
            {"rotation": str(planned.id), "state": planned.state, "until": planned.deadline_at.isoformat()},
            as_json=as_json,
        )


@tool.command("decide")
@click.argument("rotation_id")
@click.option("--holds", type=click.Choice(("old", "new")), required=True, help="Which password logs in at the tool.")
@json_option
def decide(rotation_id: str, holds: str, *, as_json: bool) -> None:
    """Say which password holds, where a rotation needs a person. A third one is deposited instead."""
    with product(), transaction() as session:
        rotations.decide(session, parse_id(rotation_id), holds=holds, actor=actor(), now=clock.now())
        show({"rotation": rotation_id, "holds": holds}, as_json=as_json)
