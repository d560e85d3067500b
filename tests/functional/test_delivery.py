"""Delivery: what the worker does with what must leave the process (RE-01..RE-06, LO-04..LO-08, RV-25, RV-26)."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import time_machine
from sqlalchemy import event, select, update

from idp.app import create_app
from idp.core import clock
from idp.core.db import db, reading, transaction
from idp.core.errors import Unavailable
from idp.core.outbound import Answer, HttpOutbound, Rules
from idp.domain.authn import activation
from idp.domain.directory.models import Account, Assignment
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import AppSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.models import OutboxRow
from idp.lifecycle.revocation import receipt, record
from idp.lifecycle.revocation.cutter import Outcome
from idp.lifecycle.revocation.models import Evidence, Revocation
from idp.lifecycle.revocation.receipt import Line, Receipt
from idp.lifecycle.revocation.words import Scope
from idp.lifecycle.schedule import due
from idp.worker import Worker
from tests.actors import CLI, Browser, Person, RelyingParty, World, utc
from tests.conftest import Database, dispose
from tests.fakes import rp
from tests.fakes.lives import cut, furnish
from tests.fakes.outbound import Call, RecordingOutbound, down, ok, slow, status
from tests.fakes.rp import LogoutReceiver, Peer

NOW = utc(2026, 12, 1, 3, 0)


def found(world: World, number: str) -> Receipt:
    """A receipt as the command line sees it."""
    with world.app.app_context(), reading() as session:
        return receipt.load(session, number, None)


def told(world: World, number: str) -> list[Line]:
    """The lines of a receipt that are deliveries."""
    return [line for line in found(world, number).lines if line.cut.kind == "OIDC_LOGOUT"]


def tokens(outbound: RecordingOutbound, slug: str = "points") -> list[dict[str, Any]]:
    """The claims of every logout token that an application got, in order."""
    return [
        RelyingParty.claims(call.form["logout_token"]) for call in outbound.to(f"https://{slug}.example/backchannel")
    ]


def log_in(world: World, person: Person, party: RelyingParty) -> str:
    """A browser of its own, logged in and into one application. Returns the `sid` that the application got."""
    with Browser(world.app) as browser:
        browser.log_in(person)
        return str(party.claims(party.log_in(browser)["id_token"])["sid"])


# --- what is sent --------------------------------------------------------------------------------------------------


def test_LO_05_AT_H4_three_sessions_at_one_relying_party(world: World, outbound: RecordingOutbound) -> None:
    """A revocation sends one token without `sid`, and all three sessions end there; a logout of one browser sends one with
    its `sid` and ends that one only (LO-06). Verified by a relying party that checks every claim and signature."""
    points, person = world.application(), world.person()
    keys = points.http.get("/oidc/jwks").json()
    receiver = LogoutReceiver(points.issuer, points.client_id, keys)
    outbound.behave(
        "https://points.example/backchannel",
        lambda call: status(200 if receiver.accept(call.form["logout_token"]) else 400)(call),
    )
    sids = [log_in(world, person, points) for _ in range(2)]
    with Browser(world.app) as browser:
        browser.log_in(person)
        claims = points.claims(points.log_in(browser)["id_token"])
        receiver.sessions = {(claims["sub"], sid) for sid in [*sids, claims["sid"]]} | {("somebody", "else")}
        browser.post("/logout", {"csrf_token": browser.forms(browser.get("/"))[0]["fields"].get("csrf_token", "")})
    world.deliver()
    assert receiver.sessions == {(claims["sub"], sid) for sid in sids} | {("somebody", "else")}
    assert [claim.get("sid") for claim in receiver.claims] == [claims["sid"]]

    number = cut(world, person.id)
    world.deliver()
    assert receiver.sessions == {("somebody", "else")}
    assert "sid" not in receiver.claims[-1]
    assert len(receiver.claims) == 2
    assert receiver.refusals == []
    assert [line.state for line in told(world, number)] == ["acknowledged"]


def test_LO_07_RE_06_a_fresh_token_for_each_attempt_of_one_delivery(world: World, outbound: RecordingOutbound) -> None:
    """Three attempts minutes apart: three `jti`, `iat` and `exp` of their moment, one delivery, and each is on the receipt's
    evidence; the peer's refusal of the first two is never called anything but a failure."""
    points = world.application()
    with time_machine.travel(NOW, tick=False) as clock_:
        account = furnish(world, [points], "1")
        number = cut(world, account)
        outbound.behave("https://points.example/backchannel", status(503))
        for _ in range(2):
            world.deliver()
            assert [(line.state, line.open, line.grade) for line in told(world, number)] == [("failed", True, None)]
            assert found(world, number).verdict.word == "action"
            clock_.shift(timedelta(minutes=6))
        outbound.behave("https://points.example/backchannel", ok)
        world.deliver()
        sent = tokens(outbound)
    assert len({token["jti"] for token in sent}) == 3
    assert [token["iat"] for token in sent] == [int((NOW + timedelta(minutes=6 * n)).timestamp()) for n in range(3)]
    assert all(token["exp"] - token["iat"] <= 120 and "nonce" not in token for token in sent)
    assert len(world.rows(select(OutboxRow))) == 1
    line = told(world, number)[0]
    assert (line.state, line.grade, line.cut.attempts, line.cut.last_error) == ("acknowledged", "acknowledged", 3, None)
    proofs = [
        row[0] for row in world.rows(select(Evidence).where(Evidence.cut_id == line.cut.id).order_by(Evidence.id))
    ]
    assert [(proof.kind, proof.grade, proof.detail["status"]) for proof in proofs] == [
        ("attempt_retry", None, 503), ("attempt_retry", None, 503), ("attempt_acknowledged", "acknowledged", 200),
    ]  # fmt: skip
    assert [proof.detail["jti"] for proof in proofs] == [token["jti"] for token in sent]


