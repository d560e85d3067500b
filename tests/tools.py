"""A tool with an account inside it, and people who may open it: rows for tests, made as the product makes them."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from connectors.recipes.hosts import Ground
from connectors.recipes.load import load
from connectors.recipes.model import Recipe
from idp.core import clock, ids
from idp.core.db import retrying, transaction
from idp.domain.applications.models import Application
from idp.domain.authn.login import AAL1
from idp.domain.directory.models import Account, Company, Store
from idp.domain.gateway.models import GatewaySession
from idp.domain.gateway.tickets import Person
from idp.domain.sessions import live
from idp.domain.sessions.live import Opening
from idp.domain.tools.models import RecipeText, Tool, ToolAccount
from tests.actors import CLI

GROUND = Ground(today=date(2026, 11, 22), loopback=True)
NUMBERS = itertools.count(1)


@dataclass
class Place:
    """One tool account of store S1. recipe: with its hosts filled in."""

    app: Flask
    application_id: uuid.UUID
    account: ToolAccount
    recipe: Recipe

    def enter(self, account_id: uuid.UUID) -> Person:
        """This person logs in to the portal and has an app session of the tool: the gate of what follows."""
        return retrying(lambda: self._enter(account_id))

    def _enter(self, account_id: uuid.UUID) -> Person:
        now = clock.now()
        with self.app.app_context(), transaction() as session:
            row = session.execute(select(Account.company_id, Account.epoch).where(Account.id == account_id)).one()
            cookie = live.open_login(
                session, account_id=account_id, company_id=row.company_id, epoch=row.epoch, actor=CLI, now=now,
                how=Opening(AAL1, ("pwd",), 8 * 3600, 8 * 3600),
            )  # fmt: skip
            assert cookie is not None
            seen = live.look(session, cookie, now=now)
            assert seen is not None
            opened = live.open_app_session(session, seen, self.application_id, now=now)
        return Person(account_id, opened.id, row.epoch)

    def sit_down(self, session: Session, person: Person, tool_session_id: uuid.UUID) -> uuid.UUID:
        """A gateway session of this person on a tool session."""
        now = clock.now()
        recipe_id = session.scalar(select(Tool.recipe_id).where(Tool.application_id == self.application_id))
        row = GatewaySession(
            id=ids.new_id(now), created_at=now, company_id=self.account.company_id, app_session_id=person.app_session_id,
            application_id=self.application_id, account_id=person.account_id, tool_account_id=self.account.id,
            tool_session_id=tool_session_id, recipe_id=recipe_id, epoch=person.epoch, label=f"l{next(NUMBERS)}", hosts={},
            state="admitted", last_seen_at=now, idle_s=1800, idle_until=now + timedelta(hours=8), ends_at=now + timedelta(hours=8),
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row.id


def place(app: Flask, text: bytes, *, company: str = "AOBA", store: str | None = "S1", **over: Any) -> Place:
    """A tool with this recipe and one account in it."""
    return retrying(lambda: _placed(app, text, company, store, over))


def _placed(app: Flask, text: bytes, company: str, store: str | None, over: dict[str, Any]) -> Place:
    now, recipe = clock.now(), load(text, GROUND).recipe
    number = next(NUMBERS)
    with app.app_context(), transaction() as session:
        company_id = session.scalar(select(Company.id).where(Company.code == company))
        store_id = session.scalar(select(Store.id).where(Store.code == store, Store.company_id == company_id))
        application = Application(
            id=ids.new_id(now),
            created_at=now,
            company_id=company_id,
            slug=f"tool-{number}",
            name=f"道具{number}",
            protocol="tool",
        )
        row = session.scalar(
            select(RecipeText).where(RecipeText.company_id == company_id, RecipeText.digest == recipe.digest)
        ) or RecipeText(
            id=ids.new_id(now), created_at=now, company_id=company_id, slug=recipe.id, version=recipe.version,
            digest=recipe.digest, text=text.decode(), source="builtin", approved_at=now,
        )  # fmt: skip
        session.add_all([application, row])
        session.flush()
        session.add(Tool(id=ids.new_id(now), created_at=now, application_id=application.id, recipe_id=row.id))
        account = ToolAccount(
            id=ids.new_id(now), created_at=now, application_id=application.id, company_id=company_id, store_id=store_id,
            label="渋谷店", host_fields={}, recovery_owner="company", state="active", tries=0, **over,
        )  # fmt: skip
        session.add(account)
        session.flush()
        session.expunge(account)
        return Place(app, application.id, account, recipe)
