"""The console's own SQLite file: waiting requests, sessions, coupons. A session ends by logout, by SOAP, or at its time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from connectors.demo.console.entropy import digest, new_secret
from connectors.demo.coupons.saml import Login

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (browser BLOB PRIMARY KEY, request_id TEXT NOT NULL, created_at REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
  cookie BLOB PRIMARY KEY, name_id TEXT NOT NULL, session_index TEXT NOT NULL, attributes TEXT NOT NULL, csrf TEXT NOT NULL,
  ends_at REAL NOT NULL, ended_at REAL, ended_by TEXT) STRICT;
CREATE TABLE IF NOT EXISTS coupons (
  id INTEGER PRIMARY KEY, company TEXT NOT NULL, title TEXT NOT NULL, yen INTEGER NOT NULL, by_name TEXT NOT NULL,
  created_at REAL NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Session:
    """A live session."""

    name_id: str
    index: str
    csrf: str
    attributes: dict[str, list[str]]

    def one(self, name: str) -> str:
        """The first value of an attribute, or an empty text."""
        return next(iter(self.attributes.get(name, [])), "")

    def may(self, function: str) -> bool:
        """True when the identity provider gave this function."""
        return function in self.attributes.get("functions", [])


class Store:
    """One SQLite file; each transaction has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(SCHEMA)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that commits at the end and rolls back on an exception."""
        with closing(sqlite3.connect(self._path, timeout=5.0, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def expect(self, browser: str, request_id: str, now: datetime) -> None:
        """Remember which request this browser sent."""
        with self.writing() as db:
            db.execute("DELETE FROM requests WHERE created_at < ?", (now.timestamp() - 1800,))
            db.execute(
                "INSERT OR REPLACE INTO requests VALUES (?, ?, ?)", (digest(browser), request_id, now.timestamp())
            )

    def expected(self, browser: str) -> str | None:
        """The request of this browser, once."""
        with self.writing() as db:
            row = db.execute(
                "DELETE FROM requests WHERE browser = ? RETURNING request_id", (digest(browser),)
            ).fetchone()
        return None if row is None else str(row["request_id"])

    def open(self, login: Login) -> str:
        """A new session. Returns its cookie."""
        cookie = new_secret()
        with self.writing() as db:
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                (digest(cookie), login.name_id, login.index, json.dumps(login.attributes), new_secret(), login.ends_at.timestamp()),
            )  # fmt: skip
        return cookie

    def find(self, cookie: str, now: datetime) -> Session | None:
        """The live session of a cookie."""
        with self.writing() as db:
            row = db.execute(
                "SELECT * FROM sessions WHERE cookie = ? AND ended_at IS NULL AND ends_at > ?",
                (digest(cookie), now.timestamp()),
            ).fetchone()
        if row is None:
            return None
        return Session(row["name_id"], row["session_index"], row["csrf"], json.loads(row["attributes"]))

    def end(self, name_id: str, indexes: Sequence[str], *, by: str, now: datetime) -> int:
        """End the sessions of a name: those with these indexes, or all of them. Returns how many were live."""
        with self.writing() as db:
            rows = db.execute(
                "SELECT cookie, session_index FROM sessions WHERE name_id = ? AND ended_at IS NULL", (name_id,)
            ).fetchall()
            mine = [row["cookie"] for row in rows if not indexes or row["session_index"] in indexes]
            db.executemany(
                "UPDATE sessions SET ended_at = ?, ended_by = ? WHERE cookie = ?",
                [(now.timestamp(), by, c) for c in mine],
            )
        return len(mine)

    def publish(self, company: str, title: str, yen: int, by: str, now: datetime) -> None:
        """Publish a coupon."""
        with self.writing() as db:
            db.execute(
                "INSERT INTO coupons (company, title, yen, by_name, created_at) VALUES (?, ?, ?, ?, ?)",
                (company, title, yen, by, now.timestamp()),
            )

    def coupons(self, company: str) -> list[sqlite3.Row]:
        """The coupons of a company, newest first."""
        with self.writing() as db:
            return db.execute(
                "SELECT * FROM coupons WHERE company = ? ORDER BY id DESC LIMIT 50", (company,)
            ).fetchall()
