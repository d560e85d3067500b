"""The two tools of the demonstration through engine and gateway, in a real Chromium (promises 1 and 4 of product.md)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from flask import Flask
from playwright.async_api import Browser, Page, Response
from werkzeug.serving import make_server

from connectors.cookies import Jar
from connectors.demo.tools.desk import Account, Handler
from connectors.demo.tools.order_desk import create_order_desk
from connectors.demo.tools.shift_note import create_shift_note
from connectors.egress import open_client
from connectors.engine.browser import chromium
from connectors.engine.browser_driver import BrowserDriver
from connectors.engine.http_driver import HttpDriver
from connectors.engine.outcome import LoginResult
from connectors.gateway.app import create_gateway, serving
from connectors.gateway.settings import GatewaySettings
from connectors.recipes.load import load
from connectors.recipes.model import Recipe
from connectors.scanset import encodings
from tests.fakes.device import GROUND, in_loop_for
from tests.fakes.house import GatewaySession, House, Ticket, ToolSession
from vault.secret import Secret

RECIPES = Path(__file__).parents[3] / "connectors" / "demo" / "tools"
PASSWORD = "Sakura-2026-shift"
needs_chromium = pytest.mark.skipif(
    not shutil.which("chromium") and not os.environ.get("SEKISHO_REQUIRE_ALL"), reason="no chromium here"
)


@contextlib.contextmanager
def serving_flask(app: Flask) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def recipe_of(name: str, port: int) -> Recipe:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    return load(re.sub(r"localhost:80\d\d", f"localhost:{port}", text).encode(), GROUND).recipe


async def logged_in(recipe: Recipe, fields: dict[str, str], browser: Browser) -> LoginResult:
    async def before_submit() -> None:
        return None

    values = {name: Secret(value) for name, value in fields.items()}

    def secret() -> str:
        return secrets.token_urlsafe(32)

    async with open_client(loopback=True, total_s=None) as client:
        http = HttpDriver(
            client, recipe, values, now=time.time, new_secret=secret, loopback=True, before_submit=before_submit
        )
        if recipe.login.driver == "http":
            return await http.login()
        engine = BrowserDriver(
            browser, http, recipe, values, new_secret=secret, loopback=True, before_submit=before_submit
        )
        return await engine.login()


@contextlib.asynccontextmanager
async def portal(house: House, hosts: dict[str, str]) -> AsyncIterator[str]:
    """What `idp` does at /tools/admit: one ticket for the session behind a label."""

    async def admit(request: web.Request) -> web.Response:
        label, challenge = request.query["label"], request.query["challenge"]
        host = hosts[label]
        ticket = secrets.token_hex(16)
        digest = urlsafe_b64decode(challenge + "=" * (-len(challenge) % 4))
        landing = f"http://{host}{house.recipes[label].routes.landing}"
        house.tickets[ticket] = Ticket(label, host, digest, None, landing)
        return web.Response(status=303, headers={"Location": f"http://{host}/.sekisho/enter?ticket={ticket}"})

    async def tools(request: web.Request) -> web.Response:
        return web.Response(text="portal")

    app = web.Application()
    app.router.add_get("/tools/admit", admit)
    app.router.add_get("/tools", tools)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@needs_chromium
@in_loop_for(120)
async def test_VA_41_VA_50_two_tools_one_person_and_a_cut() -> None:
    shift_account = Account({"corp_cd": "SAKURA", "login_id": "shibuya"}, PASSWORD)
    order_account = Account({"login_id": "shibuya"}, PASSWORD)
    with (
        serving_flask(create_shift_note(shift_account)) as shift_port,
        serving_flask(create_order_desk(order_account)) as order_port,
    ):
        async with chromium(sandbox=os.geteuid() != 0) as browser:
            recipes = {"shift": recipe_of("shift_note", shift_port), "order": recipe_of("order_desk", order_port)}
            results = {
                "shift": await logged_in(
                    recipes["shift"], {"corp_cd": "SAKURA", "login_id": "shibuya", "password": PASSWORD}, browser
                ),
                "order": await logged_in(recipes["order"], {"login_id": "shibuya", "password": PASSWORD}, browser),
            }
            port = free_port()
            domain = f"gw.localhost:{port}"
            hosts = {name: f"{name}.{domain}" for name in recipes}

            async def no_login() -> Jar | None:
                return None

            house = House(no_login)
            house.recipes = dict(recipes)
            for name, result in results.items():
                house.tool_sessions[name] = ToolSession(result.jar.to_json(), scan=result.scan)
                house.sessions[name] = GatewaySession(name, name, {hosts[name]: recipes[name].hosts.primary})
            async with portal(house, hosts) as idp:
                told = GatewaySettings(domain=domain, idp=idp, scheme="http", loopback=True, sweep_s=0.2)
                app = create_gateway(house.ports(), told, now=time.time, new_secret=lambda: secrets.token_urlsafe(32))
                async with serving(app, "127.0.0.1", port):
                    await _a_day(browser, house, results, hosts)


async def _a_day(browser: Browser, house: House, results: dict[str, LoginResult], hosts: dict[str, str]) -> None:
    context = await browser.new_context(locale="ja-JP", viewport={"width": 900, "height": 700})
    seen = bytearray()
    problems: list[str] = []

    async def remember(response: Response) -> None:
        nonlocal seen
        seen += json.dumps(await response.all_headers()).encode()
        with contextlib.suppress(Exception):  # redirects have no body, and a page that moves on drops some
            seen += await response.body()

    context.on("response", remember)
    context.on(
        "console",
        lambda message: problems.append(f"{message.text} {message.location}") if message.type == "error" else None,
    )
    page = await context.new_page()

    await page.goto(f"http://{hosts['shift']}/.sekisho/start")
    await page.wait_for_selector("[data-shift-table]")
    await page.select_option("#row", label="髙橋 健")
    await page.select_option("#day", label="月")
    await page.fill("#hours", "10-15")
    await page.click("text=保存する")
    await page.wait_for_selector("text=髙橋 健 さんの月曜日を保存しました")
    await _picture(page, "shift")
    await page.goto(f"http://{hosts['shift']}/account/password")
    assert "この画面は本部だけが使えます" in await page.content()
    await _picture(page, "denied")

    order = await context.new_page()
    await order.goto(f"http://{hosts['order']}/.sekisho/start")
    await order.wait_for_selector("[data-orders]")
    await order.click("button:has-text('発注')")
    await order.wait_for_selector("text=おにぎり 鮭 1個を発注しました")
    await _picture(order, "order")
    assert [text for text in problems if "favicon.ico" not in text and "/account/password" not in text] == [], (
        "a strict policy of the tool holds, and nothing of it broke"
    )

    stored = await context.storage_state()
    for name, result in results.items():
        mirrored = {"order_csrf"} if name == "order" else set()
        secret_values = [PASSWORD, *(value for cookie, value in result.jar.values() if cookie not in mirrored)]
        profile = json.dumps(stored, ensure_ascii=False).encode()
        for value in secret_values:
            assert not [form for form in encodings(value) if form in seen or form in profile], name

    house.cut("shift")
    house.cut("order")
    await page.goto(f"http://{hosts['shift']}/shifts")
    assert "利用は終わりました" in await page.content()
    await _picture(page, "ended")
    await order.click("button:has-text('発注')")
    await order.goto(f"http://{hosts['order']}/orders")
    assert "発注デスク" not in await order.content()
    await page.go_back()
    assert "data-shift-table" not in await page.content(), "browser back asks again, and is led away"
    kept = {cookie["name"] for cookie in (await context.storage_state())["cookies"]}
    assert "__Host-sekisho-gw" not in kept
    await context.close()


async def _picture(page: Page, name: str) -> None:
    """For a person who wants to look: SEKISHO_PICTURES names a folder."""
    if folder := os.environ.get("SEKISHO_PICTURES"):
        await page.screenshot(path=Path(folder) / f"gateway-{name}.png")
