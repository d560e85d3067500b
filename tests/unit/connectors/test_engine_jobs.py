"""A job opens its ticket once, waits only for a tool that is away, and never repeats what was sent (VA-30, VA-47)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from connectors.cookies import Jar
from connectors.engine.failures import CODES, Failed
from connectors.engine.jobs import WAITS_S, log_in
from connectors.engine.outcome import LoginResult
from connectors.ports import Revealable
from connectors.recipes.load import load
from connectors.scanset import NO_GUARDS
from tests.fakes.device import in_loop
from tests.unit.connectors.recipe_texts import COMPLETE, GROUND
from vault.secret import Secret

RECIPE = load(COMPLETE.encode(), GROUND).recipe
VALUES = {name: Secret(f"value-of-{name}") for name in RECIPE.fields}


class TicketInvalid(Exception):
    """Used, late or void."""


class OneDesk:
    """A desk with one ticket."""

    def __init__(self, values: Mapping[str, Revealable]) -> None:
        self.values, self.tickets = values, {"t-1"}

    async def open_fields(self, ticket: str) -> Mapping[str, Revealable]:
        if ticket not in self.tickets:
            raise TicketInvalid
        self.tickets.discard(ticket)
        return self.values


class Scripted:
    """A driver that fails as told, then succeeds."""

    def __init__(self, failures: list[Failed]) -> None:
        self.failures, self.runs, self.submitted = failures, 0, False

    async def login(self) -> LoginResult:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        return LoginResult(Jar(), Jar(), NO_GUARDS, ())


async def run(
    failures: list[Failed], values: Mapping[str, Revealable] = VALUES
) -> tuple[object, Scripted, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    driver = Scripted(failures)
    outcome = await log_in(OneDesk(values), "t-1", RECIPE, lambda _: driver, sleep=sleep)
    return outcome, driver, waits


@in_loop
async def test_a_tool_that_is_away_is_waited_for_and_nothing_else() -> None:
    outcome, driver, waits = await run([Failed("tool_away")] * 2)
    assert (outcome.state, outcome.code, driver.runs, waits) == ("live", None, 3, [2.0, 4.0])  # type: ignore[attr-defined]
    outcome, driver, waits = await run([Failed("tool_away")] * 9)
    assert (outcome.state, outcome.submitted, driver.runs) == ("ended", False, 1 + len(WAITS_S))  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", CODES)
def test_what_was_sent_is_never_sent_again(code: str) -> None:
    @in_loop
    async def once() -> None:
        outcome, driver, waits = await run([Failed(code, submitted=True)])
        assert (outcome.state, outcome.code, outcome.submitted) == ("needs_human", code, True)  # type: ignore[attr-defined]
        assert (driver.runs, waits) == (1, [])

    once()


@in_loop
async def test_VA_30_a_ticket_opens_once_and_a_missing_value_starts_nothing() -> None:
    desk = OneDesk(VALUES)
    await log_in(desk, "t-1", RECIPE, lambda _: Scripted([]))
    with pytest.raises(TicketInvalid):
        await log_in(desk, "t-1", RECIPE, lambda _: Scripted([]))
    outcome, driver, _ = await run([], {"login_id": Secret("a")})
    assert (outcome.code, driver.runs) == ("field_missing", 0)  # type: ignore[attr-defined]
