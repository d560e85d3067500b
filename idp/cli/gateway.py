"""`sekisho gateway`: the process that people use tools through. It opens jars and nothing else (VA-30)."""

from __future__ import annotations

import asyncio
import logging
import signal

import click
from flask import Flask

from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from idp.app import create_database_app
from idp.core import ids, logs
from idp.core.db import db
from idp.core.settings import RefusedToStart, Settings
from idp.edges.tools.ports import DatabasePorts
from idp.services import GATEWAY_OPENS, build_vault

log = logging.getLogger(__name__)


@click.command()
@click.option("--host", help="Address to listen on; loopback, behind a TLS edge.")
@click.option("--port", type=int, help="Port to listen on.")
def gateway(host: str | None, port: int | None) -> None:
    """Carry people to password-only tools, and cut them off."""
    logs.configure()
    over = {k: v for k, v in {"gateway_host": host, "gateway_port": port}.items() if v is not None}
    settings = Settings.without_pepper(**over)
    if not settings.gateway_at:
        raise RefusedToStart("No gateway domain: set SEKISHO_GATEWAY_DOMAIN (docs/operations/gateway.md).")
    asyncio.run(_until_told(settings))


async def _until_told(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(create_database_app(settings), settings, stop=stop)


async def run(app: Flask, settings: Settings, *, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
    """Serve until `stop`. app: the database alone; ready: set once the first request may come."""
    with app.app_context():
        vault = build_vault(settings, opens=GATEWAY_OPENS)
    ports = DatabasePorts(app, settings, vault)
    told = GatewaySettings(
        domain=settings.gateway_at,
        idp=settings.issuer,
        scheme=settings.gateway_scheme,
        loopback=settings.issuer_is_loopback,
    )
    try:
        made = create_gateway(ports.all, told, now=ports.clock.now, new_secret=ids.new_secret)
        async with serving(made, settings.gateway_host, settings.gateway_port) as port:
            log.info("gateway ready", extra={"domain": told.domain, "host": settings.gateway_host, "port": port})
            if ready is not None:
                ready.set()
            await stop.wait()
    finally:
        await ports.close()
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()
    log.info("gateway stopped")
