"""Narrowing an application races what is issued for it and what is being cut in it (RE-20); and how locks may be taken at all."""

from __future__ import annotations

import ast
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from idp.core import clock
from idp.core.db import is_retryable, retrying, transaction
from idp.core.errors import Unavailable
from idp.core.settings import PROJECT_ROOT
from idp.domain.applications import registry
from idp.domain.authn.models import Authenticator
from idp.domain.directory.models import Account, Store
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import LoginSession
from idp.lifecycle.revocation import record
from idp.lifecycle.revocation.models import Cut, Revocation
from tests.actors import CLI, receipt_number
from tests.race.arena import Arena, accepted, receipt_of
from tests.race.paths import Authorize, EnrolTotp, Redeem, RefreshPublic, Scene
from tests.race.puppets import before, committing


class Narrowed:
    """An application of the company's own with one entitlement, and somebody who uses it."""

    def __init__(self, arena: Arena, path: type[Scene], slug: str) -> None:
        self.arena = arena
        over: dict[str, Any] = {"auth_method": "none"} if path is RefreshPublic else {}
        self.party = arena.world.application(slug, company="AOBA", grant_roles=(), **over)
        with arena.app.app_context(), transaction() as session:
            application, _ = registry.get_application(session, slug, None)
            self.entitlement = registry.grant(
                session, application, subject_kind="role", subject_id=None, role=Role.STAFF.value, functions=(), actor=CLI,
                company_id=application.company_id, now=clock.now(),
            ).id  # fmt: skip
        native, web = arena.native, arena.web
        arena.native = arena.web = self.party
        self.scene = path(arena)
        arena.native, arena.web = native, web
        self.scene.party = self.party
        self.desk = arena.admins[0]

    def narrow(self) -> Any:
        """Take the only entitlement away."""
        return self.desk.send(f"/hq/apps/{self.party.slug}/grants/end", id=str(self.entitlement))


@pytest.mark.parametrize("path", [Authorize, Redeem, RefreshPublic], ids=lambda path: path.__name__)
@pytest.mark.parametrize("issuer_stands", [True, False], ids=["issuer-first", "narrowing-first"])
def test_RE_20_narrowing_during_an_issuance(arena: Arena, path: type[Scene], issuer_stands: bool) -> None:
    """T− a narrowing during an issuance: whoever comes second waits at the application's row; nothing issued survives."""
    made = Narrowed(arena, path, f"n{path.__name__.lower()}{issuer_stands:d}")
    deadlocks, issue = arena.deadlocks(), made.scene.issue
    if issuer_stands:
        met = arena.stage.meet(issue, made.narrow, pause=committing(path.marker))
        issued, narrowed = met.first, met.second
    else:
        met = arena.stage.meet(made.narrow, issue, pause=committing("UPDATE entitlement"))
        issued, narrowed = met.second, met.first
    assert met.stood, met.steps
    assert met.waited, "nobody waits: the application's shared row is not taken"
    assert narrowed.status_code == 303
    assert arena.deadlocks() == deadlocks
    assert issued is not None
    accepted(issued)
    assert made.scene.works(issued) == []


@pytest.mark.parametrize("narrowing_stands", [True, False], ids=["narrowing-first", "revocation-first"])
def test_RE_20_narrowing_meets_revocation(arena: Arena, narrowing_stands: bool) -> None:
    """An application is narrowed while one of its people is cut: no deadlock, neither is lost."""
    made = Narrowed(arena, Redeem, f"meets{narrowing_stands:d}")
    made.scene.issue()
    person, other, deadlocks = made.scene.person, arena.admins[1], arena.deadlocks()
    if narrowing_stands:
        met = arena.stage.meet(made.narrow, lambda: other.stop(person), pause=before("UPDATE app_session SET ended_at"))
        narrowed, stopped = met.first, met.second
    else:
        met = arena.stage.meet(lambda: other.stop(person), made.narrow, pause=before("INSERT INTO revocation"))
        narrowed, stopped = met.second, met.first
    assert met.stood, met.steps
    assert arena.deadlocks() == deadlocks, "FOR UPDATE on the application meets the foreign key of a cut"
    assert narrowed.status_code == 303
    receipt_of(stopped)


def test_RE_20_end_of_the_login_session_stops_an_enrolment(arena: Arena) -> None:
    """The owner throws a thief's login out while the thief enrols an authenticator in it: nothing of the thief's is stored.

    The login session is the gate of what is done inside it; when it ended, the whole transaction has to go.
    """
    if arena.engine == "sqlite":
        _kick_out_between_read_and_write(arena, before("BEGIN IMMEDIATE"), skip=1)
    else:
        _kick_out_between_read_and_write(arena, before("UPDATE account"), skip=0)


def _kick_out_between_read_and_write(arena: Arena, pause: Callable[[int, str], bool], *, skip: int) -> None:
    scene = EnrolTotp(arena)
    owner = arena.logged_in(scene.person)
    csrf = owner.forms(owner.get("/me/password"))[-1]["fields"]["csrf_token"]
    hits = 0

    def later(n: int, step: str) -> bool:
        nonlocal hits
        hits += pause(n, step)
        return pause(n, step) and hits > skip

    met = arena.stage.meet(
        scene.issue, lambda: owner.post("/me/sessions/end-others", {"csrf_token": csrf}, follow=False), pause=later
    )
    assert met.stood, met.steps
    assert not met.waited
    assert met.second.status_code == 303
    assert scene.browser is not None
    assert arena.world.rows(select(LoginSession.end_reason).where(LoginSession.id == scene.login_session)) == [
        ("ended_by_owner",)
    ]
    stored = arena.world.rows(
        select(Authenticator.kind).where(Authenticator.account_id == scene.person.id, Authenticator.ended_at.is_(None))
    )
    assert {kind for (kind,) in stored} == {"password"}, (
        "an authenticator was stored from a login session that had ended"
    )


