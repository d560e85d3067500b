"""Password-only tools, from the tile to the cut: portal, gateway and engine as they run (vault-and-gateway.md §5)."""

from __future__ import annotations

import asyncio
import contextlib
import html
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import aiohttp
import httpx2
import pytest
import time_machine
from aiohttp import WSMsgType
from sqlalchemy import select, update

from idp.core import clock
from idp.domain.applications.models import Application
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.domain.gateway.models import GatewayAccess, GatewaySession
from idp.lifecycle.revocation.words import CutKind
from tests.actors import Browser, line_states, receipt_number
from tests.conftest import Database
from tests.doorway import Doorway, doorway
from tests.fakes.device import PASSWORD, in_loop_for
from tests.fakes.tools.site import Site

CREDENTIALS = {"login_id": "store-7", "password": PASSWORD}


async def eventually(true: Callable[[], Any]) -> Any:
    """What another process does; the limit of the test ends the wait."""
    while not (found := await asyncio.to_thread(true)):  # noqa: ASYNC110 - another process has no event for us
        await asyncio.sleep(0.05)
    return found


def line(page: Any, position: str) -> dict[str, str]:
    return line_states(page)[position]


def position_of(made: Doorway, number: str, kind: CutKind) -> str:
    from idp.lifecycle.revocation.models import Cut, Revocation

    query = (
        select(Cut.position)
        .join(Revocation, Revocation.id == Cut.revocation_id)
        .where(Revocation.number == number, Cut.kind == kind.value)
    )
    rows = made.world.rows(query)
    assert len(rows) == 1, (kind, rows)
    return str(rows[0][0])


def test_VA_50_VA_51_a_launch_and_an_instant_cut(database: Database) -> None:
    """Page open, socket open, upload running, second terminal: one press ends all of it, a colleague loses nothing, and the
    line is verified only after the gateway has swept (criterion of the instant cut)."""

    @in_loop_for(60)
    async def run() -> None:
        site = Site(dict(CREDENTIALS))
        async with doorway(database, site) as made:
            world = made.world
            staff, mate = world.person("0413"), world.person("0414", name="田中 花")
            manager = world.person("0101", role=Role.STORE_MANAGER, name="鈴木 一郎")
            with (
                Browser(made.app) as phone,
                Browser(made.app) as till,
                Browser(made.app) as other,
                Browser(made.app) as desk,
            ):
                device = await made.enter(staff, phone)
                home = await device.get("/home")
                assert "田中 さん" in home.text
                assert PASSWORD.encode() not in device.seen
                second = await made.enter(staff, till)
                assert second.host != device.host, "another opening is another origin"
                colleague = await made.enter(mate, other)
                assert site.logins == 1, "one login of ours for three people"
                await asyncio.to_thread(desk.log_in, manager)
                stop_page = await asyncio.to_thread(desk.get, f"/store/S1/staff/{staff.id}/stop")
                assert "シフトノート" in stop_page.text

                async with device.socket("/live") as socket, colleague.socket("/live") as theirs:
                    await socket.send_str("hello")
                    assert (await socket.receive()).data == "tool:hello"
                    done = asyncio.Event()

                    async def pieces() -> AsyncIterator[bytes]:
                        while not done.is_set():
                            yield b"x" * 100
                            await asyncio.sleep(0.01)

                    async def upload() -> int:
                        with contextlib.suppress(aiohttp.ClientError):
                            return (await second.post("/upload-slow", data=pieces())).status
                        return 0

                    asking = asyncio.create_task(upload())
                    while site.upload_pieces < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

                    kept = [(device, dict(device.cookies)), (second, dict(second.cookies))]
                    page = await asyncio.to_thread(desk.submit)
                    number = receipt_number(page)
                    sent = len([hit for hit in site.hits if not hit.path.startswith("/live")])
                    for one, saved in kept:
                        for method, path in (("GET", "/home"), ("POST", "/form"), ("GET", "/list.csv")):
                            one.cookies = dict(saved)
                            answer = await one.ask(method, path, headers={"Origin": one.origin})
                            assert (answer.status, answer.page) == (403, "ended")
                    assert len([hit for hit in site.hits if not hit.path.startswith("/live")]) == sent, (
                        "nothing went upstream"
                    )
                    message = await socket.receive()
                    assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
                    assert socket.close_code == 1008
                    assert await asking in {0, 403}
                    done.set()
                    await theirs.send_str("still")
                    assert (await theirs.receive()).data == "tool:still"
                assert (await colleague.get("/home")).status == 200

                position = position_of(made, number, CutKind.GATEWAY_SESSION)
                first = line(page, position)
                assert (first["state"], first["open"]) == ("cutting", "true"), first
                assert "新しい操作は止めました" in page.text

                def verified() -> Any:
                    world.deliver()
                    shown = desk.get(f"/receipts/{number}")
                    return shown if line(shown, position)["state"] == "confirmed" else None

                shown = await eventually(verified)
                assert line(shown, position)["grade"] == "verified"
                assert "パスワードもログイン状態も端末に渡していません" in shown.text
                # cannot come back: the address, the portal, a new launch
                assert (await device.get("/.sekisho/start")).status == 303
                assert "/login" in str((await asyncio.to_thread(phone.get, "/tools/shifts/start")).url)
                ended = select(GatewaySession.end_reason).where(GatewaySession.account_id == staff.id)
                assert {row[0] for row in made.world.rows(ended)} == {"revoked"}
                routes = {row[0] for row in made.world.rows(select(GatewayAccess.route))}
                assert {"/home", "/live", "/upload-slow"} <= routes

    run()


