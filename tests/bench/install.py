"""An installation of its own for one benchmark: folder, database, people, applications, and the processes that serve it."""

from __future__ import annotations

import base64
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from idp.app import create_app, create_database_app
from idp.core import clock, ids
from idp.core.db import db, reading, transaction
from idp.core.keys import make_first_keys
from idp.core.migrate import upgrade
from idp.core.settings import Settings
from idp.domain.applications import registry, saml
from idp.domain.applications.registration import Registration
from idp.domain.applications.registry import Registered
from idp.domain.applications.saml import SpRegistration
from idp.domain.authn import activation
from idp.domain.directory import people
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Power, Role
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens.models import TokenFamily
from idp.edges.saml import metadata
from idp.ledgers.audit.log import Actor
from idp.ledgers.outbox.models import OutboxRow
from idp.services import build_services
from tests.postgres import PostgresServer
from tests.saml import ServiceProvider

CLI = Actor("cli")
ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a benchmark of quiet rivers"
#: 50 live things: 2 logins, and in each 12 applications with a token family
LOGINS, APPS = 2, 12


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """Linux ends this child when the benchmark is killed: nothing may serve on without it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Installation:
    """Everything of one engine's benchmark. `close()` stops all of it and deletes the folder."""

    def __init__(self, engine: str, *, destinations: int, victims: int, crowd: int, drivers: int) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="sekisho-bench-"))
        self.postgres = PostgresServer(fsync=True) if engine == "postgresql" else None
        self.port, self.peer_port = free_port(), free_port()
        url = self.postgres.create_template("sekisho") if self.postgres else f"sqlite:///{self.folder}/sekisho.sqlite"
        pepper = self.folder / "pepper"
        pepper.touch(mode=0o600)
        pepper.write_text(f"1 {base64.b64encode(secrets.token_bytes(32)).decode()}\n", encoding="ascii")
        self.settings = Settings(
            environment="development", issuer=f"http://localhost:{self.port}", database_url=url, port=self.port, pepper_file=pepper,
            root_key=base64.b64encode(secrets.token_bytes(32)).decode(), root_key_file=None, templates=None,
            log_head_file=self.folder / "log-head",
        )  # fmt: skip
        self.app = self._create()
        self._running: list[subprocess.Popen[bytes]] = []
        self.victims: list[str] = []
        self.plan: dict[str, Any] = {"port": self.port, "host": f"localhost:{self.port}", "password": PASSWORD}
        with self.app.app_context():
            self._seed(destinations, victims, crowd, drivers)
            # as in any database that has run for a minute: without statistics, plans are guesses
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("ANALYZE")
            for made in db.engines.values():
                made.dispose()

    def _create(self) -> Flask:
        bare = create_database_app(self.settings)
        with bare.app_context():
            upgrade(db.engine)
            make_first_keys(build_services(self.settings).vault, now=clock.now())
            for made in db.engines.values():
                made.dispose()
        return create_app(self.settings)

    # --- people and applications -----------------------------------------------------------------------------------

    def _seed(self, destinations: int, victims: int, crowd: int, drivers: int) -> None:
        now = clock.now()
        services = self.app.extensions["sekisho"]
        services.signer.refresh(now=now)
        verifier = services.hasher.make(PASSWORD)
        with transaction() as session:
            company = people.add_company(session, code="AOBA", name="あおばストア", actor=CLI, now=now)
            region = people.add_region(session, company, code="TOKYO", name="東京", actor=CLI, now=now)
            people.add_store(session, company, code="S1", name="渋谷駅前店", actor=CLI, now=now, region=region)
            web = self._application(session, "web", now=now)
            native = self._application(session, "native", auth_method="none", now=now)
            apps = [
                self._application(session, f"rp-{n:04}", backchannel_logout_uri=f"http://127.0.0.1:{self.peer_port}/rp-{n:04}", now=now)
                for n in range(destinations)
            ]  # fmt: skip
            self.plan["clients"] = {
                "web": {
                    "id": web.relying_party.client_id,
                    "secret": web.secret,
                    "redirect": "https://web.example/callback",
                },
                "native": {
                    "id": native.relying_party.client_id,
                    "secret": None,
                    "redirect": "https://native.example/callback",
                },
            }
            app_ids = [app.application.id for app in apps]
            self.plan["providers"] = {
                slug: self._provider(session, slug, sign=sign, now=now)
                for slug, sign in (("saml-both", "both"), ("saml-one", "assertion"))
            }
        names = [f"d{n:03}" for n in range(drivers)] + [f"c{n:03}" for n in range(crowd)]
        with transaction() as session:
            for name in names:
                self._person(session, name, Role.STAFF, verifier, now=now)
            self._person(session, "manager", Role.STORE_MANAGER, verifier, now=now)
        self.plan["actors"] = [f"AOBA/{name}" for name in names[:drivers]]
        self.plan["crowd"] = [f"AOBA/{name}" for name in names[drivers:]]
        self.plan["manager"] = "AOBA/manager"
        with transaction() as session:
            for n in range(victims):
                account = self._person(session, f"v{n:03}", Role.STAFF, None, now=now)
                self.victims.append(str(account))
                self._live_things(session, account, app_ids[:APPS], logins=LOGINS, now=now)
            self.popular = str(self._person(session, "popular", Role.STAFF, None, now=now))
            self._live_things(session, uuid.UUID(self.popular), app_ids, logins=1, now=now)

    @staticmethod
    def _application(session: Session, slug: str, *, now: datetime, **over: Any) -> Registered:
        wish = Registration(
            name=slug,
            redirect_uris=(f"https://{slug}.example/callback",),
            functions=("points.view", "points.adjust"),
            **over,
        )
        made = registry.add_relying_party(session, wish, slug=slug, company_id=None, loopback=True, actor=CLI, now=now)
        registry.grant(
            session, made.application, subject_kind="role", subject_id=None, role=Role.STAFF.value, functions=wish.functions,
            company_id=None, actor=CLI, now=now,
        )  # fmt: skip
        return made

    @staticmethod
    def _provider(session: Session, slug: str, *, sign: str, now: datetime) -> str:
        """A SAML service provider that does not sign its requests. Returns its entityID."""
        peer = ServiceProvider(slug, soap=False)
        facts = metadata.read(peer.metadata(), now=now)
        wish = SpRegistration(name=slug, sign=sign, functions=("points.view",))
        application, _ = saml.add_service_provider(
            session, wish, facts, slug=slug, company_id=None, loopback=True, actor=CLI, now=now
        )
        registry.grant(
            session, application, subject_kind="role", subject_id=None, role=Role.STAFF.value, functions=wish.functions,
            company_id=None, actor=CLI, now=now,
        )  # fmt: skip
        return peer.entity_id

    @staticmethod
    def _person(session: Session, name: str, role: Role, verifier: str | None, *, now: datetime) -> uuid.UUID:
        company = people.get_company(session, "AOBA")
        place = Place(company, people.get_store(session, company.id, "S1", None, Power.HIRE))
        account = people.add_account(
            session, place, login_name=name, name=f"山本 {name}", kana="ヤマモト", role=role, actor=CLI, now=now
        )
        account_id = account.id
        if verifier is not None:
            code = activation.issue(
                session, account_id, purpose="activate", life=timedelta(hours=1), actor=CLI, now=now
            )
            waiting = activation.find(session, code or "", now=now)
            assert waiting is not None
            assert activation.use(session, waiting, verifier=verifier, actor=CLI, now=now)
        return account_id

    @staticmethod
    def _live_things(
        session: Session, account_id: uuid.UUID, apps: list[uuid.UUID], *, logins: int, now: datetime
    ) -> None:
        """Rows as logins and code flows leave them."""
        company_id = people.get_company(session, "AOBA").id
        later = now + timedelta(hours=8)
        for _ in range(logins):
            login = LoginSession(
                id=ids.new_id(now), created_at=now, account_id=account_id, company_id=company_id, cookie_digest=ids.digest(ids.new_secret()),
                acr="urn:sekisho:aal1", amr=["pwd"], auth_time=now, last_seen_at=now, idle_s=1800, idle_until=later, ends_at=later,
            )  # fmt: skip
            session.add(login)
            session.flush()
            opened = [
                AppSession(
                    id=ids.new_id(now), created_at=now, login_session_id=login.id, application_id=app, account_id=account_id,
                    company_id=company_id, sid=ids.new_secret(), sub=str(account_id), last_issued_at=now, ends_at=later,
                )
                for app in apps
            ]  # fmt: skip
            session.add_all(opened)
            session.flush()
            session.add_all(
                TokenFamily(
                    id=ids.new_id(now), created_at=now, app_session_id=app.id, application_id=app.application_id, account_id=account_id,
                    company_id=company_id, scope="openid profile", acr="urn:sekisho:aal1", amr=["pwd"], auth_time=now, generation=1,
                    rotated_at=now, access_until=now + timedelta(minutes=5), ends_at=later,
                )
                for app in opened
            )  # fmt: skip
            session.flush()

    def deliveries_open(self) -> int:
        """How many deliveries of the outbox are not done."""
        with self.app.app_context(), reading() as session:
            return session.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.state != "done")) or 0

    # --- processes -------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What the commands read."""
        s = self.settings
        mine = {
            "ENVIRONMENT": s.environment, "ISSUER": s.issuer, "DATABASE_URL": s.database_url, "ROOT_KEY": s.root_key or "",
            "PEPPER_FILE": str(s.pepper_file), "PORT": str(s.port), "HOST": "127.0.0.1",
        }  # fmt: skip
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SEKISHO_")}
        return {**clean, **{f"SEKISHO_{k}": v for k, v in mine.items()}}

    def _start(self, command: list[str], name: str, **env: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, *command],
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs here
            cwd=ROOT,
            env={**self.environment(), **env},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        log.close()
        self._running.append(process)
        return process

    def serve(self, *, gunicorn: str | None = None) -> subprocess.Popen[bytes]:
        """Start the web server and wait until it answers. gunicorn: a folder with that package, to compare."""
        if gunicorn is None:
            process = self._start(["-m", "idp.cli", "serve"], "web")
        else:
            command = [
                "-m",
                "gunicorn",
                "idp.wsgi:app",
                "-k",
                "gthread",
                "-w",
                "1",
                "--threads",
                str(self.settings.web_threads),
            ]
            command += ["-b", f"127.0.0.1:{self.port}", "--keep-alive", "75", "--graceful-timeout", "30"]
            process = self._start(command, "gunicorn", PYTHONPATH=gunicorn)
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://localhost:{self.port}/healthz", timeout=2):
                    return process
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError(self.logs()) from None
                time.sleep(0.1)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start the worker."""
        return self._start(["-m", "idp.cli", "worker"], "worker")

    def logs(self) -> str:
        """The end of what the processes wrote."""
        return "\n".join(
            f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in sorted(self.folder.glob("*.log"))
        )

    def stop(self, process: subprocess.Popen[bytes]) -> float:
        """SIGTERM; seconds until it was gone."""
        began = time.monotonic()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process in self._running:
            self._running.remove(process)
        return time.monotonic() - began

    def close(self) -> None:
        """Stop everything and delete the folder."""
        for process in list(self._running):
            self.stop(process)
        with self.app.app_context():
            for made in db.engines.values():
                made.dispose()
        if self.postgres is not None:
            self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database_pid(self) -> int | None:
        """The database server's first process, if there is one."""
        if self.postgres is None:
            return None
        return int((self.postgres.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
