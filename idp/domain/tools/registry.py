"""Tools and the accounts inside them: adding, finding the one that fits a person, changing the pinned recipe.

A tool is the password side of an application and pins one recipe by its row (`recipes.py`); an account inside it belongs to
a company, a store, a role in either, or one person, and the narrowest that fits is used.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from connectors.recipes.hosts import LABEL, Ground
from idp.core import ids
from idp.core.errors import Conflict, Invalid, NotFound
from idp.domain.applications.decide import Facts, Place
from idp.domain.applications.models import Application
from idp.domain.applications.registration import SLUG
from idp.domain.directory import scope
from idp.domain.directory.models import Account, Company, Store
from idp.domain.directory.people import clean_name
from idp.domain.directory.roles import Power, Role
from idp.domain.directory.scope import Viewer
from idp.domain.tools.models import RecipeText, Tool, ToolAccount
from idp.domain.tools.recipes import MISSING, host_field_names, load_recipe
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

#: `application.protocol` of a password-only tool
PROTOCOL = "tool"
LANES = ("gateway", "viewer", "none")
RECOVERY_OWNERS = ("company", "store", "person", "unknown")


# --- tools ---------------------------------------------------------------------------------------------------------


def add_tool(
    session: Session, *, slug: str, name: str, company_id: uuid.UUID | None, recipe: RecipeText, on: Ground,
    functions: Sequence[str] = (), lane: str = "gateway", actor: Actor, now: datetime,
) -> tuple[Application, Tool]:  # fmt: skip
    """Register a tool: an application that people enter through the gateway. company_id None: the operator's (D18).

    Raises Invalid (with the field), Conflict (slug taken; recipe not approved).
    """
    name = clean_name(name, "name")
    if not SLUG.fullmatch(slug) or slug.endswith("-"):  # it becomes the beginning of a host name
        raise Invalid("短い名前は英小文字・数字・- で入れてください。", field="slug")
    if lane not in LANES:
        raise Invalid("この入り方は使えません。", field="lane")
    if session.scalar(select(Application.id).where(Application.slug == slug)):
        raise Conflict("この短い名前はもう使われています。", field="slug")
    _usable(recipe, company_id)
    application = Application(
        id=ids.new_id(now), created_at=now, company_id=company_id, slug=slug, name=name, protocol=PROTOCOL, functions=list(functions),
        session_life_s=load_recipe(recipe, on).session.max_hours * 3600,
    )  # fmt: skip
    session.add(application)
    session.flush()
    tool = Tool(
        id=ids.new_id(now), created_at=now, application_id=application.id, recipe_id=recipe.id, lane=lane
    )  # fmt: skip
    session.add(tool)
    session.flush()
    record(
        session, Tag.APPLICATION_ADDED, actor=actor, now=now, company_id=company_id, application_id=application.id,
        recipe_id=recipe.id, digest=recipe.digest,
    )  # fmt: skip
    return application, tool


def change_recipe(session: Session, tool: Tool, recipe: RecipeText, *, actor: Actor, now: datetime) -> None:
    """Pin another text. Certifications are bound to the old one, so nobody gets in until the tool is certified again, and an
    attestation of the terms was for the old text. The caller ends the tool's app sessions: denied routes may have grown."""
    application = session.get_one(Application, tool.application_id)
    if session.get_one(RecipeText, tool.recipe_id).slug != recipe.slug:
        raise Invalid("別のツールのレシピです。", f"recipe {recipe.id}", field="recipe")
    _usable(recipe, application.company_id)
    tool.recipe_id, tool.terms_attested_by, tool.terms_attested_at = recipe.id, None, None
    record(
        session, Tag.TOOL_CHANGED, actor=actor, now=now, company_id=application.company_id, application_id=application.id,
        recipe_id=recipe.id, digest=recipe.digest,
    )  # fmt: skip


def _usable(recipe: RecipeText, company_id: uuid.UUID | None) -> None:
    if recipe.approved_at is None:
        raise Conflict(
            "このレシピは、まだ承認されていません。別の人の承認が必要です。", f"recipe {recipe.id}", field="recipe"
        )
    if recipe.company_id is not None and recipe.company_id != company_id:
        raise NotFound("レシピが見つかりません。", f"recipe {recipe.id}")