def test_D7_an_end_date_holds_in_a_tool_with_the_worker_stopped(database: Database) -> None:
    """Nothing has touched the rows: the live check itself sees that the day is over. A socket closes with the next sweep."""

    @in_loop_for(60)
    async def run() -> None:
        async with doorway(database, Site(dict(CREDENTIALS))) as made:
            staff = made.world.person("0413")
            with Browser(made.app) as phone:
                device = await made.enter(staff, phone)
                assert (await device.get("/home")).status == 200
                async with device.socket("/live") as socket:
                    made.toolbox.change(
                        update(Account).where(Account.id == staff.id).values(ends_at=clock.now() + timedelta(seconds=1))
                    )
                    while (answer := await device.get("/home")).status == 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    assert answer.page == "ended"
                    assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
                row = made.world.rows(
                    select(Account.ended_at, GatewaySession.ended_at).join(
                        GatewaySession, GatewaySession.account_id == Account.id
                    )
                )
                assert [tuple(one) for one in row] == [(None, None)]

    run()


def headline(page: httpx2.Response) -> str:
    """The words of the <h1>."""
    found = re.search(r"<h1>(.*?)</h1>", page.text)
    assert found is not None, page.text[:800]
    return html.unescape(found[1])


@pytest.mark.parametrize("language", ["ja", "en"])
def test_the_pages_of_a_launch_speak(database: Database, language: str) -> None:
    """The tile says how far the password gets; a tool that cannot be opened says who can solve it."""

    @in_loop_for(60)
    async def run() -> None:
        async with doorway(database, Site(dict(CREDENTIALS), down=True)) as made:
            staff, stranger = made.world.person("0413"), made.world.person("0900", store="S2")
            headlines = {
                "ja": ("「シフトノート」は、いまは開けません", "「シフトノート」は使えません"),
                "en": ("“シフトノート” cannot be opened now", "You cannot use “シフトノート”"),
            }[language]
            with Browser(made.app) as phone, Browser(made.app) as other:
                await asyncio.to_thread(phone.log_in, staff, at=f"/login?lang={language}")
                assert {"ja": "サーバーの中だけ", "en": "Only inside the server"}[language] in phone.get("/").text
                phone.get("/tools/shifts/start")
                waiting = phone.submit(action="/tools/shifts/open")
                assert (waiting.status_code, "/tools/launch/" in str(waiting.url)) == (200, True)
                assert 'http-equiv="refresh"' in waiting.text
                # no engine takes the login: longer than any login may take, the page says so and stops reloading
                with time_machine.travel(clock.now() + timedelta(seconds=76), tick=False):
                    given_up = phone.get(str(waiting.url))
                assert (given_up.status_code, "engine_away" in given_up.text) == (409, True)
                assert {"ja": "仕組みが動いていません", "en": "is not running"}[language] in given_up.text
                assert 'http-equiv="refresh"' not in given_up.text
                other.log_in(stranger, at=f"/login?lang={language}")
                assert other.get(str(waiting.url)).status_code == 404, "somebody else's launch"
                other.get("/tools/shifts/start")
                refused = other.submit(action="/tools/shifts/open")
                assert (refused.status_code, "no_account" in refused.text) == (409, True)
                assert {"ja": "店長", "en": "manager"}[language] in refused.text
                assert headline(refused) == headlines[0], "the page names the tool"
                made.toolbox.set(Application, Application.id == made.tool, min_acr="urn:sekisho:aal2")
                other.get("/tools/shifts/start")
                weak = other.submit(action="/tools/shifts/open")
                assert (weak.status_code, headline(weak)) == (403, headlines[1])
                assert (
                    other.get("/tools/admit?label=shifts-aaaaaaaaaaaaaaaaaaaa&challenge=" + "A" * 43).status_code == 404
                )
                assert other.get("/tools/admit?label=x&challenge=short").status_code == 400
                assert other.get("/tools/nothing/start").status_code == 404

    run()
