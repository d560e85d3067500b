"""The door to tools: each claim of it with the test that goes red without it (D7)."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import update

from connectors.cookies import Jar
from idp.core import clock
from idp.core.db import transaction
from idp.domain.gateway import admissions, jars, processes
from idp.domain.gateway.models import GatewayProcess, GatewaySession, ToolSession
from idp.domain.tools.models import ToolAccount
from idp.edges.tools.ports import Jars
from idp.edges.tools.threads import Threads
from idp.services import GATEWAY_OPENS, build_vault
from tests.race.arena import CHALLENGE, Arena


def waiting(arena: Arena) -> tuple[str, str]:
    """Somebody with a ticket, and the host it is for."""
    browser = arena.logged_in(arena.person())
    host = arena.waits(browser)
    return arena.asks_ticket(browser, host), host


@pytest.mark.guards("idp.domain.gateway.gateway_sessions.claim_gate")
def test_VA_51_a_ticket_is_nothing_without_its_session(arena: Arena) -> None:
    """The session ended alone: a write that forgot the ticket must not matter, because the gate is claimed first."""
    ticket, host = waiting(arena)
    label = host.partition(".")[0].rpartition("-")[2]
    with arena.app.app_context(), transaction() as session:
        session.execute(update(GatewaySession).where(GatewaySession.label == label).values(ended_at=clock.now()))
    assert arena.enters(ticket, host) == ""


@pytest.mark.guards("idp.domain.gateway.admissions.enter")
def test_VA_51_a_ticket_lives_a_minute_and_is_used_once(arena: Arena) -> None:
    ticket, host = waiting(arena)
    with arena.app.app_context(), transaction() as session:
        late = clock.now() + admissions.TICKET_LIFE
        assert admissions.enter(session, ticket, host=host, challenge=CHALLENGE, now=late) is None
        assert admissions.enter(session, ticket, host=host, challenge=b"x" * 32, now=clock.now()) is None
    cookie = arena.enters(ticket, host)
    assert arena.is_inside(cookie)
    assert arena.enters(ticket, host) == ""
    assert not arena.is_inside(cookie), "a ticket that comes a second time ends the session: one of the two is a thief"


@pytest.mark.guards("idp.domain.gateway.processes.swept")
def test_a_process_whose_lease_lapsed_is_told_so(arena: Arena) -> None:
    """Others may have counted it as gone, and a receipt may say so: it must close everything before it goes on."""
    with arena.app.app_context():
        with transaction() as session:
            mine, told = processes.enrol(session)
        with transaction() as session:
            assert processes.swept(session, mine, began=told) is not None
            session.execute(
                update(GatewayProcess).where(GatewayProcess.id == mine).values(lease_until=told - timedelta(days=1))
            )
        with transaction() as session:
            assert processes.swept(session, mine, began=told) is None


@pytest.mark.guards("idp.edges.tools.ports.Jars.save")
def test_a_jar_is_stored_over_the_version_that_was_seen(arena: Arena) -> None:
    """Two gateways changed the same jar: the second one is told, merges and tries again. While a login is under way neither writes."""
    arena.toolbox  # noqa: B018 - made at the first use
    now, row_id, owner = clock.now(), uuid.uuid4(), arena.person().id
    with arena.app.app_context():
        vault = build_vault(arena.world.services.settings, opens=GATEWAY_OPENS)
        with transaction() as session:
            account = session.query(ToolAccount).filter(ToolAccount.application_id == arena.tool).one()
            session.add(
                ToolSession(
                    id=row_id, created_at=now, company_id=account.company_id, tool_account_id=account.id, account_id=owner, state="live",
                    generation=1, jar_version=1, ends_at=now + timedelta(hours=1), jar_sealed=b"",
                )
            )  # fmt: skip
            session.flush()
            session.expunge(account)
        sealed = jars.seal_jar(vault, jars.Place(account, row_id), Jar(user_agent="a"), version=1)
        with transaction() as session:
            session.execute(update(ToolSession).where(ToolSession.id == row_id).values(jar_sealed=sealed))
    threads = Threads(arena.app)

    async def story() -> list[bool]:
        ports = Jars(threads, vault)
        jar = (await ports.load(str(row_id))).jar
        found = [await ports.save(str(row_id), jar, seen_version=1), await ports.save(str(row_id), jar, seen_version=1)]
        assert (await ports.load(str(row_id))).version == 2
        await threads.write(
            lambda s: s.execute(update(ToolSession).where(ToolSession.id == row_id).values(state="renewing"))
        )
        return [*found, await ports.save(str(row_id), jar, seen_version=2)]

    try:
        assert asyncio.run(story()) == [True, False, False]
    finally:
        threads.close()
