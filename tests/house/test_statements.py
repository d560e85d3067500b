"""Statements per request are a budget (performance.md 4.1), and nothing slow happens while a connection is held (RE-20).

A request's cost is its statements: one more of them on the token endpoint is the difference between the aim and the must.
The counts are exact where the page is ours to shape, so that a change shows up here and is either wanted or a mistake.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import event, func, select

from idp.core import clock, ids
from idp.core.db import db, reading, run, transaction
from idp.domain.authn import activation
from idp.domain.authn.passwords import Cost, Hasher
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.domain.gateway import gateway_sessions
from idp.domain.gateway.models import GatewayCookie, ToolSession
from idp.lifecycle.revocation.models import Cut, Revocation
from idp.lifecycle.revocation.words import CutKind
from idp.services import Services, read_peppers
from tests.actors import CLI, Browser, Person, RelyingParty, World, receipt_number, utc
from tests.conftest import Database
from tests.saml import ServiceProvider
from tests.toolbox import Toolbox
from tests.tools import place
from tests.unit.connectors.recipe_texts import COMPLETE

NOW = utc(2026, 11, 24, 1, 0)
FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA", "SAVEPOINT", "RELEASE")

# --- counting ------------------------------------------------------------------------------------------------------


@contextmanager
def counting(app: Flask) -> Iterator[list[str]]:
    """The statements that reach the database, of every engine of the application, without the frame of a transaction."""
    seen: list[str] = []

    def before(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().upper().startswith(FRAME):
            seen.append(statement)

    with app.app_context():
        engines = list(db.engines.values())
    assert len(engines) == 3, "requests, revocation and reading each have a pool (RE-46)"
    for engine in engines:
        event.listen(engine, "before_cursor_execute", before)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", before)


def counted(app: Flask, act: Callable[..., Any], *args: Any, status: int = 200, **kwargs: Any) -> tuple[int, Any]:
    """How many statements one request needs, and its answer. It must succeed: a refusal is cheap."""
    with counting(app) as seen:
        answer = act(*args, **kwargs)
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    return len(seen), answer


def test_hot_paths_stay_inside_their_statements(world: World) -> None:
    """performance.md 4.1: authorize ≤ 6, token ≤ 6, refresh ≤ 4, userinfo 1 (of ≤ 2); discovery and key set none at all."""
    app, staff = world.app, world.person()
    web, native = (
        world.application("points"),
        world.application("native", auth_method="none", redirect_uris=("https://native.example/cb",)),
    )
    with time_machine.travel(NOW, tick=False), Browser(app) as phone:
        phone.log_in(staff)
        web.log_in(phone)  # warm: signing keys are read every 10 seconds, the refresh key once per process
        for party in (web, native):
            for _ in range(2):  # the second time, the app session exists already
                cost, answer = counted(app, phone.get, party.authorization_url(), follow=False, status=303)
                assert cost <= 6
            cost, answer = counted(app, party.redeem, party.answer(answer)["code"])
            assert cost <= 6
            tokens = answer.json()
            cost, answer = counted(app, party.refresh, tokens["refresh_token"])
            assert cost <= 4
            rotated = answer.json()["refresh_token"] != tokens["refresh_token"]
            assert rotated is (party is native), "public clients rotate, confidential ones keep a generation"
            cost, _ = counted(app, party.userinfo, tokens["access_token"])
            assert cost == 1
        for path in ("/.well-known/openid-configuration", "/oidc/jwks", "/healthz"):
            assert counted(app, web.http.get, path)[0] == 0


def test_a_saml_answer_stays_inside_its_statements(world: World) -> None:
    """performance.md 4.1: replay, shared rows with login and name, gate, facts, ledger row, audit row: 6, where the process knows
    the service provider. By POST the message is kept first. A logout by SOAP is set-based."""
    app, staff = world.app, world.person()
    sp = world.service_provider(ServiceProvider("coupon"))
    with time_machine.travel(NOW, tick=False), Browser(app) as phone:
        phone.log_in(staff)
        sp.sign_on(phone)  # warm: our keys are read every 10 seconds, the page around the answer once per process
        for _ in range(2):
            cost, page = counted(app, phone.get, sp.redirect_url())
            assert cost == 6
        answer = sp.take(page, phone)
        cost, kept = counted(app, phone.http.post, "/saml/sso", data=sp.post_form(), status=303)
        assert cost == 3
        assert counted(app, phone.get, kept.headers["location"])[0] == 7
        assert counted(app, phone.get, "/saml/metadata")[0] == 0
        cost, _ = counted(app, sp.soap_logout, phone, answer)
        assert cost <= 14


#: ceilings of what a page needs. The live check is two (session, standings); a login reads its account and its brakes, then
#: shares, claims and inserts; a code also has brakes, counts its try and writes the audit row of opening the seed before
#: it opens it
PAGES = {
    "login page": 0,
    "wrong password": 6,
    "login": 9,
    "portal": 4,
    "password, then code page": 8,
    "second factor": 19,
}


def test_pages_need_a_stated_number_of_statements(world: World) -> None:
    """A page costs its live check and what it shows; a login its read, its claim and its rows (house.md 4)."""
    app, staff, admin = world.app, world.person(), world.person("hq1", role=Role.HQ_ADMIN)
    world.application("points")
    found: dict[str, int] = {}
    with time_machine.travel(NOW, tick=False), Browser(app) as phone, Browser(app) as desk:
        phone.get("/status")
        found["login page"], _ = counted(app, phone.get, "/login")
        wrong = {"login_id": staff.login, "password": "not the one they chose"}
        found["wrong password"], _ = counted(app, phone.submit, **wrong, status=401)
        phone.get("/login")
        right = {"login_id": staff.login, "password": staff.password}
        found["login"], _ = counted(app, phone.submit, **right, follow=False, status=303)
        found["portal"], _ = counted(app, phone.get, "/")
        desk.get("/login")
        right = {"login_id": admin.login, "password": admin.password}
        found["password, then code page"], answer = counted(app, desk.submit, **right)
        assert "/login/totp" in str(answer.url)
        found["second factor"], _ = counted(app, desk.submit, code=admin.code(), follow=False, status=303)
    assert {name: n for name, n in found.items() if n > PAGES[name]} == {}, found
    assert found.keys() == PAGES.keys()


def test_the_portal_costs_the_same_with_more_applications(world: World) -> None:
    """A company with 100 applications must not pay 100 statements for its most visited page."""
    app, staff = world.app, world.person()
    world.application("points")
    with time_machine.travel(NOW, tick=False), Browser(app) as phone:
        phone.log_in(staff)
        one, _ = counted(app, phone.get, "/")
        for slug in ("rota", "till", "stock"):
            world.application(slug)
        four, page = counted(app, phone.get, "/")
    assert all(slug in page.text for slug in ("points", "rota", "till", "stock"))
    assert four == one


def test_the_live_check_of_the_gateway_is_one_statement(world: World) -> None:
    """VA-50: whoever asks, and however many ask at once, the answer is one SELECT over everything that has to be alive."""
    made = place(world.app, COMPLETE.encode())
    person = made.enter(world.person().id)
    now, digests = clock.now(), [ids.digest(f"cookie {n}") for n in range(3)]
    with world.app.app_context(), transaction() as session:
        row = ToolSession(
            created_at=now, company_id=made.account.company_id, tool_account_id=made.account.id, state="live",
            ends_at=now + timedelta(hours=1),
        )  # fmt: skip
        session.add(row)
        session.flush()
        inside = made.sit_down(session, person, row.id)
        session.add_all(
            GatewayCookie(created_at=now, gateway_session_id=inside, host=f"h{n}", cookie_digest=digest)
            for n, digest in enumerate(digests[:2])
        )
    with counting(world.app) as seen, world.app.app_context(), reading() as session:
        assert {
            found.host for found in run(session, gateway_sessions.live_query(), {"digests": digests, "now": now})
        } == {"h0", "h1"}
    assert len(seen) == 1, seen


# --- a cut ---------------------------------------------------------------------------------------------------------


def _live_things(app: Flask, person: Person, parties: list[RelyingParty], logins: int) -> None:
    """Log a person in that often, and into every application from each login: logins × (1 + 2 × applications) live rows."""
    for _ in range(logins):
        with Browser(app) as phone:
            phone.log_in(person)
            for party in parties:
                party.log_in(phone)


def test_a_cut_costs_by_destinations_not_by_sessions(world: World) -> None:
    """A person with 50 live things is cut with as many statements as one with five: ends are set-based (house.md 6).

    Only destinations add statements: a line of the receipt and a delivery each.
    """
    app = world.app
    few, many, wide = (world.person(number) for number in ("0413", "0414", "0415"))
    manager = world.person("0101", role=Role.STORE_MANAGER, name="鈴木 一郎")
    parties = [world.application(slug) for slug in ("points", "rota", "till")]
    with time_machine.travel(NOW, tick=False), Browser(app) as desk:
        _live_things(app, few, parties[:2], logins=1)
        _live_things(app, many, parties[:2], logins=10)
        _live_things(app, wide, parties, logins=1)
        desk.log_in(manager)
        cost: dict[str, int] = {}
        for person in (few, many, wide):
            desk.get(f"/store/S1/staff/{person.id}/stop")
            cost[person.login_name], answer = counted(app, desk.submit, follow=False, status=303)
            assert receipt_number(answer)
    assert cost["0414"] == cost["0413"], "one statement per kind, however many rows"
    assert cost["0415"] - cost["0413"] <= 5, "a destination is at most a few rows, and grows nothing else"


def test_a_cut_costs_the_same_with_more_tools(world: World) -> None:
    """VA-42: what somebody may know of six tools is found and written with as many statements as of two, in the dialog and
    in the cut; an account for their store and one for everybody in each. The lines of the receipt are all there."""
    app, now = world.app, clock.now()
    cost: dict[int, list[int]] = {}
    with time_machine.travel(now, tick=False), Browser(app) as desk:
        desk.log_in(world.person("0101", role=Role.STORE_MANAGER, name="鈴木 一郎"))
        box, made = Toolbox(world), 0
        recipe = box.recipe()
        for tools in (2, 6):
            for _ in range(tools - made):
                made += 1
                tool = box.tool(f"tool-{made}", recipe_id=recipe)
                for store in ("S1", None):
                    box.deposit(box.account(tool, store=store))
            leaver = world.person(f"05{tools:02}")
            dialog, page = counted(app, desk.get, f"/store/S1/staff/{leaver.id}/stop")
            assert page.text.count("シフトノート") >= tools
            cut, answer = counted(app, desk.submit, follow=False, status=303)
            lines = select(func.count(Cut.id)).join(Revocation).where(
                Revocation.number == receipt_number(answer), Cut.kind == CutKind.TOOL_PASSWORD.value
            )  # fmt: skip
            assert world.rows(lines) == [(2 * tools,)]
            cost[tools] = [dialog, cut]
    assert cost[6] == cost[2]


# --- hashing -------------------------------------------------------------------------------------------------------


@dataclass
class Held:
    """How many connections each thread holds, over every pool of an application."""

    by_thread: Counter[int] = field(default_factory=Counter)

    def out(self, *_: Any) -> None:
        """A connection left the pool."""
        self.by_thread[threading.get_ident()] += 1

    def back(self, *_: Any) -> None:
        """It came back."""
        self.by_thread[threading.get_ident()] -= 1

    @property
    def here(self) -> int:
        """Held by this thread now."""
        return self.by_thread[threading.get_ident()]


class WatchingHasher(Hasher):
    """The real hasher, which notes what its thread holds while it works."""

    def __init__(self, held: Held, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held = held
        self.made: list[int] = []
        self.checked: list[int] = []

    def make(self, password: str) -> str:
        """See Hasher."""
        self.made.append(self.held.here)
        return super().make(password)

    def check(self, password: str, verifier: str | None) -> bool:
        """See Hasher."""
        self.checked.append(self.held.here)
        return super().check(password, verifier)


@pytest.fixture
def watched(app: Flask, database: Database) -> Iterator[WatchingHasher]:
    """The application with a hasher that watches, at a cost that makes every stored verifier outdated."""
    held = Held()
    services: Services = app.extensions["sekisho"]
    peppers = read_peppers(database.folder / "pepper")
    hasher = WatchingHasher(held, peppers, next(reversed(peppers)), Cost(19 * 1024, 3), slots=2, queue=4)
    app.extensions["sekisho"] = replace(services, hasher=hasher)
    with app.app_context():  # left before the test: requests inside it would share one `g`, and with it who is looking
        engines = list(db.engines.values())
    with ExitStack() as undo:
        for engine in engines:
            for name, listener in (("checkout", held.out), ("checkin", held.back)):
                event.listen(engine.pool, name, listener)
                undo.callback(event.remove, engine.pool, name, listener)
        yield hasher


def _activation_code(app: Flask, person: Person) -> str:
    with app.app_context(), transaction() as session:
        code = activation.issue(session, person.id, purpose="reset", life=NOW - utc(2026, 11, 23), actor=CLI, now=NOW)
    assert code is not None
    return code


def test_no_password_is_hashed_while_a_connection_is_held(world: World, watched: WatchingHasher) -> None:
    """AC-03, RE-20: 25 ms of hashing inside a transaction would hold a row, and on SQLite the one writer, that long.

    Every way to the hasher: a login, right, wrong, unknown and outdated; step-up; a change; a reset by code.
    """
    app = world.app
    new = "three quiet rivers at dawn"
    with time_machine.travel(NOW, tick=False), Browser(app) as phone:
        staff = world.person()  # made through the watching hasher too, which the world reaches by its own services
        watched.made.clear()
        with app.app_context(), reading() as session:  # the watch itself is awake
            session.execute(select(Account.id)).all()
            watched.check("anything", None)
        assert watched.checked == [1]
        watched.checked.clear()

        phone.get("/login")
        assert phone.submit(login_id="AOBA/9999", password="whatever they typed").status_code == 401
        assert phone.submit(login_id=staff.login, password="whatever they typed").status_code == 401
        assert phone.log_in(staff).status_code == 200
        assert len(watched.checked) == 3
        phone.get("/login/step-up?next=/me/security")
        assert phone.submit(password=staff.password).status_code == 200
        phone.get("/me/password")
        assert phone.submit(current=staff.password, password=new, again=new).status_code == 200
        phone.get("/e")
        phone.submit(code=_activation_code(app, staff))
        assert phone.submit(password=f"{new} again", again=f"{new} again").status_code == 200
    assert (len(watched.checked), len(watched.made)) == (5, 3)
    assert set(watched.checked + watched.made) == {0}
