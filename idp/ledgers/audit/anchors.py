"""Anchors: a checkpoint each minute to places out of reach of whoever keeps the database (AU-05), through the outbox.

A place is a folder (another host's mount), an https URL, or `mailto:`. The transaction that stores a checkpoint puts one
delivery per place and period. The note is chosen when it is sent, the newest one then (RE-06), with no transaction open; what
a place took is a row of `audit_anchor`, written with the end of the delivery.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core import ids, mail
from idp.core.db import reading
from idp.core.outbound import Outbound, Refused, Unreachable
from idp.core.settings import Settings
from idp.ledgers.audit import store
from idp.ledgers.audit.models import AuditAnchor, AuditCheckpoint
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.models import OutboxRow
from idp.ledgers.outbox.queue import Order

TOPIC = "anchor"
#: no place may be silent for longer while the log grows: health page and `doctor` say so from then on
LATE = timedelta(minutes=5)
#: it reaches a mailbox of people, who must know what it is for years later
LETTER = """\
{host} の監査ログのチェックポイントです。このメールを消さずに保管してください。あとでログが切りつめられても、これで見つかります。
確かめるには、添付の {name} を保存して: python3 verify.py --key 検証キー --anchor {name}

This is a checkpoint of the audit log of {host}. Keep this mail: should the log be cut short later, it shows.
To check, save the attached {name} and run: python3 verify.py --key KEY --anchor {name}

{note}
{vkey}
"""


class NotTaken(Exception):
    """The place did not take the checkpoint; the text is a short word for the log."""


def put(session: Session, checkpoint: AuditCheckpoint, *, places: list[str], every: timedelta, now: datetime) -> None:
    """One delivery per place and period. A place whose delivery still waits gets the newest checkpoint when it is sent."""
    period = int(now.timestamp() // every.total_seconds())
    for place in places:
        waiting = select(OutboxRow.id).where(
            OutboxRow.topic == TOPIC, OutboxRow.destination == place, OutboxRow.state != "done"
        )
        if session.scalar(waiting.limit(1)) is None:
            queue.put(
                session, topic=TOPIC, ref=checkpoint.id, destination=place, dedup_key=f"anchor:{period}:{place}"[:200], now=now,
                give_up_after=timedelta(days=3650),
            )  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One attempt. failure: None when the place took it, else a short word for the log."""

    checkpoint_id: uuid.UUID
    size: int
    failure: str | None


def carry(order: Order, *, settings: Settings, outbound: Outbound) -> Sent:
    """Hand the newest checkpoint to the order's place. Never raises for a fault of the place."""
    with reading() as session:
        newest, origin = store.latest(session), store.origin(session)
    if newest is None or origin is None:
        raise RuntimeError("an anchor without a checkpoint")
    try:
        _hand_over(order.destination, newest, origin.vkey, settings=settings, outbound=outbound)
    except NotTaken as refusal:
        return Sent(newest.id, newest.size, str(refusal))
    return Sent(newest.id, newest.size, None)


def finished(session: Session, order: Order, sent: Sent, *, now: datetime) -> bool:
    """Write the end of an attempt under the order's fence. False: the lease was lost."""
    if sent.failure is not None:
        at = min(queue.next_try_at(order, now=now), now + LATE)
        return queue.retry_later(session, order, at=at, outcome=sent.failure[:40])
    if not queue.done(session, order, outcome="taken", now=now):
        return False
    row = AuditAnchor(
        id=ids.new_id(now), created_at=now, place=order.destination, checkpoint_id=sent.checkpoint_id, size=sent.size
    )
    session.add(row)
    session.flush()
    return True


def late(session: Session, places: list[str], *, now: datetime) -> list[str]:
    """Places that have been silent for too long although there is something they have not taken: an alarm (AU-05)."""
    newest = store.latest(session)
    if newest is None:
        return []
    silent = []
    for place, last in store.last_anchors(session, places).items():
        oldest_missing = session.scalar(
            select(AuditCheckpoint.created_at)
            .where(AuditCheckpoint.origin_id == newest.origin_id, AuditCheckpoint.size > (last[1] if last else -1))
            .order_by(AuditCheckpoint.size)
            .limit(1)
        )
        if oldest_missing is not None and now - oldest_missing > LATE:
            silent.append(place)
    return silent


def _hand_over(place: str, newest: AuditCheckpoint, vkey: str, *, settings: Settings, outbound: Outbound) -> None:
    """No transaction is open here. Raises NotTaken."""
    if place.startswith("mailto:"):
        subject = f"Sekisho checkpoint {newest.size} ({settings.issuer_host})"
        try:
            mail.send(
                settings, to=place.removeprefix("mailto:"), subject=subject, files=_files(newest, vkey),
                text=LETTER.format(host=settings.issuer_host, name=_name(newest), note=newest.note, vkey=vkey),
            )  # fmt: skip
        except mail.NotSent as error:
            raise NotTaken(str(error)) from error
    elif place.startswith("https:"):
        body = json.dumps({"checkpoint": newest.note, "vkey": vkey}, ensure_ascii=False).encode()
        try:
            answer = outbound.post(place, body, headers={"content-type": "application/json"})
        except (Refused, Unreachable) as error:
            raise NotTaken(getattr(error, "kind", "refused")) from error
        if not 200 <= answer.status < 300:
            raise NotTaken(f"http_{answer.status}")
    else:
        try:
            _write(Path(place), newest, vkey)
        except OSError as error:
            raise NotTaken(type(error).__name__) from error


def _write(folder: Path, newest: AuditCheckpoint, vkey: str) -> None:
    """`checkpoint-<size>.txt`, whole and on the disk, and the key beside it. The folder must exist: a mount that is away must
    not be replaced by an empty folder of the same name."""
    for name, text in _files(newest, vkey).items():
        fresh = folder / f".{name}.new"
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / name)


def _name(newest: AuditCheckpoint) -> str:
    return f"checkpoint-{newest.size:012}.txt"


def _files(newest: AuditCheckpoint, vkey: str) -> dict[str, str]:
    """What a second place keeps: the checkpoint, and the key that it is checked with."""
    return {_name(newest): newest.note, "log.vkey": f"{vkey}\n"}
