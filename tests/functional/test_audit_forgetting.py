"""AU-09: after an erasure nobody can be read from the database, after a retention period nothing but the place in the tree, and
every proof still holds."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner
from sqlalchemy import func, select

from idp.cli import cli
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import Conflict
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import LoginSession
from idp.ledgers.audit import leaf, verify
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox.models import OutboxRow
from idp.lifecycle.oversight import erase, proof, retention
from tests.actors import CLI, Browser, Person, World, utc
from tests.functional.steps import count, cut, dump, token_on

NOW = utc(2026, 11, 24, 1, 0)
NAME, KANA = "𠮷田 美々津", "ヨシダ ミミツ"


def forget(world: World, person: Person) -> None:
    with world.app.app_context():
        with transaction() as session:
            erase.erase(session, person.id, actor=CLI, now=clock.now())
        erase.blocks(person.id)


def holds(world: World) -> int:
    """How many sealed rows are still exactly their leaf. Fails for one that is not."""
    rows = [row for (row,) in world.rows(select(AuditEvent).where(AuditEvent.leaf_index.is_not(None)))]
    assert all(leaf.leaf_hash(row) == row.leaf_hash for row in rows)
    return len(rows)


def check(found: dict[str, Any]) -> dict[str, Any] | None:
    """The proof of one event, with verify.py's own functions and nothing of the product's. Returns the body."""
    size, root = verify.open_checkpoint(found["checkpoint"], found["vkey"])
    hashed, head, body = verify.read_leaf({name: found[name] for name in ("index", "leaf", "body", "proof")})
    assert head is not None
    assert verify.inclusion_ok(hashed, found["index"], size, [bytes.fromhex(h) for h in found["proof"]], root)
    return body


def test_an_erased_person_is_nowhere_and_every_proof_holds_au09(world: World) -> None:
    """AU-09: name, kana, number, address, keys and free text are gone from every table; receipts and search still work and name
    nobody; the account cannot come back; the proof saved before and the one made after hold; refused while live or open."""
    with time_machine.travel(NOW, tick=False) as clockwork:
        audit, hq = world.person("audit", role=Role.AUDITOR), world.person("hq1", role=Role.HQ_ADMIN)
        staff = world.person("TANAKA77", name=NAME, kana=KANA, totp=True)
        never = world.application("never", backchannel_logout_uri=None)
        with Browser(world.app, address="203.0.113.77") as phone:
            phone.log_in(staff)
            never.log_in(phone)
        with pytest.raises(Conflict):
            forget(world, staff)
        number = cut(world, staff)
        world.deliver()
        with pytest.raises(Conflict):  # the line that needs a person is open, and that person has to know whose it is
            forget(world, staff)
        with Browser(world.app) as desk:
            desk.log_in(hq)
            page = desk.get(f"/receipts/{number}")
            position = next(
                p
                for p in range(12)
                if desk.get(f"/receipts/{number}/lines/{p}").status_code == 200 and 'name="note"' in desk.page.text
            )  # type: ignore[union-attr]
            desk.get(f"/receipts/{number}/lines/{position}")
            desk.submit(outcome="done", note=f"{NAME} を消した")
            del page
        clockwork.shift(timedelta(minutes=10))  # the last access token has run out
        world.deliver()
        before = dump(world)
        assert all(word.encode() in before for word in (NAME, "ヨシダ", "よしだ", "TANAKA77", "203.0.113.77"))
        with Browser(world.app) as desk:
            desk.log_in(audit)
            event = world.rows(
                select(AuditEvent.id).where(
                    AuditEvent.tag == Tag.LOGIN_SUCCEEDED.value, AuditEvent.subject_id == staff.id
                )
            )[0][0]
            saved = desk.get(f"/audit/events/{event}/proof.json")
            assert saved.status_code == 200
            assert "attachment" in saved.headers["content-disposition"]
        sealed = holds(world)

        clockwork.shift(timedelta(minutes=1))
        forget(world, staff)
        world.deliver()
        with pytest.raises(Conflict):
            forget(world, staff)
        after = dump(world)
        left = [
            word
            for word in (NAME, NAME.split()[1], "ヨシダ", "よしだ", "TANAKA77", "203.0.113.77")
            if word.encode() in after
        ]
        assert left == []
        assert holds(world) > sealed
        body = check(saved.json())
        assert body is not None
        assert body["subject"] == str(staff.id)
        with world.app.app_context(), reading() as session:
            again = proof.of(session, session.get_one(AuditEvent, event))
        assert again is not None
        assert check(again) == body
        assert world.rows(select(OutboxRow.state).where(OutboxRow.topic == erase.TOPIC)) == [("done",)]
        assert count(world, Tag.PERSONAL_ERASED, subject_id=staff.id) == 1
        with Browser(world.app) as desk:
            desk.log_in(audit)
            assert desk.get(f"/receipts/{number}").status_code == 200
            assert desk.get(f"/audit/events/{event}").status_code == 200
            assert "消去済み" in desk.page.text  # type: ignore[union-attr]
            assert desk.get("/audit?person=TANAKA77").status_code == 400
            assert desk.get(f"/audit?person={staff.id}").status_code == 200
        with Browser(world.app) as desk:
            desk.log_in(hq)
            token = {"csrf_token": token_on(desk.get("/")), "note": "もどす"}
            assert desk.post(f"/hq/people/{staff.id}/reinstate", token).status_code == 409


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the command adds nothing that an engine could change
def test_the_command_forgets_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sekisho staff erase`: asks first, says what it did, refuses a second time and somebody who is live."""
    settings = world.services.settings
    for name in ("environment", "issuer", "database_url", "root_key", "pepper_file"):
        monkeypatch.setenv(f"SEKISHO_{name.upper()}", str(getattr(settings, name)))
    gone, live = world.person("0413", name=NAME), world.person("0414")
    cut(world, gone)
    world.deliver()
    run = CliRunner()
    assert run.invoke(cli, ["staff", "erase", "AOBA/0413"], input="n\n").exit_code == 1
    assert NAME.encode() in dump(world)
    done = run.invoke(cli, ["staff", "erase", "AOBA/0413", "--yes", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["account"], said["left_for_the_worker"]) == (str(gone.id), False)
    assert NAME.encode() not in dump(world)
    assert isinstance(run.invoke(cli, ["staff", "erase", live.login, "--yes"]).exception, Conflict)
    assert run.invoke(cli, ["staff", "erase", "AOBA/0413", "--yes"]).exit_code == 1


def test_retention_empties_a_class_and_keeps_the_tree_au09(world: World) -> None:
    """AU-09: login detail ends after 13 months, evidence after 7 years with the names of whom it was about; head, leaf and proofs
    stay; each emptying has its sealed sentence; nothing younger is touched; a tampered row stops it."""
    settings = world.services.settings

    def tidy() -> None:
        with world.app.app_context():
            while retention.step(settings, now=clock.now()):
                pass
        world.deliver()

    def bodies(tag: Tag) -> int:
        query = (
            select(func.count())
            .select_from(AuditEvent)
            .where(AuditEvent.tag == tag.value, AuditEvent.body_hash.is_(None))
        )
        return int(world.rows(query)[0][0])

    with time_machine.travel(NOW, tick=False) as clockwork:
        staff = world.person("0413", name=NAME)
        with Browser(world.app, address="203.0.113.77") as phone:
            phone.log_in(staff)
        cut(world, staff)
        world.deliver()
        tidy()
        assert (bodies(Tag.LOGIN_SUCCEEDED), bodies(Tag.REVOKED)) == (1, 1)
        clockwork.shift(timedelta(days=settings.keep_login_days - 2))
        late = world.person("0414")
        with Browser(world.app) as phone:
            phone.log_in(late)
        world.deliver()
        tidy()
        assert bodies(Tag.LOGIN_SUCCEEDED) == 2
        clockwork.shift(timedelta(days=3))
        tidy()
        assert (bodies(Tag.LOGIN_SUCCEEDED), bodies(Tag.REVOKED)) == (1, 1)
        old = world.rows(select(AuditEvent).where(AuditEvent.tag == Tag.LOGIN_SUCCEEDED.value).order_by(AuditEvent.id))[
            0
        ][0]
        assert (old.subject_id, old.personal, old.detail, old.result) == (None, None, {}, "")
        assert old.company_id is not None
        assert [row[0] for row in world.rows(select(LoginSession.address).order_by(LoginSession.id))] == [
            "",
            "127.0.0.1",
        ]
        ends = [
            row[0] for row in world.rows(select(AuditEvent.detail).where(AuditEvent.tag == Tag.RETENTION_ENDED.value))
        ]
        assert {(e["tag"], e["part"]) for e in ends} >= {
            ("authn:login:succeeded", "body"),
            ("authn:login:succeeded", "personal"),
        }
        assert not any(e["tag"].startswith("revocation") for e in ends)
        assert all(e["before"] > leaf.instant(old.created_at) for e in ends)
        holds(world)
        before = len(ends)
        tidy()
        assert count(world, Tag.RETENTION_ENDED) == before, "what is empty is not emptied again"
        assert NAME.encode() in dump(world)
        clockwork.shift(timedelta(days=settings.keep_evidence_days))
        tidy()
        tidy()
        assert bodies(Tag.REVOKED) == 0
        assert NAME.encode() not in dump(world)
        assert world.rows(select(Account.erased_at.is_(None), Account.login_name).where(Account.id == late.id))[0] == (
            True,
            "0414",
        )
        holds(world)
