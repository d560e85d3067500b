"""One provider per engine and run: protocol tests bring their own people and applications and share the installation.

Building an installation costs more than most of these tests. What a test must have to itself (keys, a whole dump) takes
the function-scoped fixtures of `tests/conftest.py` instead.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
import time_machine
from flask import Flask
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import func, select

from idp.app import create_app
from idp.core import clock
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from tests.actors import Browser, Person, RelyingParty, World
from tests.conftest import Template, dispose, settings_for
from tests.fakes.outbound import RecordingOutbound

USERINFO = "http://localhost:8000/oidc/userinfo"


@dataclass
class Provider:
    """A running product and the ways to bring people, browsers and relying parties to it."""

    app: Flask
    world: World
    outbound: RecordingOutbound
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000))
    _open: ExitStack = field(default_factory=ExitStack)

    def person(self, **how: Any) -> Person:
        """A person with a staff number of their own."""
        return self.world.person(how.pop("number", f"n{next(self._numbers)}"), **how)

    def application(self, **how: Any) -> RelyingParty:
        """A relying party with a name of its own."""
        return self.world.application(f"rp{next(self._numbers)}", **how)

    def public(self, **how: Any) -> RelyingParty:
        """A relying party without a secret: a native or browser application."""
        return self.application(auth_method="none", **how)

    def browser(self, person: Person | None = None) -> Browser:
        """A browser, with this person logged in."""
        made = self._open.enter_context(Browser(self.app))
        if person is not None:
            made.log_in(person)
            assert made.cookie, made.page.text[:500] if made.page else ""
        return made

    def enter(self, *, own: bool = False, **how: Any) -> tuple[Person, RelyingParty, Browser]:
        """Somebody logged in, and an application they may use. own: nobody else's test logs this person in too."""
        person = self.person() if own else self.somebody()
        return person, self.application(**how), self.browser(person)

    def visit(self, **how: Any) -> tuple[RelyingParty, Browser]:
        """An application, and a browser in which somebody has been logged in for a while: one for all tests that only look."""
        known: dict[str, Browser] = self.app.extensions.setdefault("test-browsers", {})
        if "somebody" not in known:
            known["somebody"] = Browser(self.app)
            known["somebody"].log_in(self.somebody())
        return self.application(**how), known["somebody"]

    def somebody(self) -> Person:
        """One person for every test that changes nothing about them: a password costs what the product ships with."""
        known: dict[str, Person] = self.app.extensions.setdefault("test-people", {})
        if "somebody" not in known:
            known["somebody"] = self.person()
        return known["somebody"]

    def verified(self, token: str, *, alg: str = "ES256") -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims of a JWT, verified as a relying party does: with the published key set."""
        with Browser(self.app) as anybody:
            keys = KeySet.import_key_set(anybody.http.get("/oidc/jwks").json())
        found = jwt.decode(token, keys, algorithms=[alg])
        return found.header, dict(found.claims)

    def count(self, tag: Tag, person: Person) -> int:
        """How many audit rows of this kind are about this person."""
        rows = self.world.rows(
            select(func.count())
            .select_from(AuditEvent)
            .where(AuditEvent.tag == tag.value, AuditEvent.subject_id == person.id)
        )
        return int(rows[0][0])

    def close(self) -> None:
        """Close what tests opened."""
        self._open.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Flask, RecordingOutbound, World]]:
    """One installation per engine and run (D2)."""
    outbound = RecordingOutbound()
    if request.param == "sqlite":
        template: Template = request.getfixturevalue("sqlite_template")
        folder = tmp_path_factory.mktemp("provider")
        shutil.copy(template.folder / "template.sqlite", folder / "provider.sqlite")
        url, drop = f"sqlite:///{folder}/provider.sqlite", None
    else:
        template = request.getfixturevalue("postgres_template")
        assert template.server is not None
        url = template.server.create_database(f"provider_{os.getpid()}", "template_sekisho")
        drop = template.server
    app = create_app(settings_for(url, template.folder), outbound=outbound)
    yield app, outbound, World(app)
    dispose(app)
    if drop is not None:
        drop.drop_database(f"provider_{os.getpid()}")


COUNTER = itertools.count(1000)


@pytest.fixture
def provider(installation: tuple[Flask, RecordingOutbound, World]) -> Iterator[Provider]:
    """The installation, with an empty record of what left it."""
    app, outbound, world = installation
    outbound.calls.clear()
    outbound.behaviours.clear()
    made = Provider(app, world, outbound, COUNTER)
    yield made
    made.close()


@pytest.fixture
def at() -> Iterator[Callable[[float], datetime]]:
    """Moves the clock: `at(61)` is 61 seconds after the test began, and time stands still there."""
    with ExitStack() as stack:
        begin = clock.now()

        def move(seconds: float) -> datetime:
            stack.close()
            stack.enter_context(time_machine.travel(begin + timedelta(seconds=seconds), tick=False))
            return clock.now()

        yield move


def page_of(answer: httpx2.Response) -> str:
    """An answer that is a page of ours and leads nowhere else."""
    assert "location" not in answer.headers, answer.headers["location"]
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text
