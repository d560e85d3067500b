"""The try budget of a tool account in the database: no tool ever locks an account because of us (§7.5, §17 claim 4).

`connectors.engine.budget` counts; here it is stored, under the lock of the account's row, so that two jobs never spend the
same try. A try is counted in the transaction before it is sent, and a crash loses a try and never gains one.
"""

from __future__ import annotations

import uuid
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
    session.execute(select(ToolAccount.id).where(ToolAccount.id == tool_account_id).with_for_update(key_share=True))


def left(session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime) -> int:
    """How many submits are allowed now."""
    return budget.left(_read(session, tool_account_id), recipe, now.timestamp())


def again_at(session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime) -> datetime:
    """When the budget is whole again."""
    tries, window = _read(session, tool_account_id), timedelta(minutes=recipe.login.attempts_window_minutes)
    ends = [now]
    if tries.since is not None:
        ends.append(datetime.fromtimestamp(tries.since, tz=UTC) + window)
    if tries.blocked_until is not None:
        ends.append(datetime.fromtimestamp(tries.blocked_until, tz=UTC))
    return max(ends)


def spend(session: Session, tool_account_id: uuid.UUID, recipe: Recipe, *, now: datetime) -> bool:
    """Count a submit that is about to be sent. False when none is left: nothing may be sent."""
    lock(session, tool_account_id)
    tries = _read(session, tool_account_id)
    if budget.left(tries, recipe, now.timestamp()) < 1:
        return False
    _write(session, tool_account_id, budget.counted(tries, recipe, now.timestamp()))
    return True


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
