"""One SELECT straight on the driver, for what a gateway asks twice for every page (decision 0060).

`core/ready.py` runs it, as it does every prepared statement; here it has connections of its own besides, because session and pool
cost several times what SQLite needs for the answer. Nothing is kept between two runs but the text.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from idp.core.db import Query
from idp.core.errors import Unavailable
from idp.core.ready import Ready

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


class Straight:
    """A query with one parameter that takes a list, on connections of its own."""

    def __init__(self, engine: Engine, query: Query, *, many: str, others: Iterable[str]) -> None:
        """engine: one that can only read; many: the name of the `expanding` parameter; others: of the rest. Opens nothing yet."""
        self._engine, self._many = engine, many
        self._ready = Ready(query, engine.dialect, (many, *others))
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
        size = 1 << (len(many) - 1).bit_length()  # a statement for each power of two, and not for each number
        filled = {**values, self._many: [*many, *[many[-1]] * (size - len(many))]}
        try:
            raw = self._connection()
            try:
                rows = self._ready.on_driver(raw, filled)
            except BaseException:
                raw.close()
                self.close()  # what has happened to one has most likely happened to all
                raise
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise Unavailable(
                "いまは処理できません。少し待ってから、もう一度試してください。", f"database: {type(error).__name__}"
            ) from error
        self._free.put(raw)
        return rows

    def _connection(self) -> Any:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        proxied = self._engine.raw_connection()
        raw: Any = proxied.dbapi_connection
        proxied.detach()
        if self._engine.dialect.name == "postgresql":
            raw.autocommit = True
            for setting in PLAN:
                raw.execute(setting)
        return raw
