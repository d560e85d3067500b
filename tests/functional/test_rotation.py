"""Changing a tool's password (VA-42, VA-43): tools 1 and 16 with its variants, through the engine and the database.

Whatever the tool does: one version that we keep logs in, or a person was called and both are kept; and nothing is submitted twice.
"""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from aiohttp import web
from sqlalchemy import select, update

from idp.core import clock
from idp.core.db import change
from idp.core.errors import Conflict
from idp.domain.credentials import rotations
from idp.domain.credentials.models import CredentialVersion, SealedCredential
from idp.domain.credentials.rotated import word_of
from idp.domain.gateway.models import ToolSession
from idp.domain.tools import health
from idp.domain.tools.models import KillCapability
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.oversight import retention
from tests.actors import CLI, World
from tests.engine_room import Room, passwords, room
from tests.fakes.device import PASSWORD, in_loop
from tests.fakes.tools.site import SESSION, Site, running
from tests.functional.test_engine import jar_of

NUMBERS = itertools.count(700)


def store() -> dict[str, str]:
    return {"login_id": "store-7", "password": PASSWORD}


async def kept(on: Room) -> dict[str, str]:
    """Version state → password."""
    return await on.engine.means.call(lambda: passwords(on.app, on.vault, on.account_id))


async def credential(on: Room) -> SealedCredential:
    query = select(SealedCredential).where(SealedCredential.tool_account_id == on.account_id)
    found = await on.engine.means.read(lambda session: session.scalar(query))
    assert found is not None
    return found


def changes(on: Room) -> int:
    """How often the tool got its form for a new password."""
    return sum(hit.method == "POST" and hit.path == "/account/password" for hit in on.site.hits)


@in_loop
async def _plain(world: World) -> None:
    site = Site(store(), change_ends_sessions=True)
    async with running(site), room(world.app, site) as on:
        assert (await credential(on)).known_to_people
        opened = await on.open(on.at.enter(world.person(str(next(NUMBERS))).id))
        await on.settle()
        first = (await jar_of(on, opened))[SESSION]
        planned = await on.plan("leaver")
        assert await on.plan("owner") == planned, "one open rotation per credential"
        await on.settle()
        row = await on.rotation(planned)
        assert (row.state, row.code) == ("done", None)
        words = {name: word_of(row.evidence, name) for name in ("new_password", "old_password", "old_session")}
        assert words == {"new_password": "works", "old_password": "refused", "old_session": "refused"}
        versions = await kept(on)
        assert versions == {"current": site.credentials["password"], "previous": PASSWORD}
        assert versions["current"] != PASSWORD
        assert not on.at.recipe.password.rules.broken_by(versions["current"])  # type: ignore[union-attr]
        lock = await credential(on)
        assert (lock.known_to_people, lock.pending_version, lock.current_version) == (False, None, 2)
        # the people inside have a new login, made with the new password
        tool_session = await on.row(ToolSession, opened)
        assert (tool_session.state, tool_session.generation) == ("live", 2)
        second = (await jar_of(on, opened))[SESSION]
        assert second != first
        assert set(site.sessions) == {second}, "our own logins of the rotation are over"
        measured = await on.engine.means.read(
            lambda s: s.scalar(select(KillCapability).where(KillCapability.application_id == on.at.application_id))
        )
        assert measured is not None
        assert (measured.change_by, measured.change_ends_sessions) == ("form", "at_once")
        rows = await on.engine.means.read(
            lambda s: list(s.scalars(select(AuditEvent).where(AuditEvent.tag == Tag.ROTATION_MOVED)))
        )
        assert {row.detail["state"] for row in rows} == {"pending", "submitting", "verifying", "promoted", "done"}
        assert all(versions["current"] not in str(row.detail) and PASSWORD not in str(row.detail) for row in rows)
        # a tool that keeps the old sessions is measured as such
        site.change_ends_sessions = False
        again = await on.plan("schedule")
        await on.settle()
        row = await on.rotation(again)
        assert (row.state, word_of(row.evidence, "old_session")) == ("done", "still_in")
        measured = await on.row(KillCapability, measured.id)
        assert measured.change_ends_sessions == "never"


ODD = [
    # what the tool does, the state, versions that are kept, how often the form was sent, whether a kept version logs in
    ("dies_after", "done", {"current", "previous"}, 1, True),
    ("keeps_old", "abandoned", {"current", "discarded"}, 1, True),
    ("truncates", "needs_human", {"current", "pending"}, 1, False),
    ("rule", "needs_human", {"current", "pending", "discarded"}, 3, True),
]


