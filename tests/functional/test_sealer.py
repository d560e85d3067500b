"""AU-02 to AU-05: the sealer over a real database, on both engines: order, checkpoints, restores, leases, second places."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from flask import Flask
from sqlalchemy import func, make_url, select, text

from idp import cli
from idp.app import create_app
from idp.core import clock
from idp.core.db import db, reading, transaction
from idp.ledgers.audit import anchors, leaf, merkle, store, verify
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.head import HeadFile
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditAnchor, AuditCheckpoint, AuditEvent, AuditSealer
from idp.ledgers.audit.origin import new_origin
from idp.ledgers.outbox.models import OutboxRow
from idp.worker import Worker
from tests.actors import World, utc
from tests.conftest import Database, dispose
from tests.fakes.outbound import RecordingOutbound, down

NOW = utc(2026, 11, 24, 1, 0)
WHO = Actor("cli", None, "", "operator@host")


def write(app: Flask, count: int = 1) -> None:
    """Some rows, each committed by itself."""
    with app.app_context():
        for number in range(count):
            with transaction() as session:
                record(
                    session,
                    Tag.LOGIN_SUCCEEDED,
                    actor=Actor("person", None, "r", "192.0.2.1"),
                    now=clock.now(),
                    number=number,
                )


def seal(app: Flask) -> None:
    """One step of a worker, with a signature at its end."""
    Worker(app).drain()


def events(app: Flask) -> list[AuditEvent]:
    """Every sealed row, by place in the tree."""
    with app.app_context(), reading() as session:
        sealed = select(AuditEvent).where(AuditEvent.leaf_index.is_not(None))
        return list(session.scalars(sealed.order_by(AuditEvent.leaf_index)))


def state(app: Flask) -> tuple[int, str | None, int]:
    """Size of the tree, alarm, number of checkpoints."""
    with app.app_context(), reading() as session:
        row = session.execute(select(AuditSealer)).scalar_one()
        return row.size, row.alarm, session.scalar(select(func.count()).select_from(AuditCheckpoint)) or 0


def test_AU02_AU04_every_committed_row_is_sealed_once_and_the_checkpoint_says_so(world: World) -> None:
    """Gapless places, stored hashes, a root that the rows give, a signature that the shipped verifier accepts; nothing twice."""
    app = world.app
    write(app, 5)
    seal(app)
    write(app, 700)
    seal(app)
    size, alarm, checkpoints = state(app)
    seal(app)
    # what the worker did itself (opening a key) may add rows, never change one
    rows = events(app)[:size]
    assert (alarm, checkpoints >= 2) == (None, True)
    assert [row.leaf_index for row in rows] == list(range(size))
    hashes = [leaf.leaf_hash(row) for row in rows]
    assert [row.leaf_hash for row in rows] == hashes
    with app.app_context(), reading() as session:
        origin, read = store.origin(session), store.reader(session)
        assert origin is not None
        for made in session.scalars(select(AuditCheckpoint)):
            assert verify.open_checkpoint(made.note, origin.vkey) == (made.size, made.root)
            assert merkle.root(read, made.size) == made.root
        assert origin.name == "localhost:8000/log"


def test_AU03_yesterdays_database_gets_no_signature_until_an_operator_says_so(
    database: Database, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Restored: fewer rows than were signed. Nothing is sealed or signed, the alarm says why, on the health page too. A new
    origin goes on, with a signed link that names the old one and what it had signed; the same rows prove in both."""
    head = tmp_path / "head"
    app = create_app(database.settings(log_head_file=head), outbound=RecordingOutbound())
    write(app, 3)
    seal(app)
    dispose(app)
    if database.engine == "sqlite":
        file = Path(make_url(database.url).database or "")
        shutil.copy(file, tmp_path / "yesterday.sqlite")
        yesterday = f"sqlite:///{tmp_path}/yesterday.sqlite"
    else:
        server = request.getfixturevalue("postgres_template").server
        yesterday = server.create_database(f"y{uuid.uuid4().hex[:12]}", make_url(database.url).database)
    app = create_app(database.settings(log_head_file=head), outbound=RecordingOutbound())
    write(app, 4)
    seal(app)
    signed = HeadFile(head).read()
    assert signed is not None
    dispose(app)

    restored = create_app(
        database.settings(log_head_file=head).model_copy(update={"database_url": yesterday}),
        outbound=RecordingOutbound(),
    )
    before = state(restored)
    with time_machine.travel(clock.now() + timedelta(minutes=1), tick=False):
        write(restored, 9)  # also when the fork has grown past what was signed
        for _ in range(2):
            seal(restored)
            size, alarm, checkpoints = state(restored)
            assert (size, checkpoints) == (before[0], before[2])
            assert alarm is not None
            assert f"{signed.size} were signed" in alarm
        assert HeadFile(head).read() == signed
        answer = restored.test_client().get("/readyz", base_url="http://localhost:8000")
        assert answer.get_json()["log_alarm"] is True
        assert restored.test_client().get("/status", base_url="http://localhost:8000").status_code == 200

        with restored.app_context():
            services = restored.extensions["sekisho"]
            made = new_origin(
                services.log_key(),
                HeadFile(head),
                reason="restored from the backup of yesterday",
                actor=WHO,
                now=clock.now(),
            )
        assert made.name == "localhost:8000/log/2"
        seal(restored)
        size, alarm, checkpoints = state(restored)
        assert alarm is None
        assert checkpoints > before[2]
        with restored.app_context(), reading() as session:
            link = verify.open_note(made.link or "", made.vkey)
            assert str(signed.size) in link
            assert signed.origin in link
            assert "restored from the backup" in link
            read = store.reader(session)
            newest = store.latest(session)
            assert newest is not None
            assert verify.open_checkpoint(newest.note, made.vkey) == (newest.size, merkle.root(read, newest.size))
            told = session.scalars(select(AuditEvent).where(AuditEvent.tag == Tag.ORIGIN_STARTED.value)).one()
            assert told.detail["signed_size"] == signed.size
    dispose(restored)
    if database.engine == "postgresql":
        server.drop_database(make_url(yesterday).database)


