"""One running Chromium for the browser driver, and the reasons not to start it (VA-45)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

CANDIDATES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "microsoft-edge")


class CannotStart(RuntimeError):
    """The browser may not or cannot run here; the text says why and what to do."""


def refusals(env: Mapping[str, str], *, uid: int, sandbox: bool) -> list[str]:
    """Why a browser that gets passwords must not run like this."""
    found = []
    if "pw:" in env.get("DEBUG", ""):
        found.append("DEBUG=pw:… prints every value typed into a page; unset it")
    if env.get("PWDEBUG"):
        found.append("PWDEBUG opens an inspector on every page; unset it")
    if uid == 0:
        found.append("running as root; start the engine under an OS user of its own")
    if not sandbox:
        found.append("Chromium's sandbox is off")
    return found


def executable(env: Mapping[str, str]) -> str:
    """The browser to use. SEKISHO_BROWSER decides alone when it is set. Raises CannotStart."""
    named = env.get("SEKISHO_BROWSER")
    if named:
        if not Path(named).is_file():
            raise CannotStart(f"SEKISHO_BROWSER={named} is no file")
        return named
    found = next((path for name in CANDIDATES if (path := shutil.which(name))), None)
    if found is None:
        raise CannotStart("install Chrome or Chromium, or set SEKISHO_BROWSER")
    return found


@contextlib.asynccontextmanager
async def chromium(*, sandbox: bool = True, env: Mapping[str, str] = os.environ) -> AsyncIterator[Browser]:
    """A headless Chromium without a profile on disk. The caller has asked `refusals()` first.

    Its processes get no environment of ours: a page that takes one over finds no database address and no key.
    """
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable(env),
            chromium_sandbox=sandbox,
            env={name: env[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in env},
            args=[
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-features=AutofillServerCommunication",  # it describes the forms of a login page to its maker
            ],
        )
        try:
            yield browser
        finally:
            await browser.close()
