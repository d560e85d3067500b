"""`python -m tests.bench.bench`: what an operation costs and how fast a cut is, measured on the real server.

Starts the web server (one process) and the worker on one core, and drives them over HTTP from the other. CPU is read from
/proc for the server's processes and, apart, for the database's. Nothing is switched off for it: audit rows, limits and
`fsync` are on. Prints, and with --out writes the block between the two marks of that page.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import signal
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from idp.app import create_app
from idp.core import clock
from idp.core.db import transaction
from idp.core.settings import Settings
from idp.domain.authn.passwords import Cost, Hasher
from idp.ledgers.audit.log import Actor
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.bench import drive, machine, peer
from tests.bench.install import APPS, LOGINS, Installation

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
DRIVERS = 4


@dataclass(frozen=True)
class Budget:
    """One row: the operation, its title, and what it may cost in CPU µs, on top of an Argon2id hash where hashed."""

    name: str
    title: str
    must: int | None = None
    aim: int | None = None
    hashed: bool = False


OPERATIONS = (
    Budget("floor", "`/healthz` (floor: Flask and our guards)"),
    Budget("discovery", "discovery", 150, 60),
    Budget("jwks", "JWKS", 150, 60),
    Budget("userinfo", "userinfo", 550, 350),
    Budget("refresh", "refresh, confidential client", 1300, 800),
    Budget("refresh_public", "refresh with rotation, public client", 1300, 800),
    Budget("code_flow", "code flow with an existing login (authorize + token)", 4500, 3300),
    Budget("saml_both", "SAML SSO answer, Response and Assertion signed, RSA-3072 (judged beside its peer, below)"),
    Budget("saml_one", "SAML SSO answer, one signature, RSA-3072 (the same)"),
    Budget("portal", "portal page of a person with every application of this benchmark"),
    Budget("login_page", "login page (form only)"),
    Budget("login", "password login (page + form)", 7000, 4000, hashed=True),
)


@dataclass
class Figure:
    """What one operation gave. web, database: CPU µs of one."""

    budget: Budget
    rate: float
    p50: float
    p99: float
    web: float
    database: float
    errors: int


@dataclass
class Results:
    """Everything that was measured on one engine."""

    engine: str
    version: str
    server: str = "granian"
    load: tuple[float, float] = (0.0, 0.0)
    yardstick_us: float = 0.0
    argon_us: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    promises: list[tuple[str, str, str]] = field(default_factory=list)
    shutdown: str = ""


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies; the largest when there are few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def spread(values: list[float]) -> str:
    """p50, p99 in ms, and of how many."""
    return (
        f"p50 {percentile(values, 0.5) * 1000:.0f} ms, p99 {percentile(values, 0.99) * 1000:.0f} ms (n={len(values)})"
    )


def argon_us(settings: Settings) -> float:
    """CPU µs of one hash at the product's cost, median of nine."""
    hasher = Hasher({"1": b"p" * 32}, "1", Cost(settings.argon2_memory_kib, settings.argon2_time), slots=1, queue=1)
    took = []
    for _ in range(9):
        began = time.process_time()
        hasher.make("a benchmark of quiet rivers")
        took.append((time.process_time() - began) * 1e6)
    return sorted(took)[4]


def say(text: str) -> None:
    """One line of progress or result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Child:
    """A process at the other end of a pipe, on the other core."""

    def __init__(self, target: Any, *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *args), daemon=True)
        self._process.start()

    def ask(self, *order: Any, timeout_s: float = 120) -> Any:
        """Send an order and wait for its answer."""
        self.pipe.send(order if len(order) > 1 else order[0])
        return self.take(timeout_s)

    def take(self, timeout_s: float = 120) -> Any:
        """The next answer."""
        if not self.pipe.poll(timeout_s):
            raise RuntimeError("a process of the benchmark does not answer")
        return self.pipe.recv()

    def close(self) -> None:
        """Tell it to end."""
        with suppress(OSError):
            self.pipe.send(None)
        self._process.join(2)
        self._process.kill()


def cutter(pipe: Pipe, settings: dict[str, Any], plan: dict[str, Any]) -> None:
    """A third process: it revokes with an application of its own, as the command does, or on the manager's page."""
    machine.pin(1)
    app = create_app(Settings(**settings))
    manager = drive.Actor(plan, plan["manager"])
    with app.app_context():
        app.extensions["sekisho"].signer.refresh(now=clock.now())
    while (order := pipe.recv()) is not None:
        what, *rest = order
        if what == "cut":
            pipe.send(_cut_all(app, *rest))
        elif what == "log in":
            manager.login()
            pipe.send(None)
        elif what == "page":
            pipe.send(_page_all(manager, *rest))


