"""Accounts that nobody has used for some days (PCI DSS 8.2.6: at most 90)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from idp.domain.directory import scope
from idp.domain.directory.models import Account, Assignment, Company, Store
from idp.domain.directory.roles import Power
from idp.domain.directory.scope import Viewer, account_alive, assignment_alive
from idp.domain.sessions.models import LoginSession
from idp.lifecycle.oversight.access import Which

DEFAULT_DAYS = 90


@dataclass(frozen=True)
class Asleep:
    """A live account. last_seen_at: None = never logged in; then `created_at` says since when it could."""

    account_id: uuid.UUID
    login: str
    name: str
    stores: tuple[str, ...]
    created_at: datetime
    last_seen_at: datetime | None


@dataclass(frozen=True)
class Page:
    """By account id. after: go on behind this one; None when there are no more."""

    rows: tuple[Asleep, ...]
    after: uuid.UUID | None


def asleep(
    session: Session,
    viewer: Viewer,
    which: Which,
    *,
    days: int,
    now: datetime,
    after: uuid.UUID | None = None,
    limit: int = 50,
) -> Page:
    """Live accounts, older than so many days, with no login session seen since: a probe of one index per account."""
    since = now - timedelta(days=days)
    seen = exists(
        select(LoginSession.id).where(LoginSession.account_id == Account.id, LoginSession.last_seen_at > since)
    )
    query = (
        select(Account.id, Account.login_name, Account.name, Account.created_at, Company.code)
        .join(Company, Company.id == Account.company_id)
        .where(
            scope.accounts(viewer, Power.SEE_LOG), *account_alive(now), Company.ended_at.is_(None), Account.created_at <= since, ~seen
        )
        .order_by(Account.id)
        .limit(limit + 1)
    )  # fmt: skip
    if which.company_id is not None:
        query = query.where(Account.company_id == which.company_id)
    if which.store is not None:
        here = select(Assignment.account_id).where(Assignment.store_id == which.store.id, *assignment_alive(now))
        query = query.where(Account.id.in_(here))
    found = session.execute(query.where(Account.id > after) if after is not None else query).all()
    rows = found[:limit]
    whose = [row.id for row in rows]
    seen_at = session.execute(
        select(LoginSession.account_id, func.max(LoginSession.last_seen_at))
        .where(LoginSession.account_id.in_(whose))
        .group_by(LoginSession.account_id)
    )
    last = {row[0]: row[1] for row in seen_at}
    stores: dict[uuid.UUID, list[str]] = {}
    for account_id, code, name in session.execute(
        select(Assignment.account_id, Store.code, Store.name)
        .join(Store, Store.id == Assignment.store_id)
        .where(Assignment.account_id.in_(whose), *assignment_alive(now), scope.stores(viewer, Power.SEE_LOG))
        .order_by(Store.code)
    ):
        stores.setdefault(account_id, []).append(f"{code} {name}")
    return Page(
        tuple(
            Asleep(r.id, f"{r.code}/{r.login_name}", r.name, tuple(stores.get(r.id, ())), r.created_at, last.get(r.id)) for r in rows
        ),
        rows[-1].id if len(found) > limit else None,
    )  # fmt: skip
