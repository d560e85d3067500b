"""The try budget of a tool account in the database: no tool ever locks an account because of us (§7.5, §17 claim 4).

`connectors.engine.budget` counts; here it is stored, under the lock of the account's row, so that two jobs never spend the
same try. A try is counted in the transaction before it is sent, and a crash loses a try and never gains one.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from connectors.engine import budget
from connectors.engine.budget import Tries
from connectors.recipes.model import Recipe
from idp.core.db import change
from idp.domain.tools.models import ToolAccount


def lock(session: Session, tool_account_id: uuid.UUID) -> None:
    """Take the account's row: jobs at one tool account run one after the other (VA-47).

    Not FOR UPDATE, which the foreign keys of a launch would wait for.
    """
    session.scalar(select(ToolAccount.id).where(ToolAccount.id == tool_account_id).with_for_update(key_share=True))


def left(
    session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime, since: datetime | None = None
) -> int:
    """How many submits are allowed now.

    since: tries counted from then on are not forgotten when the window is over, only when a login is proven or a person has
    looked. A rotation in doubt tries passwords of which one is wrong, and not every tool forgets failures with time.
    """
    tries = _read(session, tool_account_id)
    if tries.blocked_until is not None and now.timestamp() < tries.blocked_until:
        return 0
    return budget.left(replace(tries, blocked_until=None), recipe, _window_at(tries, since, now))


def was_used(session: Session, tool_account_id: uuid.UUID, *, since: datetime) -> bool:
    """Whether an unproven try was counted since then."""
    tries = _read(session, tool_account_id)
    return tries.since is not None and tries.since >= since.timestamp()


def again_at(session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime) -> datetime:
    """When the budget is whole again."""
    tries, window = _read(session, tool_account_id), timedelta(minutes=recipe.login.attempts_window_minutes)
    ends = [now]
    if tries.since is not None:
        ends.append(datetime.fromtimestamp(tries.since, tz=UTC) + window)
    if tries.blocked_until is not None:
        ends.append(datetime.fromtimestamp(tries.blocked_until, tz=UTC))
    return max(ends)


def spend(
    session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime, since: datetime | None = None
) -> bool:
    """Count a submit that is about to be sent. False when none is left: nothing may be sent. since: as in `left`."""
    lock(session, tool_account_id)
    if left(session, tool_account_id, recipe, now=now, since=since) < 1:
        return False
    tries = _read(session, tool_account_id)
    _write(session, tool_account_id, budget.counted(tries, recipe, _window_at(tries, since, now)))
    return True


def _window_at(tries: Tries, since: datetime | None, now: datetime) -> float:
    """The instant at which the window is looked at: inside it, for tries that are not forgotten with time."""
    kept = since is not None and tries.since is not None and tries.since >= since.timestamp()
    return tries.since if kept and tries.since is not None else now.timestamp()


def succeeded(session: Session, tool_account_id: uuid.UUID) -> None:
    """A login was proven: the tool has forgotten the failures before it."""
    lock(session, tool_account_id)
    _write(session, tool_account_id, budget.succeeded(_read(session, tool_account_id)))


def blocked(session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime) -> None:
    """The tool says that the account is locked: nothing is sent for two of its windows."""
    lock(session, tool_account_id)
    _write(session, tool_account_id, budget.blocked(_read(session, tool_account_id), recipe, now.timestamp()))


def _read(session: Session, tool_account_id: uuid.UUID) -> Tries:
    row = session.execute(
        select(ToolAccount.tries, ToolAccount.tries_since, ToolAccount.blocked_until).where(
            ToolAccount.id == tool_account_id
        )
    ).one()
    since, until = row.tries_since, row.blocked_until
    return Tries(row.tries, since.timestamp() if since else None, until.timestamp() if until else None)


def _write(session: Session, tool_account_id: uuid.UUID, tries: Tries) -> None:
    change(
        session,
        update(ToolAccount)
        .where(ToolAccount.id == tool_account_id)
        .values(
            tries=tries.count,
            tries_since=datetime.fromtimestamp(tries.since, tz=UTC) if tries.since is not None else None,
            blocked_until=datetime.fromtimestamp(tries.blocked_until, tz=UTC)
            if tries.blocked_until is not None
            else None,
        ),
    )
