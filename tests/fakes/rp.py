"""Relying parties as real small HTTP servers, honest and hostile: slow, dripping, redirecting, lying, huge, busy, down.

One `Peer` is one server on a loopback port of its own; its behaviour is a function that answers one POST, and can be
replaced while it runs. `LogoutReceiver` is the honest one: it verifies a logout token as Back-Channel Logout 1.0 §2.6
tells it to, and refuses every missing or extra claim.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGIN_PAGE = b"<!DOCTYPE html><html><title>Log in</title><form method=post><input name=user></form></html>"


@dataclass(frozen=True)
class Received:
    """One request as the peer saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str:
        """The logout token of the form, or an empty text."""
        return parse_qs(self.body.decode()).get("logout_token", [""])[0]


class Handler(BaseHTTPRequestHandler):
    """Reads a request, notes it, and lets the peer's behaviour answer. `peer` is set by `Peer`."""

    protocol_version = "HTTP/1.1"
    peer: Peer

    def do_POST(self) -> None:
        self._take()

    def do_GET(self) -> None:
        self._take()

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        call = Received(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        with self.peer.heard:
            self.peer.calls.append(call)
            self.peer.heard.notify_all()
        self.close_connection = True
        self.peer.behaviour(self, call)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """One whole answer. headers: names with _ for -."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


Behaviour = Callable[[Handler, Received], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up in the middle is what these servers are for."""


class Peer:
    """A server from `__enter__` to `__exit__`. calls: every request; closing: set when the test ends, so that hangs end."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.calls: list[Received] = []
        self.heard = threading.Condition()
        self.closing = threading.Event()
        handler = type("BoundHandler", (Handler,), {"peer": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Its logout endpoint."""
        return f"http://127.0.0.1:{self.port}/backchannel"

    def wait_for_calls(self, count: int, *, timeout: float = 60.0) -> None:
        """Return when so many requests have arrived."""
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.calls) >= count, timeout), f"{len(self.calls)} of {count} calls"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ok(handler: Handler, _call: Received) -> None:
    """200 and nothing else. This is also what a liar says: the sessions of a peer that does only this live on."""
    handler.answer(200)


def status(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Always this status."""
    return lambda handler, _call: handler.answer(code, body, **headers)


def hang(handler: Handler, _call: Received) -> None:
    """Takes the request and never answers."""
    handler.peer.closing.wait(60)


def drip(every: float) -> Behaviour:
    """Answers one byte at a time: no single read ever waits long."""

    def behave(handler: Handler, _call: Received) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Padding: " + b"a" * 4000 + b"\r\n\r\nok":
                handler.connection.sendall(bytes([byte]))
                if handler.peer.closing.wait(every):
                    return

    return behave


def redirect_to(location: str) -> Behaviour:
    """302; a GET that follows it is recorded like any call."""
    return status(302, Location=location)


def login_page(handler: Handler, _call: Received) -> None:
    """A login wall in front of the endpoint: 200, and a page for people."""
    handler.answer(200, LOGIN_PAGE, Content_Type="text/html; charset=utf-8")


def big(size: int = 10 * 1024 * 1024) -> Behaviour:
    """200 and ten megabytes."""
    return status(200, b"x" * size, Content_Type="text/plain")


def flood_of_headers(handler: Handler, _call: Received) -> None:
    """Header lines without end."""
    with suppress(OSError):
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not handler.peer.closing.is_set():
            handler.connection.sendall(b"X-Flood: " + b"f" * 1000 + b"\r\n")


def no_http(handler: Handler, _call: Received) -> None:
    """Something that is no HTTP."""
    handler.connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def hang_up(handler: Handler, _call: Received) -> None:
    """Closes the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def closed_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BadLogoutToken(Exception):
    """The receiver refuses this token; the text says which rule."""


def verify_logout_token(token: str, keys: dict[str, Any], *, issuer: str, client_id: str) -> dict[str, Any]:
    """Back-Channel Logout 1.0 §2.6, every step. Returns the claims. Raises BadLogoutToken."""
    try:
        found = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256", "RS256"])
    except (JoseError, ValueError) as error:
        raise BadLogoutToken(f"signature: {error}") from error
    claims: dict[str, Any] = dict(found.claims)
    now = time.time()
    rules = {
        "typ": found.header.get("typ") == "logout+jwt",
        "names": set(claims) - {"sid"} == {"iss", "aud", "iat", "exp", "jti", "sub", "events"},
        "iss": claims.get("iss") == issuer,
        "aud": claims.get("aud") == client_id,
        "events": claims.get("events") == {EVENT: {}},
        "iat": isinstance(claims.get("iat"), int) and claims["iat"] <= now + 60,
        "exp": isinstance(claims.get("exp"), int) and now - 60 < claims["exp"] <= claims.get("iat", 0) + 120,
        "jti": isinstance(claims.get("jti"), str) and len(claims.get("jti", "")) >= 16,
    }
    if broken := [name for name, held in rules.items() if not held]:
        raise BadLogoutToken(f"{broken}: {claims}")
    return claims


@dataclass
class LogoutReceiver:
    """A relying party that keeps sessions of its own, (sub, sid), and ends them as a verified token says.

    requires_sid: it answers 400 to a token without `sid`, as its registration announces.
    """

    issuer: str
    client_id: str
    keys: dict[str, Any]
    requires_sid: bool = False
    sessions: set[tuple[str, str]] = field(default_factory=set)
    claims: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def take(self, handler: Handler, call: Received) -> None:
        """The behaviour."""
        handler.answer(200 if self.accept(call.token) else 400, Cache_Control="no-store")

    def accept(self, token: str) -> bool:
        """Verify and act. False: refused, and the reason is in `refusals`."""
        try:
            claims = verify_logout_token(token, self.keys, issuer=self.issuer, client_id=self.client_id)
            if self.requires_sid and "sid" not in claims:
                raise BadLogoutToken("needs sid")
            if claims["jti"] in {known["jti"] for known in self.claims}:
                raise BadLogoutToken("jti seen before")
        except BadLogoutToken as error:
            self.refusals.append(str(error))
            return False
        self.claims.append(claims)
        self.sessions = {
            (sub, sid) for sub, sid in self.sessions if sub != claims["sub"] or claims.get("sid") not in {None, sid}
        }
        return True