def test_AU03_a_changed_tree_a_lost_second_store_and_another_key_stop_the_sealer(world: World) -> None:
    """Same size, other rows; the file gone; the key replaced in the database; a tile shortened: each is an alarm, no signature."""
    app = world.app
    head = world.services.settings.log_head
    write(app, 3)
    seal(app)
    good = head.read_text()
    before = state(app)

    def refused(why: str) -> None:
        write(app)
        seal(app)
        size, alarm, checkpoints = state(app)
        assert (size, checkpoints) == (before[0], before[2])
        assert alarm is not None
        assert why in alarm

    head.write_text(json.dumps({**json.loads(good), "root": "00" * 32}))
    refused("are not those that were signed")
    head.write_text("{")
    refused("JSONDecodeError")
    head.unlink()
    refused("is missing")
    head.write_text(json.dumps({**json.loads(good), "vkey": "other"}))
    refused("speaks of")
    head.write_text(good)
    seal(app)
    size, alarm, checkpoints = state(app)
    assert alarm is None
    assert (size > before[0], checkpoints > before[2]) == (True, True)


def test_AU04_a_row_that_commits_late_is_sealed_late_and_delays_nobody(world: World) -> None:
    """A transaction open for ten minutes (PostgreSQL): others are sealed and signed meanwhile, its row follows when it commits."""
    app = world.app
    if db_name(app) == "sqlite":
        pytest.skip("one writer at a time: nothing can commit while a transaction is open")
    with app.app_context():
        with transaction() as session:
            record(session, Tag.STEP_UP, actor=WHO, now=clock.now() - timedelta(minutes=10))
            session.flush()
            write(app, 4)
            seal(app)
            with reading() as other:
                late = other.scalar(
                    select(func.count()).select_from(AuditEvent).where(AuditEvent.tag == Tag.STEP_UP.value)
                )
                unsealed = select(AuditEvent.tag).where(AuditEvent.leaf_index.is_(None))
                waiting = set(other.scalars(unsealed)) - {
                    Tag.SECRET_OPENED.value
                }  # the sealer's own, at its first signature
            assert (late, waiting) == (0, set())
        size = state(app)[0]
        seal(app)
    row = next(row for row in events(app) if row.tag == Tag.STEP_UP.value)
    assert row.leaf_index is not None
    assert row.leaf_index >= size


def db_name(app: Flask) -> str:
    with app.app_context():
        return db.engine.dialect.name


