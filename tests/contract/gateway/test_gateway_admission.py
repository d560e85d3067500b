"""Coming in: one ticket, one browser, one origin (VA-51; vault-and-gateway.md §5.1, §14)."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.gateway.admit import COOKIE, NONCE
from tests.fakes.device import IDP, Device, Stage, in_loop, staged


def waiting(stage: Stage, session: str = "gs-9", **also: str) -> Device:
    device = stage.stranger(session)
    stage.house.open_session(session, {device.host: stage.site.host, **also})
    return device


async def challenge_of(device: Device) -> bytes:
    start = await device.get("/.sekisho/start", headers={"Sec-Fetch-Site": "cross-site"})
    assert start.status == 303
    target = urlsplit(start.header("Location") or "")
    query = parse_qs(target.query)
    assert f"{target.scheme}://{target.netloc}{target.path}" == f"{IDP}/tools/admit"
    assert query["label"] == [device.host.partition(".")[0]]
    text = query["challenge"][0]
    challenge = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert challenge == hashlib.sha256(device.cookies[NONCE].encode()).digest()
    return challenge


@in_loop
async def test_VA_51_a_launch_from_start_to_the_first_page() -> None:
    async with staged() as stage:
        device = waiting(stage)
        challenge = await challenge_of(device)
        ticket = stage.ticket("gs-9", device.host, challenge)
        entered = await device.get(f"/.sekisho/enter?ticket={ticket}", headers={"Sec-Fetch-Site": "cross-site"})
        assert (entered.status, entered.page) == (200, "entered")
        assert f"url=http://{device.host}/home" in entered.text
        cookie = next(line for line in entered.all("Set-Cookie") if line.startswith(COOKIE))
        for attribute in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
            assert attribute in cookie
        assert "Domain" not in cookie
        assert NONCE not in device.cookies
        home = await device.get("/home")
        assert home.status == 200
        assert "田中" in home.text


@in_loop
async def test_VA_51_a_stolen_ticket_opens_nothing() -> None:
    """Read from a log, over a shoulder, out of a history: without the nonce cookie of that browser it is a word."""
    async with staged() as stage:
        device = waiting(stage)
        challenge = await challenge_of(device)
        ticket = stage.ticket("gs-9", device.host, challenge)
        thief = stage.stranger("gs-9")
        assert (await thief.get(f"/.sekisho/enter?ticket={ticket}")).page == "ticket_invalid"
        await thief.get("/.sekisho/start")
        assert (await thief.get(f"/.sekisho/enter?ticket={ticket}")).status == 403
        assert COOKIE not in thief.cookies
        assert (await device.get(f"/.sekisho/enter?ticket={ticket}")).status == 200
        await device.get("/.sekisho/start")
        assert (await device.get(f"/.sekisho/enter?ticket={ticket}")).status == 403, "used once"


@in_loop
async def test_a_ticket_of_another_origin_or_after_the_cut_is_refused() -> None:
    async with staged() as stage:
        device = waiting(stage)
        challenge = await challenge_of(device)
        assert (
            await device.get(f"/.sekisho/enter?ticket={stage.ticket('gs-9', 'other.gw.localhost', challenge)}")
        ).status == 403
        ticket = stage.ticket("gs-9", device.host, await challenge_of(device))
        stage.house.cut("gs-9")
        assert (await device.get(f"/.sekisho/enter?ticket={ticket}")).page == "ticket_invalid"
        assert (await device.get("/.sekisho/enter")).status == 403


@in_loop
async def test_a_second_host_is_admitted_in_the_same_walk() -> None:
    async with staged() as stage:
        device = waiting(stage, **{"shift-note-gs-9-2.gw.localhost": "localhost:1"})
        ticket = stage.ticket("gs-9", device.host, await challenge_of(device))
        entered = await device.get(f"/.sekisho/enter?ticket={ticket}")
        assert entered.status == 303
        assert entered.header("Location") == "http://shift-note-gs-9-2.gw.localhost/.sekisho/start"
        assert COOKIE in device.cookies


@in_loop
async def test_the_door_is_not_opened_inside_a_frame_or_by_post() -> None:
    async with staged() as stage:
        device = waiting(stage)
        assert (await device.get("/.sekisho/start", headers={"Sec-Fetch-Dest": "iframe"})).status == 403
        assert (await device.post("/.sekisho/start")).status == 405
        assert (await device.get("/.sekisho/anything")).status == 404


@in_loop
async def test_without_a_cookie_people_are_led_to_the_portal_and_scripts_refused() -> None:
    async with staged() as stage:
        stranger = stage.stranger("gs-1")
        answer = await stranger.get("/home")
        assert (answer.status, answer.header("Location")) == (303, f"{IDP}/tools")
        assert (await stranger.get("/home", headers={"Sec-Fetch-Mode": "cors"})).status == 403
        stranger.cookies[COOKIE] = "guessed"
        assert (await stranger.get("/home")).page == "ended"
        assert stage.site.hits == []


@in_loop
async def test_VA_51_a_cookie_counts_at_its_own_origin_only() -> None:
    async with staged() as stage:
        mine, other = stage.person("gs-1"), stage.person("gs-2")
        planted = Device(stage.client, stage.port, other.host, dict(mine.cookies))
        assert (await planted.get("/home")).status == 303
        assert stage.site.hits == []
        assert (await other.get("/home")).status == 200


@pytest.mark.parametrize(
    "host", ["gw.localhost", "a.b.gw.localhost", "gw.localhost.evil", "evil.example", "x.gw.localhost:1"]
)
def test_unknown_hosts_are_misdirected(host: str) -> None:
    @in_loop
    async def run() -> None:
        async with staged() as stage:
            device = stage.person()
            device.host = host
            assert (await device.get("/home")).status == 421
            assert stage.site.hits == []

    run()
