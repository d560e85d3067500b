"""The tool forgets our login: one new login for everybody, repeated only where that is safe (§8 "Logged out", §13)."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.device import PASSWORD, in_loop, staged, until
from tests.fakes.tools.site import CSRF, SESSION, Site


@pytest.mark.parametrize("as_200", [False, True])
def test_many_waiting_requests_cause_one_login(as_200: bool) -> None:
    """Tool 11: a logged-out page, also with status 200, is never shown."""

    @in_loop
    async def run() -> None:
        site = Site({"login_id": "a", "password": PASSWORD}, expired_as_200=as_200)
        async with staged(site) as stage:
            devices = [stage.person(f"gs-{i}") for i in range(10)]
            site.forget_sessions()
            answers = await asyncio.gather(*(device.get("/home") for device in devices for _ in range(5)))
            assert {answer.status for answer in answers} == {200}
            assert all("田中" in answer.text for answer in answers)
            assert stage.house.renewals == 1
            assert site.logins == 2
            assert stage.house.renew_calls < 10, (
                "one question of this process, however many wait, and late ones see the answer"
            )

    run()


@in_loop
async def test_input_is_never_sent_twice() -> None:
    async with staged() as stage:
        device = stage.person()
        await device.get("/home")
        stage.site.forget_sessions()
        answer = await device.post("/form", data={"a": "1"}, headers={"X-CSRF": device.cookies[CSRF]})
        assert (answer.status, answer.page) == (409, "resend")
        assert stage.site.paths().count("POST /form") == 1
        await device.get("/home")
        again = await device.post("/form", data={"a": "1"}, headers={"X-CSRF": device.cookies[CSRF]})
        assert again.status == 200
        assert stage.house.renewals == 1


@in_loop
async def test_a_tool_that_logs_out_at_once_again_is_left_to_a_person() -> None:
    async with staged() as stage:
        device = stage.person()
        stage.site.forget_sessions()
        stage.site.sessions = _Forgetful()
        answer = await device.get("/home")
        assert (answer.status, answer.page) == (503, "needs_human")
        assert "session_flaps" in answer.text
        await asyncio.sleep(0.05)
        assert (await device.get("/home")).page == "needs_human"
        assert stage.house.renewals == 1


class _Forgetful(dict[str, str]):
    def __contains__(self, key: object) -> bool:
        return False


@in_loop
async def test_a_refused_renewal_names_the_reason() -> None:
    async with staged() as stage:
        device = stage.person()

        async def refused() -> None:
            return None

        stage.house.login = refused
        stage.site.forget_sessions()
        answer = await device.get("/home")
        assert answer.page == "needs_human"
        assert "refused" in answer.text


@in_loop
async def test_a_cut_during_the_renewal_wins() -> None:
    async with staged() as stage:
        device = stage.person()
        original, gate = stage.house.login, asyncio.Event()

        async def slow() -> object:
            await gate.wait()
            return await original()

        stage.house.login = slow  # type: ignore[assignment]
        stage.site.forget_sessions()
        asking = asyncio.create_task(device.get("/home"))
        await until(lambda: stage.house.renewals > 0)
        stage.house.cut("gs-1")
        answer = await asyncio.wait_for(asking, 1.5)
        gate.set()
        assert answer.page == "ended"


@in_loop
async def test_cookies_of_the_old_login_do_not_reach_the_new_jar() -> None:
    """A late answer under the old login must not log the new one out."""
    async with staged() as stage:
        device = stage.person()
        await device.get("/home")
        fresh = await stage.house.login()
        assert fresh is not None
        asking = asyncio.create_task(device.get(f"/slow?c={SESSION}=stale"))
        await until(lambda: any(path.startswith("GET /slow") for path in stage.site.paths()))
        stage.house.replace_login(fresh)
        stage.site.gate.set()
        await asking
        assert (await device.get("/home")).status == 200
        assert dict(fresh.values()).items() <= dict((await stage.house.load("ts-1")).jar.values()).items()


@in_loop
async def test_waiting_for_the_first_login() -> None:
    async with staged() as stage:
        device = stage.person()
        stage.house.set_tool(state="opening")
        asking = asyncio.create_task(device.get("/home"))
        await asyncio.sleep(0.1)
        stage.house.set_tool(state="live")
        assert (await asking).status == 200
        stage.house.set_tool(state="opening")
        waiting = await device.get("/home?x=1")
        assert (waiting.status, waiting.page) == (200, "opening")
        assert 'content="1;url=/home?x=1"' in waiting.text
        assert (await device.post("/form")).page == "resend"
        stage.house.set_tool(state="needs_human", code="recipe_drift")
        assert "recipe_drift" in (await device.get("/home")).text


@in_loop
async def test_what_changes_something_is_on_record_before_it_is_sent() -> None:
    async with staged() as stage:
        device = stage.person()
        await device.get("/home")
        stage.house.trail_away = True
        hits = len(stage.site.hits)
        assert (await device.post("/form")).page == "unavailable"
        assert len(stage.site.hits) == hits
        stage.house.trail_away = False
        await device.post("/form?secret=1", headers={"X-CSRF": device.cookies[CSRF]})
        row = next(row for row in stage.house.rows if row.method == "POST")
        assert (row.route, row.status) == ("/form", None)
