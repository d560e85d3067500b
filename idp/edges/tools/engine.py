"""The login engine: one process that leases jobs and rotations and does them at the tools. No listening port (VA-30).

It opens passwords and jars, and no other secret; it speaks to the database, the root key provider and the declared hosts of
recipes. Several may run: what one does is held by a lease with a fence, and there is one worker at a tool account at a time.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from idp.core import clock
from idp.core.errors import SekishoError
from idp.domain.credentials import rotations
from idp.domain.credentials.rotations import Held
from idp.domain.gateway import login_jobs, tool_sessions
from idp.domain.gateway.models import GatewaySession, LoginJob, ToolSession
from idp.domain.tools import tries
from idp.edges.tools.desk import Taken
from idp.edges.tools.holding import LeaseLost
from idp.edges.tools.logins import LoginRun
from idp.edges.tools.means import Means
from idp.edges.tools.rotating import RotationRun

log = logging.getLogger(__name__)

POLL_S: Final = 0.25
SWEEP_S: Final = 5.0
#: what one open costs at most in the brake's count: a job opens one version, a rotation two
ROOM: Final = 4


class Engine:
    """The loop of one engine process."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self.taken = Taken()
        self._stopping = asyncio.Event()
        self._running: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Take nothing new; what is under way is finished (RE-44)."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`."""
        swept = -SWEEP_S
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                started = await self.step()
                if loop.time() - swept >= SWEEP_S:
                    swept = loop.time()
                    await self.sweep()
            except SekishoError as error:
                log.warning("engine step refused", extra={"why": error.private})
                started = 0
            except Exception:
                # the loop must outlive a database that is away for a minute; nothing is lost, rows stay waiting
                log.exception("engine step failed")
                started = 0
            if not started:
                await self._rest(POLL_S)
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def step(self) -> int:
        """Start what may start now. Returns how many jobs and rotations began."""
        free = self.means.settings.engine_slots - len(self._running)
        # a busy morning waits for the brake instead of tripping it (VA-32)
        free = min(free, self.means.brake.room(now=clock.now()) // ROOM)
        if free <= 0:
            return 0
        started = 0
        for job_id in await self.means.read(lambda session: login_jobs.due(session, now=clock.now(), limit=free)):
            started += await self._start_login(job_id)
        left = free - started
        for rotation_id, account_id in await self.means.read(
            lambda session: rotations.due(session, now=clock.now(), limit=left)
        ):
            started += await self._start_rotation(rotation_id, account_id)
        return started

    async def drain(self, *, rounds: int = 200) -> None:
        """Do everything that is due, one after the other: for tests and `sekisho engine --once`."""
        await self.sweep()
        for _ in range(rounds):
            if not await self.step():
                break
            await asyncio.gather(*self._running)

    async def _start_login(self, job_id: uuid.UUID) -> bool:
        key = self.means.ticket_key
        job = await self.means.write(lambda session: login_jobs.lease(session, key, job_id, now=clock.now()))
        if job is not None:
            self._begin(LoginRun(self.means, self.taken, job).run(), f"login job {job.id}")
        return job is not None

    async def _start_rotation(self, rotation_id: uuid.UUID, tool_account_id: uuid.UUID) -> bool:
        def lease(session: Session) -> Held | None:
            now = clock.now()
            tries.lock(session, tool_account_id)
            if login_jobs.is_busy(session, tool_account_id, now=now, login=False):
                return None  # one at a time at a tool account (VA-47)
            return rotations.lease(session, rotation_id, now=now)

        held = await self.means.write(lease)
        if held is not None:
            self._begin(RotationRun(self.means, self.taken, held).run(), f"rotation {rotation_id}")
        return held is not None

    def _begin(self, work: Coroutine[Any, Any, str], name: str) -> None:
        async def guarded() -> None:
            try:
                log.info("done", extra={"what": name, "result": await work})
            except LeaseLost:
                log.warning("lease lost; the result is thrown away", extra={"what": name})
            except SekishoError as error:
                log.warning("broken off; the lease will run out", extra={"what": name, "why": error.private})
            except Exception:
                log.exception("broken off; the lease will run out", extra={"what": name})

        task = asyncio.create_task(guarded())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- what the clock does -------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Jobs whose engine died, sessions that nobody uses or that are old, logouts that nobody asked for by a job."""
        for lost in await self.means.read(lambda session: login_jobs.lost(session, now=clock.now())):
            await self.means.write(lambda session, one=lost: login_jobs.give_up(session, one, now=clock.now()))  # type: ignore[misc]
        for waiting in await self.means.read(_ending_without_job):
            await self.means.write(
                lambda session, one=waiting: tool_sessions.put_job(session, one, kind="logout", now=clock.now())  # type: ignore[misc]
            )
        for row in await self.means.read(_live):
            await self._look_at(row)

    async def _look_at(self, row: Any) -> None:
        """Age and emptiness of a live session, against the limits of its recipe (§4)."""
        now = clock.now()
        _, recipe = await self.means.recipe(row.tool_account_id)
        idle = (now - (row.last_used or row.last_ok_at or row.created_at)).total_seconds()
        if not row.inside and idle >= 60 * recipe.session.idle_minutes:
            await self.means.write(
                lambda s: tool_sessions.end(s, ToolSession.id == row.id, reason="idle", now=clock.now())
            )
        elif row.ends_at <= now:
            # with nobody inside the lease turns this into a logout
            await self.means.write(
                lambda s: tool_sessions.renew_one(s, row.id, generation=row.generation, now=clock.now())
            )


def _ending_without_job(session: Session) -> Sequence[uuid.UUID]:
    open_job = select(LoginJob.id).where(LoginJob.tool_session_id == ToolSession.id, LoginJob.done_at.is_(None))
    return session.scalars(
        select(ToolSession.id)
        .where(ToolSession.state == "ending", ToolSession.ended_at.is_(None), ~open_job.exists())
        .order_by(ToolSession.id)
        .limit(100)
    ).all()


def _live(session: Session) -> Sequence[Any]:
    """Live sessions with whether somebody is inside, and when somebody last was."""
    last_used = (
        select(func.max(GatewaySession.last_seen_at))
        .where(GatewaySession.tool_session_id == ToolSession.id)
        .scalar_subquery()
    )
    return session.execute(
        select(
            ToolSession.id, ToolSession.tool_account_id, ToolSession.generation, ToolSession.created_at, ToolSession.last_ok_at,
            ToolSession.ends_at, last_used.label("last_used"), tool_sessions.somebody_inside(clock.now()).label("inside"),
        ).where(ToolSession.state == "live", ToolSession.ended_at.is_(None))
        .order_by(ToolSession.id)
    ).all()  # fmt: skip
