"""Changing a password without ever losing both: the transitions as a pure table (§4, VA-43).

`after(state, event)` names the next state and what the caller stores with it; the caller claims the row in the old state and
performs the effect, so a crash between two steps leaves a state that this table continues from. What is not listed is
refused: a lost lease or a late answer cannot move a rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_RULE_ROUNDS: Final = 2
KEEP_DISCARDED_DAYS: Final = 30
MIN_TRIES_TO_START: Final = 2


class State(StrEnum):
    """Of one rotation. The last three are terminal."""

    PLANNED = "planned"
    PENDING = "pending"
    SUBMITTING = "submitting"
    VERIFYING = "verifying"
    UNCERTAIN = "uncertain"
    OLD_LEFT = "old_left"  # uncertain, NEW refused: OLD is tried once
    PROMOTED = "promoted"
    DONE = "done"
    ABANDONED = "abandoned"
    NEEDS_HUMAN = "needs_human"


class Event(StrEnum):
    """What happened at the tool, or to the program."""

    SEALED = "sealed"  # NEW is stored, sealed, and nothing was sent
    OLD_WORKS = "old_works"  # fresh login with OLD, form filled, not yet submitted
    OLD_REFUSED = "old_refused"
    SUBMITTED_OK = "submitted_ok"  # the tool's success check holds
    RULE_BROKEN = "rule_broken"  # the tool named a rule before any change
    UNCLEAR = "unclear"  # time-out, 5xx, crash, lapsed lease, a page that says neither
    NEW_WORKS = "new_works"
    NEW_REFUSED = "new_refused"
    NO_TRIES = "no_tries"
    GAVE_UP = "gave_up"  # the form for a new password was never sent, and the machine may not go on
    SIGNED_OUT = "signed_out"  # sign-out-everywhere sent; old session and OLD probed or stated as not probed


class Effect(StrEnum):
    """What is written in the same transaction as the new state."""

    NONE = "none"
    PROMOTE = "promote"  # NEW current, OLD previous, known_to_people false
    DISCARD_NEW = "discard_new"  # OLD stays current, NEW kept sealed for 30 days
    KEEP_BOTH = "keep_both"  # both stay openable until a person decides


@dataclass(frozen=True, slots=True)
class Step:
    """Where a rotation goes and what is stored with it."""

    state: State
    effect: Effect = Effect.NONE


class NotListed(ValueError):
    """This event cannot happen in this state; nothing is changed."""


_HUMAN: Final = Step(State.NEEDS_HUMAN, Effect.KEEP_BOTH)
_PROMOTED: Final = Step(State.PROMOTED, Effect.PROMOTE)

TABLE: Final[dict[tuple[State, Event], Step]] = {
    (State.PLANNED, Event.SEALED): Step(State.PENDING),
    (State.PENDING, Event.OLD_WORKS): Step(State.SUBMITTING),
    (State.PENDING, Event.OLD_REFUSED): _HUMAN,
    (State.PENDING, Event.NO_TRIES): _HUMAN,
    (State.PENDING, Event.GAVE_UP): Step(State.ABANDONED, Effect.DISCARD_NEW),  # the tool holds what it held before
    (State.PENDING, Event.UNCLEAR): Step(State.PENDING),  # nothing was submitted: later again
    (State.SUBMITTING, Event.SUBMITTED_OK): Step(State.VERIFYING),
    (State.SUBMITTING, Event.RULE_BROKEN): Step(State.PENDING),
    (State.SUBMITTING, Event.UNCLEAR): Step(State.UNCERTAIN),  # and never submitted again
    (State.VERIFYING, Event.NEW_WORKS): _PROMOTED,
    (State.VERIFYING, Event.NEW_REFUSED): Step(State.OLD_LEFT),  # it said OK and kept OLD, or cut NEW short
    (State.VERIFYING, Event.UNCLEAR): Step(State.UNCERTAIN),
    (State.VERIFYING, Event.NO_TRIES): _HUMAN,
    (State.UNCERTAIN, Event.NEW_WORKS): _PROMOTED,
    (State.UNCERTAIN, Event.NEW_REFUSED): Step(State.OLD_LEFT),
    (State.UNCERTAIN, Event.UNCLEAR): Step(State.UNCERTAIN),
    (State.UNCERTAIN, Event.NO_TRIES): _HUMAN,
    (State.OLD_LEFT, Event.OLD_WORKS): Step(State.ABANDONED, Effect.DISCARD_NEW),
    (State.OLD_LEFT, Event.OLD_REFUSED): _HUMAN,
    (State.OLD_LEFT, Event.UNCLEAR): Step(State.OLD_LEFT),
    (State.OLD_LEFT, Event.NO_TRIES): _HUMAN,
    (State.PROMOTED, Event.SIGNED_OUT): Step(State.DONE),
}
TERMINAL: Final = frozenset({State.DONE, State.ABANDONED, State.NEEDS_HUMAN})


def may_start(tries_left: int) -> bool:
    """Whether the budget has room for the login with OLD and the one with NEW; else the rotation waits."""
    return tries_left >= MIN_TRIES_TO_START


def after(state: State, event: Event, *, rule_rounds: int = 0) -> Step:
    """The next step. rule_rounds: how often the tool has named a broken rule already. Raises NotListed."""
    step = TABLE.get((state, event))
    if step is None:
        raise NotListed(f"{event} in {state}")
    if event is Event.RULE_BROKEN and rule_rounds >= MAX_RULE_ROUNDS:
        return _HUMAN
    return step


def resumed(state: State) -> Event | None:
    """What a restart means for a rotation whose program died: only a submit under way leaves a doubt."""
    return Event.UNCLEAR if state in {State.SUBMITTING, State.VERIFYING} else None


def openable(state: State) -> frozenset[str]:
    """Which versions must stay openable in a state: never less than the one that may be the tool's."""
    if state in {State.PROMOTED, State.DONE}:
        return frozenset({"new"})
    if state in {State.PLANNED, State.ABANDONED}:
        return frozenset({"old"})
    return frozenset({"old", "new"})
