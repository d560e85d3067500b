"""The whole product around one application: portal, engine and gateway over one database, each behind a recorded wire."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import Flask
from sqlalchemy import select
from werkzeug.serving import make_server

from connectors.egress import open_client
from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from idp.app import create_app, create_database_app
from idp.core import ids
from idp.core.settings import Settings
from idp.domain.credentials.opening import Brake
from idp.domain.gateway import jars
from idp.domain.gateway.models import ToolSession
from idp.domain.tools.models import ToolAccount
from idp.edges.tools.engine import Engine
from idp.edges.tools.means import Means
from idp.edges.tools.ports import DatabasePorts
from idp.edges.tools.threads import Threads
from idp.services import ENGINE_OPENS, GATEWAY_OPENS, build_vault, record_open_patiently, ticket_key
from tests.actors import World
from tests.conftest import dispose, settings_for
from tests.fakes.tap import Tap
from tests.interop.processes import free_port
from tests.interop.tools.peers import Peer
from tests.toolbox import Toolbox


@dataclass
class Whole:
    """A running installation with one tool in it. portal, gateway: the wires in front of them; tool: the one to the application."""

    world: World
    settings: Settings
    means: Means
    account_id: uuid.UUID
    peer: Peer
    portal: Tap
    gateway: Tap
    tool: Tap

    async def guarded(self) -> dict[str, str]:
        """What no device may have got, as it is now: the secret fields, and every cookie of our login but those that are shown."""
        _, recipe = await self.means.recipe(self.account_id)
        rows = await self.means.read(
            lambda session: list(
                session.scalars(
                    select(ToolSession).where(
                        ToolSession.tool_account_id == self.account_id, ToolSession.jar_sealed.is_not(None)
                    )
                )
            )
        )
        account = await self.means.read(lambda session: session.get_one(ToolAccount, self.account_id))
        found = {name: self.peer.account[name] for name in recipe.secret_fields}
        for row in rows:
            place, sealed = jars.Place(account, row.id), row.jar_sealed or b""
            jar = await self.means.call(
                lambda place=place, sealed=sealed, row=row: jars.open_jar(  # type: ignore[misc]
                    self.means.vault, place, sealed, version=row.jar_version, record=record_open_patiently
                )
            )
            found |= {f"cookie {name} {row.jar_version}": value for name, value in jar.values() if name not in recipe.session.mirror}  # fmt: skip
        return found


@contextlib.asynccontextmanager
async def whole(peer: Peer, url: str, folder: Path) -> AsyncIterator[Whole]:
    """Everything running on loopback; the tool is certified and its password deposited, and nobody has opened it yet."""
    fronts, inner = (free_port(), free_port()), free_port()
    settings = settings_for(
        url, folder, issuer=f"http://localhost:{fronts[0]}", gateway_domain=f"gw.localhost:{fronts[1]}"
    )
    app, bare = create_app(settings), create_database_app(settings)
    try:
        world = World(app)
        box = Toolbox(world)
        recipe = box.recipe(peer.recipe().decode())
        account_id = box.account(box.tool(peer.slug, recipe_id=recipe), store="S1")
        box.deposit(account_id, peer.account)
        box.certify(account_id, recipe)
        with bare.app_context():
            vaults = {name: build_vault(settings, opens=name) for name in (ENGINE_OPENS, GATEWAY_OPENS)}
            key = ticket_key(vaults[ENGINE_OPENS])
        ports, threads = DatabasePorts(bare, settings, vaults[GATEWAY_OPENS]), Threads(bare)
        told = GatewaySettings(domain=settings.gateway_at, idp=settings.issuer, scheme="http", loopback=True)
        made = create_gateway(ports.all, told, now=ports.clock.now, new_secret=ids.new_secret)
        with _portal(app, inner):
            async with (
                Tap(peer.port).listening(peer.front) as to_tool, Tap(inner).listening(fronts[0]) as to_portal,
                open_client(loopback=True, total_s=None) as client, serving(made, "127.0.0.1", 0) as port,
                Tap(port).listening(fronts[1]) as to_gateway,
            ):  # fmt: skip
                means = Means(threads, settings, vaults[ENGINE_OPENS], Brake(1000), key, client)
                engine = Engine(means)
                working = asyncio.create_task(engine.run())
                try:
                    yield Whole(world, settings, means, account_id, peer, to_portal, to_gateway, to_tool)
                finally:
                    engine.stop()
                    await working
        threads.close()
        await ports.close()
    finally:
        dispose(app)
        dispose(bare)


@contextlib.contextmanager
def _portal(app: Flask, port: int) -> Iterator[None]:
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