def tool_of(session: Session, application_id: uuid.UUID) -> tuple[Tool, RecipeText]:
    """The password side of an application. Raises NotFound for another kind of application."""
    row = session.execute(
        select(Tool, RecipeText)
        .join(RecipeText, RecipeText.id == Tool.recipe_id)
        .where(Tool.application_id == application_id)
    ).one_or_none()
    if row is None:
        raise NotFound(MISSING, f"no tool {application_id}")
    return row[0], row[1]


# --- accounts inside tools -------------------------------------------------------------------------------------------


def add_account(
    session: Session, *, application_id: uuid.UUID, company_id: uuid.UUID, store_id: uuid.UUID | None = None, role: str | None = None,
    account_id: uuid.UUID | None = None, label: str, host_fields: Mapping[str, str] | None = None, recovery_owner: str = "unknown",
    actor: Actor, now: datetime,
) -> ToolAccount:  # fmt: skip
    """Register one account of the tool: of a company, a store, a role in either, or one person.

    Raises Invalid (with the field), NotFound (another company's store or person), Conflict (there is one for exactly these).
    """
    _, recipe = tool_of(session, application_id)
    draft = draft_account(
        application_id=application_id, company_id=company_id, store_id=store_id, role=role, account_id=account_id, label=label,
        host_fields=check_host_fields(recipe, host_fields or {}), recovery_owner=recovery_owner, now=now,
    )  # fmt: skip
    store_account(session, draft, actor=actor, now=now)
    return draft


def draft_account(
    *, application_id: uuid.UUID, company_id: uuid.UUID, store_id: uuid.UUID | None, role: str | None, account_id: uuid.UUID | None,
    label: str, host_fields: Mapping[str, str], recovery_owner: str, now: datetime,
) -> ToolAccount:  # fmt: skip
    """An account that is not stored yet, so that somebody can seal for it first. Raises Invalid (with the field)."""
    if account_id is not None and (store_id is not None or role is not None):
        raise Invalid("1人のためのアカウントには、店舗や役割を選べません。", field="person")
    if role is not None and role not in set(Role):
        raise Invalid("この役割はありません。", field="role")
    if recovery_owner not in RECOVERY_OWNERS:
        raise Invalid("再設定のメールが届く先を選んでください。", field="recovery_owner")
    return ToolAccount(
        id=ids.new_id(now), created_at=now, application_id=application_id, company_id=company_id, store_id=store_id, role=role,
        account_id=account_id, label=clean_name(label, "label")[:100], host_fields=dict(host_fields), recovery_owner=recovery_owner,
        state="active", tries=0,
    )  # fmt: skip


def store_account(session: Session, draft: ToolAccount, *, actor: Actor, now: datetime) -> None:
    """Store a draft. Raises NotFound (another company's tool, store or person), Conflict (there is one for exactly these)."""
    application = session.get_one(Application, draft.application_id)
    if application.company_id not in {None, draft.company_id}:
        raise NotFound(MISSING, f"tool {application.slug} of another company")
    for table, wanted in ((Store, draft.store_id), (Account, draft.account_id)):
        if wanted is not None and not session.scalar(
            select(table.id).where(table.id == wanted, table.company_id == draft.company_id, table.ended_at.is_(None))
        ):
            raise NotFound("店舗か人が見つかりません。", f"{table.__tablename__} {wanted}")
    same = (
        ToolAccount.application_id == draft.application_id, ToolAccount.company_id == draft.company_id, ToolAccount.store_id == draft.store_id,
        ToolAccount.role == draft.role, ToolAccount.account_id == draft.account_id, ToolAccount.ended_at.is_(None),
    )  # fmt: skip
    if session.scalar(select(ToolAccount.id).where(*same)):
        raise Conflict("同じ相手のためのアカウントが、もうあります。", field="label")
    session.add(draft)
    session.flush()
    record(
        session, Tag.TOOL_ACCOUNT_ADDED, actor=actor, now=now, company_id=draft.company_id, store_id=draft.store_id,
        subject_id=draft.account_id, application_id=draft.application_id, tool_account_id=draft.id, role=draft.role,
    )  # fmt: skip


def check_host_fields(recipe: RecipeText, given: Mapping[str, str]) -> dict[str, str]:
    """Exactly the host fields of the recipe, each one DNS label. Raises Invalid naming the first that is not."""
    wanted = host_field_names(recipe)
    for name in wanted:
        if not LABEL.fullmatch(given.get(name, "").strip().lower()):
            raise Invalid(
                "「%(field)s」はホスト名の1区切り(英小文字・数字・-)で入れてください。", field=f"host_{name}", values={"field": name}
            )  # fmt: skip
    if unknown := sorted(set(given) - set(wanted)):
        raise Invalid("レシピにない項目です:%(names)s", field="host_fields", values={"names": ", ".join(unknown)})
    return {name: given[name].strip().lower() for name in wanted}


