"""What one job of the engine may use: the database in short transactions, the vault, a way out to declared hosts.

SQLAlchemy blocks, and the engine is one event loop: everything that touches the database or the vault runs in `Threads`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from connectors.cookies import Jar
from connectors.egress import Client
from connectors.engine.failures import Failed
from connectors.engine.http_driver import HttpDriver
from connectors.engine.jobs import Driver
from connectors.ports import Revealable
from connectors.recipes.model import Recipe
from idp.core import clock, ids
from idp.core.settings import Settings
from idp.domain.credentials.opening import Brake
from idp.domain.tools import recipes
from idp.domain.tools.models import RecipeText, Tool, ToolAccount
from idp.edges.tools.threads import Threads
from vault import Vault

if TYPE_CHECKING:
    from playwright.async_api import Browser

T = TypeVar("T")
NO_BROWSER: Final = "no_browser"


@dataclass(frozen=True)
class Means:
    """Made once per engine. browser: a running Chromium, or None where recipes with `driver: browser` are refused."""

    threads: Threads
    settings: Settings
    vault: Vault
    brake: Brake
    ticket_key: bytes
    client: Client
    browser: Browser | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def loopback(self) -> bool:
        """Whether tools on this machine may be called (WB-20)."""
        return self.settings.issuer_is_loopback

    async def write(self, work: Callable[[Session], T]) -> T:
        """One writing transaction; a whole one again when the database chose it as a victim."""
        return await self.threads.write(work)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Look into the database."""
        return await self.threads.read(work)

    async def call(self, work: Callable[[], T]) -> T:
        """Something that opens its own short transactions, such as the vault."""
        return await self.threads.work(work)

    async def recipe(self, tool_account_id: Any) -> tuple[ToolAccount, Recipe]:
        """The account and its pinned recipe, host fields filled in."""

        def find(session: Session) -> tuple[ToolAccount, Recipe]:
            row = session.execute(
                select(ToolAccount, RecipeText)
                .join(Tool, Tool.application_id == ToolAccount.application_id)
                .join(RecipeText, RecipeText.id == Tool.recipe_id)
                .where(ToolAccount.id == tool_account_id)
            ).one()
            on = recipes.ground(self.settings, now=clock.now())
            return row[0], recipes.for_account(row[1], row[0], on)

        return await self.read(find)

    def http(
        self,
        recipe: Recipe,
        values: Mapping[str, Revealable],
        before_submit: Callable[[], Awaitable[None]],
        device: Jar | None = None,
    ) -> HttpDriver:
        """A fresh `http` driver: one empty jar, one job."""
        return HttpDriver(
            self.client, recipe, values, now=seconds, new_secret=ids.new_secret, loopback=self.loopback, before_submit=before_submit,
            device=device, sleep=self.sleep,
        )  # fmt: skip

    def driver(
        self,
        recipe: Recipe,
        values: Mapping[str, Revealable],
        before_submit: Callable[[], Awaitable[None]],
        device: Jar | None = None,
    ) -> Driver:
        """The driver that the recipe names; never another one. Raises Failed where there is no browser for it."""
        http = self.http(recipe, values, before_submit, device)
        if recipe.login.driver == "http":
            return http
        if self.browser is None:
            raise Failed(NO_BROWSER)
        from connectors.engine.browser_driver import BrowserDriver  # noqa: PLC0415 - Playwright is optional

        return BrowserDriver(
            self.browser,
            http,
            recipe,
            values,
            new_secret=ids.new_secret,
            loopback=self.loopback,
            before_submit=before_submit,
        )


def seconds() -> float:
    """The clock as the connectors read it: seconds since 1970."""
    return clock.now().timestamp()
