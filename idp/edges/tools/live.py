"""The live check as the gateway's port has it (VA-50, D8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.ports import GatewayView
from idp.core import clock
from idp.domain.gateway import gateway_sessions
from idp.edges.tools.straight import Straight
from idp.edges.tools.threads import Checkers, Threads


class Live:
    """The live check (VA-50): one statement for all that wait for one, straight on the driver."""

    def __init__(self, threads: Threads) -> None:
        self._checkers = Checkers()
        self._query = Straight(threads.reading, gateway_sessions.live_query(), many="digests", others=("now",))

    async def alive(self, cookie_digests: Sequence[bytes]) -> Mapping[bytes, GatewayView]:
        """See `connectors.ports.Live`."""
        now = clock.now()
        rows = await self._checkers.do(lambda: self._query.rows(cookie_digests, {"now": now}))
        return {bytes(row.cookie_digest): _view(row) for row in rows}

    def close(self) -> None:
        """Nobody asks any more."""
        self._checkers.close()
        self._query.close()


def _view(row: Any) -> GatewayView:
    return GatewayView(
        gateway_session=str(row.id), tool_session=str(row.tool_session_id), recipe_key=f"{row.recipe_id}:{row.tool_account_id}",
        host=row.host, hosts=row.hosts, state=row.state, generation=row.generation, jar_version=row.jar_version, code=row.code,
    )  # fmt: skip