@dataclass(frozen=True)
class FittingAccount:
    """A tool account that is for this person, and through which of their assignments; None where it is the person's own or
    everybody's in the company."""

    tool_account: ToolAccount
    assignment_id: uuid.UUID | None


def account_for(session: Session, application_id: uuid.UUID, facts: Facts) -> FittingAccount | None:
    """The narrowest account that fits: person, store and role, store, company and role, company."""
    found = fitting(session, application_id, facts)
    return found[0] if found else None


def fitting(session: Session, application_id: uuid.UUID, facts: Facts) -> list[FittingAccount]:
    """Every account that fits, the narrowest first; equally narrow ones in the order of the assignments."""
    return fitting_in(session, {application_id: facts})[application_id]


def fitting_in(session: Session, facts: Mapping[uuid.UUID, Facts]) -> Mapping[uuid.UUID, list[FittingAccount]]:
    """`fitting` in several tools at once, in one statement. facts: of one person, by application."""
    theirs = {(one.company_id, one.account_id) for one in facts.values()}
    if not theirs:
        return {}
    ((company_id, account_id),) = theirs
    rows = session.scalars(
        select(ToolAccount)
        .where(
            ToolAccount.application_id.in_(facts), ToolAccount.company_id == company_id, ToolAccount.ended_at.is_(None),
            ToolAccount.state != "disabled",
            or_(ToolAccount.account_id.is_(None), ToolAccount.account_id == account_id),
        )
        .order_by(ToolAccount.id)
    ).all()  # fmt: skip
    inside: dict[uuid.UUID, list[ToolAccount]] = {application_id: [] for application_id in facts}
    for account in rows:
        inside[account.application_id].append(account)
    return {application_id: _ranked(inside[application_id], one) for application_id, one in facts.items()}


def _ranked(accounts_inside: Sequence[ToolAccount], facts: Facts) -> list[FittingAccount]:
    """Those that are for this person, the narrowest first. Pure."""
    ranked: list[tuple[int, int, FittingAccount]] = []
    for account in accounts_inside:
        if account.account_id is not None:
            ranked.append((0, 0, FittingAccount(account, None)))
            continue
        if account.store_id is None and account.role is None:
            if facts.places:
                ranked.append((4, 0, FittingAccount(account, None)))
            continue
        for order, place in enumerate(facts.places):
            if _fits(account, place):
                rank = (1 if account.role else 2) if account.store_id else 3
                ranked.append((rank, order, FittingAccount(account, place.assignment_id)))
                break
    return [found for _, _, found in sorted(ranked, key=lambda entry: entry[:2])]


def _fits(account: ToolAccount, place: Place) -> bool:
    if place.company_id != account.company_id:
        return False
    return (account.store_id in {None, place.store_id}) and (account.role in {None, place.role})


def accounts(session: Session, application_id: uuid.UUID, viewer: Viewer | None) -> Sequence[ToolAccount]:
    """The live accounts of a tool in the viewer's companies, oldest first."""
    query = select(ToolAccount).where(ToolAccount.application_id == application_id, ToolAccount.ended_at.is_(None))
    if viewer is not None:
        query = query.where(in_my_companies(viewer))
    return session.scalars(query.order_by(ToolAccount.id).limit(5000)).all()


def get_account(session: Session, tool_account_id: uuid.UUID, viewer: Viewer | None) -> ToolAccount:
    """One live account inside the viewer's scope. Raises NotFound."""
    query = select(ToolAccount).where(ToolAccount.id == tool_account_id, ToolAccount.ended_at.is_(None))
    if viewer is not None:
        query = query.where(in_my_companies(viewer))
    row = session.scalar(query)
    if row is None:
        raise NotFound(MISSING, f"tool account {tool_account_id}")
    return row


def in_my_companies(viewer: Viewer) -> ColumnElement[bool]:
    """Condition on ToolAccount: of companies whose applications the viewer manages."""
    theirs = select(Company.id).where(scope.companies(viewer, Power.MANAGE_APPLICATIONS))
    return ToolAccount.company_id.in_(theirs)
