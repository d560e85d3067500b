"""Certification of the three applications, in a real Chromium: what passes, and what it finds (vault-and-gateway.md §7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time

import pytest

from connectors.certify import Certification, certify
from connectors.engine.browser import chromium
from connectors.recipes.load import load
from tests.fakes.device import GROUND, in_loop_for
from tests.fakes.tap import Tap
from tests.interop.tools.conftest import Peers
from tests.interop.tools.peers import Peer
from vault.secret import Secret


@pytest.mark.skipif(
    not shutil.which("chromium") and not os.environ.get("SEKISHO_REQUIRE_ALL"), reason="no chromium here"
)
@in_loop_for(240)
async def test_VA_41_three_applications_and_one_that_is_refused(peers: Peers) -> None:
    async with contextlib.AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium(sandbox=os.geteuid() != 0))

        async def one(peer: Peer, *pages: str, replace: tuple[str, str] = ("", "")) -> Certification:
            await stack.enter_async_context(Tap(peer.port).listening(peer.front))

            async def before_submit() -> None:
                return None

            recipe = load(peer.recipe().replace(*(text.encode() for text in replace)), GROUND).recipe
            values = {name: Secret(peer.account[name]) for name in recipe.fields}
            return await certify(
                recipe, values, browser=browser, now=time.time, new_secret=lambda: secrets.token_urlsafe(32), loopback=True,
                before_submit=before_submit, pages=pages,
            )  # fmt: skip

        lab, token, calibre, roundup = await asyncio.gather(
            one(peers["jupyterlab"]), one(peers["token"], replace=("sharing: shared", logout(peers["token"]))), one(peers["calibreweb"]), one(peers["roundup"], "/desk/issue?@template=item")
        )  # fmt: skip
    for result in (lab, calibre, roundup):
        told = {name: (result.check(name).code, result.check(name).evidence) for name in result.refused_for}
        assert told == {}
    carried = json.loads(lab.check("sockets").evidence)["sockets"]
    assert carried == {"/api/events/subscribe": True}
    assert token.check("leak").code == "secret_in_answer", "a server that was started with a token hands it out"
    assert token.check("ended").code == "still_logged_in", "its logout ends nothing"


def logout(peer: Peer) -> str:
    """What somebody writes who believes the tool's logout."""
    return f'sharing: shared\n  logout: {{method: GET, url: "{peer.origin}/logout"}}'
