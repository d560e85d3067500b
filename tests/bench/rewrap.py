"""`python -m tests.bench.rewrap`: rotating a company key over many credentials while readers open them (VA-21), and one field.

Makes `--count` credentials with one field each in a database of its own, rotates the key of the class, and lets a thread open
random ones meanwhile: how many records a second move, how many opens failed (none may), how long one took. Then seal and open of
one field with the company key cached, in memory, without audit rows.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import tempfile
import threading
import time
import uuid
from pathlib import Path

from flask import Flask
from sqlalchemy import func, select

from idp.app import create_database_app
from idp.core import clock, ids
from idp.core.db import add_all, db, reading, transaction
from idp.core.keys import make_first_keys
from idp.core.migrate import upgrade
from idp.core.settings import Settings
from idp.domain.credentials.contexts import context_of
from idp.domain.credentials.models import CredentialField, CredentialVersion, SealedCredential
from idp.domain.credentials.opening import Brake, Use, open_for
from idp.domain.directory import people
from idp.domain.tools import recipes, registry
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.log import SYSTEM
from idp.lifecycle.rewrap import turn
from idp.lifecycle.rewrap.turn import LoggedKeyStore
from idp.services import build_keyring, build_vault
from tests import postgres
from tests.toolbox import SHIFT_NOTE
from vault import CompanyKey, Context, KeyClass, Purpose, Secret, Vault

CHUNK = 2000


class HeldRows(LoggedKeyStore):
    """Key rows held in memory, where the database is not what is measured."""

    def newest(self, company: str, key_class: KeyClass) -> CompanyKey | None:
        """As it was at the first call that found one."""
        held = self.__dict__.setdefault("held", {})
        if (company, key_class) not in held and (found := super().newest(company, key_class)) is not None:
            held[company, key_class] = found
        return held.get((company, key_class))


def settings_for(url: str, folder: Path) -> Settings:
    """A development installation with a random root key."""
    pepper = folder / "pepper"
    pepper.write_text(f"1 {base64.b64encode(os.urandom(32)).decode()}\n", encoding="ascii")
    pepper.chmod(0o600)
    return Settings(environment="development", issuer="http://localhost:8000", database_url=url, pepper_file=pepper,
                    root_key=base64.b64encode(os.urandom(32)).decode(), log_head_file=folder / "head")  # fmt: skip


def fill(settings: Settings, vault: Vault, count: int) -> str:
    """One company with one tool and `count` accounts in it, each with a credential. Returns the company's id."""
    now = clock.now()
    on = recipes.ground(settings, now=now)
    with transaction() as session:
        company = people.add_company(session, code="BENCH", name="bench", actor=SYSTEM, now=now)
        recipe = recipes.propose_recipe(
            session, SHIFT_NOTE, on=on, company_id=None, actor=SYSTEM, now=now, source="builtin"
        )
        application, _ = registry.add_tool(
            session, slug="bench", name="bench", company_id=None, recipe=recipe, on=on, actor=SYSTEM, now=now
        )
        company_id, application_id = company.id, application.id
    for start in range(0, count, CHUNK):
        accounts, credentials, versions, fields = [], [], [], []
        for number in range(start, min(start + CHUNK, count)):
            account_id, credential_id = ids.new_id(now), ids.new_id(now)
            row = {"id": account_id, "created_at": now, "application_id": application_id, "company_id": company_id, "label": str(number),
                   "host_fields": {}, "recovery_owner": "company", "tries": 0, "state": "active"}  # fmt: skip
            sealed = vault.seal(
                {"password": Secret(f"password {number}")}, context_of(ToolAccount(**row), credential_id, 1)
            )
            accounts.append(row)
            credentials.append({"id": credential_id, "created_at": now, "company_id": company_id, "tool_account_id": account_id, "current_version": 1,
                                "known_to_people": True, "known_since": now})  # fmt: skip
            versions.append({"id": ids.new_id(now), "created_at": now, "credential_id": credential_id, "version": 1, "state": "current",
                             "wrapped_dek": sealed.wrapped_dek, "key_id": sealed.key_id})  # fmt: skip
            fields.append({"id": ids.new_id(now), "created_at": now, "credential_id": credential_id, "version": 1, "field": "password",
                           "sealed": sealed.fields["password"]})  # fmt: skip
        with transaction() as session:
            for table, rows in (
                (ToolAccount, accounts),
                (SealedCredential, credentials),
                (CredentialVersion, versions),
                (CredentialField, fields),
            ):
                add_all(session, table, rows)
    return str(company_id)


