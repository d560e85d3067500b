"""One leased rotation, step by step at the tool (vault-and-gateway.md §4; VA-42, VA-43).

Each step is committed before the next thing is sent: NEW is sealed before anything is typed, `submitting` before the form
leaves, and *changed* is believed only after a login with NEW in a fresh context. NEW is never shown to anybody.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.orm import Session

from connectors.cookies import Jar
from connectors.engine.failures import Failed
from connectors.engine.rotation import MIN_TRIES_TO_START, TERMINAL, Event, State, may_start
from connectors.ports import Revealable
from connectors.recipes.password_rules import Rules, stricter
from idp.core import clock, ids
from idp.core.db import retrying
from idp.domain.credentials import rotations, service
from idp.domain.credentials.opening import NotOpened
from idp.domain.credentials.rotations import Held, Lost
from idp.domain.gateway import tool_sessions
from idp.domain.gateway.tickets import Purpose, issue_use_ticket
from idp.domain.tools import capability, health, tries
from idp.edges.tools.desk import JobDesk, Taken, TicketInvalid
from idp.edges.tools.holding import LeaseLost, beating
from idp.edges.tools.logins import NoTries
from idp.edges.tools.means import Means
from idp.ledgers.audit.log import SYSTEM
from vault import Secret

log = logging.getLogger(__name__)

Values = Mapping[str, Revealable]


class RotationRun:
    """A rotation while this engine holds it. What it opened stays in memory until it lets go, so that each is opened once."""

    def __init__(self, means: Means, taken: Taken, held: Held) -> None:
        self._means, self._taken, self._held = means, taken, held
        self._values: dict[int, Values] = {}
        self._old_jar: Jar | None = None
        self._new_jar: Jar | None = None
        self._waits = False

    async def run(self) -> str:
        """Go on until it is decided, has to wait, or needs a person. Returns the state it is left in."""
        self._account, self._recipe = await self._means.recipe(self._held.tool_account_id)
        handlers: dict[State, Callable[[], Awaitable[None]]] = {
            State.PLANNED: self._planned, State.PENDING: self._pending, State.VERIFYING: self._new_tried,
            State.UNCERTAIN: self._new_tried, State.OLD_LEFT: self._old_tried, State.PROMOTED: self._probed,
        }  # fmt: skip
        async with beating(self._extend):
            try:
                while not self._waits and self._held.state not in TERMINAL:
                    await handlers[self._held.state]()
            except Lost as lost:
                raise LeaseLost(str(lost)) from None
            except NoTries:
                await self._without_tries()
            except NotOpened as error:
                await self._not_opened(error)
            except TicketInvalid as invalid:
                raise LeaseLost(invalid.reason) from None
            finally:
                await self._leave_tool()
        return self._held.state.value

    async def _extend(self) -> bool:
        return await self._means.write(lambda session: rotations.extend(session, self._held, now=clock.now()))

    # --- states --------------------------------------------------------------------------------------------------------

    async def _planned(self) -> None:
        """OLD is opened for its other fields, NEW is made and sealed, and nothing is sent (C1)."""
        if self._recipe.password is None or self._recipe.password.change is None:
            await self._human("no_change_form")
        elif await self._may_start():
            await self._make_new(self._recipe.password.rules)

    async def _pending(self) -> None:
        """A fresh login with OLD (C2), then the tool's form: `submitting` is committed before it is sent (C3, C4)."""
        if not await self._may_start():
            return
        if self._last_event() is Event.RULE_BROKEN and self._recipe.password is not None:
            await self._make_new(stricter(self._recipe.password.rules))
        old, new = await self._open(self._held.old_version), await self._open(self._held.new_version or 0)
        try:
            self._old_jar = await self._log_in(old)
        except Failed as failed:
            if failed.code == "tool_away":
                await self._later(failed)
            else:
                await self._human(failed.code)
            return
        await self._change(old, new, self._old_jar)

    async def _change(self, old: Values, new: Values, jar: Jar) -> None:
        async def before_submit() -> None:
            if self._held.state is State.PENDING:
                await self._step(Event.OLD_WORKS)

        secret = new[self._recipe.secret_fields[0]]
        try:
            said = await self._means.http(self._recipe, old, before_submit).change(jar, secret)
        except Failed as failed:
            if self._held.state is State.SUBMITTING:
                await self._step(Event.UNCLEAR, code=failed.code)  # never submitted again (C5)
            elif failed.code == "tool_away":
                await self._later(failed)
            else:
                await self._human(failed.code)
            return
        words = {"changed": Event.SUBMITTED_OK, "rule_broken": Event.RULE_BROKEN, "unclear": Event.UNCLEAR}
        if self._held.state is State.SUBMITTING:
            await self._step(words[said], code=None if said == "changed" else said)
        else:  # the walk ended without a form that holds a secret: the recipe's steps do not change a password
            await self._human("recipe_drift")

    async def _new_tried(self) -> None:
        """NEW in a fresh context; only this makes it the password (C6, C7)."""
        try:
            self._new_jar = await self._log_in(await self._open(self._held.new_version or 0))
        except Failed as failed:
            if failed.code == "refused":
                await self._step(Event.NEW_REFUSED)
            elif failed.code != "tool_away":
                await self._human(failed.code)
            elif self._held.state is State.VERIFYING and not failed.submitted:
                # no try was used: once more at once, while the old session is at hand
                await self._step(Event.UNCLEAR, code=failed.code)
            else:
                await self._later(failed)
            return

        def promote(session: Session) -> Held:
            now = clock.now()
            tries.succeeded(session, self._held.tool_account_id)
            # the people inside wait for one new login each, and the old sessions are left at the tool
            tool_sessions.renew_all(session, self._held.tool_account_id, now=now)
            return rotations.step(session, self._held, Event.NEW_WORKS, now=now)

        self._held = await self._means.write(promote)

    async def _old_tried(self) -> None:
        """The tool did not take NEW: OLD once, so that one version is known to log in."""
        try:
            self._old_jar = await self._log_in(await self._open(self._held.old_version))
        except Failed as failed:
            if failed.code == "tool_away":
                await self._later(failed)
            else:
                await self._human(failed.code)
            return
        await self._step(Event.OLD_WORKS)

    async def _probed(self) -> None:
        """What is left with whoever knew OLD: the session made with it, and OLD itself (C8). What was not tried is said."""
        session_word, password_word = await self._old_session(), await self._old_password()
        account_id, ends = self._held.tool_account_id, {"refused": "at_once", "still_in": "never"}.get(session_word)

        def store(session: Session) -> Held:
            now = clock.now()
            if ends is not None:
                capability.measured(session, account_id, change_ends_sessions=ends, now=now)
            return rotations.step(
                session, self._held, Event.SIGNED_OUT, now=now, new_password="works",  # noqa: S106 - a word of the evidence
                old_session=session_word, old_password=password_word, sign_out_everywhere="not_in_recipe",
            )  # fmt: skip

        self._held = await self._means.write(store)

    async def _old_session(self) -> str:
        """`refused`, `still_in`, `unclear`, or `not_probed` after a restart: the jar lives in this process only."""
        if self._old_jar is None:
            return "not_probed"
        try:
            seen = await self._means.http(self._recipe, {}, _never).probe(self._old_jar)
        except Failed:
            return "unclear"
        return {"logged_out": "refused", "logged_in": "still_in"}.get(seen, "unclear")

    async def _old_password(self) -> str:
        """`refused`, `works`, `unclear`, or `not_probed` where the budget has no try for it."""
        if not await self._left():
            return "not_probed"
        old = await self._open(self._held.old_version)
        driver = self._means.driver(self._recipe, old, self._spend)
        try:
            jar = (await driver.login()).jar
        except Failed as failed:
            await self._settle()
            return "refused" if failed.code == "refused" else "unclear"
        except NoTries:
            return "not_probed"
        await self._out(jar)
        return "works"

    async def _settle(self) -> None:
        """The probe with OLD was a failure in the tool's count: a login with NEW makes it forget, and our own count with it."""
        with contextlib.suppress(Failed, NoTries):
            await self._out(await self._log_in(await self._open(self._held.new_version or 0)))

    # --- at the tool ---------------------------------------------------------------------------------------------------

    async def _log_in(self, values: Values) -> Jar:
        """One login in a fresh context. Raises Failed, NoTries."""
        result = await self._means.driver(self._recipe, values, self._spend).login()
        account_id = self._held.tool_account_id
        await self._means.write(lambda session: tries.succeeded(session, account_id))
        return result.jar

    async def _spend(self) -> None:
        """A try is counted under the lease before the password leaves. Raises NoTries, LeaseLost."""
        held, recipe = self._held, self._recipe

        def spend(session: Session) -> None:
            now = clock.now()
            if not tries.spend(session, held.tool_account_id, recipe, now=now, since=held.created_at):
                raise NoTries
            if not rotations.extend(session, held, now=now):
                raise LeaseLost

        await self._means.write(spend)

    async def _out(self, jar: Jar) -> None:
        with contextlib.suppress(Failed):  # it ends by age; nothing waits for it
            await self._means.http(self._recipe, {}, _never).log_out(jar)

    async def _leave_tool(self) -> None:
        """Our own logins of this rotation are over, whatever came of it."""
        for jar in (self._old_jar, self._new_jar):
            if jar is not None:
                await self._out(jar)
        self._old_jar = self._new_jar = None
        self._values.clear()

    # --- secrets -------------------------------------------------------------------------------------------------------

    async def _open(self, version: int) -> Values:
        """The fields of one version, with a ticket of its own, once per run."""
        if version not in self._values:
            held, account, means = self._held, self._account, self._means

            def issue(session: Session) -> str:
                ticket = issue_use_ticket(
                    session, means.ticket_key, purpose=Purpose.ROTATE, company_id=account.company_id, store_id=account.store_id,
                    tool_account_id=account.id, person=None, job_id=held.id, now=clock.now(),
                )  # fmt: skip
                return str(ticket)

            desk = JobDesk(
                means, self._taken, job_id=held.id, tool_account_id=account.id, purpose=Purpose.ROTATE, version=version,
                held=lambda now: rotations.is_held(held, now),
            )  # fmt: skip
            self._values[version] = await desk.open_fields(await means.write(issue))
        return self._values[version]

    async def _make_new(self, rules: Rules) -> None:
        """A password that satisfies the rules, beside OLD's other fields, sealed as the pending version."""
        old = await self._open(self._held.old_version)
        made = Secret(rules.generate(ids.below))
        fields = {
            name: made if name in self._recipe.secret_fields else Secret(value.reveal()) for name, value in old.items()
        }
        vault, account = self._means.vault, self._account
        fresh = await self._means.call(lambda: retrying(lambda: service.seal(vault, account, fields, now=clock.now())))
        held = self._held
        self._held = await self._means.write(lambda session: rotations.sealed(session, held, fresh, now=clock.now()))
        self._values[fresh.version] = fields

    # --- what the rows say -----------------------------------------------------------------------------------------------

    async def _step(self, event: Event, *, code: str | None = None) -> None:
        held = self._held
        self._held = await self._means.write(
            lambda session: rotations.step(session, held, event, now=clock.now(), code=code)
        )

    async def _later(self, failed: Failed) -> None:
        """The tool did not answer: again in a while, until the deadline or the last try."""
        if failed.submitted and not await self._left():
            await self._step(Event.UNCLEAR, code=failed.code)
            await self._without_tries()
            return
        held, now, code = self._held, clock.now(), failed.code
        wait = rotations.LATER[min(self._unclear_so_far(), len(rotations.LATER) - 1)]
        if failed.submitted:
            wait = max(wait, rotations.AFTER_A_TRY)
        if now + wait > held.deadline_at:
            await self._human(code)
            return

        def store(session: Session) -> Held:
            stepped = rotations.step(session, held, Event.UNCLEAR, now=clock.now(), code=code)
            rotations.wait(session, stepped, until=now + wait, code=code, now=clock.now())
            return stepped

        self._held = await self._means.write(store)
        self._waits = True

    async def _may_start(self) -> bool:
        """Whether the budget has room for OLD and NEW; else wait until it has. Once this rotation has used tries that proved
        nothing, time does not give them back: one must be left, or a person is asked."""
        held, recipe = self._held, self._recipe
        used = await self._means.read(
            lambda session: tries.was_used(session, held.tool_account_id, since=held.created_at)
        )
        if may_start(await self._left()) or (used and await self._left()):
            return True
        until = await self._means.read(
            lambda session: tries.again_at(session, held.tool_account_id, recipe, now=clock.now())
        )
        if used or until > held.deadline_at or recipe.login.attempts_max < MIN_TRIES_TO_START:
            await self._human("no_tries")
            return False
        await self._means.write(
            lambda session: rotations.wait(session, held, until=until, code="no_tries", now=clock.now())
        )
        self._waits = True
        return False

    async def _left(self) -> int:
        held, recipe = self._held, self._recipe
        return await self._means.read(
            lambda session: tries.left(session, held.tool_account_id, recipe, now=clock.now(), since=held.created_at)
        )

    async def _without_tries(self) -> None:
        """The budget ran out in the middle: before the submit that is a wait, after it a person decides (both versions kept)."""
        if self._held.state is State.PENDING:
            await self._may_start()
        else:
            await self._human("no_tries")

    async def _human(self, code: str) -> None:
        held, recipe = self._held, self._recipe

        def store(session: Session) -> Held:
            now = clock.now()
            tries.lock(session, held.tool_account_id)
            if code == "locked":
                tries.blocked(session, held.tool_account_id, recipe, now=now)
            health.degrade(session, held.tool_account_id, f"rotation_{code}"[:40], actor=SYSTEM, now=now)
            return rotations.needs_human(session, held, code, now=now)

        self._held = await self._means.write(store)

    async def _not_opened(self, error: NotOpened) -> None:
        """The vault is sealed or braked: later. Bytes that are not what was sealed: a person (the credential is locked)."""
        if error.code in {"vault_integrity", "not_deposited", "vault_key_shredded"}:
            await self._human(error.code)
            return
        held = self._held
        until = clock.now() + rotations.LATER[1]
        await self._means.write(
            lambda session: rotations.wait(session, held, until=until, code=error.code, now=clock.now())
        )

    def _last_event(self) -> Event | None:
        found = next((entry["event"] for entry in reversed(self._held.evidence) if "event" in entry), None)
        return Event(found) if found else None

    def _unclear_so_far(self) -> int:
        return sum(entry.get("event") == Event.UNCLEAR.value for entry in self._held.evidence)


async def _never() -> None:
    """A probe and a logout send no secret."""
    raise AssertionError("a secret would have been sent")
