"""No request leaves to an undeclared or private address, also when a name changes its mind (VA-56, WB-20)."""

from __future__ import annotations

import asyncio
import ipaddress

import aiohttp
import pytest
from aiohttp import web

from connectors.egress import JudgingResolver, Refused, judge_address, judge_url, open_client

PRIVATE = [
    "127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "0.0.0.0", "224.0.0.1",
    "fe80::1", "fc00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "192.88.99.1", "fec0::1",
    "168.63.129.16", "240.0.0.1", "255.255.255.255", "192.0.2.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_VA_56_private_addresses(address: str) -> None:
    with pytest.raises(Refused):
        judge_address(ipaddress.ip_address(address), loopback=False)


def test_VA_56_public_addresses_and_loopback_by_permission() -> None:
    judge_address(ipaddress.ip_address("203.0.114.5"), loopback=False)
    judge_address(ipaddress.ip_address("127.0.0.1"), loopback=True)
    with pytest.raises(Refused):
        judge_address(ipaddress.ip_address("10.0.0.1"), loopback=True)


def test_only_declared_origins() -> None:
    declared = ("www.tool.example", "localhost:8020")
    judge_url("https://www.tool.example/x", declared, loopback=False)
    judge_url("http://localhost:8020/x", declared, loopback=True)
    for url in ("http://www.tool.example/", "https://www.tool.example:8443/", "https://www.tool.example@evil/", "https://evil/",
                "http://localhost:8020/", "https://localhost:8021/", "ftp://www.tool.example/"):  # fmt: skip
        with pytest.raises(Refused):
            judge_url(url, declared, loopback=False)


def test_VA_56_one_private_address_spoils_the_name() -> None:
    async def both(host: str, port: int) -> list[str]:
        return ["203.0.114.5", "10.0.0.1"]

    with pytest.raises(Refused):
        asyncio.run(JudgingResolver(loopback=False, lookup=both).resolve("www.tool.example", 443))


def test_VA_56_a_name_that_turns_to_loopback_reaches_nobody() -> None:
    """DNS rebinding: the second look-up answers 127.0.0.1, where a server of ours would answer."""
    asked: list[str] = []

    async def turning(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def run() -> int:
        hits = 0

        async def hit(request: web.Request) -> web.Response:
            nonlocal hits
            hits += 1
            return web.Response()

        app = web.Application()
        app.router.add_get("/", hit)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with open_client(loopback=True, total_s=3, lookup=turning) as client:
            # even while loopback is allowed: a public name is never this machine
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get(f"http://www.tool.example:{port}/")
        await runner.cleanup()
        return hits

    assert asyncio.run(run()) == 0
    assert asked == ["www.tool.example"]
