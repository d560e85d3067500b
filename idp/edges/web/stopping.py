"""Stopping somebody's access: the dialog before the cut and the cut itself, the same for a store and for head office.

What the dialog lists is what `plan()` would cut; what the receipt shows is what it did cut.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import claim, retrying, transaction
from idp.core.errors import Invalid
from idp.domain.directory.models import Account, Assignment, Store
from idp.edges import browser
from idp.edges.browser import Looking
from idp.edges.web.forms import StopForm
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope


@dataclass(frozen=True)
class Stop:
    """Whom, how far, and where: scope ACCOUNT for the whole person, ASSIGNMENT for one store of several."""

    account: Account
    scope: Scope
    id: uuid.UUID
    store: Store | None


def prepare(form: StopForm) -> None:
    """Give the form its once-only key: a double click is one revocation (RE-07)."""
    if not form.once.data:
        form.once.data = ids.new_secret()


def execute(looking: Looking, stop: Stop, form: StopForm) -> str:
    """Cut now, or book the end. Returns the path of the next page. Raises Invalid for a date that cannot be."""
    now = browser.now()
    ends_at = _booked(form, stop.store, now=now)
    if ends_at is not None:
        with transaction(reserved=True) as session:
            _book(session, looking, stop, ends_at, now=now)
        return "booked"
    order = Order(
        Reason(form.reason.data),
        Door.CONSOLE,
        f"{looking.login.account_id}:{form.once.data[:43]}",
        browser.services().settings.give_up_after,
        hr_at=_left_at(form, stop.store, now=now),
    )

    def cut() -> str:
        with transaction(reserved=True) as session:
            target = Target(stop.scope, stop.id)
            return cascade.revoke(session, target, order, actor=looking.viewer.actor, now=now).number

    return f"/receipts/{retrying(cut)}"


def _booked(form: StopForm, store: Store | None, *, now: datetime) -> datetime | None:
    """The instant at which access stops by itself, or None for now. The day ends in the store's time zone (RV-35)."""
    if form.when.data == "now":
        return None
    zone = ZoneInfo(store.time_zone if store else "Asia/Tokyo")
    day = now.astimezone(zone).date() if form.when.data == "today" else form.on.data
    if day is None:
        raise Invalid("最後に使う日を入れてください。", field="on")
    if day == date.max:
        raise Invalid("この日は選べません。", field="on")
    ends_at = datetime.combine(day + timedelta(days=1), time.min, tzinfo=zone)
    if ends_at <= now:
        raise Invalid("今日より前の日は選べません。すぐ止めるときは「いますぐ」を選んでください。", field="on")
    return ends_at


def _left_at(form: StopForm, store: Store | None, *, now: datetime) -> datetime | None:
    """The end of the last day by the personnel record, in the store's time zone: it measures how late a cut is (AU-22)."""
    day = form.left_on.data
    if day is None:
        return None
    zone = ZoneInfo(store.time_zone if store else "Asia/Tokyo")
    if day > now.astimezone(zone).date():
        raise Invalid(
            "退職日は今日までの日です。これから辞める人は「日にちを決める」を選んでください。", field="left_on"
        )
    return datetime.combine(day + timedelta(days=1), time.min, tzinfo=zone)


def _book(session: Session, looking: Looking, stop: Stop, ends_at: datetime, *, now: datetime) -> None:
    """Set the end date. It is part of every claim and live check, so it holds with the worker stopped (D7)."""
    row = Account if stop.scope is Scope.ACCOUNT else Assignment
    sooner = or_(row.ends_at.is_(None), row.ends_at > ends_at)
    if not claim(session, update(row).where(row.id == stop.id, row.ended_at.is_(None), sooner).values(ends_at=ends_at)):
        raise Invalid("もっと早い日が、もう決まっています。", field="on")
    record(
        session, Tag.REVOCATION_BOOKED, actor=looking.viewer.actor, now=now, company_id=stop.account.company_id, subject_id=stop.account.id,
        store_id=stop.store.id if stop.store else None, scope=stop.scope.value, ends_at=ends_at,
    )  # fmt: skip
