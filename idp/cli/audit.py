"""`audit`: status, verify, export, consistency, new-origin, key."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from idp.cli.common import actor, json_option, product, show
from idp.core import clock, logkey
from idp.core.db import reading, transaction
from idp.core.errors import Conflict, NotFound
from idp.domain.directory.models import Company
from idp.ledgers.audit import anchors, bundle, check, leaf, store
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.head import HeadFile
from idp.ledgers.audit.log import record
from idp.ledgers.audit.models import AuditCheckpoint, AuditEvent, AuditOrigin, AuditSealer, AuditTile
from idp.ledgers.audit.origin import new_origin
from idp.lifecycle.revocation import period
from idp.services import Services

TOKYO = ZoneInfo("Asia/Tokyo")


@click.group()
def audit() -> None:
    """The sealed audit log."""


@contextmanager
def _services() -> Iterator[tuple[Flask, Services]]:
    with product() as app:
        yield app, app.extensions["sekisho"]


@audit.command("status")
@json_option
def status(*, as_json: bool) -> None:
    """Size, last checkpoint, alarm, anchors. Exit status 3 while an alarm stands."""
    now = clock.now()
    with _services() as (_, services), reading() as session:
        places = services.settings.anchor_places
        origin, newest = store.origin(session), store.latest(session)
        sealer = session.scalars(select(AuditSealer)).one_or_none()
        waiting = session.scalar(select(func.count()).select_from(AuditEvent).where(AuditEvent.leaf_index.is_(None)))
        late = anchors.late(session, places, now=now)
        found = {
            "origin": origin.name if origin else None, "key": origin.vkey if origin else None,
            "rows": sealer.size if sealer else 0, "waiting": waiting, "signed": newest.size if newest else 0,
            "signed_at": newest.created_at if newest else None, "alarm": sealer.alarm if sealer else None,
            "anchors": {p: seen[0].isoformat() if seen else None for p, seen in store.last_anchors(session, places).items()},
            "silent": late,
        }  # fmt: skip
    show(found, as_json=as_json)
    if found["alarm"] or late:
        raise click.exceptions.Exit(3)


@audit.command("verify")
@click.option(
    "--anchor",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint from a second place.",
)
@click.option(
    "--key", "keys", multiple=True, help="The verifier key that you trust, instead of the one in the database."
)
@json_option
def verify_command(files: tuple[Path, ...], keys: tuple[str, ...], *, as_json: bool) -> None:
    """Check the whole log in the database. Exit status: 0 sound, 4 something is wrong."""
    given = [file.read_text(encoding="utf-8") for file in files]
    with _services() as (_, services), reading() as session:
        report = check.check(_log(session, services, given, list(keys)))
        waiting = session.scalar(select(func.count()).select_from(AuditEvent).where(AuditEvent.leaf_index.is_(None)))
    head = {
        "rows": report.rows, "root": report.root, "checkpoints": report.checkpoints, "anchors": report.anchors,
        "opaque": report.opaque, "erased": report.erased, "emptied": report.emptied, "waiting": waiting,
        "verdict": "WRONG" if report.findings else "SOUND",
    }  # fmt: skip
    wrong = [{"where": f.where, "what": f.what, "text": f.text} for f in report.findings]
    if as_json:
        show({**head, "findings": wrong}, as_json=True)
    else:
        show(head, as_json=False)
        if wrong:
            click.echo()
            show(wrong, as_json=False)
    if wrong:
        raise click.exceptions.Exit(4)


def _log(session: Session, services: Services, given: list[str], keys: list[str]) -> check.Log:
    """The database as `check` reads it. The log grows meanwhile: what was signed is read first, the size after it, rows last."""
    head = HeadFile(services.settings.log_head).read()

    def tiles(level: int, position: int) -> bytes | None:
        found = session.scalar(select(AuditTile.hashes).where(AuditTile.level == level, AuditTile.position == position))
        return bytes(found) if found is not None else None

    waiting = session.scalars(
        select(AuditEvent).where(
            AuditEvent.leaf_index.is_(None), AuditEvent.tag.in_([Tag.PERSONAL_ERASED.value, Tag.RETENTION_ENDED.value])
        )
    )
    origins = session.scalars(select(AuditOrigin).order_by(AuditOrigin.id)).all()
    names = {origin.id: origin.name for origin in origins}
    checkpoints = session.execute(
        select(AuditCheckpoint.origin_id, AuditCheckpoint.size, AuditCheckpoint.root, AuditCheckpoint.note).order_by(
            AuditCheckpoint.id
        )
    )
    signed = [(names[c.origin_id], c.size, bytes(c.root), c.note) for c in checkpoints]
    size = session.scalar(select(AuditSealer.size)) or 0
    return check.Log(
        rows=store.rows(session, 0, size), tiles=tiles, size=size,
        checkpoints=signed,
        origins=[check.Origin(o.name, o.vkey, o.began_at_size, o.link) for o in origins],
        head=head, checker=logkey.checker, anchors=given, keys=keys, waiting=waiting,
    )  # fmt: skip


@audit.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--from",
    "begins",
    required=True,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    help="First day, Japanese time.",
)
@click.option(
    "--to",
    "ends",
    required=True,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    help="The day after the last one.",
)
@click.option("--company", "code", help="Show only this company's content; every row is counted all the same.")
@json_option
def export(file: Path, begins: datetime, ends: datetime, code: str | None, *, as_json: bool) -> None:
    """Write a period pack: a provably complete population, two checkpoints and a count, HR date against cut date."""
    now = clock.now()
    first, last = begins.replace(tzinfo=TOKYO), ends.replace(tzinfo=TOKYO)
    with _services() as (_, services):
        key = services.log_key()
        with reading() as session:
            company = _company(session, code)
            with file.open("wb") as target:
                rows = period.write(
                    target, session, key, services.settings, begins=first, ends=last, company_id=company, now=now
                )
        with transaction() as session:
            record(
                session, Tag.AUDIT_EXPORTED, actor=actor(), now=now, company_id=company, begins=leaf.instant(first), ends=leaf.instant(last),
                rows=rows,
            )  # fmt: skip
    show({"file": str(file), "rows": rows}, as_json=as_json)


def _company(session: Session, code: str | None) -> uuid.UUID | None:
    if code is None:
        return None
    found = session.scalar(select(Company.id).where(Company.code == code.upper()))
    if found is None:
        raise NotFound("この会社コードは見つかりません。", f"company {code}")
    return found


@audit.command("consistency")
@click.option("--from", "first", required=True, type=int, help="Size of the smaller checkpoint.")
@click.option("--to", "second", required=True, type=int, help="Size of the larger one.")
def consistency(first: int, second: int) -> None:
    """Print the proof that one checkpoint is the beginning of another, as JSON."""
    with _services(), reading() as session:
        size = store.leaves(session)
        if not 0 < first <= second <= size:
            raise Conflict("大きさは、1からいまの行数までで、小さい順に書いてください。", f"{first}, {second}, {size}")
        show(bundle.proof(store.reader(session), first, second), as_json=True)


@audit.command("new-origin")
@click.option("--reason", required=True, help="Why the log goes on under a new name; it is signed and stays readable.")
@click.option("--rotate-key", is_flag=True, help="Sign with a new key from now on.")
@click.confirmation_option(
    prompt="The sealer refused for a reason. Did you find out why, and is this the database to go on with?"
)
@json_option
def new_origin_command(reason: str, *, rotate_key: bool, as_json: bool) -> None:
    """Go on after a refusal, with a signed link to what was signed before (AU-03)."""
    now = clock.now()
    with _services() as (_, services):
        if rotate_key:
            logkey.make(services.vault, now=now)
        head = HeadFile(services.settings.log_head)
        made = new_origin(services.log_key(), head, reason=reason, actor=actor(), now=now)
    show({"origin": made.name, "begins": made.began_at_size, "key": made.vkey}, as_json=as_json)


@audit.command("key")
def key_command() -> None:
    """Print the verifier key, to be handed to an auditor in person."""
    with _services(), reading() as session:
        origin: Any = store.origin(session)
        if origin is None:
            raise Conflict("監査ログは、まだ封印されていません。workerが動いているか確かめてください。", "no origin")
        click.echo(origin.vkey)
