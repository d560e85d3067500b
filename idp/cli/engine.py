"""`sekisho engine`: the process that logs in to password-only tools and changes their passwords. No listening port (VA-30)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final

import click
from flask import Flask

from connectors.egress import open_client
from idp.app import create_database_app
from idp.core import logs
from idp.core.db import db
from idp.core.settings import RefusedToStart, Settings
from idp.domain.credentials.opening import Brake
from idp.edges.tools.engine import Engine
from idp.edges.tools.means import Means
from idp.edges.tools.threads import Threads
from idp.services import ENGINE_OPENS, build_vault, ticket_key

if TYPE_CHECKING:
    from playwright.async_api import Browser

log = logging.getLogger(__name__)

PR_SET_DUMPABLE: Final = 4


@click.command()
@click.option("--once", is_flag=True, help="Do what is due now, then stop.")
def engine(*, once: bool) -> None:
    """Log in to tools, renew and end those logins, change passwords."""
    logs.configure()
    settings = Settings.without_pepper()
    if reasons := refusals(settings, os.environ, uid=os.geteuid()):
        raise RefusedToStart("\n".join(reasons))
    harden()
    asyncio.run(run(create_database_app(settings), settings, once=once))


def refusals(settings: Settings, env: Mapping[str, str], *, uid: int) -> list[str]:
    """Why a process that types passwords must not run like this (vault-and-gateway.md §7.1, VA-45)."""
    found = []
    if "pw:" in env.get("DEBUG", ""):
        found.append("DEBUG=pw:* prints every value typed into a page; unset it (VA-45).")
    if env.get("PWDEBUG"):
        found.append("PWDEBUG opens an inspector on every page; unset it (VA-45).")
    if uid == 0 and settings.engine_root == "refused":
        found.append(
            "The engine runs as root: start it under an OS user of its own. Inside a container SEKISHO_ENGINE_ROOT=container"
            " allows it, and then it starts no browser (docs/operations/engine.md)."
        )
    return found


def harden() -> None:
    """No core dump holds a password, and no other process of this user reads our memory (VA-33)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run(
    app: Flask,
    settings: Settings,
    *,
    once: bool = False,
    stop: asyncio.Event | None = None,
    ready: asyncio.Event | None = None,
) -> None:
    """Work until SIGTERM or SIGINT, or until `stop`; with `once` until nothing is due. ready: set once it takes work."""
    async with engine_means(app, settings) as means:
        made = Engine(means)
        if once:
            await made.drain()
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, made.stop)
        waiting = asyncio.create_task(_stop_when(stop, made)) if stop is not None else None
        log.info("engine ready", extra={"slots": settings.engine_slots, "browser": means.browser is not None})
        if ready is not None:
            ready.set()
        await made.run()
        if waiting is not None:
            waiting.cancel()
    with app.app_context():
        for one in db.engines.values():
            one.dispose()
    log.info("engine stopped")


@contextlib.asynccontextmanager
async def engine_means(app: Flask, settings: Settings) -> AsyncIterator[Means]:
    """Everything that a job of the engine may use, for as long as the block lasts."""
    with app.app_context():
        vault = build_vault(settings, opens=ENGINE_OPENS)
        key = ticket_key(vault)
    threads = Threads(app)
    try:
        async with (
            browser_of(settings) as browser,
            open_client(loopback=settings.issuer_is_loopback, total_s=None) as client,
        ):
            yield Means(threads, settings, vault, Brake(settings.opens_per_minute), key, client, browser)
    finally:
        threads.close()


async def _stop_when(stop: asyncio.Event, made: Engine) -> None:
    await stop.wait()
    made.stop()


@contextlib.asynccontextmanager
async def browser_of(settings: Settings) -> AsyncIterator[Browser | None]:
    """A running Chromium for recipes with `driver: browser`; None where there is none, and such recipes then need a person.

    Not as root: Chromium has no sandbox there, and a hostile page of one tool would have the whole process's user. The
    demonstration may, since its tools are its own.
    """
    if settings.engine_root == "container" and os.geteuid() == 0:
        log.warning("running as root: no browser is started, recipes with `driver: browser` are refused")
        yield None
        return
    try:
        from connectors.engine.browser import CannotStart, chromium, executable  # noqa: PLC0415 - Playwright is optional

        executable(os.environ)
    except ImportError:
        log.warning("Playwright is not installed: recipes with `driver: browser` are refused")
        yield None
        return
    except CannotStart as error:
        log.warning("no browser: recipes with `driver: browser` are refused", extra={"why": str(error)})
        yield None
        return
    async with chromium(sandbox=os.geteuid() != 0) as browser:
        yield browser
