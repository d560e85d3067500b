"""`keys`: list, rotate."""

from __future__ import annotations

from datetime import timedelta

import click

from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import transaction
from idp.core.errors import NotFound
from idp.core.keys import ALGORITHMS, list_keys, rotate_jwt_key, withdraw_jwt_key
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record

#: clocks of clients may differ by this much (D14)
SKEW = timedelta(seconds=60)


@click.group()
def keys() -> None:
    """Signing keys."""


@keys.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List signing keys with their part in life."""
    now = clock.now()
    with product():
        rows = [
            {
                "kid": k.kid, "alg": k.alg, "signs_from": k.not_before, "published_until": k.ends_at,
                "state": "withdrawn" if k.withdrawn_at else "retired" if k.ends_at and k.ends_at <= now else "next" if k.not_before > now else "active" if k.ends_at is None else "leaving",
            }
            for k in list_keys()
        ]  # fmt: skip
        show(rows, as_json=as_json)


@keys.command("rotate")
@click.option("--alg", type=click.Choice(ALGORITHMS), default="ES256", show_default=True)
@click.option("--withdraw", "kid", help="Emergency: this key leaves the set at once and what it signed is refused.")
@json_option
def rotate(alg: str, kid: str | None, *, as_json: bool) -> None:
    """Make the next key: published now, signing once every client has read the set again (OI-15)."""
    now = clock.now()
    with product() as app:
        services = app.extensions["sekisho"]
        settings = services.settings
        if kid:
            made = withdraw_jwt_key(services.vault, kid, now=now)
            if made is None:
                raise NotFound("この鍵は見つかりません。", f"kid {kid}")
        else:
            publish = timedelta(seconds=settings.jwks_cache_s) + SKEW
            keep = timedelta(seconds=settings.access_token_s) + SKEW
            made = rotate_jwt_key(services.vault, alg, publish_for=publish, keep_for=keep, now=now)
        with transaction() as session:
            record(
                session,
                Tag.SIGNING_KEY_WITHDRAWN if kid else Tag.SIGNING_KEY_MADE,
                actor=actor(),
                now=now,
                kid=made.kid,
                withdrawn=kid,
            )
        show({"kid": made.kid, "alg": made.alg, "signs_from": made.not_before}, as_json=as_json)
