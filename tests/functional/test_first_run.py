"""The first administrator of an empty installation (Z01)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from idp.app import create_app
from idp.cli.database import _setup_code
from idp.core import clock
from idp.core.db import transaction
from tests.actors import Browser
from tests.conftest import Database, dispose
from tests.fakes.outbound import RecordingOutbound

PASSWORD = "vU9#kq2! lantern"


@pytest.fixture
def empty(database: Database) -> Iterator[Flask]:
    """The product as `sekisho init` leaves it: keys and tables, nobody in them."""
    app = create_app(database.settings(), outbound=RecordingOutbound())
    yield app
    dispose(app)


def init(app: Flask) -> str | None:
    """What `sekisho init` does to the database each time it is run."""
    with app.app_context(), transaction() as session:
        return _setup_code(session, now=clock.now())


def test_set_up_with_the_code_and_never_again(empty: Flask) -> None:
    """ux.md 11 row 59, Z01: the code of the server's console makes the first operator; a voided code, a guess or a second visit
    does not; afterwards the page does not exist, and the operator must enrol a second factor before anything else."""
    with Browser(empty) as browser:
        assert browser.get("/setup").status_code == 404, "nobody ran init"
        first, code = init(empty), init(empty)
        assert first
        assert code
        wish = {"login_name": "kanri", "name": "管理 太郎", "password": PASSWORD, "again": PASSWORD}
        browser.get("/setup")
        for bad in (first, "0" * 26, "nul\0"):
            page = browser.submit(setup_code=bad, **wish)
            assert page.status_code == 400
            assert PASSWORD not in page.text
        for weak in (
            {"password": "kanri2026", "again": "kanri2026"},
            {"again": "different"},
            {"login_name": "a/b"},
            {"name": "\u202egnp.exe"},
        ):
            assert browser.submit(setup_code=code, **{**wish, **weak}).status_code == 400
        done = browser.submit(setup_code=code.lower(), follow=False, **wish)
        assert (done.status_code, done.headers["location"]) == (303, "/login")

        assert browser.get("/setup").status_code == 404
        assert browser.post("/setup", {"csrf_token": "x"}).status_code in {400, 404}
        assert init(empty) is None, "an administrator exists already"
        browser.get("/login")
        assert "/me/security/totp/new" in str(browser.submit(login_id="SEKISHO/kanri", password=PASSWORD).url)
        assert "/me/security/totp/new" in str(browser.get("/hq/companies").url)


def test_guessing_the_set_up_code_is_braked(empty: Flask) -> None:
    """AC-05: five wrong set-up codes pause the address, also for the right one."""
    code = init(empty)
    with Browser(empty) as browser:
        wish = {"login_name": "kanri", "name": "管理 太郎", "password": PASSWORD, "again": PASSWORD}
        browser.get("/setup")
        for _ in range(5):
            browser.submit(setup_code="0" * 26, **wish)
        page = browser.submit(setup_code=code or "", **wish)
        assert page.status_code == 429
        assert "Retry-After" in page.headers
