"""VA-21, VA-22: keys are rotated while everything runs; killed anywhere, it goes on; readers never fail; off only at 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import func, select

from connectors.cookies import Jar
from idp.app import create_app
from idp.core import clock, ids
from idp.core.db import reading, transaction
from idp.core.keystore import PLATFORM, CompanyKeyRow, SigningKey
from idp.core.settings import RefusedToStart
from idp.domain.credentials.models import CredentialField, CredentialVersion, SealedCredential
from idp.domain.credentials.opening import Brake
from idp.domain.directory.roles import Role
from idp.domain.gateway import jars
from idp.domain.gateway.models import ToolSession
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.log import SYSTEM
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.rewrap import turn
from idp.lifecycle.rewrap.turn import LoggedKeyStore, Progress, Turn
from idp.models import Base
from idp.services import build_keyring, build_services, build_vault, record_open
from tests.actors import Browser, World
from tests.conftest import Database, dispose
from tests.toolbox import FIELDS, Toolbox
from vault import KeyClass, Keyring, Vault
from vault.providers.file import FileProvider


@pytest.fixture
def box(world: World) -> Toolbox:
    return Toolbox(world)


class Operator:
    """Whoever runs the commands: a vault that opens every class."""

    def __init__(self, box: Toolbox) -> None:
        self.box, self.app = box, box.app
        with self.app.app_context():
            self.store = LoggedKeyStore(clock.now, SYSTEM)
            self.keyring: Keyring = build_keyring(box.world.services.settings, self.store)
        self.vault = Vault(self.keyring, opens=frozenset(KeyClass))

    def rotate(
        self, company: str, key_class: KeyClass, *, batch: int = 2, stop_after: int | None = None
    ) -> tuple[Turn, Progress]:
        """A rotation up to `finish`. stop_after: as if the process died after so many batches."""
        with self.app.app_context():
            going, seen = turn.begin(self.keyring, company, key_class), [Progress()]
            for step in turn.move(self.vault, self.store, going, actor=SYSTEM, clock=clock.now, batch=batch):
                seen.append(step)
                if len(seen) - 1 == stop_after:
                    break
            done = seen[-1]
            return going, done

    def finish(self, going: Turn) -> tuple[list[uuid.UUID], Any]:
        with self.app.app_context():
            return turn.finish(going, actor=SYSTEM, now=clock.now())

    def under(self, going: Turn) -> int:
        with self.app.app_context(), reading() as session:
            return turn.under(session, going.key_class, going.old)


def company_id(box: Toolbox) -> str:
    return str(box.world.rows(select(ToolAccount.company_id))[0][0])


def some(box: Toolbox, count: int = 5) -> list[uuid.UUID]:
    """Accounts with a credential each, one of them with two versions."""
    tool = box.tool()
    accounts = [box.account(tool, label=f"a{n}", person=box.world.person(f"c{n}").id) for n in range(count)]
    for account in accounts:
        box.deposit(account)
    box.deposit(accounts[0], {**FIELDS, "password": "newer"})
    return accounts


def test_VA_21_a_company_key_is_rotated_while_readers_read(box: Toolbox) -> None:
    """Stopped in the middle and run again: every record moved, payload bytes unchanged, everything opens at every moment, and
    the old key goes off only at 0 and 5 minutes after the last record left it."""
    accounts = some(box)
    payloads = box.world.rows(select(CredentialField.id, CredentialField.sealed).order_by(CredentialField.id))
    operator = Operator(box)

    def all_open() -> None:
        for account in accounts:
            assert box.open(account, brake=Brake(60))["login_id"] == "kaede-012"

    with time_machine.travel(clock.now() + timedelta(seconds=1), tick=False) as traveller:
        going, _ = operator.rotate(company_id(box), KeyClass.CREDENTIAL, stop_after=1)
        assert operator.under(going) == 4
        assert operator.finish(going) == ([], None)
        all_open()
        late = box.account(box.world.rows(select(ToolAccount.application_id))[0][0], label="late", store="S2")
        box.deposit(late)  # sealed under the new key, by a process that knows nothing of the rotation
        again, done = operator.rotate(company_id(box), KeyClass.CREDENTIAL)
        assert (again, done.moved, done.left) == (going, 4, 0)
        all_open()
        off, later = operator.finish(again)
        assert (off, later) == ([], clock.now() + timedelta(minutes=5))
        traveller.shift(timedelta(minutes=5))
        assert operator.finish(again) == ([going.old[0]], None)
        all_open()
        assert box.open(late)["password"] == FIELDS["password"]
    keys = box.world.rows(select(CompanyKeyRow.version, CompanyKeyRow.state, func.length(CompanyKeyRow.wrapped)).where(
        CompanyKeyRow.key_class == "credential").order_by(CompanyKeyRow.version))  # fmt: skip
    assert [(row[0], row[1], row[2] > 0) for row in keys] == [(1, "shredded", False), (2, "active", True)]
    assert [tuple(row) for row in payloads] == [
        tuple(row) for row in box.world.rows(
            select(CredentialField.id, CredentialField.sealed).where(CredentialField.id <= payloads[-1].id).order_by(CredentialField.id)
        )
    ]  # fmt: skip
    assert {row[0] for row in box.world.rows(select(CredentialVersion.key_id))} == {going.to}
    assert sum(row.detail["count"] for row in box.audit("keys:records:rewrapped")) == 6
    assert len(box.audit("keys:company_key:switched_off")) == 1


def test_VA_21_readers_in_another_thread_never_fail(box: Toolbox) -> None:
    """A reader that opens all the time, before, during and after a rotation of every record."""
    accounts, operator = some(box, 4), Operator(box)
    stop = threading.Event()
    failed: list[Exception] = []
    opened: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                opened.append(box.open(accounts[len(opened) % 4], brake=Brake(60))["corp_cd"])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a reader that failed
                failed.append(error)
                return

    def one_more() -> None:
        enough, deadline = len(opened) + 4, time.monotonic() + 60
        while len(opened) < enough and not failed and time.monotonic() < deadline:
            stop.wait(0.01)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        one_more()
        _, done = operator.rotate(company_id(box), KeyClass.CREDENTIAL, batch=1)
        one_more()
    finally:
        stop.set()
        reader.join(60)
    assert (failed, done.moved, done.left) == ([], 5, 0)
    assert len(opened) >= 8
    assert set(opened) == {"kaede"}


def test_VA_21_every_class_moves(box: Toolbox) -> None:
    """Jars, scan sets, device cookies, TOTP seeds, our own keys and the key of tickets: rotated, and all of them still work."""
    [account] = some(box, 1)
    hq, operator, now = box.world.person("hq1", role=Role.HQ_ADMIN), Operator(box), clock.now()
    with box.app.app_context():
        with reading() as session:
            place = jars.Place(session.get_one(ToolAccount, account), ids.new_id(now))
        seal = (box.vault, place, Jar())
        with transaction() as session:
            session.add(
                ToolSession(
                    id=place.tool_session_id, created_at=now, company_id=place.account.company_id, tool_account_id=account, state="live",
                    generation=2, jar_version=3, jar_sealed=jars.seal_jar(*seal, version=3), device_sealed=jars.seal_device(*seal, generation=2),
                    ends_at=now + timedelta(hours=1),
                )
            )  # fmt: skip
    company = company_id(box)
    for owner, key_class in (
        (company, KeyClass.SESSION), (company, KeyClass.ACCOUNT), (PLATFORM, KeyClass.SIGNING), (PLATFORM, KeyClass.TICKET)
    ):  # fmt: skip
        going, done = operator.rotate(owner, key_class)
        assert done.moved > 0, key_class
        assert (done.left, done.stuck) == (0, ()), key_class
        box.set(CompanyKeyRow, CompanyKeyRow.id == going.old[0], moved_at=now - timedelta(minutes=6))
        assert operator.finish(going)[0] == list(going.old), key_class
    row = box.world.rows(select(ToolSession.jar_sealed, ToolSession.device_sealed))[0]
    with box.app.app_context():
        assert (
            jars.open_jar(box.vault, place, row.jar_sealed, version=3, record=record_open).to_json() == Jar().to_json()
        )
        assert (
            jars.open_device(box.vault, place, row.device_sealed, generation=2, record=record_open).to_json()
            == Jar().to_json()
        )
        fresh = build_services(box.world.services.settings)  # a process that starts now
        fresh.signer.refresh(now=now)
        assert fresh.signer.sign({"a": 1}, typ="t", alg="ES256", now=now)
        assert len(fresh.signer.secret("web")) == len(fresh.ticket_key) == 32
        assert fresh.log_key().open()
    with Browser(box.app) as browser:
        assert "hq1" in browser.log_in(hq).text or browser.get("/hq").status_code == 200
    assert box.count(SigningKey) >= 7


def test_VA_21_what_does_not_open_keeps_its_old_key_and_stops_nothing_else(box: Toolbox) -> None:
    """A damaged record is reported and locked, the others move; the old key stays until a person has decided."""
    accounts, operator = some(box, 3), Operator(box)
    bad = box.world.rows(select(SealedCredential.id).where(SealedCredential.tool_account_id == accounts[1]))[0][0]
    wrapped = box.world.rows(select(CredentialVersion.wrapped_dek).where(CredentialVersion.credential_id == bad))[0][0]
    box.set(
        CredentialVersion, CredentialVersion.credential_id == bad, wrapped_dek=wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    )
    # and one whose indexed copy of the key id was bent: found by its own bytes
    other = box.world.rows(select(SealedCredential.id).where(SealedCredential.tool_account_id == accounts[2]))[0][0]
    box.set(CredentialVersion, CredentialVersion.credential_id == other, key_id=ids.new_id())
    going, done = operator.rotate(company_id(box), KeyClass.CREDENTIAL)
    assert (done.moved, done.left, [place for place, _ in done.stuck]) == (3, 1, ["credential_version"])
    box.set(CompanyKeyRow, CompanyKeyRow.id == going.old[0], moved_at=clock.now() - timedelta(minutes=6))
    assert operator.finish(going)[0] == []
    locked = box.world.rows(
        select(SealedCredential.tool_account_id).where(SealedCredential.locked_reason == "vault_integrity")
    )
    assert [row[0] for row in locked] == [accounts[1]]
    assert box.open(accounts[2])["password"] == FIELDS["password"]
    box.deposit(
        accounts[1]
    )  # the person's decision: typed anew; the damaged version is discarded, and still under the old key
    assert box.open(accounts[1])["password"] == FIELDS["password"]
    assert operator.under(going) == 1


@pytest.fixture
def command(database: Database, tmp_path: Path) -> Iterator[Any]:
    """The command in processes of its own, on the database of this test."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEKISHO_")}
    settings = database.settings()
    environment |= {
        "SEKISHO_ENVIRONMENT": "development", "SEKISHO_ISSUER": settings.issuer, "SEKISHO_DATABASE_URL": settings.database_url,
        "SEKISHO_ROOT_KEY": settings.root_key or "", "SEKISHO_PEPPER_FILE": str(settings.pepper_file), "SEKISHO_LOG_HEAD_FILE": str(settings.log_head),
    }  # fmt: skip

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "idp.cli", *arguments], env=environment, cwd=Path(__file__).parents[2], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def test_VA_21_kill_nine_in_the_middle_loses_nothing(box: Toolbox, command: Any) -> None:
    """The command is killed after its first batch; everything opens, and the next run goes on with the same key."""
    accounts = some(box, 6)
    arguments = ("vault", "rotate-company", "AOBA", "--class", "credential", "--batch", "1", "--json")
    victim = command(*arguments)
    assert victim.stderr is not None
    for line in victim.stderr:  # warnings of the start come first
        if line.startswith("moved"):
            break
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    for account in accounts:
        assert box.open(account, brake=Brake(60))["corp_cd"] == "kaede"
    out, err = command(*arguments).communicate(timeout=60)
    said = json.loads(out)
    assert (said["still_under_old"], said["do_not_open"], said["switched_off"]) == (0, [], []), err
    assert box.count(CompanyKeyRow, CompanyKeyRow.key_class == "credential") in {2, 3}  # 3: the victim had finished
    for account in accounts:
        assert box.open(account, brake=Brake(60))["corp_cd"] == "kaede"


