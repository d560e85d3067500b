"""What the gateway may touch, over the database (`connectors.ports`). Everything that it must not know stays behind these.

The gateway gets digests, views, jars and recipes; no session, no settings and no key of another class than `session` (VA-30).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Flask
from sqlalchemy import select, update

from connectors.cookies import Jar
from connectors.ports import AccessRow, Admission, GatewayPorts, GatewayView, JarState, RenewResult
from connectors.recipes.model import Recipe
from idp.core import clock, ids
from idp.core.db import add_all, claim, transaction
from idp.core.errors import Unavailable
from idp.core.settings import Settings
from idp.domain.gateway import admissions, gateway_sessions, jars, processes, tool_sessions
from idp.domain.gateway.jars import Place
from idp.domain.gateway.models import GatewayAccess, GatewaySession, ToolSession
from idp.domain.tools import health, recipes
from idp.domain.tools.models import RecipeText, ToolAccount
from idp.edges.tools.bell import Bell
from idp.edges.tools.straight import Straight
from idp.edges.tools.threads import Threads
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, record
from vault import OpenEvent, Vault

log = logging.getLogger(__name__)

#: the idle limit of a session in use is written at most this often
TOUCH_S = 60.0
#: a jar that is read again is one open; after this time it is written down once more, with the count
RECORD_AGAIN_S = 3600.0
LOOK_S = 0.2
#: alarms after which nobody new is let in until somebody has certified the tool again (VA-53)
WITHDRAWS = {"secret_in_answer"}


class DatabaseClock:
    """The database's time, told by this process: what it told last plus what has passed since, never later than it is there."""

    def __init__(self) -> None:
        self._at: tuple[float, float] | None = None

    def set(self, told: datetime) -> None:
        """The database said this just now, or a little earlier."""
        self._at = (told.timestamp(), time.monotonic())

    def now(self) -> float:
        """Seconds since 1970."""
        if self._at is None:
            return clock.now().timestamp()
        told, heard = self._at
        return told + time.monotonic() - heard


