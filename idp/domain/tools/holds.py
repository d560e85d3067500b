"""A tool account held by somebody who works at it outside of jobs and rotations: a certification (VA-47).

Leased with a fence as those are, on the account's own row: what died lets go after 20 s, and what wakes up late is told so.
Taken with the account's row locked and after `login_jobs.is_busy`, which asks for holds as well.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.orm import Session

from idp.core.db import claim
from idp.domain.tools.models import ToolAccount

LEASE: Final = timedelta(seconds=20)


@dataclass(frozen=True)
class Hold:
    """A tool account under a fence."""

    tool_account_id: uuid.UUID
    fence: int


def take(session: Session, tool_account_id: uuid.UUID, *, now: datetime) -> Hold | None:
    """Hold an account for 20 s; None while somebody else does."""
    free = or_(ToolAccount.held_until.is_(None), ToolAccount.held_until <= now)
    taken = claim(
        session,
        update(ToolAccount)
        .where(ToolAccount.id == tool_account_id, free)
        .values(held_until=now + LEASE, hold_fence=ToolAccount.hold_fence + 1),
    )
    if not taken:
        return None
    fence = session.scalar(select(ToolAccount.hold_fence).where(ToolAccount.id == tool_account_id))
    return Hold(tool_account_id, fence or 0)


def extend(session: Session, hold: Hold, *, now: datetime) -> bool:
    """Hold it for another 20 s. False: it was taken away or ran out, and nothing more may be sent."""
    return claim(session, update(ToolAccount).where(*_mine(hold, now)).values(held_until=now + LEASE))


def release(session: Session, hold: Hold, *, now: datetime) -> bool:
    """Let go. False: it ran out before, so somebody else may have worked there meanwhile, and what was seen proves nothing."""
    return claim(session, update(ToolAccount).where(*_mine(hold, now)).values(held_until=None))


def is_held(hold: Hold, now: datetime) -> ColumnElement[bool]:
    """For the WHERE of what is done under the hold."""
    return exists(select(ToolAccount.id).where(*_mine(hold, now)))


def _mine(hold: Hold, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        ToolAccount.id == hold.tool_account_id, ToolAccount.hold_fence == hold.fence, ToolAccount.held_until > now,
    )  # fmt: skip
