"""VA-43, VA-47: kill -9 of the engine in the middle of a rotation (C1 to C8) and of a login, in real processes, on both databases.

C1 NEW sealed · C2 logged in with OLD · C3 `submitting` committed · C4 the form was sent and answered · C5 the answer is stored ·
C6 logged in with NEW · C7 promoted · C8 OLD probed. A rehearsal lists the steps, and each must have a name in the table. After
each death: a kept version logs in, nothing is submitted twice, no account is locked; and another engine goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import time_machine
from aiohttp import web

from idp.core import clock
from idp.domain.gateway.models import LoginJob
from tests.actors import World
from tests.conftest import Database
from tests.crash.conftest import Condemned
from tests.engine_room import Room, passwords, room
from tests.fakes.device import PASSWORD, in_loop_for
from tests.fakes.tools.site import Site, running
from tests.functional.test_rotation import changes, credential

LOGIN, CHANGE = "POST /login", "POST /account/password"


def named(steps: list[str]) -> dict[str, list[int]]:
    """Point of the matrix → the numbers of its steps. Raises for a step without a name."""
    where, found = "C0", dict[str, list[int]]()
    for number, step in enumerate(steps, start=1):
        if step.startswith("committed INSERT credential_version"):
            where = "C1"
        elif step == f"answered {LOGIN} 1":
            where = "C2"
        elif "UPDATE rotation" in step and where == "C2":
            where = "C3"
        elif step == f"answered {CHANGE} 1":
            where = "C4"
        elif "UPDATE rotation" in step and where == "C4":
            where = "C5"
        elif step == f"answered {LOGIN} 2":
            where = "C6"
        elif "UPDATE credential_version" in step and where == "C6":
            where = "C7"
        elif step == f"answered {LOGIN} 3":
            where = "C8"
        elif step.startswith("sending POST /logout"):
            where = "out"
        else:
            assert step.startswith(("committed UPDATE", "committed INSERT use_ticket", "sending", "answered")), step
        found.setdefault(where, []).append(number)
    return found


async def killed(condemned: Condemned, at: int) -> list[str]:
    """An engine that dies at a step; the tool goes on serving meanwhile."""
    dead, steps = await asyncio.to_thread(condemned.run, "engine", at)
    assert dead, steps
    return steps


async def go_on(on: Room) -> None:
    """Another engine, when the lease is over, and once more when the budget is whole again."""
    now = clock.now()
    for later in (timedelta(seconds=21), timedelta(minutes=40)):
        with time_machine.travel(now + later, tick=False):
            await on.engine.drain()


def tool() -> Site:
    return Site({"login_id": "store-7", "password": PASSWORD}, lock_after=3, change_ends_sessions=True)


def test_VA_43_kill_at_C1_to_C8_keeps_both(world: World, condemned: Condemned, database: Database) -> None:
    """Before the submit a rotation resumes; after it, NEW is tried once, then OLD: promoted or abandoned, and never a second submit."""

    @in_loop_for(120)
    async def run() -> None:
        site = tool()
        async with running(site), room(world.app, site) as on:
            await on.plan()
            steps = await asyncio.to_thread(condemned.rehearse, "engine")
        points = named(steps)
        assert set(points) == {f"C{n}" for n in range(9)} | {"out"}, steps
        for point in [f"C{n}" for n in range(1, 9)]:
            for at in sorted(
                {points[point][0], points[point][-1]} if database.engine == "sqlite" else {points[point][0]}
            ):
                site = tool()
                async with running(site), room(world.app, site) as on:
                    planned = await on.plan()
                    await killed(condemned, at)
                    have = await on.engine.means.call(lambda on=on: passwords(on.app, on.vault, on.account_id))  # type: ignore[misc]
                    assert site.credentials["password"] in have.values(), (point, steps[at - 1])
                    await go_on(on)
                    row = await on.rotation(planned)
                    sent = changes(on)
                    # committed as submitting and never sent: the tool still has OLD, and that is found out
                    unsent = point == "C3"
                    assert (row.state, sent) == (("abandoned", 0) if unsent else ("done", 1)), (
                        point,
                        steps[at - 1],
                        row.evidence,
                    )
                    have = await on.engine.means.call(lambda on=on: passwords(on.app, on.vault, on.account_id))  # type: ignore[misc]
                    assert have["current"] == site.credentials["password"]
                    assert (await credential(on)).known_to_people is unsent
                    assert not site.locked

    run()


def test_VA_47_engine_killed_in_a_login(world: World, condemned: Condemned) -> None:
    """Before `submitted_at` one more run, with a ticket of its own; after it none, the try stays counted, and a new launch may try."""

    @in_loop_for(60)
    async def run() -> None:
        site = tool()
        async with running(site), room(world.app, site) as on:
            await on.open(on.at.enter(world.person("0800").id))
            steps = await asyncio.to_thread(condemned.rehearse, "engine")
        submit = next(n for n, step in enumerate(steps, 1) if step == "committed UPDATE login_job, UPDATE tool_account")
        answered = steps.index(f"answered {LOGIN} 1") + 1
        numbers = iter(range(801, 900))
        for at in (submit - 2, submit - 1, submit, answered, answered + 1):
            site = tool()
            async with running(site), room(world.app, site) as on:
                who = on.at.enter(world.person(str(next(numbers)).zfill(4)).id)
                opened = await on.open(who)
                await killed(condemned, at)
                now = clock.now()
                with time_machine.travel(now + timedelta(seconds=21), tick=False):
                    await on.engine.drain()
                    posts = sum(hit.method == "POST" and hit.path == "/login" for hit in site.hits)
                    if at < submit:
                        assert await on.state(opened) == ("live", None), steps[at - 1]
                        assert (posts, (await on.account()).tries) == (1, 0)
                    elif at == answered + 1:  # stored: the engine died after its work
                        assert await on.state(opened) == ("live", None)
                    else:
                        assert await on.state(opened) == ("ended", "interrupted"), steps[at - 1]
                        assert (await on.account()).tries == 1
                        assert posts == (at == answered)
                        again = await on.open(who)
                        assert again != opened
                        await on.engine.drain()
                        assert await on.state(again) == ("live", None)
                    assert not site.locked
                    jobs = await on.engine.means.read(lambda s: list(s.query(LoginJob).all()))
                    assert all(job.done_at is not None for job in jobs)

    run()


def test_VA_47_certification_killed(world: World, condemned: Condemned) -> None:
    """Held, opened, counted, sent: nobody logs in beside it, its try stays counted, and after 20 s the account is free again."""
    deaths = ("committed INSERT use_ticket, UPDATE tool_account", "committed UPDATE use_ticket", "committed UPDATE tool_account", "sent")  # fmt: skip
    numbers = iter(range(900, 999))

    @in_loop_for(120)
    async def run() -> None:
        for at, name in enumerate(deaths, start=1):
            site = tool()
            async with running(site), room(world.app, site) as on:
                order, began = {"account": str(on.account_id)}, clock.now()
                if name == "sent":
                    steps = await _killed_by_the_tool(condemned, site, order)
                else:
                    dead, steps = await asyncio.to_thread(condemned.run, "certify", at, **order)
                    assert dead
                assert steps == list(deaths[: min(at, 3)])
                assert (await on.account()).tries == (at >= 3)
                hits, who = len(site.hits), on.at.enter(world.person(str(next(numbers)).zfill(4)).id)
                with time_machine.travel(began, tick=False):
                    opened = await on.open(who)
                    await on.engine.drain()
                    assert await on.state(opened) == ("opening", None), "somebody may be at work there"
                    assert len(site.hits) == hits
                held_until = (await on.account()).held_until
                assert held_until is not None
                with time_machine.travel(held_until, tick=False):
                    opened = await on.open(who)
                    await on.engine.drain()
                    assert await on.state(opened) == ("live", None), name
                assert (await on.account()).tries == 0
                assert not site.locked

    run()


async def _killed_by_the_tool(condemned: Condemned, site: Site, order: dict[str, str]) -> list[str]:
    """The process dies while the tool looks at the password that it got. Returns the steps before that."""
    login, begun = site._login, asyncio.get_running_loop().create_future()

    async def kill(request: web.Request, body: bytes) -> web.Response:
        if request.method == "POST":
            os.kill(await begun, signal.SIGKILL)
        return await login(request, body)

    site._login = kill  # type: ignore[method-assign]
    begun.set_result(await asyncio.to_thread(condemned.begin, "certify", None, **order))
    dead, steps = await asyncio.to_thread(condemned.ended)
    assert dead
    site._login = login  # type: ignore[method-assign]
    return steps
