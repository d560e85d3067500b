"""The access log of this process: reads in batches within a second, everything else before it is forwarded."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from connectors.ports import AccessRow, Trail

log = logging.getLogger(__name__)
EVERY_S: Final = 0.5
MOST: Final = 20_000


class AccessLog:
    """Rows that wait to be stored."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._rows: list[AccessRow] = []

    def add(self, row: AccessRow) -> None:
        """Store it with the next batch. A full queue drops the row with a note: a page must not fail for it."""
        if len(self._rows) < MOST:
            self._rows.append(row)
        else:
            log.error("access log is full, a row was dropped")

    async def before(self, row: AccessRow) -> None:
        """Store it now; the request is not forwarded when this raises."""
        await self._trail.requests([row])

    async def flush(self) -> None:
        """Store what waits; what cannot be stored waits on."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            await self._trail.requests(rows)
        except Exception as error:  # noqa: BLE001 - the rows are kept and tried again
            log.warning("access log not stored: %s", type(error).__name__)
            self._rows = (rows + self._rows)[:MOST]

    async def run(self) -> None:
        """Flush until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                await self.flush()
        finally:
            await self.flush()
