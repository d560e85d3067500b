"""An engine beside an installation: the real process's parts, in the event loop of a test, against a tool on loopback."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import time_machine
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from connectors.egress import open_client
from connectors.engine.rotation import State
from idp.core import clock
from idp.core.db import reading, retrying
from idp.core.settings import Settings
from idp.domain.credentials import rotations, service
from idp.domain.credentials.models import CredentialVersion, Rotation, SealedCredential
from idp.domain.credentials.opening import Brake, Use, open_for
from idp.domain.gateway import tool_sessions
from idp.domain.gateway.models import LoginJob, ToolSession
from idp.domain.gateway.tickets import Person
from idp.domain.tools.models import ToolAccount
from idp.edges.tools.engine import Engine
from idp.edges.tools.means import Means
from idp.edges.tools.threads import Threads
from idp.services import ENGINE_OPENS, build_vault, ticket_key
from tests.actors import CLI
from tests.fakes.tools.site import Site, recipe_text
from tests.tools import Place, place
from vault import Secret, Vault


@dataclass
class Room:
    """One installation with an engine and a tool."""

    app: Flask
    settings: Settings
    vault: Vault
    engine: Engine
    site: Site
    at: Place
    waits: list[float]

    @property
    def account_id(self) -> uuid.UUID:
        """Of the account inside the tool."""
        return self.at.account.id

    async def call(self, work: Any) -> Any:
        """One transaction, in a thread as the engine does it."""
        return await self.engine.means.write(work)

    async def deposit(self, values: Mapping[str, str]) -> None:
        """A person types the fields."""
        fields = {name: Secret(value) for name, value in values.items()}
        account = self.at.account
        fresh = await self.engine.means.call(
            lambda: retrying(lambda: service.seal(self.vault, account, fields, now=clock.now()))
        )
        await self.call(lambda session: service.put(session, account, fresh, actor=CLI, now=clock.now()))

    async def open(self, person: Person, *, sit: bool = True) -> uuid.UUID:
        """A launch: join or open, and the gateway session that hangs on it."""

        def work(session: Session) -> uuid.UUID:
            key = self.engine.means.ticket_key
            account = session.get_one(ToolAccount, self.account_id)
            found = tool_sessions.join_or_open(session, key, account, self.at.recipe, person=person, now=clock.now())
            if sit:
                self.at.sit_down(session, person, found)
            return found

        return await self.call(work)  # type: ignore[no-any-return]

    async def row(self, table: Any, row_id: uuid.UUID) -> Any:
        """A row as it is now."""
        return await self.engine.means.read(lambda session: session.get_one(table, row_id))

    async def state(self, tool_session_id: uuid.UUID) -> tuple[str, str | None]:
        """State and code, or the reason of its end."""
        row = await self.row(ToolSession, tool_session_id)
        return row.state, row.end_reason if row.state == "ended" else row.code

    async def jobs(self, tool_session_id: uuid.UUID) -> list[str | None]:
        """The results of its jobs, in order; None for one that is open."""
        query = select(LoginJob.result).where(LoginJob.tool_session_id == tool_session_id).order_by(LoginJob.id)
        return await self.engine.means.read(lambda session: list(session.scalars(query)))

    async def account(self) -> ToolAccount:
        """The account's row."""
        return await self.row(ToolAccount, self.account_id)  # type: ignore[no-any-return]

    async def plan(self, trigger: str = "owner") -> uuid.UUID:
        """Ask for a new password."""
        return await self.call(  # type: ignore[no-any-return]
            lambda session: rotations.plan(session, self.account_id, trigger=trigger, actor=CLI, now=clock.now()).id
        )

    async def rotation(self, rotation_id: uuid.UUID) -> Rotation:
        """As it stands."""
        return await self.row(Rotation, rotation_id)  # type: ignore[no-any-return]

    async def settle(self) -> None:
        """Drain until nothing at this account is left to a machine. What has to wait gets its time: the clock moves to it.

        One drain is enough where nothing goes wrong. A slow disk may cost a lease or a look at the tool, and the product then
        comes back later; a test that looks before that judges a state that was never meant to last.
        """
        left: list[str] = []
        await self.engine.drain()
        for _ in range(10):
            found = await self.engine.means.read(self._waiting)
            if not found:
                return
            at, left = max(found)[0], [text for _, text in found]
            with time_machine.travel(max(clock.now(), at) + timedelta(seconds=1), tick=False):
                await self.engine.drain()
        raise AssertionError(f"the engine does not come to an end: {left}")

    def _waiting(self, session: Session) -> list[tuple[datetime, str]]:
        """What is open at this account: when it may go on, and what it says of itself."""
        found = []
        jobs = select(LoginJob).join(ToolSession, ToolSession.id == LoginJob.tool_session_id)
        for job in session.scalars(
            jobs.where(ToolSession.tool_account_id == self.account_id, LoginJob.done_at.is_(None))
        ):
            text = f"{job.kind} job, run {job.attempts}, submitted {job.submitted_at}"
            found.append((max(job.next_at, job.leased_until or job.next_at), text))
        changing = select(Rotation).join(SealedCredential, SealedCredential.id == Rotation.credential_id)
        for row in session.scalars(
            changing.where(
                SealedCredential.tool_account_id == self.account_id,
                Rotation.ended_at.is_(None),
                Rotation.state != State.NEEDS_HUMAN.value,
            )
        ):
            text = f"rotation {row.state}, {row.code}: {row.evidence}"
            found.append((max(row.next_at, row.leased_until or row.next_at), text))
        return found


def passwords(app: Flask, vault: Vault, tool_account_id: uuid.UUID) -> dict[str, str]:
    """Every version that still opens: state → password. For asking whether one of them logs in."""
    with app.app_context():
        with reading() as session:
            rows = session.execute(
                select(CredentialVersion.version, CredentialVersion.state)
                .join(SealedCredential, SealedCredential.id == CredentialVersion.credential_id)
                .where(SealedCredential.tool_account_id == tool_account_id, CredentialVersion.state != "shredded")
                .order_by(CredentialVersion.version)
            ).all()
        found = {}
        for row in rows:
            fields = open_for(
                vault, Brake(1000), tool_account_id, Use("certify"), version=row.version, actor=CLI, now=clock.now()
            )
            found[row.state] = fields["password"].reveal()
        return found


@contextlib.asynccontextmanager
async def room(
    app: Flask, site: Site, *, replace: dict[str, str] | None = None, deposit: bool = True
) -> AsyncIterator[Room]:
    """An engine, and an account of store S1 inside the tool with the credentials that the tool has."""
    settings: Settings = app.extensions["sekisho"].settings
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with app.app_context():
        vault = build_vault(settings, opens=ENGINE_OPENS)
        key = ticket_key(vault)
    async with open_client(loopback=True, total_s=None) as client:
        threads = Threads(app)
        means = Means(threads, settings, vault, Brake(10_000), key, client, sleep=sleep)
        at = place(app, recipe_text(site, replace=replace or {}))
        made = Room(app, settings, vault, Engine(means), site, at, waits)
        if deposit:
            await made.deposit(site.credentials)
        try:
            yield made
        finally:
            threads.close()