def test_VA_21_a_root_key_is_rotated(box: Toolbox, tmp_path: Path) -> None:
    """Company keys move under the new root key; stopped in the middle it goes on; the old one is dropped only at 0."""
    del box  # its database has keys under the environment's root; this test has a provider of its own
    provider = FileProvider.create(tmp_path / "roots", forbidden=(), new_id=ids.new_id)
    assert provider.drop_old(KeyClass.CREDENTIAL) == []
    old = provider.current(KeyClass.CREDENTIAL)
    new = provider.rotate(old)
    assert set(provider.key_ids(KeyClass.CREDENTIAL)) == {old, new}
    assert provider.drop_old(KeyClass.CREDENTIAL) == [old]
    assert list(provider.key_ids(KeyClass.CREDENTIAL)) == [new]
    some_classes = FileProvider.create(tmp_path / "few", forbidden=(), new_id=ids.new_id, classes=[KeyClass.SIGNING])
    added = some_classes.add_class(KeyClass.TICKET)
    assert some_classes.current(KeyClass.TICKET) == added


def test_VA_21_the_root_rotation_of_an_installation(box: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment's provider the operator puts a new master in front: every class moves, then the old master may go."""
    [account] = some(box, 1)
    settings = box.world.services.settings
    both = settings.model_copy(
        update={"root_key": f"{'TmV3IG1hc3RlciBrZXkgb2YgdGhlIHRlc3RzLCAzMmI='} {settings.root_key}"}
    )
    alone = settings.model_copy(update={"root_key": both.root_key.split()[0]})  # type: ignore[union-attr]
    with box.app.app_context():
        from idp.services import root_provider

        for key_class in KeyClass:
            store = LoggedKeyStore(clock.now, SYSTEM)
            keyring, provider = build_keyring(both, store), root_provider(both)
            before = turn.under_other_roots(key_class, provider.current(key_class))
            if before:
                found = turn.rotate_root(keyring, provider, key_class, actor=SYSTEM, now=clock.now())
                assert (found.moved, found.left) == (before, 0)
        vault = build_vault(alone, opens=frozenset({KeyClass.CREDENTIAL}))
    box.vault = vault
    assert box.open(account)["password"] == "newer"
    assert len(box.audit("keys:company_key:rewrapped")) == 3  # of AOBA, and two of our own


def test_VA_22_a_wrong_root_key_refuses_before_any_write(box: Toolbox) -> None:
    """Another root key at start: refused for every kind of process, and no table has a row more or less than before."""
    some(box, 1)
    wrong = box.world.services.settings.model_copy(update={"root_key": "QSB3cm9uZyByb290IGtleSBvZiB0aGUgdGVzdHMhISE="})

    def everything() -> dict[str, int]:
        with box.app.app_context(), reading() as session:
            return {
                t.name: session.scalar(select(func.count()).select_from(t)) or 0 for t in Base.metadata.sorted_tables
            }

    before = everything()
    for _ in range(2):
        with pytest.raises(RefusedToStart, match="root key"):
            dispose(create_app(wrong))
        with box.app.app_context(), pytest.raises(RefusedToStart, match="root key"):
            build_vault(wrong, opens=frozenset({KeyClass.CREDENTIAL}))
        with box.app.app_context(), pytest.raises(RefusedToStart, match="root key"):
            build_keyring(wrong, LoggedKeyStore(clock.now, SYSTEM))
    assert everything() == before
    assert box.count(AuditEvent) == before["audit_event"]
