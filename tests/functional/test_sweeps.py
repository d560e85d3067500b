"""The line of open screens on a receipt: what it says before, without and after the sweeps (§5.2 step 6; AU-20)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import time_machine
from sqlalchemy import select, update

from idp.core import clock
from idp.core.db import transaction
from idp.domain.credentials.models import SealedCredential
from idp.domain.gateway.models import GatewayAccess, GatewayProcess, GatewaySession, ToolSession
from idp.lifecycle.revocation import receipt
from idp.lifecycle.revocation.models import Evidence
from idp.lifecycle.revocation.receipt import Line
from idp.lifecycle.revocation.words import CutKind
from tests.actors import World
from tests.fakes.lives import cut
from tests.tools import place
from tests.unit.connectors.recipe_texts import COMPLETE


class Scene:
    """Somebody inside a tool, and gateway processes of which nobody knows what they hold."""

    def __init__(self, world: World) -> None:
        self.world, now = world, clock.now()
        self.at = place(world.app, COMPLETE.encode())
        self.account = world.person().id
        inside = self.at.enter(self.account)
        with world.app.app_context(), transaction() as session:
            session.add(
                SealedCredential(
                    created_at=now,
                    known_since=now,
                    known_to_people=False,
                    company_id=self.at.account.company_id,
                    tool_account_id=self.at.account.id,
                )
            )
            row = ToolSession(
                created_at=now, company_id=self.at.account.company_id, tool_account_id=self.at.account.id, state="live",
                ends_at=now + timedelta(hours=12),
            )  # fmt: skip
            session.add(row)
            session.flush()
            self.session = self.at.sit_down(session, inside, row.id)

    def process(self, *, swept: datetime, lease: timedelta = timedelta(days=365)) -> None:
        """A gateway process, with a lease that outlives the test unless told otherwise."""
        with self.world.app.app_context(), transaction() as session:
            at = clock.now() - timedelta(hours=1)
            session.add(GatewayProcess(created_at=at, started_at=at, swept_at=swept, lease_until=clock.now() + lease))

    def sweep(self, at: datetime) -> None:
        """Every process has swept."""
        with self.world.app.app_context(), transaction() as session:
            session.execute(update(GatewayProcess).values(swept_at=at))

    def cut(self) -> str:
        return cut(self.world, self.account)

    def line(self, number: str) -> Line:
        """The line, after the worker did what is due."""
        self.world.deliver()
        with self.world.app.app_context(), transaction() as session:
            lines = receipt.load(session, number, None).lines
        return next(one for one in lines if one.cut.kind == CutKind.GATEWAY_SESSION.value)


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


def test_AU_20_verified_only_when_every_process_has_swept_since(scene: Scene) -> None:
    """Recorded at the cut, open until each live process has swept later; after five seconds it says that it is not confirmed."""
    begun = clock.now()
    scene.process(swept=begun)
    scene.process(swept=begun + timedelta(days=1))
    number = scene.cut()
    with time_machine.travel(clock.now() + timedelta(seconds=1), tick=False) as clockwork:
        first = scene.line(number)
        assert (first.open, first.state, first.contract, first.grade) == (True, "cutting", "LOCAL_DEAD", None)
        evidence = scene.world.rows(select(Evidence.kind).where(Evidence.cut_id == first.cut.id))
        assert evidence == [], "looking again is no evidence"
        clockwork.shift(timedelta(seconds=6))
        late = scene.line(number)
        assert (late.open, late.state, late.contract) == (True, "failed", "UNCONFIRMED")
        clockwork.shift(timedelta(seconds=6))
        scene.sweep(clock.now() + timedelta(days=1))
        done = scene.line(number)
        assert (done.open, done.state, done.contract, done.grade) == (False, "confirmed", "VERIFIED", "verified")


def test_AU_20_a_process_whose_lease_lapsed_is_not_waited_for(scene: Scene) -> None:
    """By then it has closed everything itself."""
    scene.process(swept=clock.now() - timedelta(hours=1), lease=-timedelta(seconds=1))
    assert scene.line(scene.cut()).contract == "VERIFIED"


def test_AU_20_what_is_never_confirmed_needs_a_person(scene: Scene) -> None:
    """A day without an answer: the line is not closed, not green, and asks for somebody."""
    scene.process(swept=clock.now() - timedelta(hours=1))
    number = scene.cut()
    scene.line(number)
    with time_machine.travel(clock.now() + timedelta(hours=25), tick=False):
        line = scene.line(number)
        assert (line.open, line.state, line.contract) == (True, "manual", "MANUAL")


def test_AU_20_a_request_after_the_cut_is_never_hidden(scene: Scene) -> None:
    """By all that is built it cannot be. If the log of requests says otherwise, no line may read as cut."""
    number = scene.cut()
    with scene.world.app.app_context(), transaction() as session:
        at = clock.now() + timedelta(days=1)
        session.add(
            GatewayAccess(
                created_at=at,
                gateway_session_id=scene.session,
                at=at,
                method="GET",
                route="/home",
                status=200,
                sent_bytes=1,
            )
        )
    line = scene.line(number)
    assert (line.open, line.state, line.contract) == (True, "manual", "MANUAL")


def test_what_was_under_way_is_listed(scene: Scene) -> None:
    """A call that had been sent when the cut came: its answer was dropped, and the evidence says when it began (RV-03)."""
    at = clock.now()
    with scene.world.app.app_context(), transaction() as session:
        session.add(
            GatewayAccess(
                created_at=at, gateway_session_id=scene.session, at=at, method="POST", route="/form", rule="cut"
            )
        )
    line = scene.line(scene.cut())
    assert line.contract == "VERIFIED"
    detail = scene.world.rows(select(Evidence.detail).where(Evidence.cut_id == line.cut.id))[0][0]
    assert [(one["method"], one["route"]) for one in detail["dropped"]] == [("POST", "/form")]
    assert scene.world.rows(select(GatewaySession.end_reason))[0][0] == "revoked"