@in_loop
async def _odd(world: World) -> None:
    for habit, state, versions, sent, logs_in in ODD:
        site = Site(store(), changing=habit, lock_after=3)
        async with running(site), room(world.app, site) as on:
            planned = await on.plan()
            await on.settle()
            row = await on.rotation(planned)
            assert row.state == state, (habit, row.evidence)
            have = await kept(on)
            assert set(have) == versions, habit
            assert changes(on) == sent, habit
            assert (site.credentials["password"] in have.values()) is logs_in, habit
            assert not site.locked, habit
            account = await on.account()
            # a password that the tool would not take does not stop people; one that may not hold does
            assert account.state == ("degraded" if habit == "truncates" else "active"), habit
            known = (await credential(on)).known_to_people
            assert known is (state != "done"), habit
            if state == "needs_human":
                assert row.ended_at is None
                with time_machine.travel(clock.now() + timedelta(days=2), tick=False):
                    hits = len(site.hits)
                    await on.settle()
                    assert len(site.hits) == hits, "a machine never goes on where a person is asked"
                await _decided(on, row)


async def _decided(on: Room, row: Any) -> None:
    """A person says which one holds; a second person is told that it is decided."""
    await on.call(lambda s: rotations.decide(s, row.id, holds="new", actor=CLI, now=clock.now()))
    with pytest.raises(Conflict):
        await on.call(lambda s: rotations.decide(s, row.id, holds="old", actor=CLI, now=clock.now()))
    found = await credential(on)
    assert (found.current_version, found.pending_version) == (row.new_version, None)
    assert found.known_to_people, "what a person says is not proven"
    assert {"current", "previous"} <= set(await kept(on))


@in_loop
async def _waits(world: World) -> None:
    site = Site(store(), down=True)
    async with running(site), room(world.app, site) as on:
        planned = await on.plan()
        await on.engine.drain()
        row = await on.rotation(planned)
        assert (row.state, row.code, changes(on)) == ("pending", "tool_away", 0)
        assert (await kept(on))["current"] == PASSWORD
        site.down = False
        with time_machine.travel(clock.now() + timedelta(seconds=6), tick=False) as frozen:
            await on.call(lambda s: setattr(s.get_one(type(on.at.account), on.account_id), "tries", 1))
            before = row.created_at - timedelta(minutes=1)  # a login of before: time gives that try back
            await on.call(lambda s: setattr(s.get_one(type(on.at.account), on.account_id), "tries_since", before))
            await on.engine.drain()
            row = await on.rotation(planned)
            assert (row.state, row.code, changes(on)) == ("pending", "no_tries", 0), "two tries are needed to begin"
            frozen.shift(timedelta(minutes=31))
            await on.settle()
        row = await on.rotation(planned)
        assert row.state == "done"
        assert (await kept(on))["current"] == site.credentials["password"]
        # OLD was changed by hand: a person is asked before anything is submitted, and nothing is lost
        current = site.credentials["password"]
        site.credentials["password"] = "somebody changed it"
        sent = changes(on)
        planned = await on.plan()
        await on.settle()
        row = await on.rotation(planned)
        assert (row.state, row.code, changes(on) - sent) == ("needs_human", "refused", 0)
        assert (await kept(on))["current"] == current
        # the person types what holds: the rotation is over, and the typed value is known to people
        await on.deposit(site.credentials)
        assert (await on.rotation(planned)).state == "abandoned"
        assert (await credential(on)).known_to_people
        # retention empties a discarded version 30 days after the rotation that it was part of, however old it is
        assert await _emptied(on, days=29) == 0
        await on.call(
            lambda s: change(s, update(CredentialVersion).values(created_at=clock.now() - timedelta(days=99)))
        )
        assert await _emptied(on, days=1) == 0
        assert await _emptied(on, days=31) >= 1
        assert (await kept(on))["current"] == site.credentials["password"]


async def _emptied(on: Room, *, days: int) -> int:
    """How many versions of a credential nobody can open any more, after the retention of some days later."""
    at = clock.now() + timedelta(days=days)
    await on.engine.means.call(lambda: retention.step(on.settings, now=at))
    gone = select(CredentialVersion.id).where(
        CredentialVersion.state == "shredded", CredentialVersion.wrapped_dek == b""
    )
    return len(await on.engine.means.read(lambda s: s.scalars(gone).all()))


class BadMinute(Site):
    """Its login answers 503 for a minute after a new password was sent; its pages are well meanwhile."""

    ends: datetime | None = None

    async def do_account_password(self, request: web.Request, body: bytes) -> web.Response:
        if request.method == "POST":
            self.ends = clock.now() + timedelta(minutes=1)
        return await super().do_account_password(request, body)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.ends is not None:
            self.lost = ["POST /login"] if clock.now() < self.ends else []
        return await super().handle(request)


