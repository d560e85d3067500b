"""The login engine with its database, against tools with every habit (VA-30, VA-32, VA-47; vault-and-gateway.md §4, §7, §11)."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from connectors.scanset import Patterns
from idp.core import clock
from idp.core.db import change
from idp.domain.credentials.models import CredentialVersion, SealedCredential
from idp.domain.gateway import jars, login_jobs, tool_sessions
from idp.domain.gateway.models import GatewaySession, LoginJob, ToolSession, UseTicket
from idp.domain.gateway.tickets import Person
from idp.domain.tools.models import Certification
from idp.edges.tools.desk import TicketInvalid
from idp.edges.tools.logins import LoginRun
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.services import record_open_patiently
from tests.actors import World
from tests.engine_room import Room, room
from tests.fakes.device import PASSWORD, in_loop
from tests.fakes.tools.site import SESSION, Site, running
from vault import ClassRefused

NUMBERS = itertools.count(1)
STORE = {"login_id": "store-7", "password": PASSWORD}
PERSONAL = {"sharing: shared": "sharing: per-person"}


async def audit(on: Room, *tags: Tag) -> list[Any]:
    """Rows of these tags, in order."""
    query = select(AuditEvent).where(AuditEvent.tag.in_([tag.value for tag in tags])).order_by(AuditEvent.id)
    return await on.engine.means.read(lambda session: list(session.scalars(query)))


async def jar_of(on: Room, tool_session_id: uuid.UUID) -> dict[str, str]:
    """The sealed jar, opened as the gateway would."""
    stored = await on.row(ToolSession, tool_session_id)
    account = on.at.account
    place = jars.Place(account, tool_session_id)
    jar = await on.engine.means.call(
        lambda: jars.open_jar(
            on.vault, place, stored.jar_sealed, version=stored.jar_version, record=record_open_patiently
        )
    )
    return dict(jar.values())


def person(world: World, on: Room) -> Person:
    """Somebody new who stands at the tool's door."""
    return on.at.enter(world.person(f"{next(NUMBERS):04}").id)


TOOLS = {
    "1 plain form": Site(STORE, csrf=False),
    "2 hidden fields": Site(STORE),
    "3 two pages": Site(STORE, two_pages=True),
    "4 three fields in cp932": Site({"corp_cd": "T-100", "login_id": "渋谷7", "password": PASSWORD}, charset="cp932"),
    "14 basic": Site({"login_id": "store-7", "password": "Passw0rd-basic"}, basic=True),
}


def test_VA_30_a_launch_logs_in_and_seals_what_the_gateway_needs(world: World) -> None:
    """Tools 1 to 4 and 14: live, generation 1, jar and scan set sealed; two rows say who opened what for whom; no value leaks."""

    @in_loop
    async def run() -> None:
        someone = world.person()
        for name, site in TOOLS.items():
            async with running(site), room(world.app, site) as on:
                who = on.at.enter(someone.id)
                opened = await on.open(who)
                await on.settle()
                assert await on.state(opened) == ("live", None), name
                row = await on.row(ToolSession, opened)
                assert (row.generation, row.jar_version) == (1, 1)
                if not site.basic:
                    assert (await jar_of(on, opened))[SESSION] in site.sessions
                scan = await on.engine.means.call(
                    lambda on=on, row=row: jars.open_scan(  # type: ignore[misc]
                        on.vault, jars.Place(on.at.account, row.id),
                        row.scan_sealed, generation=1, record=record_open_patiently,
                    )
                )  # fmt: skip
                assert Patterns(scan=scan).found_in(site.credentials["password"].encode()), name
                assert (await on.account()).tries == 0
                rows = await audit(on, Tag.SECRET_OPENED, Tag.SECRET_OPEN_ENDED, Tag.TOOL_LOGIN)
                mine = [row for row in rows if row.detail.get("tool_account_id") == str(on.account_id)]
                assert {row.tag for row in mine} == {Tag.SECRET_OPENED, Tag.SECRET_OPEN_ENDED, Tag.TOOL_LOGIN}
                (row,) = [row for row in mine if row.tag == Tag.SECRET_OPENED]
                assert (row.subject_id, row.detail["purpose"]) == (who.account_id, "login")
                assert all(PASSWORD not in str(row.detail) for row in rows)
                with pytest.raises(ClassRefused):  # VA-30: the engine signs nothing and reads no TOTP seed
                    await on.engine.means.call(lambda: replace(world.services, vault=on.vault).log_key().open())

    run()


