"""The first secret, and a new one after it was forgotten. A code is handed over in person; its owner chooses the password."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, claim
from idp.domain.authn.models import Activation, Authenticator
from idp.domain.directory.models import Account, Company
from idp.domain.directory.people import claim_account, raise_epoch, share_company
from idp.domain.directory.scope import account_alive, standings
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

Purpose = Literal["activate", "reset", "setup"]


@dataclass(frozen=True)
class Waiting:
    """An activation code that may be used now, and what the page must know about its owner."""

    activation_id: uuid.UUID
    account_id: uuid.UUID
    company_id: uuid.UUID
    purpose: str
    epoch: int
    name: str
    login_name: str
    company_code: str
    company_name: str
    roles: frozenset[str]
    store_names: tuple[str, ...]


def issue(
    session: Session, account_id: uuid.UUID, *, purpose: Purpose, life: timedelta, actor: Actor, now: datetime
) -> str | None:
    """Make a one-time code; older unused ones die. None: the account has ended.

    The account is the gate (no login session exists yet), its epoch is remembered: any credential change or revocation
    in between makes the code useless (AC-07).
    """
    if not claim_account(session, account_id, now=now):
        return None
    end_all(session, account_id, now=now)
    account = session.execute(select(Account.epoch, Account.company_id).where(Account.id == account_id)).one()
    code = ids.new_typed_code()
    session.add(
        Activation(
            id=ids.new_id(now), created_at=now, account_id=account_id, purpose=purpose, code_digest=ids.digest(code),
            epoch=account.epoch,
            ends_at=now + life,
        )
    )  # fmt: skip
    record(
        session, Tag.ACTIVATION_ISSUED, actor=actor, now=now, company_id=account.company_id, subject_id=account_id, purpose=purpose
    )  # fmt: skip
    return code


def end_all(session: Session, account_id: uuid.UUID, *, now: datetime) -> int:
    """End every unused code of an account. Returns how many there were."""
    return change(
        session,
        update(Activation)
        .where(Activation.account_id == account_id, Activation.used_at.is_(None), Activation.ended_at.is_(None))
        .values(ended_at=now),
    )


def find(session: Session, code: str, *, now: datetime) -> Waiting | None:
    """The usable code that was typed, or None: unknown, used, expired and voided codes look alike (AC-06)."""
    row = session.execute(
        select(
            Activation.id, Activation.account_id, Activation.purpose, Activation.epoch, Account.name, Account.login_name,
            Account.company_id, Company.code.label("company_code"), Company.name.label("company_name"),
        )
        .join(Account, Account.id == Activation.account_id)
        .join(Company, Company.id == Account.company_id)
        .where(
            Activation.code_digest == ids.digest(ids.fold_typed_code(code)), Activation.used_at.is_(None),
            Activation.ended_at.is_(None), Activation.ends_at > now, Activation.epoch == Account.epoch, *account_alive(now),
            Company.ended_at.is_(None),
        )
    ).one_or_none()  # fmt: skip
    if row is None:
        return None
    held = standings(session, row.account_id, now=now)
    return Waiting(
        row.id, row.account_id, row.company_id, row.purpose, row.epoch, row.name, row.login_name, row.company_code, row.company_name,
        frozenset(s.role.value for s in held), tuple(s.store_name for s in held if s.store_name),
    )  # fmt: skip


def use(session: Session, waiting: Waiting, *, verifier: str, actor: Actor, now: datetime) -> bool:
    """Spend the code and store the password its owner chose. verifier: made before, with no transaction open.

    Order: company, account at the epoch that was read, code. False: something changed meanwhile; nothing was changed.
    The caller ends the account's login sessions in the same transaction (AC-07).
    """
    if not share_company(session, waiting.company_id):
        return False
    if not claim_account(session, waiting.account_id, epoch=waiting.epoch, now=now):
        return False
    spent = claim(
        session,
        update(Activation)
        .where(
            Activation.id == waiting.activation_id,
            Activation.used_at.is_(None),
            Activation.ended_at.is_(None),
            Activation.ends_at > now,
        )
        .values(used_at=now),
    )
    if not spent:
        return False  # a newer code voided this one while the password was being hashed
    raise_epoch(session, waiting.account_id, now=now)
    set_password(session, waiting.account_id, verifier=verifier, now=now)
    record(
        session, Tag.ACTIVATION_USED, actor=actor, now=now, company_id=waiting.company_id, subject_id=waiting.account_id,
        purpose=waiting.purpose,
    )  # fmt: skip
    return True


def set_password(session: Session, account_id: uuid.UUID, *, verifier: str, now: datetime) -> None:
    """Replace the password's verifier. The caller has claimed the account and raised its epoch."""
    change(
        session,
        update(Authenticator)
        .where(
            Authenticator.account_id == account_id, Authenticator.kind == "password", Authenticator.ended_at.is_(None)
        )
        .values(ended_at=now),
    )
    session.add(
        Authenticator(
            id=ids.new_id(now),
            created_at=now,
            account_id=account_id,
            kind="password",
            verifier=verifier,
            confirmed_at=now,
        )
    )


def refresh_verifier(session: Session, authenticator_id: uuid.UUID, *, verifier: str) -> None:
    """Store the same password under today's cost and pepper (AC-03): a rehash, which raises no epoch."""
    change(
        session,
        update(Authenticator)
        .where(Authenticator.id == authenticator_id, Authenticator.ended_at.is_(None))
        .values(verifier=verifier),
    )
