"""Tools for head office: which need a person, recipes (propose, read, approve), the wizard, one tool (A07 to A09), and what a
store sees of them: names and states."""

from __future__ import annotations

import uuid

from flask import Blueprint, redirect, render_template, request
from sqlalchemy.orm import Session

from connectors.recipes.hosts import Ground
from connectors.recipes.model import Recipe
from connectors.recipes.problems import Problem, RecipeError
from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.domain.applications import registry as applications
from idp.domain.applications.models import Application
from idp.domain.credentials import overview
from idp.domain.directory import people
from idp.domain.directory.models import Account, Company
from idp.domain.directory.roles import Power
from idp.domain.tokens import ends
from idp.domain.tools import health, recipes, registry
from idp.domain.tools.models import RecipeText, Tool
from idp.edges import browser, language
from idp.edges.browser import Answer, Looking, require
from idp.edges.web.apps import owner_of
from idp.edges.web.fields import choices
from idp.edges.web.forms import EmptyForm, RecipeForm, TermsForm, ToolAccountForm, ToolForm, lines
from idp.edges.web.proving import afresh
from idp.edges.web.store import role_names

bp = Blueprint("tools_hq", __name__)


def ground() -> Ground:
    """The rules of this installation, today."""
    return recipes.ground(browser.services().settings, now=browser.now())


@bp.get("/hq/tools")
@require(Power.MANAGE_APPLICATIONS)
def listing(looking: Looking) -> Answer:
    """A07: what waits for a person, every tool, recipes."""
    with reading() as session:
        entries = overview.entries(session, looking.viewer, ground(), now=browser.now())
        texts = recipes.recipes(session, looking.viewer)
        tools = [
            (application, *registry.tool_of(session, application.id))
            for application, _ in applications.list_all(session, looking.viewer)
            if application.protocol == registry.PROTOCOL and application.ended_at is None
        ]
    waiting = [entry for entry in entries if entry.waits_for]
    return render_template("web/tools.html", waiting=waiting, tools=tools, entries=entries, texts=texts)


# --- recipes -------------------------------------------------------------------------------------------------------


@bp.route("/hq/tools/recipes/new", methods=["GET", "POST"])
@require(Power.MANAGE_APPLICATIONS)
def new_recipe(looking: Looking) -> Answer:
    """A08: paste a recipe or drop its file; see what was understood or every mistake; propose it."""
    form, found = RecipeForm(), None
    problems: tuple[Problem, ...] = ()
    if form.validate_on_submit():
        try:
            text = _text_of(form)
            loaded = recipes.read_recipe(text, ground())
            found, problems = loaded.recipe, loaded.warnings
            form.text.data = text
            if request.form.get("act") == "propose":
                with transaction() as session:
                    row = recipes.propose_recipe(
                        session,
                        text,
                        on=ground(),
                        company_id=owner_of(looking),
                        actor=looking.viewer.actor,
                        now=browser.now(),
                    )
                return redirect(f"/hq/tools/recipes/{row.id}", 303)
        except RecipeError as error:
            problems = error.problems
        except (Invalid, Conflict) as error:
            form.refuse(error)
    bad = form.is_submitted() and (found is None or form.errors)
    page = render_template("web/recipe_new.html", form=form, recipe=found, problems=problems, in_english=in_english())
    return page, 422 if bad else 200


def in_english() -> bool:
    """The sentences about mistakes exist in Japanese and English."""
    return language.current() == "en"


def _text_of(form: RecipeForm) -> str:
    file = request.files.get("file")
    dropped = file.read() if file is not None else b""
    try:
        text = dropped.decode("utf-8-sig") if dropped else (form.text.data or "").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise Invalid("文字コードがUTF-8ではありません。UTF-8で保存し直してください。", field="text") from None
    form.text.data = text
    if not text.strip():
        raise Invalid("レシピのファイルか、中身を入れてください。", field="text")
    return text


@bp.get("/hq/tools/recipes/<uuid:recipe_id>")
@require(Power.MANAGE_APPLICATIONS)
def recipe(looking: Looking, recipe_id: uuid.UUID) -> Answer:
    """A08: one recipe, what it does and its text; approval by somebody else."""
    with reading() as session:
        row = recipes.find_recipe(session, recipe_id, looking.viewer)
        known = [session.get(Account, who) for who in (row.proposed_by, row.approved_by) if who is not None]
        names = {account.id: account.name for account in known if account is not None}
    try:
        found: Recipe | None = recipes.load_recipe(row, ground())
    except Invalid:
        found = None  # it was approved under other rules; the page shows the text and says so
    mine = row.proposed_by == looking.login.account_id
    return render_template("web/recipe.html", row=row, recipe=found, names=names, mine=mine, button=EmptyForm())


