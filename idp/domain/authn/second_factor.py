"""TOTP and recovery codes. A time step is claimed, so one code opens one login even when typed twice at once (AC-25)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyotp
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, claim
from idp.domain.authn.models import Authenticator, PendingLogin
from idp.domain.directory.models import Account
from idp.domain.directory.people import company_of, raise_epoch
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from vault import Context, Purpose

STEP_S = 30
RECOVERY_CODES = 10
PENDING_LIFE = timedelta(minutes=5)
MAX_TRIES = 5


@dataclass(frozen=True)
class SealedSeed:
    """What is read before the slow part: whose it is and the sealed seed."""

    authenticator_id: uuid.UUID
    account_id: uuid.UUID
    company_id: uuid.UUID
    sealed: bytes


def seed_context(authenticator_id: uuid.UUID, account_id: uuid.UUID, company_id: uuid.UUID) -> Context:
    """The place of a seed: its authenticator, account and company."""
    return Context(
        company=str(company_id), record=f"{account_id}/{authenticator_id}", version=1, purpose=Purpose.TOTP_SEED
    )


def seed_of(session: Session, account_id: uuid.UUID) -> SealedSeed | None:
    """The confirmed TOTP authenticator of an account, or None."""
    row = session.execute(
        select(Authenticator.id, Account.id, Account.company_id, Authenticator.sealed)
        .join(Account, Account.id == Authenticator.account_id)
        .where(
            Authenticator.account_id == account_id, Authenticator.kind == "totp",
            Authenticator.confirmed_at.is_not(None), Authenticator.ended_at.is_(None),
        )
    ).one_or_none()  # fmt: skip
    return SealedSeed(row[0], row[1], row[2], row[3] or b"") if row else None


def matching_step(seed: str, code: str, *, now: datetime) -> int | None:
    """The time step (Unix time / 30) whose code this is, one step early or late allowed; None when it is none of them.

    Pure; the step must then be claimed. Source: RFC 6238 §5.2.
    """
    digits = ids.fold_typed_code(code)
    if len(digits) != 6 or not digits.isdigit():
        return None
    totp, current = pyotp.TOTP(seed), int(now.timestamp()) // STEP_S
    found = None
    for step in (current - 1, current, current + 1):  # no early exit: the time taken must not tell which
        if ids.same(totp.generate_otp(step), digits):
            found = step
    return found


def claim_step(session: Session, authenticator_id: uuid.UUID, step: int, *, now: datetime) -> bool:
    """Accept a time step once, and only if it is larger than the last one accepted (AC-25)."""
    return claim(
        session,
        update(Authenticator)
        .where(Authenticator.id == authenticator_id, Authenticator.last_step < step, Authenticator.ended_at.is_(None))
        .values(last_step=step, last_used_at=now),
    )


def claim_recovery_code(session: Session, account_id: uuid.UUID, code: str, *, now: datetime) -> bool:
    """Use up one recovery code (AC-09)."""
    return claim(
        session,
        update(Authenticator)
        .where(
            Authenticator.account_id == account_id, Authenticator.kind == "recovery_code",
            Authenticator.code_digest == ids.digest(ids.fold_typed_code(code)), Authenticator.ended_at.is_(None),
        )
        .values(ended_at=now, last_used_at=now),
    )  # fmt: skip


def add_totp(
    session: Session,
    account_id: uuid.UUID,
    *,
    authenticator_id: uuid.UUID,
    sealed: bytes,
    step: int,
    epoch: int,
    actor: Actor,
    now: datetime,
) -> tuple[str, ...] | None:
    """Store a proven TOTP seed, replace any older one, and make ten recovery codes, which are returned once.

    step: the step that proved it, so that the same code does not also log in. None: the account changed meanwhile, or
    this seed was enrolled before: a page that somebody sends a second time.
    """
    if session.get(Authenticator, authenticator_id) is not None:
        return None
    if not raise_epoch(session, account_id, epoch=epoch, now=now):
        return None
    _end(session, account_id, ("totp", "recovery_code"), now=now)
    session.add(
        Authenticator(
            id=authenticator_id, created_at=now, account_id=account_id, kind="totp", sealed=sealed, last_step=step,
            confirmed_at=now, last_used_at=now,
        )
    )  # fmt: skip
    record(
        session, Tag.TOTP_ADDED, actor=actor, now=now, company_id=company_of(session, account_id), subject_id=account_id,
        authenticator_id=authenticator_id,
    )  # fmt: skip
    return _make_recovery_codes(session, account_id, actor=actor, now=now)


def remake_recovery_codes(
    session: Session, account_id: uuid.UUID, *, actor: Actor, now: datetime
) -> tuple[str, ...] | None:
    """Replace the whole set (AC-09). None: the account has ended."""
    if not raise_epoch(session, account_id, now=now):
        return None
    _end(session, account_id, ("recovery_code",), now=now)
    return _make_recovery_codes(session, account_id, actor=actor, now=now)


def remove(session: Session, account_id: uuid.UUID, *, actor: Actor, now: datetime) -> bool:
    """Take the second factor away, so that the person enrols again at the next login. For the command line only (AC-26)."""
    if not raise_epoch(session, account_id, now=now):
        return False
    _end(session, account_id, ("totp", "recovery_code"), now=now)
    company_id = company_of(session, account_id)
    record(session, Tag.TOTP_REMOVED, actor=actor, now=now, company_id=company_id, subject_id=account_id)
    return True


def _make_recovery_codes(session: Session, account_id: uuid.UUID, *, actor: Actor, now: datetime) -> tuple[str, ...]:
    codes = tuple(ids.new_typed_code()[:16] for _ in range(RECOVERY_CODES))  # 80 bits each
    session.add_all(
        Authenticator(
            id=ids.new_id(now), created_at=now, account_id=account_id, kind="recovery_code", code_digest=ids.digest(code),
            confirmed_at=now,
        )
        for code in codes
    )  # fmt: skip
    record(
        session, Tag.RECOVERY_CODES_MADE, actor=actor, now=now, company_id=company_of(session, account_id), subject_id=account_id,
        count=len(codes),
    )  # fmt: skip
    return codes


def _end(session: Session, account_id: uuid.UUID, kinds: Sequence[str], *, now: datetime) -> None:
    change(
        session,
        update(Authenticator)
        .where(Authenticator.account_id == account_id, Authenticator.kind.in_(kinds), Authenticator.ended_at.is_(None))
        .values(ended_at=now),
    )


def open_pending(session: Session, account_id: uuid.UUID, *, epoch: int, now: datetime) -> str:
    """The password was right: remember that for five minutes. Returns the handle for the browser's cookie."""
    handle = ids.new_secret()
    session.add(
        PendingLogin(
            id=ids.new_id(now), created_at=now, account_id=account_id, handle_digest=ids.digest(handle), epoch=epoch,
            ends_at=now + PENDING_LIFE,
        )
    )  # fmt: skip
    return handle


def find_pending(session: Session, handle: str, *, now: datetime) -> PendingLogin | None:
    """The unfinished login behind a handle, while it may still be finished."""
    return session.scalar(
        select(PendingLogin).where(
            PendingLogin.handle_digest == ids.digest(handle), PendingLogin.used_at.is_(None), PendingLogin.ends_at > now,
            PendingLogin.tries < MAX_TRIES,
        )
    )  # fmt: skip


def count_try(session: Session, pending_id: uuid.UUID) -> bool:
    """Take one of five tries, exactly, before a code is looked at. False: none is left (AC-25)."""
    return claim(
        session,
        update(PendingLogin)
        .where(PendingLogin.id == pending_id, PendingLogin.tries < MAX_TRIES, PendingLogin.used_at.is_(None))
        .values(tries=PendingLogin.tries + 1),
    )


def finish_pending(session: Session, pending_id: uuid.UUID, *, now: datetime) -> bool:
    """Use the unfinished login up: it becomes one login session and no second one."""
    return claim(
        session,
        update(PendingLogin)
        .where(PendingLogin.id == pending_id, PendingLogin.used_at.is_(None), PendingLogin.ends_at > now)
        .values(used_at=now),
    )
