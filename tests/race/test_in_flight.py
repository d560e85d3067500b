"""RE-20, RV-21: an issuance races a revocation, for every issuing path × every scope that reaches it. Survivors: none.

Three ways, each on both engines: the two orders that a lock can force, barriers at random statement pairs, and plain
threads with random offsets. `history` is the judge of all three: no artefact works after the revocation's answer, no
revocation is lost, nobody is answered 5xx except *come back later*, and the server had no deadlock to break.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.race.arena import Arena, accepted, receipt_of
from tests.race.paths import PAIRS, PATHS, Scene
from tests.race.puppets import Meeting, at, committing, together

pairs = pytest.mark.parametrize(("path", "scope"), PAIRS, ids=[f"{p.__name__}-{s}" for p, s in PAIRS])
REVOKED = "INSERT INTO revocation"


def history(arena: Arena, scene: Scene, scope: str, issued: Any, revoked: Any, *, issuer_first: bool | None) -> None:
    """The judge. issuer_first: what the locks said about the order; None: unknown."""
    receipt_of(revoked)
    if issued is not None:
        accepted(issued)
    found = scene.works(issued)
    if scope in scene.reentry and issuer_first is not True:
        found = [
            what for what in found if what != "code"
        ]  # issued after the cut: a new entry, judged by what it claims
        if scope == "application":
            found = []
    assert not found, f"SURVIVOR of {scope} scope: {found}"


def meet(arena: Arena, scene: Scene, scope: str, pause: Any, *, issuer_stands: bool) -> Meeting:
    """Issuer and revoker meet, the one stopped where `pause` says; the revoker's result is `second` or `first` accordingly."""
    before = arena.deadlocks()
    issue, revoke = scene.issue, lambda: scene.revoke(scope)
    met = (
        arena.stage.meet(issue, revoke, pause=pause) if issuer_stands else arena.stage.meet(revoke, issue, pause=pause)
    )
    assert arena.deadlocks() == before, "the two take their locks in different orders (D7)"
    return met


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_RE_20_the_judge_sees_what_works(arena: Arena, path: type[Scene]) -> None:
    """Without a revocation everything that a path issues works, and the judge says so: otherwise its *none* means nothing."""
    scene = path(arena)
    issued = scene.issue()
    assert scene.works(issued)
    if issued is not None:
        assert issued.status_code in {200, 303}


@pairs
def test_RE_20_revocation_waits_for_issuer_and_ends_what_it_stored(arena: Arena, path: type[Scene], scope: str) -> None:
    """The issuer stands before its commit, gate claimed and artefact stored: the revocation must wait, and then find it."""
    scene = path(arena)
    met = meet(arena, scene, scope, committing(path.marker), issuer_stands=True)
    assert met.stood, f"{path.__name__} never stored its artefact: {met.steps}"
    assert met.waited, f"the revocation did not wait: no gate row is held by the issuer; {met.steps}"
    history(arena, scene, scope, met.first, met.second, issuer_first=True)


@pairs
def test_RE_20_issuer_waits_for_revocation_and_decides_no(arena: Arena, path: type[Scene], scope: str) -> None:
    """The revocation stands before its commit: the issuer must wait at the gate, and decide with what was committed."""
    scene = path(arena)
    met = meet(arena, scene, scope, committing(REVOKED), issuer_stands=False)
    assert met.stood, met.steps
    assert met.waited, "the issuer did not wait for the revocation: it claims no gate row"
    history(arena, scene, scope, met.second, met.first, issuer_first=False)


@pairs
def test_RE_20_barriers_at_statement_pairs(
    arena: Arena, path: type[Scene], scope: str, rounds: int, dice: random.Random
) -> None:
    """One of the two stands before a random step, the other one runs until it ends or waits; then both finish."""
    for _ in range(rounds):
        issuer_stands = dice.random() < 0.5
        scene = path(arena)
        pause = at(dice.randint(1, 12 if issuer_stands else 30))
        met = meet(arena, scene, scope, pause, issuer_stands=issuer_stands)
        order = met.waited == issuer_stands if met.stood else issuer_stands
        issued, revoked = (met.first, met.second) if issuer_stands else (met.second, met.first)
        history(arena, scene, scope, issued, revoked, issuer_first=order)


@pairs
def test_RE_20_random_offsets(arena: Arena, path: type[Scene], scope: str, rounds: int, dice: random.Random) -> None:
    """Plain threads from one barrier, each with a tiny random offset: 0 survivors."""
    for _ in range(rounds):
        scene = path(arena)
        before = arena.deadlocks()
        offsets = (dice.uniform(0, 0.03), dice.uniform(0, 0.03))
        issued, revoked = together(scene.issue, lambda s=scene: s.revoke(scope), offsets=offsets)  # type: ignore[misc]
        assert arena.deadlocks() == before
        history(arena, scene, scope, issued, revoked, issuer_first=None)
