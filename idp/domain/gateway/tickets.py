"""Use-tickets: permission to open one credential, once, within a minute, for one purpose (VA-30).

A ticket is a row, and its signature covers everything the row says except that it was used: HMAC-SHA-256 under a key that the
database does not hold in clear. So neither a row written by hand nor a genuine one with another tool account, person or end
makes a ticket. At use the engine claims the gate of the person first, then the lease of the job, then the ticket: what a
revocation ended in between opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, claim
from idp.domain.directory.models import Account
from idp.domain.gateway.models import UseTicket
from idp.domain.sessions.live import claim_app_session

LIFE: Final = timedelta(seconds=60)
_LABEL: Final = b"sekisho use-ticket 1"


class Purpose(StrEnum):
    """What a ticket opens a credential for."""

    LOGIN = "login"
    RENEW = "renew"
    PROBE = "probe"
    ROTATE = "rotate"
    END_SESSION = "end_session"


class Person(NamedTuple):
    """For whom: the account, the app session inside which it was asked for, and the account's epoch then."""

    account_id: uuid.UUID
    app_session_id: uuid.UUID
    epoch: int


@dataclass(frozen=True)
class Refused:
    """Why nothing is opened.

    reason: unknown, forged, other, gate_closed, lease_lost, used, late, void. People see `ticket_invalid` for all of them.
    """

    reason: str

    @property
    def is_alarm(self) -> bool:
        """Nothing of ours does this: a copy was presented, a row was written or set back by hand."""
        return self.reason in {"used", "forged", "other", "unknown"}


def issue_use_ticket(
    session: Session,
    key: bytes,
    *,
    purpose: Purpose,
    company_id: uuid.UUID,
    store_id: uuid.UUID | None,
    tool_account_id: uuid.UUID,
    person: Person | None,
    job_id: uuid.UUID | None,
    now: datetime,
    life: timedelta = LIFE,
) -> uuid.UUID:
    """Write a signed ticket. For a person the caller has claimed their gate in this transaction; for a job, its lease."""
    ticket = UseTicket(
        id=ids.new_id(now), created_at=now, purpose=purpose.value, company_id=company_id, store_id=store_id,
        tool_account_id=tool_account_id, account_id=person.account_id if person else None,
        app_session_id=person.app_session_id if person else None, epoch=person.epoch if person else None, job_id=job_id,
        jti=ids.new_secret(), signature=b"", ends_at=now + min(life, LIFE),
    )  # fmt: skip
    ticket.signature = signature(key, ticket)
    session.add(ticket)
    session.flush()
    return ticket.id


def issue_again(
    session: Session, key: bytes, ticket_id: uuid.UUID, *, now: datetime, until: datetime
) -> uuid.UUID | None:
    """A fresh ticket for the same job and person after the engine that used the first one died; None for no genuine one.

    Whether the person may still is decided where the new one is claimed. until: the end of the job.
    """
    before = session.get(UseTicket, ticket_id)
    if before is None or before.ended_at is not None or not ids.same(before.signature, signature(key, before)):
        return None
    person = _person(before)
    return issue_use_ticket(
        session, key, purpose=Purpose(before.purpose), company_id=before.company_id, store_id=before.store_id,
        tool_account_id=before.tool_account_id, person=person, job_id=before.job_id, now=now, life=until - now,
    )  # fmt: skip


def claim_use_ticket(
    session: Session,
    key: bytes,
    ticket_id: uuid.UUID,
    *,
    purpose: Purpose,
    tool_account_id: uuid.UUID,
    job_id: uuid.UUID,
    leased: ColumnElement[bool],
    now: datetime,
) -> UseTicket | Refused:
    """Take a ticket: the gate of its person, the lease of its job, then the ticket itself, in this transaction.

    leased: true while the job that asks holds its lease; it becomes part of the claim. The tool account and the purpose come
    from the job and never from the ticket, so that one for another tool opens nothing here.
    """
    ticket = session.get(UseTicket, ticket_id)
    if ticket is None:
        return Refused("unknown")
    if not ids.same(ticket.signature, signature(key, ticket)):
        return Refused("forged")
    if (ticket.purpose, ticket.tool_account_id, ticket.job_id) != (purpose.value, tool_account_id, job_id):
        return Refused("other")
    person = _person(ticket)
    if person is not None and not _gate(session, person, now=now):
        return Refused("gate_closed")
    taken = claim(
        session,
        update(UseTicket)
        .where(
            UseTicket.id == ticket_id, UseTicket.used_at.is_(None), UseTicket.ended_at.is_(None), UseTicket.ends_at > now, leased
        )
        .values(used_at=now),
    )  # fmt: skip
    return session.get_one(UseTicket, ticket_id) if taken else _why_not(session, ticket_id, now=now)


def void(session: Session, *which: ColumnElement[bool], now: datetime) -> int:
    """Make unused tickets worthless: the person was cut, or their job is over. Returns how many."""
    return change(
        session,
        update(UseTicket).where(*which, UseTicket.used_at.is_(None), UseTicket.ended_at.is_(None)).values(ended_at=now),
    )


def signature(key: bytes, ticket: UseTicket) -> bytes:
    """HMAC over every column that says what a ticket is for, each with its length (two rows never read alike)."""
    parts = (
        ticket.id, ticket.jti, ticket.purpose, ticket.company_id, ticket.store_id, ticket.tool_account_id, ticket.account_id,
        ticket.app_session_id, ticket.epoch, ticket.job_id, ticket.ends_at.astimezone(UTC).isoformat(),
    )  # fmt: skip
    texts = [b"" if part is None else str(part).encode() for part in parts]
    message = _LABEL + b"".join(len(text).to_bytes(2) + text for text in texts)
    return hmac.digest(key, message, hashlib.sha256)


def _person(ticket: UseTicket) -> Person | None:
    if ticket.account_id is None or ticket.app_session_id is None or ticket.epoch is None:
        return None
    return Person(ticket.account_id, ticket.app_session_id, ticket.epoch)


def _gate(session: Session, person: Person, *, now: datetime) -> bool:
    """The app session and all above it are live, it is theirs, and nothing of theirs was revoked since the ticket."""
    if not claim_app_session(session, person.app_session_id, now=now):
        return False
    epoch = session.scalar(select(Account.epoch).where(Account.id == person.account_id))
    return epoch == person.epoch


def _why_not(session: Session, ticket_id: uuid.UUID, *, now: datetime) -> Refused:
    ticket = session.get_one(UseTicket, ticket_id)
    if ticket.used_at is not None:
        return Refused("used")
    if ticket.ended_at is not None:
        return Refused("void")
    return Refused("late" if ticket.ends_at <= now else "lease_lost")
