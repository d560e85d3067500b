"""RE-30: kill -9 at every step of a revocation and of its delivery, in real processes, on both databases.

K0 parsed · K1 gate row · K2 ended · K3 audit · K4 outbox · K5 commit · K6 answer lost · K7 lease · K8 token minted ·
K9 bytes sent, no answer · K10 answer not stored · K11 stored · K13 sealed (test_sealing.py). K12 (probe) comes with its stage.

A dry run lists the steps; every step must have a name in the tables below, so that a new one without a failpoint fails
here, and then a person is killed at each. After each death the same three questions: nothing or all? every destination
delivered or visibly pending? nothing twice?
"""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask
from lxml import etree
from sqlalchemy import event, func, select

from idp.app import create_app
from idp.core import clock
from idp.core.db import db, reading, transaction
from idp.core.errors import Unavailable
from idp.core.outbound import HttpOutbound, Rules
from idp.domain.credentials.models import SealedCredential
from idp.domain.directory.models import Account, Assignment
from idp.domain.gateway.models import GatewaySession, ToolSession
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens.models import AuthorizationCode, TokenFamily
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox.models import OutboxRow
from idp.lifecycle.revocation import cascade, receipt
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.models import Cut, Evidence, Revocation
from idp.lifecycle.revocation.receipt import line_of
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests import postgres, tools
from tests.actors import CLI, RelyingParty, World
from tests.conftest import Database, _fill, _pepper, dispose, settings_for
from tests.crash.conftest import Condemned
from tests.fakes.lives import cut, furnish
from tests.fakes.rp import Handler, Peer, Received, hang, ok
from tests.saml import NS
from tests.saml import ServiceProvider as Coupon
from tests.unit.connectors.recipe_texts import COMPLETE

ROOT = Path(__file__).resolve().parents[2]

#: every step of `cascade.revoke` inside its transaction, and the point of the crash matrix that it belongs to
REVOKE = {
    "parsed": "K0", "BEGIN IMMEDIATE": "K0",
    "SELECT account": "K1", "SELECT revocation": "K1", "SELECT assignment": "K1", "UPDATE account": "K1", "SELECT cut": "K3", "SELECT evidence": "K3",
    "UPDATE login_session": "K2", "UPDATE authenticator": "K2", "UPDATE pending_login": "K2", "UPDATE activation": "K2",
    "UPDATE assignment": "K2", "UPDATE app_session": "K2", "UPDATE authorization_code": "K2", "UPDATE token_family": "K2",
    "SELECT token_family": "K2", "SELECT app_session": "K2", "SELECT application": "K2",
    "UPDATE gateway_session": "K2", "UPDATE admission_ticket": "K2", "UPDATE use_ticket": "K2", "SELECT gateway_session": "K2", "UPDATE tool_session": "K2",
    "NOTIFY sekisho_gateway": "K2", "SELECT tool_account": "K2", "SELECT certification": "K2",
    "INSERT revocation": "K3", "INSERT cut": "K3", "INSERT evidence": "K3", "UPDATE revocation": "K3", "INSERT audit_event": "K3",
    "INSERT outbox": "K4", "COMMIT": "K5", "committed": "K6", "answer": "K6",
}  # fmt: skip

#: the sealing of the audit log, which a worker does beside its deliveries
SEAL = (
    "SELECT audit_event", "UPDATE audit_event", "INSERT audit_tile", "SELECT audit_tile", "SELECT audit_sealer", "INSERT audit_sealer",
    "UPDATE audit_sealer", "SELECT audit_origin", "INSERT audit_origin", "SELECT audit_checkpoint", "INSERT audit_checkpoint",
    "SELECT company_key", "UPDATE company_key", "INSERT signing_key",
)  # fmt: skip

