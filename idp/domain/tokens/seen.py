"""Replay memory: a message is accepted once, whichever worker gets it (RE-22)."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, prepared, run
from idp.domain.tokens.models import SeenMessage


def first_time(session: Session, sender: str, message_id: str, *, until: datetime, now: datetime) -> bool:
    """Remember a message; False when it was here before. until: no later is it valid. One INSERT is the claim."""
    digest = hashlib.sha256(f"{sender}\0{message_id}".encode()).digest()
    row = {"id": ids.new_id(now), "created_at": now, "message_digest": digest, "ends_at": until}
    return run(session, _remember(session.get_bind().dialect.name), row).first() is not None


@prepared
def _remember(dialect: str) -> Any:
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(SeenMessage)
    return insert.on_conflict_do_nothing(index_elements=["message_digest"]).returning(SeenMessage.__table__.c.id)


def sweep(session: Session, *, now: datetime) -> int:
    """Forget messages that are too old to be accepted anyway. Returns how many."""
    return change(session, delete(SeenMessage).where(SeenMessage.ends_at < now))
