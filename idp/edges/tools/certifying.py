"""One certification of a tool account: the fields through the desk, the try counted, the result stored (VA-41)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import true
from sqlalchemy.orm import Session

from connectors.certify import Certification as Found
from idp.core import clock, ids
from idp.core.errors import Conflict
from idp.domain.gateway import login_jobs
from idp.domain.gateway.tickets import Purpose, issue_use_ticket
from idp.domain.tools import certifications, tries
from idp.edges.tools.desk import JobDesk, Taken
from idp.edges.tools.means import Means, seconds
from idp.ledgers.audit.log import Actor

if TYPE_CHECKING:
    from playwright.async_api import Browser

BUSY = "このアカウントは、いま使っています。1分ほど待って、もう一度試してください。"


async def certify_account(
    means: Means, browser: Browser, tool_account_id: uuid.UUID, *, actor: Actor, pages: tuple[str, ...] = ()
) -> Found:
    """Run every check and keep the result. Raises Conflict (somebody works at the account, or its tries are used up), and NotOpened when the vault does not open the fields.

    pages: further pages of the tool to look at, such as the one that opens a WebSocket.
    """
    from connectors.certify import certify  # noqa: PLC0415 - it drives a browser, and Playwright is optional

    account, recipe = await means.recipe(tool_account_id)
    run_id = ids.new_id(clock.now())

    def begin(session: Session) -> str:
        now = clock.now()
        tries.lock(session, account.id)
        if login_jobs.is_busy(session, account.id, now=now, login=True):
            raise Conflict(BUSY, f"tool account {account.id}")
        if not tries.left(session, account.id, recipe, now=now):
            raise Conflict(
                "ログインの試行回数が残っていません。しばらく待って、もう一度試してください。",
                f"tool account {account.id}",
            )
        return str(
            issue_use_ticket(
                session, means.ticket_key, purpose=Purpose.PROBE, company_id=account.company_id, store_id=account.store_id,
                tool_account_id=account.id, person=None, job_id=run_id, now=now,
            )
        )  # fmt: skip

    ticket = await means.write(begin)
    desk = JobDesk(
        means, Taken(), job_id=run_id, tool_account_id=account.id, purpose=Purpose.PROBE, held=lambda _now: true()
    )
    values = await desk.open_fields(ticket)

    async def before_submit() -> None:
        def spend(session: Session) -> None:
            if not tries.spend(session, account.id, recipe, now=clock.now()):
                raise Conflict(
                    "ログインの試行回数が残っていません。しばらく待って、もう一度試してください。",
                    f"tool account {account.id}",
                )

        await means.write(spend)

    found = await certify(
        recipe, values, browser=browser, now=seconds, new_secret=ids.new_secret, loopback=means.loopback,
        before_submit=before_submit, pages=pages,
    )  # fmt: skip

    def keep(session: Session) -> None:
        if found.check("login").code is None:
            tries.succeeded(session, account.id)
        certifications.store(session, account.id, found, actor=actor, now=clock.now())

    await means.write(keep)
    return found
