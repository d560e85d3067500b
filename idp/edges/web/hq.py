"""Head office: home, open cuts, people, a person, stores (H01 to H04)."""

from __future__ import annotations

import uuid
from datetime import timedelta

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.db import reading, retrying, transaction
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.domain.applications import registry
from idp.domain.authn import activation, second_factor
from idp.domain.directory import people, scope
from idp.domain.directory.models import Account, Company, Region, Store
from idp.domain.directory.people import Place
from idp.domain.directory.roles import ROLES, Power, Reach, Role
from idp.domain.sessions import live as sessions
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web import stopping
from idp.edges.web.fields import choices
from idp.edges.web.forms import CompanyForm, EmptyForm, IdForm, PersonForm, ReasonForm, StopForm, StoreForm
from idp.edges.web.store import code_page, end_of_day, role_names
from idp.lifecycle.revocation import cascade, receipt, reinstate, tools
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope

bp = Blueprint("hq", __name__)
PAGE = 50


@bp.get("/hq")
@require(Power.SEE_PEOPLE, wide=True)
def home(looking: Looking) -> Answer:
    """H01: one number first: what is not cut, and how old the oldest is."""
    with reading() as session:
        open_lines = receipt.open_cuts(session, looking.viewer)
        latest = receipt.recent(session, looking.viewer, limit=8)
        waiting = reinstate.waiting(session, looking.viewer)
    return render_template("web/hq_home.html", open_lines=open_lines, latest=latest, waiting=waiting, now=browser.now())


@bp.get("/hq/open-cuts")
@require(Power.SEE_RECEIPTS, wide=True)
def open_cuts(looking: Looking) -> Answer:
    """H02: every line that is not closed, oldest first."""
    with reading() as session:
        rows = [
            (receipt.line_of(cut), revocation, account, name)
            for cut, revocation, account, name in receipt.open_cuts(session, looking.viewer)
        ]
    return render_template("web/open_cuts.html", rows=rows)


@bp.get("/hq/people")
@require(Power.SEE_PEOPLE, wide=True)
def find_people(looking: Looking) -> Answer:
    """H03: search first, never everybody."""
    text, after = request.args.get("q", ""), browser.id_argument("after")
    with reading() as session:
        rows = people.search_people(session, looking.viewer, text=text, after=after, limit=PAGE + 1)
    more = rows[PAGE - 1].id if len(rows) > PAGE else None
    return render_template(
        "web/people.html",
        rows=rows[:PAGE],
        text=text,
        more=more,
        can_hire=looking.viewer.can(Power.HIRE),
        now=browser.now(),
    )


def _wide_roles(looking: Looking) -> list[Role]:
    given = {role for s in looking.viewer.standings_with(Power.HIRE) for role in ROLES[s.role].may_give}
    return [role for role in Role if role in given and ROLES[role].reach is not Reach.REGION]