@bp.post("/hq/tools/recipes/<uuid:recipe_id>/approve")
@require(Power.MANAGE_APPLICATIONS)
def approve(looking: Looking, recipe_id: uuid.UUID) -> Answer:
    """Approve exactly the text that the page showed (VA-58)."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/tools/recipes/{recipe_id}", 303)
    with transaction() as session:
        row = recipes.find_recipe(session, recipe_id, looking.viewer)
        if row.company_id is None and owner_of(looking) is not None:
            raise Denied("このレシピは運用者だけが承認できます。", f"recipe {recipe_id}")
        recipes.approve_recipe(
            session, recipe_id, digest=request.form.get("digest", ""), actor=looking.viewer.actor, now=browser.now()
        )
    return redirect(f"/hq/tools/recipes/{recipe_id}", 303)


# --- tools ---------------------------------------------------------------------------------------------------------


@bp.route("/hq/tools/new", methods=["GET", "POST"])
@require(Power.MANAGE_APPLICATIONS)
def new(looking: Looking) -> Answer:
    """A09: from an approved recipe to a tool; its accounts and their passwords come next."""
    form = ToolForm()
    with reading() as session:
        usable = [row for row in recipes.recipes(session, looking.viewer) if row.approved_at is not None]
    form.recipe.choices = choices([(str(row.id), f"{row.slug} {row.version}") for row in usable])
    wanted = request.args.get("recipe") if not form.is_submitted() else form.recipe.data
    chosen = next((row for row in usable if str(row.id) == wanted), None)
    if not form.is_submitted() and chosen is not None:
        form.recipe.data, form.slug.data = str(chosen.id), chosen.slug
        form.name.data = recipes.load_recipe(chosen, ground()).title_ja
    if form.validate_on_submit():
        try:
            with transaction() as session:
                application, _ = registry.add_tool(
                    session, slug=form.slug.data.strip(), name=form.name.data, company_id=owner_of(looking),
                    recipe=recipes.find_recipe(session, uuid.UUID(form.recipe.data), looking.viewer), on=ground(),
                    functions=lines(form.functions.data), actor=looking.viewer.actor, now=browser.now(),
                )  # fmt: skip
                slug = application.slug
            return redirect(f"/hq/apps/{slug}/tool", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    return render_template("web/tool_new.html", form=form, usable=usable), 422 if form.is_submitted() else 200


@bp.get("/hq/apps/<slug>/tool")
@require(Power.MANAGE_APPLICATIONS)
def show(looking: Looking, slug: str) -> Answer:
    """A09: one tool: recipe, terms, accounts and how each of them stands."""
    return _page(looking, slug, _account_form(looking), TermsForm())


def _page(looking: Looking, slug: str, form: ToolAccountForm, terms: TermsForm, status: int = 200) -> Answer:
    with reading() as session:
        application, tool, text = mine(session, looking, slug)
        entries = overview.entries(session, looking.viewer, ground(), now=browser.now(), application_id=application.id)
        others = [
            row for row in recipes.recipes(session, looking.viewer)
            if row.slug == text.slug and row.id != text.id and row.approved_at is not None
        ]  # fmt: skip
    page = render_template(
        "web/tool.html", application=application, tool=tool, text=text, recipe=recipes.load_recipe(text, ground()), entries=entries, form=form,
        terms=terms, others=others, host_fields=recipes.host_field_names(text), may_change=applications.may_change(looking.viewer, application),
        operator=owner_of(looking) is None, roles=role_names(),
    )  # fmt: skip
    return page, status


def mine(session: Session, looking: Looking, slug: str) -> tuple[Application, Tool, RecipeText]:
    """A tool inside the viewer's scope. Raises NotFound."""
    application = applications.find_application(session, slug, looking.viewer)
    return application, *registry.tool_of(session, application.id)


def _changeable(session: Session, looking: Looking, slug: str) -> tuple[Application, Tool, RecipeText]:
    found = mine(session, looking, slug)
    if not applications.may_change(looking.viewer, found[0]):
        raise Denied("このアプリは運用者だけが変えられます。", f"application {slug[:64]}")
    return found


def _account_form(looking: Looking) -> ToolAccountForm:
    form = ToolAccountForm()
    form.role.choices = choices([("", "-"), *role_names().items()])
    if owner_of(looking) is not None:
        form.company.data = looking.viewer.company_code
    return form