def test_LO_07_each_answer_has_its_line(world: World, outbound: RecordingOutbound) -> None:
    """One person, ten relying parties that answer in ten ways, one attempt each: 400 is a person's at once, everything else
    that is not 200 or 204 is open and will be tried again; a redirect and a login page are no success."""
    answers: dict[str, tuple[Callable[[Call], Answer], str, str | None]] = {
        "ok": (ok, "acknowledged", None), "nocontent": (status(204), "acknowledged", None), "refusing": (status(400), "manual", "http_400"),
        "timeout408": (status(408), "failed", "http_408"), "busy429": (status(429, retry_after="60"), "failed", "http_429"),
        "broken500": (status(500), "failed", "http_500"), "busy503": (status(503), "failed", "http_503"),
        "redirecting": (status(302, location="https://redirecting.example/login"), "failed", "http_302"),
        "html": (status(200, rp.LOGIN_PAGE, content_type="text/html"), "failed", "html_page"), "down": (down, "failed", "network"),
        "slow": (slow, "failed", "timeout"),
    }  # fmt: skip
    parties = {slug: world.application(slug, grant_roles=()) for slug in answers}
    for slug, (behaviour, _, _) in answers.items():
        outbound.behave(f"https://{slug}.example/backchannel", behaviour)
    with time_machine.travel(NOW, tick=False):
        number = cut(world, furnish(world, list(parties.values()), "1"))
        world.deliver()
        by_app = {line.cut.application_id: line for line in told(world, number)}
        for slug, (_, state, error) in answers.items():
            line = by_app[parties[slug].application_id]
            assert (line.state, line.cut.last_error, line.cut.attempts) == (state, error, 1), slug
            assert line.open == (state != "acknowledged"), slug
            if state == "failed":
                assert line.cut.next_try_at is not None
                assert timedelta(0) < line.cut.next_try_at - NOW <= timedelta(seconds=60), slug
        assert by_app[parties["busy429"].application_id].cut.next_try_at == NOW + timedelta(seconds=60)
        verdict = found(world, number).verdict
        assert (verdict.word, verdict.needs_person, verdict.not_cut) == ("action", 1, 8)
        assert not verdict.everything_cut
    assert len(outbound.calls) == len(answers), "nothing was followed and nothing repeated"
    with time_machine.travel(NOW + timedelta(minutes=7), tick=False):
        world.deliver()
    assert len(outbound.to("https://refusing.example/backchannel")) == 1, "a refusal is not repeated blindly"
    assert len(outbound.to("https://ok.example/backchannel")) == 1
    assert len(outbound.to("https://down.example/backchannel")) == 2


def test_AT_H2_AT_H3_down_then_up_again(world: World, outbound: RecordingOutbound) -> None:
    """The application is away during the cut and back 30 s later; the app session is older than its access token, and is
    told all the same. Nobody acts, the try count is visible, the line closes."""
    points = world.application()
    with time_machine.travel(NOW, tick=False) as clock_:
        account = furnish(world, [points], "1")
        clock_.shift(timedelta(minutes=10))
        outbound.behave("https://points.example/backchannel", down)
        number = cut(world, account)
        kinds = [line.cut.kind for line in found(world, number).lines]
        assert "ACCESS_TOKEN" not in kinds
        assert "OIDC_LOGOUT" in kinds
        for _ in range(3):
            world.deliver()
            clock_.shift(timedelta(seconds=10))
        line = told(world, number)[0]
        assert line.state == "failed"
        assert 1 < line.cut.attempts <= 3
        outbound.behave("https://points.example/backchannel", ok)
        clock_.shift(timedelta(seconds=20))
        world.deliver()
        line = told(world, number)[0]
        assert (line.state, line.open) == ("acknowledged", False)
        assert found(world, number).revocation.completed_at == clock.now()


