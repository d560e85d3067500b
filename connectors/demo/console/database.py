"""The console's own SQLite file: its tables and its two kinds of transaction. Knows no SQL of the tables' owners."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS pending_logins (
  state_digest BLOB PRIMARY KEY, browser_digest BLOB NOT NULL, nonce TEXT NOT NULL, code_verifier TEXT NOT NULL,
  target TEXT NOT NULL, created_at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
  digest BLOB PRIMARY KEY, sub TEXT NOT NULL, sid TEXT NOT NULL, claims TEXT NOT NULL, id_token TEXT,
  created_at REAL NOT NULL, ended_at REAL, ended_by TEXT) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_live ON sessions (sub, sid) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS logout_notices (
  jti TEXT PRIMARY KEY, sub TEXT, sid TEXT, issued_at REAL NOT NULL, received_at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seeded_stores (
  company_code TEXT, store_code TEXT, PRIMARY KEY (company_code, store_code)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
  id TEXT PRIMARY KEY, company_code TEXT NOT NULL, store_code TEXT NOT NULL, name TEXT NOT NULL, kana TEXT NOT NULL,
  folded TEXT NOT NULL, joined_on TEXT NOT NULL, points INTEGER NOT NULL CHECK (points >= 0)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_of_store ON members (company_code, store_code);
CREATE TABLE IF NOT EXISTS point_changes (
  request_id TEXT PRIMARY KEY, member_id TEXT NOT NULL REFERENCES members, delta INTEGER NOT NULL,
  balance INTEGER NOT NULL, reason TEXT NOT NULL, by_sub TEXT NOT NULL, by_name TEXT NOT NULL,
  by_login_name TEXT NOT NULL, changed_at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS point_changes_of_member ON point_changes (member_id, changed_at);
CREATE TABLE IF NOT EXISTS coupons (
  request_id TEXT PRIMARY KEY, company_code TEXT NOT NULL, store_code TEXT NOT NULL, title TEXT NOT NULL,
  discount_yen INTEGER NOT NULL, ends_on TEXT NOT NULL, by_name TEXT NOT NULL, published_at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS coupons_of_store ON coupons (company_code, store_code);
"""


class Database:
    """One SQLite file. Each transaction has a connection of its own: threads share nothing but the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """Make the file and its tables when they are absent; safe to repeat."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # It holds ID tokens of live sessions, so it is readable by its owner only.
        self._path.touch(mode=0o600)
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that commits at the end and rolls back on an exception.

        BEGIN IMMEDIATE takes the only write lock first, so a check and the write behind it cannot be split by the
        end of a session. Raises sqlite3.OperationalError after 5 s without the lock.
        """
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A consistent snapshot in which a write is an error."""
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            yield connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection
