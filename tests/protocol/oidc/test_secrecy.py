"""OA-18: nothing that opens a door is at rest or in a log. One run of everything, then a search through all of it."""

from __future__ import annotations

import base64
import contextlib
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import make_url, text

from idp.core import clock
from idp.core.db import reading, transaction
from idp.domain.applications import registry
from idp.domain.authn import activation
from idp.domain.directory.roles import Role
from tests.actors import CLI, Browser, World, receipt_number
from tests.conftest import Database


def everything(world: World) -> dict[str, str]:
    """One of every secret that the product issues or is told, each used as it is meant to be."""
    held: dict[str, str] = {}
    staff, hq = world.person("0413", totp=True), world.person("hq1", role=Role.HQ_ADMIN)
    hq2 = world.person("hq2", role=Role.HQ_ADMIN)
    console, native = (
        world.application("points", auth_method="client_secret_post"),
        world.application("native", auth_method="none", offline_allowed=True),
    )
    with world.app.app_context(), transaction() as session:
        held["rotated client secret"] = registry.rotate_secret(
            session, console.application_id, actor=CLI, now=clock.now()
        )[0]
    held["client secret"] = console.secret or ""
    with Browser(world.app) as phone, Browser(world.app) as desk, Browser(world.app) as manager:
        for name, browser, person in (("staff", phone, staff), ("hq", desk, hq), ("hq2", manager, hq2)):
            browser.get(console.authorization_url())
            held[f"{name} request handle"] = browser.forms()[-1]["fields"]["request"]
            held[f"{name} form token"] = browser.forms()[-1]["fields"]["csrf_token"]
            browser.submit(login_id=person.login, password=person.password, follow=False)
            held[f"{name} half login"] = browser.http.cookies.get("sekisho-2fa") or ""
            assert browser.page is not None
            browser.get(browser.page.headers["location"])
            done = browser.submit(code=person.code())
            held[f"{name} code"] = console.answer(done)["code"]
            tokens = console.redeem(held[f"{name} code"]).json()
            held |= {f"{name} {kind}": tokens[kind] for kind in ("access_token", "refresh_token", "id_token")}
            assert console.userinfo(tokens["access_token"]).status_code == 200
            held |= {f"{name} {cookie.name}": cookie.value or "" for cookie in browser.http.cookies.jar}
            held |= {f"{name} password": person.password, f"{name} totp seed": person.totp_secret or ""}
        rotating = native.log_in(desk, scope="openid offline_access")
        second = native.refresh(rotating["refresh_token"]).json()
        held |= {
            "rotated": rotating["refresh_token"],
            "successor": second["refresh_token"],
            "verifier": native.verifier,
            "offline": second["access_token"],
        }
        held["unused code"] = native.code(desk)
        held["posted handle"] = (
            desk.post("/oidc/authorize", {"client_id": "x"}, follow=False).headers["location"].partition("request=")[2]
        )
        native.refresh(rotating["refresh_token"], scope="x")
        native.redeem("not-a-code-but-secret-looking-0123456789")
        console.refresh(held["staff refresh_token"])
        desk.get("/oidc/logout")
        desk.get(console.authorization_url(redirect_uri="https://evil.example", code=held["unused code"]))
        with world.app.app_context(), transaction() as session:
            held["activation code"] = (
                activation.issue(
                    session, staff.id, purpose="activate", life=timedelta(hours=1), actor=CLI, now=clock.now()
                )
                or ""
            )
        wrong = Browser(world.app)
        wrong.get("/login")
        wrong.submit(login_id=staff.login, password="a wrong password that is nearly right")
        held["wrong password"] = "a wrong password that is nearly right"
        wrong.http.close()
        desk.get(f"/hq/people/{staff.id}/stop")
        receipt_number(desk.submit())
    world.deliver()
    return {name: value for name, value in held.items() if value}


def forms_of(value: str) -> set[bytes]:
    """How a value might lie in a file: as it is, as hexadecimal, as base64, decoded."""
    raw = value.encode()
    found = {raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")}
    if len(value) >= 32 and "." not in value:
        with contextlib.suppress(ValueError):
            found.add(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    return {form for form in found if len(form) >= 16}


def dump(app: Flask, database: Database) -> bytes:
    """Everything at rest: the files of SQLite with its WAL, or every row of every table of PostgreSQL as text."""
    if database.engine == "sqlite":
        path = Path(make_url(database.url).database or "")
        return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))
    with app.app_context(), reading() as session:
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = [str(row) for table in tables for row in session.scalars(text(f'SELECT t::text FROM "{table}" t'))]
    return "\n".join(rows).encode()


class _Everything(logging.Handler):
    """Keeps every record with everything in it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = {k: v for k, v in record.__dict__.items() if k not in {"args", "msg", "exc_info"}}
        self.lines.append(f"{record.getMessage()} {extra} {record.exc_text or ''}")


def test_OA_18_no_secret_at_rest_and_none_in_the_log(app: Flask, world: World, database: Database) -> None:
    """OA-18, VA-33: every code, token, secret, handle, cookie and password of a full run, in every spelling, against the whole
    database and against everything that our own loggers say at DEBUG."""
    kept = _Everything()
    ours = [logging.getLogger(name) for name in ("idp", "vault", "connectors")]
    levels = [logger.level for logger in ours]
    for logger in ours:
        logger.addHandler(kept)
        logger.setLevel(logging.DEBUG)
    try:
        held = everything(world)
    finally:
        for logger, level in zip(ours, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)
    assert len(held) > 30
    at_rest, said = dump(app, database), "\n".join(kept.lines).encode()
    assert b"points.adjust" in at_rest  # the search looks at something
    assert kept.lines
    for name, value in held.items():
        for form in forms_of(value):
            assert form not in at_rest, f"{name} is at rest"
            assert form not in said, f"{name} is in the log"


def test_OA_18_the_search_would_find_one(app: Flask, world: World, database: Database) -> None:
    """A secret that was stored in clear would be found, in a text column and in a binary one."""
    del world
    value = "a-secret-that-somebody-stored-in-clear-0123456789"
    with app.app_context(), transaction() as session:
        session.execute(text("UPDATE company SET name = :v WHERE code = 'AOBA'"), {"v": value})
        session.execute(text("UPDATE signing_key SET sealed = :v WHERE purpose = 'web'"), {"v": value.encode()})
    assert sum(form in dump(app, database) for form in forms_of(value)) >= (1 if database.engine == "sqlite" else 2)


@pytest.mark.parametrize("value", ["short", ""])
def test_short_values_are_not_searched_for(value: str) -> None:
    """Six digits occur by chance in any dump; what matters of them is that they work once (AC-25)."""
    assert forms_of(value) == set()
