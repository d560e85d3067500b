"""The processes that are killed. `python -m tests.crash.child`: one prepared parent, one fork for each kill.

The failpoints are here and not in the product: SQLAlchemy's own events tell each statement and each commit, and the
outbound client is wrapped. Orders are lines of JSON on stdin; for each the parent answers two lines, the child's pid and
then how it ended with the steps it reached, or one line for a rehearsal. No thread runs in either process, so the forks are whole.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from idp.app import create_app
from idp.core import clock
from idp.core.db import db, reading, transaction
from idp.core.outbound import Answer, HttpOutbound, Outbound, Rules
from idp.domain.gateway import admissions
from idp.domain.gateway.models import GatewaySession
from idp.ledgers.audit.head import Head, HeadFile
from idp.ledgers.audit.log import Actor
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from idp.worker import Worker
from idp.worker import main as run_worker
from tests.actors import Browser
from tests.conftest import dispose, settings_for
from tests.crash import engine_child

STATEMENT = re.compile(
    r"(INSERT INTO|UPDATE|DELETE FROM) (\w+)|SELECT\b.*?\bFROM\s+\(?(?:SELECT\b.*?\bFROM\s+)?(\w+)", re.DOTALL
)


def name_of(statement: str) -> str:
    """`UPDATE account`, `SELECT outbox`: the verb and the table."""
    found = STATEMENT.match(statement.strip())
    if found is None:
        return " ".join(statement.split()[:2])
    return f"{found[1].split()[0]} {found[2]}" if found[1] else f"SELECT {found[3]}"


class Steps:
    """What this process has reached. It dies at step `at` (the first is 1; 0: never); `tell` hears of each step."""

    def __init__(self) -> None:
        self.reached, self.at = 0, 0
        self.tell: Callable[[str], object] = lambda _name: None

    def __call__(self, name: str) -> None:
        """One step further."""
        self.reached += 1
        self.tell(name)
        if self.reached == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What is done in the block is no step: a person dies of what they do, not of how a test finds its way."""
        before = (self.reached, self.at, self.tell)
        self.at, self.tell = 0, lambda _name: None
        yield
        self.reached, self.at, self.tell = before

    def watch(self, app: Flask) -> None:
        """Every statement and every commit of this application is a step."""
        with app.app_context():
            for engine in db.engines.values():
                event.listen(engine, "before_cursor_execute", lambda _conn, _cursor, text, *_: self(name_of(text)))
                event.listen(engine, "commit", lambda _conn: self("COMMIT"))
        event.listen(Session, "after_commit", lambda _session: self("committed"))


