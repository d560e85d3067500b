"""A prepared statement runs past SQLAlchemy (decision 0062), and nobody can tell: same types, same errors, same transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import (
    LargeBinary,
    bindparam,
    event,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, MultipleResultsFound, NoResultFound

from idp.core import ids
from idp.core.db import Query, add_all, change, claim, db, prepared, run, transaction
from idp.core.errors import Unavailable
from idp.core.ready import Rows
from idp.domain.tokens.models import SeenMessage
from idp.ledgers.audit.models import AuditEvent
from tests.conftest import Database

NOW = datetime(
    2026, 11, 22, 3, 4, 5, tzinfo=UTC
)  # a whole second: SQLite's texts differ there when a type is forgotten
TABLE = SeenMessage.__table__.c


@pytest.fixture(autouse=True)
def inside(app: Flask) -> Iterator[None]:
    """Within the application, whose database this is."""
    with app.app_context():
        yield


def message(n: int, *, ends_at: datetime = NOW) -> dict[str, Any]:
    """A row with an id, instants and bytes."""
    return {"id": ids.new_id(NOW), "created_at": NOW, "message_digest": ids.digest(str(n)), "ends_at": ends_at}


@prepared
def _found() -> Query:
    digests = bindparam("digests", type_=LargeBinary(), expanding=True)
    return (
        select(SeenMessage.id, SeenMessage.ends_at, SeenMessage.message_digest, literal("it's 100 %").label("said"))
        .where(SeenMessage.message_digest.in_(digests), SeenMessage.ends_at >= bindparam("least", type_=TABLE.ends_at.type))
        .order_by(SeenMessage.ends_at)
    )  # fmt: skip


def test_what_goes_in_comes_out_as_its_type_and_lists_may_have_any_length() -> None:
    rows = [message(n, ends_at=NOW + timedelta(seconds=n)) for n in range(5)]
    with transaction() as session:
        add_all(session, SeenMessage, rows[:1])
        add_all(session, SeenMessage, rows[1:])
        for size in (0, 1, 3, 5, 3):
            asked = {"digests": [row["message_digest"] for row in rows[:size]], "least": NOW}
            found = run(session, _found(), asked)
            assert [(row.id, row.ends_at) for row in found] == [(row["id"], row["ends_at"]) for row in rows[:size]]
            assert {row.said for row in found} <= {"it's 100 %"}
        later = run(
            session, _found(), {"digests": [row["message_digest"] for row in rows], "least": NOW + timedelta(seconds=3)}
        )
        assert [bytes(row.message_digest) for row in later] == [row["message_digest"] for row in rows[3:]]
        assert all(type(row.id) is uuid.UUID and row.ends_at.tzinfo is UTC for row in later)


def test_a_default_is_filled_in_and_made_anew_for_each_row() -> None:
    """An INSERT names only what it has: `id`, an empty detail and the software come from the model."""
    bare = {"created_at": NOW, "tag": "login:ok", "result": "ok", "actor_kind": "system"}
    with transaction() as session:
        add_all(session, AuditEvent, [bare])
        add_all(session, AuditEvent, [bare, bare])
        rows = session.scalars(select(AuditEvent).where(AuditEvent.created_at == NOW)).all()
        assert len({row.id for row in rows}) == 3
        assert [(row.detail, row.request_id, row.leaf_version, row.personal) for row in rows] == [({}, "", 1, None)] * 3


@prepared
def _move() -> Any:
    return (
        update(SeenMessage)
        .where(TABLE.message_digest == bindparam("digest"))
        .values(ends_at=bindparam("to", type_=TABLE.ends_at.type))
    )


def test_a_claim_counts_rows_and_a_rollback_takes_them_back() -> None:
    """D7: the row count is the answer, in the transaction of the session and with what it held unwritten."""
    row = message(1)
    with transaction() as session:
        session.add(SeenMessage(**row))
        assert claim(session, _move(), {"digest": row["message_digest"], "to": NOW + timedelta(hours=1)})
        assert not claim(session, _move(), {"digest": ids.digest("nobody's"), "to": NOW})
    with pytest.raises(IntegrityError), transaction() as session:  # noqa: PT012 - a transaction that changes, then fails
        assert change(session, _move(), {"digest": row["message_digest"], "to": NOW + timedelta(hours=2)}) == 1
        add_all(session, SeenMessage, [row])
    with transaction() as session:
        assert session.scalar(select(SeenMessage.ends_at)) == NOW + timedelta(hours=1)


def test_errors_are_those_of_sqlalchemy_without_the_values() -> None:
    """`transaction()` and everybody who catches an error know them by these names; a log shows no parameter."""
    row = message(1)
    with transaction() as session:
        add_all(session, SeenMessage, [row])
    for again in ([row], [message(2), row]):
        with pytest.raises(IntegrityError) as raised, transaction() as session:
            add_all(session, SeenMessage, again)
        assert "INSERT INTO seen_message" in str(raised.value)
        assert row["message_digest"].hex() not in str(raised.value).replace("\\x", "")
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(SeenMessage)) == 1, "nothing of the second try is left"
        with pytest.raises(IntegrityError), session.begin_nested():
            add_all(session, SeenMessage, [row])
        add_all(session, SeenMessage, [message(3)])
        assert session.scalar(select(func.count()).select_from(SeenMessage)) == 2, "a savepoint holds here too"


def test_who_listens_on_the_engine_hears_of_it() -> None:
    """Tests that count, stop or kill at a statement, and any tracer, hear of these as of all others."""
    heard: list[tuple[str, bool]] = []

    def listen(_conn: Any, _cursor: Any, statement: str, _values: Any, _context: Any, many: bool) -> None:
        heard.append((statement.split(maxsplit=1)[0], many))

    event.listen(db.engine, "before_cursor_execute", listen)
    with transaction() as session:
        add_all(session, SeenMessage, [message(1), message(2)])
        run(session, _found(), {"digests": [], "least": NOW})
    event.remove(db.engine, "before_cursor_execute", listen)
    assert [it for it in heard if it[0] != "BEGIN"] == [("INSERT", True), ("SELECT", False)]


def test_a_connection_that_is_gone_is_an_unavailable_and_the_next_one_is_new(database: Database) -> None:
    """RE-40: an administrator's disconnect is a 503 once; nothing is taken from the old pool afterwards."""
    if database.engine != "postgresql":
        pytest.skip("a file does not hang up")
    row = message(1)
    pid = text("SELECT pg_backend_pid()")
    with transaction() as one, transaction() as another:
        pooled = {one.scalar(pid), another.scalar(pid)}
    with transaction(reserved=True) as killer, pytest.raises(Unavailable), transaction() as session:  # noqa: PT012
        mine = session.scalar(pid)
        assert mine in pooled
        assert killer.scalar(text("SELECT pg_terminate_backend(:pid, 5000)").bindparams(pid=mine))
        add_all(session, SeenMessage, [row])
    with transaction() as one, transaction() as another:
        assert not {one.scalar(pid), another.scalar(pid)} & pooled, "where one is gone, all most likely are"
        add_all(one, SeenMessage, [row])
        assert one.scalar(select(func.count()).select_from(SeenMessage)) == 1


def test_rows_say_how_many_there_must_be() -> None:
    assert Rows().first() is Rows().scalar() is Rows().one_or_none() is None
    assert Rows([(1,)]).one() == Rows([(1,)]).one_or_none() == Rows([(1,), (2,)]).first() == (1,)
    assert Rows([(1,), (2,)]).scalar() == 1
    with pytest.raises(NoResultFound):
        Rows().one()
    for ask in (Rows([(1,), (2,)]).one, Rows([(1,), (2,)]).one_or_none):
        with pytest.raises(MultipleResultsFound):
            ask()
