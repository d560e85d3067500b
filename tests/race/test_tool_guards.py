"""Tools: use-tickets, tool sessions and the jobs of the engine. Each claim with the test that goes red without it."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from connectors.engine.rotation import Event, NotListed, State
from idp.core import clock, ids
from idp.core.errors import Conflict
from idp.domain.credentials import rotations, service
from idp.domain.credentials.models import Rotation
from idp.domain.credentials.rotations import Lost
from idp.domain.gateway import login_jobs, tool_sessions
from idp.domain.gateway.login_jobs import Job
from idp.domain.gateway.models import LoginJob, ToolSession, UseTicket
from idp.domain.gateway.tickets import Person, Purpose, Refused, claim_use_ticket, issue_use_ticket, signature, void
from idp.domain.tools.models import ToolAccount
from tests.actors import CLI
from tests.race.arena import Admin, Arena, receipt_of
from tests.race.puppets import committing
from tests.race.test_guards import only_postgresql, work
from tests.tools import Place, place
from tests.unit.connectors.recipe_texts import COMPLETE
from vault import Secret

KEY = b"k" * 32
TEXT = COMPLETE.encode()
PERSONAL = COMPLETE.replace("sharing: shared", "sharing: per-person").encode()


def launched(arena: Arena, at: Place, person: Person) -> uuid.UUID:
    """This person opens the tool."""
    with work(arena) as session:
        return tool_sessions.join_or_open(session, KEY, at.account, at.recipe, person=person, now=clock.now())


def leased(arena: Arena, tool_session_id: uuid.UUID, *, after: timedelta = timedelta()) -> Job | None:
    """The engine takes the open job of this session."""
    with work(arena) as session:
        job = session.scalar(
            select(LoginJob.id).where(LoginJob.tool_session_id == tool_session_id, LoginJob.done_at.is_(None))
        )
        return login_jobs.lease(session, KEY, job, now=clock.now() + after) if job else None


def taken(arena: Arena, job: Job, *, over: dict[str, object] | None = None, after: timedelta = timedelta()) -> str:
    """What presenting the job's ticket gives: `opened` or the reason of the refusal."""
    now = clock.now() + after
    wish = {"purpose": job.purpose, "tool_account_id": job.tool_account_id, "job_id": job.id, **(over or {})}
    with work(arena) as session:
        found = claim_use_ticket(session, KEY, job.ticket_id, leased=login_jobs.held(job, now), now=now, **wish)  # type: ignore[arg-type]
        return found.reason if isinstance(found, Refused) else "opened"


def ready(arena: Arena, text: bytes = TEXT) -> tuple[Place, Person, uuid.UUID, Job]:
    """A tool, somebody who opened it, and the engine that has taken the login."""
    at = place(arena.app, text)
    person = at.enter(arena.person().id)
    opened = launched(arena, at, person)
    job = leased(arena, opened)
    assert job is not None
    return at, person, opened, job


# --- tickets -------------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.domain.gateway.tickets.claim_use_ticket")
def test_VA_30_a_ticket_opens_once(arena: Arena) -> None:
    """The second presentation is refused, and is the one that rings the bell."""
    _, _, _, job = ready(arena)
    assert taken(arena, job) == "opened"
    assert taken(arena, job) == "used"
    assert Refused("used").is_alarm
    assert not Refused("late").is_alarm


def test_VA_30_nothing_but_the_very_ticket_opens(arena: Arena) -> None:
    """Late, for another tool, another purpose or job, void, unknown, after the lease was lost: refused, and still unused."""
    other = place(arena.app, TEXT)
    _, _, _, job = ready(arena)
    assert taken(arena, job, after=timedelta(seconds=61)) == "late"
    assert taken(arena, job, over={"tool_account_id": other.account.id}) == "other"
    assert taken(arena, job, over={"purpose": Purpose.RENEW}) == "other"
    assert taken(arena, job, over={"job_id": ids.new_id()}) == "other"
    assert taken(arena, job, after=timedelta(seconds=21)) == "lease_lost"
    with work(arena) as session:
        assert void(session, UseTicket.id == job.ticket_id, now=clock.now()) == 1
    assert taken(arena, job) == "void"
    _, _, _, other_job = ready(arena)
    with work(arena) as session:
        found = claim_use_ticket(
            session, KEY, ids.new_id(), purpose=job.purpose, tool_account_id=job.tool_account_id, job_id=job.id,
            leased=login_jobs.held(job, clock.now()), now=clock.now(),
        )  # fmt: skip
    assert found == Refused("unknown")
    assert taken(arena, other_job) == "opened"


