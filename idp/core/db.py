"""Transactions and claims. This module holds the only `commit()` in the house (house.md 5).

- `transaction()`: a response commits, an exception rolls back. On SQLite it begins IMMEDIATE, because a transaction
  that reads first and upgrades later is refused at once with *database is locked*, whatever `busy_timeout` says.
- `reading()`: can write nothing, never takes SQLite's write lock, and each of its statements stands alone.
- `claim()`: whatever may happen only once is one conditional UPDATE whose row count is the answer.

Nothing slow and nothing that leaves the process may happen inside either transaction.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC as UTC_ZONE
from datetime import datetime
from functools import cache, wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    BindParameter,
    DateTime,
    Delete,
    Engine,
    Executable,
    Insert,
    MetaData,
    Select,
    Update,
    Uuid,
    bindparam,
    insert,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry
from sqlalchemy.types import TypeDecorator

from idp.core import ids
from idp.core.errors import Unavailable
from idp.core.ready import Ready, Rows, Values
from idp.core.sqlite import ClosingConnection, is_busy

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound=Executable)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime. Refuses naive values; SQLite, which forgets zones, gives aware ones back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached the database")
        aware = value.astimezone(UTC_ZONE)
        return aware.replace(tzinfo=None) if dialect.name == "sqlite" else aware

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC_ZONE) if value.tzinfo is None else value.astimezone(UTC_ZONE)


#: The instant of a request, as a parameter of a `prepared` statement. `run()` takes the values.
NOW: BindParameter[datetime] = bindparam("now", type_=Instant())
Moment = datetime | BindParameter[datetime]
Query = Select[*tuple[Any, ...]]


def prepared(build: Callable[P, S]) -> Callable[P, S]:
    """Decorate the builder of a hot path's statement: it is built once for each set of arguments.

    Building costs SQLAlchemy ten times what running does (performance.md 4.1). What differs between two runs is a parameter
    (`bindparam`, `NOW`), never an argument, and `run`, `claim` and `change` take its values.
    """

    @wraps(build)
    def built(*args: P.args, **kwargs: P.kwargs) -> S:
        statement = build(*args, **kwargs)
        _READY[statement] = {}
        return statement

    return cast("Callable[P, S]", wraps(build)(cache(built)))


#: what each prepared statement was compiled to, by dialect and names of its values; it lives as long as the process
_READY: Final[dict[Executable, dict[tuple[str, ...], Ready]]] = {}


class Base(DeclarativeBase):
    """Every table has a sortable, meaningless id and its moment of creation."""

    registry = registry(
        type_annotation_map={datetime: Instant(), uuid.UUID: Uuid()},
        metadata=MetaData(naming_convention=NAMES),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=ids.new_id)
    created_at: Mapped[datetime]


db = SQLAlchemy(model_class=Base, disable_autonaming=True, session_options={"autoflush": True})

#: Flask-SQLAlchemy bind whose pool only revocation and its worker use, so that a login storm cannot starve them (RE-46).
RESERVED = "reserved"
#: Bind of `reading()`: connections that can write nothing.
READING = "reading"


def absolute_url(url: str) -> str:
    """A SQLite path relative to the working directory, made absolute: Flask-SQLAlchemy would look for it elsewhere."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return url
    return parsed.set(database=str(Path(parsed.database).resolve())).render_as_string(hide_password=False)


def engine_options(url: str, *, pool_size: int, read_only: bool = False) -> dict[str, Any]:
    """Options for one engine. url: SQLAlchemy URL; pool_size: connections held open per process; read_only: for `reading()`.

    Reading goes without BEGIN and ROLLBACK: at READ COMMITTED each statement has its own snapshot anyway, and a live check
    is one statement. The two would cost as much as the check.
    """
    if read_only:
        common = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True, "hide_parameters": True}
    else:
        # an error's text reaches the log, and a parameter may be personal or a digest
        common = {"hide_parameters": True}
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 5.0, "cached_statements": 512, "factory": ClosingConnection}, **common}
    # no JIT: our statements are short, and compiling one costs more than it can save
    settings = "-c lock_timeout=5000 -c statement_timeout=15000 -c jit=off"
    if read_only:
        settings += " -c default_transaction_read_only=on"
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": 5,
        "pool_pre_ping": False,
        "isolation_level": "READ COMMITTED",
        "connect_args": {"application_name": "sekisho", "options": settings},
        **common,
    }


