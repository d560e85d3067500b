"""What lives: started logins, this console's sessions, and the logout notices that end them. The only writer of the three.

A browser holds random ids; the rows hold their SHA-256 digests. Of the tokens only the ID token is kept, on the
server and only while the session lives, because the logout needs it as its hint; nothing here would use another.
"""

import sqlite3
from dataclasses import dataclass

from connectors.demo.console.claims import Person
from connectors.demo.console.entropy import digest, new_secret

SESSION_LIFETIME_S = 8 * 3600.0
LOGIN_LIFETIME_S = 600.0
NOTICE_MEMORY_S = SESSION_LIFETIME_S + LOGIN_LIFETIME_S


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that was started and not yet answered. `target` is a path of ours; `created_at` in seconds."""

    nonce: str
    code_verifier: str
    target: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Session:
    """One live session of this console. `digest`: 32 bytes, the key of its row."""

    digest: bytes
    person: Person
    id_token: str


@dataclass(frozen=True, slots=True)
class LogoutNotice:
    """A verified logout token: at least one of `sub` and `sid` is there; `issued_at` is its `iat` in seconds."""

    jti: str
    sub: str | None
    sid: str | None
    issued_at: float


class Replayed(Exception):
    """A logout token whose `jti` was already used (Back-Channel Logout 1.0 §2.6 step 8)."""


class AlreadyEnded(Exception):
    """The provider ended this login while its code was still being exchanged."""


def start_login(db: sqlite3.Connection, *, browser: str, target: str, now: float) -> tuple[str, PendingLogin]:
    """Record a login start, bound to the browser that asked, and return (state, what was recorded)."""
    state = new_secret()
    pending = PendingLogin(nonce=new_secret(), code_verifier=new_secret(), target=target, created_at=now)
    db.execute("DELETE FROM pending_logins WHERE created_at <= ?", (now - LOGIN_LIFETIME_S,))
    db.execute(
        "INSERT INTO pending_logins VALUES (?, ?, ?, ?, ?, ?)",
        (digest(state), digest(browser), pending.nonce, pending.code_verifier, target, now),
    )
    return state, pending


def claim_login(db: sqlite3.Connection, *, state: str, browser: str, now: float) -> PendingLogin | None:
    """Take a started login, once; None when it is unknown, older than 10 minutes, used, or another browser's.

    The binding to the browser is what stops login CSRF: an attacker's own code and state do not fit a victim's cookie.
    Source: RFC 9700 §4.7.
    """
    row = db.execute(
        "DELETE FROM pending_logins WHERE state_digest = ? AND browser_digest = ? AND created_at > ?"
        " RETURNING nonce, code_verifier, target, created_at",
        (digest(state), digest(browser), now - LOGIN_LIFETIME_S),
    ).fetchone()
    return PendingLogin(**row) if row else None


def open_session(
    db: sqlite3.Connection, person: Person, *, id_token: str, issued_at: float, login_started_at: float, now: float
) -> str:
    """Insert a session and return the id for the cookie; the row keeps only its digest.

    issued_at: `iat` of the ID token. Raises AlreadyEnded when a logout notice overtook the code exchange: for this
    `sid` at any time, or for the whole `sub` after this login began, with a token that is not older than ours. Without
    this a notice that arrives between the exchange and this insert would find nothing to end, and be lost.
    """
    overtaken = db.execute(
        "SELECT 1 FROM logout_notices WHERE sid = :sid"
        " OR (sid IS NULL AND sub = :sub AND received_at >= :started AND issued_at >= :issued)",
        {"sid": person.sid, "sub": person.sub, "started": login_started_at, "issued": issued_at},
    ).fetchone()
    if overtaken:
        raise AlreadyEnded
    db.execute("DELETE FROM sessions WHERE created_at <= ?", (now - SESSION_LIFETIME_S,))
    session_id = new_secret()
    db.execute(
        "INSERT INTO sessions (digest, sub, sid, claims, id_token, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (digest(session_id), person.sub, person.sid, person.to_json(), id_token, now),
    )
    return session_id


def find_live(db: sqlite3.Connection, session_id: str, *, now: float) -> Session | None:
    """The session behind a cookie, or None when it is unknown, ended or older than 8 hours."""
    row = db.execute(
        "SELECT digest, claims, id_token FROM sessions WHERE digest = ? AND ended_at IS NULL AND created_at > ?",
        (digest(session_id), now - SESSION_LIFETIME_S),
    ).fetchone()
    return Session(row["digest"], Person.from_json(row["claims"]), row["id_token"]) if row else None


def end_session(db: sqlite3.Connection, session_digest: bytes, *, now: float) -> None:
    """End one session and forget its ID token; nothing happens when it is over already."""
    db.execute(
        "UPDATE sessions SET ended_at = ?, ended_by = 'person', id_token = NULL WHERE digest = ? AND ended_at IS NULL",
        (now, session_digest),
    )


def end_by_notice(db: sqlite3.Connection, notice: LogoutNotice, *, now: float) -> int:
    """Remember the notice and end what it names; returns how many sessions that were.

    With `sid`, that session (and `sub` must fit when given); `sub` alone ends every session of the subject. 0 is a
    success: there is nothing left to end. Raises Replayed for a `jti` seen before, and ends nothing.
    Source: Back-Channel Logout 1.0 §2.6 and §2.7, requirements.md LO-05.
    """
    db.execute("DELETE FROM logout_notices WHERE received_at <= ?", (now - NOTICE_MEMORY_S,))
    try:
        db.execute(
            "INSERT INTO logout_notices VALUES (?, ?, ?, ?, ?)",
            (notice.jti, notice.sub, notice.sid, notice.issued_at, now),
        )
    except sqlite3.IntegrityError as error:
        raise Replayed from error
    return db.execute(
        "UPDATE sessions SET ended_at = :now, ended_by = 'provider', id_token = NULL WHERE ended_at IS NULL"
        " AND (:sub IS NULL OR sub = :sub) AND (:sid IS NULL OR sid = :sid)",
        {"now": now, "sub": notice.sub, "sid": notice.sid},
    ).rowcount
