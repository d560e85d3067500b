"""The tests that make a session live, in one place: claims and live checks use the same ones (AC-42, D7).

A login session is live while it, its account and its company are, by end, by end date and by idle limit. Every test is
part of the WHERE of the statement that acts, so an end date holds with the worker stopped.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Update, bindparam, delete, exists, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from idp.core import ids
from idp.core.db import NOW, Instant, Moment, Query, change, claim, prepared, run
from idp.domain.applications.models import Application
from idp.domain.directory.models import Account, Company
from idp.domain.directory.people import claim_account, share_company
from idp.domain.directory.scope import account_alive
from idp.domain.sessions.models import AppSession, LoginSession, PendingRequest
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

TOUCH_EVERY = timedelta(seconds=60)
#: what the handle of a waiting SAML request begins with on our pages, so that they lead back to its own edge
SAML_HANDLE = "saml-"


def login_session_alive(now: Moment) -> tuple[ColumnElement[bool], ...]:
    """The row's own tests, without its account's."""
    return (LoginSession.ended_at.is_(None), LoginSession.ends_at > now, LoginSession.idle_until > now)


def owner_alive(account_id: InstrumentedAttribute[uuid.UUID], now: Moment) -> ColumnElement[bool]:
    """The account behind a row is live, and so is its company."""
    return exists(
        select(Account.id)
        .join(Company, Company.id == Account.company_id)
        .where(Account.id == account_id, *account_alive(now), Company.ended_at.is_(None))
    )


def app_session_alive(now: Moment) -> tuple[ColumnElement[bool], ...]:
    """An app session, the login session it lives in, and the account."""
    inside = exists(
        select(LoginSession.id).where(LoginSession.id == AppSession.login_session_id, *login_session_alive(now))
    ).correlate(AppSession)
    return (AppSession.ended_at.is_(None), AppSession.ends_at > now, inside, owner_alive(AppSession.account_id, now))


@dataclass(frozen=True)
class LiveLogin:
    """A live login session as a page or an authorization request sees it."""

    id: uuid.UUID
    account_id: uuid.UUID
    company_id: uuid.UUID
    company_code: str
    company_name: str
    account_name: str
    login_name: str
    subject: str
    locale: str
    epoch: int
    acr: str
    amr: tuple[str, ...]
    auth_time: datetime
    last_seen_at: datetime
    idle_s: int
    ends_at: datetime


LOGIN_COLUMNS: tuple[Any, ...] = (
    LoginSession.id, LoginSession.account_id, LoginSession.company_id, Company.code.label("company_code"),
    Company.name.label("company_name"), Account.name.label("account_name"), Account.login_name, Account.subject,
    Account.locale, Account.epoch, LoginSession.acr, LoginSession.amr, LoginSession.auth_time, LoginSession.last_seen_at,
    LoginSession.idle_s, LoginSession.ends_at,
)  # fmt: skip


@prepared
def _look_query() -> Query:
    return (
        select(*LOGIN_COLUMNS)
        .join(Account, Account.id == LoginSession.account_id)
        .join(Company, Company.id == LoginSession.company_id)
        .where(
            LoginSession.cookie_digest == bindparam("cookie_digest"),
            *login_session_alive(NOW),
            *account_alive(NOW),
            Company.ended_at.is_(None),
        )
    )


def look(session: Session, cookie: str, *, now: datetime) -> LiveLogin | None:
    """The live check of a page: one SELECT by the cookie's digest."""
    row = run(session, _look_query(), {"cookie_digest": ids.digest(cookie), "now": now}).one_or_none()
    return LiveLogin(**{**row._asdict(), "amr": tuple(row.amr)}) if row else None


def touch(session: Session, live: LiveLogin, *, now: datetime) -> bool:
    """Move the idle limit of a session in use, at most once a minute (ux.md M09). A claim: an ended one stays ended."""
    return claim(
        session,
        update(LoginSession)
        .where(LoginSession.id == live.id, *login_session_alive(now))
        .values(last_seen_at=now, idle_until=now + timedelta(seconds=live.idle_s)),
    )


@dataclass(frozen=True)
class Opening:
    """How somebody logged in: what the new login session remembers. idle_s and life_s: seconds."""

    acr: str
    amr: tuple[str, ...]
    idle_s: int
    life_s: int
    user_agent: str = ""
    address: str = ""