def _cut_all(app: Any, accounts: list[str], every_s: float) -> list[tuple[float, float]]:
    """Revoke each; returns when it began and how long it took to commit."""
    found = []
    for account in accounts:
        began = time.monotonic()
        with app.app_context(), transaction(reserved=True) as session:
            target = Target(Scope.ACCOUNT, uuid.UUID(account))
            cascade.revoke(session, target, Order(Reason.LEFT, Door.CLI), actor=Actor("cli"), now=clock.now())
        found.append((began, time.monotonic() - began))
        time.sleep(max(0.0, every_s - found[-1][1]))
    return found


def _page_all(
    manager: drive.Actor, accounts: list[str], every_s: float, at_most_s: float
) -> tuple[list[float], list[float], list[str]]:
    """Stop each on the page; returns seconds for dialog and form together, for the form alone, and what failed."""
    whole, posted, failed = [], [], list[str]()
    manager.http.close()  # the server has closed a connection that was idle for so long
    until = time.monotonic() + at_most_s
    for account in accounts:
        began = time.monotonic()
        if began > until:
            break
        try:
            posted.append(manager.revoke(account))
            whole.append(time.monotonic() - began)
        except (OSError, RuntimeError) as error:
            manager.http.close()
            failed.append(str(error)[:21] if isinstance(error, RuntimeError) else type(error).__name__)
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))
    return whole, posted, failed


def _failures(found: list[str]) -> str:
    """How many failed, and with what."""
    return f"{len(found)} failed" + (
        f" ({', '.join(f'{n} × {k}' for k, n in Counter(found).items())})" if found else ""
    )