FAILURES = [
    ("refused", {}, {"password": "wrong-password"}, ("needs_human", "refused"), 1, False),
    ("locked", {"locked": True}, {}, ("needs_human", "locked"), 1, False),
    ("7 code_asked", {"asks_code": True}, {}, ("needs_human", "code_asked"), 1, False),
    ("human_check", {"captcha": True}, {}, ("needs_human", "human_check"), 0, False),
    ("18 recipe_drift", {"renamed": True}, {}, ("needs_human", "recipe_drift"), 0, True),
    ("ambiguous", {"twin_field": True}, {}, ("needs_human", "ambiguous_field"), 0, True),
    ("origin_mismatch", {"action": "https://evil.example/collect"}, {}, ("needs_human", "origin_mismatch"), 0, True),
    ("tool_away", {"down": True}, {}, ("ended", "tool_away"), 0, False),
]  # fmt: skip


def test_VA_47_what_goes_wrong_is_counted_shown_and_never_repeated(world: World) -> None:
    """Tools 7, 11, 15, 18 and their like: one submit at most, the account degraded, drift withdraws the certification."""

    @in_loop
    async def run() -> None:
        someone = world.person()
        for name, habits, values, state, submits, drift in FAILURES:
            site = Site(STORE, **habits)  # type: ignore[arg-type]
            async with running(site), room(world.app, site, deposit=False) as on:
                await on.deposit({**STORE, **values})
                await on.call(lambda session, on=on: certified(session, on))
                opened = await on.open(on.at.enter(someone.id))
                await on.settle()
                await on.settle()
                assert await on.state(opened) == state, name
                posts = [hit for hit in site.hits if hit.method == "POST"]
                assert len(posts) == submits, name
                account = await on.account()
                assert account.tries == submits, name
                assert account.state == ("active" if state[0] == "ended" else "degraded"), name
                assert (account.blocked_until is not None) == (name == "locked")
                code = (await on.engine.means.read(lambda s, on=on: withdrawn(s, on))) or None
                assert code == (state[1] if drift else None), name
                if state[0] == "ended":
                    assert on.waits == [2.0, 4.0, 8.0]

    run()


def certified(session: Session, on: Room) -> None:
    now = clock.now()
    session.add(
        Certification(
            created_at=now, company_id=on.at.account.company_id, tool_account_id=on.account_id, recipe_digest=on.at.recipe.digest,
            result="passed", checks=[], evidence_digest="0" * 64, run_at=now, expires_at=now + timedelta(days=90),
        )
    )  # fmt: skip


def withdrawn(session: Session, on: Room) -> str | None:
    return session.scalar(select(Certification.withdrawn_code).where(Certification.tool_account_id == on.account_id))


