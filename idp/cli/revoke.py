"""`revoke`: the cut from the command line, through the same door as the pages."""

from __future__ import annotations

import uuid
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import click
from sqlalchemy.orm import Session

from idp.cli.common import actor, json_option, product, show
from idp.cli.staff import find
from idp.core import clock
from idp.core.db import retrying, transaction
from idp.core.errors import NotFound
from idp.domain.applications import registry
from idp.domain.directory import people
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope

JST = ZoneInfo("Asia/Tokyo")


@click.command()
@click.argument("login", metavar="COMPANY/NUMBER")
@click.option("--store", "store_code", help="Only the assignment at this store.")
@click.option("--app", "slug", help="Only the use of this application.")
@click.option("--login-session", "login_session_id", help="Only this login session.")
@click.option("--reason", type=click.Choice([r.value for r in Reason]), default=Reason.LEFT.value, show_default=True)
@click.option(
    "--left-at",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    help="When access should have ended by the personnel record, Japanese time; a date is the end of that day.",
)
@click.option("--key", help="Idempotency key: the same key is the same revocation (RE-07).")
@json_option
def revoke(
    login: str,
    store_code: str | None,
    slug: str | None,
    login_session_id: str | None,
    reason: str,
    left_at: datetime | None,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    """Stop a person's access, everywhere, or one part of it. Prints the number of the receipt."""
    if sum(option is not None for option in (store_code, slug, login_session_id)) > 1:
        raise click.UsageError("give at most one of --store, --app, --login-session")
    with product() as app:
        settings = app.extensions["sekisho"].settings
        order = Order(Reason(reason), Door.CLI, f"cli:{key}" if key else None, settings.give_up_after, _hr(left_at))

        def cut() -> dict[str, object]:
            with transaction(reserved=True) as session:
                target = _target(session, login, store_code, slug, login_session_id)
                made = cascade.revoke(session, target, order, actor=actor(), now=clock.now())
                return {"receipt": made.number, "t0": made.t0, "page": f"{settings.issuer}/receipts/{made.number}"}

        show(retrying(cut), as_json=as_json)


def _hr(left_at: datetime | None) -> datetime | None:
    if left_at is None:
        return None
    end = left_at + timedelta(days=1) if left_at.time() == time.min else left_at
    return end.replace(tzinfo=JST)


def _target(
    session: Session, login: str, store_code: str | None, slug: str | None, login_session_id: str | None
) -> Target:
    account = find(session, login, ended=True)
    if store_code:
        for assignment, store, _ in people.assignments_of(session, account.id):
            if store is not None and store.code == store_code.upper() and assignment.ended_at is None:
                return Target(Scope.ASSIGNMENT, assignment.id)
        raise NotFound("この店舗の所属はありません。", f"{login} at {store_code}")
    if slug:
        application, _ = registry.get_application(session, slug, None)
        return Target(Scope.APPLICATION, account.id, application.id)
    if login_session_id:
        target = Target(Scope.LOGIN_SESSION, _uuid(login_session_id))
        if cascade.owner_of(session, target) != account.id:
            raise NotFound("このログインは見つかりません。", login_session_id)
        return target
    return Target(Scope.ACCOUNT, account.id)


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise click.BadParameter("not an id") from None