def open_login(
    session: Session,
    *,
    account_id: uuid.UUID,
    company_id: uuid.UUID,
    epoch: int,
    how: Opening,
    actor: Actor,
    now: datetime,
) -> str | None:
    """The last step of a login: company, then the account at the epoch that was read, then the new row.

    Returns the cookie's value; None when the account ended or a credential changed since the password was checked.
    """
    if not share_company(session, company_id) or not claim_account(session, account_id, epoch=epoch, now=now):
        return None
    cookie = ids.new_secret()
    row = LoginSession(
        id=ids.new_id(now), created_at=now, account_id=account_id, company_id=company_id, cookie_digest=ids.digest(cookie), acr=how.acr,
        amr=list(how.amr), auth_time=now, user_agent=how.user_agent[:300], address=how.address, last_seen_at=now,
        idle_s=how.idle_s, idle_until=now + timedelta(seconds=how.idle_s), ends_at=now + timedelta(seconds=how.life_s),
    )  # fmt: skip
    session.add(row)
    session.flush()
    record(
        session, Tag.LOGIN_SUCCEEDED, actor=actor, now=now, company_id=company_id, subject_id=account_id,
        login_session_id=row.id, acr=how.acr, amr=list(how.amr),
    )  # fmt: skip
    return cookie


def raise_assurance(
    session: Session, live: LiveLogin, *, acr: str, amr: tuple[str, ...], actor: Actor, now: datetime
) -> str | None:
    """Step-up: the same row gets a new cookie and a stronger class, by UPDATE in place (AC-40). None: it has ended."""
    cookie = ids.new_secret()
    went = claim(
        session,
        update(LoginSession)
        .where(LoginSession.id == live.id, *login_session_alive(now), owner_alive(LoginSession.account_id, now))
        .values(cookie_digest=ids.digest(cookie), acr=acr, amr=list(amr), auth_time=now),
    )
    if not went:
        return None
    record(session, Tag.STEP_UP, actor=actor, now=now, company_id=live.company_id, subject_id=live.account_id, acr=acr)
    return cookie


def claim_login_session(
    session: Session, login_session_id: uuid.UUID, *, now: datetime, idle_s: int | None = None
) -> bool:
    """Claim the gate of everything issued inside a login session. idle_s: being used also moves its idle limit by this."""
    values: dict[str, Any] = {"login_session_id": login_session_id, "now": now}
    if idle_s is not None:
        values["idle"] = now + timedelta(seconds=idle_s)
    return claim(session, _login_session_gate(idle_s is not None), values)


@prepared
def _login_session_gate(used: bool) -> Update:  # noqa: FBT001 - a key of the cache
    moved = {"last_seen_at": NOW, **({"idle_until": bindparam("idle", type_=Instant())} if used else {})}
    return (
        update(LoginSession)
        .where(
            LoginSession.id == bindparam("login_session_id"),
            *login_session_alive(NOW),
            owner_alive(LoginSession.account_id, NOW),
        )
        .values(**moved)
    )


def claim_app_session(session: Session, app_session_id: uuid.UUID, *, now: datetime) -> bool:
    """Claim the gate of a code's redemption."""
    return claim(session, _app_session_gate(), {"app_session_id": app_session_id, "now": now})


@prepared
def _app_session_gate() -> Update:
    return (
        update(AppSession)
        .where(AppSession.id == bindparam("app_session_id"), *app_session_alive(NOW))
        .values(last_issued_at=NOW)
    )


@dataclass(frozen=True)
class Opened:
    """The ledger row of an issuance."""

    id: uuid.UUID
    sid: str


@dataclass(frozen=True)
class SamlName:
    """The NameID that a SAML answer carries, and the end of the session that it grants (SessionNotOnOrAfter)."""

    value: str
    format: str
    ends_at: datetime


def open_app_session(
    session: Session, live: LiveLogin, application_id: uuid.UUID, *, now: datetime, name: SamlName | None = None
) -> Opened:
    """Open, or find again, the ledger row of one application inside a claimed login session (LO-02). One statement.

    name: for a SAML answer; the row then says under which name and until when the service provider keeps its own session.
    """
    row = {
        "id": ids.new_id(now), "created_at": now, "login_session_id": live.id, "application_id": application_id,
        "account_id": live.account_id, "company_id": live.company_id, "sid": ids.new_secret(), "sub": live.subject,
        "last_issued_at": now, "ends_at": live.ends_at,
    }  # fmt: skip
    if name is not None:
        row |= {"sub": name.value, "name_id_format": name.format, "ends_at": name.ends_at}
    statement = _open_app_session(session.get_bind().dialect.name, named=name is not None)
    found = run(session, statement, row).one()
    return Opened(found.id, found.sid)