class Live:
    """The live check (VA-50): one statement for all that wait for one, straight on the driver."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._query = Straight(threads.reading, gateway_sessions.live_query(), many="digests")

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        """See `connectors.ports.Live`."""
        now = clock.now()
        rows = await self._threads.check(lambda: self._query.rows(cookie_digests, {"now": now}))
        return {bytes(row.cookie_digest): _view(row) for row in rows}

    def close(self) -> None:
        """Nobody asks any more."""
        self._query.close()


def _view(row: Any) -> GatewayView:
    return GatewayView(
        gateway_session=str(row.id), tool_session=str(row.tool_session_id), recipe_key=f"{row.recipe_id}:{row.tool_account_id}",
        host=row.host, hosts=row.hosts, state=row.state, generation=row.generation, jar_version=row.jar_version, code=row.code,
    )  # fmt: skip


class Jars:
    """Sealed jars of tool sessions."""

    def __init__(self, threads: Threads, vault: Vault) -> None:
        self._threads, self._vault = threads, vault
        #: what was opened: when it was last written down, and how often since
        self._opens: dict[tuple[uuid.UUID, str], tuple[float, int]] = {}

    async def load(self, tool_session: str) -> JarState:
        """See `connectors.ports.Jars`."""
        row, account = await self._threads.read(lambda session: _lying(session, uuid.UUID(tool_session)))
        if row.jar_sealed is None or row.ended_at is not None:
            raise Unavailable("いまは使えません。", f"tool session {row.id} has no jar")
        place = Place(account, row.id)

        def opened() -> JarState:
            jar = jars.open_jar(
                self._vault,
                place,
                row.jar_sealed or b"",
                version=row.jar_version,
                record=self._recorder(account, row.id, "jar"),
            )
            state = JarState(jar, row.jar_version, _generation(row))
            if row.scan_sealed is None:
                return state
            scan = jars.open_scan(
                self._vault,
                place,
                row.scan_sealed,
                generation=row.generation,
                record=self._recorder(account, row.id, "scan"),
            )
            return JarState(state.jar, state.version, state.generation, scan)

        return await self._threads.work(opened)

    async def save(self, tool_session: str, jar: Jar, *, seen_version: int) -> bool:
        """See `connectors.ports.Jars`. Only into a live session: a login under way writes the next jar, and no other."""
        row, account = await self._threads.read(lambda session: _lying(session, uuid.UUID(tool_session)))
        place, version = Place(account, row.id), seen_version + 1
        sealed = await self._threads.work(lambda: jars.seal_jar(self._vault, place, jar, version=version))
        held = update(ToolSession).where(
            ToolSession.id == row.id, ToolSession.jar_version == seen_version, ToolSession.state == "live", ToolSession.ended_at.is_(None),
        )  # fmt: skip
        return await self._threads.write(
            lambda session: claim(session, held.values(jar_sealed=sealed, jar_version=version))
        )

    def _recorder(self, account: ToolAccount, tool_session_id: uuid.UUID, part: str) -> Callable[[OpenEvent], None]:
        """One row per process, tool session and part; later opens are counted on the next one (vault-and-gateway.md §2.4)."""

        def commit(event: OpenEvent) -> None:
            key, at = (tool_session_id, part), time.monotonic()
            last, count = self._opens.get(key, (None, 0))
            if last is not None and at - last < RECORD_AGAIN_S:
                self._opens[key] = (last, count + 1)
                return
            with transaction() as session:
                record(
                    session, Tag.SECRET_OPENED, actor=SYSTEM, now=clock.now(), company_id=account.company_id, store_id=account.store_id,
                    application_id=account.application_id, record=event.context.record, purpose=event.context.purpose.value,
                    version=event.context.version, key_id=event.key_id, fields=list(event.fields), opened_since=count or None,
                )  # fmt: skip
            self._opens[key] = (at, 0)

        return commit


def _lying(session: Any, tool_session_id: uuid.UUID) -> tuple[ToolSession, ToolAccount]:
    row = session.execute(
        select(ToolSession, ToolAccount)
        .join(ToolAccount, ToolAccount.id == ToolSession.tool_account_id)
        .where(ToolSession.id == tool_session_id)
    ).one()
    session.expunge_all()
    return row[0], row[1]


def _generation(row: ToolSession) -> int:
    """Which login a jar belongs to. While the next one is under way this one is over: what it still wants to store is dropped."""
    return row.generation if row.state == "live" else row.generation + 1


class Recipes:
    """Approved recipes, by the key of a view."""

    def __init__(self, threads: Threads, settings: Settings) -> None:
        self._threads, self._settings = threads, settings

    async def recipe(self, recipe_key: str) -> Recipe:
        """See `connectors.ports.Recipes`."""
        recipe_id, _, tool_account_id = recipe_key.partition(":")
        return await self._threads.read(
            lambda session: read_recipe(session, self._settings, uuid.UUID(recipe_id), uuid.UUID(tool_account_id))
        )


def read_recipe(session: Any, settings: Settings, recipe_id: uuid.UUID, tool_account_id: uuid.UUID) -> Recipe:
    """A recipe with the hosts of one tool account."""
    row, account = session.get_one(RecipeText, recipe_id), session.get_one(ToolAccount, tool_account_id)
    return recipes.for_account(row, account, recipes.ground(settings, now=clock.now()))


class Door:
    """Coming in, going out, and a fresh login for those inside."""

    def __init__(self, threads: Threads, settings: Settings, told: DatabaseClock) -> None:
        self._threads, self._settings, self._clock = threads, settings, told

    async def admit(self, ticket: str, *, host: str, challenge: bytes) -> Admission | None:
        """See `connectors.ports.Door`."""

        def enter(session: Any) -> Admission | None:
            found = admissions.enter(session, ticket, host=host, challenge=challenge, now=clock.now())
            if found is None:
                return None
            landing = read_recipe(session, self._settings, found.recipe_id, found.tool_account_id).routes.landing
            return Admission(
                found.cookie, found.next_host, f"{self._settings.gateway_scheme}://{found.primary}{landing}"
            )

        return await self._threads.write(enter)

    async def renew(self, tool_session: str, *, generation: int, deadline: float) -> RenewResult:
        """See `connectors.ports.Door`. The engine does the work; this waits for the row to say so."""
        which = uuid.UUID(tool_session)
        began = await self._threads.write(
            lambda session: tool_sessions.renew(session, which, generation=generation, now=clock.now())
        )
        if began == "live":
            return RenewResult("live")
        while True:
            row = await self._threads.read(
                lambda session: session.execute(
                    select(ToolSession.state, ToolSession.code).where(ToolSession.id == which)
                ).one()
            )
            if row.state == "live":
                return RenewResult("live")
            if row.state == "needs_human":
                return RenewResult("needs_human", row.code)
            if row.state not in {"opening", "renewing"} or self._clock.now() >= deadline:
                return RenewResult("late")
            await asyncio.sleep(LOOK_S)

    async def leave(self, cookie_digest: bytes) -> None:
        """See `connectors.ports.Door`."""
        await self._threads.write(lambda session: gateway_sessions.leave(session, cookie_digest, now=clock.now()))


class Trail:
    """The access log and the alarms."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._touched: dict[uuid.UUID, float] = {}

    async def requests(self, rows: Sequence[AccessRow]) -> None:
        """See `connectors.ports.Trail`. Whoever asks for something is there: their idle limit moves."""
        now, at = clock.now(), time.monotonic()
        used = {uuid.UUID(row.gateway_session) for row in rows}
        late = sorted(one for one in used if at - self._touched.get(one, -TOUCH_S) >= TOUCH_S)
        stored = [
            {
                "id": ids.new_id(now), "created_at": now, "gateway_session_id": uuid.UUID(row.gateway_session),
                "at": datetime.fromtimestamp(row.at, UTC), "method": row.method[:16], "route": row.route.replace("\0", "")[:500],
                "status": row.status, "sent_bytes": row.sent_bytes, "rule": row.rule[:40],
            }
            for row in rows
        ]  # fmt: skip

        def store(session: Any) -> None:
            if late:
                gateway_sessions.touch(session, late, now=now)
            add_all(session, GatewayAccess, stored)

        await self._threads.write(store)
        if len(self._touched) > 50_000:
            self._touched.clear()
        self._touched.update(dict.fromkeys(late, at))

    async def alarm(self, code: str, **ids: str) -> None:
        """See `connectors.ports.Trail`."""
        log.error("gateway alarm", extra={"code": code, **ids})
        which = uuid.UUID(ids["gateway_session"])

        def store(session: Any) -> None:
            row = session.execute(
                select(
                    GatewaySession.company_id,
                    GatewaySession.account_id,
                    GatewaySession.application_id,
                    GatewaySession.tool_account_id,
                ).where(GatewaySession.id == which)
            ).one()
            record(
                session, Tag.GATEWAY_ALARM, actor=SYSTEM, now=clock.now(), result="refused", company_id=row.company_id,
                subject_id=row.account_id, application_id=row.application_id, tool_account_id=row.tool_account_id, code=code,
                gateway_session_id=which, recipe=ids.get("recipe"),
            )  # fmt: skip
            if code in WITHDRAWS:
                health.withdraw_certification(session, row.tool_account_id, code, actor=SYSTEM, now=clock.now())

        await self._threads.write(store)


