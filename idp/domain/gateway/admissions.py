"""The admission of one browser into one origin of a gateway session: a ticket from the portal, a cookie at the gateway (VA-51)."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import add_all, change, claim
from idp.domain.gateway.gateway_sessions import claim_gate, end_sessions
from idp.domain.gateway.models import AdmissionTicket, GatewayCookie, GatewaySession
from idp.domain.sessions.models import AppSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, Actor, record

TICKET_LIFE = timedelta(seconds=60)
#: `<tool>-<label>[-n]`: 100 random bits in base32, so that no two sessions share an origin (VA-51)
ORIGIN = re.compile(r"[a-z0-9-]{1,40}?-(?P<label>[a-z2-7]{20})(-[2-4])?")


@dataclass(frozen=True)
class Waiting:
    """A gateway session that somebody asks to enter at one of its origins."""

    id: uuid.UUID
    app_session_id: uuid.UUID
    application_id: uuid.UUID
    host: str


def find_waiting(session: Session, host: str, *, login_session_id: uuid.UUID, account_id: uuid.UUID) -> Waiting | None:
    """The session behind a gateway host, of exactly this login and this account; None otherwise, without saying which."""
    found = ORIGIN.fullmatch(host.partition(".")[0])
    if found is None:
        return None
    row = session.execute(
        select(GatewaySession.id, GatewaySession.app_session_id, GatewaySession.application_id, GatewaySession.hosts)
        .join(AppSession, AppSession.id == GatewaySession.app_session_id)
        .where(
            GatewaySession.label == found["label"], AppSession.login_session_id == login_session_id,
            GatewaySession.account_id == account_id, GatewaySession.ended_at.is_(None),
        )
    ).one_or_none()  # fmt: skip
    if row is None or host not in row.hosts:
        return None
    return Waiting(row.id, row.app_session_id, row.application_id, host)


def issue_ticket(session: Session, waiting: Waiting, *, challenge: bytes, now: datetime) -> str:
    """Store a ticket for one origin and one browser, inside a claimed gateway session, and return it."""
    ticket = ids.new_secret()
    row = {
        "id": ids.new_id(now), "created_at": now, "digest": ids.digest(ticket), "gateway_session_id": waiting.id,
        "host": waiting.host, "challenge": challenge, "ends_at": now + TICKET_LIFE,
    }  # fmt: skip
    add_all(session, AdmissionTicket, [row])
    return ticket


@dataclass(frozen=True)
class Entered:
    """A browser that was let into one origin. cookie: for it; next_host: the origin that has no cookie yet, if any."""

    cookie: str
    next_host: str | None
    primary: str
    recipe_id: uuid.UUID
    tool_account_id: uuid.UUID


def enter(session: Session, ticket: str, *, host: str, challenge: bytes, now: datetime) -> Entered | None:
    """Claim a ticket, once, for the host and the browser that it was made for, and store the cookie of that origin.

    A ticket that comes a second time ends the session: one of the two who presented it is a thief (vault-and-gateway.md §14).
    """
    found = session.execute(
        select(
            AdmissionTicket.id, AdmissionTicket.gateway_session_id, AdmissionTicket.host, AdmissionTicket.challenge, AdmissionTicket.used_at,
        ).where(AdmissionTicket.digest == ids.digest(ticket))
    ).one_or_none()  # fmt: skip
    if found is None:
        return None
    if found.used_at is not None:
        _reused(session, found.gateway_session_id, now=now)
        return None
    if found.host != host or not ids.same(found.challenge, challenge):
        return None
    if not claim_gate(session, found.gateway_session_id, now=now, enters=True):
        return None
    unused = update(AdmissionTicket).where(
        AdmissionTicket.id == found.id, AdmissionTicket.used_at.is_(None), AdmissionTicket.ended_at.is_(None),
        AdmissionTicket.ends_at > now,
    )  # fmt: skip
    if not claim(session, unused.values(used_at=now)):
        return None
    return _give_cookie(session, found.gateway_session_id, host, now=now)


def _give_cookie(session: Session, gateway_session_id: uuid.UUID, host: str, *, now: datetime) -> Entered:
    """The cookie of one origin; a browser that comes in again gets another one, and the one before counts no more."""
    cookie = ids.new_secret()
    digest = ids.digest(cookie)
    mine = (GatewayCookie.gateway_session_id == gateway_session_id, GatewayCookie.host == host)
    if not change(session, update(GatewayCookie).where(*mine).values(cookie_digest=digest)):
        mine_now = {"gateway_session_id": gateway_session_id, "host": host, "cookie_digest": digest}
        add_all(session, GatewayCookie, [{"id": ids.new_id(now), "created_at": now, **mine_now}])
    row = session.execute(
        select(
            GatewaySession.hosts, GatewaySession.recipe_id, GatewaySession.tool_account_id, GatewaySession.company_id,
            GatewaySession.account_id, GatewaySession.application_id,
        ).where(GatewaySession.id == gateway_session_id)
    ).one()  # fmt: skip
    given = set(
        session.scalars(select(GatewayCookie.host).where(GatewayCookie.gateway_session_id == gateway_session_id))
    )
    record(
        session, Tag.TOOL_ENTERED, actor=Actor("person", row.account_id), now=now, company_id=row.company_id, subject_id=row.account_id,
        application_id=row.application_id, gateway_session_id=gateway_session_id,
    )  # fmt: skip
    hosts = list(row.hosts)
    following = next((name for name in hosts if name not in given), None)
    return Entered(cookie, following, hosts[0], row.recipe_id, row.tool_account_id)


def _reused(session: Session, gateway_session_id: uuid.UUID, *, now: datetime) -> None:
    ended = end_sessions(session, GatewaySession.id == gateway_session_id, reason="ticket_reused", now=now)
    row = session.execute(
        select(GatewaySession.company_id, GatewaySession.account_id, GatewaySession.application_id).where(
            GatewaySession.id == gateway_session_id
        )
    ).one()
    record(
        session, Tag.TICKET_REUSED, actor=SYSTEM, now=now, result="refused", company_id=row.company_id, subject_id=row.account_id,
        application_id=row.application_id, gateway_session_id=gateway_session_id, ended=ended,
    )  # fmt: skip