@prepared
def _open_app_session(dialect: str, *, named: bool) -> Any:
    table = AppSession.__table__.c
    statement = (sqlite if dialect == "sqlite" else postgresql).insert(AppSession)
    again = ("last_issued_at", *(("sub", "name_id_format", "ends_at") if named else ()))
    return statement.on_conflict_do_update(
        index_elements=["login_session_id", "application_id"],
        index_where=text("ended_at IS NULL"),
        set_={column: statement.excluded[column] for column in again},
    ).returning(table.id, table.sid)


def put_request(
    session: Session,
    *,
    protocol: str,
    parameters: dict[str, Any],
    now: datetime,
    life: timedelta = timedelta(minutes=30),
) -> str:
    """Keep a request that waits for a person. Returns the handle that the login page carries (WB-05)."""
    handle = ids.new_secret()
    session.add(
        PendingRequest(
            id=ids.new_id(now),
            created_at=now,
            handle_digest=ids.digest(handle),
            protocol=protocol,
            parameters=parameters,
            ends_at=now + life,
        )
    )
    session.flush()
    return handle


@dataclass(frozen=True)
class Waiting:
    """A request that waits for a person. A plain row: a claim must not send us to read it again."""

    id: uuid.UUID
    created_at: datetime
    parameters: dict[str, Any]


def find_request(session: Session, handle: str, *, protocol: str, now: datetime) -> Waiting | None:
    """The waiting request behind a handle, or None when it is unknown, used or too old."""
    values = {"handle_digest": ids.digest(handle), "protocol": protocol, "now": now}
    row = run(session, _waiting(), values).one_or_none()
    return None if row is None else Waiting(row.id, row.created_at, row.parameters)


@prepared
def _waiting() -> Query:
    return select(PendingRequest.id, PendingRequest.created_at, PendingRequest.parameters).where(
        PendingRequest.handle_digest == bindparam("handle_digest"), PendingRequest.protocol == bindparam("protocol"),
        PendingRequest.used_at.is_(None), PendingRequest.ends_at > NOW,
    )  # fmt: skip


def use_request(session: Session, request_id: uuid.UUID, *, now: datetime) -> bool:
    """A waiting request is answered once."""
    return claim(
        session,
        update(PendingRequest)
        .where(PendingRequest.id == request_id, PendingRequest.used_at.is_(None))
        .values(used_at=now),
    )


def sweep_requests(session: Session, *, now: datetime) -> int:
    """Forget requests that nobody came back for, a day after they ran out. Returns how many."""
    return change(session, delete(PendingRequest).where(PendingRequest.ends_at < now - timedelta(days=1)))


def is_sid_of(session: Session, sid: str, login_session_id: uuid.UUID) -> bool:
    """True when an app session with this `sid` was opened inside this login session, ended or not."""
    found = select(AppSession.id).where(AppSession.sid == sid, AppSession.login_session_id == login_session_id)
    return session.scalar(found) is not None


@dataclass(frozen=True)
class Device:
    """One live login session as its owner sees it (ux.md M09)."""

    id: uuid.UUID
    user_agent: str
    address: str
    created_at: datetime
    last_seen_at: datetime
    applications: tuple[str, ...]


def devices(session: Session, account_id: uuid.UUID, *, now: datetime) -> list[Device]:
    """The live login sessions of an account with the applications opened in each, newest use first."""
    logins = session.execute(
        select(
            LoginSession.id,
            LoginSession.user_agent,
            LoginSession.address,
            LoginSession.created_at,
            LoginSession.last_seen_at,
        )
        .where(LoginSession.account_id == account_id, *login_session_alive(now))
        .order_by(LoginSession.last_seen_at.desc())
        .limit(50)
    ).all()
    apps: dict[uuid.UUID, list[str]] = {}
    for login_id, name in session.execute(
        select(AppSession.login_session_id, Application.name)
        .join(Application, Application.id == AppSession.application_id)
        .where(AppSession.login_session_id.in_([row.id for row in logins]), AppSession.ended_at.is_(None))
        .order_by(Application.name)
    ):
        apps.setdefault(login_id, []).append(name)
    return [Device(*row, tuple(apps.get(row.id, ()))) for row in logins]
