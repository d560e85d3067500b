"""The store manager's pages: staff, hire, person, let go, new code (S01, S02, S04, S05, S09)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import segno
from flask import Blueprint, redirect, render_template, request
from markupsafe import Markup
from sqlalchemy.orm import Session

from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.domain.applications import registry
from idp.domain.authn import activation
from idp.domain.directory import people
from idp.domain.directory.models import Account, Assignment, Store
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Power, Role
from idp.domain.directory.scope import standings
from idp.domain.sessions import live as sessions
from idp.edges import browser, language
from idp.edges.browser import Answer, Looking, require
from idp.edges.web import stopping
from idp.edges.web.fields import choices
from idp.edges.web.forms import EmptyForm, HireForm, StopForm
from idp.lifecycle.revocation import receipt, tools
from idp.lifecycle.revocation.words import Scope

bp = Blueprint("store", __name__)


def _store(session: Session, looking: Looking, code: str, power: Power) -> Store:
    return people.get_store(session, looking.viewer.company_id, code, looking.viewer, power)


@bp.get("/store/<code>/staff")
@require(Power.SEE_PEOPLE)
def staff(looking: Looking, code: str) -> Answer:
    """S01: who works here, who is waiting for a first login, who was stopped."""
    ended, text = request.args.get("tab") == "ended", request.args.get("q", "")
    with reading() as session:
        store = _store(session, looking, code, Power.SEE_PEOPLE)
        rows = people.staff_of(session, store, ended=ended, now=browser.now())
    if text:
        key = people.search_key(text)
        rows = [
            r for r in rows if r[0].kana_search.startswith(key) or text in r[0].name or r[0].login_name.startswith(text)
        ]
    return render_template("web/staff.html", store=store, rows=rows, ended=ended, text=text, roles=role_names())


def role_names() -> dict[str, str]:
    """Roles as people call them."""
    t = language.text
    return {
        Role.OPERATOR.value: t("運用者"), Role.HQ_ADMIN.value: t("本部の管理者"), Role.AREA_MANAGER.value: t("エリアの管理者"),
        Role.STORE_MANAGER.value: t("店長"), Role.STAFF.value: t("スタッフ"), Role.AUDITOR.value: t("監査人"),
    }  # fmt: skip


@bp.route("/store/<code>/staff/new", methods=["GET", "POST"])
@require(Power.HIRE)
def hire(looking: Looking, code: str) -> Answer:
    """S02: add a person and hand over the code."""
    form = HireForm()
    form.role.choices = choices([(Role.STAFF.value, role_names()[Role.STAFF.value])])
    with reading() as session:
        store = _store(session, looking, code, Power.HIRE)
        company = people.get_company(session, looking.viewer.company_code)
    if form.validate_on_submit():
        now, settings = browser.now(), browser.services().settings
        try:
            with transaction() as session:
                number = (form.login_name.data or "").strip() or people.free_number(session, company.id)
                account = people.add_account(
                    session, Place(company, store), login_name=number, name=form.name.data, kana=form.kana.data,
                    role=Role(form.role.data), actor=looking.viewer.actor, viewer=looking.viewer, now=now, locale=form.locale.data,
                    ends_at=end_of_day(form.ends_on.data, store.time_zone),
                )  # fmt: skip
                secret = activation.issue(
                    session,
                    account.id,
                    purpose="activate",
                    life=timedelta(seconds=settings.activation_s),
                    actor=looking.viewer.actor,
                    now=now,
                )
                session.refresh(account)
            return code_page(account, secret, purpose="activate", back=f"/store/{store.code}/staff")
        except (Invalid, Conflict, Denied) as error:
            form.refuse(error)
    return render_template("web/hire.html", form=form, store=store), 400 if form.is_submitted() else 200


def end_of_day(day: datetime | None, zone: str) -> datetime | None:
    """The end of a calendar day where the store is (RV-35). Raises Invalid for the last day that there is."""
    try:
        return datetime.combine(day + timedelta(days=1), time.min, tzinfo=ZoneInfo(zone)) if day else None
    except OverflowError:
        raise Invalid("この日は選べません。", field="ends_on") from None


def code_page(account: Account, secret: str | None, *, purpose: str, back: str) -> Answer:
    """The code, shown once, with the address to type it at and a picture of both. The code is in the address's fragment, which
    a browser never sends (AC-07)."""
    if secret is None:
        raise Conflict("この人の利用は止まっています。", f"account {account.id}")
    settings = browser.services().settings
    minutes = (settings.activation_s if purpose == "activate" else settings.reset_s) // 60
    grouped = "-".join(secret[i : i + 5] for i in range(0, len(secret), 5))
    address = f"{settings.issuer}/e"
    return render_template(
        "web/code.html", account=account, code=grouped, address=address, picture=_picture(f"{address}#{secret}"), purpose=purpose,
        until=browser.now() + timedelta(minutes=minutes), back=back,
    )  # fmt: skip


def _picture(text: str) -> str:
    return Markup(segno.make(text, error="m").svg_inline(scale=4, border=2, dark="#000", light="#fff"))  # noqa: S704


@dataclass(frozen=True)
class Found:
    """A person of a store, with the assignment there."""

    store: Store
    account: Account
    here: Assignment
    live: bool
    elsewhere: int


def _person(session: Session, looking: Looking, code: str, account_id: uuid.UUID, power: Power) -> Found:
    """A person inside the viewer's scope who works or worked in this store. Raises NotFound for all others (AT-M4)."""
    store = _store(session, looking, code, power)
    account = people.get_account(session, account_id, looking.viewer, power)
    mine = [a for a, _, _ in people.assignments_of(session, account.id) if a.store_id == store.id]
    if not mine:
        raise NotFound(
            "ページが見つかりません。URLが変わったか、見る権限がありません。", f"account {account_id} not in {code}"
        )
    now = browser.now()
    here = next((a for a in mine if a.ended_at is None), mine[0])
    held = standings(session, account.id, now=now)
    live = account.ended_at is None and any(s.store_id == store.id for s in held)
    return Found(store, account, here, live, sum(s.store_id != store.id for s in held))


