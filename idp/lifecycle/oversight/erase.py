"""Forgetting a person: every personal column and block is emptied, every proof stays valid (AU-09; GDPR 17, APPI 22 and 35).

What stays is what names nobody: ids, times, codes, the pseudonymous `sub` (a late logout must still name it), digests. The row
of the account stays, because receipts refer to it. Refused while the account can be used, and while one of its receipts is
open: whoever has to finish a cut by hand must know whose it is.

The first transaction empties the columns, writes the audit row that a verifier asks for, and puts a delivery to ourselves into
the outbox. The blocks of the log follow in chunks, here and in the worker, so that a kill between two of them loses nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from idp.core.db import change, reading, transaction
from idp.core.errors import Conflict
from idp.domain.authn.models import Authenticator
from idp.domain.directory.models import Account
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens.models import AuthorizationCode
from idp.ledgers.audit import empty
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.queue import Order
from idp.lifecycle.revocation.models import Cut, Revocation
from idp.lifecycle.revocation.reinstate import Reinstatement
from idp.lifecycle.revocation.words import CutState

TOPIC = "erase"
CHUNK = 500
FOR_EVER = timedelta(days=36_500)
#: who erased, and from where, is not about the person who was
OTHERS = AuditEvent.tag != Tag.PERSONAL_ERASED.value


@dataclass(frozen=True)
class Erased:
    """What was emptied in the first transaction."""

    account_id: uuid.UUID
    notes: int
    login_sessions: int


def erase(session: Session, account_id: uuid.UUID, *, actor: Actor, now: datetime, why: str = "asked") -> Erased:
    """Empty everything of one person but the log's blocks, which `blocks` empties. Raises Conflict while it may not be.

    why: `asked` by the person, or `retention`.
    """
    # the row is taken, so that what is read here holds until the end: nobody brings the person back meanwhile
    account = session.execute(
        select(Account.company_id, Account.ended_at, Account.erased_at)
        .where(Account.id == account_id)
        .with_for_update(key_share=True)
    ).one()
    if account.ended_at is None:
        raise Conflict("この人はまだ使えます。先に利用を止めてください。", f"account {account_id} is live")
    if account.erased_at is not None:
        raise Conflict("この人の情報は、もう消してあります。", f"account {account_id} was erased")
    _refuse_open(session, account_id)
    change(
        session,
        update(Account)
        .where(Account.id == account_id)
        .values(
            login_name=f"erased-{account_id.hex[-12:]}", name="", kana="", kana_search="", locale="ja", erased_at=now,
            epoch=Account.epoch + 1,
        ),
    )  # fmt: skip
    change(
        session,
        update(Authenticator)
        .where(Authenticator.account_id == account_id)
        .values(verifier=None, sealed=None, code_digest=None),
    )
    devices = change(
        session, update(LoginSession).where(LoginSession.account_id == account_id).values(address="", user_agent="")
    )
    change(
        session,
        update(AuthorizationCode).where(AuthorizationCode.account_id == account_id).values(claims={}, nonce=None),
    )
    change(session, update(Reinstatement).where(Reinstatement.account_id == account_id).values(note=""))
    notes = _notes(session, account_id)
    record(
        session, Tag.PERSONAL_ERASED, actor=actor, now=now, company_id=account.company_id, subject_id=account_id, why=why,
    )  # fmt: skip
    queue.put(
        session,
        topic=TOPIC,
        ref=account_id,
        destination=TOPIC,
        dedup_key=f"erase:{account_id}",
        now=now,
        give_up_after=FOR_EVER,
    )
    return Erased(account_id, notes, devices)


def _refuse_open(session: Session, account_id: uuid.UUID) -> None:
    still = (
        select(Revocation.number)
        .join(Cut, Cut.revocation_id == Revocation.id)
        .where(Revocation.account_id == account_id, Cut.state != CutState.DONE.value)
        .limit(1)
    )
    number = session.scalar(still)
    if number is not None:
        raise Conflict(
            "切断の手続きがまだ終わっていません。切断レシートのすべての行を閉じてから消してください。",
            f"receipt {number}",
        )
    wish = (
        select(Reinstatement.id)
        .where(Reinstatement.account_id == account_id, Reinstatement.state == "waiting")
        .limit(1)
    )
    if session.scalar(wish) is not None:
        raise Conflict("もう一度使えるようにする依頼が出ています。", f"account {account_id} waits for a reinstatement")


def _notes(session: Session, account_id: uuid.UUID) -> int:
    """Free text of people who closed a line by hand may hold the name; its digest is part of sealed facts and stays."""
    cuts = session.execute(
        select(Cut.id, Cut.close_note)
        .join(Revocation, Revocation.id == Cut.revocation_id)
        .where(Revocation.account_id == account_id, Cut.close_note.is_not(None))
    ).all()
    for cut in cuts:
        digest = hashlib.sha256(cut.close_note.encode()).digest()
        change(session, update(Cut).where(Cut.id == cut.id).values(close_note=None, close_note_hash=digest))
    return len(cuts)


def blocks(account_id: uuid.UUID) -> int:
    """Empty the personal blocks of the log about this person, and by them, a chunk per transaction. Returns how many.

    Only sealed rows can be emptied; what is not sealed yet is left for the next call (see `left`).
    """
    done = 0
    for which in (AuditEvent.subject_id == account_id, AuditEvent.actor_id == account_id):
        while True:
            with transaction() as session:
                some = empty.personal(session, which, OTHERS, limit=CHUNK)
            done += some
            if some < CHUNK:
                break
    return done


def left(account_id: uuid.UUID) -> bool:
    """True while a block about this person is not empty."""
    with reading() as session:
        about = or_(AuditEvent.subject_id == account_id, AuditEvent.actor_id == account_id)
        return (
            session.scalar(select(AuditEvent.id).where(about, OTHERS, AuditEvent.personal_salt.is_not(None)).limit(1))
            is not None
        )


def go_on(order: Order, *, now: datetime) -> None:
    """The worker's part: whatever the command left, also rows that were sealed after it. Then the delivery is done."""
    if order.ref is None:
        raise RuntimeError("an erasure without an account")
    blocks(order.ref)
    wait = left(order.ref)
    with transaction(reserved=True) as session:
        if wait:
            queue.retry_later(session, order, at=now + timedelta(seconds=10), outcome="not_sealed_yet")
        else:
            queue.done(session, order, outcome="erased", now=now)