@in_loop
async def _renewal(world: World) -> None:
    site = Site(STORE, expired_as_200=True)
    async with running(site), room(world.app, site) as on:
        who = person(world, on)
        opened = await on.open(who)
        await on.settle()
        first = (await jar_of(on, opened))[SESSION]
        site.forget_sessions()
        for _ in range(3):  # every gateway process that saw the page asks; one login follows
            said = await on.call(lambda s: tool_sessions.renew(s, opened, generation=1, now=clock.now()))
            assert said == "renewing"
        await on.settle()
        row = await on.row(ToolSession, opened)
        assert (row.state, row.generation, site.logins) == ("live", 2, 2)
        assert (await jar_of(on, opened))[SESSION] != first
        assert await on.call(lambda s: tool_sessions.renew(s, opened, generation=1, now=clock.now())) == "live"
        assert await on.call(lambda s: tool_sessions.renew(s, opened, generation=2, now=clock.now())) == "needs_human"
        # a person has looked: those inside get a new login; with nobody inside the session ends instead
        assert await on.call(lambda s: tool_sessions.resolved(s, on.account_id, now=clock.now())) == 1
        await on.settle()
        assert await on.state(opened) == ("live", None)
        await on.call(
            lambda s: change(
                s, update(GatewaySession).where(GatewaySession.tool_session_id == opened).values(ended_at=clock.now())
            )
        )
        await on.call(lambda s: tool_sessions.renew_one(s, opened, generation=3, now=clock.now()))
        await on.settle()
        assert await on.state(opened) == ("ended", "nobody_inside")
        assert await on.jobs(opened) == ["live", "live", "live", "logged_out"]
        assert site.logins == 3


@in_loop
async def _cut(world: World) -> None:
    site = Site(STORE)
    async with running(site), room(world.app, site, replace=PERSONAL) as on:
        # 1 after the login: the tool's logout is sent, its probe refuses the jar, and the jar is gone
        who = person(world, on)
        opened = await on.open(who)
        await on.settle()
        session_id = (await jar_of(on, opened))[SESSION]
        assert session_id in site.sessions
        cut = ToolSession.account_id == who.account_id
        await on.call(lambda s: tool_sessions.end(s, cut, reason="cut", now=clock.now()))
        await on.settle()
        row = await on.row(ToolSession, opened)
        assert (row.state, row.end_reason, row.jar_sealed, row.scan_sealed) == ("ended", "cut", None, None)
        assert await on.jobs(opened) == ["live", "logged_out"]
        assert session_id not in site.sessions
        # 2 before the login: nothing is ever typed
        other = person(world, on)
        waiting = await on.open(other)
        hits = len(site.hits)
        await on.call(
            lambda s: tool_sessions.end(s, ToolSession.account_id == other.account_id, reason="cut", now=clock.now())
        )
        await on.settle()
        assert await on.state(waiting) == ("ended", "cut")
        assert len(site.hits) == hits
        # 3 in the middle of the login: it comes back to a session that nobody wants, and is logged out again
        third = person(world, on)
        under_way = await on.open(third)
        login = site._login

        async def cut_meanwhile(request: Any, body: bytes) -> Any:
            answer = await login(request, body)
            if request.method == "POST":
                cut = ToolSession.account_id == third.account_id
                await on.call(lambda s: tool_sessions.end(s, cut, reason="cut", now=clock.now()))
            return answer

        site._login = cut_meanwhile  # type: ignore[method-assign]
        logins = site.logins
        await on.settle()
        assert site.logins == logins + 1
        assert await on.state(under_way) == ("ended", "cut")
        assert await on.jobs(under_way) == ["discarded_logged_out"]
        assert not site.sessions, "the login that nobody wants is over at the tool as well"


def test_RE_20_a_cut_before_in_and_after_a_login(world: World) -> None:
    """A per-person session: whenever the cut comes, no login of this person is left at the tool and no jar with us."""
    _cut(world)


@in_loop
async def _replays(world: World) -> None:
    site = Site(STORE)
    async with running(site), room(world.app, site) as on:
        opened = await on.open(person(world, on))
        key, now = on.engine.means.ticket_key, clock.now()
        (job_id,) = await on.engine.means.read(lambda s: login_jobs.due(s, now=now, limit=5))
        job = await on.call(lambda s: login_jobs.lease(s, key, job_id, now=clock.now()))
        assert await LoginRun(on.engine.means, on.engine.taken, job).run() == "live"

        # somebody sets everything back by hand: the row is unused again, the job open, the session waiting
        def set_back(session: Session) -> None:
            change(session, update(UseTicket).where(UseTicket.id == job.ticket_id).values(used_at=None))
            change(session, update(LoginJob).where(LoginJob.id == job.id).values(done_at=None, submitted_at=None))
            change(session, update(ToolSession).where(ToolSession.id == opened).values(state="opening", generation=0))

        await on.call(set_back)
        hits, opens = len(site.hits), len(await audit(on, Tag.SECRET_OPENED))
        assert await LoginRun(on.engine.means, on.engine.taken, job).run() == TicketInvalid.code
        assert len(site.hits) == hits
        assert len(await audit(on, Tag.SECRET_OPENED)) == opens
        (alarm,) = await audit(on, Tag.USE_TICKET_REFUSED)
        assert (alarm.detail["reason"], alarm.detail["alarm"]) == ("used", True)
        assert await on.state(opened) == ("ended", "ticket_invalid")


