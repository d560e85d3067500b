"""One launch and one admission, each in one transaction (vault-and-gateway.md §5.1).

Shared rows, login session claimed, decision, account inside the tool, ledger row, tool session, gateway session. What was read
before the claim decides nothing (RE-20); no secret is opened and nobody is called.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, LargeBinary, and_, bindparam, func, select
from sqlalchemy.orm import Session

from connectors.recipes.model import Recipe
from idp.core import ids
from idp.core.db import Instant
from idp.core.errors import Unavailable
from idp.core.settings import RefusedToStart
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import APPLICATION_COLUMNS, Allowed, Facts, application_facts
from idp.domain.applications.models import Application, Entitlement
from idp.domain.credentials.standing import standing
from idp.domain.directory.models import Account, Company
from idp.domain.directory.scope import account_alive
from idp.domain.gateway import admissions, gateway_sessions, tool_sessions
from idp.domain.gateway.gateway_sessions import Opened, Wish
from idp.domain.gateway.tickets import Person
from idp.domain.sessions import live
from idp.domain.sessions.live import LOGIN_COLUMNS, LiveLogin, login_session_alive
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens import grants
from idp.domain.tools import recipes, registry
from idp.domain.tools.models import Tool
from idp.edges import browser
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.services import ticket_key

KEY = "sekisho-ticket-key"


@dataclass(frozen=True)
class Refused:
    """Nobody may enter now. code: of vault-and-gateway.md §14, or a reason of `decide`; not_found: it is as if it did not exist;
    name: of the tool, for everybody else."""

    code: str
    not_found: bool = False
    name: str = ""


def key() -> bytes:
    """The key of use-tickets, opened once per process. Never inside a transaction: opening it commits an audit row first."""
    found: bytes | None = current_app.extensions.get(KEY)
    if found is None:
        try:
            found = current_app.extensions[KEY] = ticket_key(browser.services().vault)
        except RefusedToStart as error:
            raise Unavailable("いまは使えません。本部に知らせてください。", str(error)) from error
    return found


# --- what is read first --------------------------------------------------------------------------------------------


def _statement(which: ColumnElement[bool]) -> Any:
    """Built once and only bound afterwards: building it costs more than running it (performance.md 4.1)."""
    now: Any = bindparam("now", type_=Instant())
    digest: Any = bindparam("digest", type_=LargeBinary())
    company = (
        select(Company.id)
        .where(Company.id == LoginSession.company_id)
        .with_for_update(read=True)
        .correlate(LoginSession)
        .scalar_subquery()
    )
    ends = (
        select(func.min(Entitlement.ends_at))
        .where(Entitlement.application_id == Application.id, Entitlement.ended_at.is_(None), Entitlement.ends_at > now)
        .correlate(Application)
        .scalar_subquery()
    )
    return (
        select(
            *APPLICATION_COLUMNS, Application.slug, Application.name.label("application_name"), ends.label("entitled_until"),
            LOGIN_COLUMNS[0].label("login_id"), *LOGIN_COLUMNS[1:], company.label("company_lock"),
            grants.shared_stores(select(LoginSession.account_id).where(LoginSession.cookie_digest == digest)),
        )
        .select_from(Application)
        .join(Tool, Tool.application_id == Application.id)
        .outerjoin(LoginSession, and_(LoginSession.cookie_digest == digest, *login_session_alive(now)))
        .outerjoin(Account, and_(Account.id == LoginSession.account_id, *account_alive(now)))
        .outerjoin(Company, and_(Company.id == Account.company_id, Company.ended_at.is_(None)))
        .where(which)
        .with_for_update(read=True, of=Application)
    )  # fmt: skip


_BY_SLUG = _statement(Application.slug == bindparam("wanted"))
_BY_ID = _statement(Application.id == bindparam("wanted"))


@dataclass(frozen=True)
class _Row:
    row: Any
    login: LiveLogin


def _load(session: Session, statement: Any, wanted: object, *, now: datetime) -> _Row | None:
    """The tool and this browser's login in one statement, shared rows taken (lock orders 1, 2 and 4); None without either."""
    digest = ids.digest(browser.read_cookie(browser.LOGIN_COOKIE))
    row = session.execute(statement, {"wanted": wanted, "digest": digest, "now": now}).one_or_none()
    if row is None or row.login_id is None or row.company_code is None:
        return None
    login = LiveLogin(
        row.login_id, row.account_id, row.company_id, row.company_code, row.company_name, row.account_name, row.login_name,
        row.subject, row.locale, row.epoch, row.acr, tuple(row.amr), row.auth_time, row.last_seen_at, row.idle_s, row.ends_at,
    )  # fmt: skip
    return _Row(row, login)


