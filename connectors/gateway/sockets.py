"""What is held open for a person: requests under way, streams, WebSockets. Ended together when their session ends.

A WebSocket is relayed message by message in both directions; what the tool says is scanned, and a cut closes both sides with
1008 (vault-and-gateway.md §5.2 step 5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

import aiohttp
from aiohttp import WSMsgType, web

from connectors.scanset import Patterns

MAX_MESSAGE: Final = 1024 * 1024
PING_S: Final = 30.0
POLICY_VIOLATION: Final = 1008
CLOSE_S: Final = 0.5


class Entry:
    """One held connection. was_cut: its session ended; whoever serves it must let nothing more out."""

    __slots__ = ("digest", "end", "was_cut")

    def __init__(self, digest: bytes, end: Callable[[], object]) -> None:
        self.digest = digest
        self.end = end
        self.was_cut = False


class Held:
    """All held connections of this process."""

    def __init__(self) -> None:
        self._entries: set[Entry] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def hold(self, digest: bytes, end: Callable[[], object]) -> Entry:
        """Count one connection as open, until `let_go`. end: called once, at the cut; must not block."""
        entry = Entry(digest, end)
        self._entries.add(entry)
        return entry

    def let_go(self, entry: Entry) -> None:
        """The connection is not open any more."""
        self._entries.discard(entry)

    def digests(self) -> list[bytes]:
        """Whose connections are open."""
        return list({entry.digest for entry in self._entries})

    def end(self, digests: Iterable[bytes]) -> None:
        """Cut everything of these sessions."""
        gone = set(digests)
        for entry in [entry for entry in self._entries if entry.digest in gone and not entry.was_cut]:
            entry.was_cut = True
            entry.end()

    def end_all(self) -> None:
        """Cut everything."""
        self.end(self.digests())


async def relay(
    browser: web.WebSocketResponse,
    tool: aiohttp.ClientWebSocketResponse,
    patterns: Callable[[], Patterns],
    alarm: Callable[[], Awaitable[None]],
) -> None:
    """Carry messages both ways until one side closes or the task is cancelled, which is a cut.

    alarm: called when the tool sends a guarded value; the value does not leave, and the sockets are closed after it.
    """

    async def outwards() -> None:
        async for message in tool:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            data = message.data.encode() if message.type is WSMsgType.TEXT else bytes(message.data)
            if patterns().found_in(data):
                await alarm()  # before anything is closed: a browser that leaves cancels this handler
                return
            if message.type is WSMsgType.TEXT:
                await browser.send_str(message.data)
            else:
                await browser.send_bytes(message.data)

    async def inwards() -> None:
        async for message in browser:
            if message.type is WSMsgType.TEXT:
                await tool.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await tool.send_bytes(message.data)
            else:
                break

    sides = {asyncio.create_task(outwards()), asyncio.create_task(inwards())}
    cut = False
    try:
        done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not isinstance(task.exception(), ConnectionError):
                task.result()
    except asyncio.CancelledError:
        cut = True
        raise
    finally:
        for task in sides:
            task.cancel()
        await _close_both(browser, tool, cut=cut)


async def _close_both(browser: web.WebSocketResponse, tool: aiohttp.ClientWebSocketResponse, *, cut: bool) -> None:
    """Close politely, within half a second; a peer that does not answer loses its connection all the same."""
    closing: Collection[asyncio.Task[bool]] = [
        asyncio.create_task(browser.close(code=POLICY_VIOLATION if cut else _code(tool.close_code))),
        asyncio.create_task(tool.close(code=POLICY_VIOLATION if cut else _code(browser.close_code))),
    ]
    await asyncio.wait(closing, timeout=CLOSE_S)
    for task in closing:
        task.cancel()


def _code(code: int | None) -> int:
    """A close code that may be sent; 1005, 1006 and 1015 only exist for the program's eyes (RFC 6455 §7.4.1)."""
    return code if code is not None and code not in (1005, 1006, 1015) else 1000
