"""The try budget of one tool account: the tool must never lock it because of us (§7.5, §17 claim 4). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from connectors.recipes.model import Recipe


@dataclass(frozen=True, slots=True)
class Tries:
    """As stored beside the tool account. since: when the first try of this window was counted; seconds since 1970."""

    count: int = 0
    since: float | None = None
    blocked_until: float | None = None


def left(tries: Tries, recipe: Recipe, now: float) -> int:
    """How many submits are allowed now."""
    if tries.blocked_until is not None and now < tries.blocked_until:
        return 0
    return max(0, recipe.login.attempts_max - _current(tries, recipe, now).count)


def counted(tries: Tries, recipe: Recipe, now: float) -> Tries:
    """After one more submit. Counted when it is sent and not when it is answered: an answer may never come."""
    current = _current(tries, recipe, now)
    return replace(current, count=current.count + 1, since=now if current.since is None else current.since)


def succeeded(tries: Tries) -> Tries:
    """After a proven login the tool has forgotten the failures before it."""
    return replace(tries, count=0, since=None)


def blocked(tries: Tries, recipe: Recipe, now: float) -> Tries:
    """The tool says that the account is locked: nothing more is sent for two of its windows."""
    return replace(tries, blocked_until=now + 2 * 60 * recipe.login.attempts_window_minutes)


def _current(tries: Tries, recipe: Recipe, now: float) -> Tries:
    window = 60 * recipe.login.attempts_window_minutes
    if tries.since is not None and now - tries.since >= window:
        return replace(tries, count=0, since=None)
    return tries