@pytest.mark.parametrize(
    "column", ["purpose", "tool_account_id", "account_id", "app_session_id", "epoch", "ends_at", "job_id", "jti"]
)
def test_VA_30_a_row_written_by_hand_is_no_ticket(arena: Arena, column: str) -> None:
    """Every column that says what a ticket is for is signed: whoever can write the table changes none of them unseen."""
    at, _, _, job = ready(arena)
    with work(arena) as session:
        row = session.get_one(UseTicket, job.ticket_id)
        other = session.scalar(select(ToolAccount.id).where(ToolAccount.id != at.account.id).limit(1))
        changed = {
            "purpose": "renew", "tool_account_id": other or row.tool_account_id, "account_id": None, "app_session_id": None,
            "epoch": 99, "ends_at": row.ends_at + timedelta(hours=1), "job_id": ids.new_id(), "jti": ids.new_secret(),
        }  # fmt: skip
        session.execute(update(UseTicket).where(UseTicket.id == row.id).values({column: changed[column]}))
    expected = "forged" if column != "tool_account_id" or other else "opened"
    assert taken(arena, job) == expected
    with work(arena) as session:
        forged = UseTicket(
            id=ids.new_id(), created_at=clock.now(), purpose="login", company_id=at.account.company_id, tool_account_id=at.account.id,
            job_id=job.id, jti=ids.new_secret(), signature=b"", ends_at=clock.now() + timedelta(seconds=60),
        )  # fmt: skip
        forged.signature = signature(b"another key".ljust(32), forged)
        session.add(forged)
        session.flush()
        found = claim_use_ticket(
            session, KEY, forged.id, purpose=Purpose.LOGIN, tool_account_id=at.account.id, job_id=job.id,
            leased=login_jobs.held(job, clock.now()), now=clock.now(),
        )  # fmt: skip
        assert found == Refused("forged")


def test_VA_30_after_the_cut_a_ticket_opens_nothing(arena: Arena) -> None:
    """The person is stopped between the launch and the login: the gate is claimed first, and it is closed."""
    _, person, _, job = ready(arena)
    someone = arena.person()
    receipt_of(Admin(arena, f"hq{ids.new_secret()[:8]}").stop(_as_person(arena, person, someone)))
    assert taken(arena, job) in {"gate_closed", "void"}


def _as_person(arena: Arena, holder: Person, like: object) -> object:
    """The arena's own kind of person, with the id of a holder."""
    from dataclasses import replace

    return replace(like, id=holder.account_id)  # type: ignore[type-var]


def test_VA_30_a_cut_at_the_moment_of_use_wins_or_waits(arena: Arena) -> None:
    """The ticket is about to commit when the person is stopped: whoever is first decides, and there is no third outcome."""
    if not only_postgresql(arena):
        return
    someone = arena.person()
    at = place(arena.app, TEXT)
    person = at.enter(someone.id)
    job = leased(arena, launched(arena, at, person))
    assert job is not None
    met = arena.stage.meet(
        lambda: taken(arena, job), lambda: arena.admins[0].stop(someone), pause=committing("UPDATE use_ticket")
    )
    assert met.stood
    assert met.waited
    assert met.first == "opened"
    receipt_of(met.second)
    assert taken(arena, job) in {"gate_closed", "used", "void"}


# --- tool sessions -------------------------------------------------------------------------------------------------


