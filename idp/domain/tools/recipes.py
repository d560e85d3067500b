"""Recipes of an installation: read whole, proposed, approved, loaded.

A recipe touches passwords, so it is treated as code: it is read whole before it is stored, never changed afterwards, and a
local one works only after somebody else than its proposer approved it (VA-58).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from connectors.recipes.hosts import PLACEHOLDER, Ground
from connectors.recipes.load import Loaded, RecipeError, load
from connectors.recipes.model import Recipe
from idp.core import ids
from idp.core.db import claim
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.core.settings import Settings
from idp.domain.directory import scope
from idp.domain.directory.models import Company
from idp.domain.directory.roles import Power
from idp.domain.directory.scope import Viewer
from idp.domain.tools.models import RecipeText, ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

MISSING = "ページが見つかりません。URLが変わったか、見る権限がありません。"


def ground(settings: Settings, *, now: datetime) -> Ground:
    """What this installation adds to the rules of recipes: today, loopback (WB-20), our own names."""
    own = tuple(filter(None, (urlsplit(settings.issuer).hostname, settings.gateway_at.partition(":")[0])))
    return Ground(today=now.date(), loopback=settings.issuer_is_loopback, own_domains=own)


def read_recipe(text: str, on: Ground) -> Loaded:
    """Read a text whole. Raises RecipeError with every problem; warnings come with the recipe. Nothing is stored."""
    return load(text.encode(), on)


def propose_recipe(
    session: Session, text: str, *, on: Ground, company_id: uuid.UUID | None, actor: Actor, now: datetime, source: str = "local"
) -> RecipeText:  # fmt: skip
    """Store a text that was read without an error; the same text again is the row that exists.

    company_id None: the platform operator's, for every company. source: `builtin` comes with the release and needs no
    second person, so no page and no file leads to it. Raises RecipeError, Conflict (this id and version with another text).
    """
    recipe = read_recipe(text, on).recipe
    mine = (
        RecipeText.company_id == company_id,
        RecipeText.slug == recipe.id,
    )
    known = session.scalar(select(RecipeText).where(*mine, RecipeText.digest == recipe.digest))
    if known is not None:
        return known
    if session.scalar(select(RecipeText.id).where(*mine, RecipeText.version == recipe.version)):
        raise Conflict(
            "この版のレシピは、もう別の内容で登録されています。version を1つ上げてください。", recipe.id, field="text"
        )
    row = RecipeText(
        id=ids.new_id(now), created_at=now, company_id=company_id, slug=recipe.id, version=recipe.version, digest=recipe.digest,
        text=text, source=source, proposed_by=actor.account_id, approved_at=now if source != "local" else None,
    )  # fmt: skip
    session.add(row)
    try:
        session.flush()
    except IntegrityError:  # the same text at the same time
        raise Conflict(
            "だれかが同じレシピを登録しました。一覧を開き直してください。", recipe.id, field="text"
        ) from None
    record(
        session, Tag.RECIPE_PROPOSED, actor=actor, now=now, company_id=company_id, recipe_id=row.id, recipe=recipe.id,
        version=recipe.version, digest=recipe.digest, source=source,
    )  # fmt: skip
    return row


def approve_recipe(session: Session, recipe_id: uuid.UUID, *, digest: str, actor: Actor, now: datetime) -> None:
    """Let a local recipe be used. digest: of the text that the approver was shown, so that nobody approves another one.

    Raises Denied when it is the proposer's own (two commands of a shell are one person too), Conflict when it is decided.
    """
    row = get_recipe(session, recipe_id)
    if row.digest != digest:
        raise Conflict("見ていた内容と違うレシピです。もう一度開いてください。", f"recipe {recipe_id}")
    if row.proposed_by == actor.account_id:
        raise Denied("提案した人とは別の人が承認してください。", f"recipe {recipe_id}")
    company_id, slug, version = row.company_id, row.slug, row.version
    went = claim(
        session,
        update(RecipeText)
        .where(RecipeText.id == recipe_id, RecipeText.source == "local", RecipeText.approved_at.is_(None))
        .values(approved_by=actor.account_id, approved_at=now),
    )
    if not went:
        raise Conflict("このレシピは、もう承認されています。", f"recipe {recipe_id}")
    record(
        session, Tag.RECIPE_APPROVED, actor=actor, now=now, company_id=company_id, recipe_id=recipe_id, recipe=slug,
        version=version, digest=digest,
    )  # fmt: skip


def get_recipe(session: Session, recipe_id: uuid.UUID) -> RecipeText:
    """One recipe by id, whoever's it is. Raises NotFound."""
    row = session.get(RecipeText, recipe_id)
    if row is None:
        raise NotFound("レシピが見つかりません。", f"recipe {recipe_id}")
    return row


def recipes(session: Session, viewer: Viewer | None) -> Sequence[RecipeText]:
    """Recipes that a viewer may use, newest version first: those of every company and their own; all for the command line."""
    query = select(RecipeText).order_by(RecipeText.slug, RecipeText.version.desc(), RecipeText.id.desc()).limit(500)
    if viewer is not None:
        query = query.where(_of_mine(viewer))
    return session.scalars(query).all()


def find_recipe(session: Session, recipe_id: uuid.UUID, viewer: Viewer | None) -> RecipeText:
    """One recipe inside the viewer's scope. Raises NotFound."""
    query = select(RecipeText).where(RecipeText.id == recipe_id)
    if viewer is not None:
        query = query.where(_of_mine(viewer))
    row = session.scalar(query)
    if row is None:
        raise NotFound(MISSING, f"recipe {recipe_id}")
    return row


def _of_mine(viewer: Viewer) -> ColumnElement[bool]:
    theirs = select(Company.id).where(scope.companies(viewer, Power.MANAGE_APPLICATIONS))
    return or_(RecipeText.company_id.is_(None), RecipeText.company_id.in_(theirs))


def load_recipe(row: RecipeText, on: Ground) -> Recipe:
    """The recipe of a stored text; placeholders of its hosts stand for imaginary labels. Parsed once per process and day.

    Raises Invalid when the text is not the one that its digest names, or reads with errors under today's rules.
    """
    return _read(row.text, row.digest, _Rules(on.today, on.loopback, tuple(on.own_domains), None))


def for_account(row: RecipeText, account: ToolAccount, on: Ground) -> Recipe:
    """The recipe with the host fields of one tool account filled in. Raises Invalid like `load_recipe`."""
    values = tuple(sorted(account.host_fields.items()))
    return _read(row.text, row.digest, _Rules(on.today, on.loopback, tuple(on.own_domains), values))


@dataclass(frozen=True)
class _Rules:
    """A `Ground` that can be the key of a cache."""

    today: date
    loopback: bool
    own_domains: tuple[str, ...]
    values: tuple[tuple[str, str], ...] | None


@lru_cache(maxsize=512)
def _read(text: str, digest: str, rules: _Rules) -> Recipe:
    # whoever can write the table could put other steps under an approved digest
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise Invalid("レシピの内容が、承認されたものと違います。", f"recipe text is not {digest}")
    values = dict(rules.values) if rules.values is not None else None
    on = Ground(today=rules.today, loopback=rules.loopback, own_domains=rules.own_domains, values=values)
    try:
        return load(text.encode(), on).recipe
    except RecipeError as error:
        raise Invalid("レシピを読めません。", f"recipe {digest}: {error.problems[0].en}") from error


def host_field_names(row: RecipeText) -> tuple[str, ...]:
    """The fields that stand in a host name, and so belong to a tool account and not to its sealed fields."""
    return tuple(dict.fromkeys(PLACEHOLDER.findall(row.text)))
