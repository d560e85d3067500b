"""One small test for each `claim()`: it goes red when that claim's answer is ignored. `tests/house/test_claims.py` proves it.

The races show that the claims hold under load; these show, in order and one by one, what each of them refuses. Where the
claim is redundant in any order that one thread can make, two threads meet on PostgreSQL.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from connectors.recipes.hosts import Ground
from idp.core import clock, ids, keystore
from idp.core.db import reading, transaction
from idp.core.errors import Conflict
from idp.core.keystore import CompanyKeyRow
from idp.domain.applications import registry
from idp.domain.authn import activation, second_factor
from idp.domain.authn.models import PendingLogin
from idp.domain.credentials import service
from idp.domain.credentials.models import SealedCredential
from idp.domain.directory import people
from idp.domain.directory.models import Account
from idp.domain.sessions import live
from idp.domain.sessions.live import LiveLogin
from idp.domain.sessions.models import PendingRequest
from idp.domain.tokens import ends
from idp.domain.tools import recipes
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.log import Actor
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.models import OutboxRow
from idp.lifecycle.revocation import record
from idp.lifecycle.revocation.cutter import Outcome
from idp.lifecycle.revocation.models import Cut, Evidence, Revocation
from idp.lifecycle.revocation.reinstate import Reinstatement
from tests.actors import CLI, Browser, Person, receipt_number
from tests.race.arena import Admin, Arena, accepted
from tests.race.puppets import before
from tests.toolbox import SHIFT_NOTE, Toolbox
from vault import Secret


@contextmanager
def work(arena: Arena) -> Iterator[Session]:
    """One transaction."""
    with arena.app.app_context(), transaction() as session:
        yield session


def only_postgresql(arena: Arena) -> bool:
    """SQLite has one writer: there the second of two begins after the first one's commit, and the claim decides nothing."""
    return arena.engine == "postgresql"


# --- outbox --------------------------------------------------------------------------------------------------------


def put(arena: Arena) -> uuid.UUID:
    """A delivery that is due."""
    key = f"guard:{ids.new_id()}"
    with work(arena) as session:
        queue.put(
            session, topic="guard", destination="d", dedup_key=key, now=clock.now(), give_up_after=timedelta(hours=1)
        )
    found: uuid.UUID = arena.world.rows(select(OutboxRow.id).where(OutboxRow.dedup_key == key))[0][0]
    return found


@pytest.mark.guards("idp.ledgers.outbox.queue.lease")
def test_RE_02_a_delivery_is_leased_once(arena: Arena) -> None:
    """Two workers read the same due row: the second gets nothing until the lease has run out."""
    row, now = put(arena), clock.now()
    with work(arena) as session:
        assert queue.lease(session, row, now=now) is not None
        assert queue.lease(session, row, now=now) is None
        again = queue.lease(session, row, now=now + queue.LEASE + timedelta(seconds=1))
        assert again is not None
        assert again.fence == 2


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.guards(f"idp.ledgers.outbox.queue.{way}")) for way in ("done", "retry_later")],
)
def test_RE_02_a_result_under_a_lost_lease_is_thrown_away(arena: Arena, way: str) -> None:
    """The first worker was slow, its lease ran out, a second one leased: the first one's result writes nothing."""
    row, now = put(arena), clock.now()
    with work(arena) as session:
        lost = queue.lease(session, row, now=now)
        held = queue.lease(session, row, now=now + queue.LEASE + timedelta(seconds=1))
        assert lost is not None
        assert held is not None
        if way == "done":
            assert not queue.done(session, lost, outcome="acknowledged", now=now)
            assert queue.done(session, held, outcome="acknowledged", now=now)
        else:
            assert not queue.retry_later(session, lost, at=now, outcome="retry")
            assert queue.retry_later(session, held, at=now, outcome="retry")


# --- second factor -------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.domain.authn.second_factor.claim_step")
def test_AC_25_a_code_opens_one_login(arena: Arena) -> None:
    """The same six digits in a second login are refused, although they are still valid by the clock."""
    person = arena.person(totp=True)
    code, statuses = person.code(), []
    for _ in range(2):
        with arena.pending_login(person) as browser:
            browser.get("/login/totp")
            statuses.append(browser.submit(code=code, follow=False).status_code)
    assert statuses == [303, 401]


