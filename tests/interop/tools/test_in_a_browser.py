"""§17, claim 1, with nothing left out: login in the portal, launch, work and cut in a real Chromium, and every byte it ever had.

The wires in front of portal and gateway, each answer, WebSocket frame, cookie and storage, the pages as they stood, and the
profile on disk are searched for the password and every cookie of our login, in every dress that `tests/fakes/spill.py` knows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.conftest import Template
from tests.fakes.device import in_loop_for
from tests.fakes.lives import cut
from tests.fakes.spill import dresses, hits
from tests.interop.tools.conftest import Peers
from tests.interop.tools.recorder import Recorder, recording
from tests.interop.tools.whole import Whole, whole

WAIT_MS = 60_000
Work = Callable[[Page, str], Awaitable[str]]


async def roundup(page: Page, origin: str) -> str:
    """An issue, by its form."""
    await page.goto(f"{origin}/desk/issue?@template=item")
    await page.fill("input[name=title]", "till-is-stuck")
    await page.select_option("select[name=priority]", index=1)
    await page.click("input[name=submit_button]")
    await page.wait_for_selector(r"text=/issue \d+ created/", timeout=WAIT_MS)
    return "till-is-stuck"


async def calibreweb(page: Page, origin: str) -> str:
    """A shelf, by its form."""
    await page.goto(f"{origin}/shelf/create")
    await page.fill("input[name=title]", "shelf-of-the-shop")
    await page.click("#submit")
    await page.wait_for_selector("h2:has-text('shelf-of-the-shop')", timeout=WAIT_MS)
    return "shelf-of-the-shop"


async def jupyterlab(page: Page, _origin: str) -> str:
    """A notebook whose kernel answers over a WebSocket."""
    await page.click(".jp-LauncherCard[data-category=Notebook] >> nth=0", timeout=WAIT_MS)
    await page.wait_for_selector("text=/ipykernel. . Idle/", timeout=WAIT_MS)  # what is run before that is forgotten
    await page.click(".jp-Notebook .jp-Cell .cm-content", timeout=WAIT_MS)
    await page.keyboard.type("print('answer', 6 * 7000)")
    await page.keyboard.press("Shift+Enter")
    await page.wait_for_selector(".jp-OutputArea-output:has-text('answer 42000')", timeout=WAIT_MS)
    return "answer 42000"


WORK: dict[str, Work] = {"roundup": roundup, "calibreweb": calibreweb, "jupyterlab": jupyterlab}


@pytest.mark.skipif(
    not shutil.which("chromium") and not os.environ.get("SEKISHO_REQUIRE_ALL"), reason="no chromium here"
)
@pytest.mark.parametrize("slug", list(WORK))
def test_VA_41_VA_50_never_on_the_device(slug: str, peers: Peers, sqlite_template: Template, tmp_path: Path) -> None:
    """Whatever the browser got from the first page of the portal to the last one after the cut."""
    shutil.copy(sqlite_template.folder / "template.sqlite", tmp_path / "test.sqlite")

    @in_loop_for(300)
    async def run() -> None:
        async with whole(peers[slug], f"sqlite:///{tmp_path}/test.sqlite", sqlite_template.folder) as product:
            profile = tmp_path / "profile"
            async with recording(profile, product.portal, product.gateway) as browser:
                worked, guarded = await _a_day(product, browser, WORK[slug])
                got = await browser.everything()
            assert len(guarded) >= 2
            assert hits(got, guarded) == []
            assert worked.encode() in got, "the recorder is awake"
            for name, value in guarded.items():  # and the search finds each of them in each dress
                assert all(hits(got[:1000] + form, {name: value}) for form in dresses(value).values())

    run()


async def _a_day(product: Whole, browser: Recorder, work: Work) -> tuple[str, dict[str, str]]:
    """Returns what stood on the screen, and every secret that there was."""
    person, page = product.world.person(), await browser.page()
    await page.goto(f"{product.settings.issuer}/login")
    await page.fill("[name=login_id]", person.login)
    await page.fill("[name=password]", person.password)
    await page.click("[data-testid=primary]")
    await page.click(f"a[href='/apps/{product.peer.slug}/open']")
    at = product.settings.gateway_at
    await page.wait_for_url(lambda url: f".{at}/" in url and "/.sekisho/" not in url, timeout=WAIT_MS)
    guarded = await product.guarded()
    origin = "/".join(page.url.split("/")[:3])
    worked = await work(page, origin)
    guarded |= await product.guarded()
    await browser.look()
    open_sockets = [socket for socket in browser.sockets if not socket.is_closed()]
    assert bool(open_sockets) is (product.peer.slug == "jupyterlab")

    cut(product.world, person.id, key="the day ends")
    for socket in open_sockets:
        if not socket.is_closed():
            await socket.wait_for_event("close")
    before = len(product.tool.requests("after-the-cut"))
    answer = await page.goto(f"{origin}/?after-the-cut")
    assert answer is not None
    # scripts that look every few seconds have met the last page by then: the cookie is gone, and the portal asks who it is
    if not answer.url.startswith(product.settings.issuer):
        assert answer.status == 403
        await expect(page.locator("body")).to_contain_text("利用は終わりました")
    assert len(product.tool.requests("after-the-cut")) == before
    assert "__Host-sekisho-gw" not in {cookie.get("name") for cookie in await browser.context.cookies()}
    return worked, guarded
