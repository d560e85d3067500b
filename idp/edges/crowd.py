"""A bound on the logins that are inside at once, in front of Flask (RE-46).

In a storm of logins the threads of the server all wait for a password hash, and a revocation stands in the queue behind
them. So logins may fill a quarter of the threads; whoever comes above that is sent away at the door, for a twentieth of what
even Flask's refusal would cost, and everybody else finds the server's queue short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

RETRY_S = 5
#: how long a login waits at the door, in seconds
PATIENCE_S = 3.0
#: where people come in without being anybody yet. Not step-up: somebody who revokes may have to prove who they are first
DOORS = ("/login", "/login/totp", "/login/recovery")
COMPANY_DOOR = "/c/"
PAGE = """<!doctype html><html lang="ja"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>混み合っています - Sekisho</title><h1>混み合っています</h1><p>少し待ってから、もう一度ログインしてください。</p>
<p lang="en">Many people are logging in right now. Wait a moment, then log in again.</p></html>""".encode()
HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Length", str(len(PAGE))),
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Retry-After", str(RETRY_S)),
]

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Crowd:
    """WSGI in front of the application. places: login requests that may be inside at once; queue: that may wait at the door,
    at most patience_s seconds. One that waits holds a thread of the server and nothing else.
    """

    def __init__(self, inner: WSGIApp, *, places: int, queue: int, patience_s: float = PATIENCE_S) -> None:
        self._inner = inner
        self._patience_s = patience_s
        self._places = threading.Semaphore(places)
        self._queue = threading.Semaphore(queue)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in DOORS and not path.startswith(COMPANY_DOOR):
            return self._inner(environ, start_response)
        if not self._places.acquire(blocking=False) and not self._wait():
            start_response("503 Service Unavailable", list(HEADERS))
            return [PAGE]
        try:
            return self._inner(environ, start_response)
        finally:
            self._places.release()

    def _wait(self) -> bool:
        if not self._queue.acquire(blocking=False):
            return False
        try:
            return self._places.acquire(timeout=self._patience_s)
        finally:
            self._queue.release()