@bp.route("/hq/people/new", methods=["GET", "POST"])
@require(Power.HIRE, wide=True)
def new_person(looking: Looking) -> Answer:
    """Add a person anywhere in scope: staff of a store, or somebody at head office."""
    form = PersonForm()
    form.role.choices = choices((role.value, role_names()[role.value]) for role in _wide_roles(looking))
    if form.validate_on_submit():
        now, settings = browser.now(), browser.services().settings
        try:
            with transaction() as session:
                company, store = _company(session, looking), None
                if form.store.data:
                    store = _store(session, looking, company, form.store.data)
                number = (form.login_name.data or "").strip() or people.free_number(session, company.id)
                account = people.add_account(
                    session, Place(company, store), login_name=number, name=form.name.data, kana=form.kana.data,
                    role=Role(form.role.data), actor=looking.viewer.actor, viewer=looking.viewer, now=now, locale=form.locale.data,
                    ends_at=end_of_day(form.ends_on.data, store.time_zone if store else "Asia/Tokyo"),
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
            return code_page(account, secret, purpose="activate", back="/hq/people")
        except (Invalid, Conflict, Denied) as error:
            form.refuse(error)
    return render_template("web/new_person.html", form=form), 400 if form.is_submitted() else 200


def _company(session: Session, looking: Looking) -> Company:
    """The company worked on: one's own, or for the operator the one named in `?company=`."""
    return people.get_company(session, request.args.get("company") or looking.viewer.company_code, looking.viewer)


def _store(session: Session, looking: Looking, company: Company, code: str) -> Store:
    try:
        return people.get_store(session, company.id, code, looking.viewer, Power.HIRE)
    except NotFound:
        raise Invalid("この店舗コードの店舗はありません。", field="store") from None


def _account(session: Session, looking: Looking, account_id: uuid.UUID, power: Power) -> Account:
    return people.get_account(session, account_id, looking.viewer, power)


@bp.get("/hq/people/<uuid:account_id>")
@require(Power.SEE_PEOPLE, wide=True)
def person(looking: Looking, account_id: uuid.UUID) -> Answer:
    """H04: everything about one person's access, and why they have it."""
    now = browser.now()
    with reading() as session:
        account = _account(session, looking, account_id, Power.SEE_PEOPLE)
        places = people.assignments_of(session, account.id)
        devices = sessions.devices(session, account.id, now=now)
        tiles = registry.tiles(session, account.id, account.company_id, now=now)
        receipts = receipt.recent(session, looking.viewer, account_id=account.id, limit=20)
        asked = reinstate.open_request(session, account.id)
        has_totp = second_factor.seed_of(session, account.id) is not None
    live = account.ended_at is None and (account.ends_at is None or account.ends_at > now)
    return render_template(
        "web/hq_person.html", account=account, places=places, devices=devices, tiles=tiles, receipts=receipts, asked=asked, live=live,
        has_totp=has_totp, roles=role_names(), form=EmptyForm(), id_form=IdForm(), reason_form=ReasonForm(), now=now,
        me=looking.login.account_id, can=looking.viewer.can, Power=Power,
    )  # fmt: skip


@bp.route("/hq/people/<uuid:account_id>/stop", methods=["GET", "POST"])
@require(Power.REVOKE, wide=True)
def stop(looking: Looking, account_id: uuid.UUID) -> Answer:
    """「すべて切断」: the whole person, everywhere. Never blocked, not even for the last manager (RV-28)."""
    form = StopForm()
    with reading() as session:
        account = _account(session, looking, account_id, Power.REVOKE)
        if scope.reaches_beyond(session, looking.viewer, Power.REVOKE, account.id):
            raise Denied(
                "この人は、受け持ちでない店舗でも働いています。店舗の画面でその店舗の所属を止めるか、本部にたのんでください。",
                f"account {account.id} also works outside this viewer's scope",
            )
        apps = receipt.applications_entered(session, account.id)
        held = tools.choices(session, account.id, account.company_id, now=browser.now())
        store = next((s for a, s, _ in people.assignments_of(session, account.id) if a.ended_at is None and s), None)
    stopping.prepare(form)
    if form.validate_on_submit():
        try:
            target = stopping.execute(looking, stopping.Stop(account, Scope.ACCOUNT, account.id, store), form)
            return redirect(f"/hq/people/{account_id}" if target == "booked" else target, 303)
        except Invalid as error:
            form.refuse(error)
    return render_template(
        "web/stop.html",
        form=form,
        account=account,
        store=store,
        scope=Scope.ACCOUNT.value,
        apps=apps,
        tools=held,
        back=f"/hq/people/{account_id}",
    ), 400 if form.is_submitted() else 200


@bp.post("/hq/people/<uuid:account_id>/stop-one")
@require(Power.REVOKE, wide=True)
def stop_one(looking: Looking, account_id: uuid.UUID) -> Answer:
    """End one assignment, one application's use, or one login session of a person: `id` is `kind:uuid`."""
    kind, _, text = (IdForm().id.data or "").partition(":")
    try:
        wanted = uuid.UUID(text)
        target = {
            "assignment": Target(Scope.ASSIGNMENT, wanted),
            "application": Target(Scope.APPLICATION, account_id, wanted),
            "login_session": Target(Scope.LOGIN_SESSION, wanted),
        }[kind]
    except (ValueError, KeyError):
        raise Invalid("止めるものの指定が違います。", f"id {kind!r}", field="id") from None

    def cut() -> str:
        with transaction(reserved=True) as session:
            account = _account(session, looking, account_id, Power.REVOKE)
            foreign = target.scope is Scope.ASSIGNMENT and scope.reaches_beyond(
                session, looking.viewer, Power.REVOKE, account.id, assignment_id=wanted
            )
            if foreign or cascade.owner_of(session, target) != account.id:
                raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"{kind} {wanted}")
            order = Order(Reason.OTHER, Door.CONSOLE, None, browser.services().settings.give_up_after)
            return cascade.revoke(session, target, order, actor=looking.viewer.actor, now=browser.now()).number

    return redirect(f"/receipts/{retrying(cut)}", 303)


