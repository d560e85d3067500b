"""`init`, `db`, `doctor`: making an installation, migrating it, looking whether it is well."""

from __future__ import annotations

import base64
import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select, text

from idp.cli.common import actor, database_only, json_option, product, show
from idp.core import clock, ids
from idp.core.db import db, reading, transaction
from idp.core.keys import list_keys, make_first_keys
from idp.core.migrate import is_current, upgrade
from idp.core.settings import Settings
from idp.domain.applications import sp_metadata
from idp.domain.authn import activation
from idp.domain.authn.models import Activation
from idp.domain.authn.passwords import Cost
from idp.domain.directory import people
from idp.domain.directory.models import Account, Company
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Role
from idp.ledgers.audit import anchors
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.ledgers.audit.models import AuditEvent, AuditSealer
from idp.services import build_hasher, build_services, forbidden_places
from vault.providers.file import FileProvider

PLATFORM_CODE = "SEKISHO"


def make_files(settings: Settings) -> list[str]:
    """Make the root key and the pepper where the settings say, unless they exist. Returns what was made."""
    made = []
    if settings.root_key_file is not None and not settings.root_key_file.exists():
        settings.root_key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        FileProvider.create(settings.root_key_file, forbidden=forbidden_places(settings), new_id=ids.new_id)
        made.append(str(settings.root_key_file))
    if settings.pepper_file is not None and not settings.pepper_file.exists():
        settings.pepper_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(settings.pepper_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"1 {base64.b64encode(ids.new_bytes(32)).decode()}\n")
        made.append(str(settings.pepper_file))
    return made


def make_keys(settings: Settings, *, now: datetime) -> None:
    """The signing keys of a new installation. Needs an application context with a migrated database."""
    make_first_keys(build_services(settings).vault, now=now)


def prepare_database(settings: Settings) -> None:
    """Make the folder of a SQLite file."""
    if settings.database_url.startswith("sqlite:///"):
        Path(settings.database_url.removeprefix("sqlite:///")).resolve().parent.mkdir(parents=True, exist_ok=True)


@click.command()
@json_option
def init(*, as_json: bool) -> None:
    """Make keys, database and the set-up code for the first administrator. May be run again: it keeps what exists."""
    settings = Settings.from_env()
    made = make_files(settings)
    prepare_database(settings)
    now = clock.now()
    with database_only():
        upgrade(db.engine)
        make_keys(settings, now=now)
        with transaction() as session:
            code = _setup_code(session, now=now)
            record(session, Tag.INSTALLATION_READY, actor=actor(), now=now)
    show(
        {
            "files_made": made,
            "database": settings.database_url.split("@")[-1],
            "setup_page": f"{settings.issuer}/setup" if code else None,
            "setup_code": code or "an administrator exists already",
        },
        as_json=as_json,
    )


def _setup_code(session: Any, *, now: datetime) -> str | None:
    """A code for the reserved operator account; None once somebody has taken it over. An older code dies."""
    company = session.scalar(select(Company).where(Company.is_platform))
    if company is None:
        company = people.add_company(
            session, code=PLATFORM_CODE, name="プラットフォーム運用", actor=actor(), now=now, is_platform=True
        )
    account = session.scalar(select(Account).where(Account.company_id == company.id).order_by(Account.id).limit(1))
    if account is None:
        account = people.add_account(
            session,
            Place(company),
            login_name="admin",
            name="管理者",
            kana="",
            role=Role.OPERATOR,
            actor=actor(),
            now=now,
        )
    used = session.scalar(
        select(Activation.id).where(Activation.account_id == account.id, Activation.used_at.is_not(None))
    )
    if used:
        return None
    code = activation.issue(session, account.id, purpose="setup", life=timedelta(hours=24), actor=actor(), now=now)
    return "-".join(code[i : i + 5] for i in range(0, len(code), 5)) if code else None


#: what must guard the log (migration 0002)
TRIGGERS = {
    f"{table}_{kind}"
    for table in ("audit_event", "audit_tile", "audit_origin", "audit_checkpoint", "audit_anchor")
    for kind in ("update", "delete")
}


@click.group("db")
def database() -> None:
    """The database."""


@database.command("upgrade")
@json_option
def upgrade_command(*, as_json: bool) -> None:
    """Bring the schema to this version."""
    settings = Settings.read()
    prepare_database(settings)
    with database_only():
        upgrade(db.engine)
        show({"current": is_current(db.engine)}, as_json=as_json)


