"""A wire to a tool that remembers what went over it: the proof of what reached the tool does not come from the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_REQUEST = re.compile(rb"(?:^|(?<=\r\n\r\n))(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (\S+) HTTP/1\.1\r\n")


@dataclass
class Wire:
    """One connection. said: everything from the near side; heard: everything back to it; open: whether both still hold it."""

    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    open: bool = True

    @property
    def requests(self) -> list[str]:
        """Method and target of each request on it."""
        return [f"{m[0].decode()} {m[1].decode('latin-1')}" for m in _REQUEST.findall(bytes(self.said))]


class Tap:
    """Forwards connections to a port of loopback and keeps what the near side said."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.wires: list[Wire] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._near: list[asyncio.StreamWriter] = []

    def requests(self, holding: str = "") -> list[str]:
        """All requests so far whose target holds a text."""
        return [request for wire in self.wires for request in wire.requests if holding in request]

    def carrying(self, holding: str) -> Wire:
        """The connection on which such a request came last."""
        return [wire for wire in self.wires if any(holding in request for request in wire.requests)][-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._near.append(writer)
        wire = Wire()
        self.wires.append(wire)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        sides = {
            asyncio.create_task(_pump(reader, far_writer, wire.said)),
            asyncio.create_task(_pump(far_reader, writer, wire.heard)),
        }
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        wire.open = False
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
        for end in (writer, far_writer):
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        self._tasks.discard(task)

    @contextlib.asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[Tap]:
        """Stand in front of the tool on `port`."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1024 * 1024)
        try:
            yield self
        finally:
            server.close()
            for writer in self._near:
                writer.transport.abort()  # the pumps end by themselves, and close the far side
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray | None = None) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * 1024):
            if copy is not None:
                copy += data
            writer.write(data)
            await writer.drain()
