"""Recipes, tool accounts and sealed credentials: what goes in, who gets which account, and what does not open any more."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, text

from connectors.cutclass import CutClass
from connectors.recipes.load import RecipeError
from idp.core import clock, ids
from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.domain.applications import decide
from idp.domain.credentials import service
from idp.domain.credentials.models import CredentialField, CredentialVersion, Rotation, SealedCredential
from idp.domain.credentials.opening import Brake, NotOpened
from idp.domain.credentials.service import BadFields
from idp.domain.credentials.standing import Standing, standing
from idp.domain.directory.roles import Role
from idp.domain.tools import health, recipes, registry
from idp.domain.tools.models import Certification, KillCapability, RecipeText, Tool, ToolAccount
from idp.ledgers.audit.log import Actor
from tests.actors import CLI, World
from tests.toolbox import FIELDS, SHIFT_NOTE, Toolbox

SUBDOMAIN = SHIFT_NOTE.replace('primary: "localhost:8021"', 'primary: "{corp_cd}.localhost:8021"').replace(
    "http://localhost:8021", "http://{corp_cd}.localhost:8021"
).replace("- fill: {field: corp_cd, by: [{label: 企業コード}, {name: corp_cd}]}\n    ", "").replace("id: shift-note", "id: shift-sub")  # fmt: skip


@pytest.fixture
def box(world: World) -> Toolbox:
    """Tools of this world."""
    return Toolbox(world)


def test_VA_58_a_local_recipe_needs_a_second_person(box: Toolbox) -> None:
    """Read whole, stored once, never changed; whoever proposed it cannot approve it, and nothing uses it before."""
    now, one, other = (
        clock.now(),
        box.world.person("hq1", role=Role.HQ_ADMIN),
        box.world.person("hq2", role=Role.HQ_ADMIN),
    )
    proposer, approver = Actor("person", one.id), Actor("person", other.id)

    def propose(what: str) -> RecipeText:
        with box.app.app_context(), transaction() as session:
            return recipes.propose_recipe(session, what, on=box.ground, company_id=None, actor=proposer, now=now)

    with pytest.raises(RecipeError) as refused:
        propose("recipe: 2\nid: X\n")
    assert len(refused.value.problems) > 5
    assert box.count(RecipeText) == 0
    row = propose(SHIFT_NOTE)
    assert propose(SHIFT_NOTE).id == row.id
    with pytest.raises(Conflict):
        propose(SHIFT_NOTE.replace("max_hours: 8", "max_hours: 9"))
    with box.app.app_context():
        with pytest.raises(Conflict), transaction() as session:
            registry.add_tool(
                session, slug="t", name="T", company_id=None, recipe=row, on=box.ground, actor=CLI, now=now
            )
        with pytest.raises(Denied), transaction() as session:
            recipes.approve_recipe(session, row.id, digest=row.digest, actor=proposer, now=now)
        with pytest.raises(Conflict), transaction() as session:
            recipes.approve_recipe(session, row.id, digest="0" * 64, actor=approver, now=now)
        with transaction() as session:
            recipes.approve_recipe(session, row.id, digest=row.digest, actor=approver, now=now)
        with pytest.raises(Conflict), transaction() as session:
            recipes.approve_recipe(session, row.id, digest=row.digest, actor=CLI, now=now)
    tool = box.tool(recipe_id=row.id)
    # other steps under the approved digest
    box.set(RecipeText, RecipeText.id == row.id, text=SHIFT_NOTE.replace("/login", "/elsewhere"))
    with box.app.app_context(), reading() as session, pytest.raises(Invalid):
        recipes.load_recipe(registry.tool_of(session, tool)[1], box.ground)


def test_the_narrowest_account_that_fits_is_used(box: Toolbox) -> None:
    """Person, store and role, store, company and role, company; another company's and another store's never; and through what."""
    world, tool = box.world, box.tool(company=None)
    staff = world.person("0413", store="S1")
    everybody = box.account(tool)
    elsewhere = box.account(tool, company="HOSHI")
    other_store = box.account(tool, store="S2")
    order: list[tuple[uuid.UUID, bool]] = [(everybody, False)]
    for narrower in ({"role": "staff"}, {"store": "S1"}, {"store": "S1", "role": "staff"}, {"person": staff.id}):
        order.insert(0, (box.account(tool, label=str(narrower), **narrower), "person" not in narrower))
        with world.app.app_context(), reading() as session:
            facts = decide.load_facts(session, staff.id, tool, now=clock.now())
            assert facts is not None
            found = registry.fitting(session, tool, facts)
            assert registry.account_for(session, tool, facts) == found[0]
        assert [(f.tool_account.id, f.assignment_id is not None) for f in found] == order
        assert {f.assignment_id for f in found} <= {None, staff.assignment_id}
    box.set(ToolAccount, ToolAccount.id == order[0][0], state="disabled")
    with world.app.app_context(), reading() as session:
        facts = decide.load_facts(session, staff.id, tool, now=clock.now())
        assert facts is not None
        assert [f.tool_account.id for f in registry.fitting(session, tool, facts)] == [one for one, _ in order[1:]]
    assert {elsewhere, other_store}.isdisjoint({one for one, _ in order})


def test_bad_accounts_are_refused_with_their_field(box: Toolbox) -> None:
    """Another company's store, a role beside a person, twice the same, a host field that is no label."""
    tool = box.tool(recipe_id=box.recipe(SUBDOMAIN))
    staff = box.world.person("0413")
    for given, kind, field in (
        ({"store": "H1"}, NotFound, None),
        ({"role": "king"}, Invalid, "role"),
        ({"person": staff.id, "role": "staff"}, Invalid, "person"),
        ({"recovery_owner": "nobody"}, Invalid, "recovery_owner"),
        ({"label": " "}, Invalid, "label"),
        ({"company": "HOSHI"}, NotFound, None),
        ({}, Invalid, "host_corp_cd"),
        ({"host_fields": {"corp_cd": "a.b"}}, Invalid, "host_corp_cd"),
        ({"host_fields": {"corp_cd": "kaede", "more": "x"}}, Invalid, "host_fields"),
    ):
        good = {} if str(field).startswith("host") else {"host_fields": {"corp_cd": "kaede"}}
        with pytest.raises(kind) as refused:
            box.account(tool, **{**good, **given})
        assert refused.value.field == field, given
    box.account(tool, host_fields={"corp_cd": "KAEDE"})
    with pytest.raises(Conflict):
        box.account(tool, host_fields={"corp_cd": "kaede"})


