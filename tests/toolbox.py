"""Tools of a world: recipes that two people stand behind, tool accounts, deposits, and a vault that may open them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from connectors.recipes.hosts import Ground
from idp.core import clock
from idp.core.db import reading, transaction
from idp.domain.applications import registry as applications
from idp.domain.credentials import opening, service
from idp.domain.credentials.opening import Brake, Use
from idp.domain.directory import people
from idp.domain.directory.models import Store
from idp.domain.directory.roles import Role
from idp.domain.tools import recipes, registry
from idp.domain.tools.models import Certification, RecipeText, ToolAccount
from idp.ledgers.audit.log import SYSTEM, Actor
from idp.ledgers.audit.models import AuditEvent
from idp.services import build_services
from tests.actors import CLI, World
from vault import KeyClass, Vault

DEMO = Path(__file__).parents[1] / "connectors" / "demo" / "tools"
SHIFT_NOTE = (DEMO / "shift_note.yaml").read_text(encoding="utf-8")
ORDER_DESK = (DEMO / "order_desk.yaml").read_text(encoding="utf-8")
#: three fields of SHIFT_NOTE; the password occurs nowhere else, so that it can be searched for
FIELDS = {"corp_cd": "kaede", "login_id": "kaede-012", "password": "Planted-Secret-7391"}
ENGINE = frozenset({KeyClass.CREDENTIAL, KeyClass.SESSION})


class Toolbox:
    """Everything about tools that a test does beside the pages."""

    def __init__(self, world: World) -> None:
        self.world, self.app = world, world.app
        with self.app.app_context():
            self.vault: Vault = build_services(world.services.settings, opens=ENGINE).vault
        self.brake = Brake(60)

    @property
    def ground(self) -> Ground:
        """The rules of this installation."""
        return recipes.ground(self.world.services.settings, now=clock.now())

    def recipe(self, text: str = SHIFT_NOTE, *, company: str | None = None) -> uuid.UUID:
        """A recipe that was proposed by one shell and approved by somebody with an account."""
        now, approver = clock.now(), Actor("person", self._somebody())
        with self.app.app_context(), transaction() as session:
            owner = people.get_company(session, company).id if company else None
            row = recipes.propose_recipe(session, text, on=self.ground, company_id=owner, actor=CLI, now=now)
            if row.approved_at is None:
                recipes.approve_recipe(session, row.id, digest=row.digest, actor=approver, now=now)
            return row.id

    def _somebody(self) -> uuid.UUID:
        number = f"ap{len(self.world.rows(select(AuditEvent.id)))}"
        return self.world.person(number, role=Role.HQ_ADMIN, totp=False).id

    def tool(
        self, slug: str = "shifts", *, recipe_id: uuid.UUID | None = None, company: str | None = "AOBA", grant_roles: tuple[Role, ...] = tuple(Role),
    ) -> uuid.UUID:  # fmt: skip
        """A tool that every role may use. Returns the id of its application."""
        now, recipe_id = clock.now(), recipe_id or self.recipe()
        with self.app.app_context(), transaction() as session:
            owner = people.get_company(session, company).id if company else None
            row = session.get_one(RecipeText, recipe_id)
            application, _ = registry.add_tool(
                session,
                slug=slug,
                name="シフトノート",
                company_id=owner,
                recipe=row,
                on=self.ground,
                actor=CLI,
                now=now,
            )
            for role in grant_roles:
                applications.grant(
                    session, application, subject_kind="role", subject_id=None, role=role.value, functions=(), company_id=None, actor=CLI,
                    now=now,
                )  # fmt: skip
            return application.id

    def account(
        self, application_id: uuid.UUID, *, company: str = "AOBA", store: str | None = None, role: str | None = None,
        person: uuid.UUID | None = None, label: str = "共通", recovery_owner: str = "company", **more: Any,
    ) -> uuid.UUID:  # fmt: skip
        """An account inside the tool."""
        with self.app.app_context(), transaction() as session:
            owner = people.get_company(session, company)
            store_id = session.scalar(select(Store.id).where(Store.code == store)) if store else None
            return registry.add_account(
                session, application_id=application_id, company_id=owner.id, store_id=store_id, role=role, account_id=person, label=label,
                recovery_owner=recovery_owner, actor=CLI, now=clock.now(), **more,
            ).id  # fmt: skip

    def deposit(self, tool_account_id: uuid.UUID, fields: Mapping[str, str] = FIELDS) -> int:
        """Type the fields, as a person does. Returns the version."""
        now = clock.now()
        with self.app.app_context():
            with reading() as session:
                account = session.get_one(ToolAccount, tool_account_id)
                _, text = registry.tool_of(session, account.application_id)
                checked = service.check_fields(recipes.for_account(text, account, self.ground), account, fields)
            fresh = service.seal(self.world.services.vault, account, checked.fields, now=now)
            with transaction() as session:
                return service.put(session, account, fresh, actor=CLI, now=now)

    def certify(self, tool_account_id: uuid.UUID, recipe_id: uuid.UUID, *, days: int = 90) -> None:
        """What a passed `sekisho tool certify` leaves."""
        now = clock.now()
        with self.app.app_context(), transaction() as session:
            recipe, account = session.get_one(RecipeText, recipe_id), session.get_one(ToolAccount, tool_account_id)
            session.add(
                Certification(
                    created_at=now, company_id=account.company_id, tool_account_id=account.id, recipe_digest=recipe.digest,
                    result="passed", evidence_digest="0" * 64, run_at=now, expires_at=now + timedelta(days=days),
                )
            )  # fmt: skip

    def open(
        self, tool_account_id: uuid.UUID, *, version: int | None = None, brake: Brake | None = None
    ) -> dict[str, str]:
        """Open it as the engine does."""
        with self.app.app_context():
            fields = opening.open_for(
                self.vault,
                brake or self.brake,
                tool_account_id,
                Use("login"),
                version=version,
                actor=SYSTEM,
                now=clock.now(),
            )
            return {name: secret.reveal() for name, secret in fields.items()}

    def change(self, statement: Any) -> None:
        """Write into the database as somebody who got in there."""
        with self.app.app_context(), transaction() as session:
            session.execute(statement.execution_options(synchronize_session=False))

    def set(self, table: Any, where: Any, **values: Any) -> None:
        """UPDATE past every rule."""
        self.change(update(table).where(where).values(**values))

    def audit(self, tag: str) -> list[Any]:
        """Rows of the log with this tag, oldest first."""
        query = select(AuditEvent.result, AuditEvent.detail, AuditEvent.created_at).where(AuditEvent.tag == tag)
        return self.world.rows(query.order_by(AuditEvent.id))

    def opens(self, tool_account_id: uuid.UUID) -> list[Any]:
        """The opens of one account's secret that are on record."""
        rows = self.audit("credential:secret:opened")
        return [row for row in rows if row.detail.get("tool_account_id") == str(tool_account_id)]

    def count(self, table: Any, *where: Any) -> int:
        """How many rows."""
        return int(self.world.rows(select(func.count()).select_from(table).where(*where))[0][0])
