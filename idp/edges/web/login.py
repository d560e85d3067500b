"""Logging in: password, second factor, recovery code, step-up, activation, logging out (L04 to L13).

A login is three steps (house.md 4): one read, the password hash with no transaction open, one short transaction that claims
the account at the epoch it read. Everything that fails looks alike (AC-06): same page, same words, same work.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Blueprint, g, make_response, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WSGIResponse

from idp.core import ids
from idp.core.db import reading, transaction
from idp.core.errors import Busy, Invalid, Throttled
from idp.domain.authn import activation, passwords, second_factor, throttle
from idp.domain.authn import login as authn
from idp.domain.authn.login import AAL1, AAL2, Candidate
from idp.domain.authn.models import PendingLogin
from idp.domain.directory import scope
from idp.domain.directory.models import Company
from idp.domain.directory.people import claim_account, company_of, share_company
from idp.domain.directory.roles import needs_second_factor
from idp.domain.sessions import live
from idp.domain.sessions.live import Opening
from idp.domain.tokens import ends
from idp.edges import browser, language
from idp.edges.browser import Answer
from idp.edges.web import seeds
from idp.edges.web.forms import ActivationForm, CodeForm, LoginForm, NewPasswordForm, StepUpForm
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal, record

bp = Blueprint("login", __name__)

FAILED = "ログインできませんでした。IDか入力した内容が違います。もう一度入れてください。"
DEVICE_LIFE = timedelta(days=180)
#: consecutive failures of one account over all unknown devices, before those have to wait too (AC-05)
ACCOUNT_TRIES = 100
#: failures from one address: a ceiling for a whole shop behind one NAT
ADDRESS_TRIES = 300


# --- where to go afterwards ----------------------------------------------------------------------------------------


def onward(request_handle: str, next_path: str) -> str:
    """The stored request that waits, or a relative path of ours (WB-05)."""
    if request_handle:
        return f"/oidc/authorize?request={_plain(request_handle)}"
    return browser.safe_next(next_path or "/")


def _plain(handle: str) -> str:
    return "".join(c for c in handle[:64] if c.isalnum() or c in "-_")


def _allow_waiting_target(handle: str) -> None:
    """Let this page's form lead on to the relying party that waits (WB-02)."""
    if not handle:
        return
    with reading() as session:
        waiting = live.find_request(session, handle, protocol="oidc", now=browser.now())
    if waiting is not None:
        browser.allow_form_target(str(waiting.parameters.get("redirect_uri", "")))


# --- devices and brakes --------------------------------------------------------------------------------------------


def device_cookie(account_id: uuid.UUID) -> str:
    """Proof that somebody logged in to this account from this browser before. Signed, so that it cannot be invented to get
    a fresh counter."""
    token = ids.new_secret()
    return f"{token}.{_device_mac(account_id, token)}"


def _device_mac(account_id: uuid.UUID, token: str) -> str:
    key = browser.services().signer.secret("web")
    mac = hmac.new(key, b"device\0" + account_id.bytes + token.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _known_device(account_id: uuid.UUID | None) -> str | None:
    """The device's token when it is known for this account."""
    token, _, mac = browser.read_cookie(browser.DEVICE_COOKIE).partition(".")
    if account_id is None or not mac or not ids.same(mac, _device_mac(account_id, token)):
        return None
    return token


@dataclass(frozen=True)
class Brakes:
    """The counters that one try is held against."""

    own: str
    shared: tuple[str, ...]

    @classmethod
    def of(cls, company: str, number: str, account_id: uuid.UUID | None) -> Brakes:
        """A known device counts alone; everybody else shares (login id, address), and the login id over all addresses."""
        device, where = _known_device(account_id), browser.address()
        if device is not None:
            return cls(throttle.key("device", company, number, device), ())
        return cls(
            throttle.key("login", company, number, where),
            (throttle.key("account", company, number), throttle.key("address", where)),
        )

    def check(self, session: Session, *, now: datetime) -> None:
        """Raises Throttled while one of them is paused."""
        throttle.check(session, [self.own, *self.shared], now=now)

    def fail(self, session: Session, *, now: datetime) -> None:
        """Count one failure on all of them."""
        throttle.count_failure(session, self.own, now=now)
        for counter, tries in zip(self.shared, (ACCOUNT_TRIES, ADDRESS_TRIES), strict=False):
            throttle.count_failure(session, counter, now=now, tries=tries)

    def forget(self, session: Session) -> None:
        """A success starts the counters of this person and place over; the address keeps its own."""
        for counter in (self.own, *self.shared[:1]):
            throttle.forget(session, counter)


# --- password ------------------------------------------------------------------------------------------------------


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
            return _too_many(error)
    _allow_waiting_target(form.request.data or "")
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
        f"?request={_plain(form.request.data)}"
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
            session, account_id=account_id, company_id=company_id, epoch=epoch, how=opening(session, account_id, acr, amr, now=now),
            actor=browser.actor(account_id), now=now,
        )  # fmt: skip
        if cookie is not None:
            _leave(session, earlier, now=now)
            if brakes is not None:
                brakes.forget(session)
    if cookie is None:
        raise _Wrong
    return entered(cookie, account_id, onward(handle, next_path))


