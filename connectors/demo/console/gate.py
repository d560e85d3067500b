"""What the views share: the services, who is asking, CSRF, and the exceptions that `app.py` turns into pages.

A view opens one short transaction and asks `require_session` inside it. For a POST that is the writing transaction, so
that a session which the provider ended a moment ago writes nothing: its end and our write cannot overlap.
"""

import hashlib
import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from flask import current_app, request

from connectors.demo.console.config import Config
from connectors.demo.console.database import Database
from connectors.demo.console.entropy import new_secret
from connectors.demo.console.provider import Provider
from connectors.demo.console.sessions import Session, find_live


class LoginRequired(Exception):
    """No live session: a page view goes to `/login`, a form gets 401."""


class Forbidden(Exception):
    """The person lacks the function that this needs; the text is its name."""


class Refused(Exception):
    """A request that no page of ours makes. The text is the key of the sentence to show (`words.py`); status 400."""


@dataclass(frozen=True, slots=True)
class Console:
    """The services of one console: built by `create_console`, reached by `console()`. `pause` takes seconds."""

    config: Config
    database: Database
    provider: Provider
    pause: Callable[[float], object]


def console() -> Console:
    """The services of the current application."""
    services = current_app.extensions["console"]
    assert isinstance(services, Console)  # noqa: S101 - tells mypy what create_console put there
    return services


def find_session(db: sqlite3.Connection, *, now: float) -> Session | None:
    """The live session of the browser that asks, or None."""
    session_id = request.cookies.get(console().config.cookie, "")
    return find_live(db, session_id, now=now) if session_id else None


def require_session(db: sqlite3.Connection, *, now: float) -> Session:
    """The live session of the browser that asks; a form must carry its CSRF token too.

    Raises LoginRequired, or Refused when the form does not come from a page of this session.
    """
    session = find_session(db, now=now)
    if session is None:
        raise LoginRequired
    if request.method == "POST" and not hmac.compare_digest(
        request.form.get("csrf_token", "").encode(), csrf_token(session).encode()
    ):
        raise Refused("refused.csrf")
    return session


def require_function(session: Session, function: str) -> None:
    """Raises Forbidden without `function`. A hidden button is courtesy; this is the check."""
    if not session.person.may(function):
        raise Forbidden(function)


def csrf_token(session: Session) -> str:
    """64 hex digits, bound to the session: an attacker without our secret cannot make it for another's session."""
    return _keyed("csrf", session.digest)


def new_logout_state() -> str:
    """A `state` for the logout that proves, on the way back, that this console sent the browser there."""
    nonce = new_secret()
    return f"{nonce}.{_keyed('logout', nonce.encode())}"


def is_logout_state(state: str) -> bool:
    """Whether `new_logout_state` made this."""
    nonce, _, proof = state.partition(".")
    return hmac.compare_digest(proof.encode(), _keyed("logout", nonce.encode()).encode())


def _keyed(purpose: str, message: bytes) -> str:
    key = console().config.secret.encode()
    return hmac.new(key, purpose.encode() + b"\0" + message, hashlib.sha256).hexdigest()
