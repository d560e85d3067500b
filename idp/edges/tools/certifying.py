"""One certification of a tool account, held alone: the fields through the desk, the try counted, the result stored (VA-41, VA-47)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from connectors.certify import Certification as Found
from connectors.recipes.model import Recipe
from idp.core import clock, ids
from idp.core.errors import Conflict
from idp.domain.gateway import login_jobs
from idp.domain.gateway.tickets import Purpose, issue_use_ticket
from idp.domain.tools import certifications, holds, tries
from idp.domain.tools.holds import Hold
from idp.domain.tools.models import ToolAccount
from idp.edges.tools.desk import JobDesk, Taken
from idp.edges.tools.holding import LeaseLost, beating
from idp.edges.tools.means import Means, seconds
from idp.ledgers.audit.log import Actor

if TYPE_CHECKING:
    from playwright.async_api import Browser

BUSY = "このアカウントは、いま使っています。1分ほど待って、もう一度試してください。"
NO_TRIES = "ログインの試行回数が残っていません。しばらく待って、もう一度試してください。"
LOST = "確かめている途中で、このアカウントがほかの処理に使われました。結果は残していません。もう一度試してください。"


async def certify_account(
    means: Means, browser: Browser, tool_account_id: uuid.UUID, *, actor: Actor, pages: tuple[str, ...] = ()
) -> Found:
    """Run every check and keep the result. Raises Conflict (somebody works at the account, or its tries are used up), and NotOpened when the vault does not open the fields.

    pages: further pages of the tool to look at, such as the one that opens a WebSocket. Meanwhile no engine logs in there; a
    process that dies in here holds the account for 20 s.
    """
    account, recipe = await means.recipe(tool_account_id)
    run = CertifyRun(means, account, recipe, ids.new_id(clock.now()))
    hold, ticket = await means.write(run.begin)
    try:
        async with beating(lambda: means.write(lambda session: holds.extend(session, hold, now=clock.now()))):
            return await run.under(hold, ticket, browser, actor=actor, pages=pages)
    except LeaseLost:
        raise Conflict(LOST, f"the hold of tool account {account.id} was lost") from None
    finally:
        await means.write(lambda session: holds.release(session, hold, now=clock.now()))


@dataclass(frozen=True)
class CertifyRun:
    """One run at one account. id: stands for a job in its use-ticket."""

    means: Means
    account: ToolAccount
    recipe: Recipe
    id: uuid.UUID

    def begin(self, session: Session) -> tuple[Hold, str]:
        """Take the account, with a ticket for its fields. Raises Conflict."""
        now, account = clock.now(), self.account
        tries.lock(session, account.id)
        hold = None if login_jobs.is_busy(session, account.id, now=now, login=True) else holds.take(session, account.id, now=now)  # fmt: skip
        if hold is None:
            raise Conflict(BUSY, f"tool account {account.id}")
        if not tries.left(session, account.id, self.recipe, now=now):
            raise Conflict(NO_TRIES, f"tool account {account.id}")
        ticket = issue_use_ticket(
            session, self.means.ticket_key, purpose=Purpose.PROBE, company_id=account.company_id, store_id=account.store_id,
            tool_account_id=account.id, person=None, job_id=self.id, now=now,
        )  # fmt: skip
        return hold, str(ticket)

    async def under(self, hold: Hold, ticket: str, browser: Browser, *, actor: Actor, pages: tuple[str, ...]) -> Found:
        """The checks, and their result while the account is still held. Raises LeaseLost: nothing was kept."""
        from connectors.certify import certify  # noqa: PLC0415 - it drives a browser, and Playwright is optional

        means, account = self.means, self.account
        desk = JobDesk(
            means, Taken(), job_id=self.id, tool_account_id=account.id, purpose=Purpose.PROBE,
            held=lambda now: holds.is_held(hold, now),
        )  # fmt: skip
        values = await desk.open_fields(ticket)

        def spend(session: Session) -> None:
            now = clock.now()
            if not tries.spend(session, account.id, self.recipe, now=now):
                raise Conflict(NO_TRIES, f"tool account {account.id}")
            if not holds.extend(session, hold, now=now):
                raise LeaseLost

        found = await certify(
            self.recipe, values, browser=browser, now=seconds, new_secret=ids.new_secret, loopback=means.loopback,
            before_submit=lambda: means.write(spend), pages=pages,
        )  # fmt: skip

        def keep(session: Session) -> None:
            now = clock.now()
            tries.lock(session, account.id)
            if not holds.release(session, hold, now=now):
                raise LeaseLost
            if found.check("login").code is None:
                tries.succeeded(session, account.id)
            certifications.store(session, account.id, found, actor=actor, now=now)

        await means.write(keep)
        return found
