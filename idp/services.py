"""Everything that is made once per process. Built here, handed down; nothing below reaches for a global."""

from __future__ import annotations

import base64
import logging
import stat
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.orm import Session

from idp.core import clock, ids, logkey, ticketkey
from idp.core.db import retrying, transaction
from idp.core.keys import Signer
from idp.core.keystore import SqlKeyStore
from idp.core.logkey import LogKey
from idp.core.outbound import HttpOutbound, Outbound, Rules
from idp.core.saml_keys import SamlKeys
from idp.core.settings import PROJECT_ROOT, RefusedToStart, Settings
from idp.domain.applications.saml import Provider
from idp.domain.authn.passwords import Cost, Hasher
from idp.domain.tokens.grants import RefreshTokens
from idp.ledgers.audit import anchors
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.head import HeadFile
from idp.ledgers.audit.log import SYSTEM, record
from idp.ledgers.audit.models import AuditCheckpoint
from idp.ledgers.audit.sealer import Sealer
from vault import CompanyKey, KeyClass, Keyring, OpenEvent, RootKeyProvider, Vault, VaultError
from vault.providers.env import EnvProvider
from vault.providers.file import FileProvider

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """The collaborators of one process."""

    settings: Settings
    vault: Vault
    signer: Signer
    saml_keys: SamlKeys
    hasher: Hasher
    outbound: Outbound
    #: service providers by entityID as this process last read them: a guess that is compared before it counts
    saml_providers: dict[str, Provider] = field(default_factory=dict)

    def refresh_tokens(self) -> RefreshTokens:
        """Makes and reads refresh tokens."""
        return RefreshTokens(self.signer.secret("refresh"))

    @cached_property
    def ticket_key(self) -> bytes:
        """Signs and checks use-tickets (VA-30). The first use commits an audit row: before any transaction."""
        return ticket_key(self.vault)

    def log_key(self) -> LogKey:
        """The key that signs the audit log; made when there is none. Opening it commits an audit row (VA-32)."""
        found = logkey.load(self.vault, record_open)
        if found is None:
            logkey.make(self.vault, now=clock.now())
            found = logkey.load(self.vault, record_open)
        if found is None:
            raise RefusedToStart("the log key that was just made is not there")
        return found

    def sealer(self, head: HeadFile | None = None) -> Sealer:
        """A sealer of the audit log; it does nothing until its first step. head: the second store, else that of the settings."""
        settings = self.settings
        places, every = settings.anchor_places, timedelta(seconds=settings.anchor_s)

        def anchor(session: Session, checkpoint: AuditCheckpoint) -> None:
            anchors.put(session, checkpoint, places=places, every=every, now=checkpoint.created_at)

        return Sealer(
            self.log_key, head or HeadFile(settings.log_head), origin=settings.log_name, clock=clock.now, after=anchor
        )


#: what each kind of process may open (VA-30): the worker signs logout tokens and never sees a TOTP seed; the engine opens
#: passwords of tools and jars and no key of ours but that of use-tickets; the gateway opens jars, and parses hostile pages
SERVE_OPENS = frozenset({KeyClass.ACCOUNT, KeyClass.SIGNING, KeyClass.TICKET})
WORKER_OPENS = frozenset({KeyClass.SIGNING, KeyClass.TICKET})
GATEWAY_OPENS = frozenset({KeyClass.SESSION})
ENGINE_OPENS = frozenset({KeyClass.CREDENTIAL, KeyClass.SESSION, KeyClass.TICKET})


def build_services(
    settings: Settings, *, outbound: Outbound | None = None, opens: frozenset[KeyClass] = SERVE_OPENS
) -> Services:
    """Build them. Needs an application context (the key rows are in the database). outbound: tests inject a recorder.

    Raises RefusedToStart for a root key or pepper that cannot be used.
    """
    vault = build_vault(settings, opens=opens)
    return Services(
        settings=settings,
        vault=vault,
        signer=Signer(vault, record_open),
        saml_keys=SamlKeys(vault, record_open),
        hasher=build_hasher(settings),
        outbound=outbound or HttpOutbound(Rules.from_settings(settings)),
    )


