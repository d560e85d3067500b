"""The order of a certification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from playwright.async_api import Browser

from connectors.certify.model import Certification
from connectors.engine.http_driver import BeforeSubmit
from connectors.ports import NewSecret, Now, Revealable
from connectors.recipes.model import Recipe


async def certify(
    recipe: Recipe,
    values: Mapping[str, Revealable],
    *,
    browser: Browser | None,
    now: Now,
    new_secret: NewSecret,
    loopback: bool,
    before_submit: BeforeSubmit,
    pages: Sequence[str] = (),
) -> Certification:
    """Run every check of `model.NAMES`; see the package for what is promised.

    values: of the fields of the tool account; browser: a running Chromium (`connectors.engine.browser.chromium`), or None,
    and then the checks that need one are NOT_RUN; loopback: as in the drivers, tools on this machine may be called (WB-20);
    pages: further pages of the tool to look at, paths beside `routes.landing`, such as the one that opens a WebSocket.
    """
    raise NotImplementedError