def test_a_deposit_seals_every_field_and_keeps_one_version_back(box: Toolbox) -> None:
    """VA-06: user names are sealed too. A second deposit is the next version; the first one is kept, the one before it discarded."""
    account = box.account(box.tool(recipe_id=box.recipe(SUBDOMAIN)), host_fields={"corp_cd": "kaede"})
    with pytest.raises(NotOpened) as nothing:
        box.open(account)
    assert nothing.value.code == "not_deposited"
    typed = {"login_id": "kaede-012", "password": FIELDS["password"]}
    with pytest.raises(BadFields) as bad:
        box.deposit(account, {"login_id": "", "password": "x" * 1025, "pin": "1"})
    assert [problem.field for problem in bad.value.problems] == ["login_id", "password", "pin"]
    assert bad.value.status == 422
    with pytest.raises(BadFields) as bad:
        box.deposit(account, {"login_id": "a", "password": "line\nbreak"})
    assert "line" not in str(bad.value) + bad.value.public + str(bad.value.values)
    assert [box.deposit(account, typed), box.deposit(account, {**typed, "password": "second"})] == [1, 2]
    assert box.open(account) == {"corp_cd": "kaede", "login_id": "kaede-012", "password": "second"}
    assert box.open(account, version=1)["password"] == FIELDS["password"]
    box.deposit(account, {**typed, "password": "third"})
    states = box.world.rows(
        select(CredentialVersion.version, CredentialVersion.state).order_by(CredentialVersion.version)
    )
    assert [tuple(row) for row in states] == [(1, "discarded"), (2, "previous"), (3, "current")]
    stored = b"".join(row[0] for row in box.world.rows(select(CredentialField.sealed)))
    assert not any(value.encode() in stored for value in (*typed.values(), "second", "third"))
    assert [row.detail["version"] for row in box.audit("credential:credential:deposited")] == [1, 2, 3]
    opened, ended = box.opens(account), box.audit("credential:open:ended")
    assert [row.detail["version"] for row in opened] == [row.detail["version"] for row in ended] == [2, 1]
    assert opened[0].detail["fields"] == ["corp_cd", "login_id", "password"]
    assert opened[0].detail["tool_account_id"] == str(account)