def test_RV_25_RE_05_dead_for_a_day(world: World, database: Database, outbound: RecordingOutbound) -> None:
    """25 h of no answer: waits between 1 s and 5 min in the first hour, then half an hour; at 24 h a person, not later, and
    the receipt says how often it was told and that nobody accepted. `Retry-After` moves a try by an hour at most.

    One engine: eighty attempts of one row, which the other tests make on both.
    """
    if database.engine != "sqlite":
        pytest.skip("the schedule is arithmetic; both engines run it elsewhere")
    points = world.application()
    outbound.behave("https://points.example/backchannel", down)
    with time_machine.travel(NOW, tick=False) as clock_:
        number = cut(world, furnish(world, [points], "1"))
        waits = []
        while True:
            world.deliver()
            row = world.rows(select(OutboxRow))[0][0]
            if row.state == "done":
                break
            wait = (row.run_at - clock.now()).total_seconds()
            waits.append(((clock.now() - NOW).total_seconds(), wait))
            clock_.move_to(row.run_at)
        given_up = clock.now()
        assert given_up == NOW + timedelta(hours=24)
        assert row.outcome == "gave_up"
        assert all(1 <= wait <= 300 for at, wait in waits if at < 3600)
        assert all(wait == 1800 for at, wait in waits[:-1] if at >= 3600)
        assert len({round(wait, 3) for at, wait in waits if at < 3600}) > 5, "no jitter"
        assert waits[0][1] <= 2
        line = told(world, number)[0]
        assert (line.state, line.contract, line.open, line.grade) == ("manual", "MANUAL", True, None)
        assert line.cut.attempts == len(waits) + 1
        receipt_ = found(world, number)
        assert receipt_.verdict.word == "action"
        assert not receipt_.verdict.everything_cut
        assert receipt_.revocation.completed_at is None
        clock_.shift(timedelta(hours=1))
        world.deliver()
        assert len(outbound.calls) == len(waits) + 1, "a delivery that a person has is tried no more"
        gone = world.rows(select(AuditEvent).where(AuditEvent.tag == Tag.CUT_NEEDS_PERSON.value))
        assert len(gone) == 1

        outbound.behave("https://points.example/backchannel", status(503, retry_after="86400"))
        other = cut(world, furnish(world, [points], "2"))
        world.deliver()
        assert told(world, other)[0].cut.next_try_at == clock.now() + timedelta(hours=1)


# --- whom it must not reach ----------------------------------------------------------------------------------------


def test_RE_04_RV_27_back_in_through_the_other_store(world: World, outbound: RecordingOutbound) -> None:
    """Leaving store A ends every app session; the person walks into the console again at once, with store B only, before the
    logout has left. It then names the old session and not the subject, so the new session survives, in either order."""
    points, person = world.application(), world.person()
    world.assign(person, "S2")
    with Browser(world.app) as browser:
        browser.log_in(person)
        before = points.claims(points.log_in(browser)["id_token"])
        assert len(before["stores"]) == 2
        outbound.behave("https://points.example/backchannel", down)
        number = cut(world, person.id, scope=Scope.ASSIGNMENT, target=person.assignment_id)
        world.deliver()
        after = points.claims(points.log_in(browser)["id_token"])
        assert [store["code"] for store in after["stores"]] == ["S2"]
        assert after["sid"] != before["sid"]
        outbound.calls.clear()
        outbound.behave("https://points.example/backchannel", ok)
        with time_machine.travel(clock.now() + timedelta(minutes=6), tick=False):
            world.deliver()
        assert [token.get("sid") for token in tokens(outbound)] == [before["sid"]]
        assert [line.state for line in told(world, number)] == ["acknowledged"]
        assert (
            points.http.get(
                "/oidc/userinfo", headers={"Authorization": f"Bearer {points.log_in(browser)['access_token']}"}
            ).status_code
            == 200
        )