@in_loop
async def _bad_minute(world: World) -> None:
    site = BadMinute(store())
    async with running(site), room(world.app, site) as on:
        with time_machine.travel(clock.now(), tick=False):
            planned = await on.plan()
            await on.engine.drain()
            row = await on.rotation(planned)
            assert (row.state, row.code, (await on.account()).tries) == ("uncertain", "tool_away", 1)
            assert row.next_at - clock.now() == rotations.AFTER_A_TRY, "the last try is not for the same minute"
        await on.settle()
        row = await on.rotation(planned)
        assert (row.state, changes(on)) == ("done", 1), row.evidence
        assert (await kept(on))["current"] == site.credentials["password"]


@in_loop
async def _gives_up(world: World) -> None:
    """Nothing was ever sent to the form: OLD stays, nobody is asked which password holds, and no more is tried than may be."""
    site = Site(store(), lost=["POST /login"] * 100, lock_after=3)
    async with running(site), room(world.app, site) as on:
        planned = await on.plan()
        await on.settle()
        row = await on.rotation(planned)
        assert (row.state, row.code, row.evidence[-1]["event"], changes(on)) == ("abandoned", "no_tries", "gave_up", 0)
        assert [entry["event"] for entry in row.evidence] == ["sealed", "unclear", "unclear", "gave_up"]
        assert site.paths().count("POST /login") == 2
        assert set(await kept(on)) == {"current", "discarded"}
        assert (await kept(on))["current"] == PASSWORD
        assert ((await credential(on)).pending_version, (await credential(on)).known_to_people) == (None, True)
        account = await on.account()
        assert (account.state, account.code, account.tries) == ("degraded", "rotation_no_tries", 2)
        moved = select(AuditEvent).where(AuditEvent.tag == Tag.ROTATION_MOVED)
        rows = await on.engine.means.read(lambda s: list(s.scalars(moved)))
        ends = [(row.detail["state"], row.result) for row in rows if row.detail["event_name"] == "gave_up"]
        assert ends == [("abandoned", "refused")]
        # a person has looked: the tries begin anew, and so does the change
        site.lost.clear()
        await on.call(lambda s: health.resolve(s, on.account_id, note="ツールを見ました", actor=CLI, now=clock.now()))
        planned = await on.plan()
        await on.settle()
        assert (await on.rotation(planned)).state == "done"
    site = Site(store(), down=True)
    async with running(site), room(world.app, site) as on:
        planned = await on.plan()
        await on.engine.drain()
        with time_machine.travel(clock.now() + rotations.LIFE - timedelta(seconds=10), tick=False):
            await on.engine.drain()
        row = await on.rotation(planned)
        assert (row.state, row.code, row.evidence[-1]["event"]) == ("abandoned", "tool_away", "gave_up")
        assert (await kept(on))["current"] == PASSWORD


def test_VA_43_the_last_try_is_not_spent_in_the_same_bad_minute(world: World) -> None:
    """The tool says OK and then answers no login for a minute: the rotation waits it out and ends by itself."""
    _bad_minute(world)


def test_VA_43_what_was_never_sent_is_given_up_and_is_no_question(world: World) -> None:
    """No login with OLD is ever answered, or the tool is away for a day: abandoned, and a person looks at the tool."""
    _gives_up(world)


def test_VA_42_a_rotation_is_proven_and_colleagues_stay_in(world: World) -> None:
    """Tool 1: NEW works, OLD refused, the old session refused; sealed, known to nobody, measured; then a tool that keeps sessions."""
    _plain(world)


def test_VA_43_a_tool_that_lies_dies_cuts_short_or_objects(world: World) -> None:
    """Tool 16: 500 after the commit is solved, *OK* with the old password is seen, truncation and rules call a person; never twice."""
    _odd(world)


def test_VA_43_nothing_begins_without_a_tool_tries_and_the_right_old_password(world: World) -> None:
    """A tool that is away or a budget without room make a rotation wait; a wrong OLD calls a person before anything is sent."""
    _waits(world)


def test_stricter_rules_keep_what_is_required() -> None:
    """A NEW that a tool objected to is made anew from letters and digits, unless the rules want a symbol."""
    from connectors.recipes.password_rules import parse, stricter

    plain = parse("minlength: 8; required: lower; required: digit; allowed: [-_.];")
    assert stricter(plain).alphabet.isalnum()
    symbol = parse("minlength: 8; required: [-_.];")
    assert stricter(symbol) == symbol
