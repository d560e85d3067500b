"""A person's own security: login sessions, password, authenticator app, recovery codes (M04, M06, M07, M09)."""

from __future__ import annotations

import uuid

import pyotp
import segno
from flask import Blueprint, make_response, redirect, render_template, request
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import reading, retrying, transaction
from idp.core.errors import Invalid, NotFound, Stale, Throttled
from idp.domain.authn import activation, passwords, second_factor
from idp.domain.authn import login as authn
from idp.domain.authn.login import AAL2
from idp.domain.directory.people import raise_epoch, share_company
from idp.domain.directory.roles import needs_second_factor
from idp.domain.sessions import live
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens import ends
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web import entering, seeds
from idp.edges.web.brakes import Brakes
from idp.edges.web.forms import ChangePasswordForm, EmptyForm, IdForm, TotpForm
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope

bp = Blueprint("security", __name__)


@bp.get("/me/sessions")
@require()
def sessions(looking: Looking) -> Answer:
    """M09: where am I logged in?"""
    with reading() as session:
        devices = live.devices(session, looking.login.account_id, now=browser.now())
    return render_template("web/my_sessions.html", devices=devices, this=looking.login.id, form=IdForm())


@bp.post("/me/sessions/end")
@require()
def end_session(looking: Looking) -> Answer:
    """End one of my other login sessions, everywhere: a revocation with a receipt (AC-43)."""
    if not browser.fresh(looking):
        return redirect("/login/step-up?next=/me/sessions", 303)
    wanted = _uuid(IdForm().id.data)
    order = Order(Reason.LOST_DEVICE, Door.CONSOLE, f"session:{wanted}", browser.services().settings.give_up_after)

    def cut() -> str:
        with transaction(reserved=True) as session:
            mine = session.scalar(
                select(LoginSession.id).where(
                    LoginSession.id == wanted, LoginSession.account_id == looking.login.account_id
                )
            )
            if mine is None:
                raise NotFound(
                    "ページが見つかりません。URLが変わったか、見る権限がありません。", f"login session {wanted}"
                )
            target = Target(Scope.LOGIN_SESSION, mine)
            return cascade.revoke(session, target, order, actor=looking.viewer.actor, now=browser.now()).number

    return redirect(f"/receipts/{retrying(cut)}", 303)


@bp.post("/me/sessions/end-others")
@require()
def end_others(looking: Looking) -> Answer:
    """End every login session of mine but this one."""
    if not browser.fresh(looking):
        return redirect("/login/step-up?next=/me/sessions", 303)
    now, account_id = browser.now(), looking.login.account_id
    with transaction() as session:
        told = ends.end_other_logins(session, account_id, keep=looking.login.id, reason="ended_by_owner", now=now)
        ends.tell(session, account_id, told, give_up_after=browser.services().settings.give_up_after, now=now)
        record(
            session,
            Tag.LOGIN_SESSION_ENDED,
            actor=looking.viewer.actor,
            now=now,
            company_id=looking.login.company_id,
            subject_id=account_id,
            all_but=looking.login.id,
        )
    return redirect("/me/sessions", 303)


def _uuid(text: str | None) -> uuid.UUID:
    try:
        return uuid.UUID(text or "")
    except ValueError:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", "not an id") from None


@bp.get("/me/security")
@require()
def overview(looking: Looking) -> Answer:
    """M04: what protects my login."""
    with reading() as session:
        seed = second_factor.seed_of(session, looking.login.account_id)
    mandatory = needs_second_factor(s.role for s in looking.viewer.standings)
    return render_template("web/security.html", has_totp=seed is not None, mandatory=mandatory, form=EmptyForm())


@bp.route("/me/password", methods=["GET", "POST"])
@require()
def password(looking: Looking) -> Answer:
    """Change the password; every other login session ends (AC-43, OA-16)."""
    form = ChangePasswordForm()
    if form.validate_on_submit():
        try:
            _change_password(looking, form)
            return render_template("web/password_changed.html")
        except (Invalid, Throttled) as error:
            form.refuse(error)
    mandatory = needs_second_factor(s.role for s in looking.viewer.standings)
    shortest = passwords.MIN_WITH_SECOND_FACTOR if mandatory else passwords.MIN_ALONE
    return render_template(
        "web/change_password.html", form=form, shortest=shortest
    ), 400 if form.is_submitted() else 200


