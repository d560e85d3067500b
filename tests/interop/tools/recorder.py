"""A real Chromium that remembers everything: the wires, every answer, frame, cookie and storage, and its profile on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import BrowserContext, Page, Response, WebSocket, async_playwright

from connectors.engine.browser import executable
from tests.fakes.tap import Tap

#: what a page's scripts can keep, beside cookies: read in each page that is open
_KEPT = """
async () => {
  const found = {local: {...localStorage}, session: {...sessionStorage}, caches: {}, databases: await indexedDB.databases()};
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) found.caches[request.url] = await (await cache.match(request)).text();
  }
  return found;
}
"""


@dataclass
class Recorder:
    """One browser profile of one person. wires: in front of everything that it may reach."""

    context: BrowserContext
    folder: Path
    wires: tuple[Tap, ...]
    seen: bytearray = field(default_factory=bytearray)
    frames: int = 0
    sockets: list[WebSocket] = field(default_factory=list)
    _reading: set[asyncio.Task[None]] = field(default_factory=set)

    async def page(self) -> Page:
        """A new tab, watched."""
        page = await self.context.new_page()
        page.on("websocket", self._socket)
        return page

    def watch(self) -> None:
        """Remember every answer of the whole profile."""
        self.context.on("response", self._answer)

    def _answer(self, response: Response) -> None:
        task = asyncio.get_running_loop().create_task(self._read(response))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read(self, response: Response) -> None:
        # a redirect has no body, and a page that moved on drops some: those are on the wires and in the profile
        with contextlib.suppress(Exception):
            self.seen += json.dumps(await response.headers_array(), ensure_ascii=False).encode()
            self.seen += await response.body()

    def _socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        for side in ("framereceived", "framesent"):
            socket.on(side, self._frame)

    def _frame(self, payload: str | bytes) -> None:
        self.frames += 1
        self.seen += payload.encode() if isinstance(payload, str) else payload

    async def look(self) -> None:
        """What lies in the profile now: cookies, storages, and the pages as they stand."""
        self.seen += json.dumps(await self.context.cookies(), ensure_ascii=False).encode()
        self.seen += json.dumps(await self.context.storage_state(indexed_db=True), ensure_ascii=False).encode()
        for page in self.context.pages:
            if page.url.startswith("http"):
                self.seen += json.dumps(await page.evaluate(_KEPT), ensure_ascii=False).encode()
                self.seen += (await page.content()).encode()

    async def everything(self) -> bytes:
        """Close the browser; every byte of it, of its wires and of its profile's files."""
        await self.look()
        if self._reading:
            await asyncio.wait(self._reading, timeout=5)
        await self.context.close()
        for wire in (wire for tap in self.wires for wire in tap.wires):
            self.seen += wire.said + wire.heard
        for file in sorted(self.folder.rglob("*")):
            if file.is_file():
                self.seen += file.read_bytes()
        return bytes(self.seen)


@contextlib.asynccontextmanager
async def recording(folder: Path, *wires: Tap) -> AsyncIterator[Recorder]:
    """A headless Chromium with its profile in `folder`."""
    async with async_playwright() as play:
        context = await play.chromium.launch_persistent_context(
            folder, executable_path=executable(os.environ), headless=True, chromium_sandbox=os.geteuid() != 0, locale="en-US",
            viewport={"width": 1280, "height": 900}, args=["--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )  # fmt: skip
        made = Recorder(context, folder, wires)
        made.watch()
        try:
            yield made
        finally:
            await context.close()