def test_RE_04_a_late_logout_does_not_reach_a_person_who_was_let_in_again(
    world: World, outbound: RecordingOutbound
) -> None:
    """Cut, down, reinstated by two people, logged in again: the retry of the old cut ends the old sessions only. A second cut
    reaches the whole subject again."""
    points, person = world.application(), world.person()
    desks = [world.person(f"hq{n}", role=Role.HQ_ADMIN) for n in range(2)]
    old = log_in(world, person, points)
    outbound.behave("https://points.example/backchannel", down)
    first = cut(world, person.id)
    world.deliver()
    reinstate(world, person, desks)
    new = log_in(world, person, points)
    outbound.calls.clear()
    outbound.behave("https://points.example/backchannel", ok)
    with time_machine.travel(clock.now() + timedelta(minutes=6), tick=False):
        world.deliver()
        assert [token.get("sid") for token in tokens(outbound)] == [old]
        assert [line.state for line in told(world, first)] == ["acknowledged"]
        second = cut(world, person.id)
        outbound.calls.clear()
        world.deliver()
        assert [("sid" in token) for token in tokens(outbound)] == [False]
        assert [line.state for line in told(world, second)] == ["acknowledged"]
    assert new != old


def test_RE_04_another_hosts_clock_hides_no_session(world: World, outbound: RecordingOutbound) -> None:
    """The app session was opened by a host whose clock is 20 s ahead of the one that revokes. It is ended, so it is told: the
    moment a session began, by whatever clock, does not turn it into one of a person who was let in again."""
    points = world.application()
    with time_machine.travel(NOW + timedelta(seconds=20), tick=False):
        account = furnish(world, [points], "1")
        login = world.rows(select(AppSession.login_session_id))[0].login_session_id
    with time_machine.travel(NOW, tick=False):
        number = cut(world, account)
        world.deliver()
        assert [("sid" in token) for token in tokens(outbound)] == [False]
        assert [line.state for line in told(world, number)] == ["acknowledged"]
    with time_machine.travel(NOW + timedelta(seconds=20), tick=False):
        other = furnish(world, [points], "2")
        login = world.rows(select(AppSession.login_session_id).where(AppSession.account_id == other))[
            0
        ].login_session_id
    with time_machine.travel(NOW, tick=False):
        outbound.calls.clear()
        cut(world, other, scope=Scope.LOGIN_SESSION, target=login)
        world.deliver()
        sids = {row.sid for row in world.rows(select(AppSession.sid).where(AppSession.account_id == other))}
        assert {token.get("sid") for token in tokens(outbound)} == sids


def test_RV_26_registered_after_the_last_login_and_removed_before_the_cut(
    world: World, outbound: RecordingOutbound
) -> None:
    """A relying party that the person never entered gets nothing and is not on the receipt; one that was taken out of use
    while the person was inside is on it, and is told."""
    person, hq = (
        world.person(),
        world.person("hq1", role=Role.HQ_ADMIN),
    )
    removed = world.application("removed", company="AOBA")
    log_in(world, person, removed)
    with Browser(world.app) as desk:
        desk.log_in(hq)
        desk.get("/hq/apps/removed")
        assert desk.submit(action="/hq/apps/removed/remove").status_code == 200
    world.deliver()
    assert len(tokens(outbound, "removed")) == 1, "its sessions ended with it"
    world.application("late")
    number = cut(world, person.id)
    world.deliver()
    assert [line.application_name for line in told(world, number)] == ["removed コンソール"]
    assert len(tokens(outbound, "removed")) == 2
    assert not outbound.to("https://late.example/backchannel")


# --- leases, workers, order ----------------------------------------------------------------------------------------


