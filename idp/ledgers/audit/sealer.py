"""The sealer: puts committed rows into the tree and signs checkpoints (D1, D15, AU-02 to AU-04).

One at a time, by a lease with a fence. A snapshot takes every visible row without `leaf_index`, by that status and never by a
position: a row whose transaction commits late is found by the next snapshot, whatever its id or time. The rows of a snapshot
are ordered by (time, id) and written in chunks, each one short transaction under the fence, so that neither SQLite's writers
nor anybody's login waits longer than for a chunk. Nothing that people wait for ever takes a lock of the sealer's.

Before a checkpoint is signed the second store (`head.py`) must agree that the tree begins with what was last signed, and
remembers the new one. Where it does not, the sealer stands still and says why, until an operator starts a new origin.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Table, bindparam, case, func, or_, select, text, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, claim, insert_into, reading, transaction
from idp.core.logkey import LogKey
from idp.ledgers.audit import leaf, merkle, note, store
from idp.ledgers.audit.head import Head, HeadFile, HeadRefused
from idp.ledgers.audit.models import AuditCheckpoint, AuditEvent, AuditOrigin, AuditSealer, AuditTile

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
#: rows of one transaction: on SQLite everybody who writes waits for it
CHUNK = 500
#: between two chunks: SQLite's lock is not fair, and a backlog without a pause would starve everybody else
PAUSE_S = 0.005
#: a checkpoint is due after so many rows, or so long after the last one (AU-04: 1,000 rows or 5 s)
CHECKPOINT_ROWS = 1000
CHECKPOINT_S = 2.0

NAME = "sealer"
_EVENT: Table = AuditEvent.__table__  # type: ignore[assignment]


class Refused(Exception):
    """The log is not what it was when it was last signed; nothing is sealed or signed (AU-03). The text says what."""


class LeaseLost(Exception):
    """Another sealer took over; what this one was about to write is thrown away."""


@dataclass
class _Held:
    """A lease of ours. size: of the tree; signed: of the last checkpoint."""

    fence: int
    size: int
    until: datetime
    origin: AuditOrigin
    signed: int


class Sealer:
    """The sealer of one process. Several may be tried; one holds the lease. Not for two threads at once."""

    def __init__(
        self,
        key: Callable[[], LogKey],
        head: HeadFile,
        *,
        origin: str,
        clock: Callable[[], datetime],
        after: Callable[[Session, AuditCheckpoint], object] | None = None,
    ) -> None:
        """key: opened at the first step. origin: the name of the first origin. after: called in the transaction that stores a
        checkpoint (anchors)."""
        self._make_key = key
        self._key: LogKey | None = None
        self._head, self._origin, self._clock, self._after = head, origin, clock, after
        self._me = ids.new_secret()[:16]
        self._held: _Held | None = None
        self._signed_at = 0.0

    def step(self) -> int:
        """Seal what is visible now and sign what is due. Returns the number of rows sealed; 0 also where another one seals,
        and where the alarm stands."""
        try:
            held = self._hold()
            if held is None:
                return 0
            sealed = 0
            waiting = self._snapshot()
            for start in range(0, len(waiting), CHUNK):
                if start:
                    time.sleep(PAUSE_S)
                self._seal(held, waiting[start : start + CHUNK])
                sealed += len(waiting[start : start + CHUNK])
                if held.size - held.signed >= CHECKPOINT_ROWS:
                    self._sign(held)
            if held.size > held.signed and time.monotonic() - self._signed_at >= CHECKPOINT_S:
                self._sign(held)
        except LeaseLost:
            log.warning("another sealer took over")
            self._held = None
            return 0
        except (Refused, HeadRefused) as refusal:
            self._alarm(str(refusal))
            return 0
        return sealed

    def sign_now(self) -> None:
        """Sign what is sealed without waiting for the interval: at the end of `worker --once`, and before an export."""
        self._signed_at = -CHECKPOINT_S
        self.step()

    def release(self) -> None:
        """Give the lease back, so that the next sealer need not wait for its end (RE-44)."""
        held, self._held = self._held, None
        if held is not None:
            with transaction(reserved=True) as session:
                _under(session, held, lease_until=None)

    # --- the lease -------------------------------------------------------------------------------------------------

    def _hold(self) -> _Held | None:
        """Our lease, renewed when a third of it is gone; None while another sealer has it."""
        now = self._clock()
        held = self._held
        if held is not None and held.until - now > LEASE * 2 / 3 and held.until - now <= LEASE:
            return held
        if self._key is None:
            self._key = self._make_key()  # before any transaction: making one is a transaction of its own
        with transaction(reserved=True) as session:
            fence = _lease(session, self._me, now=now)
            if fence is None:
                self._held = None
                return None
            if held is not None and held.fence == fence:
                held.until = now + LEASE
                return held
        self._held = self._take_over(fence, now=now)
        return self._held

    def _take_over(self, fence: int, *, now: datetime) -> _Held:
        """Look at the whole log before the first row under a new fence. Raises Refused."""
        key = self._opened()
        with transaction(reserved=True) as session:
            origin = store.origin(session)
            if origin is None and self._head.read() is None:
                origin = AuditOrigin(
                    id=ids.new_id(now), created_at=now, name=self._origin, vkey=note.vkey(self._origin, key.public), began_at_size=0
                )  # fmt: skip
                session.add(origin)
            if origin is None:
                raise Refused(f"{self._head.path} knows a log that this database never had")
            if origin.vkey != note.vkey(origin.name, key.public):
                raise Refused(f"the log key in the database is not that of {origin.name}")
            state = session.execute(select(AuditSealer).where(AuditSealer.name == NAME)).scalar_one()
            last = session.scalar(select(func.max(AuditEvent.leaf_index)))
            figures = {state.size, (last if last is not None else -1) + 1, store.leaves(session)}
            if len(figures) != 1:
                raise Refused(f"rows, tiles and sealer disagree about the size: {sorted(figures)}")
            newest = store.latest(session)
            signed = newest.size if newest else origin.began_at_size
            held = _Held(fence, state.size, now + LEASE, origin, signed)
            self._compare(session, held, newest)
            state.alarm = state.alarm_at = None
        return held

    def _compare(self, session: Session, held: _Held, newest: AuditCheckpoint | None) -> None:
        """AU-03: the tree begins with what was last signed, by the second store and by the database itself. Raises Refused."""
        remembered = self._head.read()
        read = store.reader(session)
        if remembered is None and (newest is not None or held.origin.began_at_size):
            raise Refused(f"{self._head.path} is missing, and the database says that something was signed")
        try:
            if remembered is not None:
                if (remembered.origin, remembered.vkey) != (held.origin.name, held.origin.vkey):
                    raise Refused(
                        f"{self._head.path} speaks of {remembered.origin}, the database of {held.origin.name}"
                    )
                if remembered.size > held.size:
                    raise Refused(
                        f"the log has {held.size} rows, and {remembered.size} were signed: a restored database?"
                    )
                if merkle.root(read, remembered.size).hex() != remembered.root:
                    raise Refused(f"the first {remembered.size} rows are not those that were signed")
            if newest is not None and (newest.size > held.size or merkle.root(read, newest.size) != newest.root):
                raise Refused(f"the tree does not begin with the checkpoint of {newest.size} rows")
        except ValueError as error:
            raise Refused(f"the tree is damaged: {error}") from error

    # --- rows ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _snapshot() -> Sequence[Any]:
        """The ids of every visible row that is not sealed, by (time, id). One statement, one snapshot (AU-04)."""
        with reading() as session:
            unsealed = select(_EVENT.c.id).where(_EVENT.c.leaf_index.is_(None))
            return session.scalars(unsealed.order_by(_EVENT.c.created_at, _EVENT.c.id)).all()

    def _seal(self, held: _Held, wanted: Sequence[Any]) -> None:
        """One chunk: hash outside the writing transaction, then write rows, tiles and size under the fence."""
        with reading() as session:
            found = {row.id: row for row in session.execute(select(_EVENT).where(_EVENT.c.id.in_(wanted))).all()}
        if len(found) != len(wanted):
            raise Refused(f"{len(wanted) - len(found)} rows that waited for the seal are gone")
        hashes = [leaf.leaf_hash(found[row_id]) for row_id in wanted]
        now = self._clock()
        with transaction(reserved=True) as session:
            _under(session, held, size=held.size + len(wanted), lease_until=now + LEASE)
            if _write(session, wanted, held.size, hashes) != len(wanted):
                raise Refused("a row that waited for the seal was sealed by somebody else")
            try:
                tiles = merkle.append(store.reader(session), held.size, hashes)
            except ValueError as error:
                raise Refused(f"the tree is damaged: {error}") from error
            for (level, position), content in tiles.items():
                row = {
                    "id": ids.new_id(now),
                    "created_at": now,
                    "level": level,
                    "position": position,
                    "hashes": content,
                }
                session.execute(
                    insert_into(session, AuditTile)
                    .values(row)
                    .on_conflict_do_update(index_elements=["level", "position"], set_={"hashes": content})
                )
        held.size += len(wanted)
        held.until = now + LEASE

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _sign(self, held: _Held) -> None:
        """Compare, remember, sign, store. A crash between two of them leaves the second store ahead of the checkpoints and
        never ahead of the tree, whose rows are committed by then."""
        key = self._opened()
        with reading() as session:
            state = session.execute(select(AuditSealer.fence, AuditSealer.size).where(AuditSealer.name == NAME)).one()
            if tuple(state) != (held.fence, held.size):
                raise LeaseLost  # asleep for too long: the second store is ahead of what we know, and that is no alarm
            newest = store.latest(session)
            self._compare(session, held, newest)
            root = merkle.root(store.reader(session), held.size)
        key.open()  # before any transaction: it commits a row of its own (VA-32)
        self._head.advance(Head(held.origin.name, held.origin.vkey, held.size, root.hex()))
        body = note.checkpoint(held.origin.name, held.size, root)
        now = self._clock()
        with transaction(reserved=True) as session:
            _under(session, held)
            made = AuditCheckpoint(
                id=ids.new_id(now), created_at=now, origin_id=held.origin.id, size=held.size, root=root,
                note=note.signed(body, held.origin.name, key.public, key.sign),
            )  # fmt: skip
            session.add(made)
            session.flush()
            if self._after is not None:
                self._after(session, made)
        held.signed = held.size
        self._signed_at = time.monotonic()

    def _opened(self) -> LogKey:
        if self._key is None:
            self._key = self._make_key()
        return self._key

    def _alarm(self, why: str) -> None:
        """Say it where people look: the log of the process, `doctor`, the health page. The lease goes back."""
        now, mine = self._clock(), AuditSealer.holder == self._me
        with transaction(reserved=True) as session:
            change(session, update(AuditSealer).where(mine).values(lease_until=None))
            new = change(
                session,
                update(AuditSealer)
                .where(mine, or_(AuditSealer.alarm.is_(None), AuditSealer.alarm != why[:400]))
                .values(alarm=why[:400], alarm_at=now),
            )
        if new:
            log.error("the audit log is not sealed", extra={"why": why})
        self._held = None


def _lease(session: Session, me: str, *, now: datetime) -> int | None:
    """Take or renew the lease: its fence, or None. A new holder gets a new fence; the same one keeps its own."""
    row = {"id": ids.new_id(now), "created_at": now, "name": NAME, "size": 0, "holder": "", "fence": 0}
    session.execute(insert_into(session, AuditSealer).values(row).on_conflict_do_nothing(index_elements=["name"]))
    mine = (AuditSealer.holder == me) & (AuditSealer.lease_until >= now)
    free = or_(AuditSealer.lease_until.is_(None), AuditSealer.lease_until < now)
    kept = AuditSealer.name == NAME
    if not claim(
        session,
        update(AuditSealer)
        .where(kept, or_(mine, free))
        .values(holder=me, lease_until=now + LEASE, fence=AuditSealer.fence + case((mine, 0), else_=1)),
    ):
        return None
    return session.scalar(select(AuditSealer.fence).where(kept))


def _under(session: Session, held: _Held, **values: Any) -> None:
    """Write under the fence of the lease, and only onto the size that we know. Raises LeaseLost."""
    went = claim(
        session,
        update(AuditSealer)
        .where(AuditSealer.name == NAME, AuditSealer.fence == held.fence, AuditSealer.size == held.size)
        .values(**(values or {"fence": held.fence})),
    )
    if not went:
        raise LeaseLost


def _write(session: Session, wanted: Sequence[Any], first: int, hashes: Sequence[bytes]) -> int:
    """Set place and hash of rows that have none yet. Returns how many; fewer than asked means that somebody else did."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        values = {"ids": list(wanted), "places": list(range(first, first + len(wanted))), "hashes": list(hashes)}
        return connection.execute(_MANY, values).rowcount
    one = (
        update(_EVENT)
        .where(_EVENT.c.id == bindparam("row"), _EVENT.c.leaf_index.is_(None))
        .values(leaf_index=bindparam("place"), leaf_hash=bindparam("hash"))
    )
    rows = [{"row": r, "place": first + n, "hash": h} for n, (r, h) in enumerate(zip(wanted, hashes, strict=True))]
    return connection.execute(one, rows).rowcount


#: one statement for a whole chunk: a thousand of them would be a thousand round trips
_MANY = text(
    "UPDATE audit_event AS e SET leaf_index = v.place, leaf_hash = v.hash"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:places AS bigint[]), CAST(:hashes AS bytea[])) AS v(row, place, hash)"
    " WHERE e.id = v.row AND e.leaf_index IS NULL"
)
