"""`vault`: which keys are in use, and their rotation while everything runs (VA-21)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from sqlalchemy import func, select

from idp.cli.common import actor, database_only, json_option, show
from idp.core import clock
from idp.core.db import db, reading, transaction
from idp.core.errors import Conflict, Invalid
from idp.core.keystore import PLATFORM
from idp.core.settings import Settings
from idp.domain.credentials.models import Rotation, SealedCredential
from idp.domain.directory import people
from idp.domain.directory.models import Company
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.rewrap import turn
from idp.lifecycle.rewrap.turn import LoggedKeyStore
from idp.services import build_keyring, root_provider
from vault import CACHE_LIFETIME, KeyClass, Keyring, KeyState, RootKeyProvider, SealedRoot, Vault
from vault.providers.file import FileProvider

CLASSES = click.Choice([key_class.value for key_class in KeyClass])


@click.group()
def vault() -> None:
    """Keys of the vault: status, rotation."""


@dataclass(frozen=True)
class Keys:
    """What a rotation works with: every class, because whoever runs it is the operator (VA-30 holds for what runs all day)."""

    provider: RootKeyProvider
    store: LoggedKeyStore
    keyring: Keyring
    vault: Vault


@contextmanager
def _keys() -> Iterator[Keys]:
    """The keys of this installation. Raises RefusedToStart: a wrong root key is found before any write (VA-22)."""
    settings = Settings.from_env()
    with database_only():
        store = LoggedKeyStore(clock.now, actor())
        keyring = build_keyring(settings, store)
        try:
            yield Keys(root_provider(settings), store, keyring, Vault(keyring, opens=frozenset(KeyClass)))
        except SealedRoot as error:
            raise Conflict(
                "元の鍵が手元にありません。鍵のある場所を直してから、もう一度実行してください。", str(error)
            ) from error
        finally:
            for engine in db.engines.values():
                engine.dispose()


@vault.command("status")
@click.option("--company", "company_code", help="Only this company's keys; `platform` for our own.")
@json_option
def status(company_code: str | None, *, as_json: bool) -> None:
    """Root keys, company keys, and how much is still under an old one."""
    with _keys() as keys, reading() as session:
        company = _company(company_code) if company_code else None
        roots = []
        for key_class in KeyClass:
            held = list(keys.provider.key_ids(key_class))
            current = keys.provider.current(key_class) if held else None
            left = turn.under_other_roots(key_class, current) if current else None
            roots.append(
                {"class": key_class.value, "root_key": current, "held": len(held), "company_keys_under_old": left}
            )
        rows = []
        for row in turn.keys_of(session, company):
            count = turn.under(session, KeyClass(row.key_class), [row.id])
            rows.append(
                {
                    "company": _name(session, row.company), "class": row.key_class, "version": row.version, "state": row.state, "made": row.created_at,
                    "wraps": row.wraps, "under_it": count, "off_from": row.moved_at + CACHE_LIFETIME if row.moved_at and row.state == KeyState.RETIRING.value else None,
                }
            )  # fmt: skip
        health = keys.provider.health()
        locked = session.scalar(
            select(func.count()).select_from(SealedCredential).where(SealedCredential.locked_reason.is_not(None))
        )
        total = session.scalar(select(func.count()).select_from(SealedCredential))
        rotating = session.scalar(select(func.count()).select_from(Rotation).where(Rotation.ended_at.is_(None)))
    if as_json:
        found: dict[str, Any] = {
            "provider_ok": health.ok, "provider_problem": health.problem, "root_keys": roots, "company_keys": rows, "credentials": total,
            "credentials_locked": locked, "rotations_open": rotating,
        }  # fmt: skip
        show(found, as_json=True)
        return
    summary = {
        "provider": "ok" if health.ok else health.problem,
        "credentials": total,
        "locked": locked,
        "rotations_open": rotating,
    }
    for part in (summary, roots, rows):
        show(part, as_json=False)
        click.echo()


@vault.command("rotate-company")
@click.argument("company_code")
@click.option("--class", "class_name", type=CLASSES, required=True)
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=turn.BATCH, show_default=True, help="Records per transaction."
)
@click.option("--wait", is_flag=True, help="Stay until the old key may be switched off (5 minutes).")
@json_option
def rotate_company(company_code: str, class_name: str, batch: int, *, wait: bool, as_json: bool) -> None:
    """A new key for COMPANY (`platform`: our own), and every record moved under it while everything runs.

    Stop it and start it again as you like; it goes on. The old key is switched off by the run that finds nothing under it, five
    minutes after the last record left it at the earliest. Exit status 1 while records are left or do not open.
    """
    key_class = KeyClass(class_name)
    with _keys() as keys:
        company = _company(company_code)
        going = turn.begin(keys.keyring, company, key_class)
        done = turn.Progress()
        for done in turn.move(keys.vault, keys.store, going, actor=actor(), clock=clock.now, batch=batch):
            click.echo(f"moved {done.moved}", err=True)
        off, later = turn.finish(going, actor=actor(), now=clock.now())
        if wait and later is not None and not done.left:
            click.echo(f"waiting until {later:%H:%M:%S} UTC", err=True)
            time.sleep(max(0.0, (later - clock.now()).total_seconds()) + 1)
            off, later = turn.finish(going, actor=actor(), now=clock.now())
    show(
        {
            "company": company_code, "class": class_name, "key": str(going.to), "moved": done.moved, "still_under_old": done.left,
            "do_not_open": [f"{place} {row}" for place, row in done.stuck], "switched_off": [str(key) for key in off], "old_key_off_from": later,
        },
        as_json=as_json,
    )  # fmt: skip
    if done.left:
        raise click.exceptions.Exit(1)


@vault.command("rotate-root")
@click.option("--class", "class_name", type=CLASSES, required=True)
@click.option(
    "--drop-old", is_flag=True, help="Take old root keys out of the file. A backup from before can then not be read."
)
@json_option
def rotate_root(class_name: str, *, drop_old: bool, as_json: bool) -> None:
    """A new root key of a class, and the company keys moved under it; resumable. Old root keys stay until --drop-old."""
    key_class = KeyClass(class_name)
    with _keys() as keys:
        if drop_old:
            _drop(keys, key_class, as_json=as_json)
            return
        if not keys.provider.key_ids(key_class) and isinstance(keys.provider, FileProvider):
            made = keys.provider.add_class(key_class)  # a class that this release brought
            with transaction() as session:
                record(
                    session, Tag.ROOT_KEY_ROTATED, actor=actor(), now=clock.now(), key_class=class_name, root_key_id=made, moved=0, left=0
                )  # fmt: skip
            show({"class": class_name, "root_key": made, "moved": 0, "still_under_old": 0}, as_json=as_json)
            return
        found = turn.rotate_root(keys.keyring, keys.provider, key_class, actor=actor(), now=clock.now())
    show(
        {
            "class": class_name, "root_key": found.to, "moved": found.moved, "still_under_old": found.left,
            "do_not_open": [str(key) for key in found.problems], "old_root_keys_held": list(found.old),
        },
        as_json=as_json,
    )  # fmt: skip
    if found.left:
        raise click.exceptions.Exit(1)


def _drop(keys: Keys, key_class: KeyClass, *, as_json: bool) -> None:
    current = keys.provider.current(key_class)
    left = turn.under_other_roots(key_class, current)
    if left:
        raise Conflict(
            "古い元の鍵の下に、まだ会社の鍵があります。先に rotate-root を実行してください。", f"{left} company keys"
        )
    if not isinstance(keys.provider, FileProvider):
        raise Invalid("この場所の鍵は、コマンドでは捨てられません。鍵のある場所で消してください。", "not a file")
    dropped = keys.provider.drop_old(key_class)
    with transaction() as session:
        for key_id in dropped:
            record(
                session,
                Tag.ROOT_KEY_DROPPED,
                actor=actor(),
                now=clock.now(),
                key_class=key_class.value,
                root_key_id=key_id,
            )
    show({"class": key_class.value, "root_key": current, "dropped": dropped}, as_json=as_json)


def _company(code: str) -> str:
    if code == PLATFORM:
        return PLATFORM
    with reading() as session:
        return str(people.get_company(session, code).id)


def _name(session: Any, company: str) -> str:
    if company == PLATFORM:
        return PLATFORM
    found = session.get(Company, uuid.UUID(company))
    return found.code if found is not None else company
