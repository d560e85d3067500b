"""`siem`: how far the stream of the log is, and sending a part of it again."""

from __future__ import annotations

from datetime import timedelta

import click

from idp.cli.common import json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.ledgers.siem import stream


@click.group()
def siem() -> None:
    """The stream of the log to a SIEM."""


@siem.command("status")
@json_option
def status(*, as_json: bool) -> None:
    """Show how far the stream is. Exit status 3 while it is behind by more than SEKISHO_SIEM_ALARM_S."""
    with product() as app:
        settings = app.extensions["sekisho"].settings
        with reading() as session:
            late = stream.lag(session, now=clock.now())
            show(
                {
                    "destination": settings.siem_url or None, "next_index": stream.position(session), "sealed": stream.sealed(session),
                    "behind_s": int(late.total_seconds()),
                },
                as_json=as_json,
            )  # fmt: skip
    if settings.siem_url and late > timedelta(seconds=settings.siem_alarm_s):
        raise click.exceptions.Exit(3)


@siem.command("rewind")
@click.argument("index", type=click.IntRange(min=0))
@json_option
def rewind(index: int, *, as_json: bool) -> None:
    """Send everything from this leaf index on again: 0 for the whole log. A SIEM knows an event again by its `id`."""
    with product():
        with transaction() as session:
            stream.rewind(session, index, now=clock.now())
        show({"next_index": index}, as_json=as_json)