def test_full_width_digits_are_folded_and_said(box: Toolbox) -> None:
    """Section 14: full-width in a `halfwidth` field is accepted and shown as such; a password is never touched."""
    account_id = box.account(box.tool())
    with box.app.app_context(), reading() as session:
        account = session.get_one(ToolAccount, account_id)
        recipe = recipes.for_account(registry.tool_of(session, account.application_id)[1], account, box.ground)
    checked = service.check_fields(
        recipe, account, {"corp_cd": "ｋａｅｄｅ１", "login_id": " a ", "password": " ｐ１ "}
    )
    assert checked.folded == ("corp_cd",)
    assert {name: secret.reveal() for name, secret in checked.fields.items()} == {
        "corp_cd": "kaede1", "login_id": "a", "password": " ｐ１ "
    }  # fmt: skip


def test_a_deposit_meets_a_rotation(box: Toolbox) -> None:
    """While a machine changes the password nobody types another one; when it needs a person, typing one is the decision."""
    account = box.account(box.tool())
    box.deposit(account)
    credential = box.world.rows(select(SealedCredential.id))[0][0]
    now = clock.now()
    rotation = {"id": ids.new_id(now), "created_at": now, "credential_id": credential, "old_version": 1, "trigger": "owner", "fence": 0, "rounds": 0,
                "next_at": now, "deadline_at": now, "evidence": [], "state": "submitting",
                "company_id": box.world.rows(select(SealedCredential.company_id))[0][0]}  # fmt: skip
    with box.app.app_context(), transaction() as session:
        session.add(Rotation(**rotation))
    with pytest.raises(Conflict):
        box.deposit(account)
    box.set(Rotation, Rotation.id == rotation["id"], state="needs_human")
    assert box.deposit(account) == 2
    row = box.world.rows(select(Rotation.state, Rotation.code, Rotation.ended_at))[0]
    assert (row.state, row.code) == ("abandoned", "typed_by_person")
    assert row.ended_at is not None


# --- criterion 5 ----------------------------------------------------------------------------------------------------


def spoil(box: Toolbox, how: str, mine: uuid.UUID, other: uuid.UUID) -> None:
    """Do one thing to the rows of `mine` that a person with the database could do."""
    ours, theirs = (
        box.world.rows(select(SealedCredential.id).where(SealedCredential.tool_account_id == one))[0][0] for one in (mine, other)
    )  # fmt: skip
    field = (CredentialField.credential_id == ours) & (CredentialField.version == 2)
    foreign = (CredentialField.credential_id == theirs) & (CredentialField.field == "password")
    password = field & (CredentialField.field == "password")

    def sealed(where: Any) -> bytes:
        return bytes(box.world.rows(select(CredentialField.sealed).where(where))[0][0])

    if how == "field of another row":
        box.set(CredentialField, password, sealed=sealed(foreign))
    elif how == "whole record of another account":
        dek = box.world.rows(select(CredentialVersion.wrapped_dek).where(CredentialVersion.credential_id == theirs))[0][
            0
        ]
        box.set(
            CredentialVersion,
            (CredentialVersion.credential_id == ours) & (CredentialVersion.version == 2),
            wrapped_dek=dek,
        )
        for name in FIELDS:
            box.set(CredentialField, field & (CredentialField.field == name),
                    sealed=sealed((CredentialField.credential_id == theirs) & (CredentialField.field == name)))  # fmt: skip
    elif how == "old version in the place of the new":
        old = {
            name: sealed(
                (CredentialField.credential_id == ours)
                & (CredentialField.version == 1)
                & (CredentialField.field == name)
            )
            for name in FIELDS
        }
        dek = box.world.rows(select(CredentialVersion.wrapped_dek).where(CredentialVersion.credential_id == ours, CredentialVersion.version == 1))[0][0]  # fmt: skip
        box.set(
            CredentialVersion,
            (CredentialVersion.credential_id == ours) & (CredentialVersion.version == 2),
            wrapped_dek=dek,
        )
        for name, value in old.items():
            box.set(CredentialField, field & (CredentialField.field == name), sealed=value)
    elif how == "two fields swapped":
        a, b = sealed(password), sealed(field & (CredentialField.field == "login_id"))
        box.set(CredentialField, password, sealed=b)
        box.set(CredentialField, field & (CredentialField.field == "login_id"), sealed=a)
    elif how == "another column":
        dek = box.world.rows(select(CredentialVersion.wrapped_dek).where(CredentialVersion.credential_id == ours, CredentialVersion.version == 2))[0][0]  # fmt: skip
        box.set(CredentialField, password, sealed=dek)
    elif how == "another company":
        hoshi = box.world.rows(text("SELECT id FROM company WHERE code = 'HOSHI'").columns(ToolAccount.company_id))[0][
            0
        ]
        box.set(ToolAccount, ToolAccount.id == mine, company_id=hoshi)
    elif how == "another store":
        box.set(ToolAccount, ToolAccount.id == mine, store_id=box.world.store_id("S2"))
    elif how == "truncated":
        box.set(CredentialField, password, sealed=sealed(password)[:-1])
    elif how == "unknown magic":
        box.set(CredentialField, password, sealed=b"XXXX" + sealed(password)[4:])
    elif how == "unknown suite":
        box.set(CredentialField, password, sealed=sealed(password)[:4] + b"\x63" + sealed(password)[5:])
    elif how == "no fields":
        box.change(CredentialField.__table__.delete().where(field))


