"""The engine in a process that may die of it: everything that is due, once. `child.act` calls it.

A step is a commit, named by what it made durable, or a request to the tool that may change something there, before and after.
Reading is no step: a death there is a death at the commit before it.
"""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from connectors.egress import open_client
from idp.core.db import db
from idp.domain.credentials.opening import Brake
from idp.edges.tools.certifying import certify_account
from idp.edges.tools.engine import Engine
from idp.edges.tools.means import Means
from idp.edges.tools.threads import Threads
from idp.ledgers.audit.log import Actor
from idp.services import ENGINE_OPENS, build_vault, ticket_key

#: tables whose commits are steps; a commit of the audit row alone is none
OURS = {"rotation", "credential_version", "tool_session", "login_job", "use_ticket", "tool_account"}
#: a heart that beats: it holds what is held already, and comes when it comes
BEAT = re.compile(r"UPDATE \w+ SET (leased_until|held_until)=[^,]+")
_wrote = threading.local()
_hear: list[Callable[[str], object]] = []


class BetweenSteps:
    """The engine's own client with a step before and after each POST."""

    def __init__(self, inner: Any, tell: Callable[[str], object]) -> None:
        self._inner, self._tell = inner, tell
        self._count: Counter[str] = Counter()

    def request(self, method: str, url: Any, **more: Any) -> Any:
        """As the real one."""
        inner, tell, name = self._inner.request(method, url, **more), self._tell, f"POST {url.path}"
        if method == "POST":
            self._count[name] += 1
        number = self._count[name]

        class Between:
            async def __aenter__(self) -> Any:
                if method == "POST":
                    tell(f"sending {name} {number}")
                answer = await inner.__aenter__()
                if method == "POST":
                    tell(f"answered {name} {number}")
                return answer

            async def __aexit__(self, *error: Any) -> None:
                await inner.__aexit__(*error)

        return Between()


def watch(app: Flask, name_of: Callable[[str], str]) -> None:
    """Install the listeners, once per process."""

    def writes(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        verb, _, table = name_of(text).partition(" ")
        beats = BEAT.fullmatch(text.partition(" \nWHERE ")[0].partition(" WHERE ")[0])
        if verb in {"UPDATE", "INSERT"} and table.removeprefix("INTO ") in OURS and not beats:
            _wrote.names = {*getattr(_wrote, "names", set()), f"{verb} {table.removeprefix('INTO ')}"}

    def committed(_session: Session) -> None:
        names, _wrote.names = getattr(_wrote, "names", set()), set()
        if names and _hear:
            _hear[-1]("committed " + ", ".join(sorted(names)))

    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "before_cursor_execute", writes)
    event.listen(Session, "after_commit", committed)


def work(app: Flask, tell: Callable[[str], object]) -> None:
    """One engine over this application until nothing is due."""

    async def drain(means: Means) -> None:
        await Engine(means).drain()

    _hear.append(tell)
    asyncio.run(_with_means(app, tell, drain))
    _hear.pop()


def certify(app: Flask, tell: Callable[[str], object], tool_account_id: uuid.UUID) -> None:
    """`sekisho tool certify` up to the answer of the login: who gets so far needs a browser, which nobody has here."""

    async def run(means: Means) -> None:
        await certify_account(means, None, tool_account_id, actor=Actor("cli"))  # type: ignore[arg-type]

    _hear.append(tell)
    asyncio.run(_with_means(app, tell, run))
    _hear.pop()


async def _with_means(
    app: Flask, tell: Callable[[str], object], work: Callable[[Means], Coroutine[Any, Any, None]]
) -> None:
    settings = app.extensions["sekisho"].settings
    with app.app_context():
        vault = build_vault(settings, opens=ENGINE_OPENS)
        key = ticket_key(vault)
    threads = Threads(app)
    try:
        async with open_client(loopback=True, total_s=None) as client:
            means = Means(threads, settings, vault, Brake(1000), key, BetweenSteps(client, tell))  # type: ignore[arg-type]
            await work(means)
    finally:
        threads.close()