@pytest.mark.guards("idp.domain.authn.second_factor.claim_recovery_code")
def test_AC_09_an_unknown_recovery_code_opens_nothing(arena: Arena) -> None:
    """A code that no row has."""
    with arena.pending_login(arena.person(totp=True)) as browser:
        browser.get("/login/recovery")
        assert browser.submit(code="AAAA-BBBB-CCCC-DDDD", follow=False).status_code == 401
        assert not browser.cookie


def pending_of(arena: Arena, person: Person) -> uuid.UUID:
    """A half-finished login's row."""
    arena.pending_login(person).http.close()
    rows = arena.world.rows(select(PendingLogin.id).where(PendingLogin.account_id == person.id))
    found: uuid.UUID = rows[-1][0]
    return found


@pytest.mark.guards("idp.domain.authn.second_factor.count_try")
def test_AC_25_there_are_five_tries(arena: Arena) -> None:
    """The sixth try of one unfinished login is not taken."""
    pending = pending_of(arena, arena.person(totp=True))
    with work(arena) as session:
        assert [second_factor.count_try(session, pending) for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.guards("idp.domain.authn.second_factor.finish_pending")
def test_AC_25_an_unfinished_login_is_finished_once(arena: Arena) -> None:
    """It becomes one login session and no second one; after five minutes none."""
    person = arena.person(totp=True)
    first, late, now = pending_of(arena, person), pending_of(arena, arena.person(totp=True)), clock.now()
    with work(arena) as session:
        assert second_factor.finish_pending(session, first, now=now)
        assert not second_factor.finish_pending(session, first, now=now)
        assert not second_factor.finish_pending(session, late, now=now + timedelta(minutes=6))


# --- accounts ------------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.domain.authn.activation.use")
def test_AC_07_a_code_that_was_replaced_while_it_was_typed(arena: Arena) -> None:
    """Read as usable, then voided by a newer one: it sets no password."""
    person = arena.person(active=False)
    old, now = arena.activation_code(person), clock.now()
    with work(arena) as session:
        waiting = activation.find(session, old, now=now)
    assert waiting is not None
    arena.activation_code(person)
    with work(arena) as session:
        assert not activation.use(session, waiting, verifier=arena.verifier, actor=CLI, now=now)
    with Browser(arena.app) as phone:
        assert phone.log_in(person).status_code == 401


@pytest.mark.guards("idp.domain.directory.people.claim_account")
def test_AC_07_no_code_for_somebody_who_was_stopped(arena: Arena) -> None:
    """Head office asks for a code after the cut: refused."""
    person, desk = arena.person(), arena.admins[0]
    assert desk.send(f"/hq/people/{person.id}/reset").status_code == 200
    desk.stop(person)
    assert desk.send(f"/hq/people/{person.id}/reset").status_code == 409


@pytest.mark.guards("idp.domain.directory.people.raise_epoch")
def test_RE_20_a_credential_change_at_an_old_epoch(arena: Arena) -> None:
    """Something changed between the read and the change: the change does not happen; nor does it for an ended account."""
    person, now = arena.person(), clock.now()
    with work(arena) as session:
        epoch = session.scalar(select(Account.epoch).where(Account.id == person.id)) or 0
        assert people.raise_epoch(session, person.id, epoch=epoch, now=now)
        assert not people.raise_epoch(session, person.id, epoch=epoch, now=now)
    arena.admins[0].stop(person)
    with work(arena) as session:
        assert not second_factor.remove(session, person.id, actor=CLI, now=now)


@pytest.mark.guards("idp.edges.web.stopping._book")
def test_RV_35_a_booked_end_is_not_put_off(arena: Arena) -> None:
    """A last day is booked; a later one is refused and changes nothing: nobody keeps access by being booked a second time."""
    person, desk, path = arena.person(), arena.admins[0], "/hq/people/{}/stop"
    days = [(clock.now() + timedelta(days=n)).date().isoformat() for n in (5, 9)]
    answers = [
        desk.send(path.format(person.id), reason="left", when="date", on=day, once=day).status_code for day in days
    ]
    assert answers == [303, 400]
    ends_at = arena.world.rows(select(Account.ends_at).where(Account.id == person.id))[0][0]
    assert ends_at < clock.now() + timedelta(days=7)


# --- sessions ------------------------------------------------------------------------------------------------------


def ended_login(arena: Arena) -> LiveLogin:
    """A login session as a request saw it, which has ended meanwhile."""
    with arena.logged_in(arena.person()) as browser, work(arena) as session:
        found = live.look(session, browser.cookie, now=clock.now())
        assert found is not None
        assert live.touch(session, found, now=clock.now())
        assert live.claim_login_session(session, found.id, now=clock.now())
        assert ends.log_out(session, found.id, reason="logout", now=clock.now()) is not None
    return found


@pytest.mark.guards("idp.domain.sessions.live.touch")
def test_AC_42_an_ended_login_session_is_not_used_on(arena: Arena) -> None:
    """Moving the idle limit of an ended one fails."""
    login = ended_login(arena)
    with work(arena) as session:
        assert not live.touch(session, login, now=clock.now())


@pytest.mark.guards("idp.domain.sessions.live.claim_login_session")
def test_RE_20_nothing_is_issued_inside_an_ended_login_session(arena: Arena) -> None:
    """The gate of an authorization."""
    login = ended_login(arena)
    with work(arena) as session:
        assert not live.claim_login_session(session, login.id, now=clock.now())


@pytest.mark.guards("idp.domain.sessions.live.raise_assurance")
def test_AC_40_an_ended_login_session_gets_no_new_cookie(arena: Arena) -> None:
    """The gate of a step-up."""
    login = ended_login(arena)
    with work(arena) as session:
        assert live.raise_assurance(session, login, acr=login.acr, amr=login.amr, actor=CLI, now=clock.now()) is None


@pytest.mark.guards("idp.domain.sessions.live.use_request")
def test_WB_05_a_waiting_request_is_answered_once(arena: Arena) -> None:
    """The second answer to it fails."""
    with work(arena) as session:
        live.put_request(session, protocol="oidc", parameters={}, now=clock.now())
        request = session.scalars(select(PendingRequest.id).order_by(PendingRequest.id.desc()).limit(1)).one()
        assert live.use_request(session, request, now=clock.now())
        assert not live.use_request(session, request, now=clock.now())


# --- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.domain.sessions.live.claim_app_session")
def test_RE_20_a_code_is_worth_nothing_after_the_idle_limit(arena: Arena) -> None:
    """The code is young, the login session around it ran out: nobody ended a row, only the clock moved (D7)."""
    with time_machine.travel(clock.now(), tick=False) as clockwork:
        codes = []
        for idle_s in (30, 300):
            with arena.logged_in(arena.person(), idle_s=idle_s) as browser:
                codes.append((arena.web.code(browser), arena.web.verifier))
        clockwork.shift(40)
        assert [accepted(arena.web.redeem(code, code_verifier=v)) for code, v in codes] == [False, True]


@pytest.mark.guards("idp.domain.tokens.grants.redeem_code")
def test_OA_05_a_code_lives_sixty_seconds(arena: Arena) -> None:
    """61 seconds after its issue the claim refuses it."""
    with time_machine.travel(clock.now(), tick=False) as clockwork, arena.logged_in(arena.person()) as browser:
        code = arena.web.code(browser)
        clockwork.shift(61)
        assert arena.web.redeem(code).json()["error"] == "invalid_grant"


@pytest.mark.guards("idp.domain.tokens.grants.claim_family")
def test_OA_15_a_refresh_after_the_idle_limit(arena: Arena) -> None:
    """A family without `offline_access` lives with its login session: after the idle limit it refreshes no more."""
    with (
        time_machine.travel(clock.now(), tick=False) as clockwork,
        arena.logged_in(arena.person(), idle_s=60) as browser,
    ):
        tokens = [party.log_in(browser) for party in (arena.web, arena.native)]
        assert accepted(arena.web.refresh(tokens[0]["refresh_token"]))
        clockwork.shift(61)
        assert not accepted(arena.web.refresh(tokens[0]["refresh_token"]))
        assert not accepted(arena.native.refresh(tokens[1]["refresh_token"]))


# --- applications --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=pytest.mark.guards(f"idp.domain.applications.registry.end_{what}"))
        for what in ("entitlement", "application")
    ],
)
def test_RE_20_narrowing_happens_once(arena: Arena, what: str) -> None:
    """The second end of the same row does nothing and says so; the log has one event."""
    slug = f"once-{what}-{ids.new_id().hex[-8:]}"
    party = arena.world.application(slug)
    with work(arena) as session:
        locked = registry.lock_application(session, party.application_id)
        if what == "application":
            went = [registry.end_application(session, locked.id, actor=CLI, now=clock.now()) for _ in range(2)]
        else:
            first = registry.entitlements_of(session, locked.id)[0].id
            went = [registry.end_entitlement(session, first, actor=CLI, now=clock.now()) for _ in range(2)]
    assert went == [True, False]


