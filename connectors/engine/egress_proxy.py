"""The way out of the browser: a proxy on loopback that lets one job reach declared hosts and nothing else (VA-44, VA-56).

Chromium resolves names and follows redirects by itself, and Playwright's routing does not see redirects. Behind a proxy it can
do neither: every connection names its host here, is judged, and goes to the address that was judged. TLS stays between
browser and tool. Plain http is relayed one request per connection; it occurs on loopback only (WB-20).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Collection
from typing import Final

from connectors.egress import CONNECT_S, Lookup, Refused, judge_address, system_lookup
from connectors.recipes import urls
from connectors.recipes.hosts import is_loopback

MAX_HEAD: Final = 64 * 1024
CHUNK: Final = 64 * 1024


class EgressProxy:
    """allowed: `host` or `host:port` of the recipe, public ones included; refused: what the page tried to reach else."""

    def __init__(self, allowed: Collection[str], *, loopback: bool, lookup: Lookup = system_lookup) -> None:
        self._allowed, self._loopback, self._lookup = frozenset(allowed), loopback, lookup
        self.refused: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as a task
        self._tasks.add(task)
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError):
            pass  # either side is gone or spoke no HTTP: the browser shows a failed request, and the driver a missing element
        except asyncio.CancelledError:
            pass  # the job is over; asyncio's stream server reports a cancelled connection as an error of the program
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        tunnel = method == "CONNECT"
        url = urls.parts(f"https://{target}/" if tunnel else target)
        try:
            host, port = self._judge(url.netloc.lower(), url.hostname or "", url.port, tunnel=tunnel)
            address = await self._address(host, port)
        except Refused:
            self.refused.append(url.netloc.lower())
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        async with asyncio.timeout(CONNECT_S):
            far_reader, far_writer = await asyncio.open_connection(address, port)
        try:
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                path = target.partition("://")[2].partition("/")[2]
                far_writer.write(f"{method} /{path} {version}\r\n".encode("ascii"))
                lines = head.split(b"\r\n")[1:-2]
                kept = [line for line in lines if not line.lower().startswith((b"connection:", b"proxy-"))]
                far_writer.write(b"\r\n".join([*kept, b"Connection: close", b"", b""]))
            await _both(_pipe(reader, far_writer), _pipe(far_reader, writer))
        finally:
            far_writer.close()

    def _judge(self, netloc: str, host: str, port: int | None, *, tunnel: bool) -> tuple[str, int]:
        known = netloc in self._allowed or (tunnel and port == 443 and host in self._allowed)
        if not known or (is_loopback(netloc) and not self._loopback) or (not tunnel and not is_loopback(netloc)):
            raise Refused("not declared")
        return host, port or (443 if tunnel else 80)

    async def _address(self, host: str, port: int) -> str:
        loopback = self._loopback and is_loopback(host)
        found = await self._lookup(host, port)
        for text in found:
            judge_address(ipaddress.ip_address(text), loopback=loopback)
        if not found:
            raise Refused("no address")
        return found[0]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve on a free port of loopback; yields the proxy's address. Everything is closed at the end."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def _both(*pipes: object) -> None:
    """Until one direction ends: a half-closed connection of a browser is of no further use here."""
    tasks = {asyncio.ensure_future(pipe) for pipe in pipes}  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
