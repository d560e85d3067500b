"""End dates that have been reached: the cascade runs for them, once, and catches up after a pause.

Access stopped at the date by itself, because every claim and live check tests it. What is left to do here is to end the
rows, to tell the relying parties, and to write the receipt (RV-01, RV-35).
"""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.db import reading, retrying, transaction
from idp.domain.directory.models import Account, Assignment
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope

log = logging.getLogger(__name__)

BATCH = 100


def run(*, give_up_after: timedelta, now: datetime) -> int:
    """Run the cascade for reached end dates, at most 100 people, each in their own transaction. Returns how many.

    One person whose cascade fails does not keep the others waiting.
    """
    with reading() as session:
        found = _people(session, now)
    for account_id in found:

        def cut(account_id: uuid.UUID = account_id) -> None:
            with transaction(reserved=True) as session:
                for target, key, ends_at in _targets(session, account_id, now):
                    booked = _booked_at(session, account_id)
                    order = Order(
                        Reason.END_DATE, Door.SCHEDULE, key, give_up_after, hr_at=ends_at, requested_at=booked
                    )
                    cascade.revoke(session, target, order, actor=SYSTEM, now=now)

        try:
            retrying(cut)
        except Exception:
            log.exception(
                "the cascade of an end date failed; tried again at the next sweep", extra={"account": account_id}
            )
    return len(found)


def _people(session: Session, now: datetime) -> list[uuid.UUID]:
    over = select(Assignment.account_id).where(Assignment.ended_at.is_(None), Assignment.ends_at <= now)
    ended = select(Account.id).where(Account.ended_at.is_(None), Account.ends_at <= now)
    return list(session.scalars(ended.union(over).limit(BATCH)))


def _targets(session: Session, account_id: uuid.UUID, now: datetime) -> list[tuple[Target, str, datetime]]:
    """What has reached its end, read with the account's row taken: a date moved meanwhile is the date that counts.

    Assignments that end take the account with them when none is left: nobody stays without a place.
    """
    account = session.execute(
        select(Account.ended_at, Account.ends_at, Account.epoch)
        .where(Account.id == account_id)
        .with_for_update(key_share=True)
    ).one()
    rows = session.execute(
        select(Assignment.id, Assignment.ends_at, Assignment.epoch)
        .where(Assignment.account_id == account_id, Assignment.ended_at.is_(None))
        .order_by(Assignment.id)
    ).all()
    over = [row for row in rows if row.ends_at is not None and row.ends_at <= now]
    ends = account.ends_at is not None and account.ends_at <= now
    homeless = bool(over) and len(over) == len(rows)
    if account.ended_at is None and (ends or homeless):
        last = account.ends_at if ends else max(row.ends_at for row in over)
        return [(Target(Scope.ACCOUNT, account_id), f"end:{account_id}:{account.epoch}", last)]
    return [(Target(Scope.ASSIGNMENT, row.id), f"end:{row.id}:{row.epoch}", row.ends_at) for row in over]


def _booked_at(session: Session, account_id: uuid.UUID) -> datetime | None:
    """When somebody last booked an end for this person; None where the date was there from the start."""
    return session.scalar(
        select(AuditEvent.created_at)
        .where(AuditEvent.subject_id == account_id, AuditEvent.tag == Tag.REVOCATION_BOOKED.value)
        .order_by(AuditEvent.id.desc())
        .limit(1)
    )
