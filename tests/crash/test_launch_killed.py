"""RE-30, VA-51: kill -9 at every step of a launch (click → ticket → cookie of the gateway), in real processes, on both databases.

T0 asked · T1 gate rows claimed · T2 rows written · T3 commit · T4 committed, answer lost; each of them for the launch, the
admission and the entering. A rehearsal lists the steps, and each must have a name in the table. After each death: what was
acknowledged is there, what was not is there as a whole or not at all, no ticket lets in twice, one job logs in at the tool,
and the person comes in by a second click. After a cut nothing of all this lets anybody in.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import func, select

from idp.domain.gateway.models import (
    AdmissionTicket,
    GatewayCookie,
    GatewaySession,
    LoginJob,
    ToolSession,
    UseTicket,
)
from idp.domain.sessions.models import AppSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from tests.actors import Browser, Person, World
from tests.conftest import Database
from tests.crash.conftest import Condemned
from tests.fakes.lives import cut
from tests.race.arena import Arena

#: every step of the three transactions, without the word before it
STEPS = {
    "BEGIN IMMEDIATE": "T0", "SELECT signing_key": "T0", "SELECT login_session": "T0", "SELECT assignment": "T0", "WITH shared_stores": "T0",
    "SELECT account": "T1", "SELECT tool_account": "T1", "SELECT certification": "T1", "SELECT gateway_session": "T1", "SELECT tool_session": "T1",
    "SELECT admission_ticket": "T0", "SELECT gateway_cookie": "T1", "UPDATE login_session": "T1", "UPDATE app_session": "T1",
    "UPDATE gateway_session": "T1", "UPDATE admission_ticket": "T1",
    "INSERT app_session": "T2", "INSERT tool_session": "T2", "INSERT use_ticket": "T2", "INSERT login_job": "T2", "INSERT gateway_session": "T2",
    "INSERT admission_ticket": "T2", "UPDATE gateway_cookie": "T2", "INSERT gateway_cookie": "T2", "INSERT audit_event": "T2",
    "COMMIT": "T3", "committed": "T4", "answered": "T4",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """How many rows of each kind one person has."""

    app_sessions: int
    gateway_sessions: int
    opened: int
    tool_sessions: int
    jobs: int
    use_tickets: int
    tickets: int
    tickets_used: int
    cookies: int
    entered: int


def found(arena: Arena, person: Person) -> Found:
    """Look, as a process that has just started would."""
    sessions = select(GatewaySession.id).where(GatewaySession.account_id == person.id)
    mine = ToolSession.account_id == person.id
    log = AuditEvent.subject_id == person.id
    counts = [
        select(func.count(AppSession.id)).where(AppSession.account_id == person.id),
        select(func.count(GatewaySession.id)).where(GatewaySession.account_id == person.id),
        select(func.count(AuditEvent.id)).where(log, AuditEvent.tag == Tag.TOOL_OPENED.value),
        select(func.count(ToolSession.id)).where(mine),
        select(func.count(LoginJob.id)).join(ToolSession, ToolSession.id == LoginJob.tool_session_id).where(mine),
        select(func.count(UseTicket.id)).where(UseTicket.account_id == person.id),
        select(func.count(AdmissionTicket.id)).where(AdmissionTicket.gateway_session_id.in_(sessions)),
        select(func.count(AdmissionTicket.used_at)).where(AdmissionTicket.gateway_session_id.in_(sessions)),
        select(func.count(GatewayCookie.id)).where(GatewayCookie.gateway_session_id.in_(sessions)),
        select(func.count(AuditEvent.id)).where(log, AuditEvent.tag == Tag.TOOL_ENTERED.value),
    ]
    return Found(*(arena.world.rows(one)[0][0] for one in counts))


@dataclass
class Told:
    """What the caller had been told before the process died, by the name of the transaction."""

    answers: dict[str, str]

    def __init__(self, steps: list[str]) -> None:
        self.answers = {}
        for step in steps:
            name, _, value = step.partition(" answered: ")
            if value:
                self.answers[name] = value


def test_RE_30_VA_51_killed_at_every_step_of_a_launch(world: World, condemned: Condemned, database: Database) -> None:
    """All or nothing in each of the three, a ticket once, one login at the tool; then a second click, and a cut."""
    arena = Arena(world.app, database.engine, None, world)  # type: ignore[arg-type] # nobody meets anybody here
    arena.toolbox  # noqa: B018 - made at the first use
    for _ in range(2):  # the first one also opens the key of use-tickets, which every fork has then
        first = arena.person()
        with arena.logged_in(first) as browser:
            steps = condemned.rehearse("launch", cookie=browser.cookie)
    names = [step.partition(": ")[0] for step in steps]
    plain = {name.partition(" ")[2] for name in names}
    assert plain <= set(STEPS), f"a step without a failpoint: {plain - set(STEPS)}"
    for way in ("launch", "admit", "enter"):
        reached = {STEPS[name.partition(" ")[2]] for name in names if name.startswith(f"{way} ")}
        assert reached == {f"T{n}" for n in range(5)}, way
    # a death before a read finds what a death before the next write finds, so it is not died twice
    for at in [at for at, name in enumerate(names, start=1) if " SELECT " not in name]:
        person = arena.person()
        with arena.logged_in(person) as browser:
            dead, reached_steps = condemned.run("launch", at, cookie=browser.cookie)
            assert dead
            _look(arena, person, browser, Told(reached_steps), step=reached_steps[-1])


def _look(arena: Arena, person: Person, browser: Browser, told: Told, *, step: str) -> None:
    there = found(arena, person)
    launched = there.gateway_sessions
    assert launched in {0, 1}, step
    assert launched or "launch" not in told.answers, f"{step}: an acknowledged launch is lost"
    of_launch = (there.app_sessions, there.opened, there.tool_sessions, there.jobs, there.use_tickets)
    assert of_launch == (launched,) * 5, f"{step}: half a launch: {there}"
    assert there.tickets or "admit" not in told.answers, f"{step}: an acknowledged ticket is lost"
    assert there.tickets <= launched, there
    assert there.tickets_used == there.cookies == there.entered <= there.tickets, f"{step}: half an entrance: {there}"
    cookies = []
    if "enter" in told.answers:
        assert arena.is_inside(told.answers["enter"]), f"{step}: an acknowledged cookie does not let in"
        cookies.append(told.answers["enter"])
    if "admit" in told.answers:
        host = _host(arena, told)
        cookies.append(arena.enters(told.answers["admit"], host))
        assert bool(cookies[-1]) is not bool(there.tickets_used), f"{step}: a ticket lets in once"
        if not there.tickets_used:
            assert arena.is_inside(cookies[-1])
            assert not arena.enters(told.answers["admit"], host)
        assert not any(arena.is_inside(cookie) for cookie in cookies if cookie), "a second use ends the session"
    host = arena.waits(browser)
    fresh = arena.enters(arena.asks_ticket(browser, host), host)
    assert arena.is_inside(fresh), f"{step}: a second click does not let in"
    again = found(arena, person)
    assert (again.tool_sessions, again.jobs) == (1, 1), (
        f"{step}: {again}: the second click made a second login at the tool"
    )
    ticket = arena.asks_ticket(browser, host)
    assert ticket
    cut(arena.world, person.id, key=f"cut:{person.id}")
    assert not arena.is_inside(fresh)
    assert not arena.enters(ticket, host)
    assert not any(arena.is_inside(cookie) for cookie in cookies if cookie)


def _host(arena: Arena, told: Told) -> str:
    rows = arena.world.rows(select(GatewaySession.hosts).where(GatewaySession.id == uuid.UUID(told.answers["launch"])))
    return str(next(iter(rows[0][0])))