def test_VA_47_a_second_launcher_joins(arena: Arena) -> None:
    """One row, one job, one ticket, however many open the tool; a tool that does not share has a row for each."""
    at = place(arena.app, TEXT)
    first, second = at.enter(arena.person().id), at.enter(arena.person().id)
    assert launched(arena, at, first) == launched(arena, at, second)
    rows = arena.world.rows(
        select(func.count(LoginJob.id)).join(ToolSession, ToolSession.id == LoginJob.tool_session_id).where(
            ToolSession.tool_account_id == at.account.id
        )
    )  # fmt: skip
    assert rows[0][0] == 1
    personal = place(arena.app, PERSONAL)
    mine, theirs = (launched(arena, personal, personal.enter(arena.person().id)) for _ in range(2))
    assert mine != theirs


def test_VA_47_two_launches_at_once_make_one_job(arena: Arena) -> None:
    """The second INSERT waits for the first commit, finds its row, and joins it."""
    if not only_postgresql(arena):
        return
    at = place(arena.app, TEXT)
    first, second = at.enter(arena.person().id), at.enter(arena.person().id)
    met = arena.stage.meet(
        lambda: launched(arena, at, first),
        lambda: launched(arena, at, second),
        pause=committing("INSERT INTO login_job"),
    )
    assert met.stood
    assert met.first == met.second


@pytest.mark.guards("idp.domain.gateway.tool_sessions.move")
def test_VA_47_one_renewal_for_everybody(arena: Arena) -> None:
    """Many gateways see the logged-out page of one generation: one of them starts a login, and a late one starts none."""
    _, _, opened, job = ready(arena)
    with work(arena) as session:
        assert tool_sessions.move(
            session, opened, ("opening",), generation=0, now=clock.now(), state="live", generation_to=1
        )
        assert login_jobs.finish(session, job, result="live", now=clock.now())
        assert not tool_sessions.move(session, opened, ("opening",), generation=0, now=clock.now(), state="ended")
    with work(arena) as session:
        assert tool_sessions.renew(session, opened, generation=1, now=clock.now()) == "renewing"
        assert tool_sessions.renew(session, opened, generation=1, now=clock.now()) == "renewing"
    again = leased(arena, opened)
    assert again is not None
    assert again.task == "logout", "nobody is inside, so nobody needs this login"


def test_VA_47_flapping_needs_a_person_and_an_old_generation_is_told_to_look_again(arena: Arena) -> None:
    """Two logouts within a minute stop the machine; whoever saw an older generation is sent to the newer jar."""
    _, _, opened, job = ready(arena)
    now = clock.now()
    with work(arena) as session:
        tool_sessions.move(session, opened, ("opening",), now=now, state="live", generation_to=1)
        login_jobs.finish(session, job, result="live", now=now)
        assert tool_sessions.renew(session, opened, generation=0, now=now) == "live"
        assert tool_sessions.renew(session, opened, generation=1, now=now) == "renewing"
        tool_sessions.move(session, opened, ("renewing",), now=now, state="live", generation_to=2)
        assert tool_sessions.renew(session, opened, generation=2, now=now + timedelta(seconds=59)) == "needs_human"
    assert arena.world.rows(select(ToolSession.state, ToolSession.code).where(ToolSession.id == opened)) == [
        ("needs_human", "session_flaps")
    ]


def test_RE_20_the_end_of_a_persons_session_voids_its_tickets_and_turns_its_login_into_a_logout(arena: Arena) -> None:
    """A cut in the middle of a login: the ticket is void, the job becomes a logout, a new launch has to wait for it."""
    at = place(arena.app, PERSONAL)
    person = at.enter(arena.person().id)
    opened = launched(arena, at, person)
    with work(arena) as session:
        assert list(
            tool_sessions.end(session, ToolSession.account_id == person.account_id, reason="cut", now=clock.now())
        ) == [opened]
        assert not tool_sessions.end(
            session, ToolSession.account_id == person.account_id, reason="cut", now=clock.now()
        )
    job = leased(arena, opened)
    assert job is not None
    assert (job.task, job.ticket_id) == ("logout", None)
    with pytest.raises(Conflict):
        launched(arena, at, person)
    with work(arena) as session:
        later = clock.now() + timedelta(seconds=90)
        again = tool_sessions.join_or_open(session, KEY, at.account, at.recipe, person=person, now=later)
        assert again != opened, "nobody came back for the logout: the next one does not wait for ever"


