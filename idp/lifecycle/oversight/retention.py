"""The end of a retention period: the contents of old rows are emptied, their place in the tree and its proofs stay (AU-09).

Two classes. *Login detail* (who logged in, entered, refreshed, was refused) ends after 13 months; everything else is
*evidence* and ends after 7 years, and with it the names of people who were stopped that long ago. Each class has a reader that
walks the sealed log once, in windows; a window is one transaction with the audit row that a verifier asks for. The tables
beside the log follow: where a login session came from, and whose an account was.
"""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, reading, transaction
from idp.core.errors import Conflict
from idp.core.settings import Settings
from idp.domain.credentials import rotated
from idp.domain.directory.models import Account
from idp.domain.sessions.models import LoginSession
from idp.ledgers.audit import empty, leaf
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, record
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.siem import stream
from idp.ledgers.siem.models import AuditReader
from idp.lifecycle.oversight import erase
from idp.lifecycle.revocation.models import Revocation

log = logging.getLogger(__name__)

WINDOW = 1000
PEOPLE = 20
#: how the tags of the shorter class begin; what was set up for SAML is evidence, who entered by it is not
LOGIN_SOURCES = ("authn:", "session:", "gateway:session:", "oidc:", "logout:", "saml:assertion:", "saml:message:")
LOGIN = frozenset(tag.value for tag in Tag if tag.value.startswith(LOGIN_SOURCES))
EVIDENCE = frozenset(tag.value for tag in Tag) - LOGIN


def step(settings: Settings, *, now: datetime) -> bool:
    """One window of each class, of passwords that were discarded, and a few people. True while there is more to do. A row that is not what was sealed stops its
    class with an error in the log: emptying it would hide that."""
    more = False
    for name, tags, days in (
        ("login", LOGIN, settings.keep_login_days),
        ("evidence", EVIDENCE, settings.keep_evidence_days),
    ):
        before = _floor(now - timedelta(days=days))
        try:
            with transaction() as session:
                more |= _window(session, name, tags, before, now=now)
        except Conflict as error:
            log.error("retention stopped", extra={"class": name, "why": error.private})  # noqa: TRY400 - an alarm, not a fault of ours
    with transaction() as session:
        more |= rotated.shred_discarded(session, now=now) == rotated.WINDOW
    with transaction() as session:
        more |= _devices(session, _floor(now - timedelta(days=settings.keep_login_days)), now=now)
    return _people(_floor(now - timedelta(days=settings.keep_evidence_days)), now=now) or more


def _floor(at: datetime) -> datetime:
    """The day's beginning, UTC: a limit that moves once a day makes one sentence of a day's windows."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _window(session: Session, name: str, tags: frozenset[str], before: datetime, *, now: datetime) -> bool:
    """Empty the rows of this class among the next `WINDOW` sealed ones, as far as they are old enough. True: go on."""
    reader = stream.reader(session, f"retention:{name}", start=0, now=now)
    begin = reader.next_index
    rows = session.execute(
        select(AuditEvent.leaf_index, AuditEvent.tag, AuditEvent.id)
        .where(AuditEvent.leaf_index >= begin, AuditEvent.leaf_index < begin + WINDOW)
        .order_by(AuditEvent.leaf_index)
    ).all()
    limit, old = ids.first_id(before), []
    for row in rows:  # sealed order is nearly, not exactly, the order of time: stop at the first row that is too young
        if row.id >= limit:
            break
        old.append(row)
    if not old:
        return False
    end = int(old[-1].leaf_index) + 1
    here = (AuditEvent.leaf_index >= begin, AuditEvent.leaf_index < end)
    for tag in sorted({row.tag for row in old} & tags):
        for part, work in (("personal", empty.personal), ("body", empty.body)):
            if work(session, *here, AuditEvent.tag == tag, limit=WINDOW):
                record(
                    session, Tag.RETENTION_ENDED, actor=SYSTEM, now=now, tag=tag, before=leaf.instant(before), part=part
                )
    change(session, update(AuditReader).where(AuditReader.id == reader.id).values(next_index=end))
    return len(old) == WINDOW


def _devices(session: Session, before: datetime, *, now: datetime) -> bool:
    """Where login sessions of that age came from. True: go on."""
    reader = stream.reader(session, "retention:devices", start=0, now=now)
    begin = ids.first_id(datetime.fromtimestamp(reader.next_index / 1000, tz=UTC))
    here = (LoginSession.id >= begin, LoginSession.id < ids.first_id(before))
    found = session.scalars(select(LoginSession.id).where(*here).order_by(LoginSession.id).limit(WINDOW)).all()
    if not found:
        return False
    change(session, update(LoginSession).where(LoginSession.id.in_(found)).values(address="", user_agent=""))
    # ids hold milliseconds, and so does this reader; those of the last one are emptied again, which changes nothing
    upto = int(ids.instant_of(found[-1]).timestamp() * 1000) + (len(found) < WINDOW)
    change(session, update(AuditReader).where(AuditReader.id == reader.id).values(next_index=upto))
    return len(found) == WINDOW


def _people(before: datetime, *, now: datetime) -> bool:
    """Names of people who were stopped before that. True: go on."""
    with reading() as session:
        still = (
            select(Revocation.id).where(Revocation.account_id == Account.id, Revocation.completed_at.is_(None)).exists()
        )
        over = (
            select(Account.id)
            .where(Account.ended_at.is_not(None), Account.ended_at < before, Account.erased_at.is_(None), ~still)
            .order_by(Account.ended_at)
        )
        found: list[uuid.UUID] = list(session.scalars(over.limit(PEOPLE)))
    done = 0
    for account_id in found:
        try:
            with transaction() as session:
                erase.erase(session, account_id, actor=SYSTEM, now=now, why="retention")
        except Conflict as error:
            log.warning("not erased", extra={"account": str(account_id), "why": error.private})
        else:
            done += 1
    return done == PEOPLE
