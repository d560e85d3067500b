"""AU-13: the log as a stream: every sealed row once in order, again where nobody confirmed it, an alarm when it falls behind."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import select

from idp.app import create_app
from idp.cli import cli
from idp.core import clock, syslog
from idp.core.db import reading, transaction
from idp.core.settings import RefusedToStart, Settings
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.siem import shape, stream
from idp.worker import Worker
from tests.actors import Browser, utc
from tests.conftest import Database, dispose
from tests.fakes.outbound import RecordingOutbound, down, ok, status

NOW = utc(2026, 11, 24, 1, 0)
URL = "https://siem.example/ingest"


@contextmanager
def installation(database: Database, outbound: RecordingOutbound, **over: Any) -> Iterator[Flask]:
    app = create_app(database.settings(siem_url=URL, siem_batch=3, **over), outbound=outbound)
    try:
        yield app
    finally:
        dispose(app)


def write(app: Flask, number: int) -> None:
    with app.app_context():
        for n in range(number):
            with transaction() as session:
                result = "refused" if n % 2 else "ok"
                record(
                    session,
                    Tag.LOGIN_SUCCEEDED,
                    actor=Actor("person", None, "r1", "192.0.2.1"),
                    now=clock.now(),
                    result=result,
                    name_="改\n行",
                )


def sent(outbound: RecordingOutbound) -> list[int]:
    """The leaf indexes that reached the SIEM, in the order of arrival."""
    return [json.loads(line)["leaf_index"] for call in outbound.calls for line in call.body.decode().splitlines()]


def indexes(app: Flask) -> list[int]:
    with app.app_context(), reading() as session:
        return list(
            session.scalars(
                select(AuditEvent.leaf_index).where(AuditEvent.leaf_index.is_not(None)).order_by(AuditEvent.leaf_index)
            )
        )


def tags(app: Flask) -> list[str]:
    with app.app_context(), reading() as session:
        return [tag for tag in session.scalars(select(AuditEvent.tag).order_by(AuditEvent.id)) if "siem" in tag]


def test_every_sealed_row_arrives_in_order_and_none_is_lost_au13(
    database: Database, outbound: RecordingOutbound
) -> None:
    """Batches of three, a SIEM that is down and then answers 500: sent again until taken, nothing skipped, nothing out of order; a
    new stream begins with what comes next, and a rewound one sends all of it."""
    with time_machine.travel(NOW, tick=False) as clockwork:
        before = create_app(database.settings(), outbound=outbound)
        write(before, 5)
        Worker(before).drain()
        dispose(before)
        with installation(database, outbound) as app:
            first, worker = len(indexes(app)), Worker(app)
            worker.drain()  # the stream is new: it begins behind what was sealed
            outbound.behave(URL, down)
            write(app, 8)
            for _ in range(3):
                worker.drain()
            assert set(sent(outbound)) == {first, first + 1, first + 2}, "one batch at a time"
            outbound.behave(URL, status(500))
            clockwork.shift(timedelta(minutes=2))
            worker.drain()
            outbound.calls.clear()
            outbound.behave(URL, ok)
            clockwork.shift(timedelta(minutes=2))
            for _ in range(4):
                worker.drain()
            have = indexes(app)
            assert have == list(range(len(have)))
            got = sent(outbound)
            assert got == list(range(first, first + len(got)))
            assert len(got) >= 8
            assert all(call.headers["content-type"] == "application/x-ndjson" for call in outbound.calls)
            outbound.calls.clear()
            with app.app_context(), transaction() as session:
                stream.rewind(session, 0, now=clock.now())
            for _ in range(4):
                worker.drain()
            assert sent(outbound)[: len(have)] == have


def test_falling_behind_is_said_once_au13(database: Database, outbound: RecordingOutbound) -> None:
    """The alarm: one row when it is five minutes behind, one when it caught up, whatever the number of sweeps between."""
    with time_machine.travel(NOW, tick=False) as clockwork, installation(database, outbound) as app:
        worker = Worker(app)
        worker.drain()
        worker.drain()
        outbound.behave(URL, down)
        write(app, 2)
        worker.drain()
        for _ in range(4):
            clockwork.shift(timedelta(minutes=2))
            worker.drain()
        assert tags(app) == [Tag.STREAM_BEHIND]
        with Browser(app) as anyone:
            assert anyone.get("/readyz").json()["siem_behind_s"] >= 300
        with app.app_context(), reading() as session:
            assert stream.lag(session, now=clock.now()) >= timedelta(minutes=5)
        outbound.behave(URL, ok)
        clockwork.shift(timedelta(minutes=2))
        for _ in range(3):
            worker.drain()
        assert tags(app) == [Tag.STREAM_BEHIND, Tag.STREAM_CAUGHT_UP]


class Lines(socketserver.ThreadingTCPServer):
    """A syslog server: what it read, octet-counted (RFC 6587)."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Reader)


class Reader(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        data = self.rfile.read()
        while data:
            length, _, data = data.partition(b" ")
            self.server.got.append(data[: int(length)])  # type: ignore[attr-defined]
            data = data[int(length) :]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_syslog_by_tcp_and_udp_au13(
    database: Database, outbound: RecordingOutbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 5424 in counted octets: a line break in a name stays inside its event; one datagram per event; a dead server is a retry."""
    server = Lines()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"syslog+tcp://127.0.0.1:{server.server_address[1]}"
    with time_machine.travel(NOW, tick=False):
        app = create_app(database.settings(siem_url=url), outbound=outbound)
        worker = Worker(app)
        worker.drain()
        worker.drain()
        write(app, 3)
        for _ in range(3):
            worker.drain()
    assert len(server.got) >= 3
    head, _, message = next(line for line in server.got if line.startswith(b"<110>")).partition(b"\xef\xbb\xbf")
    assert head.startswith(b"<110>1 2026-11-24T01:00:00.000000Z localhost sekisho - ")
    assert {line[:6] for line in server.got} == {b"<110>1", b"<108>1"}
    assert json.loads(message)["schema"] == "sekisho-event-1"
    server.shutdown()
    server.server_close()
    with pytest.raises(syslog.NotSent):
        syslog.send(url, [b"x"])
    for name in ("environment", "issuer", "database_url", "root_key", "pepper_file", "siem_url"):
        monkeypatch.setenv(f"SEKISHO_{name.upper()}", str(getattr(app.extensions["sekisho"].settings, name)))
    with time_machine.travel(NOW, tick=False) as clockwork:
        write(app, 1)
        worker.drain()
        clockwork.shift(timedelta(minutes=6))
        told = CliRunner().invoke(cli, ["siem", "status", "--json"])
        assert told.exit_code == 3, told.output
        assert json.loads(told.stdout)["behind_s"] == 360
        assert CliRunner().invoke(cli, ["siem", "rewind", "0"]).exit_code == 0
        assert json.loads(CliRunner().invoke(cli, ["siem", "status", "--json"]).stdout)["next_index"] == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(5)
        syslog.send(f"syslog+udp://127.0.0.1:{heard.getsockname()[1]}", [b"one", b"two"])
        assert {heard.recv(100), heard.recv(100)} == {b"one", b"two"}
    dispose(app)


def test_shapes_say_who_what_and_how() -> None:
    """OCSF: class, activity, type, status, actor, user, address; every mapped tag exists; an erased address does not leave."""
    assert set(shape.OCSF) <= {tag.value for tag in Tag}
    row = AuditEvent(
        id=__import__("uuid").UUID(int=1), created_at=NOW, tag=Tag.LOGIN_REFUSED.value, result="refused", actor_kind="anonymous", request_id="r",
        software="0.1.0", detail={"count": 3}, personal={"address": "192.0.2.1"}, leaf_index=7,
    )  # fmt: skip
    found = shape.ocsf(row, host="login.example")
    assert (found["class_uid"], found["type_uid"], found["status_id"], found["time"]) == (
        3002,
        300201,
        2,
        int(NOW.timestamp() * 1000),
    )
    assert found["src_endpoint"] == {"ip": "192.0.2.1"}
    assert found["metadata"]["sequence"] == found["unmapped"]["leaf_index"] == 7
    row.personal = None
    assert "src_endpoint" not in shape.ocsf(row, host="login.example")
    assert shape.plain(row, host="h")["address"] is None


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "https://",
        "http://siem.example/x",
        "https://me:secret@siem.example",
        "syslog://h",
        "syslog+tls://h:99999",
    ],
)
def test_a_stream_that_would_leak_is_refused_at_the_start(url: str) -> None:
    """The setting names a shape that is known, a host, no password, and nothing that crosses the network in clear over http."""
    with pytest.raises(RefusedToStart, match="SIEM"):
        Settings.from_env(issuer="https://login.example", siem_url=url)
