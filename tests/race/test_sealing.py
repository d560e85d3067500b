"""AU-04: many writers and the sealer at once; two sealers; a reader that saw a row before it wrote its own."""

from __future__ import annotations

import random
import threading
import time
import uuid
from contextlib import nullcontext
from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import func, select

from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import Conflict
from idp.ledgers.audit import leaf, merkle, store
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditEvent, AuditSealer
from idp.ledgers.audit.sealer import LeaseLost
from idp.lifecycle.revocation import receipt as receipts
from idp.lifecycle.revocation import record as cuts
from tests.fakes.lives import cut
from tests.race.arena import Arena

WHO = Actor("person", None, "r", "192.0.2.1")


def write(arena: Arena, mark: str, count: int = 1) -> None:
    """Rows that a test finds again."""
    with arena.app.app_context():
        for number in range(count):
            with transaction() as session:
                record(session, Tag.STEP_UP, actor=WHO, now=clock.now(), number=number, mark=mark)


def whole(arena: Arena) -> list[AuditEvent]:
    """Every sealed row by place; places, stored hashes and tiles agree, and nothing waits for an alarm."""
    with arena.app.app_context(), reading() as session:
        rows = list(
            session.scalars(
                select(AuditEvent).where(AuditEvent.leaf_index.is_not(None)).order_by(AuditEvent.leaf_index)
            )
        )
        state = session.execute(select(AuditSealer)).scalar_one()
        assert state.alarm is None
        assert [row.leaf_index for row in rows] == list(range(state.size))
        read = store.reader(session)
        hashes = [leaf.leaf_hash(row) for row in rows]
        assert [row.leaf_hash for row in rows] == hashes
        tiles: dict[tuple[int, int], bytes] = merkle.append(lambda _level, _position: b"", 0, hashes)
        assert merkle.root(read, state.size) == merkle.root(lambda level, position: tiles[level, position], state.size)
    return rows


@pytest.mark.guards("idp.ledgers.audit.sealer._lease", "idp.ledgers.audit.sealer._under")
def test_AU04_two_sealers_one_lease(arena: Arena) -> None:
    """The second one does nothing; when the first slept past its lease the second takes over, and the first one's write is
    refused by the fence, whatever it had read before. That is no alarm."""
    services = arena.app.extensions["sekisho"]
    with arena.app.app_context(), time_machine.travel(clock.now(), tick=False) as frozen:
        first, second = services.sealer(), services.sealer()
        write(arena, "lease", 2)
        assert first.step() >= 2
        write(arena, "lease", 2)
        assert second.step() == 0
        asleep, wanted = first._held, first._snapshot()
        assert asleep is not None
        frozen.shift(timedelta(seconds=20))
        assert second.step() >= len(wanted)
        write(arena, "lease")
        with pytest.raises(LeaseLost):
            first._seal(asleep, first._snapshot())
        with pytest.raises(LeaseLost):
            first._sign(asleep)
        assert first.step() == 0
        assert second.step() >= 1
        second.release()
    whole(arena)


def test_AU04_fifty_writers_with_sleeps_and_aborts(arena: Arena, rounds: int) -> None:
    """Each committed row is sealed exactly once, no aborted one is; who reads a committed row and then writes is never sealed
    in an earlier batch than that row, although transactions commit in any order and one stays open all the time."""
    services, writers = arena.app.extensions["sekisho"], 50 if arena.engine == "postgresql" else 8
    mark, committed, pairs, errors = uuid.uuid4().hex, [], [], []
    lock, stop = threading.Lock(), threading.Event()
    batch_of: dict[int, int] = {}

    def writer(seed: int) -> None:
        dice = random.Random(seed)
        for number in range(4 * rounds):
            name = f"{seed}:{number}"
            with lock:
                seen = dice.choice(committed) if committed else None
            try:
                with arena.app.app_context(), transaction() as session:
                    # the time is taken first and the row written late, as a slow request does
                    now = clock.now() - timedelta(milliseconds=dice.randrange(200))
                    if arena.engine == "postgresql":
                        time.sleep(dice.random() * 0.02)
                    record(session, Tag.STEP_UP, actor=WHO, now=now, mark=mark, name=name)
                    session.flush()
                    if arena.engine == "postgresql":
                        time.sleep(dice.random() * 0.02)
                    if dice.random() < 0.3:
                        raise InterruptedError
            except InterruptedError:
                continue
            except Exception as error:  # noqa: BLE001 - a thread's failure must reach the test
                errors.append(error)
                return
            with lock:
                committed.append(name)
                if seen:
                    pairs.append((seen, name))

    def sealing() -> None:
        with arena.app.app_context():
            sealer, batch = services.sealer(), 0
            while not stop.is_set():
                before = size(arena)
                sealer.step()
                batch += 1
                batch_of.update(dict.fromkeys(range(before, size(arena)), batch))
                time.sleep(0.005)
            sealer.sign_now()
            sealer.release()

    threads = [threading.Thread(target=writer, args=(seed,)) for seed in range(writers)]
    seal = threading.Thread(target=sealing)
    for thread in (seal, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    seal.join()
    assert not errors
    assert len(committed) > writers
    rows = [row for row in whole(arena) if row.detail.get("mark") == mark]
    place = {row.detail["name"]: row.leaf_index for row in rows}
    assert sorted(place) == sorted(committed)
    assert len(rows) == len(committed)
    last = max(batch_of.values(), default=0) + 1
    for earlier, later in pairs:
        assert batch_of.get(place[earlier] or 0, last) <= batch_of.get(place[later] or 0, last), (earlier, later)


def size(arena: Arena) -> int:
    """The size of the tree now."""
    with reading() as session:
        found = session.scalar(select(func.max(AuditEvent.leaf_index)))
        return 0 if found is None else found + 1


@pytest.mark.guards("idp.lifecycle.revocation.record.reopen")
def test_RV07_a_closed_line_is_reopened_once(arena: Arena) -> None:
    """Two people find out the same thing: one reopening, one piece of evidence; the other is told that it is open already."""
    number = cut(arena.world, arena.person().id)
    with arena.app.app_context():
        with reading() as session:
            line = receipts.load(session, number, None).lines[0].cut
        for first in (True, False):
            with nullcontext() if first else pytest.raises(Conflict), transaction() as session:
                cuts.reopen(session, line, why="it lived on", actor=WHO, now=clock.now())
        with reading() as session:
            proofs = receipts.evidence_of(session, line.revocation_id)[line.id]
            assert [proof.kind for proof in proofs].count("contradicted") == 1
