"""The one place that reads the wall clock (house.md 5). Everything else takes `now` as a parameter."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The current instant, aware, UTC. Called once per view, command or worker step."""
    return datetime.now(UTC)  # noqa: TID251 - this module is the fence that the rule protects
