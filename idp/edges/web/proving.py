"""The proof beside the password: six digits, a recovery code, and proving it again before a sensitive act (L06, L07, L09)."""

from __future__ import annotations

from dataclasses import dataclass

from flask import after_this_request, redirect, render_template, request
from werkzeug.wrappers import Response as WSGIResponse

from idp.core.db import reading, transaction
from idp.core.errors import Invalid, Throttled
from idp.domain.authn import login as authn
from idp.domain.authn import second_factor
from idp.domain.authn.login import AAL2, Candidate
from idp.domain.authn.models import PendingLogin
from idp.domain.directory.people import claim_account, company_of, share_company
from idp.domain.sessions import live
from idp.edges import browser, language
from idp.edges.browser import Answer, Looking
from idp.edges.web import entering, seeds
from idp.edges.web.brakes import Brakes
from idp.edges.web.entering import bp
from idp.edges.web.forms import CodeForm, StepUpForm
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record


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
        if (held := _held_back(brakes)) is not None:
            return held
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
    entering.allow_waiting_target(form.request.data or "")
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
            how=entering.opening(session, account_id, AAL2, ("pwd", "otp", "mfa"), now=now), actor=browser.actor(account_id), now=now,
        )  # fmt: skip
        if cookie is not None:
            entering.leave(session, earlier, now=now)
            brakes.forget(session)
    return entering.entered(cookie, account_id, entering.onward(form.request.data, form.next.data)) if cookie else None


def _held_back(brakes: Brakes) -> Answer | None:
    """The page that asks for patience, while one of the counters is paused."""
    try:
        with reading() as session:
            brakes.check(session, now=browser.now())
    except Throttled as error:
        return entering.too_many(error)
    return None


# --- step-up -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """Somebody who is logged in, and what they can prove it with once more."""

    candidate: Candidate
    seed: second_factor.SealedSeed | None
    brakes: Brakes


@bp.route("/login/step-up", methods=["GET", "POST"], endpoint="step_up")
def step_up() -> Answer:
    """L09: prove it again, with everything this account has; the same login session gets a new cookie (AC-40)."""
    form, looking = StepUpForm(), browser.look()
    handle = (form.request.data if form.is_submitted() else request.args.get("request", "")) or ""
    if looking is None:
        return redirect(f"/login?request={entering.plain(handle)}" if handle else "/login", 303)
    known = _known(looking)
    if known is None:
        return redirect("/login", 303)
    if known.seed is None and handle:
        # an application wants two factors and this person has enrolled one: that is the next step
        return redirect(f"/me/security/totp/new?request={entering.plain(handle)}", 303)
    if not form.is_submitted():
        form.request.data, form.next.data = handle, request.args.get("next", "")
    if form.validate_on_submit():
        if (held := _held_back(known.brakes)) is not None:
            return held
        cookie = _prove_again(form, looking, known)
        if cookie is not None:
            onward = entering.onward(form.request.data, form.next.data)
            return entering.entered(cookie, known.candidate.account_id, onward)
    entering.allow_waiting_target(form.request.data or "")
    return _ask(form, known), 401 if form.is_submitted() else 200


def afresh(looking: Looking, *keep: str, back: str) -> Answer | None:
    """The fresh proof that a sensitive act needs (AC-26), for a form in which somebody has written something.

    None: go on. Else the page to answer with: it asks for the proof in a form that leads to where the person was sending, and
    carries what they wrote, so that nothing is written twice, kept by us or put into an address. keep: the fields to carry;
    never a secret. back: the page of ours for somebody who would rather not.
    """
    if browser.fresh(looking):
        return None
    if request.method == "GET":
        return browser.to_step_up()
    form, known = StepUpForm(), _known(looking)
    if known is None:
        return redirect("/login", 303)
    if (form.code.data or form.password.data) and form.validate():
        if (held := _held_back(known.brakes)) is not None:
            return held
        if (cookie := _prove_again(form, looking, known)) is not None:
            _set_login(cookie)
            return None
    kept = {name: request.form[name] for name in keep if name in request.form}
    return _ask(form, known, kept=kept, back=back), 401


def _set_login(cookie: str) -> None:
    """Whatever the view answers now carries the new cookie: the old one is dead."""

    @after_this_request
    def carry(answer: WSGIResponse) -> WSGIResponse:
        browser.set_cookie(answer, browser.LOGIN_COOKIE, cookie)
        return answer


def _ask(form: StepUpForm, known: _Known, *, kept: dict[str, str] | None = None, back: str = "/") -> str:
    return render_template("web/step_up.html", form=form, has_code=known.seed is not None, kept=kept, back=back)


def _known(looking: Looking) -> _Known | None:
    login = looking.login
    with reading() as session:
        candidate = authn.find_by_id(session, login.account_id)
        seed = second_factor.seed_of(session, login.account_id)
    brakes = Brakes.of(login.company_code, login.login_name, login.account_id)
    return _Known(candidate, seed, brakes) if candidate is not None else None


def _prove_again(form: StepUpForm, looking: Looking, known: _Known) -> str | None:
    """The new cookie; None for a proof that is none, which is counted and said above the form."""
    cookie, now = _raise(form, looking, known), browser.now()
    if cookie is not None:
        return cookie
    with transaction() as session:
        known.brakes.fail(session, now=now)
        record(
            session,
            Tag.SECOND_FACTOR_REFUSED,
            actor=looking.viewer.actor,
            now=now,
            result="refused",
            company_id=looking.login.company_id,
            subject_id=known.candidate.account_id,
        )
    form.form_errors = [language.text("確認できませんでした。もう一度入れてください。")]
    return None


def _raise(form: StepUpForm, looking: Looking, known: _Known) -> str | None:
    """Where a second factor exists its code is the proof; the password alone is one only where it is the only factor."""
    now, candidate, seed = browser.now(), known.candidate, known.seed
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
        known.brakes.forget(session)
        return live.raise_assurance(session, looking.login, acr=acr, amr=amr, actor=looking.viewer.actor, now=now)
