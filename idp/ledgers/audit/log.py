"""Writing the audit log. `record()` is called inside the transaction of the change, so that neither exists alone (AU-01)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from idp import __version__
from idp.core import ids
from idp.core.db import add_all, change, insert_into
from idp.ledgers.audit import leaf
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent, RefusalCount


@dataclass(frozen=True)
class Actor:
    """Who acts. kind: person, system (worker, schedule), cli, client, anonymous; address and request_id: where from."""

    kind: str
    account_id: uuid.UUID | None = None
    request_id: str = ""
    address: str = ""


SYSTEM = Actor("system")


def record(
    session: Session,
    tag: Tag,
    /,
    *,
    actor: Actor,
    now: datetime,
    result: str = "ok",
    company_id: uuid.UUID | None = None,
    store_id: uuid.UUID | None = None,
    subject_id: uuid.UUID | None = None,
    application_id: uuid.UUID | None = None,
    personal: dict[str, str] | None = None,
    **detail: Any,
) -> None:
    """Insert one row. result: ok or refused; subject_id: the account it is about; detail: ids and codes, no names.

    personal: whatever speaks of a person; it is kept apart with a salt of its own, so that it can be erased (AU-09). The
    address of the actor joins it. Digests and the place in the tree are the sealer's: nothing is hashed here.
    """
    mine = {"address": actor.address, **(personal or {})} if actor.address else personal or None
    row = {
        "id": ids.new_id(now), "created_at": now, "tag": tag.value, "result": result,
        "actor_kind": actor.kind, "actor_id": actor.account_id, "company_id": company_id, "store_id": store_id,
        "subject_id": subject_id, "application_id": application_id, "request_id": actor.request_id,
        "software": __version__, "detail": {k: _plain(v) for k, v in detail.items() if v is not None},
        "personal": mine, "personal_salt": ids.new_bytes(16) if mine else None, "leaf_version": leaf.VERSION,
    }  # fmt: skip
    add_all(session, AuditEvent, [row])


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def count_refusal(
    session: Session, tag: Tag, key: str, *, now: datetime, company: Select[uuid.UUID] | None = None
) -> None:
    """Count an anonymous refusal; `flush_refusals` turns the closed minute into one row. key: at most 128 characters.

    company: finds the company whose log it belongs to; it runs inside the INSERT.
    """
    row = {
        "id": ids.new_id(now),
        "created_at": now,
        "tag": tag.value,
        "key": key[:128],
        "minute": _minute(now),
        "count": 1,
        "company_id": company.scalar_subquery() if company is not None else None,
    }
    statement = insert_into(session, RefusalCount).values(row)
    session.execute(
        statement.on_conflict_do_update(index_elements=["tag", "key", "minute"], set_={"count": RefusalCount.count + 1})
    )


def flush_refusals(session: Session, *, now: datetime) -> int:
    """Write one audit row for each closed minute of refusals and forget the counter. Returns the number of rows."""
    closed = session.execute(select(RefusalCount).where(RefusalCount.minute < _minute(now)).limit(500)).scalars().all()
    for row in closed:
        if not change(session, delete(RefusalCount).where(RefusalCount.id == row.id)):
            continue  # another worker took it
        record(session, Tag(row.tag), actor=Actor("anonymous"), now=now, result="refused",
               company_id=row.company_id, personal={"key": row.key}, minute=row.minute, count=row.count)  # fmt: skip
    return len(closed)


def _minute(now: datetime) -> datetime:
    return now - timedelta(seconds=now.second, microseconds=now.microsecond)