def test_AU05_checkpoints_reach_a_folder_and_an_address_and_silence_is_an_alarm(
    database: Database, tmp_path: Path
) -> None:
    """Each minute one, the newest; a place that is away: alarm after five minutes, nothing lost, the next one is taken."""
    folder, url, peer = tmp_path / "second", "https://anchors.example/in", RecordingOutbound()
    folder.mkdir()
    app = create_app(database.settings(anchors=f"{folder}, {url}", log_head_file=tmp_path / "head"), outbound=peer)
    with time_machine.travel(NOW, tick=False) as frozen:
        write(app, 3)
        seal(app)
        Worker(app).drain()
        texts = sorted(folder.glob("checkpoint-*.txt"))
        vkey = (folder / "log.vkey").read_text().strip()
        assert len(texts) == 1
        assert verify.open_checkpoint(texts[0].read_text(), vkey)[0] == int(texts[0].stem.split("-")[1])
        assert json.loads(peer.calls[-1].body)["checkpoint"] == texts[0].read_text()
        sent = len(peer.calls)
        write(app, 3)
        seal(app)
        Worker(app).drain()
        assert len(peer.calls) == sent, "not more than one a minute"

        peer.behave(url, down)
        folder.rename(tmp_path / "away")
        for _ in range(8):
            frozen.shift(timedelta(seconds=61))
            write(app)
            seal(app)
            Worker(app).drain()
        assert not folder.exists(), "a mount that is away is not replaced by an empty folder"
        with app.app_context(), reading() as session:
            silent = anchors.late(session, app.extensions["sekisho"].settings.anchor_places, now=clock.now())
            assert sorted(silent) == sorted([str(folder), url])
            assert session.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.state != "done")) == 2
        ready = app.test_client().get("/readyz", base_url="http://localhost:8000").get_json()
        assert ready["anchors_late"] == 2

        (tmp_path / "away").rename(folder)
        peer.behaviours.clear()
        frozen.shift(timedelta(minutes=10))
        Worker(app).drain()
        with app.app_context(), reading() as session:
            assert anchors.late(session, app.extensions["sekisho"].settings.anchor_places, now=clock.now()) == []
            newest = store.latest(session)
            assert newest is not None
            taken = session.scalars(select(AuditAnchor.size).order_by(AuditAnchor.created_at.desc()).limit(2)).all()
            assert max(taken) >= newest.size - 3
    dispose(app)


def test_AU06_doctor_misses_a_trigger_and_the_commands_speak(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`audit status`, `verify`, `key`, `consistency`, `new-origin`, `doctor`: exit statuses that a script can use. A row changed past
    the triggers is found by `verify`; a dropped trigger by `doctor`."""
    settings = database.settings(log_head_file=tmp_path / "head")
    for name, value in {
        "ENVIRONMENT": "development", "DATABASE_URL": database.url, "ROOT_KEY": settings.root_key or "", "ISSUER": settings.issuer,
        "PEPPER_FILE": str(settings.pepper_file), "LOG_HEAD_FILE": str(tmp_path / "head"),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SEKISHO_{name}", value)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sekisho", *words])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        return status, capsys.readouterr().out

    app = create_app(settings, outbound=RecordingOutbound())
    write(app, 4)
    seal(app)
    dispose(app)
    assert run("audit", "status", "--json")[0] == 0
    vkey = run("audit", "key")[1].strip()
    assert verify.read_key(vkey)[0] == "localhost:8000/log"
    status, said = run("audit", "verify", "--key", vkey, "--json")
    assert (status, json.loads(said)["verdict"]) == (0, "SOUND"), said
    assert run("audit", "verify", "--key", vkey.replace("localhost", "elsewhere"), "--json")[0] == 4
    assert run("audit", "consistency", "--from", "1", "--to", "3")[0] == 0
    assert run("audit", "consistency", "--from", "3", "--to", "99999")[0] == 1
    states = {f["check"]: f["state"] for f in json.loads(run("doctor", "--json")[1])}
    assert states["triggers of the audit log"] == "ok"
    with app.app_context(), db.engine.begin() as raw:
        on = " ON audit_event" if database.engine == "postgresql" else ""
        raw.execute(text(f"DROP TRIGGER audit_event_update{on}"))
        raw.execute(text("UPDATE audit_event SET result = 'x' WHERE leaf_index = 2"))
    dispose(app)
    assert run("doctor", "--json")[0] == 1
    status, said = run("audit", "verify", "--json")
    assert (status, json.loads(said)["findings"][0]["where"]) == (4, 2)
    assert run("audit", "new-origin", "--reason", "a drill", "--yes", "--json")[0] == 0
    assert run("audit", "status", "--json")[0] == 0
    dispose(app)
