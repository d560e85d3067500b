"""AU-06, AU-09: what the database itself lets happen to a row of the log, on both engines."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from idp.core.db import db, transaction
from idp.core.errors import Conflict, SekishoError
from idp.ledgers.audit import empty, leaf
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditEvent, AuditTile
from tests.actors import World, utc

NOW = utc(2026, 11, 24, 1, 0)


def _row(world: World, *, sealed: bool = True) -> AuditEvent:
    with world.app.app_context(), transaction() as session:
        record(
            session, Tag.LOGIN_SUCCEEDED, actor=Actor("person", None, "r1", "192.0.2.7"), now=NOW, acr="urn:x", count=3
        )
    with world.app.app_context(), transaction() as session:
        row = session.scalars(
            select(AuditEvent).where(AuditEvent.tag == Tag.LOGIN_SUCCEEDED.value, AuditEvent.leaf_index.is_(None))
        ).one()
        if sealed:
            row.leaf_index, row.leaf_hash = 10_000, leaf.leaf_hash(row)
        return row


def test_AU06_the_database_refuses_every_change_but_sealing_and_emptying(world: World) -> None:
    """Each column of a sealed row, a second sealing, a deletion, a half erasure: refused by the trigger, not by our code."""
    row = _row(world)
    mine = AuditEvent.id == row.id
    wrong = [
        {"tag": "x"}, {"result": "refused"}, {"actor_kind": "cli"}, {"created_at": utc(2026, 1, 1)}, {"detail": {"acr": "y"}},
        {"request_id": "r2"}, {"company_id": row.id}, {"subject_id": row.id}, {"leaf_index": 4}, {"leaf_index": None},
        {"leaf_hash": b"x" * 32}, {"leaf_version": 2}, {"software": "9"}, {"personal": {"address": "192.0.2.8"}},
        {"personal": None}, {"personal_salt": b"x" * 16}, {"personal_hash": b"x" * 32}, {"body_hash": b"x" * 32},
        {"personal": None, "personal_salt": None, "personal_hash": b"short"},
        {**empty.EMPTY_BODY, "body_hash": b"x" * 32, "result": "ok"}, {**empty.EMPTY_BODY},
    ]  # fmt: skip
    with world.app.app_context():
        for values in wrong:
            with pytest.raises((DBAPIError, SekishoError)), transaction() as session:
                session.execute(update(AuditEvent).where(mine).values(**values))
            assert leaf.leaf_hash(world.rows(select(AuditEvent).where(mine))[0][0]) == row.leaf_hash, values
        for statement in (delete(AuditEvent).where(mine), delete(AuditEvent), text("DELETE FROM audit_event")):
            with pytest.raises((DBAPIError, SekishoError)), transaction() as session:
                session.execute(statement)
        if db.engine.dialect.name == "postgresql":
            with pytest.raises((DBAPIError, SekishoError)), transaction() as session:
                session.execute(text("TRUNCATE audit_event"))


def test_AU06_tiles_only_grow(world: World) -> None:
    """A stored hash is never replaced, cut off or deleted; appending is allowed."""
    with world.app.app_context():
        with transaction() as session:
            session.add(AuditTile(created_at=NOW, level=5, position=0, hashes=b"a" * 32))
        for hashes in (b"b" * 32, b"", b"b" * 32 + b"c" * 32, b"a" * 32):
            with pytest.raises((DBAPIError, SekishoError)), transaction() as session:
                session.execute(update(AuditTile).where(AuditTile.level == 5).values(hashes=hashes))
        with transaction() as session:
            session.execute(update(AuditTile).where(AuditTile.level == 5).values(hashes=b"a" * 32 + b"b" * 32))
        with pytest.raises((DBAPIError, SekishoError)), transaction() as session:
            session.execute(delete(AuditTile))


def test_AU09_emptying_leaves_the_leaf_and_takes_the_content(world: World) -> None:
    """Personal block, then body: the leaf hash stays; a row that is not what was sealed is not emptied; nor an unsealed one."""
    row = _row(world)
    with world.app.app_context():
        with transaction() as session:
            assert empty.personal(session, AuditEvent.id == row.id) == 1
        left = world.rows(select(AuditEvent).where(AuditEvent.id == row.id))[0][0]
        assert (left.personal, left.personal_salt) == (None, None)
        assert left.detail == row.detail
        assert leaf.leaf_hash(left) == row.leaf_hash
        with transaction() as session:
            assert empty.body(session, AuditEvent.id == row.id) == 1
            assert empty.body(session, AuditEvent.id == row.id) == 0
        left = world.rows(select(AuditEvent).where(AuditEvent.id == row.id))[0][0]
        assert (left.detail, left.result, left.actor_kind) == ({}, "", "")
        assert leaf.leaf_hash(left) == row.leaf_hash

        waiting = _row(world, sealed=False)
        with transaction() as session:
            assert empty.personal(session, AuditEvent.id == waiting.id) == 0
            session.execute(
                update(AuditEvent).where(AuditEvent.id == waiting.id).values(leaf_index=10_001, leaf_hash=b"x" * 32)
            )
        with pytest.raises(Conflict), transaction() as session:
            empty.body(session, AuditEvent.id == waiting.id)
