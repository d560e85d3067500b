"""What the two tools share: logins, server-side sessions, a lock-out, and the process that serves them."""

import hmac
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

from connectors.demo.console.entropy import new_secret, now

SESSION_S = 8 * 3600
LOCK_AFTER = 5
LOCK_S = 600
MIN_PASSWORD = 8


@dataclass
class Session:
    """One login. token: against forged requests (CSRF)."""

    token: str
    ends_at: float
    notice: str = ""


@dataclass
class Account:
    """One login of a shop. names: the fields beside the password, as the form posts them."""

    names: dict[str, str]
    password: str
    #: called with a new password, so that a restart does not bring the old one back
    keep: Callable[[str], None] | None = None
    failures: int = 0
    locked_until: float = 0.0
    sessions: dict[str, Session] = field(default_factory=dict)


class Desk:
    """One account, its sessions and its lock: enough of a tool's login for a demonstration, with the habits of real ones."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._lock = threading.Lock()

    def log_in(self, form: dict[str, str]) -> tuple[str, str]:
        """A new session id, or an empty text and why not: `refused`, `locked`."""
        account, at = self.account, now()
        with self._lock:
            if at < account.locked_until:
                return "", "locked"
            wanted = {**account.names, "password": account.password}
            if not all(hmac.compare_digest(form.get(k, "").encode(), v.encode()) for k, v in wanted.items()):
                account.failures += 1
                if account.failures >= LOCK_AFTER:
                    account.failures, account.locked_until = 0, at + LOCK_S
                return "", "refused"
            account.failures = 0
            session = new_secret()
            account.sessions[session] = Session(new_secret(), at + SESSION_S)
            return session, ""

    def session(self, cookie: str) -> Session | None:
        """The live session behind the cookie of this request."""
        found = self.account.sessions.get(request.cookies.get(cookie, ""))
        return found if found is not None and now() < found.ends_at else None

    def log_out(self, cookie: str) -> None:
        """End the session of this request."""
        with self._lock:
            self.account.sessions.pop(request.cookies.get(cookie, ""), None)

    def change_password(self, old: str, new: str, again: str, *, keep: Session) -> str:
        """Why not, or an empty text. A change ends every other session at once."""
        account = self.account
        with self._lock:
            if not hmac.compare_digest(old.encode(), account.password.encode()):
                return "現在のパスワードが違います"
            if new != again or len(new) < MIN_PASSWORD or len(new) > 32 or not new.isascii():
                return "新しいパスワードは8〜32文字の半角で、2回同じものを入れてください"
            if account.keep is not None:
                account.keep(new)
            account.password = new
            account.sessions = {name: one for name, one in account.sessions.items() if one is keep}
        return ""


def headers(policy: str) -> Callable[[Response], Response]:
    """An after_request function with a tool's usual headers."""

    def add(answer: Response) -> Response:
        if request.endpoint != "static":
            answer.headers["Cache-Control"] = "no-store"
        answer.headers["Content-Security-Policy"] = policy
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    return add


class Handler(WSGIRequestHandler):
    """Logs no request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


def serve(app: Flask, name: str, port: int) -> int:
    """Serve on loopback until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler)
    serving = threading.Thread(target=server.serve_forever, name=name)
    serving.start()
    sys.stdout.write(f"{name}: http://localhost:{server.port}\n")
    sys.stdout.flush()
    stop.wait()
    server.shutdown()
    serving.join()
    server.server_close()
    return 0
