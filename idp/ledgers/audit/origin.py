"""A new origin: an operator's word that the log goes on after the sealer refused (AU-03).

The tree is kept as it is in the database: rows, places and tiles stay, so that what an old checkpoint proves about them stays
provable. Only the name under which heads are signed changes, and a signed link says from what, how far the old one had been
signed, where the new one begins, and why.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, transaction
from idp.core.errors import Conflict, Invalid
from idp.core.logkey import LogKey
from idp.ledgers.audit import merkle, note, store
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.head import Head, HeadFile, HeadRefused
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditOrigin, AuditSealer

LINK = "sekisho-origin-link"


def new_origin(key: LogKey, head: HeadFile, *, reason: str, actor: Actor, now: datetime) -> AuditOrigin:
    """Start a new origin. reason: one line, for whoever reads the log later. Raises Invalid, Conflict."""
    reason = " ".join(reason.split())
    if not reason or len(reason) > 300:
        raise Invalid("理由を1〜300文字で書いてください。", field="reason")
    try:
        remembered = head.read()
    except HeadRefused:
        remembered = None  # it cannot be read, which may be why we are here; the link then says what the database knows
    key.open()
    with transaction(reserved=True) as session:
        made, root = _write(session, key, remembered, reason=reason, actor=actor, now=now)
    head.replace(Head(made.name, made.vkey, made.began_at_size, root.hex()))
    return made


def _write(
    session: Session, key: LogKey, remembered: Head | None, *, reason: str, actor: Actor, now: datetime
) -> tuple[AuditOrigin, bytes]:
    # a higher fence: a sealer that was about to sign under the old origin is refused
    change(session, update(AuditSealer).values(fence=AuditSealer.fence + 1, holder="", lease_until=None))
    before, state = store.origin(session), session.scalars(select(AuditSealer)).one_or_none()
    if before is None or state is None:
        raise Conflict("このデータベースには、まだ封印された監査ログがありません。", "nothing was ever sealed")
    size = store.leaves(session)
    try:
        root = merkle.root(store.reader(session), size)
    except ValueError as error:
        raise Conflict("木が壊れています。バックアップから戻してください。", str(error)) from error
    if state.size != size:
        raise Conflict("行と木の大きさが違います。バックアップから戻してください。", f"{state.size} and {size}")
    last = store.latest(session)
    signed_size = remembered.size if remembered else last.size if last else before.began_at_size
    signed_root = remembered.root if remembered else last.root.hex() if last else ""
    old = remembered.origin if remembered else before.name
    names = session.scalars(select(AuditOrigin.name).order_by(AuditOrigin.id)).all()
    name = f"{names[0]}/{len(names) + 1}"
    text = (
        f"{LINK}\n{name}\nfrom {old}\nsigned {signed_size} {signed_root or '-'}\nbegins {size} {root.hex()}\nreason {reason}\n"
    )  # fmt: skip
    made = AuditOrigin(
        id=ids.new_id(now), created_at=now, name=name, vkey=note.vkey(name, key.public), began_at_size=size,
        link=note.signed(text, name, key.public, key.sign),
    )  # fmt: skip
    session.add(made)
    state.alarm = state.alarm_at = None
    record(
        session, Tag.ORIGIN_STARTED, actor=actor, now=now, origin=name, before=old, signed_size=signed_size,
        signed_root=signed_root, begins=size, root=root.hex(), reason=reason,
    )  # fmt: skip
    session.flush()
    return made, root