#: every step of one delivery by the worker, from the look at the queue to the sweep
DELIVER = {
    "BEGIN IMMEDIATE": "K7", "SELECT signing_key": "K7",
    "SELECT outbox": "K7", "UPDATE outbox": "K7", "UPDATE cut": "K7", "COMMIT": "K7", "committed": "K7",
    "SELECT app_session": "K8", "SELECT relying_party": "K8", "SELECT service_provider": "K8", "SELECT saml_subject": "K8", "SELECT account": "K8", "token minted": "K8",
    "answered": "K10", "SELECT evidence": "K10", "INSERT evidence": "K10", "INSERT audit_event": "K10", "SELECT cut": "K10", "SELECT revocation": "K10", "UPDATE revocation": "K10",
    **dict.fromkeys(SEAL, "K13"),
    "SELECT refusal_count": "K11", "DELETE throttle": "K11", "DELETE pending_request": "K11", "DELETE seen_message": "K11", "DELETE gateway_process": "K11", "DELETE gateway_access": "K11", "SELECT assignment": "K11",
    "SELECT audit_reader": "K11", "INSERT audit_reader": "K11", "UPDATE audit_reader": "K11", "SELECT login_session": "K11",
    "SELECT credential_version": "K11",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What the database says of one person: how many of each are live, and what was written about a revocation."""

    alive: tuple[int, ...]
    epoch: int
    revocations: int
    cuts: int
    deliveries: int
    audit_rows: int

    @property
    def untouched(self) -> bool:
        """Nothing happened."""
        written = self.revocations + self.cuts + self.deliveries + self.audit_rows
        return all(self.alive) and self.epoch == 1 and not written

    @property
    def dead(self) -> bool:
        """Everything local ended, and the revocation, its lines, its deliveries and its audit row are there, once."""
        written = (self.revocations, self.audit_rows) == (1, 1) and self.deliveries in {2, 3} and self.cuts > 8
        return not any(self.alive) and self.epoch == 2 and written


class Scene:
    """An installation with a relying party and a service provider that are told, a relying party that cannot be, and people
    with one of everything."""

    def __init__(self, world: World, peer: Peer) -> None:
        self.world, self.peer = world, peer
        self._count = 0
        #: a tool that each person is inside of; without it nobody uses one
        self.tool: tools.Place | None = None
        told = {"backchannel_logout_uri": peer.url, "grant_roles": ()}
        self.saml = Coupon("coupon", base=peer.url.removesuffix("/backchannel"))
        peer.behaviour = self.honest
        self.apps = [world.application("points", **told), world.service_provider(self.saml, grant_roles=()),
                     world.application("till", backchannel_logout_uri=None, session_life_s=600, grant_roles=())]  # fmt: skip

    def honest(self, handler: Handler, call: Received) -> None:
        """Both peers, as they ought to be: 200 to a logout token, a signed Success to a LogoutRequest by SOAP."""
        if b"LogoutRequest" in call.body:
            handler.answer(200, self.saml.honest(call.body), Content_Type="text/xml")
        else:
            ok(handler, call)

    def person(self) -> uuid.UUID:
        """Somebody with a login session, and three app sessions, two codes and families."""
        self._count += 1
        account_id = furnish(self.world, self.apps, f"{self._count:05d}")
        if self.tool is not None:
            inside = self.tool.enter(account_id)
            with self.world.app.app_context(), transaction() as session:
                row = ToolSession(
                    created_at=clock.now(), company_id=self.tool.account.company_id, tool_account_id=self.tool.account.id,
                    account_id=account_id, state="ending", ends_at=clock.now() + timedelta(hours=1),
                )  # fmt: skip
                session.add(row)
                session.flush()
                self.tool.sit_down(session, inside, row.id)
        return account_id

    def found(self, account_id: uuid.UUID) -> Found:
        """Look, as a process that has just started would."""
        with self.world.app.app_context(), reading() as session:
            live_rows = [
                session.scalar(select(func.count()).select_from(table).where(owner == account_id, table.ended_at.is_(None)))
                for table, owner in (
                    (Account, Account.id), (Assignment, Assignment.account_id), (LoginSession, LoginSession.account_id),
                    (AppSession, AppSession.account_id), (AuthorizationCode, AuthorizationCode.account_id), (TokenFamily, TokenFamily.account_id),
                    *([(GatewaySession, GatewaySession.account_id)] if self.tool else []),
                )
            ]  # fmt: skip
            mine = select(Revocation.id).where(Revocation.account_id == account_id)
            cuts = select(Cut.id).where(Cut.revocation_id.in_(mine))
            count = [
                session.scalar(select(func.count()).select_from(table).where(where))
                for table, where in (
                    (Revocation, Revocation.account_id == account_id), (Cut, Cut.revocation_id.in_(mine)), (OutboxRow, OutboxRow.ref.in_(cuts)),
                    (AuditEvent, (AuditEvent.tag == Tag.REVOKED.value) & (AuditEvent.subject_id == account_id)),
                )
            ]  # fmt: skip
            epoch = session.scalar(select(Account.epoch).where(Account.id == account_id))
        assert epoch is not None
        return Found(tuple(n or 0 for n in live_rows), epoch, *(n or 0 for n in count))

    def revoke(self, account_id: uuid.UUID, *, key: str | None = None) -> str:
        """Revoke in this process. Returns the receipt's number."""
        return cut(self.world, account_id, key=key or f"cli:{account_id}")

    def finish(self, *, after: timedelta = timedelta(seconds=31)) -> None:
        """A worker starts when the leases of the dead have run out."""
        with time_machine.travel(datetime.now(UTC) + after, tick=False):
            self.world.deliver()

    def deliveries(self, account_id: uuid.UUID) -> list[tuple[str, str, str, int, int]]:
        """Of each delivery: the outbox row's state, the line's state, its word, acknowledgements and closing audit rows."""
        acknowledged = (
            select(func.count()).where(Evidence.cut_id == Cut.id, Evidence.grade == "acknowledged").scalar_subquery()
        )
        with self.world.app.app_context(), reading() as session:
            rows = session.execute(
                select(OutboxRow.state, Cut, acknowledged).join(Cut, Cut.id == OutboxRow.ref).join(Revocation)
                .where(Revocation.account_id == account_id).order_by(Cut.position)
            ).all()  # fmt: skip
            closed = Counter(row.detail.get("cut_id") for row in session.scalars(select(AuditEvent).where(
                AuditEvent.tag == Tag.CUT_CLOSED.value, AuditEvent.subject_id == account_id)))  # fmt: skip
        return [(row[0], row[1].state, line_of(row[1]).state, row[2], closed[str(row[1].id)]) for row in rows]

    def receipt(self, number: str) -> receipt.Receipt:
        """A receipt as the command line sees it."""
        with self.world.app.app_context(), reading() as session:
            return receipt.load(session, number, None)


@contextmanager
def scene_on(app: Flask) -> Iterator[Scene]:
    with Peer(ok) as peer:
        yield Scene(World(app), peer)


@pytest.fixture
def real_app(database: Database) -> Iterator[Flask]:
    """The product with its own outbound client: the peers of these tests are real servers."""
    settings = database.settings(destination_slots=16)
    made = create_app(settings, outbound=HttpOutbound(Rules.from_settings(settings)))
    yield made
    dispose(made)


@pytest.fixture
def scene(real_app: Flask) -> Iterator[Scene]:
    """A scene on this test's database."""
    with scene_on(real_app) as made:
        yield made


def points(steps: list[str], engine: str, *, until: int | None = None) -> list[int]:
    """Where to kill. On SQLite every step up to `until`; on PostgreSQL, where each costs a connection, and beyond `until`,
    the first and the last of each name, which is where its rows are none and all."""
    last = {name: at for at, name in enumerate(steps, start=1)}
    first = {name: at for at, name in reversed(list(enumerate(steps, start=1)))}
    every = range(1, (len(steps) if until is None else until) + 1) if engine == "sqlite" else ()
    return sorted({*first.values(), *last.values(), *every})


def test_RE_30_RE_01_killed_at_every_step_of_a_revocation(
    scene: Scene, condemned: Condemned, database: Database
) -> None:
    """K0 to K6: before the commit nothing happened at all, from the commit on everything did; the caller, who saw no answer,
    asks again with the same key and gets one revocation; then every destination is told, and the receipt says so."""
    people_killed = {}
    scene.tool = at = tools.place(scene.world.app, COMPLETE.encode())
    with scene.world.app.app_context(), transaction() as session:  # a password that only a machine ever knew
        owner = {"company_id": at.account.company_id, "tool_account_id": at.account.id}
        session.add(SealedCredential(created_at=clock.now(), known_since=clock.now(), known_to_people=False, **owner))
    first = scene.person()
    steps = condemned.rehearse("revoke", account=str(first), key="dry")
    assert set(steps) <= set(REVOKE), f"a step without a failpoint: {set(steps) - set(REVOKE)}"
    assert {REVOKE[name] for name in steps} == {f"K{n}" for n in range(7)}
    assert scene.found(first).dead
    for at in points(steps, database.engine):
        person, name = scene.person(), steps[at - 1]
        assert condemned.run("revoke", at, account=str(person), key=f"key-{at}") == (True, steps[:at])
        found = scene.found(person)
        assert found.dead if REVOKE[name] == "K6" else found.untouched, (at, name, found)
        people_killed[at] = (person, found)
    for at, (person, before) in people_killed.items():
        number = scene.revoke(person, key=f"key-{at}")
        again = scene.revoke(person, key=f"key-{at}")
        found = scene.found(person)
        assert found.dead, (at, found)
        assert number == again
        assert not before.dead or found == before, "asked again with the same key, and something changed"
    assert not scene.peer.calls, "nothing leaves the process inside a transaction"
    scene.finish()
    for at, (person, _) in people_killed.items():
        told = [("done", "done", "acknowledged", 1, 1)] * 2
        assert scene.deliveries(person) == [*told, ("done", "done", "confirmed", 0, 1)], at
    subs = Counter(_message(call)[0] for call in scene.peer.calls)
    assert len(subs) == len(people_killed) + 1
    assert set(subs.values()) == {2}, "one call for each destination, and nobody died after the bytes left"


def test_RE_30_RE_02_killed_at_every_step_of_a_delivery(scene: Scene, condemned: Condemned, database: Database) -> None:
    """K7 to K11: whatever the worker had reached, the line is closed exactly when the delivery is, otherwise it is visibly
    open; after the lease another worker finishes it, and the peer sees the call once more at most, never the receipt."""
    scene.revoke(scene.person())
    steps = condemned.rehearse("deliver")
    assert set(steps) <= set(DELIVER), f"a step without a failpoint: {set(steps) - set(DELIVER)}"
    assert {DELIVER[name] for name in steps} == {"K7", "K8", "K10", "K11", "K13"}
    second = [at for at, name in enumerate(steps, start=1) if name == "token minted"][1]
    for at in points(steps, database.engine, until=second):
        person = scene.person()
        number = scene.revoke(person)
        scene.peer.calls.clear()
        killed, reached = condemned.run("deliver", at)
        assert killed
        lines = scene.deliveries(person)
        for outbox, state, line, acknowledged, closed in lines:
            stored = (outbox, state, line, acknowledged, closed) == ("done", "done", "acknowledged", 1, 1)
            waits = (outbox, state, line) in {("waiting", "waiting", "queued"), ("leased", "leased", "cutting")}
            assert stored or (waits and not acknowledged and not closed), (at, reached[-1], lines)
        if any(outbox != "done" for outbox, *_ in lines):
            assert scene.receipt(number).verdict.word == "waiting"
        assert len(scene.peer.calls) == reached.count("answered")
        scene.finish()
        assert scene.deliveries(person) == [("done", "done", "acknowledged", 1, 1)] * 2, (at, reached[-1])
        assert 2 <= len(scene.peer.calls) <= 3, (at, reached[-1])
        assert len({_message(call)[1] for call in scene.peer.calls}) == len(scene.peer.calls), (
            "a message was sent twice"
        )


def test_RE_30_killed_while_the_peer_thinks(scene: Scene, condemned: Condemned) -> None:
    """K9: bytes sent, no answer. The line reads "cutting" and is open; nobody takes the delivery before the lease is over;
    then it is sent again with a new token under the same delivery."""
    person = scene.person()
    number = scene.revoke(person)
    scene.peer.behaviour = hang
    pid = condemned.begin("deliver")
    scene.peer.wait_for_calls(1)
    os.kill(pid, signal.SIGKILL)
    condemned.ended()
    scene.peer.behaviour = scene.honest
    assert "cutting" in {line for _, _, line, _, _ in scene.deliveries(person)}
    assert scene.receipt(number).verdict.word == "waiting"
    held = len([1 for outbox, *_ in scene.deliveries(person) if outbox == "leased"])
    scene.world.deliver()
    assert len([1 for outbox, *_ in scene.deliveries(person) if outbox == "leased"]) == held, (
        "a lease was taken before its time"
    )
    scene.finish()
    assert scene.deliveries(person) == [("done", "done", "acknowledged", 1, 1)] * 2
    assert len({_message(call)[1] for call in scene.peer.calls}) == len(scene.peer.calls) == 3


def test_RE_44_sigterm_twice_drains(scene: Scene, condemned: Condemned) -> None:
    """A worker told to stop, twice, takes nothing new, finishes what it began, stores it, and exits with 0."""
    scene.revoke(scene.person())
    scene.peer.behaviour = lambda handler, call: (handler.peer.closing.wait(0.6), scene.honest(handler, call))[1]
    pid = condemned.begin("work")
    scene.peer.wait_for_calls(2)
    later = scene.person()
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGTERM)
    scene.revoke(later)
    assert condemned.ended()[0] is False
    assert len(scene.peer.calls) == 2
    states = scene.world.rows(select(OutboxRow.state).order_by(OutboxRow.id))
    assert Counter(str(row.state) for row in states) == {"done": 2, "waiting": 2}