class Bench:
    """One engine from start to end."""

    def __init__(self, engine: str, seconds: float, destinations: int, only: list[str]) -> None:
        self.seconds = seconds
        self.destinations = destinations
        self.only = only
        machine.pin(0)
        self.place = Installation(engine, destinations=max(destinations, APPS), victims=150, crowd=64, drivers=DRIVERS)
        self.results = Results(engine, self._version())

    def _version(self) -> str:
        if self.place.postgres is None:
            return f"SQLite {machine.describe()['SQLite']}, WAL, synchronous=FULL"
        import psycopg

        with psycopg.connect(host=str(self.place.postgres.folder), user="sekisho", dbname="postgres") as conn:
            row = conn.execute(
                "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')"
            ).fetchone()
        assert row is not None
        return f"PostgreSQL {row[0].split()[0]}, synchronous_commit={row[1]}, fsync={row[2]}"

    def run(self, *, gunicorn: str | None, ops_only: bool) -> Results:
        """Everything, in the order in which one thing does not disturb the next."""
        results = self.results
        results.server = "gunicorn gthread" if gunicorn else "granian"
        results.yardstick_us = machine.yardstick_us()
        results.argon_us = argon_us(self.place.settings)
        before = os.getloadavg()[0]
        web = self.place.serve(gunicorn=gunicorn)
        load = Child(drive.driver, self.place.plan)
        try:
            load.ask("warm", None)
            for budget in OPERATIONS:
                if not self.only or budget.name in self.only:
                    results.figures.append(self._operation(load, budget, web.pid))
            if not self.only and not gunicorn:
                missing = peer.why_not()
                results.promises += (
                    [(missing, "", "")] if missing else peer.beside(self.place, web.pid, rounds=5, number=60)
                )
            sizes = machine.memory_mib(web.pid)
            results.promises.append(
                (
                    "memory of the web process after this load",
                    f"{sizes[0]:.0f} MiB (all its processes: {sum(sizes):.0f})",
                    "≤ 150 MiB, aim ≤ 100",
                )
            )
            if not ops_only:
                self._cuts(load)
            if not ops_only:
                self.place.stop(
                    web
                )  # a server that a storm has left with a long queue is no place to look at a shutdown
                web = self.place.serve(gunicorn=gunicorn)
            results.shutdown = self._shutdown(load, web)
        finally:
            load.close()
            self.place.close()
        results.load = (before, os.getloadavg()[0])
        return results

    def _operation(self, load: Child, budget: Budget, web: int) -> Figure:
        load.ask("run", budget.name, 0.3)  # warm: plans, prepared statements, templates
        database = self.place.database_pid()
        began = machine.cpu_s(web), machine.cpu_s(database) if database else 0.0
        run: drive.Run = load.ask("run", budget.name, self.seconds)
        ended = machine.cpu_s(web), machine.cpu_s(database) if database else 0.0
        n = max(len(run.times), 1)
        figure = Figure(
            budget, n / run.seconds, percentile(run.times, 0.5) * 1000, percentile(run.times, 0.99) * 1000,
            (ended[0] - began[0]) / n * 1e6, (ended[1] - began[1]) / n * 1e6, len(run.errors),
        )  # fmt: skip
        say(f"  {budget.name:16} {figure.rate:8.0f}/s  p50 {figure.p50:7.2f} ms  p99 {figure.p99:7.2f} ms  web {figure.web:7.0f} µs"
              f"  database {figure.database:6.0f} µs  errors {figure.errors} {run.errors[:1] or ''}")  # fmt: skip
        return figure

    # --- cuts ------------------------------------------------------------------------------------------------------

    def _cuts(self, load: Child) -> None:
        place, found = self.place, self.results.promises
        told = Child(drive.peers, place.peer_port)
        hand = Child(cutter, place.settings.model_dump(), place.plan)
        try:
            hand.ask("log in", None)
            worker = place.worker()
            alone, paged = place.victims[:30], place.victims[30:50]
            took = [t for _, t in hand.ask("cut", alone, 0.05)]
            found.append(
                (
                    f"local cut of one person with {LOGINS * (1 + 2 * APPS)} live things, {APPS} destinations",
                    spread(took),
                    "p99 ≤ 200 ms, aim ≤ 50",
                )
            )
            whole, posted, failed = hand.ask("page", paged, 0.05, 20)
            found.append(
                ("the same on the manager's page, HTTP (form alone)", f"{spread(posted)}, {_failures(failed)}", "")
            )
            self._wait_for_deliveries()
            found.append(self._acknowledged(hand, told))
            idle = machine.cpu_s(worker.pid)
            time.sleep(2)
            found.append(
                ("CPU of an idle worker", f"{(machine.cpu_s(worker.pid) - idle) / 2 * 100:.1f} % of a core", "")
            )
            found += self._storm(load, hand)
            del whole
            say("\n".join(f"  {name}: {value}  ({budget})" for name, value, budget in found))
        finally:
            hand.close()
            told.close()

    def _wait_for_deliveries(self, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while self.place.deliveries_open() and time.monotonic() < until:
            time.sleep(0.2)

    def _acknowledged(self, hand: Child, told: Child) -> tuple[str, str, str]:
        told.ask("forget")
        [(t0, _)] = hand.ask("cut", [self.place.popular], 0)
        until = time.monotonic() + 60
        called: dict[str, float] = {}
        while len(called) < self.destinations and time.monotonic() < until:
            time.sleep(0.1)
            called = told.ask("read")
        waits = [at - t0 for at in called.values()]
        title = f"{self.destinations} reachable relying parties answer one revocation"
        text = f"{len(waits)} answered: p50 {percentile(waits, 0.5):.2f} s, p95 {percentile(waits, 0.95):.2f} s, last {max(waits, default=float('nan')):.2f} s"
        return title, text, "1,000: p95 ≤ 5 s, aim ≤ 1 s"

    def _storm(self, load: Child, hand: Child) -> list[tuple[str, str, str]]:
        logins = next((f.rate for f in self.results.figures if f.budget.name == "login"), 30.0)
        rate = 10 * logins
        rest = self.place.victims[50:]
        load.pipe.send(("storm", rate, 60))
        time.sleep(1.5)  # the queue in front of the server has filled
        took = [t for _, t in hand.ask("cut", rest[:50], 0.15)]
        whole, posted, failed = hand.ask("page", rest[50:], 0.1, 20)
        load.pipe.send("stop")
        outcome: Counter[str] = load.take(60)
        words = ", ".join(f"{k}: {v}" for k, v in sorted(outcome.items()))
        return [
            (f"login storm: {rate:.0f} logins/s arrive, 10 × the capacity of {logins:.0f}/s", words, ""),
            ("… revocation by another process (the command)", spread(took), "p99 ≤ 1 s, aim ≤ 300 ms"),
            (
                "… revocation on the manager's page (form alone)",
                f"{spread(posted)}, {_failures(failed)}",
                "p99 ≤ 1 s, aim ≤ 300 ms",
            ),
            ("… revocation on the manager's page (dialog and form)", spread(whole), "p99 ≤ 1 s, aim ≤ 300 ms"),
        ]

    def _shutdown(self, load: Child, web: Any) -> str:
        """SIGTERM while logins are being hashed: what became of them, and how long it took (RE-44)."""
        load.pipe.send(("once", "login", 16))
        load.take()
        time.sleep(0.2)  # they have arrived; some are being hashed, the rest wait for a thread
        took = self.place.stop(web)
        outcome: Counter[str] = load.take(60)
        return f"{', '.join(f'{v} × {k}' for k, v in sorted(outcome.items()))}; gone after {took:.1f} s"


# --- the page ------------------------------------------------------------------------------------------------------


def table(results: Results) -> list[str]:
    """One engine's figures as Markdown."""
    lines = [
        f"### {results.version} behind {results.server}", "",
        (f"Load average before and after: {results.load[0]:.1f}, {results.load[1]:.1f} on {os.cpu_count()} cores. Yardstick (100,000 steps of pure "
         f"Python): {results.yardstick_us:.0f} µs. One Argon2id hash: {results.argon_us / 1000:.1f} ms of CPU."), "",
        "| operation | /s | p50 ms | p99 ms | web µs | database µs | **µs** | must | aim | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]  # fmt: skip
    for f in results.figures:
        total, extra = f.web + f.database, results.argon_us if f.budget.hashed else 0.0
        must, aim = (f"{limit + extra:,.0f}" if limit else "" for limit in (f.budget.must, f.budget.aim))
        verdict = ""
        if f.budget.must and f.budget.aim:
            verdict = (
                "aim" if total <= f.budget.aim + extra else "must" if total <= f.budget.must + extra else "**misses**"
            )
        failed = f" ({f.errors} errors)" if f.errors else ""
        lines.append(
            f"| {f.budget.title}{failed} | {f.rate:,.0f} | {f.p50:.2f} | {f.p99:.2f} | {f.web:,.0f} | {f.database:,.0f} | {total:,.0f} | {must} | {aim} | {verdict} |"
        )
    lines += ["", "| promise | measured | budget |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {budget} |" for name, value, budget in results.promises]
    lines += [f"| SIGTERM with 16 logins in flight | {results.shutdown} | all answered, ≤ 30 s (RE-44) |", ""]
    return lines


def write(page: Path, lines: list[str]) -> None:
    """Put the figures between the marks of the page; a page without marks gets them at its end."""
    text = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    block = "\n".join([BEGIN, "", *lines, END])
    if BEGIN in text and END in text:
        head, _, rest = text.partition(BEGIN)
        text = head + block + rest.partition(END)[2]
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Read the options, run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench", description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each operation (default 3)")
    parser.add_argument(
        "--destinations", type=int, default=100, help="relying parties that one revocation tells (default 100)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="OPERATION", help="only this operation; may be repeated"
    )
    parser.add_argument("--ops-only", action="store_true", help="no cuts and no storm")
    parser.add_argument("--gunicorn", metavar="FOLDER", help="compare: a folder into which gunicorn was installed")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write the figures into this page")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is stopped
    about = machine.describe()
    lines = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        "",
        *(f"- {k}: {v}" for k, v in about.items() if k != "SQLite"),
        "",
    ]
    for engine in ("sqlite", "postgresql") if options.engine == "both" else (options.engine,):
        for gunicorn in (None, options.gunicorn) if options.gunicorn else (None,):
            say(f"{engine}, {'gunicorn' if gunicorn else 'granian'} …")
            bench = Bench(engine, options.seconds, options.destinations, options.only)
            results = bench.run(gunicorn=gunicorn, ops_only=options.ops_only or gunicorn is not None)
            lines += table(results)
            gc.collect()
    say("\n".join(lines))
    if options.out:
        write(options.out, lines)


if __name__ == "__main__":
    main()
