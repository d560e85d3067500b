"""One SELECT straight on the driver, for what a gateway asks twice for every page (decision 0060).

The statement, its types and its conditions are those that SQLAlchemy has; only the running goes without it, because its
session, pool and rows cost ten times what SQLite needs for the answer. Nothing is kept between two runs but the text.
"""

from __future__ import annotations

import queue
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from idp.core.db import Query
from idp.core.errors import Unavailable

#: values in one statement; more are asked in turns
MOST: Final = 1024
#: The statement goes from one row by primary keys to the next. Planning that anew took longer than the answer, and without
#: statistics, right after an installation or a restore, PostgreSQL joined whole tables instead: 30 ms for one answer.
PLAN: Final = (
    "SET plan_cache_mode = force_generic_plan",
    "SET join_collapse_limit = 1",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The statement for so many values: its text, and how each parameter gets its value."""

    text: str
    fill: tuple[tuple[str, str, int, Callable[[Any], Any] | None], ...]
    named: bool


class Straight:
    """A query with one parameter that takes a list, on connections of its own."""

    def __init__(self, engine: Engine, query: Query, *, many: str) -> None:
        """engine: one that can only read; many: the name of the `expanding` parameter. Opens nothing yet."""
        self._engine, self._many = engine, many
        self._dialect = engine.dialect
        self._compiled: Any = query.compile(dialect=self._dialect)
        columns = query.selected_columns
        self._row: Any = namedtuple("Row", columns.keys())  # type: ignore[misc]
        self._read = [
            column.type.dialect_impl(self._dialect).result_processor(self._dialect, None) for column in columns
        ]
        self._shapes: dict[int, _Shape] = {}
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def rows(self, many: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
        """The rows for all of `many`, as the database has them when this is called. values: of the other parameters.

        Raises Unavailable when the database does not answer; the connection is not used again then.
        """
        found: list[Any] = []
        for start in range(0, len(many), MOST):
            found += self._some(many[start : start + MOST], values)
        return found

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while True:
            try:
                self._free.get_nowait().close()
            except queue.Empty:
                return

    def _some(self, many: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
        size = 1 << (len(many) - 1).bit_length()
        shape = self._shapes.get(size)
        if shape is None:
            shape = self._shapes[size] = self._shape(size, values)
        padded = [*many, *[many[-1]] * (size - len(many))]
        filled: dict[str, Any] = {}
        for key, name, place, process in shape.fill:
            value = padded[place] if place >= 0 else values.get(name)
            filled[key] = value if process is None else process(value)
        try:
            raw = self._connection()
            try:
                rows = self._ask(raw, shape, filled)
            except BaseException:
                raw.close()
                self.close()  # what has happened to one has most likely happened to all
                raise
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise Unavailable(
                "いまは処理できません。少し待ってから、もう一度試してください。", f"database: {type(error).__name__}"
            ) from error
        self._free.put(raw)
        return [
            self._row._make(
                value if read is None or value is None else read(value)
                for read, value in zip(self._read, row, strict=True)
            )
            for row in rows
        ]

    def _ask(self, raw: Any, shape: _Shape, filled: dict[str, Any]) -> Sequence[Any]:
        found: Sequence[Any]
        if shape.named:
            found = raw.execute(shape.text, filled, prepare=True).fetchall()
        else:
            found = raw.execute(shape.text, tuple(filled.values())).fetchall()
        return found

    def _shape(self, size: int, values: Mapping[str, Any]) -> _Shape:
        state = self._compiled.construct_expanded_state({**values, self._many: [None] * size})
        places = {name: place for place, name in enumerate(state.parameter_expansion[self._many])}
        named = state.positiontup is None
        fill = []
        for number, name in enumerate(state.parameters if named else state.positiontup):
            fixed = name not in places and name not in values
            process = state.processors.get(name)
            key = name if named else str(number)
            fill.append(
                (key, name, places.get(name, -1), _always(state.parameters[name], process) if fixed else process)
            )
        return _Shape(state.statement, tuple(fill), named)

    def _connection(self) -> Any:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        proxied = self._engine.raw_connection()
        raw: Any = proxied.dbapi_connection
        proxied.detach()
        if self._dialect.name == "postgresql":
            raw.autocommit = True
            for setting in PLAN:
                raw.execute(setting)
        return raw


def _always(value: Any, process: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """A constant of the query itself."""
    made = value if process is None else process(value)
    return lambda _: made