class Reader(threading.Thread):
    """Opens random credentials until it is told to stop."""

    def __init__(self, app: Flask, vault: Vault, accounts: list[uuid.UUID]) -> None:
        super().__init__()
        self.app, self.vault, self.accounts = app, vault, accounts
        self.stop = threading.Event()
        self.took: list[float] = []
        self.failed: list[Exception] = []

    def run(self) -> None:
        dice, brake = random.Random(1), Brake(10**9)
        with self.app.app_context():
            while not self.stop.wait(0.005):
                began = time.perf_counter()
                try:
                    open_for(self.vault, brake, dice.choice(self.accounts), Use("login"), actor=SYSTEM, now=clock.now())
                except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                    self.failed.append(error)
                self.took.append(time.perf_counter() - began)


def measure(engine: str, url: str, folder: Path, count: int, batch: int) -> None:
    """Fill, rotate, print."""
    settings = settings_for(url, folder)
    app = create_database_app(settings)
    with app.app_context():
        upgrade(db.engine)
        store = LoggedKeyStore(clock.now, SYSTEM)
        keyring = build_keyring(settings, store)
        operator = Vault(keyring, opens=frozenset(KeyClass))
        make_first_keys(operator, now=clock.now())
        began = time.perf_counter()
        quick = Vault(build_keyring(settings, HeldRows(clock.now, SYSTEM)), opens=frozenset(KeyClass))
        company = fill(settings, quick, count)
        filled = time.perf_counter() - began
        with reading() as session:
            accounts = list(session.scalars(select(ToolAccount.id).limit(5000)))
        reader = Reader(app, build_vault(settings, opens=frozenset({KeyClass.CREDENTIAL})), accounts)
        reader.start()
        began = time.perf_counter()
        going, done = turn.begin(keyring, company, KeyClass.CREDENTIAL), turn.Progress()
        for step in turn.move(operator, store, going, actor=SYSTEM, clock=clock.now, batch=batch):
            done = step
        took = time.perf_counter() - began
        reader.stop.set()
        reader.join()
        began = time.perf_counter()
        with reading() as session:
            left = turn.under(session, going.key_class, going.old)
            total = session.scalar(select(func.count()).select_from(CredentialVersion))
        gauge = time.perf_counter() - began
        times = sorted(reader.took)
        print(
            f"{engine}: {total:,} credentials sealed and stored in {filled:.1f} s; rotated in {took:.1f} s = {done.moved / took:,.0f}/s in batches of "
            f"{batch}; {left} left, {len(done.stuck)} stuck; meanwhile {len(times):,} opens, {len(reader.failed)} failed, "
            f"p50 {times[len(times) // 2] * 1000:.1f} ms, p99 {times[int(len(times) * 0.99)] * 1000:.1f} ms; the gauge takes {gauge * 1000:.0f} ms"
        )
        memory = Vault(build_keyring(settings, HeldRows(clock.now, SYSTEM)), opens=frozenset(KeyClass))
        one_field(memory, company)
        for connection in db.engines.values():
            connection.dispose()


def one_field(vault: Vault, company: str, rounds: int = 5000) -> None:
    """Seal and open of one field, the company key cached and the recorder free."""
    context = Context(company=company, store="s", tool="t", record="r", version=1, purpose=Purpose.TOOL_LOGIN)
    secret = Secret("a password of usual length")
    sealed = vault.seal({"password": secret}, context)
    for name, work in (
        ("seal", lambda: vault.seal({"password": secret}, context)), ("open", lambda: vault.open(sealed, context, record=lambda _event: None))
    ):  # fmt: skip
        began = time.perf_counter()
        for _ in range(rounds):
            work()
        print(
            f"  {name} of one field: {(time.perf_counter() - began) / rounds * 1e6:.0f} µs (budget 100), rows of keys held in memory"
        )


def main() -> None:
    """Both engines, as far as they are there."""
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--batch", type=int, default=turn.BATCH)
    options.add_argument("--engine", choices=["sqlite", "postgresql", "both"], default="both")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.engine in {"sqlite", "both"}:
            measure("sqlite", f"sqlite:///{folder}/bench.sqlite", folder, given.count, given.batch)
        if given.engine in {"postgresql", "both"} and not postgres.why_not():
            server = postgres.PostgresServer()
            try:
                measure("postgresql", server.create_template("rewrap"), folder, given.count, given.batch)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
