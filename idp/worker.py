"""The worker: finishes what a transaction could only plan, and does what the clock says.

The sealer of the audit log has a thread of its own here, so that a hanging relying party delays no checkpoint and a large
backlog of rows no delivery. Delivery is at least once: tx1 leases, then no transaction is open while the peer is called, tx2 writes the outcome under
the fence of the lease. A worker killed anywhere leaves a lease that runs out. One hung relying party holds its own few
slots; everybody else's deliveries go on (RE-05).
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import FrameType

from flask import Flask

from idp.core import clock
from idp.core.db import reading, retrying, transaction
from idp.core.errors import SekishoError
from idp.domain.applications import sp_metadata
from idp.domain.authn import throttle
from idp.domain.gateway import processes
from idp.domain.sessions import live
from idp.domain.tokens import seen
from idp.edges.oidc.backchannel import OidcLogoutCutter
from idp.edges.saml import refresh
from idp.edges.saml.cutter import SamlLogoutCutter
from idp.edges.tools.cutters import ToolPasswordCutter, ToolSessionCutter
from idp.edges.tools.sweeping import SweepCutter
from idp.ledgers.audit import anchors
from idp.ledgers.audit import log as audit
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.queue import Order
from idp.ledgers.siem import stream
from idp.lifecycle.oversight import erase, retention
from idp.lifecycle.revocation import record
from idp.lifecycle.revocation.cascade import TOPIC as CUT_TOPIC
from idp.lifecycle.revocation.cutter import CutOrder, Cutter, Outcome
from idp.lifecycle.revocation.words import CutKind
from idp.lifecycle.schedule import due
from idp.services import Services

log = logging.getLogger(__name__)

POLL_S = 0.25
SWEEP_S = 1.0
#: how often retention looks for something to empty, once it has caught up
TIDY_S = 600.0
#: how often we look whose metadata has to be read again
WATCH = timedelta(minutes=1)
#: rows wait at most this long for a sealer that has nothing else to do (D15: a batch is at most a second)
SEAL_S = 0.5


@dataclass
class _Result:
    """What an attempt gave, until it is written."""

    order: Order
    outcome: Outcome
    written: bool = False
    error: Exception | None = None

    @property
    def key(self) -> str:
        """What may be written in one transaction."""
        return str(self.order.detail.get("revocation_id") or self.order.id)


class Worker:
    """Delivery loop and sweeps of one process. Several may run, on several hosts."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._services: Services = app.extensions["sekisho"]
        self._cutters: dict[str, Cutter] = {
            CutKind.OIDC_LOGOUT.value: OidcLogoutCutter(self._services),
            CutKind.SAML_LOGOUT.value: SamlLogoutCutter(self._services),
            CutKind.GATEWAY_SESSION.value: SweepCutter(),
            CutKind.TOOL_SESSION.value: ToolSessionCutter(),
            CutKind.TOOL_PASSWORD.value: ToolPasswordCutter(self._services.settings),
        }
        self._stopping = False
        self._busy: Counter[str] = Counter()
        #: destinations whose last call failed: one call at a time each, and half of all slots between them
        self._failing: set[str] = set()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._results: list[_Result] = []
        self._swept = 0.0
        self._tidied = -TIDY_S
        self._watched: datetime | None = None
        self._sealer = self._services.sealer()

    def stop(self, *_signal: int | FrameType | None) -> None:
        """Take nothing new; what is under way is finished (RE-44).

        A plain flag: this is a signal handler, and the lock inside an Event that a second signal finds taken is never freed.
        """
        self._stopping = True

    def run(self) -> None:
        """Work until `stop`."""
        slots = self._services.settings.worker_slots
        sealing = threading.Thread(target=self._seal, name="sealer")
        sealing.start()
        with ThreadPoolExecutor(max_workers=slots, thread_name_prefix="cut") as pool:
            while not self._stopping:
                try:
                    started = self.step(pool)
                    self._sweep_if_due()
                except SekishoError as error:
                    log.warning("worker step refused", extra={"why": error.private})
                    started = 0
                except Exception:
                    # the loop must outlive a database that is away for a minute; nothing is lost, rows stay waiting
                    log.exception("worker step failed")
                    started = 0
                if not started:
                    time.sleep(POLL_S)
        sealing.join()

    def _seal(self) -> None:
        """Seal until `stop`, then sign what is sealed and give the lease back."""
        with self._app.app_context():
            while not self._stopping:
                try:
                    self._sealer.step()
                except SekishoError as error:
                    log.warning("sealer step refused", extra={"why": error.private})
                except Exception:
                    # nothing is lost: rows stay without a place in the tree until a step succeeds
                    log.exception("sealer step failed")
                time.sleep(SEAL_S)
            try:
                self._seal_once()
            except Exception:
                # the database is away at the very end: the next sealer goes on where this one stopped
                log.exception("last sealer step failed")

    def _seal_once(self) -> None:
        """Seal and sign what is visible, and give the lease back."""
        try:
            self._sealer.sign_now()
            self._sealer.release()
        except SekishoError as error:
            log.warning("sealer step refused", extra={"why": error.private})

    def step(self, pool: ThreadPoolExecutor) -> int:
        """Start what may start now. Returns how many deliveries began."""
        with self._lock:
            busy = Counter(self._busy)
        if busy.total() >= self._services.settings.worker_slots:
            return 0
        with self._app.app_context():
            self._services.signer.refresh(now=clock.now())
            orders = self._lease(busy)
        for order in orders:
            with self._lock:
                self._busy[order.destination] += 1
            pool.submit(self._deliver, order).add_done_callback(self._settle(order))
        return len(orders)

    def drain(self, *, rounds: int = 100) -> None:
        """Deliver everything that is due, in this thread: for tests and `sekisho worker --once`."""
        for _ in range(rounds):
            with self._app.app_context():
                self._services.signer.refresh(now=clock.now())
                orders = self._lease(Counter())
            for order in orders:
                self._deliver(order)
            if not orders:
                break
        self.sweep()
        with self._app.app_context():
            self._seal_once()

    def _lease(self, busy: Counter[str]) -> list[Order]:
        """tx1 for each: a lease is one short transaction of its own, so that one lost race loses nothing else."""
        now, settings = clock.now(), self._services.settings
        free = settings.worker_slots - busy.total()
        taken, orders = Counter(busy), list[Order]()
        with reading() as session:
            found = queue.due(
                session, now=now, limit=free, full=self._full(taken), per_destination=settings.destination_slots
            )
        for row in found:
            if row.destination in self._full(taken):
                continue
            try:
                with transaction(reserved=True) as session:
                    order = queue.lease(session, row.id, now=now)
                    if order is not None and order.topic == CUT_TOPIC and order.ref is not None:
                        record.leased(session, order.ref)
            except Exception:
                log.exception("lease failed; what is leased already goes on")
                break
            if order is not None:
                taken[order.destination] += 1
                orders.append(order)
        return orders

    def _full(self, taken: Counter[str]) -> set[str]:
        """Destinations that get no further slot now: at their own limit, or failing while the failing ones have their half."""
        settings = self._services.settings
        with self._lock:
            failing = set(self._failing)
        spent = sum(taken[name] for name in failing)
        full = {
            name for name, count in taken.items() if count >= (1 if name in failing else settings.destination_slots)
        }
        return full | failing if spent >= max(1, settings.worker_slots // 2) else full

    def _deliver(self, order: Order) -> None:
        with self._app.app_context():
            if order.topic == anchors.TOPIC:
                self._anchor(order)
                return
            if order.topic == stream.TOPIC:
                self._stream(order)
                return
            if order.topic == erase.TOPIC:
                erase.go_on(order, now=clock.now())
                return
            if order.topic == sp_metadata.TOPIC:
                refresh.go_on(order, self._services, now=clock.now())
                return
            now = clock.now()
            with reading() as session:
                attempt = record.cut_order(session, order, now=now)
            outcome = self._attempt(order, attempt)
            with self._lock:
                (self._failing.add if outcome.result == "retry" else self._failing.discard)(order.destination)
            self._write(_Result(order, outcome))

    def _write(self, mine: _Result) -> None:
        """tx2. One thread writes at a time, what all of them have by then: whoever had to wait mostly finds it done.

        Each row about a line carries the digest of its whole receipt. Written one by one, a thousand answers would read a
        thousand lines each.
        """
        with self._lock:
            self._results.append(mine)
        with self._writing:
            if not mine.written:
                with self._lock:
                    results, self._results = self._results, []
                for key in sorted({result.key for result in results}):
                    self._write_group([result for result in results if result.key == key])
        if mine.error is not None:
            raise mine.error
        if not mine.written:
            raise RuntimeError("the thread that wrote for the others broke off")

    def _write_group(self, group: list[_Result]) -> None:
        """One transaction: what belongs to one revocation, or a single delivery of none."""
        pairs = [(result.order, result.outcome) for result in group]

        def write() -> list[bool]:
            with transaction(reserved=True) as session:
                return record.finished_all(session, pairs, now=clock.now())

        try:
            kept = retrying(write)
        except Exception as error:  # noqa: BLE001 - each of them raises it in its own thread
            for result in group:
                result.written, result.error = True, error
            return
        for result, still in zip(group, kept, strict=True):
            result.written = True
            if not still:
                log.warning("lease lost; the result is thrown away", extra={"delivery": str(result.order.id)})

    def _anchor(self, order: Order) -> None:
        """A checkpoint for a second place (AU-05)."""
        sent = anchors.carry(order, settings=self._services.settings, outbound=self._services.outbound)
        with self._lock:
            (self._failing.add if sent.failure else self._failing.discard)(order.destination)
        if sent.failure:
            log.warning("anchor not taken", extra={"place": order.destination, "why": sent.failure})
        with transaction(reserved=True) as session:
            anchors.finished(session, order, sent, now=clock.now())

    def _stream(self, order: Order) -> None:
        """A batch of the log for a SIEM (AU-13)."""
        settings = self._services.settings
        failure = stream.carry(order, settings=settings, outbound=self._services.outbound)
        with self._lock:
            (self._failing.add if failure else self._failing.discard)(order.destination)
        if failure:
            log.warning("siem did not take a batch", extra={"why": failure})
        with transaction(reserved=True) as session:
            stream.finished(session, order, failure, settings=settings, now=clock.now())

    def _attempt(self, order: Order, attempt: CutOrder) -> Outcome:
        """No transaction is open here. A fault of ours is a retry with a name, and the log has the rest."""
        try:
            # rows written before there was a second kind name none
            return self._cutters[order.detail.get("kind", CutKind.OIDC_LOGOUT.value)].cut(attempt)
        except Exception:
            log.exception("cutter failed", extra={"delivery": str(order.id), "topic": order.topic})
            return Outcome("retry", "internal_error")

    def _settle(self, order: Order) -> _Settle:
        return _Settle(self, order.destination)

    def release(self, destination: str, failure: BaseException | None) -> None:
        """A delivery is over, well or not; its slot is free."""
        with self._lock:
            self._busy[destination] -= 1
            if self._busy[destination] <= 0:
                del self._busy[destination]
        if failure is not None:
            log.error("delivery broke off; its lease will run out", exc_info=failure)

    def _sweep_if_due(self) -> None:
        if time.monotonic() - self._swept >= SWEEP_S:
            self._swept = time.monotonic()
            self.sweep()

    def sweep(self) -> None:
        """What the clock does: end dates, residuals, closed minutes of refusals, old counters. Each in its own transaction."""
        with self._app.app_context():
            now, settings = clock.now(), self._services.settings
            with transaction(reserved=True) as session:
                record.close_elapsed(session, now=now)
            with transaction(reserved=True) as session:
                audit.flush_refusals(session, now=now)
                throttle.sweep(session, now=now)
                live.sweep_requests(session, now=now)
                seen.sweep(session, now=now)
                processes.forget_old(session, keep=timedelta(days=settings.keep_login_days), now=now)
            due.run(give_up_after=settings.give_up_after, now=now)
            with transaction(reserved=True) as session:
                stream.put(session, settings=settings, now=now)
                stream.watch(session, settings=settings, now=now)
            if self._watched is None or not self._watched <= now < self._watched + WATCH:
                with transaction(reserved=True) as session:
                    sp_metadata.put_due(session, now=now)
                self._watched = now
            if time.monotonic() - self._tidied >= TIDY_S and not retention.step(settings, now=now):
                self._tidied = time.monotonic()


class _Settle:
    """Frees a slot when a delivery's future is done."""

    def __init__(self, worker: Worker, destination: str) -> None:
        self._worker = worker
        self._destination = destination

    def __call__(self, future: Future[None]) -> None:
        self._worker.release(self._destination, future.exception())


def main(app: Flask) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; a second signal changes nothing (RE-44)."""
    worker = Worker(app)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    log.info("worker started", extra={"slots": app.extensions["sekisho"].settings.worker_slots})
    worker.run()
    log.info("worker stopped")