@bp.get("/store/<code>/staff/<uuid:account_id>")
@require(Power.SEE_PEOPLE)
def person(looking: Looking, code: str, account_id: uuid.UUID) -> Answer:
    """S04: one person."""
    with reading() as session:
        found = _person(session, looking, code, account_id, Power.SEE_PEOPLE)
        devices = sessions.devices(session, account_id, now=browser.now()) if found.live else []
        tiles = registry.tiles(session, account_id, found.account.company_id, now=browser.now()) if found.live else []
        receipts = receipt.recent(session, looking.viewer, account_id=account_id, limit=10)
    return render_template(
        "web/person.html", found=found, devices=devices, tiles=tiles, receipts=receipts, roles=role_names(), form=EmptyForm(),
        can_reset=looking.viewer.can(Power.RESET), can_stop=looking.viewer.can(Power.REVOKE),
    )  # fmt: skip


@bp.route("/store/<code>/staff/<uuid:account_id>/stop", methods=["GET", "POST"])
@require(Power.REVOKE)
def stop(looking: Looking, code: str, account_id: uuid.UUID) -> Answer:
    """S05: two taps. Ends the person, or, when they work in other stores too, their assignment here (RV-27)."""
    form = StopForm()
    with reading() as session:
        found = _person(session, looking, code, account_id, Power.REVOKE)
        apps = receipt.applications_entered(session, account_id)
        here = found.here.id if found.elsewhere else None
        held = tools.choices(session, account_id, found.account.company_id, assignment_id=here, now=browser.now())
        alone = found.here.role == Role.STORE_MANAGER.value and not people.other_managers(
            session, found.store.id, account_id, now=browser.now()
        )
    if account_id == looking.login.account_id or alone:
        return render_template("web/last_manager.html", found=found), 409
    scope = Scope.ASSIGNMENT if found.elsewhere else Scope.ACCOUNT
    wanted = stopping.Stop(found.account, scope, found.here.id if found.elsewhere else found.account.id, found.store)
    stopping.prepare(form)
    if form.validate_on_submit():
        try:
            target = stopping.execute(looking, wanted, form)
            return redirect(f"/store/{found.store.code}/staff/{account_id}" if target == "booked" else target, 303)
        except Invalid as error:
            form.refuse(error)
    return render_template(
        "web/stop.html", form=form, account=found.account, store=found.store, scope=scope.value, apps=apps, tools=held,
        back=f"/store/{found.store.code}/staff/{account_id}",
    ), 400 if form.is_submitted() else 200  # fmt: skip


@bp.post("/store/<code>/staff/<uuid:account_id>/reset")
@require(Power.RESET)
def reset(looking: Looking, code: str, account_id: uuid.UUID) -> Answer:
    """S09: a one-time code for somebody who forgot, after a fresh proof of who asks (AC-26); nobody else sets the password."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next={browser.quoted(f'/store/{code}/staff/{account_id}')}", 303)
    settings, now = browser.services().settings, browser.now()
    with transaction() as session:
        found = _person(session, looking, code, account_id, Power.RESET)
        back = f"/store/{found.store.code}/staff/{account_id}"
        secret = activation.issue(
            session,
            account_id,
            purpose="reset",
            life=timedelta(seconds=settings.reset_s),
            actor=looking.viewer.actor,
            now=now,
        )
        session.refresh(found.account)
    return code_page(found.account, secret, purpose="reset", back=back)
