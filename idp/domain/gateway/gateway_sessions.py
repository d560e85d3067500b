"""Gateway sessions: one person in one tool from one browser. Opened at the portal, admitted per origin, checked at every request.

The row is the gate of its tickets and cookies. Whatever is alive is tested in one place (`alive`), by the claims of the way
in and by the live check of every request alike, and with everything above the row: app session, login session, account,
company, application, assignment, store. So an end date or a closed store holds before any sweep has reached the row (D7).
"""

from __future__ import annotations

import uuid
from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Update, bindparam, exists, func, or_, select, text, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import NOW, Moment, Query, add_all, change, claim, prepared
from idp.domain.applications.models import Application
from idp.domain.directory.models import Assignment, Store
from idp.domain.directory.scope import assignment_alive
from idp.domain.gateway.models import AdmissionTicket, GatewayCookie, GatewaySession, ToolSession, UseTicket
from idp.domain.sessions.live import app_session_alive, login_session_alive
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

#: the channel of the doorbell on PostgreSQL: only a hint, a sweep runs every half second anyway
BELL = "sekisho_gateway"


def alive(now: Moment) -> tuple[ColumnElement[bool], ...]:
    """The tests of a live gateway session: its own, and those of everything that it rests on."""
    inside = exists(
        select(AppSession.id)
        .join(Application, Application.id == AppSession.application_id)
        .where(AppSession.id == GatewaySession.app_session_id, *app_session_alive(now), Application.ended_at.is_(None))
    ).correlate(GatewaySession)
    place = exists(
        select(Assignment.id)
        .outerjoin(Store, Store.id == Assignment.store_id)
        .where(Assignment.id == GatewaySession.assignment_id, *assignment_alive(now), Store.ended_at.is_(None))
    ).correlate(GatewaySession)
    # a disabled account inside the tool, or one of a closed store, is nobody's any more
    tool = exists(
        select(ToolAccount.id)
        .outerjoin(Store, Store.id == ToolAccount.store_id)
        .where(
            ToolAccount.id == GatewaySession.tool_account_id, ToolAccount.ended_at.is_(None), ToolAccount.state != "disabled",
            Store.ended_at.is_(None),
        )
    ).correlate(GatewaySession)  # fmt: skip
    return (
        GatewaySession.ended_at.is_(None), GatewaySession.ends_at > now, GatewaySession.idle_until > now,
        inside, or_(GatewaySession.assignment_id.is_(None), place), tool,
    )  # fmt: skip


