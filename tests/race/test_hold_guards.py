"""One at a time at a tool account (VA-47): certifications beside jobs and rotations. Each claim with the test that goes red without it."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from idp.core import clock, ids
from idp.core.errors import Conflict
from idp.domain.credentials import rotations
from idp.domain.gateway import login_jobs
from idp.domain.tools import holds
from idp.domain.tools.holds import Hold
from idp.edges.tools.certifying import CertifyRun
from tests.race.arena import Arena
from tests.race.puppets import committing
from tests.race.test_guards import only_postgresql, work
from tests.race.test_tool_guards import KEY, TEXT, deposited, launched, leased, planned
from tests.tools import Place, place


def certifying(arena: Arena, at: Place) -> Hold | str:
    """A certification begins at the account, as the command does it."""
    run = CertifyRun(SimpleNamespace(ticket_key=KEY), at.account, at.recipe, ids.new_id())  # type: ignore[arg-type]
    try:
        with work(arena) as session:
            return run.begin(session)[0]
    except Conflict:
        return "busy"


@pytest.mark.guards("idp.domain.tools.holds.take", "idp.domain.tools.holds.extend", "idp.domain.tools.holds.release")
def test_VA_47_an_account_is_held_once_and_a_late_holder_keeps_nothing(arena: Arena) -> None:
    """Two certifications: the second gets nothing. After the lease another one has it; the first may send and keep nothing."""
    at, now = place(arena.app, TEXT), clock.now()
    with work(arena) as session:
        first = holds.take(session, at.account.id, now=now)
        assert first is not None
        assert holds.take(session, at.account.id, now=now) is None
        assert holds.extend(session, first, now=now)
        later = now + timedelta(seconds=21)
        assert not holds.extend(session, first, now=later), "it ran out, even if nobody else came"
        assert not holds.release(session, first, now=later)
        second = holds.take(session, at.account.id, now=later)
        assert second is not None
        assert not holds.extend(session, first, now=later)
        assert not holds.release(session, first, now=later)
        assert holds.release(session, second, now=later)
        assert holds.take(session, at.account.id, now=later) is not None


def test_VA_47_a_certification_and_the_engine_take_turns(arena: Arena) -> None:
    """While one works at the account the other gets nothing: jobs, rotations and certifications, each of them first once."""
    at = deposited(arena)
    person = at.enter(arena.person().id)
    opened = launched(arena, at, person)
    hold = certifying(arena, at)
    assert isinstance(hold, Hold)
    assert leased(arena, opened) is None, "a certification is logging in there"
    with work(arena) as session:
        now = clock.now()
        assert login_jobs.is_busy(session, at.account.id, now=now, login=False), "nor does a rotation begin"
        assert not login_jobs.is_busy(session, at.account.id, now=now + timedelta(seconds=21), login=True)
        assert holds.release(session, hold, now=now)
    job = leased(arena, opened)
    assert job is not None
    assert certifying(arena, at) == "busy"
    with work(arena) as session:
        assert login_jobs.finish(session, job, result="live", now=clock.now())
    rotation = planned(arena, at)
    with work(arena) as session:
        assert rotations.lease(session, rotation, now=clock.now()) is not None
    assert certifying(arena, at) == "busy"


def test_VA_47_a_certification_and_a_login_at_the_same_moment(arena: Arena) -> None:
    """The account's row decides: the second of the two waits for the first one's commit, and then finds it there."""
    if not only_postgresql(arena):
        return
    for engine_first in (True, False):
        at = place(arena.app, TEXT)
        opened = launched(arena, at, at.enter(arena.person().id))
        both = [lambda opened=opened: leased(arena, opened) is not None, lambda at=at: certifying(arena, at) != "busy"]
        one, other = both if engine_first else both[::-1]
        pause = "UPDATE login_job" if engine_first else "UPDATE tool_account"
        met = arena.stage.meet(one, other, pause=committing(pause))
        assert met.stood
        assert met.waited
        assert (met.first, met.second) == (True, False), engine_first