def _saml_findings() -> list[dict[str, Any]]:
    """Service providers whose metadata or certificates end within a month, or wait for a decision (SA-15)."""
    with reading() as session:
        soon = sp_metadata.ending_soon(session, now=clock.now())
    return [_finding(f"SAML {slug}", False, why) for slug, why in soon]  # noqa: FBT003 - a table of findings


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Look at settings, database, keys and the machine; suggest what to change."""
    findings: list[dict[str, Any]] = []
    with product() as app:
        settings: Settings = app.extensions["sekisho"].settings
        findings.append(_finding("schema", is_current(db.engine), "run `sekisho db upgrade`"))
        findings += _database_settings()
        usable = [
            k
            for k in list_keys()
            if k.withdrawn_at is None and k.not_before <= clock.now() and (k.ends_at is None or k.ends_at > clock.now())
        ]
        findings.append(_finding("signing keys", {k.alg for k in usable} >= {"ES256", "RS256"}, "run `sekisho init`"))
        findings += _log_findings(settings)
        findings.append(
            _finding(
                "SAML key",
                any(k.purpose == "saml" for k in usable),
                "run `sekisho init`; without one no SAML application works",
            )
        )
        findings += _saml_findings()
        findings.append(_hash_finding(settings))
        findings.append(
            _finding(
                "root keys in a file", settings.root_key_file is not None, "the environment is for development (D10)"
            )
        )
        findings.append(
            _finding("issuer is https", settings.issuer.startswith("https://"), "plain http is for this machine only")
        )
    show(findings, as_json=as_json)
    if any(f["state"] == "FAIL" for f in findings):
        raise click.exceptions.Exit(1)


def _finding(what: str, good: bool, cure: str, *, fatal: bool = False) -> dict[str, Any]:  # noqa: FBT001
    return {"check": what, "state": "ok" if good else "FAIL" if fatal else "warn", "cure": None if good else cure}


def _log_findings(settings: Settings) -> list[dict[str, Any]]:
    """The audit log: guarded by its triggers, sealed, remembered elsewhere, anchored (AU-03, AU-05, AU-06)."""
    now = clock.now()
    with reading() as session:
        catalogue = "sqlite_master WHERE type = 'trigger'"
        if db.engine.dialect.name == "postgresql":
            catalogue = "pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
        name = "name" if db.engine.dialect.name == "sqlite" else "tgname"
        there = set(session.scalars(text(f"SELECT {name} FROM {catalogue}")))  # noqa: S608 - two constants of ours
        alarm = session.scalar(select(AuditSealer.alarm))
        oldest = session.scalar(select(func.min(AuditEvent.created_at)).where(AuditEvent.leaf_index.is_(None)))
        silent = anchors.late(session, settings.anchor_places, now=now)
    beside = settings.log_head_file is None
    return [
        _finding("triggers of the audit log", there >= TRIGGERS, "restore them from the migration 0002 (AU-06)", fatal=True),
        _finding(f"audit log: {alarm or 'no alarm'}", alarm is None, "docs/operations/sealed-log.md, before anything else", fatal=True),
        _finding("audit log is sealed", oldest is None or now - oldest < anchors.LATE, "run `sekisho worker`"),
        _finding("second store of the log", not beside, "set SEKISHO_LOG_HEAD_FILE to another disk than the database's (AU-03)"),
        _finding("anchors of the log", bool(settings.anchor_places), "set SEKISHO_ANCHORS to a place off this host (AU-05)"),
        *[_finding(f"anchor {place}", place not in silent, "it has taken nothing for 5 minutes; see the worker's log") for place in silent],
    ]  # fmt: skip


def _database_settings() -> list[dict[str, Any]]:
    with reading() as session:
        if db.engine.dialect.name == "sqlite":
            found = {
                name: str(session.execute(text(f"PRAGMA {name}")).scalar())
                for name in ("journal_mode", "synchronous", "foreign_keys", "quick_check")
            }
            wanted = {"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "quick_check": "ok"}
        else:
            found = {
                name: str(session.execute(text(f"SHOW {name}")).scalar())
                for name in ("synchronous_commit", "fsync", "default_transaction_isolation", "data_checksums")
            }
            wanted = {
                "synchronous_commit": "on",
                "fsync": "on",
                "default_transaction_isolation": "read committed",
                "data_checksums": "on",
            }
    return [
        _finding(
            f"{name} = {found[name]}",
            found[name] == value,
            f"set it to {value} (RE-40, RE-41)",
            fatal=name in {"fsync", "synchronous_commit", "synchronous", "quick_check"},
        )
        for name, value in wanted.items()
    ]


def _hash_finding(settings: Settings) -> dict[str, Any]:
    """Measure one password hash and suggest a cost that takes a quarter of a second (AC-03)."""
    hasher = build_hasher(settings)
    started = time.perf_counter()
    hasher.check("a password to measure with", None)
    millis = (time.perf_counter() - started) * 1000
    cost = Cost(settings.argon2_memory_kib, settings.argon2_time)
    better = max(1, int(250 / max(millis, 1)))
    cure = f"this machine can afford SEKISHO_ARGON2_TIME={settings.argon2_time * min(better, 8)}"
    return _finding(f"argon2id {cost.text()} takes {millis:.0f} ms", better < 4, cure)