SPOILED = (
    "field of another row", "whole record of another account", "old version in the place of the new", "two fields swapped", "another column",
    "another company", "another store", "truncated", "unknown magic", "unknown suite", "no fields",
)  # fmt: skip


def test_VA_04_what_was_moved_or_bent_looks_all_the_same(box: Toolbox, caplog: pytest.LogCaptureFixture) -> None:
    """Swapped rows, versions, fields, companies, columns, a cut blob, an unknown magic: one code, an alarm, a row, a lock.

    The healthy copy of each is opened first, so that a failure of the vault itself does not pass for a refusal.
    """
    tool = box.tool(company=None)
    other = box.account(tool, label="other", store="S2")
    box.deposit(other, {**FIELDS, "password": "Other-Secret"})
    said = set()
    for how in SPOILED:
        person = box.world.person(f"p{SPOILED.index(how)}").id
        mine = box.account(tool, label=how, person=person)
        box.deposit(mine)
        box.deposit(mine)
        assert box.open(mine, brake=Brake(60))["password"] == FIELDS["password"]
        spoil(box, how, mine, other)
        alarms = len(caplog.records)
        with caplog.at_level(logging.ERROR), pytest.raises(NotOpened) as refused:
            box.open(mine, brake=Brake(60))
        said.add((refused.value.code, refused.value.public, refused.value.status))
        alarm = [r for r in caplog.records[alarms:] if getattr(r, "code", "") == "vault_integrity"]
        assert len(alarm) == 1, how
        account = box.world.rows(select(ToolAccount.state, ToolAccount.code).where(ToolAccount.id == mine))[0]
        locked = box.world.rows(select(SealedCredential.locked_reason).where(SealedCredential.tool_account_id == mine))
        assert (tuple(account), tuple(locked[0])) == (("degraded", "vault_integrity"), ("vault_integrity",)), how
        last = box.audit("credential:open:ended")[-1]
        assert (last.result, last.detail["code"], last.detail["tool_account_id"]) == (
            "refused",
            "vault_integrity",
            str(mine),
        )
        assert box.audit("credential:credential:locked")[-1].detail["tool_account_id"] == str(mine)
        assert not any(secret in caplog.text for secret in (FIELDS["password"], "Other-Secret"))
        opens = len(box.opens(mine))
        with pytest.raises(NotOpened, match="locked"):
            box.open(mine, brake=Brake(60))
        assert len(box.opens(mine)) == opens
    assert len(said) == 1
    assert box.open(other, brake=Brake(60))["password"] == "Other-Secret"
    # typing it anew ends the lock; so does a person's decision
    box.set(ToolAccount, ToolAccount.id == mine, state="degraded")
    box.deposit(mine)
    assert box.open(mine, brake=Brake(60))["password"] == FIELDS["password"]