class Process:
    """This gateway process in the eyes of the others."""

    def __init__(self, threads: Threads, bell: Bell, told: DatabaseClock) -> None:
        self._threads, self._bell, self._clock = threads, bell, told
        self._id: uuid.UUID | None = None

    async def enrol(self) -> None:
        """Before anything is served: the row, and the database's time."""
        self._id, told = await self._threads.write(processes.enrol)
        self._clock.set(told)

    async def swept(self, began_at: float) -> bool:
        """See `connectors.ports.Process`. After a lost lease the process begins anew: it holds nothing by then."""
        if self._id is None:
            await self.enrol()
            return True
        which, began = self._id, datetime.fromtimestamp(began_at, UTC)
        told = await self._threads.write(lambda session: processes.swept(session, which, began=began))
        if told is None:
            self._id = None
            return False
        self._clock.set(told)
        return True

    async def doorbell(self) -> None:
        """See `connectors.ports.Process`."""
        await self._bell.wait()

    async def stop(self) -> None:
        """Everything is closed, and no cut has to wait for this process."""
        if self._id is not None:
            which = self._id
            await self._threads.write(lambda session: processes.stopped(session, which))


class DatabasePorts:
    """Everything of one gateway process, made once."""

    def __init__(self, app: Flask, settings: Settings, vault: Vault) -> None:
        self._threads = Threads(app)
        self._bell = Bell(app.config["SQLALCHEMY_DATABASE_URI"])
        self.clock = DatabaseClock()
        self.process = Process(self._threads, self._bell, self.clock)
        self._live = Live(self._threads)
        self.all = GatewayPorts(
            live=self._live, jars=Jars(self._threads, vault), recipes=Recipes(self._threads, settings),
            door=Door(self._threads, settings, self.clock), trail=Trail(self._threads), process=self.process,
        )  # fmt: skip

    async def close(self) -> None:
        """After the gateway has closed everything."""
        await self.process.stop()
        await self._bell.close()
        self._threads.close()
        self._live.close()
