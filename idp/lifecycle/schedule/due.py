"""End dates that have been reached: the cascade runs for them, once, and catches up after a pause.

Access stopped at the date by itself, because every claim and live check tests it. What is left to do here is to end the
rows, to tell the relying parties, and to write the receipt (RV-01, RV-35).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.db import reading, retrying, transaction
from idp.domain.directory.models import Account, Assignment
from idp.ledgers.audit.log import SYSTEM
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope

BATCH = 100


def run(*, give_up_after: timedelta, now: datetime) -> int:
    """Run the cascade for reached end dates, at most 100 of each kind, each in its own transaction. Returns how many."""
    with reading() as session:
        found = [*_accounts(session, now), *_assignments(session, now)]
    for target, key in found:
        order = Order(Reason.END_DATE, Door.SCHEDULE, key, give_up_after)

        def cut(target: Target = target, order: Order = order) -> None:
            with transaction(reserved=True) as session:
                cascade.revoke(session, target, order, actor=SYSTEM, now=now)

        retrying(cut)
    return len(found)


def _accounts(session: Session, now: datetime) -> list[tuple[Target, str]]:
    rows = session.execute(
        select(Account.id, Account.epoch).where(Account.ended_at.is_(None), Account.ends_at <= now).limit(BATCH)
    )
    return [(Target(Scope.ACCOUNT, row.id), f"end:{row.id}:{row.epoch}") for row in rows]


def _assignments(session: Session, now: datetime) -> list[tuple[Target, str]]:
    """An assignment that ends takes the account with it when it was the last one: nobody is left without a place."""
    rows = session.execute(
        select(Assignment.id, Assignment.account_id, Assignment.epoch)
        .where(Assignment.ended_at.is_(None), Assignment.ends_at <= now)
        .limit(BATCH)
    ).all()
    found = []
    for row in rows:
        others = session.scalar(
            select(Assignment.id)
            .where(Assignment.account_id == row.account_id, Assignment.id != row.id, Assignment.ended_at.is_(None))
            .limit(1)
        )
        target = Target(Scope.ASSIGNMENT, row.id) if others else Target(Scope.ACCOUNT, row.account_id)
        found.append((target, f"end:{row.id}:{row.epoch}"))
    return found
