"""Letting somebody back in: two people, and nothing old revives (AC-08, RV-29).

The account keeps its row, its staff number and its `sub`, because an administrator says in writing that this is the same
person and a second one agrees (OI-10). It comes back with a higher epoch and with nothing else: no authenticator, no
session, no assignment but the ones restored here, no family. A new code starts a new password.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from idp.core import ids
from idp.core.db import Base, claim
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.domain.directory import people, scope
from idp.domain.directory.models import Account, Assignment, Company, Region, Store
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Power, Role
from idp.domain.directory.scope import Viewer
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record


class Reinstatement(Base):
    """A wish that an ended account may come back, waiting for a second person."""

    __tablename__ = "reinstatement"
    __table_args__ = (Index("ix_reinstatement_account", "account_id"),)

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    requested_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    note: Mapped[str] = mapped_column(Text)
    approved_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    approved_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(16), default="waiting")


def open_request(session: Session, account_id: uuid.UUID) -> Reinstatement | None:
    """The wish that waits for this account, if any."""
    return session.scalar(
        select(Reinstatement).where(Reinstatement.account_id == account_id, Reinstatement.state == "waiting").limit(1)
    )


def waiting(session: Session, viewer: Viewer) -> list[tuple[Reinstatement, Account]]:
    """What waits for a second person, inside the viewer's scope."""
    rows = session.execute(
        select(Reinstatement, Account)
        .join(Account, Account.id == Reinstatement.account_id)
        .where(Reinstatement.state == "waiting", scope.accounts(viewer, Power.REINSTATE))
        .order_by(Reinstatement.id)
        .limit(100)
    )
    return [(row[0], row[1]) for row in rows]


def ask(session: Session, account_id: uuid.UUID, *, note: str, viewer: Viewer, now: datetime) -> None:
    """Ask. Raises Invalid without a reason, Conflict when the account lives or somebody asked already."""
    if not note.strip():
        raise Invalid("理由を書いてください。", field="note")
    gone = Account.ended_at.is_(None) | Account.erased_at.is_not(None)
    alive = session.scalar(select(Account.id).where(Account.id == account_id, gone))
    if alive or open_request(session, account_id):
        raise Conflict("この人の利用は止まっていないか、もう依頼が出ています。", f"account {account_id}")
    session.add(
        Reinstatement(
            id=ids.new_id(now),
            created_at=now,
            account_id=account_id,
            requested_by=viewer.account_id,
            note=note.strip()[:2000],
        )
    )
    session.flush()


def approve(session: Session, account_id: uuid.UUID, *, viewer: Viewer, now: datetime) -> None:
    """Approve as a second person. Brings back the account and the store assignments it had when it ended.

    Raises NotFound without a wish, Denied for the person who asked, Conflict when another was faster or the staff number
    has been given to somebody else meanwhile.
    """
    wish = open_request(session, account_id)
    if wish is None:
        raise NotFound("依頼が見つかりません。", f"reinstatement of {account_id}")
    if wish.requested_by == viewer.account_id:
        raise Denied("依頼した人は承認できません。ほかの管理者が承認します。", "same person asks and approves")
    _refuse_taken_number(session, account_id)
    last = session.execute(select(Account.ended_at, Account.company_id).where(Account.id == account_id)).one()
    wish_id = wish.id
    came_back = claim(
        session,
        update(Account)
        # an erased row is nobody any more: it must not come back to life under somebody's approval
        .where(Account.id == account_id, Account.ended_at.is_not(None), Account.erased_at.is_(None))
        .values(ended_at=None, end_reason=None, ends_at=None, epoch=Account.epoch + 1),
    )
    granted = claim(
        session,
        update(Reinstatement)
        .where(Reinstatement.id == wish_id, Reinstatement.state == "waiting")
        .values(state="approved", approved_by=viewer.account_id, approved_at=now),
    )
    if not came_back or not granted:
        raise Conflict("ほかの人が先に変えました。", f"reinstatement of {account_id}")
    _restore_assignments(session, account_id, last.ended_at, viewer=viewer, now=now)
    record(
        session,
        Tag.ACCOUNT_REINSTATED,
        actor=viewer.actor,
        now=now,
        company_id=last.company_id,
        subject_id=account_id,
        reinstatement_id=wish_id,
    )


def _refuse_taken_number(session: Session, account_id: uuid.UUID) -> None:
    mine = select(Account.login_name, Account.company_id).where(Account.id == account_id).subquery()
    taken = session.scalar(
        select(Account.id).where(
            Account.login_name == mine.c.login_name,
            Account.company_id == mine.c.company_id,
            Account.ended_at.is_(None),
            Account.id != account_id,
        )
    )
    if taken:
        raise Conflict(
            "このスタッフ番号は、いまほかの人が使っています。新しい人として追加してください。",
            f"login name of {account_id}",
        )


def _restore_assignments(
    session: Session, account_id: uuid.UUID, ended_at: datetime, *, viewer: Viewer, now: datetime
) -> None:
    """New assignment rows like those that ended with the account; the old ones stay ended."""
    rows = session.execute(
        select(Assignment, Company, Store, Region)
        .join(Company, Company.id == Assignment.company_id)
        .outerjoin(Store, Store.id == Assignment.store_id)
        .outerjoin(Region, Region.id == Assignment.region_id)
        .where(Assignment.account_id == account_id, Assignment.ended_at == ended_at)
    ).all()
    for assignment, company, store, region in rows:
        role = Role(assignment.role)
        people.add_assignment(
            session, account_id, Place(company, store, region), role=role, actor=viewer.actor, viewer=viewer, now=now
        )