def test_VA_04_a_lock_ends_by_a_person(box: Toolbox) -> None:
    """Unlocking is an act with a name and a note; the account is resolved in an act of its own."""
    account = box.account(box.tool())
    box.deposit(account)
    before = box.world.rows(
        select(CredentialField.id, CredentialField.sealed).where(CredentialField.field == "password")
    )[0]
    box.set(CredentialField, CredentialField.id == before.id, sealed=before.sealed[:-1])
    with pytest.raises(NotOpened):
        box.open(account)
    box.set(CredentialField, CredentialField.id == before.id, sealed=before.sealed)
    credential = box.world.rows(select(SealedCredential.id))[0][0]
    with box.app.app_context(), transaction() as session:
        assert service.unlock(session, credential, note="バックアップからもどした", actor=CLI, now=clock.now())
        assert not service.unlock(session, credential, note="もう一度", actor=CLI, now=clock.now())
        health.resolve(session, account, note="確かめた", actor=CLI, now=clock.now())
        with pytest.raises(Conflict):
            health.resolve(session, account, note="確かめた", actor=CLI, now=clock.now())
    assert box.open(account)["password"] == FIELDS["password"]
    assert len(box.audit("credential:credential:unlocked")) == len(box.audit("tool:account:resolved")) == 1


def test_VA_32_without_a_record_nothing_is_opened(box: Toolbox, caplog: pytest.LogCaptureFixture) -> None:
    """The audit table made read-only: 0 plaintexts, `open_not_recorded`, an alarm; writable again, it opens."""
    account = box.account(box.tool())
    box.deposit(account)
    tried: list[str] = []
    unwrap = box.vault._keyring.for_opening
    box.vault._keyring.for_opening = lambda *a, **k: tried.append("key") or unwrap(*a, **k)  # type: ignore[method-assign,func-returns-value]
    sqlite = box.world.services.settings.database_url.startswith("sqlite")
    stop, go = (
        ("CREATE TRIGGER no_log BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'read-only'); END", "DROP TRIGGER no_log")
        if sqlite
        else (
            "ALTER TABLE audit_event ADD CONSTRAINT no_log CHECK (false) NOT VALID", "ALTER TABLE audit_event DROP CONSTRAINT no_log"
        )
    )  # fmt: skip
    box.change(text(stop))
    for _ in range(3):
        with caplog.at_level(logging.ERROR), pytest.raises(NotOpened) as refused:
            box.open(account)
        assert refused.value.code == "open_not_recorded"
    assert tried == []  # not even the company key was unwrapped
    assert "open_not_recorded" in {getattr(record, "code", "") for record in caplog.records}
    box.change(text(go))
    assert box.open(account)["password"] == FIELDS["password"]
    assert len(box.opens(account)) == 1


def test_VA_32_the_brake_stops_a_process(box: Toolbox, caplog: pytest.LogCaptureFixture) -> None:
    """The 61st open within a minute is refused with an alarm, and so is everything after it until the process starts again."""
    account = box.account(box.tool())
    box.deposit(account)
    brake = Brake(3)
    with time_machine.travel(clock.now(), tick=False) as time:
        for left in (3, 2, 1):
            assert brake.room(now=clock.now()) == left
            box.open(account, brake=brake)
        time.shift(timedelta(seconds=59))
        assert brake.room(now=clock.now()) == 0
        time.shift(timedelta(seconds=2))
        assert brake.room(now=clock.now()) == 3  # whoever asks for room never trips it
        for _ in range(3):
            box.open(account, brake=brake)
        for _ in range(2):
            with caplog.at_level(logging.ERROR), pytest.raises(NotOpened) as refused:
                box.open(account, brake=brake)
            assert refused.value.code == "open_brake"
            time.shift(timedelta(hours=1))
        assert brake.room(now=clock.now()) == 0
        assert box.open(account, brake=Brake(3))
    assert "open_brake" in {getattr(record, "code", "") for record in caplog.records}
    assert [row.detail["code"] for row in box.audit("credential:open:ended") if row.result == "refused"] == [
        "open_brake"
    ] * 2