def test_RE_02_a_worker_that_wakes_after_its_lease_must_not_overwrite(
    world: World, outbound: RecordingOutbound
) -> None:
    """Worker A hangs in the call for five minutes; B takes the delivery over and is acknowledged. A wakes with a refusal in
    its hands: nothing changes, not the line, not the evidence, not the log. And the other way round, B's failure stands
    against A's late success."""
    points = world.application()
    asleep, wake = threading.Event(), threading.Event()

    def sleepy(then: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
        def behave(call: Call) -> Answer:
            asleep.set()
            assert wake.wait(20)
            return then(call)

        return behave

    for number_of, (late, prompt, state) in enumerate(((status(400), ok, "acknowledged"), (ok, status(400), "manual"))):
        asleep.clear()
        wake.clear()
        with time_machine.travel(NOW, tick=False) as clock_:
            number = cut(world, furnish(world, [points], str(number_of)))
            outbound.behave("https://points.example/backchannel", sleepy(late))
            a = threading.Thread(target=Worker(world.app).drain)
            a.start()
            assert asleep.wait(20)
            world.deliver()
            assert [line.state for line in told(world, number)] == ["cutting"], "the lease is A's"
            clock_.shift(timedelta(minutes=5))
            outbound.behave("https://points.example/backchannel", prompt)
            world.deliver()
            line = told(world, number)[0]
            after_b = (line.state, line.grade, line.cut.done_at, line.cut.last_error, line.cut.attempts)
            assert line.state == state
            counted = _written(world)
            wake.set()
            a.join()
            line = told(world, number)[0]
            assert (line.state, line.grade, line.cut.done_at, line.cut.last_error, line.cut.attempts) == after_b
            assert _written(world) == counted


def _written(world: World) -> tuple[int, int, list[tuple[Any, ...]]]:
    rows = world.rows(
        select(OutboxRow.id, OutboxRow.state, OutboxRow.outcome, OutboxRow.run_at, OutboxRow.tries, OutboxRow.fence)
    )
    return (
        len(world.rows(select(Evidence.id))),
        len(world.rows(select(AuditEvent.id))),
        sorted(tuple(row) for row in rows),
    )


def test_RE_02_a_fence_that_is_not_the_newest_writes_nothing(world: World) -> None:
    """Every outcome under an old fence is thrown away, for a delivery that waits, is leased again, or is done."""
    account = furnish(world, [world.application()], "1")
    with time_machine.travel(NOW, tick=False) as clock_:
        cut(world, account)
        row_id = world.rows(select(OutboxRow.id))[0].id

        def lease() -> queue.Order | None:
            with world.app.app_context(), transaction() as session:
                return queue.lease(session, row_id, now=clock.now())

        def finish(order: queue.Order, result: str) -> bool:
            with world.app.app_context(), transaction() as session:
                return record.finished(session, order, Outcome(result), now=clock.now())  # type: ignore[arg-type]

        first = lease()
        assert first is not None
        assert lease() is None, "a lease that runs belongs to one"
        clock_.shift(timedelta(seconds=29))
        assert lease() is None
        clock_.shift(timedelta(seconds=2))
        second = lease()
        assert second is not None
        assert second.fence > first.fence
        before = _written(world)
        for result in ("acknowledged", "retry", "refused"):
            assert finish(first, result) is False
            assert _written(world) == before
        assert finish(second, "retry") is True
        before = _written(world)
        for order in (first, second):
            for result in ("acknowledged", "retry", "refused"):
                assert finish(order, result) is False
        assert _written(world) == before


def test_RE_05_answers_that_come_together_are_written_together(world: World) -> None:
    """Three answers of one receipt in one transaction: one lost its lease and changes nothing; the rows of the other two carry
    the same facts. A thousand answers do not read a thousand lines each."""
    points = [
        world.application(f"together{n}", backchannel_logout_uri=f"https://rp{n}.example.jp/out") for n in range(4)
    ]
    number = cut(world, furnish(world, points, "1"))
    with world.app.app_context():
        orders = []
        for row in world.rows(select(OutboxRow.id).where(OutboxRow.topic == "cut").order_by(OutboxRow.id)):
            with transaction() as session:
                order = queue.lease(session, row.id, now=clock.now())
            assert order is not None
            orders.append(order)
        lost = replace(orders[0], fence=orders[0].fence - 1)
        taken: list[str] = []
        event.listen(db.engine, "before_cursor_execute", lambda *a: taken.append(a[2]))
        with transaction() as session:
            pairs = [(order, Outcome("acknowledged")) for order in (lost, orders[1], orders[2])]
            assert record.finished_all(session, pairs, now=clock.now()) == [False, True, True]
        assert sum("FROM evidence" in text for text in taken) == 1
        assert sorted(line.state for line in told(world, number)) == [
            "acknowledged",
            "acknowledged",
            "queued",
            "queued",
        ]
        with transaction() as session:
            pairs = [(order, Outcome("acknowledged")) for order in (orders[0], orders[3])]
            assert record.finished_all(session, pairs, now=clock.now()) == [True, True]
    rows = world.rows(select(AuditEvent.detail).where(AuditEvent.tag == Tag.CUT_CLOSED))
    closed = [row.detail["facts"] for row in rows]
    assert len(closed) == 4
    assert len(set(closed)) == 2
    assert {line.state for line in told(world, number)} == {"acknowledged"}


def test_RE_03_selected_by_status_not_by_position(world: World, outbound: RecordingOutbound) -> None:
    """A transaction that began first and commits last: its delivery has the older id and is found all the same."""
    points = world.application()
    with time_machine.travel(NOW, tick=False):
        early = furnish(world, [points], "1")
    with time_machine.travel(NOW + timedelta(seconds=60), tick=False):
        late = furnish(world, [points], "2")
        second = cut(world, late)
        world.deliver()
        assert [line.state for line in told(world, second)] == ["acknowledged"]
    with time_machine.travel(NOW + timedelta(seconds=30), tick=False):
        first = cut(world, early)  # ids and times before those of what is done already
    with time_machine.travel(NOW + timedelta(seconds=61), tick=False):
        world.deliver()
        assert [line.state for line in told(world, first)] == ["acknowledged"]


@dataclass
class Gauge:
    """Counts calls under way, per address and in all; `hold` keeps them there."""

    hold: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    def wrap(self, then: Callable[[Call], Answer], *, held: bool) -> Callable[[Call], Answer]:
        """A behaviour that is counted, and with `held` waits."""

        def behave(call: Call) -> Answer:
            with self.lock:
                self.now[call.url] += 1
                self.most[call.url] = max(self.most[call.url], self.now[call.url])
                self.most["all"] = max(self.most["all"], sum(self.now.values()))
            try:
                if held:
                    self.hold.wait(20)
                return then(call)
            finally:
                with self.lock:
                    self.now[call.url] -= 1

        return behave


@contextmanager
def working(*workers: Worker) -> Iterator[None]:
    """Real workers in threads, stopped and joined at the end."""
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def eventually(held: Callable[[], bool], *, within: float = 20.0) -> None:
    """Wait for something that other threads do."""
    until = time.monotonic() + within
    while not held():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def states(world: World, *parties: RelyingParty) -> Counter[str]:
    """The states of the deliveries to these applications."""
    names = [str(party.application_id) for party in parties]
    return Counter(row.state for row in world.rows(select(OutboxRow.state).where(OutboxRow.destination.in_(names))))


def test_RE_05_one_hung_relying_party_delays_nobody(database: Database) -> None:
    """Twelve deliveries to a peer that never answers, and others: while it hangs in its two slots of eight, all others are
    done. Real servers, the real client, the real loop."""
    settings = database.settings(worker_slots=8)
    app = create_app(settings, outbound=HttpOutbound(Rules.from_settings(settings), total_s=60))
    world = World(app)
    with Peer(rp.hang) as hung, Peer(rp.ok) as fine:
        stuck = world.application("stuck", backchannel_logout_uri=hung.url, grant_roles=())
        others = [world.application(f"fine{n}", backchannel_logout_uri=fine.url, grant_roles=()) for n in range(4)]
        for n in range(12):
            cut(world, furnish(world, [stuck], f"s{n}"))
        cut(world, furnish(world, others, "f1"))
        cut(world, furnish(world, others, "f2"))
        with working(Worker(app)):
            eventually(lambda: states(world, *others) == {"done": 8})
            assert len(hung.calls) == 2
            assert states(world, stuck)["leased"] == 2
            hung.closing.set()
    dispose(app)


def test_RE_05_many_failing_destinations_keep_to_their_half(database: Database) -> None:
    """Five destinations fail, and then hang: together they hold half of the slots and one each, so that the sixth, which is
    well, is served at once. One that recovers gets its slots back."""
    outbound, gauge = RecordingOutbound(), Gauge()
    app = create_app(database.settings(worker_slots=6), outbound=outbound)
    world = World(app)
    sick = [world.application(f"sick{n}", grant_roles=()) for n in range(5)]
    well = world.application("well")
    for party in sick:
        outbound.behave(str(party.logout_uri), gauge.wrap(down, held=False))
    outbound.behave(str(well.logout_uri), gauge.wrap(ok, held=False))
    for n in range(2):
        cut(world, furnish(world, sick, f"s{n}"))
    worker = Worker(app)
    with working(worker):
        eventually(lambda: all(outbound.to(str(party.logout_uri)) for party in sick))
        for party in sick:
            outbound.behave(str(party.logout_uri), gauge.wrap(ok, held=True))
        eventually(lambda: sum(gauge.now.values()) == 3)
        with gauge.lock:
            gauge.most.clear()
        for n in range(4):
            cut(world, furnish(world, [well], f"w{n}"))
        eventually(lambda: states(world, well) == {"done": 4})
        assert sum(gauge.now.values()) == 3, "the failing ones hold their half, and no more"
        gauge.hold.set()
        eventually(lambda: states(world, *sick) == {"done": 10})
    dispose(app)


def test_RE_05_the_cap_per_destination_holds_at_every_moment(database: Database) -> None:
    """Ten deliveries to one peer, begun while others are under way: never more than two at once."""
    outbound, gauge = RecordingOutbound(), Gauge()
    app = create_app(database.settings(worker_slots=8), outbound=outbound)
    world = World(app)
    points = world.application()
    answers = iter([False, True] * 50)

    def uneven(call: Call) -> Answer:
        time.sleep(0.03 if next(answers) else 0.005)
        return ok(call)

    outbound.behave(str(points.logout_uri), gauge.wrap(uneven, held=False))
    for n in range(10):
        cut(world, furnish(world, [points], f"s{n}"))
    with working(Worker(app)):
        eventually(lambda: states(world, points) == {"done": 10})
    assert gauge.most[str(points.logout_uri)] == 2
    dispose(app)


def test_RE_02_two_workers_do_everything_once(world: World, outbound: RecordingOutbound) -> None:
    """Two loops over one queue: every delivery is made, none twice, while both live."""
    parties = [world.application(f"rp{n}", grant_roles=()) for n in range(3)]
    for n in range(6):
        cut(world, furnish(world, parties, str(n)))
    with working(Worker(world.app), Worker(world.app)):
        eventually(lambda: states(world, *parties) == {"done": 18})
    assert len(outbound.calls) == 18
    assert len({(call.url, RelyingParty.claims(call.form["logout_token"])["sub"]) for call in outbound.calls}) == 18
    assert all(row.fence == 1 for row in world.rows(select(OutboxRow.fence)))


def test_RE_40_the_loop_outlives_a_database_that_is_away(
    world: World, database: Database, outbound: RecordingOutbound
) -> None:
    """Connections are cut again and again (PostgreSQL), or the file is locked longer than anybody waits in a row (SQLite),
    while the loop runs; then everything is delivered, and nothing is lost."""
    points = world.application()
    numbers = [cut(world, furnish(world, [points], str(n))) for n in range(6)]
    outbound.behave(str(points.logout_uri), lambda call: (time.sleep(0.05), ok(call))[1])
    with working(Worker(world.app)):
        _disturb(database)
        with time_machine.travel(
            clock.now() + timedelta(seconds=40)
        ):  # what was leased when the database went is taken again
            eventually(lambda: calm(lambda: states(world, points)) == {"done": 6})
    for number in numbers:
        eventually(lambda number=number: calm(lambda: told(world, number)) is not None)
        assert [line.state for line in told(world, number)] == ["acknowledged"]


def calm(look: Callable[[], Any]) -> Any:
    """What is seen, or None while a connection of the test's own is being cut: a backend obeys in its own time."""
    try:
        return look()
    except Unavailable:
        return None


def _disturb(database: Database) -> None:
    until = time.monotonic() + 1.5
    if database.engine == "sqlite":
        with sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None) as other:
            while time.monotonic() < until:
                with suppress(sqlite3.OperationalError):
                    other.execute("BEGIN EXCLUSIVE")
                    time.sleep(0.3)
                    other.execute("ROLLBACK")
                time.sleep(0.02)
        other.close()
        return
    url = database.url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True) as other:
        while time.monotonic() < until:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.1)


