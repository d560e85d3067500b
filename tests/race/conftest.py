"""The arena of the races: one per engine and process."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator

import pytest

from idp.app import create_app
from tests import postgres
from tests.actors import World
from tests.conftest import Template, dispose, settings_for
from tests.fakes.outbound import RecordingOutbound
from tests.race.arena import Arena
from tests.race.puppets import Stage

#: rounds of every random race, and how many statement pairs of every path are tried: see `rounds`
ROUNDS = int(os.environ.get("SEKISHO_RACE_ROUNDS", "1"))
#: two folders make an arena each
NUMBERS = itertools.count()
SEED = int(os.environ.get("SEKISHO_RACE_SEED", "20261121"))


@pytest.fixture(scope="session")
def rounds() -> int:
    """How often each random race is run, and how many random statement pairs of each path × scope are tried.

    `SEKISHO_RACE_ROUNDS=10` is what CI uses; 10^5 schedules over all paths and scopes are
    `SEKISHO_RACE_ROUNDS=1200 pytest tests/race -n auto` (a night). `SEKISHO_RACE_SEED` repeats or varies a run.
    """
    return ROUNDS


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of this test, the same at every run with the same seed."""
    return random.Random(f"{SEED}:{request.node.name}")


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A running installation on one engine, shared by all races of a process: each brings its own people."""
    template: Template = request.getfixturevalue(
        f"{'postgres' if request.param == 'postgresql' else request.param}_template"
    )
    dsn = None
    if template.server is not None:
        name = f"race{os.getpid()}_{next(NUMBERS)}"
        url = template.server.create_database(name, "template_sekisho")
        dsn = f"host={template.server.folder} user={postgres.SUPERUSER} dbname={name}"
    else:
        folder = tmp_path_factory.mktemp("race")
        shutil.copy(template.folder / "template.sqlite", folder / "race.sqlite")
        url = f"sqlite:///{folder}/race.sqlite"
    app = create_app(settings_for(url, template.folder), outbound=RecordingOutbound())
    try:
        with Stage(app, dsn).hooked() as stage:
            yield Arena(app, request.param, stage, World(app), template.server)
    finally:
        dispose(app)
        if template.server is not None:
            template.server.drop_database(name)
