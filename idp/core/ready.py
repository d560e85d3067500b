"""A statement as the driver takes it: compiled once by SQLAlchemy, then run without it (decision 0062).

What SQLAlchemy does at each run, finding the compiled text, making a context, describing columns, wrapping cursor and rows, costs
as much CPU as the driver does, and more than SQLite. The statement, its types, its transaction and its errors stay SQLAlchemy's.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound
from sqlalchemy.schema import ColumnDefault

Values = Mapping[str, Any]
#: takes the values of a run and gives what the driver gets for one parameter
Way = Callable[[Values], Any]


#: where a connection of the pool keeps it; a connection that is made anew has none
CURSOR: Final = "sekisho-cursor"


class Rows(list[Any]):
    """The rows that a statement gave, all of them read; their columns are attributes.

    rowcount: how many rows an UPDATE, DELETE or INSERT changed.
    """

    __slots__ = ("rowcount",)

    def __init__(self, rows: Iterable[Any] = (), rowcount: int = -1) -> None:
        super().__init__(rows)
        self.rowcount = rowcount

    def first(self) -> Any:
        """The first row, or None."""
        return self[0] if self else None

    def one_or_none(self) -> Any:
        """The only row, or None. Raises MultipleResultsFound."""
        if len(self) > 1:
            raise MultipleResultsFound("Multiple rows were found when one or none was required")
        return self.first()

    def one(self) -> Any:
        """The only row. Raises NoResultFound, MultipleResultsFound."""
        if not self:
            raise NoResultFound("No row was found when one was required")
        return self.one_or_none()

    def scalar(self) -> Any:
        """The first column of the first row, or None."""
        return self[0][0] if self else None


class _Shape:
    """The statement's text for lists of these lengths, and the way of each parameter into it."""

    __slots__ = ("names", "places", "text", "ways")

    def __init__(self, text: str, order: Sequence[str] | None, ways: Mapping[str, Way]) -> None:
        """order: names by place, some of them many times, where the driver takes no names."""
        self.text, self.names, self.ways = text, tuple(ways), tuple(ways.values())
        self.places = None if order is None else [self.names.index(name) for name in order]

    def fill(self, values: Values) -> Any:
        """The parameters as the driver takes them. Each is converted once, wherever it stands."""
        filled = [way(values) for way in self.ways]
        if self.places is None:
            return dict(zip(self.names, filled, strict=True))
        return [filled[place] for place in self.places]


class Ready:
    """One statement for one dialect and one set of names of its values."""

    def __init__(self, statement: Any, dialect: Dialect, names: Collection[str]) -> None:
        """names: of the values of each run; of an INSERT they are its columns, and what has a default may be absent."""
        self._dialect: Final = dialect
        self._compiled: Final = statement.compile(dialect=dialect, column_keys=list(names))
        self._names: Final = frozenset(names)
        self._lists: Final = tuple(
            name for name, bind in self._compiled.binds.items() if bind.expanding and name in self._names
        )
        self._shapes: Final[dict[tuple[int, ...], _Shape]] = {}
        columns = statement.exported_columns
        self._columns: Final = len(columns)
        self._row: Any = namedtuple("Row", columns.keys(), rename=True)  # type: ignore[misc]
        processors = [c.type.dialect_impl(dialect).result_processor(dialect, None) for c in columns]
        self._read: Final = [(place, read) for place, read in enumerate(processors) if read is not None]

    def run(self, connection: Connection, values: Values | Sequence[Values]) -> Rows:
        """Run it inside the transaction of a connection. values: of one run; or the rows of an INSERT, at least one.

        Raises DBAPIError as the connection's own `execute` does; a connection that is gone takes its pool along.
        """
        rows = None if isinstance(values, Mapping) else values
        for listener in connection.engine.dispatch.before_cursor_execute:
            listener(connection, None, self._compiled.string, None, None, rows is not None)
        raw: Any = connection.connection.dbapi_connection
        try:
            if isinstance(values, Mapping):
                return self.on_driver(raw if self._dialect.name == "sqlite" else _kept_cursor(connection, raw), values)
            return self._many(raw, values)
        except self._dialect.loaded_dbapi.Error as error:
            gone = self._dialect.is_disconnect(error, raw, None)
            if gone:
                # SQLAlchemy finds out for itself, and trusts no older connection of the pool any more
                with suppress(DBAPIError):
                    connection.exec_driver_sql("SELECT 1")
            raise DBAPIError.instance(
                self._compiled.string, None, error, self._dialect.loaded_dbapi.Error, hide_parameters=True,
                connection_invalidated=gone, dialect=self._dialect,
            ) from error  # fmt: skip

    def _many(self, raw: Any, rows: Sequence[Values]) -> Rows:
        shape, cursor = self._shape(rows[0]), raw.cursor()
        cursor.executemany(shape.text, [shape.fill(row) for row in rows])
        return Rows((), cursor.rowcount)

    def on_driver(self, raw: Any, values: Values) -> Rows:
        """Run it on the driver itself. raw: its connection, or a cursor that is used for nothing else. Raises the driver's errors."""
        shape = self._shape(values)
        if shape.places is None:
            cursor = raw.execute(shape.text, shape.fill(values), prepare=True)
        else:
            cursor = raw.execute(shape.text, shape.fill(values))
        return Rows(map(self._made, cursor.fetchall()) if self._columns else (), cursor.rowcount)

    def _made(self, row: tuple[Any, ...]) -> Any:
        if not self._read:
            return self._row._make(row)
        made = list(row)
        for place, read in self._read:
            if made[place] is not None:
                made[place] = read(made[place])
        return self._row._make(made)

    def _shape(self, values: Values) -> _Shape:
        lengths = tuple([len(values[name]) for name in self._lists])
        shape = self._shapes.get(lengths)
        if shape is None:
            shape = self._shapes[lengths] = self._make_shape(values)
        return shape

    def _make_shape(self, values: Values) -> _Shape:
        state = self._compiled.construct_expanded_state(dict(values))
        places = {
            name: (listed, place)
            for listed, names in state.parameter_expansion.items()
            for place, name in enumerate(names)
        }
        defaults = {column.key: column.default for column in self._compiled.insert_prefetch}
        ways: dict[str, Way] = {}
        for name in state.positiontup or state.parameters:
            listed, place = places.get(name, (name, -1))
            if name in defaults:
                way = _default(defaults[name])
            elif listed not in self._names:
                way = _always(state.parameters[name])
            else:
                way = itemgetter(listed) if place < 0 else _item(listed, place)
            process = self._compiled.binds[listed].type.dialect_impl(self._dialect).bind_processor(self._dialect)
            ways[name] = way if process is None else _then(process, way)
        return _Shape(state.statement, state.positiontup, ways)


def _kept_cursor(connection: Connection, raw: Any) -> Any:
    """The one cursor of a connection of psycopg: a new one would look up again how each type is written and read."""
    kept = connection.info.get(CURSOR)
    if kept is None:
        kept = connection.info[CURSOR] = raw.cursor()
    return kept


def _item(name: str, place: int) -> Way:
    return lambda values: values[name][place]


def _always(value: Any) -> Way:
    return lambda _: value


def _default(default: ColumnDefault) -> Way:
    return (lambda _: default.arg(None)) if default.is_callable else _always(default.arg)


def _then(process: Callable[[Any], Any], way: Way) -> Way:
    return lambda values: process(way(values))
