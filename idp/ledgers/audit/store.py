"""Reading the sealed log: tiles, checkpoints, proofs. Used by the sealer, by packs, by the verifier of the database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.errors import Conflict
from idp.ledgers.audit import merkle
from idp.ledgers.audit.models import AuditAnchor, AuditCheckpoint, AuditEvent, AuditOrigin, AuditTile

PAGE = 2000


def reader(session: Session) -> merkle.Read:
    """Tiles of this session's snapshot; each is read once. Raises ValueError for one that is missing."""
    seen: dict[tuple[int, int], bytes] = {}

    def read(level: int, position: int) -> bytes:
        if (level, position) not in seen:
            hashes = session.scalar(
                select(AuditTile.hashes).where(AuditTile.level == level, AuditTile.position == position)
            )
            if hashes is None:
                raise ValueError(f"tile {level}/{position} is missing")
            seen[level, position] = bytes(hashes)
        return seen[level, position]

    return read


def leaves(session: Session) -> int:
    """How many leaf hashes the tiles hold."""
    last = session.execute(
        select(AuditTile.position, AuditTile.hashes)
        .where(AuditTile.level == 0)
        .order_by(AuditTile.position.desc())
        .limit(1)
    ).one_or_none()
    return last.position * merkle.WIDTH + len(last.hashes) // merkle.HASH if last else 0


def origin(session: Session) -> AuditOrigin | None:
    """The origin in use: the newest; None before the first sealing."""
    return session.scalars(select(AuditOrigin).order_by(AuditOrigin.id.desc()).limit(1)).one_or_none()


def latest(session: Session) -> AuditCheckpoint | None:
    """The newest checkpoint of the origin in use."""
    now = origin(session)
    if now is None:
        return None
    return session.scalars(
        select(AuditCheckpoint)
        .where(AuditCheckpoint.origin_id == now.id)
        .order_by(AuditCheckpoint.size.desc())
        .limit(1)
    ).one_or_none()


def inclusion(session: Session, index: int, checkpoint: AuditCheckpoint) -> list[bytes]:
    """The path of a leaf to a checkpoint. Raises Conflict when that checkpoint is from before the leaf."""
    if index >= checkpoint.size:
        raise Conflict("この行は、まだ封印されていません。数秒後にもう一度試してください。", f"leaf {index}")
    return merkle.inclusion(reader(session), index, checkpoint.size)


def rows(session: Session, first: int, end: int) -> Iterator[Any]:
    """The rows of places first…end-1, in order, a page at a time: no cursor is held open over millions of them."""
    while first < end:
        last = min(first + PAGE, end)
        query = select(AuditEvent.__table__).where(AuditEvent.leaf_index >= first, AuditEvent.leaf_index < last)
        yield from session.execute(query.order_by(AuditEvent.leaf_index)).all()
        first = last


def last_anchors(session: Session, places: list[str]) -> dict[str, tuple[datetime, int] | None]:
    """For each configured place when it last took a checkpoint, and of which size; None for never."""
    found: dict[str, tuple[datetime, int] | None] = {}
    for place in places:
        row = session.execute(
            select(AuditAnchor.created_at, AuditAnchor.size)
            .where(AuditAnchor.place == place)
            .order_by(AuditAnchor.created_at.desc())
            .limit(1)
        ).one_or_none()
        found[place] = (row.created_at, row.size) if row else None
    return found
