"""What every way in shares: where it leads afterwards, how long it lives, what it ends, the answer that carries the cookie."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from flask import Blueprint, make_response, redirect, render_template, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WSGIResponse

from idp.core.db import reading
from idp.core.errors import Throttled
from idp.domain.directory import scope
from idp.domain.directory.roles import needs_second_factor
from idp.domain.sessions import live
from idp.domain.sessions.live import Opening
from idp.domain.tokens import ends
from idp.edges import browser
from idp.edges.browser import Answer
from idp.edges.web.brakes import DEVICE_LIFE, device_cookie, known_device
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record

bp = Blueprint("login", __name__)


def onward(request_handle: str, next_path: str) -> str:
    """The stored request that waits, or a relative path of ours (WB-05)."""
    if request_handle.startswith(live.SAML_HANDLE):
        return f"/saml/sso?request={plain(request_handle)}"
    if request_handle:
        return f"/oidc/authorize?request={plain(request_handle)}"
    return browser.safe_next(next_path or "/")


def plain(handle: str) -> str:
    """A handle of a stored request with nothing in it that could leave its place in an address."""
    return "".join(c for c in handle[:64] if c.isalnum() or c in "-_")


def allow_waiting_target(handle: str) -> None:
    """Let this page's form lead on to the relying party that waits (WB-02)."""
    if not handle:
        return
    with reading() as session:
        waiting = live.find_request(session, handle, protocol="oidc", now=browser.now())
    if waiting is not None:
        browser.allow_form_target(str(waiting.parameters.get("redirect_uri", "")))


def leave(session: Session, earlier: browser.Looking | None, *, now: datetime) -> None:
    """One browser, one login: what was open here ends with everything in it, or nobody could end it any more from this
    browser, at a shared terminal least of all (AC-40, OA-15)."""
    if earlier is not None:
        end_login(session, earlier, reason="switched", now=now)


def end_login(session: Session, looking: browser.Looking, *, reason: str, now: datetime) -> int:
    """End a login session, tell the applications opened in it, write the row. Returns how many are told."""
    mine, give_up_after = looking.login, browser.services().settings.give_up_after
    found = ends.log_out(session, mine.id, reason=reason, now=now) or []
    ends.tell(session, mine.account_id, found, give_up_after=give_up_after, now=now)
    record(
        session, Tag.LOGOUT_REQUESTED, actor=looking.viewer.actor, now=now, company_id=mine.company_id,
        subject_id=mine.account_id, login_session_id=mine.id, told=len(found), reason=reason,
    )  # fmt: skip
    return len(found)


def opening(session: Session, account_id: uuid.UUID, acr: str, amr: tuple[str, ...], *, now: datetime) -> Opening:
    """How long this login may live: admins shorter than staff (AC-41)."""
    settings = browser.services().settings
    admin = needs_second_factor(s.role for s in scope.standings(session, account_id, now=now))
    return Opening(
        acr, amr, settings.admin_idle_s if admin else settings.login_idle_s, settings.admin_life_s if admin else settings.login_life_s,
        request.headers.get("User-Agent", ""), browser.address(),
    )  # fmt: skip


def entered(cookie: str, account_id: uuid.UUID, target: str) -> WSGIResponse:
    """Answer a finished login: 303, never 307, so that the password is not sent on (OA-09)."""
    answer = redirect(target, 303)
    browser.set_cookie(answer, browser.LOGIN_COOKIE, cookie)
    browser.delete_cookie(answer, browser.PENDING_COOKIE)
    if known_device(account_id) is None:
        browser.set_cookie(answer, browser.DEVICE_COOKIE, device_cookie(account_id), life=DEVICE_LIFE)
    return answer


def too_many(error: Throttled) -> Answer:
    """The same page for a real and an invented login id, with the clock time when it ends (ux.md 11, row 2)."""
    until = browser.now() + timedelta(seconds=error.retry_after_s)
    page = render_template("web/too_many.html", until=until, minutes=max(1, round(error.retry_after_s / 60)))
    answer = make_response(page, 429)
    answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer
