"""The log's second places over TLS: checkpoints by mail (AU-05) and the stream to a syslog server (AU-13, RFC 5425)."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from idp.app import create_app
from idp.core import clock, mail, syslog
from idp.core.db import reading, transaction
from idp.core.settings import Settings
from idp.ledgers.audit import anchors, verify
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditAnchor
from idp.worker import Worker
from tests.actors import utc
from tests.certificates import Authority
from tests.conftest import Database, dispose
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.smtp import MailServer

NOW = utc(2026, 11, 24, 1, 0)
PLACE = "mailto:auditor@example.jp"
PASSWORD = "the mail server's own"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Trusted by this machine, as an operator would have it: by the file that OpenSSL reads."""
    made = Authority.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file()))
    return made


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """The file with the mail server's password."""
    path = tmp_path / "smtp-password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    return path


def mailed(port: int, tls: str, password: Path | None, *, host: str = "localhost") -> dict[str, Any]:
    """Settings of a mail server."""
    return {
        "smtp_host": host, "smtp_port": port, "smtp_from": "sekisho@login.example", "smtp_user": "sekisho",
        "smtp_password_file": password, "smtp_tls": tls,
    }  # fmt: skip


def send(database: Database, over: dict[str, Any]) -> None:
    text, files = "本文\n.\n..終わり\n", {"note.txt": "one\n\n.\n— 署名\n"}
    mail.send(database.settings(**over), to="auditor@example.jp", subject="件名", text=text, files=files)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("tls", ["starttls", "tls", "none"])
def test_AU05_a_mail_arrives_as_it_was_and_a_password_goes_only_over_tls(
    database: Database, authority: Authority, password: Path, tls: str
) -> None:
    with MailServer(authority.server("localhost"), at_once=tls == "tls") as server:
        send(database, mailed(server.port, tls, password if tls != "none" else None))
        (message,), heard = server.heard.mail, server.heard
    body, file = message.get_payload()
    assert body.get_payload(decode=True).decode().splitlines() == ["本文", ".", "..終わり"]
    assert (file.get_filename(), file.get_payload(decode=True).decode()) == ("note.txt", "one\n\n.\n— 署名\n")
    assert heard.envelopes == ["TO:<auditor@example.jp>"]
    assert heard.passwords == ([PASSWORD] if tls != "none" else [])
    if tls != "none":
        assert [line.split()[0].upper() for line in heard.plain] == (
            [b"EHLO", b"STARTTLS"] if tls == "starttls" else []
        )


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize(
    "wrong", [{"name": "other.localhost"}, {"days": -1}, {"issued": False}], ids=["name", "expired", "nobody"]
)
def test_AU05_a_server_that_is_not_the_one_gets_neither_password_nor_mail(
    database: Database, authority: Authority, password: Path, tls: str, wrong: dict[str, Any]
) -> None:
    context = authority.server(**{"name": "localhost", **wrong})
    with MailServer(context, at_once=tls == "tls") as server:
        with pytest.raises(mail.NotSent, match="SSLCertVerificationError"):
            send(database, mailed(server.port, tls, password))
        heard = server.heard
    assert heard.passwords == heard.mail == heard.envelopes == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_AU05_no_tls_offered_a_refusal_or_nobody_there_is_not_sent(
    database: Database, authority: Authority, password: Path
) -> None:
    """Who stands between us and the server may strike STARTTLS from what it offers: then nothing is said at all."""
    with MailServer(None) as server:
        with pytest.raises(mail.NotSent, match="SMTPNotSupportedError"):
            send(database, mailed(server.port, "starttls", password))
        assert [line.split()[0] for line in server.heard.plain if line[:4] != b"QUIT"] == [b"ehlo"]
    for refused in ("AUTH", "MAIL", "RCPT", "DATA"):
        with MailServer(authority.server("localhost"), refuse=refused) as server:
            with pytest.raises(mail.NotSent):
                send(database, mailed(server.port, "starttls", password))
            assert server.heard.mail == []
    with pytest.raises(mail.NotSent, match="ConnectionRefusedError"):
        send(database, mailed(server.port, "starttls", password))


def test_AU05_a_checkpoint_by_mail_verifies_and_a_server_that_is_away_is_caught_up_with(
    database: Database, authority: Authority, password: Path
) -> None:
    with MailServer(authority.server("localhost")) as server, time_machine.travel(NOW, tick=False) as frozen:
        over = mailed(server.port, "starttls", password)
        app = create_app(database.settings(anchors="mailto:auditor@example.jp", **over), outbound=RecordingOutbound())
        server.refuse = "RCPT"
        for wait_s in (0, 61, 61, 240):
            frozen.shift(wait_s)
            with app.app_context(), transaction() as session:
                record(session, Tag.LOGIN_SUCCEEDED, actor=Actor("person"), now=clock.now())
            Worker(app).drain()
        with app.app_context(), reading() as session:
            assert session.scalars(select(AuditAnchor)).all() == []
            assert anchors.late(session, [PLACE], now=clock.now())
        server.refuse = ""
        frozen.shift(600)
        Worker(app).drain()
        letter, *files = server.heard.mail[-1].get_payload()
        kept = {file.get_filename(): file.get_payload(decode=True).decode() for file in files}
        (name,) = sorted(set(kept) - {"log.vkey"})
        size, _root = verify.open_checkpoint(kept[name], kept["log.vkey"].strip())
        assert name == f"checkpoint-{size:012}.txt"
        assert name in letter.get_payload(decode=True).decode()
        with app.app_context(), reading() as session:
            taken = session.scalars(select(AuditAnchor)).all()
            assert [anchor.size for anchor in taken] == [size]
            assert not anchors.late(session, [PLACE], now=clock.now())
        dispose(app)


def test_AU05_a_password_without_tls_refuses_to_start(password: Path) -> None:
    """Outside this machine anybody on the way could read it."""
    for host, tls, refused in (
        ("mail.example.jp", "none", True),
        ("mail.example.jp", "starttls", False),
        ("127.0.0.1", "none", False),
    ):
        found = [line for line in Settings(**mailed(25, tls, password, host=host)).refusals() if "SMTP_TLS" in line]  # type: ignore[arg-type]
        assert bool(found) is refused, (host, tls)


# --- syslog --------------------------------------------------------------------------------------------------------


class _Reader(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.server.got.append(self.rfile.read())  # type: ignore[attr-defined]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def handle_error(self, *_: Any) -> None:
        """A handshake that a client breaks off is what these tests are about."""


@contextmanager
def syslog_server(context: ssl.SSLContext) -> Iterator[tuple[str, list[bytes]]]:
    """A syslog server with TLS; yields its URL and what each connection sent."""
    server = _Server(("127.0.0.1", 0), _Reader)
    server.got = []  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"syslog+tls://localhost:{server.server_address[1]}", server.got  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_AU13_lines_go_over_tls_to_the_server_that_was_named(tmp_path: Path) -> None:
    """RFC 5425: octets are counted, the certificate is checked against the name and against the file that was named."""
    authority = Authority.make(tmp_path)
    with syslog_server(authority.server("localhost")) as (url, got):
        syslog.send(url, ["<110>1 改\n行".encode(), b"<110>1 two"], ca_file=authority.file())
        with pytest.raises(syslog.NotSent, match="SSLCertVerificationError"):
            syslog.send(url, [b"secret"])  # the machine's own authorities do not know it
    assert got == ["18 <110>1 改\n行10 <110>1 two".replace("18", str(len("<110>1 改\n行".encode()))).encode()]


@pytest.mark.parametrize(
    "wrong", [{"name": "other.localhost"}, {"days": -1}, {"issued": False}], ids=["name", "expired", "nobody"]
)
def test_AU13_another_server_reads_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    authority = Authority.make(tmp_path)
    with (
        syslog_server(authority.server(**{"name": "localhost", **wrong})) as (url, got),
        pytest.raises(syslog.NotSent, match="SSLCertVerificationError"),
    ):
        syslog.send(url, [b"secret"], ca_file=authority.file())
    assert b"secret" not in b"".join(got)