def test_how_an_account_stands(box: Toolbox) -> None:
    """VA-40, section 9: from nothing to class B, one fact at a time; what is old or withdrawn counts as worse."""
    account, now = box.account(box.tool()), clock.now()
    (tool_id,) = box.world.rows(select(Tool.application_id))[0]

    def now_stands(at: Any = None) -> Standing:
        with box.app.app_context(), reading() as session:
            return standing(session, [account], box.ground, now=at or now)[account]

    def certify(**over: Any) -> None:
        with box.app.app_context(), transaction() as session:
            digest = session.scalar(select(RecipeText.digest))
            company = session.get_one(ToolAccount, account).company_id
            row = {"id": ids.new_id(), "created_at": now, "company_id": company, "tool_account_id": account, "recipe_digest": digest, "result": "passed",
                   "checks": [], "evidence_digest": "0" * 64, "run_at": now, "expires_at": now + timedelta(days=90), **over}  # fmt: skip
            session.add(Certification(**row))

    assert (now_stands().refusal, now_stands().cut_class) == ("not_deposited", CutClass.KNOWN_SECRET)
    box.deposit(account)
    assert (now_stands().refusal, now_stands().certification) == ("not_certified", "missing")
    certify(recipe_digest="0" * 64)
    assert now_stands().certification == "missing"
    certify()
    assert (now_stands().refusal, now_stands().cut_class) == (None, CutClass.KNOWN_SECRET)  # a person knows it
    box.set(SealedCredential, SealedCredential.tool_account_id == account, known_to_people=False)
    assert now_stands().cut_class is CutClass.GATEWAY
    assert now_stands().machine_can_change
    assert now_stands(now + timedelta(days=91)).certification == "expired"
    assert now_stands(now + timedelta(days=91)).cut_class is CutClass.OWN_SESSION
    box.set(ToolAccount, ToolAccount.id == account, recovery_owner="unknown")
    assert now_stands().cut_class is CutClass.KNOWN_SECRET
    box.set(ToolAccount, ToolAccount.id == account, recovery_owner="store")
    certify(result="failed", run_at=now + timedelta(seconds=1))
    assert (now_stands().certification, now_stands().withdrawn_code) == ("withdrawn", "checks_failed")
    certify(run_at=now + timedelta(seconds=2))
    with box.app.app_context(), transaction() as session:
        assert health.withdraw_certification(session, account, "secret_in_answer", actor=CLI, now=now) >= 1
    assert (now_stands().withdrawn_code, now_stands().cut_class) == ("secret_in_answer", CutClass.KNOWN_SECRET)
    assert now_stands().change_ends_sessions == "untested"
    with box.app.app_context(), transaction() as session:
        session.add(KillCapability(id=ids.new_id(), created_at=now, application_id=tool_id, change_by="form", change_ends_sessions="after",
                                   change_ends_after_s=60, measured_at=now))  # fmt: skip
        health.degrade(session, account, "recipe_drift", actor=CLI, now=now)
    assert (now_stands().change_ends_sessions, now_stands().ends_after_s) == ("after", 60)
    assert now_stands(now + timedelta(days=181)).change_ends_sessions == "untested"
    assert now_stands().refusal == "tool_degraded"


def test_VA_48_terms_that_forbid_need_an_attested_permission(box: Toolbox) -> None:
    """The recipe loads; nobody enters until somebody with a name says where the written permission lies."""
    forbidden = SHIFT_NOTE.replace("automation: allowed", "automation: forbidden").replace(
        "id: shift-note", "id: shift-forbid"
    )
    tool = box.tool(recipe_id=box.recipe(forbidden))
    account = box.account(tool)
    box.deposit(account)

    def refusal() -> str | None:
        with box.app.app_context(), reading() as session:
            return standing(session, [account], box.ground, now=clock.now())[account].refusal

    assert refusal() == "terms_forbid"
    with box.app.app_context(), pytest.raises(Invalid), transaction() as session:
        health.attest_terms(session, tool, note="  ", actor=CLI, now=clock.now())
    with box.app.app_context(), transaction() as session:
        health.attest_terms(session, tool, note="契約書 第12条、総務のキャビネット", actor=CLI, now=clock.now())
    assert refusal() == "not_certified"
