"""A fake provider, a console that trusts it, and browsers that walk between the two."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine
from console_actors import Browser, make_config
from console_fake_provider import FakeProvider, running_provider
from flask import Flask

from connectors.demo.console import Config, create_console


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with running_provider() as fake:
        yield fake


@pytest.fixture
def config(provider: FakeProvider, tmp_path: Path) -> Config:
    return make_config(provider, tmp_path)


@pytest.fixture(scope="session")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser logged in once for all the tests in which nothing may change: near misses that are refused."""
    with running_provider() as fake:
        browser = Browser(create_console(make_config(fake, tmp_path_factory.mktemp("settled"))), fake)
        browser.login()
        yield browser


@pytest.fixture
def stranger(settled: Browser) -> Iterator[Browser]:
    """A browser that never gets in: for logins that are refused, at the console of `settled`."""
    yield Browser(settled.app, settled.provider)
    settled.provider.id_claims, settled.provider.id_header = {}, {}


@pytest.fixture
def app(config: Config) -> Flask:
    return create_console(config)


@pytest.fixture
def browser(app: Flask, provider: FakeProvider) -> Browser:
    return Browser(app, provider)


@pytest.fixture
def other_browser(app: Flask, provider: FakeProvider) -> Browser:
    return Browser(app, provider)


@pytest.fixture
def misbehaving(config: Config, provider: FakeProvider) -> Any:
    """A console with a flaw, logged in: (browser, the pauses it made)."""

    def make(flaw: Any) -> tuple[Browser, list[float]]:
        pauses: list[float] = []
        made = Browser(create_console(replace(config, misbehaviour=flaw), pause=pauses.append), provider)
        made.login()
        return made, pauses

    return make


@pytest.fixture
def time_machine_at() -> Any:
    """Move the clock: `with time_machine_at(seconds): ...`."""
    return lambda seconds: time_machine.travel(seconds, tick=False)