def test_RE_07_one_key_is_one_revocation(world: World, database: Database) -> None:
    """Four clicks at once with one key: one revocation, one set of deliveries, four times the same receipt, and the epoch
    rises once. The key of another person's cut, or of another scope, is refused: answering with the wrong receipt would
    leave somebody's access alive."""
    points = world.application()
    account, other = furnish(world, [points], "1"), furnish(world, [points], "2")
    numbers: list[str] = []
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def click() -> None:
        start.wait(10)
        try:
            numbers.append(cut(world, account, key="one"))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(numbers) == 4
    assert len(set(numbers)) == 1
    assert len(world.rows(select(Revocation.id))) == 1
    assert len(world.rows(select(OutboxRow.id))) == 1
    assert world.rows(select(Account.epoch).where(Account.id == account))[0].epoch == 2
    for wish in ({"account_id": other}, {"account_id": account, "scope": Scope.APPLICATION, "target": account}):
        with pytest.raises(Exception, match="idempotency key"):
            cut(world, key="one", **wish)
    assert world.rows(select(Account.ended_at).where(Account.id == other))[0].ended_at is None


# --- what the clock does -------------------------------------------------------------------------------------------


def end_at(world: World, table: type[Account] | type[Assignment], row_id: uuid.UUID, at: datetime) -> None:
    """Set an end date, as the page that books one does."""
    with world.app.app_context(), transaction() as session:
        session.execute(update(table).where(table.id == row_id).values(ends_at=at))