def test_RE_30_disk_full(scene: Scene, database: Database) -> None:
    """Revocations until the disk is full: the one that finds no room writes nothing and says so, and goes through later.

    SQLite only: `max_page_count` is its own full disk; PostgreSQL has no such switch.
    """
    if database.engine != "sqlite":
        pytest.skip("SQLite's own page limit stands in for the full disk")
    victims = [scene.person() for _ in range(12)]

    def full(dbapi: Any, _record: Any) -> None:
        pages = dbapi.execute("PRAGMA page_count").fetchone()[0]
        dbapi.execute(f"PRAGMA max_page_count={pages + 2}")

    dispose(scene.world.app)
    with scene.world.app.app_context():
        reserved = db.engines["reserved"]
    event.listen(reserved, "connect", full)
    refused = []
    for person in victims:
        try:
            scene.revoke(person)
        except Unavailable:
            refused.append(person)
    event.remove(reserved, "connect", full)
    assert refused, "the disk was never full"
    for person in victims:
        assert scene.found(person).untouched if person in refused else scene.found(person).dead
    dispose(scene.world.app)
    for person in refused:
        scene.revoke(person)
        assert scene.found(person).dead


def test_RE_30_RE_40_immediate_stop_of_the_database_server(tmp_path: Path) -> None:
    """PostgreSQL stops as in a crash, with fsync on: what was committed is there after recovery, what was under way is not,
    and the pools find their way back. The worker's loop outlives the pause.

    One engine: an embedded database has no server to stop, and the kills above are its crash.
    """
    if reason := postgres.why_not():
        pytest.skip(reason)
    _pepper(tmp_path)
    with postgres.PostgresServer(fsync=True) as server:
        settings = settings_for(server.create_template("crash"), tmp_path)
        _fill(settings)
        app = create_app(settings, outbound=HttpOutbound(Rules.from_settings(settings)))
        with scene_on(app) as scene:
            committed, under_way = scene.person(), scene.person()
            number = scene.revoke(committed)
            with app.app_context(), pytest.raises(Unavailable), transaction(reserved=True) as session:  # noqa: PT012 - the server dies inside
                wish = Order(Reason.LEFT, Door.CLI, "under way")
                cascade.revoke(session, Target(Scope.ACCOUNT, under_way), wish, actor=CLI, now=clock.now())
                server.kill()
            with pytest.raises(Unavailable):
                scene.found(committed)
            server.start()
            dispose(app)
            assert scene.found(committed).dead
            assert scene.found(under_way).untouched
            scene.finish()
            assert scene.deliveries(committed) == [("done", "done", "acknowledged", 1, 1)] * 2
            assert scene.receipt(number).verdict.counts["acknowledged"] == 2
        dispose(app)


def _message(call: Received) -> tuple[str, str]:
    """Whom a call is about, and the ID that no second call may have."""
    if b"LogoutRequest" in call.body:
        request = etree.fromstring(call.body).find("soap:Body/samlp:LogoutRequest", NS)
        return request.findtext("saml:NameID", namespaces=NS), request.get("ID")
    claims = RelyingParty.claims(call.token)
    return str(claims["sub"]), str(claims["jti"])
