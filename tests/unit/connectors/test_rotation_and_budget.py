"""Never lose both passwords, never lock the account: pure tables under every order of events (VA-43, §17 claim 4)."""

from __future__ import annotations

import random

import pytest

from connectors.engine import budget, rotation
from connectors.engine.budget import Tries
from connectors.engine.rotation import Effect, Event, NotListed, State, Step, after, openable, resumed
from connectors.recipes.load import load
from tests.unit.connectors.recipe_texts import COMPLETE, GROUND

RECIPE = load(COMPLETE.encode(), GROUND).recipe


def test_VA_43_every_unlisted_event_is_refused() -> None:
    for state in State:
        for event in Event:
            if (state, event) not in rotation.TABLE:
                with pytest.raises(NotListed):
                    after(state, event)
    assert all(state not in rotation.TERMINAL for state, _ in rotation.TABLE)


def test_VA_43_nothing_is_submitted_twice() -> None:
    """From a submit no path leads back to a submit, but for a rule that the tool named before any change."""
    for (state, event), step in rotation.TABLE.items():
        if step.state is State.SUBMITTING:
            assert (state, event) == (State.PENDING, Event.OLD_WORKS)
        if step.state is State.PENDING and state is not State.PLANNED:
            assert (state, event) in {(State.SUBMITTING, Event.RULE_BROKEN), (State.PENDING, Event.UNCLEAR)}
    assert after(State.SUBMITTING, Event.RULE_BROKEN, rule_rounds=2).state is State.NEEDS_HUMAN
    assert after(State.PENDING, Event.GAVE_UP) == Step(State.ABANDONED, Effect.DISCARD_NEW)
    assert all(state is State.PENDING for state, event in rotation.TABLE if event is Event.GAVE_UP), (
        "only before a submit"
    )


class Tool:
    """Believes one password; changes it, or not, when asked, whatever it says."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.holds = "old"

    def submit(self) -> Event:
        if self.source.random() < 0.6:
            self.holds = "new"
            return self.source.choice([Event.SUBMITTED_OK, Event.SUBMITTED_OK, Event.UNCLEAR])
        if self.source.random() < 0.3:
            self.holds = "third"  # it cut the new one short
            return Event.SUBMITTED_OK
        return self.source.choice([Event.RULE_BROKEN, Event.UNCLEAR, Event.SUBMITTED_OK])

    def login(self, which: str) -> bool | None:
        if self.source.random() < 0.15:
            return None
        return self.holds == which


def run_once(seed: int) -> tuple[State, str, list[Effect]]:
    """One rotation with crashes anywhere, to its end."""
    source = random.Random(seed)
    tool, state, effects, rounds, tries = Tool(source), State.PLANNED, [], 0, 3
    for _ in range(200):
        if state in rotation.TERMINAL:
            break
        if source.random() < 0.1:  # kill -9 and a restart
            event = resumed(state)
            if event is None:
                continue
        elif state is State.PLANNED:
            event = Event.SEALED
        elif state is State.PENDING:
            answer = tool.login("old")
            gave_up = rounds == 0 and source.random() < 0.1
            lost = Event.GAVE_UP if gave_up else Event.UNCLEAR
            event = lost if answer is None else Event.OLD_WORKS if answer else Event.OLD_REFUSED
        elif state is State.SUBMITTING:
            event = tool.submit()
        elif state is State.PROMOTED:
            event = Event.SIGNED_OUT
        elif tries <= 0:
            event = Event.NO_TRIES
        else:
            tries -= 1
            old = state is State.OLD_LEFT
            answer = tool.login("old" if old else "new")
            good, bad = (Event.OLD_WORKS, Event.OLD_REFUSED) if old else (Event.NEW_WORKS, Event.NEW_REFUSED)
            event = Event.UNCLEAR if answer is None else good if answer else bad
        step = after(state, event, rule_rounds=rounds)
        rounds += event is Event.RULE_BROKEN
        state = step.state
        effects.append(step.effect)
        kept = openable(state)
        assert tool.holds in kept or tool.holds == "third" or kept == {"old", "new"}, (state, tool.holds)
    return state, tool.holds, effects


def test_VA_43_no_order_of_faults_loses_the_password_of_the_tool() -> None:
    """3,000 rotations with crashes, lies and time-outs: what the tool believes is kept, or a person was called."""
    ends = [run_once(seed) for seed in range(3000)]
    for state, holds, effects in ends:
        assert state in rotation.TERMINAL
        if state is State.DONE:
            assert holds == "new"
            assert effects.count(Effect.PROMOTE) == 1
        if state is State.ABANDONED:
            assert holds == "old"
    assert {state for state, _, _ in ends} == set(rotation.TERMINAL), "every end is reached, or the test shows nothing"


def test_a_rotation_waits_for_a_budget_of_two() -> None:
    assert not rotation.may_start(1)
    assert rotation.may_start(2)


def test_the_account_is_never_locked_by_us_in_a_thousand_fault_runs() -> None:
    """Tool 15 locks after 3 failures within 30 minutes; the recipe allows 2 submits."""
    for seed in range(1000):
        source = random.Random(seed)
        now, tries, failures = 0.0, Tries(), []
        for _ in range(60):
            now += source.choice([1.0, 30.0, 400.0, 1000.0])
            if budget.left(tries, RECIPE, now) == 0:
                continue
            tries = budget.counted(tries, RECIPE, now)
            if source.random() < 0.2:
                tries, failures = budget.succeeded(tries), []
            else:
                failures = [at for at in failures if now - at < 600] + [now]
            assert len(failures) < 3
    assert RECIPE.login.attempts_max == 2


def test_a_lock_named_by_the_tool_stops_everything() -> None:
    tries = budget.blocked(Tries(), RECIPE, 1000.0)
    assert budget.left(tries, RECIPE, 1000.0 + 3599) == 0
    assert budget.left(tries, RECIPE, 1000.0 + 3600) == 2