def test_RV_01_all_assignments_end_together(world: World) -> None:
    """Both assignments of a person end at the same instant: nobody is left with an account and no place. One receipt of the
    whole account, not two of its halves; a second sweep, and a second worker, add nothing."""
    with time_machine.travel(NOW, tick=False) as clock_:
        both, one = world.person("0413"), world.person("0414")
        for person in (both, one):
            second = world.assign(person, "S2")
            end_at(world, Assignment, person.assignment_id, NOW + timedelta(hours=1))
            if person is both:
                end_at(world, Assignment, second, NOW + timedelta(hours=1))
        world.deliver()
        assert world.rows(select(Revocation.id)) == []
        clock_.shift(timedelta(hours=1))
        for worker in (world.worker, Worker(world.app), world.worker):
            worker.sweep()
        scopes = {
            row.account_id: row.scope_kind for row in world.rows(select(Revocation.account_id, Revocation.scope_kind))
        }
        assert scopes == {both.id: "account", one.id: "assignment"}
        assert len(world.rows(select(Revocation.id))) == 2
        ended = {row.id: row.ended_at for row in world.rows(select(Account.id, Account.ended_at))}
        assert ended[both.id] is not None
        assert ended[one.id] is None


def test_RE_20_an_end_date_that_was_moved_meanwhile_is_the_one_that_counts(world: World) -> None:
    """Head office moves the date while the sweep is on its way to that person: what the sweep read first decides nothing."""
    with time_machine.travel(NOW, tick=False) as clock_:
        person = world.person()
        end_at(world, Account, person.id, NOW + timedelta(hours=1))
        clock_.shift(timedelta(hours=2))

        def run() -> None:
            with world.app.app_context():
                due.run(give_up_after=timedelta(hours=24), now=clock.now())

        with world.app.app_context(), transaction() as session:
            session.execute(update(Account).where(Account.id == person.id).values(ends_at=NOW + timedelta(days=30)))
            sweep = threading.Thread(target=run)
            sweep.start()
            sweep.join(0.7)  # it has read the old date and waits for the row, or, on SQLite, for the file
        sweep.join(20)
        assert world.rows(select(Revocation.id)) == []
        assert world.rows(select(Account.ended_at).where(Account.id == person.id))[0].ended_at is None
        clock_.shift(timedelta(days=31))
        world.worker.sweep()
        assert len(world.rows(select(Revocation.id))) == 1


