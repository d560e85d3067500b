"""`open_for`: the only way from a sealed credential to a value, for the engine and for certification (VA-30, VA-32).

Order: what lies there → locked? → brake → the audit row, committed → unwrap and decrypt → the row of the outcome, committed →
the value. Every failure leaves through `NotOpened`: what does not open as sealed looks the same whatever was done to it, and
the credential is locked until a person decides.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.db import reading, retrying, transaction
from idp.core.errors import Unavailable
from idp.domain.credentials import service
from idp.domain.credentials.models import CredentialVersion
from idp.domain.tools import health
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from vault import (
    IntegrityFailure,
    KeyShredded,
    NotRecorded,
    OpenEvent,
    Sealed,
    SealedRoot,
    Secret,
    UnknownSuite,
    Vault,
)

log = logging.getLogger(__name__)

MINUTE = timedelta(minutes=1)
INTEGRITY = "vault_integrity"
SENTENCE = "このツールのパスワードを、いまは使えません。本部の人に知らせてください。"
NOT_RECORDED = "open_not_recorded"


class NotOpened(Unavailable):
    """Nothing was opened. code: `vault_integrity`, `open_not_recorded`, `vault_sealed`, `vault_key_shredded`, `open_brake` or
    `not_deposited`; all that may leave the process."""

    def __init__(self, code: str, private: str) -> None:
        super().__init__(SENTENCE, f"{code}: {private}")
        self.code = code


@dataclass(frozen=True)
class Use:
    """Why a value is opened. purpose: of the use-ticket (login, renew, probe, rotate, certify); person: for whom, if anybody."""

    purpose: str
    ticket_id: uuid.UUID | None = None
    job_id: uuid.UUID | None = None
    person_id: uuid.UUID | None = None


class Brake:
    """Stops a process that opens too much: one for each process that opens class `credential` (VA-32).

    Once it has tripped nothing is opened any more until somebody has looked and started the process again. An honest process
    asks `room()` before it takes work, so a busy morning waits and never trips it. Thread-safe.
    """

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._lock = threading.Lock()
        self._times: deque[datetime] = deque()
        self._tripped = False

    def room(self, *, now: datetime) -> int:
        """How many may be opened now."""
        with self._lock:
            self._forget(now)
            return 0 if self._tripped else self._limit - len(self._times)

    def take(self, *, now: datetime) -> bool:
        """Count one. False: the limit is passed, and this process opens nothing more."""
        with self._lock:
            self._forget(now)
            self._tripped = self._tripped or len(self._times) >= self._limit
            if not self._tripped:
                self._times.append(now)
            return not self._tripped

    def _forget(self, now: datetime) -> None:
        # a clock that stepped back must not make old entries last: what is in the future counts as now
        while self._times and not now - MINUTE < min(self._times[0], now):
            self._times.popleft()


@dataclass(frozen=True)
class _Lying:
    """What lies in the database before an open."""

    credential_id: uuid.UUID
    version: int
    sealed: Sealed
    account: ToolAccount


def open_for(
    vault: Vault, brake: Brake, tool_account_id: uuid.UUID, use: Use, *, version: int | None = None, actor: Actor, now: datetime
) -> Mapping[str, Secret]:  # fmt: skip
    """All fields of the current version of an account's credential, or of the named one. No transaction may be open.

    Raises NotOpened, and ClassRefused in a process that may not open the class.
    """
    with reading() as session:
        credential = service.credential_of(session, tool_account_id)
        wanted = version or (credential.current_version if credential else None)
        if credential is None or wanted is None:
            raise NotOpened("not_deposited", f"tool account {tool_account_id}")
        if credential.locked_reason is not None:
            raise NotOpened(INTEGRITY, f"credential {credential.id} is locked")
        state = session.scalar(
            select(CredentialVersion.state).where(
                CredentialVersion.credential_id == credential.id, CredentialVersion.version == wanted
            )
        )
        if state is None or state == "shredded":
            raise NotOpened("vault_key_shredded", f"version {wanted} of {credential.id} is {state}")
        sealed, context = service.sealed_version(session, credential.id, wanted)
        lying = _Lying(credential.id, wanted, sealed, session.get_one(ToolAccount, tool_account_id))
    if not brake.take(now=now):
        _ended(lying, use, "open_brake", actor=actor, now=now)
        log.error("too many secrets opened in a minute; this process opens no more", extra={"code": "open_brake"})
        raise NotOpened("open_brake", f"credential {lying.credential_id}")

    def on_record(event: OpenEvent) -> None:
        with transaction() as session:
            _record(
                session,
                Tag.SECRET_OPENED,
                lying,
                use,
                actor=actor,
                now=now,
                key_id=event.key_id,
                fields=list(event.fields),
            )

    try:
        # a database that is busy for a moment is asked again: it is no reason to leave a job undone
        fields = vault.open(sealed, context, record=lambda event: retrying(lambda: on_record(event)))
    except NotRecorded as error:
        log.exception("the open of a secret could not be recorded; nothing was opened", extra={"code": NOT_RECORDED})
        raise NotOpened(NOT_RECORDED, f"credential {lying.credential_id}") from error
    except (IntegrityFailure, UnknownSuite) as error:
        raise _integrity(lying, use, error, actor=actor, now=now) from None
    except (SealedRoot, KeyShredded) as error:
        _ended(lying, use, error.code, actor=actor, now=now)
        log.exception("a secret does not open", extra={"code": error.code, "credential": str(lying.credential_id)})
        raise NotOpened(error.code, f"credential {lying.credential_id}") from None
    _ended(lying, use, None, actor=actor, now=now)
    return fields


def _integrity(lying: _Lying, use: Use, error: Exception, *, actor: Actor, now: datetime) -> NotOpened:
    """Alarm, lock, say so in the log. Outside all of these look alike: which check failed tells how far an attack got."""
    log.error(
        "sealed bytes are not what was sealed for their place",
        extra={"code": INTEGRITY, "credential": str(lying.credential_id), "why": f"{type(error).__name__}: {error}"},
    )

    def lock() -> None:
        with transaction() as session:
            health.degrade(session, lying.account.id, INTEGRITY, actor=actor, now=now)
            service.lock(session, lying.credential_id, INTEGRITY, actor=actor, now=now)
            _record(session, Tag.SECRET_OPEN_ENDED, lying, use, result="refused", actor=actor, now=now, code=INTEGRITY)

    retrying(lock)
    return NotOpened(INTEGRITY, f"credential {lying.credential_id}")


def _ended(lying: _Lying, use: Use, code: str | None, *, actor: Actor, now: datetime) -> None:
    """The outcome is a row as well. A value whose outcome cannot be written is not given out."""

    def write() -> None:
        with transaction() as session:
            result = "refused" if code else "ok"
            _record(session, Tag.SECRET_OPEN_ENDED, lying, use, result=result, actor=actor, now=now, code=code)

    try:
        retrying(write)
    except Exception as error:
        log.exception("the outcome of an open could not be recorded", extra={"code": NOT_RECORDED})
        raise NotOpened(NOT_RECORDED, f"credential {lying.credential_id}") from error


def _record(session: Session, tag: Tag, lying: _Lying, use: Use, *, actor: Actor, now: datetime, **more: Any) -> None:
    account = lying.account
    record(
        session, tag, actor=actor, now=now, company_id=account.company_id, store_id=account.store_id, subject_id=use.person_id,
        application_id=account.application_id, tool_account_id=account.id, credential_id=lying.credential_id,
        version=lying.version, purpose=use.purpose, ticket_id=use.ticket_id, job_id=use.job_id, **more,
    )  # fmt: skip