# --- coming in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What a gateway session is opened for. tool_hosts: hosts of the tool, the primary one first; slug: of the application;
    idle_s: after how many seconds without a request it ends; ends_at: its latest end."""

    app_session_id: uuid.UUID
    company_id: uuid.UUID
    application_id: uuid.UUID
    account_id: uuid.UUID
    assignment_id: uuid.UUID | None
    tool_account_id: uuid.UUID
    tool_session_id: uuid.UUID
    recipe_id: uuid.UUID
    epoch: int
    slug: str
    tool_hosts: Sequence[str]
    idle_s: int
    ends_at: datetime


@dataclass(frozen=True)
class Opened:
    """A new gateway session. host: its first origin."""

    id: uuid.UUID
    host: str


def open_session(session: Session, wish: Wish, *, domain: str, actor: Actor, now: datetime) -> Opened:
    """Store the row of a launch, inside a claimed login session and after the decision. domain: of the gateway."""
    session_id = ids.new_id(now)
    label = b32encode(ids.new_bytes(13)).decode().lower()[:20]
    name = f"{wish.slug[:40].rstrip('-')}-{label}"
    mine = (f"{name}{f'-{n}' if n > 1 else ''}.{domain}" for n in range(1, len(wish.tool_hosts) + 1))
    hosts = dict(zip(mine, wish.tool_hosts, strict=True))
    row = {
        "id": session_id, "created_at": now, "company_id": wish.company_id, "app_session_id": wish.app_session_id,
        "application_id": wish.application_id, "account_id": wish.account_id, "assignment_id": wish.assignment_id,
        "tool_account_id": wish.tool_account_id, "tool_session_id": wish.tool_session_id, "recipe_id": wish.recipe_id,
        "epoch": wish.epoch, "lane": "gateway", "label": label, "hosts": hosts, "state": "opening", "last_seen_at": now,
        "idle_s": wish.idle_s, "idle_until": now + timedelta(seconds=wish.idle_s), "ends_at": wish.ends_at,
    }  # fmt: skip
    add_all(session, GatewaySession, [row])
    record(
        session, Tag.TOOL_OPENED, actor=actor, now=now, company_id=wish.company_id, subject_id=wish.account_id,
        application_id=wish.application_id, gateway_session_id=session_id, tool_account_id=wish.tool_account_id,
        tool_session_id=wish.tool_session_id,
    )  # fmt: skip
    return Opened(session_id, next(iter(hosts)))


@dataclass(frozen=True)
class Launch:
    """A launch that its person watches. name: of the application; state, code: of the tool session, and `late`, `engine_away` once
    its login has had more time than any login gets; slow: it takes long."""

    host: str
    name: str
    state: str
    code: str | None
    slow: bool


SLOW = timedelta(seconds=15)
#: longer than the job that logs in may take (`tool_sessions.JOB_LIFE`): no engine has taken it, and none will
LATE = timedelta(seconds=75)


def launch_of(
    session: Session,
    gateway_session_id: uuid.UUID,
    *,
    login_session_id: uuid.UUID,
    account_id: uuid.UUID,
    now: datetime,
) -> Launch | None:
    """The progress of one's own launch, while it is alive; None otherwise, without saying why."""
    row = session.execute(
        select(GatewaySession.hosts, GatewaySession.created_at, Application.name, ToolSession.state, ToolSession.code)
        .join(AppSession, AppSession.id == GatewaySession.app_session_id)
        .join(Application, Application.id == GatewaySession.application_id)
        .join(ToolSession, ToolSession.id == GatewaySession.tool_session_id)
        .where(
            GatewaySession.id == gateway_session_id, GatewaySession.account_id == account_id,
            AppSession.login_session_id == login_session_id, *alive(now),
        )
    ).one_or_none()  # fmt: skip
    if row is None:
        return None
    waited, state, code = now - row.created_at, row.state, row.code
    if state == "opening" and waited > LATE:
        state, code = "late", "engine_away"  # said, instead of a page that reloads for ever
    return Launch(next(iter(row.hosts)), row.name, state, code, waited > SLOW)


def is_live(session: Session, tool_session_id: uuid.UUID) -> bool:
    """Whether we are logged in there already, so that nobody has to wait."""
    return session.scalar(select(ToolSession.state).where(ToolSession.id == tool_session_id)) == "live"


def claim_gate(session: Session, gateway_session_id: uuid.UUID, *, now: datetime, enters: bool = False) -> bool:
    """Claim the gate of a ticket or a cookie. enters: the browser is let in, and the row says so."""
    return claim(session, _gate(enters), {"gateway_session_id": gateway_session_id, "now": now})


@prepared
def _gate(enters: bool) -> Update:  # noqa: FBT001 - a key of the cache
    values: dict[str, Any] = {"last_seen_at": NOW}
    if enters:
        values |= {"state": "admitted", "admitted_at": func.coalesce(GatewaySession.admitted_at, NOW)}
    return (
        update(GatewaySession).where(GatewaySession.id == bindparam("gateway_session_id"), *alive(NOW)).values(**values)
    )


# --- being in ------------------------------------------------------------------------------------------------------


def live_query() -> Query:
    """The live check of every request, release and sweep (VA-50): one statement for all cookies that ask at this moment.

    digests, now: its parameters. One row per cookie whose gateway session, and everything above it, is alive; the others are
    absent. `edges/tools/straight.py` runs it.
    """
    return (
        select(
            GatewayCookie.cookie_digest, GatewayCookie.host, GatewaySession.id, GatewaySession.tool_session_id, GatewaySession.recipe_id,
            GatewaySession.tool_account_id, GatewaySession.hosts, ToolSession.state, ToolSession.generation, ToolSession.jar_version,
            ToolSession.code,
        )
        .join(GatewaySession, GatewaySession.id == GatewayCookie.gateway_session_id)
        .join(ToolSession, ToolSession.id == GatewaySession.tool_session_id)
        .where(GatewayCookie.cookie_digest.in_(bindparam("digests", expanding=True)), ToolSession.ended_at.is_(None), *alive(NOW))
    )  # fmt: skip