def test_RV_01_one_person_who_cannot_be_cut_keeps_nobody_waiting(world: World) -> None:
    """Somebody's cascade fails, at every sweep; everybody else's runs, and so does the rest of the sweep."""
    with time_machine.travel(NOW, tick=False) as clock_:
        accounts = [furnish(world, [], str(n)) for n in range(3)]
        cut(world, accounts[0], key=f"end:{accounts[1]}:1", scope=Scope.APPLICATION)  # the key that the sweep will want
        for account in accounts[1:]:
            end_at(world, Account, account, NOW + timedelta(hours=1))
        quiet = world.application("quiet", backchannel_logout_uri=None, session_life_s=60, grant_roles=())
        residual = cut(world, furnish(world, [quiet], "9"))
        clock_.shift(timedelta(hours=2))
        for _ in range(2):
            world.worker.sweep()
        ended = {row.id: row.ended_at is not None for row in world.rows(select(Account.id, Account.ended_at))}
        assert (ended[accounts[1]], ended[accounts[2]]) == (False, True)
        assert not [line for line in found(world, residual).lines if line.open]


# --- helpers -------------------------------------------------------------------------------------------------------


def reinstate(world: World, person: Person, desks: list[Person]) -> None:
    """Two people at head office let somebody in again, who then chooses a new password."""
    for desk, path in zip(desks, ("reinstate", "reinstate/approve"), strict=True):
        with Browser(world.app) as browser:
            browser.log_in(desk)
            browser.get(f"/hq/people/{person.id}")
            values = {"note": "同じ人です"} if path == "reinstate" else {}
            assert browser.submit(action=f"/hq/people/{person.id}/{path}", **values).status_code == 200
    person.password = f"again-{uuid.uuid4()}"
    verifier = world.services.hasher.make(person.password)
    now = clock.now()
    with world.app.app_context(), transaction() as session:
        session.execute(update(Account).where(Account.id == person.id).values(locale="ja"))
        code = activation.issue(session, person.id, purpose="activate", life=timedelta(hours=1), actor=CLI, now=now)
        waiting = activation.find(session, code or "", now=now)
        assert waiting is not None
        assert activation.use(session, waiting, verifier=verifier, actor=CLI, now=now)