def _decided(session: Session, row: _Row, *, now: datetime) -> tuple[Facts, Allowed] | Refused:
    facts = gate.load_facts(session, row.login.account_id, row.row.application_id, now=now)
    if facts is None:
        return Refused("no_assignment", not_found=True)
    allowed = gate.decide(application_facts(row.row), facts, acr=row.login.acr)
    if isinstance(allowed, gate.Refused):
        return Refused(
            allowed.reason, not_found=allowed.reason in {"application_ended", "other_company", "not_entitled"}
        )
    return facts, allowed


# --- tx1: the launch -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launched:
    """A gateway session that waits for its browser. live: the tool is logged in already."""

    opened: Opened
    live: bool


def launch(session: Session, slug: str, tickets: bytes, *, now: datetime) -> Launched | Refused:
    """Open a gateway session for this browser's login. tickets: the key of use-tickets."""
    settings = browser.services().settings
    row = _load(session, _BY_SLUG, slug, now=now)
    if row is None or not live.claim_login_session(session, row.login.id, now=now, idle_s=row.login.idle_s):
        return Refused("unknown", not_found=True)
    decided = _decided(session, row, now=now)
    if isinstance(decided, Refused):
        return _refused(session, row, decided, now=now)
    if not settings.gateway_at:
        return _refused(session, row, Refused("no_gateway"), now=now)
    fit = registry.account_for(session, row.row.application_id, decided[0])
    if fit is None:
        return _refused(session, row, Refused("no_account"), now=now)
    stands = standing(session, [fit.tool_account.id], recipes.ground(settings, now=now), now=now)[fit.tool_account.id]
    if stands.refusal is not None:
        return _refused(session, row, Refused(stands.refusal), now=now)
    app_session = live.open_app_session(session, row.login, row.row.application_id, now=now)
    person = Person(row.login.account_id, app_session.id, row.login.epoch)
    tool_session_id = tool_sessions.join_or_open(
        session, tickets, fit.tool_account, stands.recipe, person=person, now=now
    )
    wish = _wish(row, stands.recipe, fit, stands.recipe_id, person, tool_session_id)
    actor = browser.actor(row.login.account_id)
    opened = gateway_sessions.open_session(session, wish, domain=settings.gateway_at, actor=actor, now=now)
    return Launched(opened, gateway_sessions.is_live(session, tool_session_id))


def _wish(
    row: _Row,
    recipe: Recipe,
    fit: registry.FittingAccount,
    recipe_id: uuid.UUID,
    person: Person,
    tool_session_id: uuid.UUID,
) -> Wish:
    """The session ends with the login, or where an entitlement of the application ends before it: then it is decided anew."""
    ends_at = min(one for one in (row.login.ends_at, row.row.entitled_until) if one is not None)
    return Wish(
        app_session_id=person.app_session_id, company_id=row.login.company_id, application_id=row.row.application_id,
        account_id=person.account_id, assignment_id=fit.assignment_id, tool_account_id=fit.tool_account.id,
        tool_session_id=tool_session_id, recipe_id=recipe_id, epoch=person.epoch, slug=row.row.slug,
        tool_hosts=recipe.hosts.declared, idle_s=int(timedelta(minutes=recipe.session.idle_minutes).total_seconds()), ends_at=ends_at,
    )  # fmt: skip


def _refused(session: Session, row: _Row, refusal: Refused, *, now: datetime) -> Refused:
    record(
        session, Tag.TOOL_REFUSED, actor=browser.actor(row.login.account_id), now=now, result="refused",
        company_id=row.login.company_id, subject_id=row.login.account_id, application_id=row.row.application_id, reason=refusal.code,
    )  # fmt: skip
    return replace(refusal, name=row.row.application_name)


# --- tx2: the admission --------------------------------------------------------------------------------------------


def admit(session: Session, login: LiveLogin, host: str, *, challenge: bytes, now: datetime) -> str | Refused:
    """A ticket for one origin of a gateway session of exactly this login, decided anew."""
    waiting = admissions.find_waiting(session, host, login_session_id=login.id, account_id=login.account_id)
    row = _load(session, _BY_ID, waiting.application_id, now=now) if waiting is not None else None
    if waiting is None or row is None:
        return Refused("unknown", not_found=True)
    if not live.claim_app_session(session, waiting.app_session_id, now=now):
        return Refused("unknown", not_found=True)
    decided = _decided(session, row, now=now)
    if isinstance(decided, Refused):
        return _refused(session, row, decided, now=now)
    if not gateway_sessions.claim_gate(session, waiting.id, now=now):
        return Refused("unknown", not_found=True)
    return admissions.issue_ticket(session, waiting, challenge=challenge, now=now)