# --- jobs ----------------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.domain.gateway.login_jobs.lease")
def test_VA_47_a_job_is_leased_once(arena: Arena) -> None:
    """Two engines: the second gets nothing, not even for another session of the same tool account."""
    at = place(arena.app, PERSONAL)
    mine, theirs = (launched(arena, at, at.enter(arena.person().id)) for _ in range(2))
    with work(arena) as session:
        now = clock.now()
        one = session.scalar(select(LoginJob.id).where(LoginJob.tool_session_id == mine))
        other = session.scalar(select(LoginJob.id).where(LoginJob.tool_session_id == theirs))
        assert one is not None
        assert other is not None
        first = login_jobs.lease(session, KEY, one, now=now)
        assert first is not None
        assert login_jobs.lease(session, KEY, other, now=now) is None, "two logins at one account at once"
        assert login_jobs.submitting(session, first, now=now)
        later = now + timedelta(seconds=21)
        assert login_jobs.lease(session, KEY, one, now=later) is None, "what was submitted is never run again"
        assert login_jobs.lease(session, KEY, other, now=later) is not None


@pytest.mark.guards("idp.domain.gateway.login_jobs.submitting", "idp.domain.gateway.login_jobs._close")
def test_VA_47_an_engine_that_slept_sends_and_stores_nothing(arena: Arena) -> None:
    """Its lease ran out, another engine has the job: `submitted_at` is refused to it, and so is its result."""
    _, _, opened, slow = ready(arena)
    quick = leased(arena, opened, after=timedelta(seconds=21))
    assert quick is not None
    assert (quick.fence, quick.ticket_id) == (2, quick.ticket_id)
    with work(arena) as session:
        now = clock.now() + timedelta(seconds=22)
        assert not login_jobs.submitting(session, slow, now=now)
        assert not login_jobs.finish(session, slow, result="live", now=now)
        assert not login_jobs.extend(session, slow, now=now)
        assert login_jobs.submitting(session, quick, now=now)
        assert login_jobs.finish(session, quick, result="live", now=now)


def test_VA_47_an_engine_that_died_is_replaced_once(arena: Arena) -> None:
    """A second run has a ticket of its own, for the same person; a third there is none; after a submit there is no second."""
    _, _, opened, first = ready(arena)
    assert taken(arena, first) == "opened"
    second = leased(arena, opened, after=timedelta(seconds=21))
    assert second is not None
    assert second.ticket_id != first.ticket_id
    assert taken(arena, second, after=timedelta(seconds=21)) == "opened"
    assert leased(arena, opened, after=timedelta(seconds=45)) is None
    with work(arena) as session:
        now = clock.now() + timedelta(seconds=45)
        (lost,) = [one for one in login_jobs.lost(session, now=now) if one.id == first.id]
        assert lost.result == "late"
        assert login_jobs.give_up(session, lost, now=now)
    assert arena.world.rows(select(ToolSession.state, ToolSession.end_reason).where(ToolSession.id == opened)) == [
        ("ended", "late")
    ]
    at, person, submitted, job = ready(arena)
    with work(arena) as session:
        assert login_jobs.submitting(session, job, now=clock.now())
    with work(arena) as session:
        now = clock.now() + timedelta(seconds=21)
        (lost,) = [one for one in login_jobs.lost(session, now=now) if one.id == job.id]
        assert lost.result == "interrupted"
        assert login_jobs.give_up(session, lost, now=now)
    assert launched(arena, at, person) != submitted


def test_VA_30_the_ticket_of_a_renewal_is_written_under_the_lease_and_only_while_somebody_is_inside(
    arena: Arena,
) -> None:
    """The gateway asks for a renewal without any key; the engine signs, and not for an empty room."""
    at, person, opened, job = ready(arena)
    with work(arena) as session:
        tool_sessions.move(session, opened, ("opening",), now=clock.now(), state="live", generation_to=1)
        login_jobs.finish(session, job, result="live", now=clock.now())
        at.sit_down(session, person, opened)
        assert tool_sessions.renew(session, opened, generation=1, now=clock.now()) == "renewing"
    again = leased(arena, opened)
    assert again is not None
    assert (again.task, again.purpose) == ("login", Purpose.RENEW)
    assert taken(arena, again) == "opened"


