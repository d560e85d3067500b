"""Plan, line states, contract states and verdicts as pure functions (requirements.md 13.1, ux.md 4). No database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.cutclass import CutClass
from idp.lifecycle.revocation.models import Cut
from idp.lifecycle.revocation.plan import LOCAL, Destination, PlannedCut, Snapshot, ToolAccess, ToolUse, plan
from idp.lifecycle.revocation.receipt import RED, Line, line_of, verdict
from idp.lifecycle.revocation.words import STRENGTH, CutKind, CutState, Grade, Scope, weakest

NOW = datetime(2026, 11, 21, 0, 14, 3, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
PERSON = uuid.uuid4()


def cut(state: str, *, kind: CutKind = CutKind.OIDC_LOGOUT, grade: str | None = None, **over: object) -> Cut:
    """A cut as the database gives it back."""
    values = {"count": 1, "attempts": 0, "residual_until": None, "closed_by": None, "next_try_at": None, **over}
    return Cut(kind=kind.value, state=state, grade=grade, **values)


#: every way a cut can stand, and what a person and a machine are told: (cut, line state, contract state, open, may it say cut)
TABLE: list[tuple[Cut, str, str, bool]] = [
    (cut("waiting"), "queued", "UNCONFIRMED", True),
    (cut("leased", attempts=1), "cutting", "UNCONFIRMED", True),
    (cut("waiting", attempts=1), "failed", "UNCONFIRMED", True),
    (cut("waiting", kind=CutKind.ACCESS_TOKEN, residual_until=LATER), "expiring", "RESIDUAL", True),
    (cut("waiting", kind=CutKind.APPLICATION_LOGIN, residual_until=LATER), "expiring", "RESIDUAL", True),
    (cut("needs_person", attempts=3), "manual", "MANUAL", True),
    (cut("needs_person", kind=CutKind.APPLICATION_LOGIN), "unknown", "UNCONFIRMED", True),
    (cut("done", grade="verified"), "confirmed", "VERIFIED", False),
    (cut("done", kind=CutKind.LOGIN_SESSION, grade="recorded"), "confirmed", "LOCAL_DEAD", False),
    (cut("done", kind=CutKind.ACCESS_TOKEN, grade="recorded", residual_until=LATER), "confirmed", "LOCAL_DEAD", False),
    (cut("done", kind=CutKind.LOGIN_SESSION, grade="recorded", count=0), "nothing", "NO_PATH", False),
    (cut("done", grade="acknowledged", attempts=1), "acknowledged", "ACKED", False),
    (cut("done", grade="attested", closed_by=PERSON), "manual", "ATTESTED", False),
    (cut("done", kind=CutKind.APPLICATION_LOGIN, grade="none", residual_until=LATER), "expiring", "RESIDUAL", False),
    (cut("done", kind=CutKind.APPLICATION_LOGIN, grade="none", closed_by=PERSON), "unknown", "IMPOSSIBLE", False),
    (cut("done", grade="none", closed_by=PERSON), "unknown", "IMPOSSIBLE", False),
]  # fmt: skip
MAY_SAY_CUT = {"LOCAL_DEAD", "VERIFIED"}


@pytest.mark.parametrize(("given_", "state", "contract", "is_open"), TABLE)
def test_13_1_each_cut_has_one_line_state_and_one_contract_state(
    given_: Cut, state: str, contract: str, is_open: bool
) -> None:
    """The closed lists of ux.md 4.1 and requirements.md 13.1; an open line has no grade."""
    line = line_of(given_)
    assert (line.state, line.contract, line.open) == (state, contract, is_open)
    assert line.grade == (None if is_open else given_.grade)


def test_13_1_the_table_is_complete() -> None:
    """All nine line states and all nine contract states are reached, and only LOCAL_DEAD and VERIFIED are called confirmed."""
    lines = [line_of(entry[0]) for entry in TABLE]
    assert {line.state for line in lines} == {
        "queued", "cutting", "confirmed", "acknowledged", "nothing", "expiring", "manual", "failed", "unknown",
    }  # fmt: skip
    assert {line.contract for line in lines} == {
        "LOCAL_DEAD", "VERIFIED", "ACKED", "ATTESTED", "RESIDUAL", "UNCONFIRMED", "MANUAL", "IMPOSSIBLE", "NO_PATH",
    }  # fmt: skip
    assert all((line.state == "confirmed") == (line.contract in MAY_SAY_CUT) for line in lines)


def test_every_state_and_grade_a_row_can_hold_gives_a_line() -> None:
    """No combination of columns raises, and none that is open, acknowledged or weaker is ever confirmed."""
    for state, kind, grade, count, attempts, until, by in product(
        CutState, CutKind, (None, *Grade), (0, 1), (0, 2), (None, LATER), (None, PERSON)
    ):
        row = cut(
            state.value,
            kind=kind,
            grade=grade.value if grade else None,
            count=count,
            attempts=attempts,
            residual_until=until,
            closed_by=by,
        )
        line = line_of(row)
        if line.state == "confirmed":
            assert state is CutState.DONE
            assert grade in {Grade.VERIFIED, Grade.RECORDED}
        if line.contract in MAY_SAY_CUT and line.open:
            # the gateway refuses from the cut on; what is open until every process has swept is the proof (class B)
            assert (line.state, kind) == ("cutting", CutKind.GATEWAY_SESSION)
        elif line.contract in MAY_SAY_CUT:
            assert line.state == "confirmed"
        assert line.open == (state is not CutState.DONE)


lines = st.lists(st.sampled_from([line_of(entry[0]) for entry in TABLE]), max_size=12)


@given(lines)
def test_4_3_verdict_over_any_lines(found: list[Line]) -> None:
    """Counts add up; red while an open line is red; green only when none is open; "everything cut" only when every line is
    LOCAL_DEAD, VERIFIED or nothing; the weakest grade is the weakest of the closed lines that were something."""
    said = verdict(found)
    open_lines = [line for line in found if line.open]
    assert said.total == len(found) == sum(said.counts.values())
    assert said.closed == len(found) - len(open_lines)
    red = [line for line in open_lines if line.state in RED]
    assert said.word == ("action" if red else "waiting" if open_lines else "done")
    assert said.needs_person + said.not_cut == len(red)
    assert said.everything_cut == all(line.contract in {*MAY_SAY_CUT, "NO_PATH"} for line in found)
    assert not (said.everything_cut and open_lines)
    grades = [Grade(line.grade) for line in found if line.grade and line.state != "nothing"]
    assert said.weakest == weakest(grades)
    assert said.weakest_count == grades.count(said.weakest) if said.weakest else True
    if said.everything_cut and said.weakest:
        assert said.weakest in {Grade.VERIFIED, Grade.RECORDED}


def test_4_2_strongest_first() -> None:
    """The order of grades, in its one place."""
    assert STRENGTH == ("verified", "recorded", "acknowledged", "attested", "none")
    assert weakest([Grade.VERIFIED, Grade.NONE, Grade.ACKNOWLEDGED]) is Grade.NONE
    assert weakest([]) is None


# --- plan ----------------------------------------------------------------------------------------------------------


def place(
    *, tell: bool = True, life: int | None = None, entered: datetime = NOW, access: datetime | None = None, **saml: Any
) -> Destination:
    """An application that the person entered."""
    return Destination(uuid.uuid4(), entered, tell, timedelta(seconds=life) if life else None, access, **saml)


def planned(found: tuple[PlannedCut, ...], kind: CutKind) -> list[PlannedCut]:
    """The planned cuts of one kind."""
    return [entry for entry in found if entry.kind is kind]


def test_plan_every_destination_has_its_lines() -> None:
    """With an endpoint: told, and only that leaves the process. Without: expiring when the application says how long, closed
    with no evidence when that has passed, unknown when it does not say. A living access token is a line, a dead one is not."""
    told, short, past, silent = (
        place(access=LATER),
        place(tell=False, life=3600),
        place(tell=False, life=60, entered=NOW - timedelta(hours=1)),
        place(tell=False),
    )
    expired = place(access=NOW)
    found = plan(Snapshot(Scope.ACCOUNT, {}, (told, short, past, silent, expired)), now=NOW)
    assert [(entry.application_id, entry.leaves) for entry in planned(found, CutKind.OIDC_LOGOUT)] == [
        (told.application_id, True), (expired.application_id, True),
    ]  # fmt: skip
    by_app = {entry.application_id: entry for entry in planned(found, CutKind.APPLICATION_LOGIN)}
    assert (by_app[short.application_id].state, by_app[short.application_id].residual_until) == (
        CutState.WAITING,
        NOW + timedelta(hours=1),
    )
    assert (by_app[past.application_id].state, by_app[past.application_id].grade) == (CutState.DONE, Grade.NONE)
    assert (by_app[silent.application_id].state, by_app[silent.application_id].residual_until) == (
        CutState.NEEDS_PERSON,
        None,
    )
    assert [(entry.application_id, entry.residual_until) for entry in planned(found, CutKind.ACCESS_TOKEN)] == [
        (told.application_id, LATER)
    ]
    assert sum(entry.leaves for entry in found) == 2
    assert len({(entry.kind, entry.target_ref) for entry in found}) == len(found), "a line is unique by kind and target"


def test_SA_14_SA_21_plan_of_service_providers() -> None:
    """With SOAP: told. Without: it lives until the end of the session that we granted. Under a name that colleagues use too:
    a person, whatever its metadata offers, because a logout by that name would hit them."""
    saml = {"kind": CutKind.SAML_LOGOUT, "session_until": LATER}
    told, front, gone, shared = (
        place(**saml), place(tell=False, **saml), place(tell=False, kind=CutKind.SAML_LOGOUT, session_until=NOW),
        place(shared_name=True, **saml),
    )  # fmt: skip
    found = plan(Snapshot(Scope.ACCOUNT, {}, (told, front, gone, shared)), now=NOW)
    by_app = {entry.application_id: entry for entry in found if entry.application_id}
    assert (by_app[told.application_id].kind, by_app[told.application_id].leaves) == (CutKind.SAML_LOGOUT, True)
    residual = by_app[front.application_id]
    assert (residual.kind, residual.state, residual.residual_until) == (
        CutKind.APPLICATION_LOGIN,
        CutState.WAITING,
        LATER,
    )
    assert (by_app[gone.application_id].state, by_app[gone.application_id].grade) == (CutState.DONE, Grade.NONE)
    assert (by_app[shared.application_id].state, by_app[shared.application_id].leaves) == (CutState.NEEDS_PERSON, False)


def test_plan_every_kind_has_a_place() -> None:
    """A kind that no snapshot brings out would be a thing that nobody cuts; a count of a kind is never lost."""
    everything = {kind: n for n, (kind, _) in enumerate(LOCAL, start=1)}
    for scope in Scope:
        secret, tool = uuid.uuid4(), uuid.uuid4()
        known = ToolAccess(tool, uuid.uuid4(), entered=True, classes=(CutClass.KNOWN_SECRET,), session_life=None)
        tools = ToolUse((known,), {tool: 2}, {uuid.uuid4(): tool}, frozenset({tool}))
        places = (place(access=LATER), place(tell=False), place(kind=CutKind.SAML_LOGOUT))
        found = plan(Snapshot(scope, everything, places, (secret,), tools), now=NOW)
        assert [(e.state, e.count, e.leaves) for e in planned(found, CutKind.GATEWAY_SESSION)] == [
            (CutState.WAITING, 2, True)
        ]
        assert [(e.state, e.application_id) for e in planned(found, CutKind.CLIENT_SECRET)] == [
            (CutState.NEEDS_PERSON, secret)
        ]
        assert {entry.kind for entry in found} == set(CutKind)
        assert {entry.kind: entry.count for entry in found if entry.kind in everything} == everything
        nothing = plan(Snapshot(scope, {}, ()), now=NOW)
        assert {entry.kind for entry in nothing} == {kind for kind, always in LOCAL if scope in always}
        assert all(entry.count == 0 and entry.grade is Grade.RECORDED and not entry.leaves for entry in nothing)
