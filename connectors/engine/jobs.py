"""One login job from its use-ticket to its outcome: the only place where a ticket becomes values (VA-30, VA-47).

The caller (`idp/edges/tools`) has leased the job and signed the ticket; it stores the outcome in one transaction. A job that
sent something is never run again by a machine, whatever became of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from connectors.engine.failures import Failed
from connectors.engine.outcome import LoginResult
from connectors.ports import Desk, Revealable
from connectors.recipes.model import Recipe

#: waits before another look at a tool that is away, in seconds; only while nothing was sent (§4, tool session)
WAITS_S: Final = (2.0, 4.0, 8.0)
Sleep = Callable[[float], Awaitable[None]]


class Driver(Protocol):
    """The http or the browser driver."""

    submitted: bool

    async def login(self) -> LoginResult:
        """Log in and prove it. Raises Failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is stored. code: None for a proven login; state: of the tool session; submitted: whether a try was used."""

    result: LoginResult | None
    code: str | None
    state: str
    submitted: bool
    line: int | None = None


async def log_in(
    desk: Desk,
    ticket: str,
    recipe: Recipe,
    make_driver: Callable[[Mapping[str, Revealable]], Driver],
    *,
    sleep: Sleep = asyncio.sleep,
) -> Outcome:
    """Open the fields with the ticket, once, and log in. Raises what the desk raises: nothing was opened then.

    make_driver: gives a fresh driver for each attempt; recipe.login.driver says which kind, and it is never switched here.
    """
    values = await desk.open_fields(ticket)
    missing = [name for name in recipe.fields if name not in values]
    if missing:
        return Outcome(None, "field_missing", "needs_human", submitted=False)
    failure = Failed("tool_away")
    for wait in (0.0, *WAITS_S):
        if wait:
            await sleep(wait)
        try:
            result = await make_driver(values).login()
        except Failed as failed:
            failure = failed
            if not failed.may_repeat:
                break
        else:
            return Outcome(result, None, "live", submitted=True)
    away = failure.code == "tool_away" and not failure.submitted
    return Outcome(
        None, failure.code, "ended" if away else "needs_human", submitted=failure.submitted, line=failure.line
    )
