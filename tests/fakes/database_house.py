"""The house of the gateway's contract tests over a real database: the product's own ports, with faults that a test switches on.

What the engine does, and what the portal does before the ticket, is written here by hand: both have tests of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from connectors.cookies import Jar
from connectors.ports import AccessRow, Admission, GatewayPorts, GatewayView, JarState, RenewResult
from connectors.scanset import ScanSet
from idp.app import create_database_app
from idp.core import clock, ids
from idp.core.db import db, reading, transaction
from idp.core.settings import Settings
from idp.domain.applications.models import Application
from idp.domain.directory import people
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Role
from idp.domain.gateway import admissions, gateway_sessions, jars, tool_sessions
from idp.domain.gateway.admissions import Waiting
from idp.domain.gateway.models import (
    AdmissionTicket,
    GatewayAccess,
    GatewayCookie,
    GatewayProcess,
    GatewaySession,
    ToolSession,
)
from idp.domain.sessions import live
from idp.domain.sessions.live import Opening
from idp.domain.tools.models import RecipeText, Tool, ToolAccount
from idp.edges.tools.ports import DatabasePorts
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor
from idp.ledgers.audit.models import AuditEvent
from idp.services import GATEWAY_OPENS, build_vault
from tests.fakes.house import DatabaseAway
from vault import OpenEvent

CLI = Actor("cli", address="tests")
TOOL = "ts-1"


class DatabaseHouse:
    """Everything that `House` is, on SQLite or PostgreSQL."""

    def __init__(self, settings: Settings, login: Callable[[], Awaitable[Jar | None]]) -> None:
        self.settings, self.login = settings, login
        self.app = create_database_app(settings)
        with self.app.app_context():
            self.vault = build_vault(settings, opens=GATEWAY_OPENS)
        self.database = DatabasePorts(self.app, settings, self.vault)
        self.now = self.database.clock.now
        self.away = self.trail_away = self.muted = False
        self.lease = True
        self.sweeps: list[float] = []
        self.questions = self.renewals = self.renew_calls = self.conflicts = 0
        self.before_alive: Callable[[], Awaitable[None]] | None = None
        self.sessions: dict[str, uuid.UUID] = {}
        self._place: dict[str, Any] = {}

    def ports(self) -> GatewayPorts:
        return GatewayPorts(
            live=self, jars=self, recipes=self.database.all.recipes, door=self, trail=self, process=self
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The engine at work, and at the end everything closed."""
        engine = asyncio.create_task(self._engine())
        try:
            yield
        finally:
            engine.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await engine
            await self.database.close()
            with self.app.app_context():
                for one in db.engines.values():
                    one.dispose()

    @contextlib.contextmanager
    def writing(self) -> Any:
        with self.app.app_context(), transaction() as session:
            yield session

    @contextlib.contextmanager
    def looking(self) -> Any:
        with self.app.app_context(), reading() as session:
            yield session

    # --- what a test puts in -----------------------------------------------------------------------------------------

    def furnish(self, text: bytes, digest: str, jar: Jar, scan: ScanSet | None) -> None:
        """A company with a tool that is logged in."""
        now = clock.now()
        with self.writing() as session:
            company = people.add_company(session, code="AOBA", name="あおば", actor=CLI, now=now)
            store = people.add_store(session, company, code="S1", name="S1店", actor=CLI, now=now)
            application = Application(
                id=ids.new_id(now),
                created_at=now,
                company_id=company.id,
                slug="shift-note",
                name="シフトノート",
                protocol="tool",
            )
            recipe = RecipeText(
                id=ids.new_id(now), created_at=now, company_id=None, slug="shift-note", version=1, digest=digest, text=text.decode(),
                source="builtin",
            )  # fmt: skip
            session.add_all([application, recipe])
            session.flush()
            session.add(Tool(id=ids.new_id(now), created_at=now, application_id=application.id, recipe_id=recipe.id))
            account = ToolAccount(
                id=ids.new_id(now), created_at=now, application_id=application.id, company_id=company.id, store_id=store.id,
                label="共通", host_fields={}, recovery_owner="company",
            )  # fmt: skip
            session.add(account)
            session.flush()
            tool_session_id = ids.new_id(now)
            session.add(
                ToolSession(
                    id=tool_session_id, created_at=now, company_id=company.id, tool_account_id=account.id, state="opening",
                    ends_at=now + timedelta(hours=12),
                )
            )  # fmt: skip
            session.flush()
            session.expunge_all()
        self._place = {
            "company": company,
            "store": store,
            "application": application.id,
            "recipe": recipe.id,
            "account": account,
        }
        self.tool_session = tool_session_id
        self.replace_login(jar, scan)

    def replace_login(self, jar: Jar, scan: ScanSet | None = None) -> None:
        """A new login of the engine: the next generation, live."""
        place = jars.Place(self._place["account"], self.tool_session)
        with self.looking() as session:
            row = session.get_one(ToolSession, self.tool_session)
            generation, version = row.generation + 1, row.jar_version + 1
        with self.app.app_context():
            values = {
                "jar_sealed": jars.seal_jar(self.vault, place, jar, version=version),
                "jar_version": version,
                "generation": generation,
            }
            if scan is not None:
                values["scan_sealed"] = jars.seal_scan(self.vault, place, scan, generation=generation)
            elif row.scan_sealed is not None:  # the same password, guarded under the next generation
                old = jars.open_scan(self.vault, place, row.scan_sealed, generation=row.generation, record=_silent)
                values["scan_sealed"] = jars.seal_scan(self.vault, place, old, generation=generation)
        self.set_tool(state="live", code=None, **values)

    def set_tool(self, **values: Any) -> None:
        with self.writing() as session:
            session.execute(update(ToolSession).where(ToolSession.id == self.tool_session).values(**values))

    def open_session(self, name: str, hosts: Mapping[str, str]) -> None:
        """Somebody of their own, logged in, who opened the tool."""
        if name in self.sessions:
            return
        now, place = clock.now(), self._place
        with self.writing() as session:
            account = people.add_account(
                session,
                Place(place["company"], place["store"]),
                login_name=name,
                name="山本 健",
                kana="",
                role=Role.STAFF,
                actor=CLI,
                now=now,
            )
            how = Opening("urn:sekisho:aal1", ("pwd",), 1800, 43200)
            cookie = live.open_login(
                session,
                account_id=account.id,
                company_id=account.company_id,
                epoch=account.epoch,
                how=how,
                actor=CLI,
                now=now,
            )
            login = live.look(session, cookie or "", now=now)
            assert login is not None
            app_session = live.open_app_session(session, login, place["application"], now=now)
            row = GatewaySession(
                id=ids.new_id(now), created_at=now, company_id=account.company_id, app_session_id=app_session.id,
                application_id=place["application"], account_id=account.id, tool_account_id=place["account"].id,
                tool_session_id=self.tool_session, recipe_id=place["recipe"], epoch=0, label=name, hosts=dict(hosts), last_seen_at=now,
                idle_s=1800, idle_until=now + timedelta(seconds=1800), ends_at=now + timedelta(hours=8),
            )  # fmt: skip
            session.add(row)
            session.flush()
            self.sessions[name] = row.id

    def give_cookie(self, name: str, host: str, cookie: str) -> None:
        now = clock.now()
        with self.writing() as session:
            session.add(
                GatewayCookie(
                    id=ids.new_id(now),
                    created_at=now,
                    gateway_session_id=self.sessions[name],
                    host=host,
                    cookie_digest=ids.digest(cookie),
                )
            )

    def give_ticket(self, name: str, host: str, challenge: bytes) -> str:
        with self.writing() as session:
            app = uuid.uuid4()
            waiting = Waiting(self.sessions[name], app, app, host)
            return admissions.issue_ticket(session, waiting, challenge=challenge, now=clock.now())

    def cut(self, name: str, *, ring: bool = True) -> None:
        self.muted = not ring
        with self.writing() as session:
            gateway_sessions.end_sessions(
                session, GatewaySession.id == self.sessions[name], reason="cut", now=clock.now()
            )

    def ring(self) -> None:
        with self.writing() as session:
            gateway_sessions.ring(session)
            session.execute(update(GatewayProcess).values(ended_at=GatewayProcess.ended_at))

    # --- what a test looks at ----------------------------------------------------------------------------------------

    @property
    def rows(self) -> Sequence[GatewayAccess]:
        with self.looking() as session:
            return session.scalars(select(GatewayAccess).order_by(GatewayAccess.id)).all()

    @property
    def alarms(self) -> list[tuple[str, dict[str, Any]]]:
        with self.looking() as session:
            found = session.scalars(select(AuditEvent.detail).where(AuditEvent.tag == Tag.GATEWAY_ALARM.value)).all()
            return [(detail["code"], detail) for detail in found]

    def ended(self, name: str) -> str | None:
        with self.looking() as session:
            found: str | None = session.scalar(
                select(GatewaySession.end_reason).where(GatewaySession.id == self.sessions[name])
            )
            return found

    def tickets_of(self, name: str) -> Sequence[AdmissionTicket]:
        with self.looking() as session:
            return session.scalars(
                select(AdmissionTicket).where(AdmissionTicket.gateway_session_id == self.sessions[name])
            ).all()

    # --- the ports, with faults --------------------------------------------------------------------------------------

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        if self.before_alive is not None:
            await self.before_alive()
        if self.away:
            raise DatabaseAway
        self.questions += 1
        return await self.database.all.live.alive(cookie_digests)

    async def load(self, tool_session: str) -> JarState:
        return await self.database.all.jars.load(str(self.tool_session) if tool_session == TOOL else tool_session)

    async def save(self, tool_session: str, jar: Jar, *, seen_version: int) -> bool:
        return await self.database.all.jars.save(tool_session, jar, seen_version=seen_version)

    async def admit(self, ticket: str, *, host: str, challenge: bytes) -> Admission | None:
        return await self.database.all.door.admit(ticket, host=host, challenge=challenge)

    async def renew(self, tool_session: str, *, generation: int, deadline: float) -> RenewResult:
        self.renew_calls += 1
        return await self.database.all.door.renew(tool_session, generation=generation, deadline=deadline)

    async def leave(self, cookie_digest: bytes) -> None:
        await self.database.all.door.leave(cookie_digest)

    async def requests(self, rows: Sequence[AccessRow]) -> None:
        if self.trail_away:
            raise DatabaseAway
        await self.database.all.trail.requests(rows)

    async def alarm(self, code: str, **which: str) -> None:
        await self.database.all.trail.alarm(code, **which)

    async def swept(self, began_at: float) -> bool:
        if self.away:
            raise DatabaseAway
        self.sweeps.append(began_at)
        while True:
            if not self.lease:
                past = clock.now() - timedelta(minutes=1)
                with self.writing() as session:
                    session.execute(update(GatewayProcess).values(lease_until=past))
            kept = await self.database.all.process.swept(began_at)
            if self.lease or not kept:
                return kept

    async def doorbell(self) -> None:
        while True:
            await self.database.all.process.doorbell()
            if not self.muted:
                return

    # --- the engine --------------------------------------------------------------------------------------------------

    async def _engine(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            if not self._place:
                continue
            with self.looking() as session:
                state, generation = session.execute(
                    select(ToolSession.state, ToolSession.generation).where(ToolSession.id == self.tool_session)
                ).one()
            if state != "renewing":
                continue
            self.renewals += 1
            jar = await self.login()
            if jar is not None:
                self.replace_login(jar)
                continue
            with self.writing() as session:
                tool_sessions.move(
                    session,
                    self.tool_session,
                    ("renewing",),
                    generation=generation,
                    now=clock.now(),
                    state="needs_human",
                    code="refused",
                )


def _silent(_event: OpenEvent) -> None:
    """The engine's opens are not what these tests are about."""
