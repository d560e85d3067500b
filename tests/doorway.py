"""A tool behind the whole product: portal, gateway process and login engine on one database, and people with browsers.

The gateway and the engine are the functions that their commands run, on databases of their own as in processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from flask import Flask

from connectors.egress import open_client
from idp.app import create_app, create_database_app
from idp.cli import gateway
from idp.core.settings import Settings
from idp.domain.credentials.models import SealedCredential
from idp.domain.credentials.opening import Brake
from idp.edges.tools.engine import Engine
from idp.edges.tools.means import Means
from idp.edges.tools.threads import Threads
from idp.services import ENGINE_OPENS, build_vault, ticket_key
from tests.actors import Browser, Person, World
from tests.conftest import Database, dispose
from tests.fakes.device import Device
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.tools.site import Site, recipe_text, running
from tests.toolbox import Toolbox


@dataclass
class Doorway:
    """The installation. tool: the application of the site; account: of store S1 inside it."""

    app: Flask
    world: World
    toolbox: Toolbox
    site: Site
    settings: Settings
    client: aiohttp.ClientSession
    tool: uuid.UUID
    account: uuid.UUID

    async def deliver(self) -> None:
        """Let the worker do what is due now."""
        await asyncio.to_thread(self.world.deliver)

    async def enter(self, person: Person, browser: Browser) -> Device:
        """From the tile to the first page: through the portal, the gateway, the portal and the gateway again."""
        await asyncio.to_thread(browser.log_in, person)
        return await self.open(browser)

    async def open(self, browser: Browser) -> Device:
        """The same for somebody who is logged in."""
        browser.get("/tools/shifts/start")
        answer = await asyncio.to_thread(browser.submit, action="/tools/shifts/open", follow=False)
        assert answer.status_code == 303, answer.text[:800]
        where = answer.headers["location"]
        while where.startswith("/tools/launch/"):  # the engine is logging in
            answer = await asyncio.to_thread(browser.get, where, follow=False)
            assert answer.status_code in {200, 303}, answer.text[:800]
            where = answer.headers.get("location", where)
            await asyncio.sleep(0.02)
        device = Device(self.client, self.settings.gateway_port, urlsplit(where).netloc)
        ticket = await self.ask(device, browser)
        entered = await device.get(ticket, headers={"Sec-Fetch-Site": "cross-site"})
        assert (entered.status, entered.page) == (200, "entered"), entered.text
        return device

    async def ask(self, device: Device, browser: Browser) -> str:
        """The ticket of this browser for this origin, as the path that it is led to."""
        started = await device.get("/.sekisho/start", headers={"Sec-Fetch-Site": "cross-site"})
        admitted = await asyncio.to_thread(browser.get, started.header("Location") or "", follow=False)
        assert admitted.status_code == 303, admitted.text[:800]
        parts = urlsplit(admitted.headers["location"])
        assert parts.netloc == device.host
        return f"{parts.path}?{parts.query}"


@contextlib.asynccontextmanager
async def doorway(
    database: Database, site: Site, *, outbound: RecordingOutbound | None = None, replace: dict[str, str] | None = None,
    known: bool = False,
) -> AsyncIterator[Doorway]:  # fmt: skip
    """Everything, running. known: people may know the password; else it counts as set by a machine and proven."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = database.settings(gateway_port=port, gateway_domain=f"gw.localhost:{port}")
    app = create_app(settings, outbound=outbound or RecordingOutbound())
    rooms = [create_database_app(settings) for _ in range(2)]
    stop, ready = asyncio.Event(), asyncio.Event()
    async with (
        running(site),
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
        open_client(loopback=True, total_s=None) as out,
    ):
        world = World(app)
        made = await asyncio.to_thread(_furnish, app, world, site, settings, client, replace or {}, known)
        with rooms[1].app_context():
            vault = build_vault(settings, opens=ENGINE_OPENS)
            key = ticket_key(vault)
        threads = Threads(rooms[1])
        engine = Engine(Means(threads, settings, vault, Brake(10_000), key, out))
        tasks = [
            asyncio.create_task(gateway.run(rooms[0], settings, stop=stop, ready=ready)), asyncio.create_task(engine.run()),
        ]  # fmt: skip
        try:
            await asyncio.wait({asyncio.ensure_future(ready.wait()), *tasks}, return_when=asyncio.FIRST_COMPLETED)
            assert ready.is_set(), [task.exception() for task in tasks if task.done()]
            yield made
        finally:
            stop.set()
            engine.stop()
            await asyncio.gather(*tasks)
            threads.close()
            for one in (app, rooms[1]):
                dispose(one)


def _furnish(
    app: Flask, world: World, site: Site, settings: Settings, client: Any, replace: dict[str, str], known: bool
) -> Doorway:
    toolbox = Toolbox(world)
    recipe = toolbox.recipe(recipe_text(site, replace=replace).decode())
    tool = toolbox.tool("shifts", recipe_id=recipe)
    account = toolbox.account(tool, store="S1")
    toolbox.deposit(account, site.credentials)
    if not known:
        toolbox.set(SealedCredential, SealedCredential.tool_account_id == account, known_to_people=False)
    made = Doorway(app, world, toolbox, site, settings, client, tool, account)
    toolbox.certify(account, recipe)
    return made
