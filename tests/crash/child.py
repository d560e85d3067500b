"""The process that is killed. `python -m tests.crash.child URL FOLDER`: one prepared parent, one fork for each kill.

The failpoints are here and not in the product: SQLAlchemy's own events tell each statement and each commit, and the
outbound client is wrapped. Orders are lines of JSON on stdin; for each the parent answers two lines, the child's pid and
then how it ended with the steps it reached. No thread runs in either process, so the forks are whole.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from idp.app import create_app
from idp.core import clock
from idp.core.db import db, transaction
from idp.core.outbound import Answer, HttpOutbound, Outbound, Rules
from idp.ledgers.audit.log import Actor
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from idp.worker import Worker
from idp.worker import main as run_worker
from tests.conftest import dispose, settings_for

STATEMENT = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) (\w+)|SELECT\b.*?\bFROM\s+\(?(?:SELECT\b.*?\bFROM\s+)?(\w+)", re.S)
Step = Callable[[str], None]


def name_of(statement: str) -> str:
    """`UPDATE account`, `SELECT outbox`: the verb and the table."""
    found = STATEMENT.match(statement.strip())
    if found is None:
        return " ".join(statement.split()[:2])
    return f"{found[1].split()[0]} {found[2]}" if found[1] else f"SELECT {found[3]}"


class Deadly:
    """The product's own client with a failpoint before and after each call."""

    def __init__(self, inner: Outbound) -> None:
        self._inner = inner
        self.step: Step = lambda _name: None

    def check(self, url: str) -> None:
        """As the real one."""
        self._inner.check(url)

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> Answer:
        """As the real one, between two failpoints."""
        self.step("token minted")
        answer = self._inner.post(url, body, headers=headers)
        self.step("answered")
        return answer


def watch(app: Flask, outbound: Deadly, log: int, at: int | None) -> Step:
    """Report each step and die before the one numbered `at` (the first is 1; None: never)."""
    reached = 0

    def step(name: str) -> None:
        nonlocal reached
        reached += 1
        os.write(log, f"{name}\n".encode())
        if reached == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        step(name_of(text))

    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "before_cursor_execute", statement)
            event.listen(engine, "commit", lambda _conn: step("COMMIT"))
    event.listen(Session, "after_commit", lambda _session: step("committed"))
    outbound.step = step
    return step


def revoke(app: Flask, step: Step, order: dict[str, str]) -> None:
    """What every door does: one transaction around the only entrance."""
    step("parsed")
    with app.app_context():
        with transaction(reserved=True) as session:
            wish = Order(Reason.LEFT, Door.CLI, order["key"])
            cascade.revoke(session, Target(Scope.ACCOUNT, uuid.UUID(order["account"])), wish, actor=Actor("cli"), now=clock.now())
    step("answer")


def act(app: Flask, outbound: Deadly, order: dict[str, Any], log: int) -> None:
    """Carry out one order in this process."""
    step = watch(app, outbound, log, order.get("at"))
    match order["do"]:
        case "revoke":
            revoke(app, step, order)
        case "deliver":
            Worker(app).drain()
        case "work":
            run_worker(app)


def main() -> None:
    """Fork for each line of stdin, wait, and say what happened."""
    settings = settings_for(sys.argv[1], Path(sys.argv[2]))
    outbound = Deadly(HttpOutbound(Rules.from_settings(settings)))
    app = create_app(settings, outbound=outbound)
    with app.app_context():
        app.extensions["sekisho"].signer.refresh(now=clock.now())
    dispose(app)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(read)
                act(app, outbound, order, write)
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        print(json.dumps({"pid": pid}), flush=True)
        with os.fdopen(read) as reached:
            steps = reached.read().splitlines()
        _, ended = os.waitpid(pid, 0)
        print(json.dumps({"exit": os.waitstatus_to_exitcode(ended), "steps": steps}), flush=True)


if __name__ == "__main__":
    main()