def _leave(session: Session, earlier: browser.Looking | None, *, now: datetime) -> None:
    """One browser, one login: what was open here ends with everything in it, or nobody could end it any more from this
    browser, at a shared terminal least of all (AC-40, OA-15)."""
    if earlier is not None:
        _end_login(session, earlier, reason="switched", now=now)


def _end_login(session: Session, looking: browser.Looking, *, reason: str, now: datetime) -> int:
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
    if _known_device(account_id) is None:
        browser.set_cookie(answer, browser.DEVICE_COOKIE, device_cookie(account_id), life=DEVICE_LIFE)
    return answer


def _too_many(error: Throttled) -> Answer:
    """The same page for a real and an invented login id, with the clock time when it ends (ux.md 11, row 2)."""
    until = browser.now() + timedelta(seconds=error.retry_after_s)
    page = render_template("web/too_many.html", until=until, minutes=max(1, round(error.retry_after_s / 60)))
    answer = make_response(page, 429)
    answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


# --- second factor -------------------------------------------------------------------------------------------------


@bp.route("/login/totp", methods=["GET", "POST"], endpoint="second_factor")
def totp() -> Answer:
    """L06: the six digits."""
    return _second_factor(recovery=False)


@bp.route("/login/recovery", methods=["GET", "POST"], endpoint="recovery")
def recovery() -> Answer:
    """L07: one of the printed codes instead."""
    return _second_factor(recovery=True)


def _second_factor(*, recovery: bool) -> Answer:
    form, now = CodeForm(), browser.now()
    handle = browser.read_cookie(browser.PENDING_COOKIE)
    with reading() as session:
        pending = second_factor.find_pending(session, handle, now=now) if handle else None
        seed = second_factor.seed_of(session, pending.account_id) if pending else None
        candidate = authn.find_by_id(session, pending.account_id) if pending else None
    if pending is None or seed is None or candidate is None:
        return redirect("/login", 303)
    brakes = Brakes.of(candidate.company_code, candidate.login_name, candidate.account_id)
    if not form.is_submitted():
        form.request.data, form.next.data = request.args.get("request", ""), request.args.get("next", "")
    if form.validate_on_submit():
        try:
            with reading() as session:
                brakes.check(session, now=now)
        except Throttled as error:
            return _too_many(error)
        with transaction() as session:
            counted = second_factor.count_try(session, pending.id)
        step = (
            None
            if recovery or not counted
            else second_factor.matching_step(seeds.open_seed(seed), form.code.data, now=now)
        )
        if counted and (recovery or step is not None):
            answer = _finish(pending, seed, step, form, brakes)
            if answer is not None:
                return answer
        with transaction() as session:
            brakes.fail(session, now=now)  # else everybody who knows the password has five tries as often as they like
            record(
                session,
                Tag.SECOND_FACTOR_REFUSED,
                actor=browser.actor(),
                now=now,
                result="refused",
                company_id=company_of(session, pending.account_id),
                subject_id=pending.account_id,
            )
        form.refuse(Invalid("コードが違うか、もう使われています。新しいコードを入れてください。", field="code"))
    _allow_waiting_target(form.request.data or "")
    page = "web/recovery.html" if recovery else "web/totp.html"
    return render_template(page, form=form), 401 if form.is_submitted() else 200


