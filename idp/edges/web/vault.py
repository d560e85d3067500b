"""The vault for head office (V01, V02, V03, V05): deposits, how each password stands, who opened it when.

A value goes in by a form and never comes back: no page shows one, masked or not, and a form that is refused comes back empty
(D13). `serve`, which answers these pages, cannot open the class at all (VA-30).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from flask import Blueprint, redirect, render_template, request
from sqlalchemy.orm import Session

from connectors.recipes.model import Recipe
from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Invalid
from idp.domain.credentials import deposits, overview, rotations, service
from idp.domain.credentials.deposits import Deposited
from idp.domain.credentials.overview import Entry
from idp.domain.credentials.service import BadFields
from idp.domain.directory.roles import Power
from idp.domain.gateway import gateway_sessions, tool_sessions
from idp.domain.gateway.models import GatewaySession, ToolSession
from idp.domain.tools import health, recipes, registry
from idp.domain.tools.models import ToolAccount
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web import audit_words
from idp.edges.web.forms import EmptyForm, ReasonForm, SheetForm, deposit_form
from idp.edges.web.proving import afresh
from idp.edges.web.store import role_names
from idp.edges.web.tools import company_of, ground, mine
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record

bp = Blueprint("vault_hq", __name__)


@bp.get("/hq/vault")
@require(Power.MANAGE_APPLICATIONS)
def listing(looking: Looking) -> Answer:
    """V01: every account of every tool, how old its password is, and what it waits for."""
    with reading() as session:
        entries = overview.entries(session, looking.viewer, ground(), now=browser.now())
    return render_template("web/vault.html", entries=entries, roles=role_names())


@bp.get("/hq/vault/<uuid:tool_account_id>")
@require(Power.MANAGE_APPLICATIONS)
def entry(looking: Looking, tool_account_id: uuid.UUID) -> Answer:
    """V02: one account, its history without values. Looking at who opened it is itself an event (AU-12)."""
    return _page(looking, tool_account_id, ReasonForm())


def _page(looking: Looking, tool_account_id: uuid.UUID, form: ReasonForm, status: int = 200) -> Answer:
    with reading() as session:
        found = _entry(session, looking, tool_account_id)
    with transaction() as session:
        record(
            session, Tag.LOG_VIEWED, actor=looking.viewer.actor, now=browser.now(), company_id=found.standing.account.company_id,
            application_id=found.application.id, tool_account_id=tool_account_id,
        )  # fmt: skip
    with reading() as session:
        happened = overview.history(session, found)
        versions = overview.versions(session, found.credential.id) if found.credential else []
    page = render_template(
        "web/vault_entry.html", entry=found, happened=happened, versions=versions, form=form, button=EmptyForm(), words=audit_words.event,
        actor_words=audit_words.actor, roles=role_names(),
    )  # fmt: skip
    return page, status


def _entry(session: Session, looking: Looking, tool_account_id: uuid.UUID) -> Entry:
    account = registry.get_account(session, tool_account_id, looking.viewer)
    return overview.entries(session, looking.viewer, ground(), now=browser.now(), tool_account_id=account.id)[0]


# --- deposits ------------------------------------------------------------------------------------------------------


@bp.route("/hq/vault/<uuid:tool_account_id>/deposit", methods=["GET", "POST"])
@require(Power.MANAGE_APPLICATIONS)
def deposit(looking: Looking, tool_account_id: uuid.UUID) -> Answer:
    """V03: the fields of one account, each typed once."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/vault/{tool_account_id}/deposit", 303)
    with reading() as session:
        found = _entry(session, looking, tool_account_id)
    account, recipe = found.standing.account, found.standing.recipe
    names = service.typed_fields(recipe, account)
    form = deposit_form(recipe, names)
    if form.validate_on_submit():
        given = {name: form[f"field_{name}"].data or "" for name in names}
        try:
            done = deposits.deposit(
                browser.services().vault, account, recipe, given, actor=looking.viewer.actor, now=browser.now()
            )
            _after(looking, [done], rotate=bool(form.rotate.data))
            folded = "".join(f"&folded={name}" for name in done.folded)
            return redirect(f"/hq/vault/{tool_account_id}?deposited={done.version}{folded}", 303)
        except BadFields as error:
            for problem in error.problems:
                form.refuse(Invalid(problem.public, field=f"field_{problem.field}", values=problem.values))
        except Conflict as error:
            form.refuse(error)
    for name in names:
        form[f"field_{name}"].data = ""  # what was typed never comes back to the screen, user names included
    page = render_template(
        "web/vault_deposit.html", entry=found, roles=role_names(), form=form, fields=[form[f"field_{n}"] for n in names]
    )
    return page, 422 if form.is_submitted() else 200


def _after(looking: Looking, done: Iterable[Deposited], *, rotate: bool) -> None:
    """Sessions that waited for the password log in again; the machine makes one that nobody knows (trigger `import`)."""
    for one in done:
        with transaction() as session:
            tool_sessions.resolved(session, one.tool_account_id, now=browser.now())
            account = registry.get_account(session, one.tool_account_id, looking.viewer)
            if rotate and _machine_can(session, account):
                rotations.plan(session, account.id, trigger="import", actor=looking.viewer.actor, now=browser.now())


def _machine_can(session: Session, account: ToolAccount) -> bool:
    recipe: Recipe = recipes.for_account(registry.tool_of(session, account.application_id)[1], account, ground())
    return recipe.password is not None and recipe.password.change is not None


