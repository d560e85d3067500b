"""The stream: batches of sealed rows through the outbox, in order, at least once, none left out (AU-13).

The cursor moves in the transaction that writes the delivery, and only over leaf indexes: a row gets one when it is sealed,
without a gap, so that no slow transaction can appear behind the cursor. One batch is under way at a time; the next begins
where it ended. A batch that was sent and not confirmed is sent again; `id` tells a SIEM that it has the event already.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from idp.core import ids, syslog
from idp.core.db import change, insert_into, reading
from idp.core.outbound import Outbound, Refused, Unreachable
from idp.core.settings import Settings
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, record
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.models import OutboxRow
from idp.ledgers.outbox.queue import Order
from idp.ledgers.siem import shape
from idp.ledgers.siem.models import AuditReader

log = logging.getLogger(__name__)

TOPIC = "siem"
#: a batch is never given up: a row that was skipped is a row that nobody misses
FOR_EVER = timedelta(days=36_500)
SLOWEST = timedelta(minutes=1)
SHAPES: dict[str, Callable[..., dict[str, Any]]] = {"plain": shape.plain, "ocsf": shape.ocsf}


def reader(session: Session, name: str, *, start: int, now: datetime) -> AuditReader:
    """The cursor of a name, made at `start` the first time."""
    row = {"id": ids.new_id(now), "created_at": now, "name": name, "next_index": start}
    session.execute(insert_into(session, AuditReader).values(row).on_conflict_do_nothing(index_elements=["name"]))
    return session.execute(select(AuditReader).where(AuditReader.name == name)).scalar_one()


def sealed(session: Session) -> int:
    """How many rows are sealed: the leaf index that comes next."""
    top = session.scalar(select(func.max(AuditEvent.leaf_index)))
    return 0 if top is None else top + 1


def put(session: Session, *, settings: Settings, now: datetime) -> bool:
    """Write the next delivery, unless one is under way or nothing is new. A new stream begins at what is sealed next.

    The cursor's row is taken before anything is looked at: of two workers the second one sees the batch of the first.
    """
    if not settings.siem_url:
        return False
    top = sealed(session)
    reader(session, TOPIC, start=top, now=now)
    row = select(AuditReader.next_index).where(AuditReader.name == TOPIC).with_for_update(key_share=True)
    begin = session.execute(row).scalar_one()
    end = min(begin + settings.siem_batch, top)
    if end <= begin or session.scalar(_under_way()) is not None:
        return False
    change(session, update(AuditReader).where(AuditReader.name == TOPIC).values(next_index=end))
    queue.put(
        session, topic=TOPIC, destination=TOPIC, dedup_key=f"siem:{ids.new_id(now)}", now=now, give_up_after=FOR_EVER, begin=begin, end=end,
    )  # fmt: skip
    return True


def _under_way() -> Any:
    return select(OutboxRow.id).where(OutboxRow.topic == TOPIC, OutboxRow.state.in_(("waiting", "leased"))).limit(1)


def position(session: Session) -> int | None:
    """The leaf index that the next batch begins with; None before the first sweep with a destination."""
    return session.scalar(select(AuditReader.next_index).where(AuditReader.name == TOPIC))


def rewind(session: Session, index: int, *, now: datetime) -> None:
    """Go on from this leaf index: 0 sends the whole log again. The batch under way is finished first."""
    reader(session, TOPIC, start=index, now=now)
    change(session, update(AuditReader).where(AuditReader.name == TOPIC).values(next_index=index))


def carry(order: Order, *, settings: Settings, outbound: Outbound) -> str | None:
    """Send one batch, as it is now: what was erased meanwhile does not leave. No transaction is open while it is sent.

    Returns None when it was taken, else a short word for the log. Never raises for a fault of the SIEM.
    """
    if not settings.siem_url:
        return "no_siem_url"
    begin, end = order.detail["begin"], order.detail["end"]
    with reading() as session:
        rows = session.scalars(
            select(AuditEvent)
            .where(AuditEvent.leaf_index >= begin, AuditEvent.leaf_index < end)
            .order_by(AuditEvent.leaf_index)
        ).all()
    if len(rows) != end - begin:
        return "rows_missing"
    try:
        _hand_over(rows, settings=settings, outbound=outbound)
    except syslog.NotSent as error:
        return f"syslog_{error}"
    except Unreachable as error:
        return error.kind
    except Refused:
        return "refused"
    return None


def _hand_over(rows: Sequence[AuditEvent], *, settings: Settings, outbound: Outbound) -> None:
    host = settings.issuer_host
    if settings.siem_url.startswith("syslog+"):
        syslog.send(settings.siem_url, [shape.syslog(row, host=host) for row in rows], ca_file=settings.siem_ca_file)
        return
    made = SHAPES[settings.siem_shape]
    body = b"\n".join(json.dumps(made(row, host=host), ensure_ascii=False).encode("utf-8", "replace") for row in rows)
    headers = {"content-type": "application/x-ndjson"}
    if settings.siem_token_file is not None:
        headers["authorization"] = f"Bearer {_token(settings.siem_token_file)}"
    answer = outbound.post(settings.siem_url, body, headers=headers)
    if not 200 <= answer.status < 300:
        raise Unreachable(f"http_{answer.status}")


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise Unreachable("token_file", type(error).__name__) from error


def finished(session: Session, order: Order, failure: str | None, *, settings: Settings, now: datetime) -> bool:
    """Write the end of an attempt under the order's fence, and the next batch with it. False: the lease was lost."""
    if failure is not None:
        at = min(queue.next_try_at(order, now=now), now + SLOWEST)
        return queue.retry_later(session, order, at=at, outcome=failure[:40])
    if not queue.done(session, order, outcome="taken", now=now):
        return False
    put(session, settings=settings, now=now)
    return True


def lag(session: Session, *, now: datetime) -> timedelta:
    """How old the oldest sealed row is that the SIEM has not taken; zero when it has all of them."""
    waiting = session.scalars(
        select(OutboxRow.detail).where(OutboxRow.topic == TOPIC, OutboxRow.state.in_(("waiting", "leased")))
    ).all()
    begins = [detail["begin"] for detail in waiting]
    cursor = position(session)
    if cursor is None:
        return timedelta(0)
    oldest = session.scalar(select(AuditEvent.created_at).where(AuditEvent.leaf_index == min([*begins, cursor])))
    return now - oldest if oldest is not None else timedelta(0)


def watch(session: Session, *, settings: Settings, now: datetime) -> timedelta:
    """Say once that the stream fell behind, and once that it caught up: in the log of events and in that of the process."""
    late = lag(session, now=now) if settings.siem_url else timedelta(0)
    behind = late > timedelta(seconds=settings.siem_alarm_s)
    moved = update(AuditReader).where(
        AuditReader.name == TOPIC,
        AuditReader.behind_since.is_(None) if behind else AuditReader.behind_since.is_not(None),
    )
    if change(session, moved.values(behind_since=now - late if behind else None)):
        tag = Tag.STREAM_BEHIND if behind else Tag.STREAM_CAUGHT_UP
        record(
            session, tag, actor=SYSTEM, now=now, result="refused" if behind else "ok", seconds=int(late.total_seconds())
        )
        (log.error if behind else log.info)(
            "siem stream", extra={"behind": behind, "seconds": int(late.total_seconds())}
        )
    return late