# --- cuts ----------------------------------------------------------------------------------------------------------


def cut_of(arena: Arena, kind: str) -> Any:
    """A line of a fresh receipt."""
    person = arena.person()
    with arena.logged_in(person) as browser:
        arena.web.log_in(browser)
    number = receipt_number(arena.admins[0].stop(person))
    return arena.world.rows(select(Cut.id).join(Revocation).where(Revocation.number == number, Cut.kind == kind))[0].id


def events_of(arena: Arena, cut_id: uuid.UUID) -> list[str]:
    """Tags of the audit rows about a cut."""
    rows = arena.world.rows(select(AuditEvent.tag, AuditEvent.detail).order_by(AuditEvent.id))
    return [row.tag for row in rows if row.detail.get("cut_id") == str(cut_id)]


@pytest.mark.guards("idp.lifecycle.revocation.record._write_cut")
def test_RV_07_a_late_answer_does_not_close_a_closed_line_again(arena: Arena) -> None:
    """A person closed the line while the peer was still answering: the answer is evidence that opens a sealed receipt again,
    and no second closing."""
    cut_id = cut_of(arena, "OIDC_LOGOUT")
    row = arena.world.rows(select(OutboxRow.id).where(OutboxRow.ref == cut_id))[0].id
    with work(arena) as session:
        order = queue.lease(session, row, now=clock.now())
        assert order is not None
        session.execute(update(Cut).where(Cut.id == cut_id).values(state="done", grade="attested"))
    with work(arena) as session:
        assert record.finished(session, order, Outcome("acknowledged"), now=clock.now())
    assert arena.world.rows(select(Cut.grade).where(Cut.id == cut_id)) == [("attested",)]
    assert events_of(arena, cut_id) == ["revocation:cut:attempted"]