def test_VA_30_a_ticket_never_lives_longer_than_a_minute(arena: Arena) -> None:
    """Whoever issues one for an hour gets sixty seconds."""
    at = place(arena.app, TEXT)
    with work(arena) as session:
        now = clock.now()
        made = issue_use_ticket(
            session, KEY, purpose=Purpose.ROTATE, company_id=at.account.company_id, store_id=None, tool_account_id=at.account.id,
            person=None, job_id=None, now=now, life=timedelta(hours=1),
        )  # fmt: skip
        assert session.get_one(UseTicket, made).ends_at == now + timedelta(seconds=60)


# --- rotations -----------------------------------------------------------------------------------------------------


def deposited(arena: Arena) -> Place:
    """A tool account with a password that somebody typed."""
    at, now = place(arena.app, TEXT), clock.now()
    fields = {"company_code": Secret("T-1"), "login_id": Secret("store-7"), "password": Secret("typed-by-a-person")}
    with arena.app.app_context():
        fresh = service.seal(arena.world.services.vault, at.account, fields, now=now)
    with work(arena) as session:
        service.put(session, at.account, fresh, actor=CLI, now=now)
    return at


def planned(arena: Arena, at: Place) -> uuid.UUID:
    with work(arena) as session:
        return rotations.plan(session, at.account.id, trigger="owner", actor=CLI, now=clock.now()).id


@pytest.mark.guards("idp.domain.credentials.rotations.lease", "idp.domain.credentials.rotations._go")
def test_VA_43_a_rotation_is_one_engines_and_a_late_one_moves_nothing(arena: Arena) -> None:
    """The second engine gets nothing; after the lease it goes on, and the first one's step is refused, whatever it saw."""
    at = deposited(arena)
    rotation, now = planned(arena, at), clock.now()
    with work(arena) as session:
        first = rotations.lease(session, rotation, now=now)
        assert first is not None
        assert rotations.lease(session, rotation, now=now) is None
        later = now + timedelta(seconds=21)
        second = rotations.lease(session, rotation, now=later)
        assert second is not None
        assert second.fence == first.fence + 1
    with pytest.raises(Lost), work(arena) as session:
        rotations.step(session, first, Event.SEALED, now=now)
    with work(arena) as session:
        assert rotations.step(session, second, Event.SEALED, now=later).state is State.PENDING
    with pytest.raises(NotListed), work(arena) as session:
        rotations.step(session, second, Event.NEW_WORKS, now=later)


@pytest.mark.guards("idp.domain.credentials.rotations.decide")
def test_VA_43_a_person_decides_once(arena: Arena) -> None:
    """Two people look at the same rotation and say different things: the first one's word holds, also at the same moment."""
    at = deposited(arena)
    rotation = planned(arena, at)
    with work(arena) as session:
        session.execute(update(Rotation).where(Rotation.id == rotation).values(state="needs_human"))

    def says(holds: str) -> str:
        try:
            with work(arena) as session:
                rotations.decide(session, rotation, holds=holds, actor=CLI, now=clock.now())
        except Conflict:
            return "too late"
        return holds

    if only_postgresql(arena):
        met = arena.stage.meet(lambda: says("old"), lambda: says("new"), pause=committing("UPDATE sealed_credential"))
        assert met.stood
        assert met.waited
        assert (met.first, met.second) == ("old", "too late")
    else:
        assert (says("old"), says("new")) == ("old", "too late")
    rows = arena.world.rows(select(Rotation.code).where(Rotation.id == rotation))
    assert rows == [("person_says_old",)]


def test_VA_43_one_open_rotation_per_credential(arena: Arena) -> None:
    """Two leavers on one morning: one change of the password, and both lines wait for it."""
    at = deposited(arena)
    assert planned(arena, at) == planned(arena, at)
