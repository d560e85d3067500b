"""The two password-only tools of the demonstration: recipes, accounts inside them, sealed passwords."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import connectors.demo.tools as demo_tools
from idp.cli.common import actor
from idp.core import ids
from idp.core.db import transaction
from idp.domain.applications.registry import grant
from idp.domain.credentials import deposits
from idp.domain.directory import people
from idp.domain.directory.roles import Power, Role
from idp.domain.tools import recipes, registry
from idp.services import Services

COMPANY = "AOBA"


@dataclass(frozen=True)
class DemoTool:
    """One tool. offset: of its port from the demo's; port: the one in its recipe; store: whose account it is."""

    slug: str
    name: str
    offset: int
    port: int
    names: dict[str, str]
    store: str

    @property
    def recipe(self) -> Path:
        """Its recipe, as it is shipped."""
        return Path(next(iter(demo_tools.__path__))) / f"{self.slug.replace('-', '_')}.yaml"


TOOLS = (
    DemoTool("shift-note", "シフトノート", 13, 8021, {"corp_cd": "SAKURA", "login_id": "shibuya"}, "00123"),
    DemoTool("order-desk", "発注デスク", 14, 8022, {"login_id": "shibuya"}, "00123"),
)


def seed_tools(services: Services, *, port: int, now: datetime) -> list[dict[str, Any]]:
    """Register both, with an account and a deposited password each. port: of the demo.

    Returns for each its slug, name, address, the id of the account, and the password that it starts with.
    """
    return [_tool(services, tool, port=port + tool.offset, now=now) for tool in TOOLS]


def _tool(services: Services, tool: DemoTool, *, port: int, now: datetime) -> dict[str, Any]:
    text = tool.recipe.read_text(encoding="utf-8").replace(f"localhost:{tool.port}", f"localhost:{port}")
    password, on = ids.new_typed_code()[:16], recipes.ground(services.settings, now=now)
    with transaction() as session:
        company = people.get_company(session, COMPANY)
        recipe = recipes.propose_recipe(
            session, text, on=on, company_id=None, actor=actor(), now=now, source="builtin"
        )  # fmt: skip
        application, _ = registry.add_tool(
            session, slug=tool.slug, name=tool.name, company_id=company.id, recipe=recipe, on=on, actor=actor(), now=now
        )
        for role in (Role.STORE_MANAGER, Role.STAFF):
            grant(
                session, application, subject_kind="role", subject_id=None, role=role.value, functions=[], company_id=company.id,
                actor=actor(), now=now,
            )  # fmt: skip
        store = people.get_store(session, company.id, tool.store, None, Power.HIRE)
        account = registry.add_account(
            session, application_id=application.id, company_id=company.id, store_id=store.id, label=store.name, recovery_owner="company", actor=actor(), now=now,
        )  # fmt: skip
        loaded = recipes.for_account(recipe, account, on)
    deposits.deposit(
        services.vault, account, loaded, {**tool.names, "password": password}, actor=actor(), now=now
    )  # fmt: skip
    return {
        "slug": tool.slug, "name": tool.name, "url": f"http://localhost:{port}", "account": str(account.id), "first_password": password,
    }  # fmt: skip