@bp.post("/hq/people/<uuid:account_id>/reset")
@require(Power.RESET, wide=True)
def reset(looking: Looking, account_id: uuid.UUID) -> Answer:
    """A one-time code for somebody who forgot the password, after a fresh proof of who asks (AC-26)."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/people/{account_id}", 303)
    settings, now = browser.services().settings, browser.now()
    with transaction() as session:
        account = _account(session, looking, account_id, Power.RESET)
        secret = activation.issue(
            session,
            account.id,
            purpose="reset",
            life=timedelta(seconds=settings.reset_s),
            actor=looking.viewer.actor,
            now=now,
        )
        session.refresh(account)
    return code_page(account, secret, purpose="reset", back=f"/hq/people/{account_id}")


@bp.post("/hq/people/<uuid:account_id>/reinstate")
@require(Power.REINSTATE)
def ask_reinstatement(looking: Looking, account_id: uuid.UUID) -> Answer:
    """First of two people: ask that somebody may come back, with a reason (AC-08)."""
    form = ReasonForm()
    if not form.validate_on_submit():
        raise Invalid("理由を書いてください。", field="note")
    with transaction() as session:
        account = _account(session, looking, account_id, Power.REINSTATE)
        reinstate.ask(session, account.id, note=form.note.data, viewer=looking.viewer, now=browser.now())
    return redirect(f"/hq/people/{account_id}", 303)


@bp.post("/hq/people/<uuid:account_id>/reinstate/approve")
@require(Power.REINSTATE)
def approve_reinstatement(looking: Looking, account_id: uuid.UUID) -> Answer:
    """Second of two people: nothing old revives, and a new code is handed over."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/people/{account_id}", 303)
    settings, now = browser.services().settings, browser.now()
    with transaction() as session:
        account = _account(session, looking, account_id, Power.REINSTATE)
        reinstate.approve(session, account.id, viewer=looking.viewer, now=now)
        secret = activation.issue(
            session,
            account.id,
            purpose="activate",
            life=timedelta(seconds=settings.activation_s),
            actor=looking.viewer.actor,
            now=now,
        )
        session.refresh(account)
    return code_page(account, secret, purpose="activate", back=f"/hq/people/{account_id}")


@bp.route("/hq/stores", methods=["GET", "POST"])
@require(Power.MANAGE_PLACES)
def stores(looking: Looking) -> Answer:
    """Stores: search by code or name, add one."""
    form, text = StoreForm(), request.args.get("q", "").strip()
    if form.validate_on_submit():
        try:
            with transaction() as session:
                company = _company(session, looking)
                region = people.get_region(session, company.id, form.region.data) if form.region.data else None
                people.add_store(
                    session,
                    company,
                    code=form.code.data,
                    name=form.name.data,
                    region=region,
                    actor=looking.viewer.actor,
                    now=browser.now(),
                )
            return redirect(f"/hq/stores?q={people.clean_code(form.code.data, 'code')}", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
        except NotFound:
            form.refuse(Invalid("このエリアコードのエリアはありません。", field="region"))
    with reading() as session:
        query = (
            select(Store, Region)
            .outerjoin(Region, Region.id == Store.region_id)
            .where(scope.stores(looking.viewer, Power.MANAGE_PLACES))
        )
        if text:
            query = query.where(
                Store.code.startswith(text.upper(), autoescape=True) | Store.name.startswith(text, autoescape=True)
            )
        rows = session.execute(query.order_by(Store.code).limit(PAGE)).all()
    return render_template(
        "web/stores.html", form=form, rows=rows, text=text
    ), 400 if form.errors or form.form_errors else 200


@bp.route("/hq/companies", methods=["GET", "POST"])
@require(Power.MANAGE_COMPANIES)
def companies(looking: Looking) -> Answer:
    """Partner companies: for the platform operator."""
    form = CompanyForm()
    if form.validate_on_submit():
        try:
            with transaction() as session:
                people.add_company(
                    session, code=form.code.data, name=form.name.data, actor=looking.viewer.actor, now=browser.now()
                )
            return redirect("/hq/companies", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    with reading() as session:
        rows = session.scalars(
            select(Company)
            .where(scope.companies(looking.viewer, Power.MANAGE_COMPANIES))
            .order_by(Company.code)
            .limit(500)
        ).all()
    return render_template("web/companies.html", form=form, rows=rows), 400 if form.errors or form.form_errors else 200