class Deadly:
    """The product's own client with a step before and after each call."""

    def __init__(self, inner: Outbound, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    def check(self, url: str) -> None:
        """As the real one."""
        self._inner.check(url)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """As the real one, between two steps."""
        self._steps("asked")
        answer = self._inner.get(url, headers=headers)
        self._steps("answered")
        return answer

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> Answer:
        """As the real one, between two steps."""
        self._steps("token minted")
        answer = self._inner.post(url, body, headers=headers)
        self._steps("answered")
        return answer


def revoke(app: Flask, steps: Steps, order: dict[str, str]) -> None:
    """What every door does: one transaction around the only entrance."""
    steps("parsed")
    wish, target = Order(Reason.LEFT, Door.CLI, order["key"]), Target(Scope.ACCOUNT, uuid.UUID(order["account"]))
    with app.app_context(), transaction(reserved=True) as session:
        cascade.revoke(session, target, wish, actor=Actor("cli"), now=clock.now())
    steps("answer")


def act(app: Flask, steps: Steps, order: dict[str, Any]) -> None:
    """Carry out one order in this process."""
    match order["do"]:
        case "revoke":
            revoke(app, steps, order)
        case "deliver":
            Worker(app).drain()
        case "work":
            run_worker(app)
        case "seal":
            seal(app, steps)
        case "engine":
            engine_child.work(app, coarse(steps))
        case "launch":
            launch(app, steps, order)
        case "certify":
            engine_child.certify(app, coarse(steps), uuid.UUID(order["account"]))


def launch(app: Flask, steps: Steps, order: dict[str, str]) -> None:
    """Somebody with this login cookie opens the tool and comes in: three transactions, and after each what its caller was told."""
    tell, challenge = steps.tell, b"n" * 32
    text = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
    with Browser(app) as phone:
        phone.http.cookies.set("sekisho", order["cookie"], domain="localhost.local", path="/")
        with steps.unseen():  # keys are read again every ten seconds: now, and not in the middle of a step
            with app.app_context():
                app.extensions["sekisho"].signer.refresh(now=clock.now())
            token = phone.forms(phone.get("/me/password"))[-1]["fields"]["csrf_token"]
        steps.tell = lambda name: tell(f"launch {name}")
        opened = phone.post("/tools/shifts/open", {"csrf_token": token}, follow=False)
        row_id = uuid.UUID(opened.headers["location"].rpartition("/")[2])
        steps(f"answered: {row_id}")
        with steps.unseen(), app.app_context(), reading() as session:
            host = next(iter(session.get_one(GatewaySession, row_id).hosts))
        steps.tell = lambda name: tell(f"admit {name}")
        asked = phone.get(f"/tools/admit?label={host.partition('.')[0]}&challenge={text}", follow=False)
        ticket = dict(parse_qsl(urlsplit(asked.headers["location"]).query))["ticket"]
        steps(f"answered: {ticket}")
    steps.tell = lambda name: tell(f"enter {name}")
    with app.app_context(), transaction() as session:
        inside = admissions.enter(session, ticket, host=host, challenge=challenge, now=clock.now())
    assert inside is not None
    steps(f"answered: {inside.cookie}")


class DeadlyHead(HeadFile):
    """The second store with a step before and after each write."""

    def __init__(self, path: Path, steps: Steps) -> None:
        super().__init__(path)
        self._steps = steps

    def advance(self, head: Head) -> None:
        """As the real one, between two steps."""
        self._steps("remembering")
        super().advance(head)
        self._steps("remembered")


def seal(app: Flask, steps: Steps) -> None:
    """What the worker's sealer does in a step and at its end."""
    with app.app_context():
        services = app.extensions["sekisho"]
        sealer = services.sealer(DeadlyHead(services.settings.log_head, steps))
        sealer.sign_now()
        sealer.release()


def coarse(steps: Steps) -> Steps:
    """Steps of the engine: several threads write, so that single statements have no order."""
    made = Steps()
    made.at, made.tell = steps.at, steps.tell
    steps.at, steps.tell = 0, lambda _name: None
    return made


def prepare(url: str, folder: str) -> tuple[Flask, Steps]:
    """The product on one database, with every connection closed again: a fork must not share one."""
    settings, steps = settings_for(url, Path(folder)), Steps()
    app = create_app(settings, outbound=Deadly(HttpOutbound(Rules.from_settings(settings)), steps))
    with app.app_context():
        app.extensions["sekisho"].signer.refresh(now=clock.now())
        app.extensions["sekisho"].saml_keys.refresh(now=clock.now())
    dispose(app)
    steps.watch(app)
    engine_child.watch(app, name_of)
    return app, steps


def rehearse(app: Flask, steps: Steps, order: dict[str, Any]) -> list[str]:
    """Carry out an order here, where nobody dies: what it compiles on the way, every fork after it has ready."""
    reached: list[str] = []
    steps.tell = reached.append
    act(app, steps, order)
    dispose(app)
    return reached


def fork(app: Flask, steps: Steps, order: dict[str, Any], answer: Callable[[object], None]) -> None:
    """Carry out an order in a process of its own, which may die of it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            steps.reached, steps.at = 0, order["at"] or 0
            steps.tell = lambda name: os.write(write, f"{name}\n".encode())
            act(app, steps, order)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    answer({"pid": pid})
    with os.fdopen(read) as reached:
        names = reached.read().splitlines()
    _, ended = os.waitpid(pid, 0)
    answer({"exit": os.waitstatus_to_exitcode(ended), "steps": names})


def main() -> None:
    """Carry out each line of stdin."""

    def answer(found: object) -> None:
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()

    prepared: dict[str, tuple[Flask, Steps]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["url"] not in prepared:
            prepared = {order["url"]: prepare(order["url"], order["folder"])}
        app, steps = prepared[order["url"]]
        if order["do"].startswith("rehearse "):
            answer({"steps": rehearse(app, steps, {**order, "do": order["do"].removeprefix("rehearse ")})})
        else:
            fork(app, steps, order, answer)


if __name__ == "__main__":
    main()
