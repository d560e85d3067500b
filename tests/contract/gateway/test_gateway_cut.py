"""Cut now: a page open, a socket open, an upload running, a slow answer held, a second terminal (§17 claims 2 and 3)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import pytest
from aiohttp import WSMsgType

from connectors.gateway.admit import COOKIE
from connectors.gateway.live import LiveCheck
from connectors.ports import GatewayView
from tests.fakes.device import in_loop, staged, until


@in_loop
async def test_VA_50_nothing_goes_upstream_after_the_cut() -> None:
    async with staged() as stage:
        leaver, colleague = stage.person("gs-1"), stage.person("gs-2")
        second_terminal = stage.person("gs-1")
        saved, second = dict(leaver.cookies), dict(second_terminal.cookies)
        assert (await leaver.get("/home")).status == 200
        stage.house.cut("gs-1")
        before = len(stage.site.hits)
        for device in (leaver, second_terminal):
            for method, path in (("GET", "/home"), ("POST", "/form"), ("GET", "/list.csv"), ("GET", "/logout")):
                device.cookies = dict(saved) if device is leaver else dict(second)
                answer = await device.ask(method, path, headers={"Origin": device.origin})
                assert (answer.status, answer.page) == (403, "ended")
        assert answer.header("Clear-Site-Data") == '"cache", "storage"'
        assert COOKIE not in leaver.cookies
        leaver.cookies = saved
        assert (await leaver.get("/home")).page == "ended", "a saved cookie does not come back"
        assert len(stage.site.hits) == before
        assert (await colleague.get("/home")).status == 200, "a colleague on the same jar loses nothing"


@in_loop
async def test_VA_50_an_answer_that_was_under_way_is_dropped() -> None:
    """The request was sent before T0; what the tool says after T0 does not leave."""
    async with staged() as stage:
        device = stage.person()
        asking = asyncio.create_task(device.get("/slow"))
        await stage.site.reached.wait()
        stage.house.cut("gs-1", ring=False)
        stage.site.gate.set()
        answer = await asking
        assert answer.page == "ended"
        assert b"secret report" not in device.seen
        await asyncio.sleep(0.6)
        row = next(row for row in stage.house.rows if row.route == "/slow")
        assert (row.rule, row.status) == ("cut", 403), "it is on record with its time"


@in_loop
async def test_VA_50_the_release_is_checked_also_when_no_sweep_ran() -> None:
    async with staged(sweep_s=60) as stage:
        device = stage.person()
        asking = asyncio.create_task(device.get("/slow"))
        await stage.site.reached.wait()
        stage.house.cut("gs-1", ring=False)
        stage.site.gate.set()
        assert (await asking).page == "ended"
        assert b"secret report" not in device.seen


@in_loop
async def test_a_websocket_is_closed_on_both_sides_within_a_second() -> None:
    async with staged() as stage:
        device, colleague = stage.person("gs-1"), stage.person("gs-2")
        async with device.socket("/live") as socket, colleague.socket("/live") as other:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "tool:hello"
            await other.send_str("still")
            assert (await other.receive()).data == "tool:still"
            began = time.monotonic()
            stage.house.cut("gs-1")
            message = await socket.receive()
            took = time.monotonic() - began
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
            assert socket.close_code == 1008
            assert took < 1.0
            for _ in range(50):
                if stage.site.closed_with:
                    break
                await asyncio.sleep(0.02)
            assert stage.site.closed_with == [1008]
            await other.send_str("on")
            assert (await other.receive()).data == "tool:on"


@in_loop
async def test_VA_50_a_socket_that_the_tool_opens_after_the_cut_is_not_handed_on() -> None:
    async with staged(sweep_s=60) as stage:
        device = stage.person()

        async def opened() -> None:
            async with device.socket("/live?wait"):
                pass

        asking = asyncio.create_task(opened())
        await stage.site.reached.wait()
        stage.house.cut("gs-1", ring=False)
        stage.site.gate.set()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await asking
        assert refused.value.status == 403
        await until(lambda: bool(stage.site.closed_with))


@in_loop
async def test_a_stream_of_events_ends_within_a_second() -> None:
    async with staged() as stage:
        device = stage.person()
        async with device.client.get(device.url("/events"), headers=device.outgoing()) as answer:
            assert (await answer.content.readany()).startswith(b"data: ")
            began = time.monotonic()
            stage.house.cut("gs-1")
            with contextlib.suppress(aiohttp.ClientError):
                while await answer.content.readany():
                    pass
            assert time.monotonic() - began < 1.0


@in_loop
async def test_an_upload_stops_within_a_second() -> None:
    async with staged() as stage:
        device = stage.person()
        stop = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            while not stop.is_set():
                yield b"x" * 100
                await asyncio.sleep(0.01)

        asking = asyncio.create_task(device.post("/upload-slow", data=pieces()))
        await stage.site.reached.wait()
        await until(lambda: stage.site.upload_pieces >= 2)
        began = time.monotonic()
        stage.house.cut("gs-1")
        try:
            assert (await asking).page == "ended"
        except aiohttp.ClientError:
            pass  # the connection was broken while the browser was still writing
        finally:
            stop.set()
        assert time.monotonic() - began < 1.0
        arrived = stage.site.upload_pieces
        await asyncio.sleep(0.2)
        assert stage.site.upload_pieces <= arrived + 1


@in_loop
async def test_the_timer_alone_is_enough() -> None:
    """The doorbell is a hint: without it the sweep finds the cut within its period."""
    async with staged(sweep_s=0.2) as stage:
        async with stage.person().socket("/live") as socket:
            stage.house.cut("gs-1", ring=False)
            message = await asyncio.wait_for(socket.receive(), 1.0)
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert len(stage.house.sweeps) >= 2


@in_loop
async def test_VA_50_a_database_away_admits_and_releases_nothing() -> None:
    async with staged() as stage:
        device = stage.person()
        assert (await device.get("/home")).status == 200
        asking = asyncio.create_task(device.get("/slow"))
        await until(lambda: "GET /slow" in stage.site.paths())
        stage.house.away = True
        stage.site.gate.set()
        assert (await asking).page == "unavailable"
        hits = len(stage.site.hits)
        assert (await device.get("/home")).page == "unavailable"
        assert len(stage.site.hits) == hits


@in_loop
async def test_a_process_without_a_lease_closes_everything_itself() -> None:
    async with staged(lease_s=0.4) as stage:
        device = stage.person()
        async with device.socket("/live") as socket:
            stage.house.away = True
            message = await asyncio.wait_for(socket.receive(), 2.0)
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        stage.house.away = False


@in_loop
async def test_a_lost_lease_closes_everything_at_once() -> None:
    async with staged() as stage:
        device = stage.person()
        async with device.socket("/live") as socket:
            stage.house.lease = False
            stage.house.ring()
            assert (await asyncio.wait_for(socket.receive(), 1.0)).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert (await device.get("/home")).page == "unavailable"


@pytest.mark.parametrize("waits", [0, 1, 2, 3, 5, 8])
def test_VA_50_a_request_storm_and_a_cut_at_any_step(waits: int) -> None:
    """No answer of the tool reaches the leaver for a request whose check began after T0, whichever step the cut meets."""

    @in_loop
    async def run() -> None:
        async with staged() as stage:
            leaver, colleague = stage.person("gs-1"), stage.person("gs-2")
            cut_at: list[float] = []

            async def storm(device: object, results: list[tuple[float, int]]) -> None:
                for _ in range(25):
                    began = time.monotonic()
                    results.append((began, (await device.get("/home")).status))  # type: ignore[attr-defined]

            results: list[tuple[float, int]] = []
            others: list[tuple[float, int]] = []
            running = [asyncio.create_task(storm(leaver, results)) for _ in range(4)]
            running.append(asyncio.create_task(storm(colleague, others)))
            for _ in range(waits):
                await asyncio.sleep(0.003)
            stage.house.cut("gs-1")
            cut_at.append(time.monotonic())
            await asyncio.gather(*running)
            assert [status for began, status in results if began > cut_at[0] and status == 200] == []
            assert {status for _, status in others} == {200}

    run()


@in_loop
async def test_checks_that_wait_share_one_query() -> None:
    async with staged() as stage:
        device = stage.person()
        await device.get("/home")
        stage.house.questions = 0

        async def slow() -> None:
            await asyncio.sleep(0.02)

        stage.house.before_alive = slow
        await asyncio.gather(*(device.get("/home") for _ in range(40)))
        assert stage.house.questions < 40, "80 checks in far fewer queries"


def test_VA_50_a_check_under_way_answers_nobody_who_came_after_it_began() -> None:
    """Who comes while a check runs gets the next one: the answer of this one may be older than the cut they came after."""

    class Port:
        """A port that answers what was true when it was asked, and only when told to."""

        def __init__(self) -> None:
            self.asked: list[tuple[set[bytes], asyncio.Event]] = []
            self.rung = asyncio.Event()
            self.alive_now = {b"a", b"b"}

        async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
            seen, may_answer = set(self.alive_now), asyncio.Event()
            self.asked.append((set(cookie_digests), may_answer))
            self.rung.set()
            await may_answer.wait()
            view = GatewayView("gs", "ts", "recipe", "host", {}, "live", 1, 1)
            return {digest: view for digest in cookie_digests if digest in seen}

    async def run() -> None:
        port = Port()
        live = LiveCheck(port)
        early = asyncio.create_task(live.check(b"a"))
        await port.rung.wait()
        port.rung.clear()
        port.alive_now = set()  # T0
        late = [asyncio.create_task(live.check(digest)) for digest in (b"a", b"a", b"b")]
        await asyncio.sleep(0)
        late[1].cancel()  # whoever gives up takes nobody's answer along
        port.asked[0][1].set()
        assert await early is not None, "it was asked before the cut"
        await port.rung.wait()
        assert port.asked[1][0] == {b"a", b"b"}, "one statement for all of them"
        assert not any(task.done() for task in (late[0], late[2]))
        port.asked[1][1].set()
        assert [await late[0], await late[2]] == [None, None]
        assert len(port.asked) == 2

    asyncio.run(run())


@pytest.mark.parametrize("how", ["gives up", "is refused"])
def test_VA_50_whoever_asks_for_himself_leaves_nobody_behind(how: str) -> None:
    """The first one asks in his own task. Whatever becomes of him, those who came meanwhile are asked for."""

    class Port:
        """Silent until told, then away; from the second question on it answers."""

        def __init__(self) -> None:
            self.asked: list[set[bytes]] = []
            self.may_fail = asyncio.Event()

        async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
            self.asked.append(set(cookie_digests))
            if len(self.asked) == 1:
                await self.may_fail.wait()
                raise ConnectionError
            view = GatewayView("gs", "ts", "recipe", "host", {}, "live", 1, 1)
            return dict.fromkeys(cookie_digests, view)

    async def run() -> None:
        port = Port()
        live = LiveCheck(port)
        first = asyncio.create_task(live.check(b"a"))
        await asyncio.sleep(0)
        others = [asyncio.create_task(live.check(digest)) for digest in (b"b", b"c")]
        await asyncio.sleep(0)
        assert port.asked == [{b"a"}]
        if how == "gives up":
            first.cancel()
        else:
            port.may_fail.set()
        with pytest.raises(asyncio.CancelledError if how == "gives up" else ConnectionError):
            await first
        assert all(await asyncio.gather(*others))
        assert port.asked[1:] == [{b"b", b"c"}]
        assert await live.check(b"d") is not None, "and the next one asks for himself again"

    asyncio.run(run())