@in_loop
async def _joined(world: World) -> None:
    site = Site(STORE)
    async with running(site), room(world.app, site) as on:
        leaver, colleague = person(world, on), person(world, on)
        opened = await on.open(leaver)
        assert await on.open(colleague) == opened
        await on.call(
            lambda s: change(
                s, update(UseTicket).where(UseTicket.account_id == leaver.account_id).values(ended_at=clock.now())
            )
        )
        await on.settle()
        assert await on.state(opened) == ("live", None)
        assert await on.jobs(opened) == ["ticket_invalid", "live"]


@in_loop
async def _vault_away(world: World) -> None:
    site = Site(STORE)
    async with running(site), room(world.app, site) as on:
        who = person(world, on)
        credential = await on.engine.means.read(
            lambda s: s.scalar(select(SealedCredential).where(SealedCredential.tool_account_id == on.account_id))
        )
        await on.call(
            lambda s: change(
                s,
                update(CredentialVersion)
                .where(CredentialVersion.credential_id == credential.id)
                .values(wrapped_dek=b"x" * 97),
            )
        )
        opened = await on.open(who)
        await on.settle()
        assert await on.state(opened) == ("needs_human", "vault_integrity")
        assert not [hit for hit in site.hits if hit.method == "POST"]
        assert (await on.account()).state == "degraded"
        locked = await on.row(SealedCredential, credential.id)
        assert locked.locked_reason == "vault_integrity"


def test_VA_30_VA_32_what_is_no_ticket_and_what_is_no_seal_opens_nothing(world: World) -> None:
    """A used ticket that somebody set back in the database: its signature is genuine and the row unused, but this process
    remembers that it took it, and rings. Sealed bytes that were changed: nothing is sent, and the credential is locked."""
    _replays(world)
    _vault_away(world)


@in_loop
async def _idle_and_old(world: World) -> None:
    site = Site(STORE)
    async with running(site), room(world.app, site) as on:
        who = person(world, on)
        opened = await on.open(who)
        await on.settle()
        # twelve hours with people inside: one new login, and the old session is left at the tool
        old = (await jar_of(on, opened))[SESSION]
        await on.call(
            lambda s: change(s, update(ToolSession).where(ToolSession.id == opened).values(ends_at=clock.now()))
        )
        await on.settle()
        assert await on.state(opened) == ("live", None)
        assert old not in site.sessions
        assert (await jar_of(on, opened))[SESSION] in site.sessions
        # nobody for half an hour: out of the tool
        past = clock.now() - timedelta(minutes=31)
        await on.call(
            lambda s: change(
                s,
                update(GatewaySession)
                .where(GatewaySession.tool_session_id == opened)
                .values(ended_at=past, last_seen_at=past),
            )
        )
        await on.settle()
        assert await on.state(opened) == ("ended", "idle")
        assert not site.sessions


def test_VA_47_renewals_and_ends(world: World) -> None:
    """Tool 11: everybody is logged out with status 200; one login for all, the flap guard, none for an empty room. A colleague who
    joined gets in although the first launcher was cut. `limits.max_hours` with people inside renews, `idle_minutes` without ends.
    """
    _renewal(world)
    _joined(world)
    _idle_and_old(world)