def test_RV_07_two_last_lines_that_close_together_complete_the_receipt(arena: Arena) -> None:
    """Two destinations answer in the same instant: neither sees the other's line closed, and still the receipt completes."""
    if arena.engine == "sqlite":
        return  # one writer: the second begins after the first one's commit, and there is no such instant
    person = arena.person()
    browser = arena.logged_in(person)
    for party in (arena.web, arena.native):
        party.log_in(browser)
    number = receipt_number(arena.admins[0].stop(person))
    rows = arena.world.rows(
        select(Cut.id, Cut.state).join(Revocation).where(Revocation.number == number).order_by(Cut.position)
    )
    waiting = [row.id for row in rows if row.state != "done"]
    assert len(waiting) >= 2
    with arena.app.app_context(), transaction() as session:
        session.execute(update(Cut).where(Cut.id.in_(waiting)).values(state="needs_person"))
        keep = set(waiting[:2])
        session.execute(update(Cut).where(Cut.id.in_(set(waiting) - keep)).values(state="done", grade="attested"))

    def close(cut_id: Any) -> None:
        with arena.app.app_context(), transaction() as session:
            cut = session.get_one(Cut, cut_id)
            record.close_by_person(
                session,
                cut,
                impossible=False,
                note="by hand",
                closed_by=arena.admins[0].person.id,
                actor=CLI,
                now=clock.now(),
            )

    met = arena.stage.meet(lambda: close(waiting[0]), lambda: close(waiting[1]), pause=committing("UPDATE cut"))
    assert met.stood
    done = arena.world.rows(select(Revocation.completed_at).where(Revocation.number == number))
    assert done[0][0] is not None, "both lines are closed, and the receipt stays open for ever"


# --- locks -----------------------------------------------------------------------------------------------------------


def test_RE_20_no_lock_stands_in_the_way_of_a_foreign_key() -> None:
    """`FOR UPDATE` conflicts with the `FOR KEY SHARE` that every foreign key takes on its parent: an issuer that holds a row
    further down and inserts a child then waits for a revocation that waits for the issuer. `FOR NO KEY UPDATE`
    (`key_share=True`) serialises writers and issuers' `FOR SHARE` just as well, and lets foreign keys through."""
    found = []
    for path in sorted((PROJECT_ROOT / "idp").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "with_for_update"
            ):
                arguments = {keyword.arg for keyword in node.keywords}
                if not arguments & {"read", "key_share"}:
                    found.append(f"{path.relative_to(PROJECT_ROOT)}:{node.lineno}")
    assert not found, found


def test_RE_20_the_victim_of_a_deadlock_may_come_back_and_a_revocation_does(arena: Arena) -> None:
    """A deadlock that nobody foresaw: whoever retries gets through, whoever does not is told 503, and nobody 500."""
    if arena.engine == "sqlite":
        return  # one writer cannot deadlock; the busy timeout has a test below
    person = arena.person()
    store = arena.world.store_id("S1")
    tries = 0

    def upwards() -> None:
        with arena.app.app_context(), transaction() as session:
            session.execute(update(Account).where(Account.id == person.id).values(epoch=Account.epoch))
            session.execute(update(Store).where(Store.id == store).values(code=Store.code))

    def downwards() -> None:
        nonlocal tries
        tries += 1
        with arena.app.app_context(), transaction() as session:
            session.execute(update(Store).where(Store.id == store).values(code=Store.code))
            session.execute(update(Account).where(Account.id == person.id).values(epoch=Account.epoch))

    met_error: list[BaseException] = []

    def plain() -> None:
        try:
            upwards()
        except Unavailable as error:
            met_error.append(error)

    arena.stage.meet(plain, lambda: retrying(downwards), pause=before("UPDATE store"))
    assert tries == 2 or met_error, "no deadlock was made: the test proves nothing"
    assert all(is_retryable(error.__cause__) for error in met_error)


def test_RE_41_a_writer_that_waited_too_long_may_try_again(tmp_path: Path) -> None:
    """SQLite: `database is locked` did nothing, so a revocation runs again; another error of the file does not."""
    one, two = (sqlite3.connect(tmp_path / "x.sqlite", timeout=0, isolation_level=None) for _ in range(2))
    one.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as busy:
        two.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as other:
        two.execute("SELECT * FROM nowhere")
    assert is_retryable(OperationalError("BEGIN", {}, busy.value))
    assert not is_retryable(OperationalError("SELECT", {}, other.value))
    tries = 0

    def work() -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("later") from OperationalError("BEGIN", {}, busy.value)
        return tries

    assert retrying(work) == 3
    with pytest.raises(Unavailable):
        retrying(lambda: _refuse(OperationalError("SELECT", {}, other.value)))
    one.close()
    two.close()


def _refuse(error: OperationalError) -> None:
    raise Unavailable("later") from error