@bp.post("/hq/apps/<slug>/tool/accounts")
@require(Power.MANAGE_APPLICATIONS)
def add_account(looking: Looking, slug: str) -> Answer:
    """Register an account inside the tool; its password is deposited on the next page."""
    form, viewer = _account_form(looking), looking.viewer
    if form.validate_on_submit():
        try:
            with transaction() as session:
                application, _, text = mine(session, looking, slug)
                company = company_of(session, looking, form.company.data)
                store = (
                    people.get_store(session, company.id, form.store.data.strip(), viewer, Power.MANAGE_APPLICATIONS)
                    if form.store.data
                    else None
                )
                person = (
                    people.get_by_login_name(session, company.id, form.person.data.strip())
                    if form.person.data
                    else None
                )
                names = recipes.host_field_names(text)
                made = registry.add_account(
                    session, application_id=application.id, company_id=company.id, store_id=store.id if store else None,
                    role=form.role.data or None, account_id=person.id if person else None, label=form.label.data,
                    recovery_owner=form.recovery_owner.data, host_fields={n: request.form.get(f"host_{n}", "") for n in names}, actor=viewer.actor,
                    now=browser.now(),
                )  # fmt: skip
                made_id = made.id
            return redirect(f"/hq/vault/{made_id}/deposit", 303)
        except NotFound:
            form.refuse(
                Invalid("この店舗コードか、スタッフ番号はありません。", field="person" if form.person.data else "store")
            )
        except (Invalid, Conflict) as error:
            form.refuse(error)
    return _page(looking, slug, form, TermsForm(), 422)


def company_of(session: Session, looking: Looking, code: str | None) -> Company:
    """The company that somebody acts for: their own, or for the operator the one they name. Raises NotFound."""
    wide = owner_of(looking) is None and code
    return people.get_company(
        session, code if wide and code else looking.viewer.company_code, looking.viewer, Power.MANAGE_APPLICATIONS
    )


@bp.post("/hq/apps/<slug>/tool/terms")
@require(Power.MANAGE_APPLICATIONS)
def attest(looking: Looking, slug: str) -> Answer:
    """Register a written permission for a tool whose terms forbid this (VA-48); after step-up, with one's name."""
    if (asked := afresh(looking, "note", back=f"/hq/apps/{slug}/tool")) is not None:
        return asked
    form = TermsForm()
    if form.validate_on_submit():
        with transaction() as session:
            application, _, _ = _changeable(session, looking, slug)
            health.attest_terms(
                session, application.id, note=form.note.data, actor=looking.viewer.actor, now=browser.now()
            )
        return redirect(f"/hq/apps/{slug}/tool", 303)
    return _page(looking, slug, _account_form(looking), form, 422)


@bp.post("/hq/apps/<slug>/tool/recipe")
@require(Power.MANAGE_APPLICATIONS)
def change_recipe(looking: Looking, slug: str) -> Answer:
    """Pin another version. Whoever is inside goes out: the new one may deny what the old one let through (RE-20)."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/apps/{slug}/tool", 303)
    now, settings = browser.now(), browser.services().settings
    try:
        wanted = uuid.UUID(request.form.get("recipe", ""))
    except ValueError:
        raise NotFound(recipes.MISSING, "not an id") from None
    with transaction(reserved=True) as session:
        application, tool, _ = _changeable(session, looking, slug)
        applications.lock_application(session, application.id)
        row = recipes.find_recipe(session, wanted, looking.viewer)
        registry.change_recipe(session, tool, row, actor=looking.viewer.actor, now=now)
        for account_id, told in ends.end_application_use(session, application.id, reason="narrowed", now=now).items():
            ends.tell(session, account_id, told, give_up_after=settings.give_up_after, now=now)
    return redirect(f"/hq/apps/{slug}/tool", 303)


# --- a store -------------------------------------------------------------------------------------------------------


@bp.get("/store/<code>/tools")
@require(Power.SEE_PEOPLE)
def of_store(looking: Looking, code: str) -> Answer:
    """What a store manager sees: the names of the store's tools and whether they work; no account, no password, no history."""
    with reading() as session:
        store = people.get_store(session, looking.viewer.company_id, code, looking.viewer, Power.SEE_PEOPLE)
        found = overview.entries(session, None, ground(), now=browser.now(), store_id=store.id)
    rows = [(entry.application.name, entry.standing.refusal is None) for entry in found]
    return render_template("web/store_tools.html", store=store, rows=rows)
