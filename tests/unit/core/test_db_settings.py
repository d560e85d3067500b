"""RE-41: what each connection is set to, read back from the database itself; and that reading cannot write."""

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from idp.core.db import READING, RESERVED, db, reading, transaction
from idp.core.errors import Unavailable
from idp.domain.directory.models import Company
from tests.actors import World
from tests.conftest import Database

EVERYWHERE = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 5000, "foreign_keys": 1}


def test_RE_41_settings_are_read_back(app: Flask, database: Database) -> None:
    """Every pool, and a second connection of each: a setting that is made once per file or per pool would be missed."""
    with app.app_context():
        engines = dict(db.engines)
    assert set(engines) == {None, RESERVED, READING}
    for bind, engine in engines.items():
        pair = engine.raw_connection(), engine.raw_connection()
        for connection in pair:
            cursor = connection.cursor()
            if database.engine == "sqlite":
                wanted = {**EVERYWHERE, "query_only": int(bind == READING)}
                ask = "PRAGMA {}"
            else:
                wanted = {
                    "default_transaction_read_only": "on" if bind == READING else "off",
                    "transaction_isolation": "read committed",
                    "lock_timeout": "5s",
                    "statement_timeout": "15s",
                    "jit": "off",
                }
                ask = "SHOW {}"
            found = {}
            for name in wanted:
                cursor.execute(ask.format(name))
                found[name] = cursor.fetchone()[0]
            assert found == wanted, bind
        for connection in pair:
            connection.close()


def test_RE_41_reading_can_write_nothing(world: World) -> None:
    world.person()
    with world.app.app_context():
        with pytest.raises((DBAPIError, Unavailable)), reading() as session:
            session.execute(update(Company).values(name="changed"))
        with reading() as session:
            assert "changed" not in session.scalars(select(Company.name)).all()


def test_RE_41_a_result_that_somebody_left_unread_pins_no_snapshot(world: World) -> None:
    """Else the next one to get that connection reads the past, in a live check too, and waits five seconds to write, in vain."""
    world.person()

    def rename(name: str) -> None:
        with transaction() as session:
            session.execute(update(Company).values(name=name))

    with world.app.app_context():
        kept = []
        with transaction() as session:
            kept.append(session.execute(select(Company.name)))
        with reading() as session:
            kept.append(session.execute(select(Company.name)))
            # by another connection, since that of this thread is taken: whoever reads next begins before it
            rename("first")
        with reading() as session:
            assert set(session.scalars(select(Company.name))) == {"first"}
        for connection in [db.engine.connect() for _ in range(3)]:
            with connection, connection.begin():
                connection.execute(update(Company).values(name="second"))
        rename("third")
        with reading() as session:
            assert set(session.scalars(select(Company.name))) == {"third"}
        assert len(kept) == 2
