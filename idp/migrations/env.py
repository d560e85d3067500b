"""Alembic's environment: one connection, SQLite's foreign keys off while tables are rebuilt."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlalchemy import Engine

import idp.models  # noqa: F401 - every table
from idp.core.db import Base, Instant


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write `Instant` as the plain type, so that a migration never imports the code of its day."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Instant) else False


def run() -> None:
    """Run the migrations on the engine that `idp.core.migrate` hands over."""
    engine: Engine = context.config.attributes["engine"]
    with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        raw = connection.connection.dbapi_connection
        if sqlite and raw is not None:
            # A batch migration drops and rebuilds a table; with foreign keys on, its children would go with it. The pragma
            # does nothing inside a transaction, so it is set on the bare connection.
            raw.execute("PRAGMA foreign_keys=OFF")
        try:
            context.configure(
                connection=connection, target_metadata=Base.metadata, render_as_batch=sqlite, render_item=render
            )
            with context.begin_transaction():
                if not sqlite:
                    connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
                context.run_migrations()
            connection.commit()
        finally:
            if sqlite and raw is not None:
                raw.execute("PRAGMA foreign_keys=ON")


run()
