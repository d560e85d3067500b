"""The product as a newcomer starts it, and a real browser in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
START_S = 240
TOOLS_S = 600


@dataclass(frozen=True)
class Demo:
    """A running demo: what its JSON file says, where its data lies, what it has printed, and its process."""

    world: dict[str, Any]
    data: Path
    printed: Path
    process: subprocess.Popen[bytes]

    @property
    def issuer(self) -> str:
        """Address of the login pages."""
        return str(self.world["issuer"])

    @property
    def console(self) -> str:
        """Address of the reference console."""
        return str(self.world["console"]["url"])

    def wait_for_tools(self) -> None:
        """Until every password-only tool can be opened: each is certified in a browser first. Fails with what was said instead."""
        deadline = time.monotonic() + TOOLS_S
        for tool in self.world["tools"]:
            while f"{tool['name']}: " not in (said := self.printed.read_text(encoding="utf-8")):
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
            assert f"{tool['name']}: ポータルから開けます" in said, said

    def tool_secrets(self) -> list[str]:
        """What must never reach a device: the passwords of the tools, the first ones and the present ones."""
        kept = [file.read_text(encoding="ascii") for file in (self.data / "tools").glob("*.password")]
        return [tool["first_password"] for tool in self.world["tools"]] + kept

    def person(self, login: str) -> dict[str, Any]:
        """Login, password and, where there is one, TOTP secret of somebody."""
        return next(p for p in self.world["people"] if p["login"] == login)


def _free_port() -> int:
    """A port P such that P and P+10 to P+14, where consoles, gateway and tools listen, are free."""
    for _ in range(50):
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if port > 64000:
                continue
            try:
                for offset in range(10, 15):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port
    raise RuntimeError("no six free ports")


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`sekisho demo` as a process of its own, stopped with Ctrl-C as a person would; it must then leave with status 0.

    One for the folder, because its tools are certified for a minute: a scenario stops nobody whom another one needs.
    """
    folder = tmp_path_factory.mktemp("demo")
    file = folder / "demo.json"
    with (folder / "out.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "idp.cli", "demo", "--port", str(_free_port()), "--data", str(folder / "data"), "--json", str(file)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while "Ctrl-C" not in (folder / "out.log").read_text(encoding="utf-8"):
            assert process.poll() is None, (folder / "out.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the demo did not come up"
            time.sleep(0.2)
        yield Demo(json.loads(file.read_text(encoding="utf-8")), folder / "data", folder / "out.log", process)
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
    assert status == 0, (folder / "out.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One real browser for a module: while it lives, Playwright holds an event loop that other tests of this worker would meet."""
    found = shutil.which("chromium") or shutil.which("google-chrome-stable")
    if found is None:
        if os.environ.get("SEKISHO_REQUIRE_ALL") == "1":
            pytest.fail("a browser is required in this run: install chromium")
        pytest.skip("no chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        yield browser
        browser.close()


class Person:
    """One person at one device: a browser profile of their own. Fails on any violation of the content security policy."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900, locale: str = "ja-JP") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, locale=locale)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        text = message.text
        if message.type == "error" and ("Content Security Policy" in text or "TrustedHTML" in text):
            self.complaints.append(text)

    def close(self) -> None:
        """Leave; a complaint of the browser is a failure."""
        self.context.close()
        assert not self.complaints, self.complaints
