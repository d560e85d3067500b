"""Logging in with a password, and logging out (L04, L05, L12, L13).

A login is three steps (house.md 4): one read, the password hash with no transaction open, one short transaction that claims
the account at the epoch it read. Everything that fails looks alike (AC-06): same page, same words, same work.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from flask import g, make_response, redirect, render_template, request
from sqlalchemy import select

from idp.core.db import reading, transaction
from idp.core.errors import Busy, Throttled
from idp.domain.authn import activation, second_factor, throttle
from idp.domain.authn import login as authn
from idp.domain.authn.login import AAL1, Candidate
from idp.domain.directory.models import Company
from idp.domain.directory.people import claim_account, share_company
from idp.domain.sessions import chain, live
from idp.edges import browser, language
from idp.edges.browser import Answer
from idp.edges.web import entering
from idp.edges.web.brakes import Brakes
from idp.edges.web.entering import bp
from idp.edges.web.forms import LoginForm
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal

FAILED = "ログインできませんでした。IDか入力した内容が違います。もう一度入れてください。"


@bp.route("/login", methods=["GET", "POST"])
@bp.route("/c/<company>", methods=["GET", "POST"], endpoint="company_login")
def login(company: str | None = None) -> Answer:
    """The login page, for every company or one (D19)."""
    form = LoginForm()
    if not form.is_submitted():
        form.request.data = request.args.get("request", "")
        form.next.data = request.args.get("next", "")
    if form.validate_on_submit():
        try:
            return _check_password(form, company)
        except _Wrong:
            form.form_errors = [language.text(FAILED)]
        except Busy:
            raise
        except Throttled as error:
            return entering.too_many(error)
    entering.allow_waiting_target(form.request.data or "")
    status = 200 if not form.is_submitted() else 401 if form.form_errors else 400
    return render_template("web/login.html", form=form, company=company), status


class _Wrong(Exception):
    """The one failure of a login. Never says which part was wrong."""


def _check_password(form: LoginForm, company: str | None) -> Answer:
    now, hasher = browser.now(), browser.services().hasher
    code, number = authn.split_login_id(form.login_id.data, company)
    with reading() as session:
        candidate = authn.find(session, code, number)
        brakes = Brakes.of(code, number, candidate.account_id if candidate else None)
        brakes.check(session, now=now)
    good = hasher.check(form.password.data, candidate.verifier if candidate else None)
    if not good or candidate is None:
        _count_refused(brakes, code, number, now=now)
        raise _Wrong
    if candidate.password_id is not None and candidate.verifier and hasher.is_outdated(candidate.verifier):
        fresh = hasher.make(form.password.data)
        with transaction() as session:
            activation.refresh_verifier(session, candidate.password_id, verifier=fresh)
    try:
        if candidate.has_second_factor:
            return _ask_second_factor(form, candidate, now=now)
        return _enter(
            candidate.account_id,
            candidate.company_id,
            candidate.epoch,
            AAL1,
            ("pwd",),
            brakes,
            form.request.data,
            form.next.data,
        )
    except _Wrong:
        _count_refused(brakes, code, number, now=now)  # whoever may not enter looks like a wrong password (AC-06)
        raise


def _count_refused(brakes: Brakes, company: str, number: str, *, now: datetime) -> None:
    with transaction() as session:
        brakes.fail(session, now=now)
        # the company of the code that was typed, found inside the INSERT: known and unknown codes cost the same (AC-06)
        count_refusal(
            session, Tag.LOGIN_REFUSED, f"{browser.address()}:{throttle.key('', company, number)[1:17]}", now=now,
            company=select(Company.id).where(Company.code == company),
        )  # fmt: skip


def _ask_second_factor(form: LoginForm, candidate: Candidate, *, now: datetime) -> Answer:
    """Remember that the password was right. Raises _Wrong for somebody who may not enter: no second page tells (AC-06)."""
    with transaction() as session:
        alive = share_company(session, candidate.company_id) and claim_account(
            session, candidate.account_id, epoch=candidate.epoch, now=now
        )
        if not alive:
            raise _Wrong
        handle = second_factor.open_pending(session, candidate.account_id, epoch=candidate.epoch, now=now)
    query = (
        f"?request={entering.plain(form.request.data)}"
        if form.request.data
        else f"?next={browser.quoted(browser.safe_next(form.next.data or '/'))}"
    )
    answer = redirect(f"/login/totp{query}", 303)
    browser.set_cookie(answer, browser.PENDING_COOKIE, handle, life=second_factor.PENDING_LIFE)
    return answer


def _enter(
    account_id: uuid.UUID,
    company_id: uuid.UUID,
    epoch: int,
    acr: str,
    amr: tuple[str, ...],
    brakes: Brakes | None,
    handle: str,
    next_path: str,
) -> Answer:
    """The last step: claim the account, insert the login session, set the cookies. Raises _Wrong when the account changed."""
    now, earlier = browser.now(), browser.look()
    with transaction() as session:
        cookie = live.open_login(
            session, account_id=account_id, company_id=company_id, epoch=epoch, how=entering.opening(session, account_id, acr, amr, now=now),
            actor=browser.actor(account_id), now=now,
        )  # fmt: skip
        if cookie is not None:
            entering.leave(session, earlier, now=now)
            if brakes is not None:
                brakes.forget(session)
    if cookie is None:
        raise _Wrong
    return entering.entered(cookie, account_id, entering.onward(handle, next_path))


@bp.post("/logout", endpoint="logout")
def logout() -> Answer:
    """The button on every page: end this login session and tell the applications opened in it (L12)."""
    looking, now = browser.look(), browser.now()
    told, onward = 0, None
    if looking is not None:
        with transaction() as session:
            told = entering.end_login(session, looking, reason="logout", now=now)
            onward = chain.open_chain(session, [looking.login.id], now=now)
    g.looking = None
    # service providers that only the browser can reach are asked on a page of the SAML edge (SA-23)
    shown = (
        redirect(f"/saml/slo/chain?request={onward}", 303)
        if onward
        else render_template("web/logged_out.html", told=told)
    )
    answer = make_response(shown)
    browser.delete_cookie(answer, browser.LOGIN_COOKIE)
    answer.headers["Clear-Site-Data"] = (
        '"cache"'  # "cookies" would forget the device, "storage" a terminal's key (LO-12)
    )
    return answer


@bp.get("/help/login", endpoint="help_page")
def help_page() -> Answer:
    """L13: what to do when it does not work; needs no login."""
    return render_template("web/help.html")
