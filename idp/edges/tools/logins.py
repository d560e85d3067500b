"""One leased login job, from its ticket to the state of the tool session (vault-and-gateway.md §4, §7; VA-47).

What decides is always the database under the lease: the try and `submitted_at` are committed before a secret is sent, and a
login whose session is no longer wanted when it comes back is logged out at the tool instead of being stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from connectors.cookies import Jar
from connectors.engine import jobs
from connectors.engine.failures import Failed
from connectors.engine.jobs import Driver, Outcome
from connectors.engine.outcome import LoginResult
from connectors.ports import Revealable
from connectors.recipes.model import Recipe
from idp.core import clock
from idp.core.db import change, retrying
from idp.core.errors import SekishoError
from idp.domain.credentials.models import CredentialVersion, SealedCredential
from idp.domain.credentials.opening import NotOpened
from idp.domain.gateway import jars, login_jobs, tool_sessions
from idp.domain.gateway.login_jobs import WAITING_FOR_LOGIN, Job
from idp.domain.gateway.models import ToolSession
from idp.domain.tools import health, tries
from idp.domain.tools.models import ToolAccount
from idp.edges.tools.desk import JobDesk, Taken, TicketInvalid
from idp.edges.tools.holding import LeaseLost, beating
from idp.edges.tools.means import Means
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, record
from idp.services import record_open_patiently
from vault import VaultError

log = logging.getLogger(__name__)

#: the tool is not what the recipe says: its certification no longer holds
DRIFT: Final = frozenset(
    {"recipe_drift", "ambiguous_field", "unexpected_field", "check_unproven", "origin_mismatch", "secret_in_url"}
)
#: the vault will open again by itself, or the person is gone: the next launch may try, nobody has to look at the tool
PASSING: Final = frozenset({"open_not_recorded", "vault_sealed", "open_brake", "ticket_invalid"})


class NoTries(Exception):
    """The budget of the tool account is used up: nothing was sent."""


@dataclass
class LoginRun:
    """One job with everything around it. account, recipe: read when it runs."""

    means: Means
    taken: Taken
    job: Job
    account: ToolAccount = field(init=False)
    recipe: Recipe = field(init=False)

    async def run(self) -> str:
        """Do the job. Returns its result word, which is also stored."""
        self.account, self.recipe = await self.means.recipe(self.job.tool_account_id)
        async with beating(self._extend):
            return await (self._log_in() if self.job.task == "login" else self._leave())

    async def _extend(self) -> bool:
        return await self.means.write(lambda session: login_jobs.extend(session, self.job, now=clock.now()))

    # --- login -------------------------------------------------------------------------------------------------------

    async def _log_in(self) -> str:
        try:
            if self.account.state != "active":
                return await self._failed(self.account.code or "tool_degraded", passing=False)
            outcome = await self._attempt()
        except NoTries:
            return await self._failed("locked" if self.account.blocked_until else "no_tries", passing=False)
        except TicketInvalid as invalid:
            return await self._unwanted(invalid)
        except NotOpened as error:
            return await self._failed(error.code, passing=error.code in PASSING)
        if outcome.result is not None:
            return await self._succeeded(outcome.result)
        return await self._failed(outcome.code or "recipe_drift", passing=outcome.state == "ended")

    async def _attempt(self) -> Outcome:
        job, device = self.job, await self._device()
        if not await self.means.read(lambda s: tries.left(s, job.tool_account_id, self.recipe, now=clock.now())):
            raise NoTries  # before the ticket: nothing is opened for a login that may not be sent
        desk = JobDesk(
            self.means,
            self.taken,
            job_id=job.id,
            tool_account_id=job.tool_account_id,
            purpose=job.purpose,
            held=self._held,
        )
        sent = False

        async def before_submit() -> None:
            nonlocal sent
            await self.means.write(self._submitting)
            sent = True

        def make(values: Mapping[str, Revealable]) -> Driver:
            return self.means.driver(self.recipe, values, before_submit, device)

        left = (job.deadline_at - clock.now()).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await jobs.log_in(desk, str(job.ticket_id), self.recipe, make, sleep=self.means.sleep)
        except TimeoutError:
            return Outcome(None, "tool_away", "needs_human" if sent else "ended", submitted=sent)
        except Failed as failed:  # the driver could not be made
            return Outcome(None, failed.code, "needs_human", submitted=False)

    def _held(self, now: datetime) -> ColumnElement[bool]:
        return login_jobs.held(self.job, now)

    def _submitting(self, session: Session) -> None:
        """`submitted_at` and the try, in one transaction, before anything is sent. Raises LeaseLost, NoTries."""
        now = clock.now()
        if not tries.spend(session, self.job.tool_account_id, self.recipe, now=now):
            raise NoTries
        if not login_jobs.submitting(session, self.job, now=now):
            raise LeaseLost

    async def _device(self) -> Jar | None:
        """Cookies by which the tool remembers us, of the login before."""
        stored = await self.means.read(lambda session: _sealed(session, self.job))
        if stored is None or stored.device_sealed is None:
            return None
        place, sealed, generation = self._place(), stored.device_sealed, stored.generation
        return await self.means.call(
            lambda: jars.open_device(
                self.means.vault, place, sealed, generation=generation, record=record_open_patiently
            )
        )

    async def _succeeded(self, result: LoginResult) -> str:
        job, place = self.job, self._place()
        before = await self.means.read(lambda session: _sealed(session, job))
        version, generation = (before.jar_version if before else 0) + 1, job.generation + 1

        def seal() -> dict[str, Any]:
            vault = self.means.vault
            device = (
                jars.seal_device(vault, place, result.device, generation=generation) if len(result.device) else None
            )
            return {
                "jar_sealed": jars.seal_jar(vault, place, result.jar, version=version), "jar_version": version,
                "scan_sealed": jars.seal_scan(vault, place, result.scan, generation=generation), "device_sealed": device,
            }  # fmt: skip

        try:
            sealed = await self.means.call(lambda: retrying(seal))
        except VaultError as error:
            return await self._discard(result.jar, error.code)
        try:
            kept = await self.means.write(lambda session: self._keep(session, sealed, generation))
        except LeaseLost:
            await self._log_out(result.jar)  # nobody will ever know this login: out of the tool again
            raise
        if not kept:
            return await self._discard(result.jar, "discarded")
        await self._leave_old(before)
        return "live"

    def _keep(self, session: Session, sealed: Mapping[str, Any], generation: int) -> bool:
        """The session is live with this jar, if it still waits for exactly this login under this lease."""
        job, now = self.job, clock.now()
        tries.succeeded(session, job.tool_account_id)
        went = tool_sessions.move(
            session, job.tool_session_id, WAITING_FOR_LOGIN, generation=job.generation, generation_to=generation, now=now,
            state="live", code=None, last_ok_at=now, ends_at=now + timedelta(hours=self.recipe.session.max_hours), **sealed,
        )  # fmt: skip
        if not went:
            return False
        if not login_jobs.finish(session, job, result="live", now=now):
            raise LeaseLost
        _proven(session, job, now=now)
        self._log(session, Tag.TOOL_LOGIN, now=now, code="live", generation=generation)
        return True

    async def _leave_old(self, before: ToolSession | None) -> None:
        """A login that replaced a working one (new password, maximum age): the old session is logged out at the tool.

        Not where the tool itself keeps one session per account, nor after the tool had logged us out: there is nothing left.
        """
        if (
            before is None
            or before.jar_sealed is None
            or self.recipe.session.single
            or _asked_by_gateway(before, self.job)
        ):
            return
        jar = await self._open_jar(before)
        if jar is not None:
            with contextlib.suppress(Failed):  # the old session ends by age; nobody waits for it
                await self.means.http(self.recipe, {}, _never).log_out(jar)

    async def _discard(self, jar: Jar, code: str) -> str:
        """Nobody wants this login any more: out of the tool again, and nothing of it is kept."""
        gone = await self._log_out(jar)
        return await self._ended(f"{code}_{gone}")

    # --- what did not go well ------------------------------------------------------------------------------------------

    async def _failed(self, code: str, *, passing: bool) -> str:
        def store(session: Session) -> None:
            job, now = self.job, clock.now()
            tries.lock(session, job.tool_account_id)
            if code == "locked":
                tries.blocked(session, job.tool_account_id, self.recipe, now=now)
            values = (
                {"state": "ended", "end_reason": code, **tool_sessions.SHREDDED} if passing else {"state": "needs_human", "code": code}
            )  # fmt: skip
            tool_sessions.move(
                session, job.tool_session_id, WAITING_FOR_LOGIN, generation=job.generation, now=now, **values
            )
            if not passing:
                health.degrade(session, job.tool_account_id, code, actor=SYSTEM, now=now)
            if code in DRIFT:
                health.withdraw_certification(session, job.tool_account_id, code, actor=SYSTEM, now=now)
            if not login_jobs.finish(session, job, result=code, now=now):
                raise LeaseLost
            self._log(session, Tag.TOOL_LOGIN, now=now, result="refused", code=code)
            self._end_if_cut(session, now=now)

        await self.means.write(store)
        return code

    async def _unwanted(self, invalid: TicketInvalid) -> str:
        """The ticket opened nothing. Somebody else may be waiting for the same login: then it is done for them."""

        def store(session: Session) -> None:
            job, now = self.job, clock.now()
            tries.lock(session, job.tool_account_id)
            if not login_jobs.finish(session, job, result=invalid.code, now=now):
                raise LeaseLost
            self._log(session, Tag.TOOL_LOGIN, now=now, result="refused", code=invalid.code)
            inside = select(ToolSession.id).where(
                ToolSession.id == job.tool_session_id, tool_sessions.somebody_inside(now)
            )
            if invalid.reason in {"gate_closed", "void", "late"} and session.scalar(inside) is not None:
                tool_sessions.put_job(session, job.tool_session_id, kind="renew", now=now)
                return
            tool_sessions.move(
                session, job.tool_session_id, WAITING_FOR_LOGIN, now=now, state="ended", end_reason=invalid.code, **tool_sessions.SHREDDED
            )  # fmt: skip
            self._end_if_cut(session, now=now)

        await self.means.write(store)
        return invalid.code

    def _end_if_cut(self, session: Session, *, now: datetime) -> None:
        """A cut came while the job ran: there is a jar of an earlier login at most, and it is logged out by a job of its own."""
        tool_sessions.put_job_if_ending(session, self.job.tool_session_id, now=now)

    # --- logout --------------------------------------------------------------------------------------------------------

    async def _leave(self) -> str:
        """Send the tool's logout and look whether it refuses the jar; then the jar is gone, whatever it said."""
        stored = await self.means.read(lambda session: _sealed(session, self.job))
        if stored is None or stored.jar_sealed is None:
            return await self._ended("no_jar")
        jar = await self._open_jar(stored)
        if jar is None:
            return await self._ended("jar_unreadable")
        return await self._ended(await self._log_out(jar))

    async def _log_out(self, jar: Jar) -> str:
        """`logged_out` when the probe then refuses the jar, `still_in`, or `tool_away`."""
        word = "tool_away"
        for wait in (0.0, *jobs.WAITS_S):
            if wait:
                await self.means.sleep(wait)
            try:
                gone = await self.means.http(self.recipe, {}, _never).log_out(jar)
            except Failed as failed:
                word = failed.code
                continue
            return "logged_out" if gone else "still_in"
        return word

    async def _ended(self, result: str) -> str:
        def store(session: Session) -> None:
            job, now = self.job, clock.now()
            tries.lock(session, job.tool_account_id)
            tool_sessions.move(
                session,
                job.tool_session_id,
                (*WAITING_FOR_LOGIN, "ending"),
                now=now,
                state="ended",
                **tool_sessions.SHREDDED,
            )
            if not login_jobs.finish(session, job, result=result, now=now):
                raise LeaseLost
            self._log(session, Tag.TOOL_SESSION_ENDED, now=now, code=result)

        await self.means.write(store)
        return result

    # --- small things --------------------------------------------------------------------------------------------------

    async def _open_jar(self, stored: ToolSession) -> Jar | None:
        sealed, version, place = stored.jar_sealed, stored.jar_version, self._place()
        if sealed is None:
            return None
        try:
            return await self.means.call(
                lambda: jars.open_jar(self.means.vault, place, sealed, version=version, record=record_open_patiently)
            )
        except (VaultError, SekishoError):
            log.exception("a jar does not open", extra={"tool_session": str(stored.id)})
            return None

    def _place(self) -> jars.Place:
        return jars.Place(self.account, self.job.tool_session_id)

    def _log(self, session: Session, tag: Tag, *, now: datetime, result: str = "ok", **detail: Any) -> None:
        job = self.job
        application_id = session.scalar(select(ToolAccount.application_id).where(ToolAccount.id == job.tool_account_id))
        record(
            session, tag, actor=SYSTEM, now=now, result=result, company_id=job.company_id, store_id=job.store_id,
            application_id=application_id, tool_account_id=job.tool_account_id, tool_session_id=job.tool_session_id,
            job_id=job.id, ticket_id=job.ticket_id, purpose=job.purpose.value, **detail,
        )  # fmt: skip


async def _never() -> None:
    """A logout and a probe send no secret."""
    raise AssertionError("a secret would have been sent")


def _sealed(session: Session, job: Job) -> ToolSession | None:
    return session.scalar(
        select(ToolSession).where(ToolSession.id == job.tool_session_id, ToolSession.ended_at.is_(None))
    )


def _asked_by_gateway(before: ToolSession, job: Job) -> bool:
    """The renewal followed a logged-out page; then the job was made at the same instant."""
    return before.renewed_at is not None and before.renewed_at == job.created_at


def _proven(session: Session, job: Job, *, now: datetime) -> None:
    """The current version of the credential logged in just now."""
    current = select(SealedCredential.id).where(
        SealedCredential.tool_account_id == job.tool_account_id,
        SealedCredential.current_version == CredentialVersion.version,
    )
    change(session, update(CredentialVersion).where(CredentialVersion.credential_id.in_(current)).values(proven_at=now))