def _finish(
    pending: PendingLogin, seed: second_factor.SealedSeed, step: int | None, form: CodeForm, brakes: Brakes
) -> Answer | None:
    """Company, account at its epoch, code claimed, unfinished login used up, login session: in the lock order."""
    now, account_id, earlier = browser.now(), pending.account_id, browser.look()
    with transaction() as session:
        found = authn.find_by_id(session, account_id)
        if found is None or not share_company(session, found.company_id):
            return None
        if not claim_account(session, account_id, epoch=pending.epoch, now=now):
            return None
        if step is not None:
            fits = second_factor.claim_step(session, seed.authenticator_id, step, now=now)
        else:
            fits = second_factor.claim_recovery_code(session, account_id, form.code.data, now=now)
        if not fits or not second_factor.finish_pending(session, pending.id, now=now):
            return None
        if step is None:
            record(
                session, Tag.RECOVERY_CODE_USED, actor=browser.actor(account_id), now=now, company_id=found.company_id,
                subject_id=account_id,
            )  # fmt: skip
        cookie = live.open_login(
            session, account_id=account_id, company_id=found.company_id, epoch=pending.epoch,
            how=opening(session, account_id, AAL2, ("pwd", "otp", "mfa"), now=now), actor=browser.actor(account_id), now=now,
        )  # fmt: skip
        if cookie is not None:
            _leave(session, earlier, now=now)
            brakes.forget(session)
    return entered(cookie, account_id, onward(form.request.data, form.next.data)) if cookie else None


# --- step-up -------------------------------------------------------------------------------------------------------


@bp.route("/login/step-up", methods=["GET", "POST"], endpoint="step_up")
def step_up() -> Answer:
    """L09: prove it again, with everything this account has; the same login session gets a new cookie (AC-40)."""
    form, now, looking = StepUpForm(), browser.now(), browser.look()
    handle = (form.request.data if form.is_submitted() else request.args.get("request", "")) or ""
    if looking is None:
        return redirect(f"/login?request={_plain(handle)}" if handle else "/login", 303)
    with reading() as session:
        candidate = authn.find_by_id(session, looking.login.account_id)
        seed = second_factor.seed_of(session, looking.login.account_id)
        brakes = Brakes.of(looking.login.company_code, looking.login.login_name, looking.login.account_id)
    if candidate is None:
        return redirect("/login", 303)
    if seed is None and handle:
        # an application wants two factors and this person has enrolled one: that is the next step
        return redirect(f"/me/security/totp/new?request={_plain(handle)}", 303)
    if not form.is_submitted():
        form.request.data, form.next.data = handle, request.args.get("next", "")
    if form.validate_on_submit():
        try:
            with reading() as session:
                brakes.check(session, now=now)
        except Throttled as error:
            return _too_many(error)
        cookie = _prove_again(form, looking, candidate, seed, brakes)
        if cookie is not None:
            return entered(cookie, candidate.account_id, onward(form.request.data, form.next.data))
        with transaction() as session:
            brakes.fail(session, now=now)
            record(
                session,
                Tag.SECOND_FACTOR_REFUSED,
                actor=looking.viewer.actor,
                now=now,
                result="refused",
                company_id=looking.login.company_id,
                subject_id=candidate.account_id,
            )
        form.form_errors = [language.text("確認できませんでした。もう一度入れてください。")]
    _allow_waiting_target(form.request.data or "")
    return render_template(
        "web/step_up.html", form=form, has_code=seed is not None
    ), 401 if form.is_submitted() else 200


def _prove_again(
    form: StepUpForm,
    looking: browser.Looking,
    candidate: Candidate,
    seed: second_factor.SealedSeed | None,
    brakes: Brakes,
) -> str | None:
    """Where a second factor exists its code is the proof; the password alone is one only where it is the only factor."""
    now = browser.now()
    if seed is None:
        if not browser.services().hasher.check(form.password.data or "", candidate.verifier):
            return None
        step = None
    else:
        step = second_factor.matching_step(seeds.open_seed(seed), form.code.data or "", now=now)
        if step is None:
            return None
    with transaction() as session:
        if not share_company(session, candidate.company_id) or not claim_account(
            session, candidate.account_id, epoch=candidate.epoch, now=now
        ):
            return None
        if (
            seed is not None
            and step is not None
            and not second_factor.claim_step(session, seed.authenticator_id, step, now=now)
        ):
            return None
        acr, amr = (AAL2, ("pwd", "otp", "mfa")) if seed is not None else (looking.login.acr, looking.login.amr)
        brakes.forget(session)
        return live.raise_assurance(session, looking.login, acr=acr, amr=amr, actor=looking.viewer.actor, now=now)


