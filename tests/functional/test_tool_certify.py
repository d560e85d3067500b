"""`sekisho tool certify`: the fields through the desk, the try counted, a row for 90 days; the newest run holds (VA-41)."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select, update

from connectors.certify import NAMES
from connectors.engine.browser import CannotStart, chromium, executable
from idp.core import clock
from idp.core.db import change
from idp.core.errors import Conflict
from idp.domain.credentials.standing import standing
from idp.domain.gateway import login_jobs
from idp.domain.gateway.models import UseTicket
from idp.domain.tools import holds, recipes
from idp.domain.tools.models import Certification, ToolAccount
from idp.edges.tools.certifying import BUSY, LOST, certify_account
from idp.ledgers.audit.events import Tag
from tests.actors import CLI, World
from tests.conftest import REQUIRE_ALL
from tests.engine_room import room
from tests.fakes.device import PASSWORD, in_loop_for
from tests.fakes.tools.site import Site, running
from tests.functional.test_engine import audit


def test_VA_41_a_certification_is_a_row_with_its_evidence(world: World) -> None:
    """Passed: valid for 90 days. Then the tool drifts: the newest run failed, and nobody gets in any more."""
    try:
        executable(os.environ)
    except CannotStart as reason:
        if REQUIRE_ALL:
            raise
        pytest.skip(str(reason))

    @in_loop_for(90)
    async def run() -> None:
        site = Site({"login_id": "store-7", "password": PASSWORD})
        async with running(site), room(world.app, site) as on, chromium(sandbox=os.geteuid() != 0) as browser:
            means, login, busy = on.engine.means, site._login, list[bool]()

            async def looked_at(request: web.Request, body: bytes) -> web.Response:
                busy.append(
                    await means.read(lambda s: login_jobs.is_busy(s, on.account_id, now=clock.now(), login=True))
                )
                return await login(request, body)

            site._login = looked_at  # type: ignore[method-assign]
            found = await certify_account(means, browser, on.account_id, actor=CLI, pages=("/live",))
            assert busy
            assert all(busy), "VA-47: no engine logs in beside it"
            assert (await on.account()).held_until is None
            (row,) = await means.read(lambda s: list(s.scalars(select(Certification))))
            assert row.expires_at - row.run_at == timedelta(days=90)
            assert [check["check"] for check in row.checks][: len(NAMES)] == list(NAMES)
            assert row.result == ("passed" if found.certified else "failed")
            assert row.evidence_digest == found.evidence_digest
            assert PASSWORD not in str(row.checks)
            (ticket,) = await means.read(lambda s: list(s.scalars(select(UseTicket))))
            assert (ticket.purpose, ticket.used_at is None) == ("probe", False)
            assert (await on.account()).tries == 0
            site.renamed = True
            assert not (await certify_account(means, browser, on.account_id, actor=CLI)).certified
            on_ground = recipes.ground(on.settings, now=clock.now())
            stands = await means.read(lambda s: standing(s, [on.account_id], on_ground, now=clock.now())[on.account_id])
            assert stands.certification == "withdrawn"
            assert len(await audit(on, Tag.CERTIFICATION_RUN)) == 2
            await on.plan()
            await on.call(lambda s: setattr(s.get_one(type(on.at.account), on.account_id), "tries", 2))
            await on.call(lambda s: setattr(s.get_one(type(on.at.account), on.account_id), "tries_since", clock.now()))
            with pytest.raises(Conflict):
                await certify_account(means, browser, on.account_id, actor=CLI)
            assert (await on.account()).held_until is None

    run()


@in_loop_for(90)
async def _lost(world: World) -> None:
    site = Site({"login_id": "store-7", "password": PASSWORD})
    async with running(site), room(world.app, site) as on:
        means, login = on.engine.means, site._login

        async def somebody_else_takes_it(request: web.Request, body: bytes) -> web.Response:
            row, now = ToolAccount.id == on.account_id, clock.now()
            await on.call(lambda s: change(s, update(ToolAccount).where(row).values(held_until=now)))
            assert await on.call(lambda s: holds.take(s, on.account_id, now=now)) is not None
            return await login(request, body)

        site._login = somebody_else_takes_it  # type: ignore[method-assign]
        no_browser: Any = None  # it never comes to looking at pages
        with pytest.raises(Conflict) as lost:
            await certify_account(means, no_browser, on.account_id, actor=CLI)
        assert lost.value.public == LOST
        assert [hit.method for hit in site.hits] == ["GET"], "nothing was sent"
        account = await on.account()
        assert (account.tries, account.held_until is None) == (0, False), "what somebody else holds stays theirs"
        assert await means.read(lambda s: list(s.scalars(select(Certification)))) == []
        with pytest.raises(Conflict) as busy:
            await certify_account(means, no_browser, on.account_id, actor=CLI)
        assert busy.value.public == BUSY


def test_VA_47_a_certification_that_lost_the_account_sends_and_keeps_nothing(world: World) -> None:
    """It slept, and another process has the account: the password is not sent, no try is counted, no result is stored."""
    _lost(world)