def _change_password(looking: Looking, form: ChangePasswordForm) -> None:
    """Read, hash twice with no transaction open, claim the account at the epoch that was read. Raises Invalid, Throttled."""
    now, services, login_row = browser.now(), browser.services(), looking.login
    with reading() as session:
        candidate = authn.find_by_id(session, login_row.account_id)
        brakes = Brakes.of(login_row.company_code, login_row.login_name, login_row.account_id)
        brakes.check(session, now=now)
    if candidate is None or not services.hasher.check(form.current.data, candidate.verifier):
        with transaction() as session:
            brakes.fail(session, now=now)
        raise Invalid("いまのパスワードが違います。", field="current")
    stores = tuple(s.store_name for s in looking.viewer.standings if s.store_name)
    passwords.check_new(
        form.password.data, second_factor=needs_second_factor(s.role for s in looking.viewer.standings),
        context=(login_row.account_name, login_row.login_name, login_row.company_code, login_row.company_name, *stores),
    )  # fmt: skip
    verifier = services.hasher.make(form.password.data)
    with transaction() as session:
        alive = share_company(session, candidate.company_id)
        if not alive or not raise_epoch(session, candidate.account_id, epoch=candidate.epoch, now=now):
            raise Invalid("ほかの場所で変わりました。もう一度やり直してください。")
        _still_in(session, looking)
        activation.set_password(session, candidate.account_id, verifier=verifier, now=now)
        activation.end_all(session, candidate.account_id, now=now)
        told = ends.end_other_logins(
            session, candidate.account_id, keep=login_row.id, reason="password_changed", now=now
        )
        ends.tell(session, candidate.account_id, told, give_up_after=services.settings.give_up_after, now=now)
        record(
            session, Tag.PASSWORD_CHANGED, actor=looking.viewer.actor, now=now, company_id=candidate.company_id,
            subject_id=candidate.account_id,
        )  # fmt: skip


def _still_in(session: Session, looking: Looking) -> None:
    """The gate of what is done inside a login: nothing done in one that has ended meanwhile is kept (RE-20). Raises Stale."""
    if not live.claim_login_session(session, looking.login.id, now=browser.now()):
        raise Stale("画面の期限が切れました。もう一度送ってください。", "login session ended meanwhile")


@bp.route("/me/security/totp/new", methods=["GET", "POST"])
def new_totp() -> Answer:
    """M06: enrol an authenticator app. The one page besides logout that a role with mandatory second factor sees without it."""
    looking = browser.look()
    if looking is None:
        return browser.to_login()
    if not browser.fresh(looking):
        return browser.to_step_up()
    form, now = TotpForm(), browser.now()
    account_id, company_id = looking.login.account_id, looking.login.company_id
    handle = request.args.get("request", "")
    if form.is_submitted():
        found = seeds.from_form(form.sealed.data or "", form.authenticator_id.data or "", account_id, company_id)
        if found is None:
            return redirect("/me/security/totp/new", 303)
        sealed, seed = found
        step = second_factor.matching_step(seed, form.code.data or "", now=now) if form.validate() else None
        if step is not None and (answer := _store_totp(looking, sealed, step, handle)):
            return answer
        if not form.errors:
            form.refuse(
                Invalid("数字が違います。時計が合っているか確かめて、新しい数字を入れてください。", field="code")
            )
    else:
        seed = seeds.new_seed()
        sealed = seeds.seal_seed(browser.services().vault, seed, ids.new_id(now), account_id, company_id)
        form.sealed.data, form.authenticator_id.data = seeds.to_form(sealed), str(sealed.authenticator_id)
    login_id = f"{looking.login.company_code}/{looking.login.login_name}"
    uri = pyotp.TOTP(seed).provisioning_uri(name=login_id, issuer_name="Sekisho")
    # segno writes plain path data; no text of anybody's is in it
    picture = Markup(segno.make(uri, error="m").svg_inline(scale=5, border=2, dark="#000", light="#fff"))  # noqa: S704
    page = render_template("web/totp_new.html", form=form, picture=picture, seed=" ".join(seed[i : i + 4] for i in range(0, 32, 4)),
                           mandatory=browser.lacks_second_factor(looking))  # fmt: skip
    return page, 400 if form.is_submitted() else 200


def _store_totp(looking: Looking, sealed: second_factor.SealedSeed, step: int, handle: str) -> Answer | None:
    """Store the proven seed, strengthen this login session, end the others, show the recovery codes once."""
    now, account_id = browser.now(), looking.login.account_id
    with transaction() as session:
        if not share_company(session, looking.login.company_id):
            return None
        codes = second_factor.add_totp(
            session, account_id, authenticator_id=sealed.authenticator_id, sealed=sealed.sealed, step=step, epoch=looking.login.epoch,
            actor=looking.viewer.actor, now=now,
        )  # fmt: skip
        if codes is None:
            return None
        cookie = live.raise_assurance(
            session, looking.login, acr=AAL2, amr=("pwd", "otp", "mfa"), actor=looking.viewer.actor, now=now
        )
        if cookie is None:  # the gate: nothing that was done inside an ended login session is kept
            raise Stale("画面の期限が切れました。もう一度送ってください。", "login session ended during enrolment")
        told = ends.end_other_logins(
            session, account_id, keep=looking.login.id, reason="authenticator_changed", now=now
        )
        ends.tell(session, account_id, told, give_up_after=browser.services().settings.give_up_after, now=now)
    answer = make_response(render_template("web/recovery_codes.html", codes=codes, onward=entering.onward(handle, "/")))
    browser.set_cookie(answer, browser.LOGIN_COOKIE, cookie)
    return answer


@bp.post("/me/security/recovery")
@require()
def new_recovery_codes(looking: Looking) -> Answer:
    """M07: ten new codes; the old ones die."""
    if not browser.fresh(looking):
        return redirect("/login/step-up?next=/me/security", 303)
    with transaction() as session:
        codes = second_factor.remake_recovery_codes(
            session, looking.login.account_id, actor=looking.viewer.actor, now=browser.now()
        )
        if codes is not None:
            _still_in(session, looking)
    if codes is None:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", "account ended")
    return render_template("web/recovery_codes.html", codes=codes, onward="/me/security")
