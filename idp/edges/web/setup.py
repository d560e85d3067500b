"""First run: the first administrator of an empty installation, with a code from the server's own console (Z01)."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template
from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Invalid, NotFound
from idp.domain.authn import activation, passwords, throttle
from idp.domain.authn.models import Activation
from idp.domain.directory.models import Account
from idp.domain.directory.people import clean_login_name, clean_name, search_key
from idp.edges import browser
from idp.edges.browser import Answer
from idp.edges.web.forms import SetupForm

bp = Blueprint("setup", __name__)


@bp.route("/setup", methods=["GET", "POST"])
def first_admin() -> Answer:
    """Name the first operator. Exists only while nobody has ever chosen a password; afterwards it is *not found*."""
    with reading() as session:
        if not _is_open(session):
            raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", "set-up is over")
    form = SetupForm()
    if form.validate_on_submit():
        try:
            _take_over(form)
            return redirect("/login", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    return render_template("web/setup.html", form=form), 400 if form.is_submitted() else 200


def _is_open(session: Session) -> bool:
    """An installation is new while its set-up code waits; a code that a later `sekisho init` voided waits for nobody."""
    waiting = session.scalar(
        select(Activation.id)
        .where(Activation.purpose == "setup", Activation.used_at.is_(None), Activation.ended_at.is_(None))
        .limit(1)
    )
    return waiting is not None


def _take_over(form: SetupForm) -> None:
    """Spend the set-up code: the reserved operator account gets its name and password. Raises Invalid, Throttled."""
    now, brake = browser.now(), throttle.key("setup", browser.address())
    login_name, name = clean_login_name(form.login_name.data), clean_name(form.name.data, "name")
    with reading() as session:
        throttle.check(session, [brake], now=now)
        waiting = activation.find(session, form.setup_code.data, now=now)
    if waiting is None or waiting.purpose != "setup":
        with transaction() as session:
            throttle.count_failure(session, brake, now=now)
        raise Invalid("コードが違います。`sekisho init` が出したコードを入れてください。", field="setup_code")
    passwords.check_new(form.password.data, second_factor=True, context=(login_name, name, "sekisho"))
    verifier = browser.services().hasher.make(form.password.data)
    with transaction() as session:
        if not activation.use(session, waiting, verifier=verifier, actor=browser.actor(waiting.account_id), now=now):
            raise Conflict("ほかの人が先に始めました。", "set-up code was spent")
        account = session.get_one(Account, waiting.account_id)
        account.login_name, account.name, account.kana_search = login_name, name, search_key(name)
        session.flush()