def _engine(*, reserved: bool) -> Engine:
    return db.engines[RESERVED if reserved else None]


@contextmanager
def transaction(*, reserved: bool = False) -> Iterator[Session]:
    """One short writing transaction: leaving the block commits, an exception rolls back.

    reserved: take the connection pool kept for revocation and the worker (RE-46).
    Raises Unavailable when the database does not answer in time; nothing is written.
    """
    session = Session(_engine(reserved=reserved), expire_on_commit=False)
    try:
        with session:
            yield session
            session.commit()
    except (OperationalError, PoolTimeout) as error:
        raise _unavailable(error) from error


@contextmanager
def reading() -> Iterator[Session]:
    """A session that cannot write: live checks, first steps, lists and exports. Each statement sees what is committed then."""
    try:
        with Session(db.engines[READING], expire_on_commit=False, autoflush=False) as session:
            yield session
    except (OperationalError, PoolTimeout) as error:
        raise _unavailable(error) from error


def _unavailable(error: OperationalError | PoolTimeout) -> Unavailable:
    """The caller may come back: 503, also for the victim of a deadlock, and never a 500 (RE-20). `retrying` reads the cause."""
    cause = error.orig if isinstance(error, OperationalError) else error
    return Unavailable(
        "いまは処理できません。少し待ってから、もう一度試してください。", f"database: {type(cause).__name__}"
    )


#: serialisation failure, deadlock, administrator's disconnect, lock timeout
RETRYABLE_STATES = {"40001", "40P01", "57P01", "55P03"}


def is_retryable(error: BaseException | None) -> bool:
    """True for a deadlock, serialisation failure, lock timeout or administrator's disconnect (RE-40), and where somebody else
    held SQLite's write lock for too long: the transaction did nothing, and may run again as a whole."""
    origin = error.orig if isinstance(error, DBAPIError) else None
    return is_busy(origin) or getattr(origin, "sqlstate", None) in RETRYABLE_STATES


def retrying(work: Callable[[], T], *, tries: int = 5) -> T:
    """Run a whole transaction again when the database chose it as a victim: a revocation is retried, never dropped (RE-20)."""
    for left in range(tries - 1, -1, -1):
        try:
            return work()
        except Unavailable as error:
            if not left or not is_retryable(error.__cause__):
                raise
            log.warning("transaction retried", extra={"left": left, "why": error.private})
    raise AssertionError("unreachable")


#: where a session keeps its one connection: it lives for one transaction, and asking it each time costs as much as SQLite
CONNECTION: Final = "connection"


def run(session: Session, statement: Executable, values: Values | Sequence[Values] | None = None) -> Rows:
    """Run a statement past the ORM, for plain rows, a prepared one past SQLAlchemy too: a third of the cost of `session.execute`.

    values: of its parameters, or of the columns of an INSERT, of which there may be many rows. What the session still holds
    unwritten is written first.
    """
    session.flush()
    connection = session.info.get(CONNECTION)
    if connection is None:
        connection = session.info[CONNECTION] = session.connection()
    compiled = _READY.get(statement)
    if compiled is None:
        result = connection.execute(statement, values)
        return Rows(result if result.returns_rows else (), result.rowcount)
    if values is None:
        values = {}
    elif not isinstance(values, Mapping) and len(values) == 1:
        values = values[0]
    names = values if isinstance(values, Mapping) else values[0]
    key = (connection.dialect.name, *names)
    ready = compiled.get(key)
    if ready is None:
        ready = compiled[key] = Ready(statement, connection.dialect, names)
    return ready.run(connection, values)


def add_all(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of one table in one statement; all of them name the same columns."""
    if rows:
        run(session, _insert(table), rows)


@prepared
def _insert(table: type[Base]) -> Insert:
    return insert(table)


def claim(session: Session, statement: Update, values: Values | None = None) -> bool:
    """Run one conditional UPDATE; True when it changed exactly one row, and only that means *go* (D7, RE-20).

    What was read before a claim decides nothing afterwards, so the session forgets it. values: of its parameters.
    """
    went = change(session, statement, values) == 1
    session.expire_all()
    return went


def change(session: Session, statement: Update | Delete, values: Values | None = None) -> int:
    """Run a set-based UPDATE or DELETE and return how many rows it changed. For ends, which may change many or none."""
    return run(session, statement, values).rowcount


def insert_into(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_update` in the dialect of this session."""
    make = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return make(table)