# --- activation ----------------------------------------------------------------------------------------------------


@bp.route("/e", methods=["GET", "POST"], endpoint="activate")
def activate() -> Answer:
    """L08: type the code that somebody handed over. The code is typed or comes in the page's fragment: never in a URL that
    a server or a proxy writes down."""
    form, now = ActivationForm(), browser.now()
    brake = throttle.key("activation", browser.address())
    if form.validate_on_submit():
        try:
            with reading() as session:
                throttle.check(session, [brake], now=now)
                waiting = activation.find(session, form.code.data, now=now)
        except Throttled as error:
            return _too_many(error)
        if waiting is not None:
            chosen = NewPasswordForm(formdata=None, code=form.code.data)
            return render_template(
                "web/choose_password.html", form=chosen, waiting=waiting, shortest=_shortest(waiting.roles)
            )
        _count_bad_code(brake, now=now)
        form.refuse(
            Invalid(
                "このコードは使えません。期限が切れたか、もう使われています。店長か本部に新しいコードをもらってください。",
                field="code",
            )
        )
    return render_template("web/activate.html", form=form), 400 if form.is_submitted() else 200


def _count_bad_code(brake: str, *, now: datetime) -> None:
    with transaction() as session:
        throttle.count_failure(session, brake, now=now, tries=20)
        count_refusal(session, Tag.ACTIVATION_REFUSED, browser.address(), now=now)


def _shortest(roles: frozenset[str]) -> int:
    return passwords.MIN_WITH_SECOND_FACTOR if needs_second_factor(roles) else passwords.MIN_ALONE


@bp.post("/e/password", endpoint="choose_password")
def choose_password() -> Answer:
    """The owner chooses the password: hash with no transaction open, then spend the code (AC-07)."""
    form, now, services = NewPasswordForm(), browser.now(), browser.services()
    with reading() as session:
        waiting = activation.find(session, form.code.data or "", now=now)
    if waiting is None:
        return redirect("/e", 303)
    if form.validate_on_submit():
        try:
            context = (
                waiting.name,
                waiting.login_name,
                waiting.company_code,
                waiting.company_name,
                *waiting.store_names,
            )
            passwords.check_new(form.password.data, second_factor=needs_second_factor(waiting.roles), context=context)
            verifier = services.hasher.make(form.password.data)
            with transaction() as session:
                used = activation.use(
                    session, waiting, verifier=verifier, actor=browser.actor(waiting.account_id), now=now
                )
                if used:
                    told = ends.end_other_logins(
                        session, waiting.account_id, keep=None, reason="password_reset", now=now
                    )
                    ends.tell(session, waiting.account_id, told, give_up_after=services.settings.give_up_after, now=now)
            return render_template("web/activated.html", waiting=waiting) if used else redirect("/e", 303)
        except Invalid as error:
            form.refuse(error)
    return render_template(
        "web/choose_password.html", form=form, waiting=waiting, shortest=_shortest(waiting.roles)
    ), 400


# --- out -----------------------------------------------------------------------------------------------------------


@bp.post("/logout", endpoint="logout")
def logout() -> Answer:
    """The button on every page: end this login session and tell the applications opened in it (L12)."""
    looking, now = browser.look(), browser.now()
    told = 0
    if looking is not None:
        with transaction() as session:
            told = _end_login(session, looking, reason="logout", now=now)
    g.looking = None
    answer = make_response(render_template("web/logged_out.html", told=told))
    browser.delete_cookie(answer, browser.LOGIN_COOKIE)
    answer.headers["Clear-Site-Data"] = (
        '"cache"'  # "cookies" would forget the device, "storage" a terminal's key (LO-12)
    )
    return answer


@bp.get("/help/login", endpoint="help_page")
def help_page() -> Answer:
    """L13: what to do when it does not work; needs no login."""
    return render_template("web/help.html")
