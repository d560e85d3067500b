"""The first password: a code that somebody handed over becomes a login of one's own (L08)."""

from __future__ import annotations

from datetime import datetime

from flask import redirect, render_template

from idp.core.db import reading, transaction
from idp.core.errors import Invalid, Throttled
from idp.domain.authn import activation, passwords, throttle
from idp.domain.directory.roles import needs_second_factor
from idp.domain.tokens import ends
from idp.edges import browser
from idp.edges.browser import Answer
from idp.edges.web import entering
from idp.edges.web.entering import bp
from idp.edges.web.forms import ActivationForm, NewPasswordForm
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal


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
            return entering.too_many(error)
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
