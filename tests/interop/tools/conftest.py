"""The three applications, started side by side once for the folder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ctypes.util import find_library

import pytest

import run
from tests.interop.conftest import missing
from tests.interop.tools.peers import CalibreWeb, Jupyter, Peer, Roundup

Peers = dict[str, Peer]


@pytest.fixture(scope="package")
def peers() -> Iterator[Peers]:
    """By slug; and JupyterLab once more, as it starts by itself, with a login token."""
    if find_library("magic") is None:
        missing("no libmagic found, without which Calibre-Web takes no upload (Debian: libmagic1)")
    with ExitStack() as stack:
        try:
            made: Peers = {"jupyterlab": Jupyter(), "token": Jupyter(with_token=True), "calibreweb": CalibreWeb(), "roundup": Roundup()}  # fmt: skip
        except run.Stop as stop:
            missing(f"the applications could not be installed: {stop}")
        for peer in made.values():
            stack.callback(peer.close)
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(Peer.__enter__, made.values()))
        yield made