def build_vault(settings: Settings, *, opens: frozenset[KeyClass]) -> Vault:
    """The vault of one process. Needs an application context. Raises RefusedToStart for a root key that cannot be used."""
    return Vault(build_keyring(settings), opens=opens)


def build_keyring(settings: Settings, store: SqlKeyStore | None = None) -> Keyring:
    """The company keys of one process. store: of a command that writes the log beside each key. Raises RefusedToStart."""
    try:
        keyring = Keyring(
            store or SqlKeyStore(clock.now), root_provider(settings), clock=clock.now, new_id=ids.new_id, alarm=_alarm_wraps
        )  # fmt: skip
        keyring.check_roots()  # a wrong root key is found before any write (VA-22)
    except VaultError as error:
        raise RefusedToStart(f"root key: {error}") from error
    return keyring


def ticket_key(vault: Vault) -> bytes:
    """The key of use-tickets; opening it commits an audit row (VA-32), so never inside a transaction. Raises RefusedToStart."""
    try:
        found = ticketkey.load(vault, record_open_patiently)
    except VaultError as error:
        raise RefusedToStart(f"key of use-tickets: {error}") from error
    if found is None:
        raise RefusedToStart(
            "There is no key of use-tickets: run `sekisho init` again, it makes what is missing (VA-30)."
        )
    return found


def root_provider(settings: Settings) -> RootKeyProvider:
    """The root keys: a file in production, the environment in development (D10)."""
    if settings.root_key_file is not None:
        return FileProvider(settings.root_key_file, forbidden=forbidden_places(settings), new_id=ids.new_id)
    log.warning("root keys come from the environment: development only (D10)")
    return EnvProvider({"SEKISHO_ROOT_KEY": settings.root_key or ""})


def forbidden_places(settings: Settings) -> list[Path]:
    """Where no root key may lie: beside the code or the database, because a copy of either would carry it (VA-20)."""
    places = [PROJECT_ROOT / part for part in ("idp", "vault", "connectors", "templates", "tests", "docs", ".git")]
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        places.append(Path(url.database).resolve().parent)
    return places


def build_hasher(settings: Settings) -> Hasher:
    """Read the peppers: lines `version base64`, the last one current (AC-04). Raises RefusedToStart."""
    if settings.pepper_file is None:
        raise RefusedToStart("No pepper: set SEKISHO_PEPPER_FILE (AC-04).")
    peppers = read_peppers(settings.pepper_file)
    cost = Cost(settings.argon2_memory_kib, settings.argon2_time)
    return Hasher(peppers, next(reversed(peppers)), cost, slots=settings.hash_slots, queue=settings.hash_queue)


def read_peppers(path: Path) -> dict[str, bytes]:
    """Version → 32 bytes, in file order. Raises RefusedToStart for a missing, readable-by-others or malformed file."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise RefusedToStart(f"{path} can be read by others; chmod 0400 (AC-04).")
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        peppers = {version: base64.b64decode(value, validate=True) for version, value in pairs}
    except (OSError, ValueError) as error:
        raise RefusedToStart(f"pepper file {path}: {type(error).__name__}") from error
    if not peppers or any(len(value) != 32 for value in peppers.values()):
        raise RefusedToStart(f"pepper file {path}: lines `version base64-of-32-bytes`, at least one")
    return peppers


def record_open(event: OpenEvent) -> None:
    """Commit the audit row of an open before it happens, in a transaction of its own (VA-32)."""
    with transaction() as session:
        record(
            session, Tag.SECRET_OPENED, actor=SYSTEM, now=clock.now(), record=event.context.record,
            purpose=event.context.purpose.value, version=event.context.version, key_id=event.key_id, fields=list(event.fields),
        )  # fmt: skip


def record_open_patiently(event: OpenEvent) -> None:
    """The same where no person waits for the answer: a busy database is asked again before the open is given up."""
    retrying(lambda: record_open(event))


def _alarm_wraps(key: CompanyKey, total: int) -> None:
    log.error("company key nears its limit of wraps; rotate it", extra={"key_id": str(key.id), "wraps": total})