@pytest.mark.guards("idp.lifecycle.revocation.record.close_by_person")
def test_RV_07_a_line_is_closed_by_one_person(arena: Arena) -> None:
    """The second one is told that somebody was faster; a line that waits for no person cannot be closed by one at all."""
    cut_id, by = cut_of(arena, "OIDC_LOGOUT"), arena.admins[0].person.id

    def close() -> None:
        with work(arena) as session:
            cut = session.get_one(Cut, cut_id)
            record.close_by_person(
                session, cut, impossible=False, note="by hand", closed_by=by, actor=CLI, now=clock.now()
            )

    with pytest.raises(Conflict):
        close()
    with work(arena) as session:
        session.execute(update(Cut).where(Cut.id == cut_id).values(state="needs_person"))
    close()
    with pytest.raises(Conflict):
        close()


@pytest.mark.guards("idp.lifecycle.revocation.record._expire")
def test_RV_23_two_workers_close_a_residual_once(arena: Arena) -> None:
    """Both read that the token's time has come: one line of evidence, one event."""
    if not only_postgresql(arena):
        return
    cut_id, later = cut_of(arena, "ACCESS_TOKEN"), clock.now() + timedelta(hours=1)

    def sweep() -> None:
        with work(arena) as session:
            record.close_elapsed(session, now=later)

    met = arena.stage.meet(sweep, sweep, pause=before("UPDATE cut"))
    assert met.stood
    assert arena.world.rows(select(func.count()).select_from(Evidence).where(Evidence.cut_id == cut_id)) == [(1,)]
    assert len(events_of(arena, cut_id)) == 1


# --- coming back ---------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.lifecycle.revocation.reinstate.approve#1")
def test_AC_08_a_second_wish_does_not_bring_back_twice(arena: Arena) -> None:
    """Two wishes for one person, as two askers at once leave them: the first approval brings them back, the second one nobody."""
    person = arena.person()
    one, two = arena.admins
    one.stop(person)
    assert one.send(f"/hq/people/{person.id}/reinstate", note="wrong person").status_code == 303
    with work(arena) as session:
        now = clock.now()
        session.add(
            Reinstatement(
                id=ids.new_id(now),
                created_at=now,
                account_id=person.id,
                requested_by=one.person.id,
                note="x",
                state="waiting",
            )
        )
    answers = [two.send(f"/hq/people/{person.id}/reinstate/approve").status_code for _ in range(2)]
    assert answers == [200, 409]