@bp.route("/hq/apps/<slug>/tool/import", methods=["GET", "POST"])
@require(Power.MANAGE_APPLICATIONS)
def import_sheet(looking: Looking, slug: str) -> Answer:
    """V05: a table of accounts. Checked whole; one bad row and nothing is stored. The file is read once and never kept."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/apps/{slug}/tool/import", 303)
    form, sheet, now = SheetForm(), None, browser.now()
    with reading() as session:
        application, _, text = mine(session, looking, slug)
    recipe = recipes.load_recipe(text, ground())
    if form.validate_on_submit():
        try:
            file = request.files.get("file")
            data = file.read() if file is not None else b""
            with reading() as session:
                company = company_of(session, looking, form.company.data)
                sheet = deposits.read_sheet(
                    session, data, application_id=application.id, company_id=company.id, on=ground(), now=now
                )
            if not sheet.problems and request.form.get("act") == "deposit":
                done = deposits.deposit_sheet(browser.services().vault, sheet, actor=looking.viewer.actor, now=now)
                _after(looking, done, rotate=bool(form.rotate.data))
                return redirect(f"/hq/apps/{slug}/tool?deposited={len(done)}", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    bad = form.is_submitted() and (form.errors or form.form_errors or (sheet is not None and sheet.problems))
    page = render_template(
        "web/vault_import.html",
        application=application,
        recipe=recipe,
        form=form,
        sheet=sheet,
        operator=looking.viewer.can(Power.MANAGE_COMPANIES),
    )
    return page, 422 if bad else 200


# --- acts on one account -------------------------------------------------------------------------------------------


@bp.post("/hq/vault/<uuid:tool_account_id>/rotate")
@require(Power.MANAGE_APPLICATIONS)
def rotate(looking: Looking, tool_account_id: uuid.UUID) -> Answer:
    """F17: the engine makes a new password at the tool, one that nobody knows."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/vault/{tool_account_id}", 303)
    with transaction() as session:
        account = registry.get_account(session, tool_account_id, looking.viewer)
        if not _machine_can(session, account):
            raise Conflict(
                "このツールのパスワードは、機械では変えられません。ツールで変えてから、預け直してください。",
                "no change form",
            )
        rotations.plan(session, account.id, trigger="owner", actor=looking.viewer.actor, now=browser.now())
    return redirect(f"/hq/vault/{tool_account_id}", 303)


@bp.post("/hq/vault/<uuid:tool_account_id>/resolve")
@require(Power.MANAGE_APPLICATIONS)
def resolve(looking: Looking, tool_account_id: uuid.UUID) -> Answer:
    """A person looked at what a machine could not go on with; after step-up, with a reason."""
    if (asked := afresh(looking, "note", back=f"/hq/vault/{tool_account_id}")) is not None:
        return asked
    form, now, actor = ReasonForm(), browser.now(), looking.viewer.actor
    if form.validate_on_submit():
        try:
            with transaction() as session:
                account = registry.get_account(session, tool_account_id, looking.viewer)
                credential = service.credential_of(session, account.id)
                if credential is not None and credential.locked_reason is not None:
                    service.unlock(session, credential.id, note=form.note.data, actor=actor, now=now)
                if account.state == "degraded":
                    health.resolve(session, account.id, note=form.note.data, actor=actor, now=now)
                tool_sessions.resolved(session, account.id, now=now)
            return redirect(f"/hq/vault/{tool_account_id}", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    return _page(looking, tool_account_id, form, 422)


@bp.post("/hq/vault/<uuid:tool_account_id>/decide")
@require(Power.MANAGE_APPLICATIONS)
def decide(looking: Looking, tool_account_id: uuid.UUID) -> Answer:
    """A change of password that ended in doubt: the person has tried and says which of the two holds."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/vault/{tool_account_id}", 303)
    with transaction() as session:
        account = registry.get_account(session, tool_account_id, looking.viewer)
        waiting = rotations.open_of(session, account.id)
        if waiting is None:
            raise Conflict("この変更は、もう決まっています。開き直してください。", f"tool account {tool_account_id}")
        rotations.decide(
            session, waiting.id, holds=request.form.get("holds", ""), actor=looking.viewer.actor, now=browser.now()
        )
    return redirect(f"/hq/vault/{tool_account_id}", 303)


@bp.post("/hq/vault/<uuid:tool_account_id>/end")
@require(Power.MANAGE_APPLICATIONS)
def end(looking: Looking, tool_account_id: uuid.UUID) -> Answer:
    """Take an account out of use: whoever is inside with it goes out, and our login at the tool is ended."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/vault/{tool_account_id}", 303)
    now = browser.now()
    with transaction(reserved=True) as session:
        account = registry.get_account(session, tool_account_id, looking.viewer)
        slug = overview.entries(session, looking.viewer, ground(), now=now, tool_account_id=account.id)[
            0
        ].application.slug
        gateway_sessions.end_sessions(
            session, GatewaySession.tool_account_id == account.id, reason="tool_lost", now=now
        )
        health.disable(session, account.id, actor=looking.viewer.actor, now=now)
        tool_sessions.end(session, ToolSession.tool_account_id == account.id, reason="account_ended", now=now)
    return redirect(f"/hq/apps/{slug}/tool", 303)