def touch(session: Session, used: Sequence[uuid.UUID], *, now: datetime) -> None:
    """These sessions were used: their idle limits move, and those of the logins that they live in.

    Working in a tool is being in front of the screen: without the second, half an hour in a tool would end the login, and
    the tool with it. What has ended stays ended. Rows in one order, login sessions first (D7).
    """
    rows = session.execute(
        select(
            GatewaySession.id,
            GatewaySession.idle_s,
            LoginSession.id.label("login"),
            LoginSession.idle_s.label("login_idle_s"),
        )
        .join(AppSession, AppSession.id == GatewaySession.app_session_id)
        .join(LoginSession, LoginSession.id == AppSession.login_session_id)
        .where(GatewaySession.id.in_(used), *alive(now))
        .order_by(LoginSession.id, GatewaySession.id)
    ).all()
    for login_id, idle_s in {row.login: row.login_idle_s for row in rows}.items():
        mine = update(LoginSession).where(LoginSession.id == login_id, *login_session_alive(now))
        change(session, mine.values(last_seen_at=now, idle_until=now + timedelta(seconds=idle_s)))
    for row in rows:
        mine = update(GatewaySession).where(GatewaySession.id == row.id, *alive(now))
        change(session, mine.values(last_seen_at=now, idle_until=now + timedelta(seconds=row.idle_s)))


# --- going out -----------------------------------------------------------------------------------------------------


def end_sessions(
    session: Session, *which: ColumnElement[bool], reason: str, now: datetime, revocation_id: uuid.UUID | None = None
) -> int:
    """End gateway sessions, void their tickets, and ring the doorbell. Returns how many were live."""
    ended = change(
        session,
        update(GatewaySession)
        .where(*which, GatewaySession.ended_at.is_(None))
        .values(ended_at=now, end_reason=reason, revocation_id=revocation_id),
    )
    if not ended:
        return 0  # a ticket is nothing without its session, and a use-ticket nothing without its app session
    gone = select(GatewaySession.id).where(*which, GatewaySession.ended_at == now)
    change(
        session,
        update(AdmissionTicket)
        .where(
            AdmissionTicket.gateway_session_id.in_(gone),
            AdmissionTicket.used_at.is_(None),
            AdmissionTicket.ended_at.is_(None),
        )
        .values(ended_at=now),
    )
    apps = select(GatewaySession.app_session_id).where(*which, GatewaySession.ended_at == now)
    change(
        session,
        update(UseTicket)
        .where(UseTicket.app_session_id.in_(apps), UseTicket.used_at.is_(None), UseTicket.ended_at.is_(None))
        .values(ended_at=now),
    )
    ring(session)
    return ended


def ring(session: Session) -> None:
    """Tell every gateway that something ended. PostgreSQL delivers it with the commit and never before; SQLite needs no bell,
    its readers see the file change."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"NOTIFY {BELL}"))


def leave(session: Session, cookie_digest: bytes, *, now: datetime) -> bool:
    """The person pressed the tool's own logout button: this gateway session ends, the tool session of all lives on."""
    row = session.execute(
        select(GatewaySession.id, GatewaySession.company_id, GatewaySession.account_id, GatewaySession.application_id)
        .join(GatewayCookie, GatewayCookie.gateway_session_id == GatewaySession.id)
        .where(GatewayCookie.cookie_digest == cookie_digest)
    ).one_or_none()
    if row is None or not end_sessions(session, GatewaySession.id == row.id, reason="signed_out", now=now):
        return False
    record(
        session, Tag.TOOL_LEFT, actor=Actor("person", row.account_id), now=now, company_id=row.company_id, subject_id=row.account_id,
        application_id=row.application_id, gateway_session_id=row.id,
    )  # fmt: skip
    return True