@pytest.mark.guards("idp.lifecycle.revocation.reinstate.approve#2")
def test_AC_08_an_old_approval_does_not_undo_a_new_cut(arena: Arena) -> None:
    """Two approvers read one wish. The first brings the person back, who is cut again; then the second one goes on."""
    if not only_postgresql(arena):
        return
    person = arena.person()
    one, two = arena.admins
    three = Admin(arena, f"hq{person.login_name}")
    one.stop(person)
    assert one.send(f"/hq/people/{person.id}/reinstate", note="wrong person").status_code == 303
    path = f"/hq/people/{person.id}/reinstate/approve"

    def back_and_cut() -> list[int]:
        return [three.send(path).status_code, one.stop(person).status_code]

    met = arena.stage.meet(lambda: two.send(path), back_and_cut, pause=before("UPDATE account"))
    assert met.stood
    assert met.second == [200, 303]
    assert met.first.status_code == 409
    assert arena.world.rows(select(Account.ended_at).where(Account.id == person.id))[0][0] is not None


# --- tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.guards("idp.domain.tools.recipes.approve_recipe")
def test_VA_58_a_recipe_is_approved_once(arena: Arena) -> None:
    """Two people approve at the same moment: one of them did it, and the log names that one."""
    first, second = (Actor("person", arena.person().id) for _ in range(2))
    on, now = Ground(today=clock.now().date(), loopback=True), clock.now()
    text = SHIFT_NOTE.replace("id: shift-note", "id: guard-note")
    with work(arena) as session:
        row = recipes.propose_recipe(session, text, on=on, company_id=None, actor=CLI, now=now)
        recipe_id, digest = row.id, row.digest
        recipes.approve_recipe(session, recipe_id, digest=digest, actor=first, now=now)
    with pytest.raises(Conflict), work(arena) as session:
        recipes.approve_recipe(session, recipe_id, digest=digest, actor=second, now=now)


@pytest.mark.guards("idp.domain.credentials.service.put")
def test_VA_43_a_typed_password_does_not_displace_a_proven_one(arena: Arena) -> None:
    """Somebody typed while a machine proved its own new password: the typed one is refused, for nobody saw the change."""
    box = Toolbox(arena.world)
    account = box.account(
        box.tool("guard-tool", recipe_id=box.recipe(SHIFT_NOTE.replace("id: shift-note", "id: guard-put")))
    )
    box.deposit(account)
    with arena.app.app_context():
        with reading() as session:
            row = session.get_one(ToolAccount, account)
        fresh = service.seal(arena.world.services.vault, row, {"password": Secret("typed")}, now=clock.now())
    with work(arena) as session:  # what a promotion does
        session.execute(
            update(SealedCredential).where(SealedCredential.tool_account_id == account).values(current_version=7)
        )
    with pytest.raises(Conflict), work(arena) as session:
        service.put(session, row, fresh, actor=CLI, now=clock.now())


@pytest.mark.guards("idp.core.keystore.switch_off")
def test_VA_21_a_company_key_is_not_switched_off_early_or_twice(arena: Arena) -> None:
    """Active, then just retired, then five minutes later: only the third may go, and once."""
    now, key_id = clock.now(), ids.new_id()
    with work(arena) as session:
        session.add(
            CompanyKeyRow(
                id=key_id, created_at=now, company="guard", key_class="credential", version=1, root_key_id="r", wrapped=b"w", check_value=b"c",
                state="active",
            )
        )  # fmt: skip
    for state, moved_at, went in (
        ("active", now - timedelta(hours=1), False), ("retiring", now, False), ("retiring", now - timedelta(minutes=5), True), ("shredded", None, False),
    ):  # fmt: skip
        if state != "shredded":
            with work(arena) as session:
                session.execute(
                    update(CompanyKeyRow).where(CompanyKeyRow.id == key_id).values(state=state, moved_at=moved_at)
                )
        with work(arena) as session:
            assert keystore.switch_off(session, key_id, now=now) is went
