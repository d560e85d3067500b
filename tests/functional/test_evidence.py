"""AU-05 to AU-09, AU-20, RV-07: what leaves the log is believed by two verifiers that share nothing, and by nobody once it was touched."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import time_machine
from sqlalchemy import select

from idp.core import clock
from idp.core.db import reading, transaction
from idp.domain.directory.roles import Role
from idp.ledgers.audit import empty, leaf, store
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation import labels, period
from idp.lifecycle.revocation import receipt as receipts
from idp.lifecycle.revocation import record as cuts
from idp.lifecycle.revocation.models import Cut, Revocation
from tests.actors import CLI, Browser, World, utc
from tests.conftest import REQUIRE_ALL
from tests.fakes.lives import cut, furnish
from tests.fakes.outbound import RecordingOutbound, down
from tests.functional.test_receipt import Desk

NOW = utc(2026, 12, 1, 3, 0)
NODE = shutil.which("node")
SECOND = Path(__file__).resolve().parents[1] / "interop" / "node" / "verify.mjs"


def unpack(data: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        zipped.extractall(folder)
    return folder


def both(folder: Path, key: str, *anchors: Path) -> tuple[int, str]:
    """The shipped verifier, alone in an isolated Python; then the other one, which must agree. Status and words of the first."""
    given = [word for anchor in anchors for word in ("--anchor", str(anchor))]
    done = subprocess.run(
        [sys.executable, "-I", "-B", folder / "verify.py", "--key", key, *given], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip
    if NODE is None:
        assert not REQUIRE_ALL, "node is required in this run"
    else:
        other = subprocess.run([NODE, SECOND, folder, key, *anchors], capture_output=True, text=True, check=False)
        assert (other.returncode == 0) == (done.returncode == 0), (done.stdout, other.stderr)
    return done.returncode, done.stdout


def key_of(world: World) -> str:
    with world.app.app_context(), reading() as session:
        origin = store.origin(session)
        assert origin is not None
        return origin.vkey


def test_AU20_a_receipt_pack_is_proven_offline_by_two_verifiers(
    world: World, outbound: RecordingOutbound, tmp_path: Path
) -> None:
    """RP down: NOT CONFIRMED first, in page and data. Later it answers: the next pack says so, the old one still verifies. With
    no key from outside the answer is 3; a touched file, another key, a pack of other facts: 1."""
    hq, points = world.person("hq1", role=Role.HQ_ADMIN), world.application()
    outbound.behave("https://points.example/backchannel", down)
    with time_machine.travel(NOW, tick=False) as frozen:
        number = cut(world, furnish(world, [points], "1"))
        with Desk(world, hq) as desk:
            early = desk.get(f"/receipts/{number}.zip")
            assert early.status_code == 409, "its row is not sealed yet: a pack could prove nothing"
            world.deliver()
            first = desk.get(f"/receipts/{number}.zip")
            assert first.status_code == 200
            assert first.headers["content-disposition"] == f'attachment; filename="{number}.zip"'
            outbound.behaviours.clear()
            frozen.shift(timedelta(minutes=6))
            world.deliver()
            second = desk.get(f"/receipts/{number}.zip")
    one, two, key = unpack(first.content, tmp_path / "1"), unpack(second.content, tmp_path / "2"), key_of(world)
    early_pack, late_pack = (json.loads((folder / "pack.json").read_text()) for folder in (one, two))
    states = {line["contract"] for line in early_pack["not_cut"]}
    assert "UNCONFIRMED" in states
    assert not early_pack["everything_cut"]
    assert next(iter(early_pack)) == "not_cut"
    html = (one / "pack.html").read_text()
    assert html.index("NOT CONFIRMED") < html.index("依頼")
    assert next(line for line in late_pack["lines"] if line["contract"] == "ACKED")["acknowledged_at"]
    for folder in (one, two):
        status, said = both(folder, key)
        assert (status, "VERIFIED" in said) == (0, True), said
    alone = subprocess.run(
        [sys.executable, "-I", "-B", one / "verify.py"], cwd=one, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 3, alone.stdout

    stranger = re.sub(r"\+[0-9a-f]{8}\+.*", "", key) + "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert both(one, stranger)[0] == 1
    (one / "pack.html").write_text(html.replace("NOT CONFIRMED", "cut"))
    assert both(one, key)[0] == 1
    shutil.copy(two / "pack.html", one / "pack.html")
    assert both(one, key)[0] == 1
    (two / "more.txt").write_text("x")
    assert both(two, key)[0] == 1


def test_AU20_the_words_of_a_pack(world: World, outbound: RecordingOutbound, tmp_path: Path) -> None:
    """遮断 and "cut" stand beside LOCAL_DEAD and VERIFIED alone, whatever a lying application answers; nothing is everything
    while one line is not gone."""
    says = re.compile(r"遮断|\bcut\b|\bconfirmed\b|\bverified\b", re.IGNORECASE)
    denies = re.compile(r"not confirmed", re.IGNORECASE)
    for contract, word in labels.CONTRACT.items():
        claims = bool(says.search(denies.sub("", word.ja + word.en)))
        assert claims == (contract in {"LOCAL_DEAD", "VERIFIED"}), contract
    with time_machine.travel(NOW, tick=False), Desk(world, world.person("hq1", role=Role.HQ_ADMIN)) as desk:
        number = cut(world, furnish(world, [world.application("lying")], "1"))
        world.deliver()
        folder = unpack(desk.get(f"/receipts/{number}.zip").content, tmp_path)
    pack = json.loads((folder / "pack.json").read_text())
    contracts = {line["contract"] for line in pack["lines"]}
    assert {"LOCAL_DEAD", "ACKED"} <= contracts
    for line in pack["lines"]:
        text = denies.sub("", line["text_ja"] + line["text_en"])
        assert bool(says.search(text)) == (line["contract"] in {"LOCAL_DEAD", "VERIFIED"}), line
    page = (folder / "pack.html").read_text()
    rows = re.findall(r'<tr>\s*<td class="(open|gone)">.*?</tr>', page, re.DOTALL)
    assert len(rows) == len(pack["lines"])
    for row in re.findall(r'<tr>\s*<td class="open">.*?</tr>', page, re.DOTALL):
        assert not says.search(denies.sub("", re.sub(r"<[^>]+>", " ", row)))
    assert "すべて遮断済" not in page


def test_RV07_a_receipt_is_sealed_and_opens_again_when_a_closed_line_turns_out_wrong(
    world: World, outbound: RecordingOutbound
) -> None:
    """Sealed by the last line; what comes to light later takes the line, the completion and the green banner back, with a row
    that carries the new facts; closing it again seals it again."""
    hq, points = world.person("hq1", role=Role.HQ_ADMIN), world.application()
    with time_machine.travel(NOW, tick=False) as frozen:
        number = cut(world, furnish(world, [points], "1"))
        world.deliver()
        frozen.shift(timedelta(minutes=6))
        world.deliver()
        done = world.rows(select(Revocation).where(Revocation.number == number))[0][0]
        assert done.completed_at is not None
        frozen.shift(timedelta(days=2))
        with world.app.app_context(), transaction() as session:
            found = receipts.load(session, number, None)
            line = next(line for line in found.lines if line.contract == "ACKED")
            cuts.reopen(session, line.cut, why="2日後もログインできた", actor=CLI, now=clock.now())
        opened = world.rows(select(Revocation).where(Revocation.number == number))[0][0]
        assert (opened.completed_at, opened.reopened_at) == (None, clock.now())
        with Desk(world, hq) as desk:
            assert "このレシートを開き直しました" in desk.get(f"/receipts/{number}").text
        with world.app.app_context(), transaction() as session:
            cut_row = session.scalars(select(Cut).where(Cut.id == line.cut.id)).one()
            cuts.close_by_person(
                session, cut_row, impossible=False, note="アプリ側で止めた", closed_by=hq.id, actor=CLI, now=clock.now()
            )
    tags = [
        row[0].tag for row in world.rows(select(AuditEvent).order_by(AuditEvent.created_at, AuditEvent.id))
        if row[0].detail.get("revocation_id") == str(done.id)
    ]  # fmt: skip
    kinds = [tag for tag in tags if tag in {Tag.RECEIPT_SEALED.value, Tag.RECEIPT_REOPENED.value}]
    assert sorted(kinds) == sorted([Tag.RECEIPT_SEALED.value, Tag.RECEIPT_REOPENED.value, Tag.RECEIPT_SEALED.value])
    again = world.rows(select(Revocation).where(Revocation.number == number))[0][0]
    assert again.completed_at is not None
    assert again.reopened_at is not None


def test_WB07_a_former_stores_manager_sees_nothing_of_the_next_store(world: World) -> None:
    """Somebody works in S1, moves to S2, and leaves there: S1's manager sees S1's receipt and not S2's; S2's not S1's."""
    person = world.person("0413")
    old, new = (world.person(f"01{n}", role=Role.STORE_MANAGER, store=store) for n, store in enumerate(("S1", "S2")))
    with world.app.app_context():
        first = _end_one(world, person.id, "S1", then="S2")
        second = _end_one(world, person.id, "S2", then=None)
        whole = cut(world, person.id)
    for viewer, sees, hidden in ((old, [first], [second, whole]), (new, [second], [first])):
        with Browser(world.app) as browser:
            browser.log_in(viewer)
            listed = browser.get("/receipts").text
            for number in sees:
                assert browser.get(f"/receipts/{number}").status_code == 200
                assert number in listed
            for number in hidden:
                assert browser.get(f"/receipts/{number}").status_code == 404
                assert number not in listed


def _end_one(world: World, account_id: Any, code: str, then: str | None) -> str:
    """End the assignment at one store; before that, begin one at the next."""
    from idp.domain.directory import people
    from idp.domain.directory.models import Account, Assignment, Store
    from idp.lifecycle.revocation import cascade
    from idp.lifecycle.revocation.cascade import Order, Target
    from idp.lifecycle.revocation.words import Door, Reason, Scope

    now = clock.now()
    with transaction() as session:
        account = session.scalars(select(Account).where(Account.id == account_id)).one()
        if then is not None:
            store_row = session.scalars(
                select(Store).where(Store.code == then, Store.company_id == account.company_id)
            ).one()
            session.add(Assignment(
                created_at=now, account_id=account_id, company_id=account.company_id, store_id=store_row.id, region_id=store_row.region_id,
                role=Role.STAFF.value, starts_at=now, epoch=0,
            ))  # fmt: skip
            session.flush()
        mine = session.scalars(
            select(Assignment)
            .join(Store, Store.id == Assignment.store_id)
            .where(Assignment.account_id == account_id, Store.code == code)
        ).one()
        del people
        made = cascade.revoke(
            session, Target(Scope.ASSIGNMENT, mine.id), Order(Reason.MOVED, Door.CLI), actor=CLI, now=clock.now()
        )
        return made.number


def test_AU07_AU09_a_period_is_complete_also_after_retention_and_an_anchor_is_compared(
    world: World, outbound: RecordingOutbound, tmp_path: Path
) -> None:
    """Two checkpoints and a count; one company's content, everybody's leaves; an emptied body with its cover; anchors that were
    taken on the way agree, one of another tree does not."""
    app = world.app
    with time_machine.travel(NOW, tick=False) as frozen:
        cut(world, furnish(world, [world.application()], "1"))
        world.deliver()
        with app.app_context(), reading() as session:
            anchor = store.latest(session)
            assert anchor is not None
        (tmp_path / "anchor.txt").write_text(anchor.note)
        frozen.shift(timedelta(hours=1))
        begins = clock.now()
        cut(world, furnish(world, [], "2"))
        with app.app_context(), transaction() as session:
            record(session, Tag.LOGIN_SUCCEEDED, actor=Actor("person", None, "r", "192.0.2.4"), now=clock.now())
        frozen.shift(timedelta(hours=1))
        world.deliver()
        with app.app_context(), transaction() as session:
            assert empty.body(session, AuditEvent.tag == Tag.LOGIN_SUCCEEDED.value) >= 1
            record(
                session, Tag.RETENTION_ENDED, actor=CLI, now=clock.now(), tag=Tag.LOGIN_SUCCEEDED.value, part="body",
                before=leaf.instant(clock.now()),
            )  # fmt: skip
        uncovered = _period(world, begins, frozen)
        world.deliver()
        covered = _period(world, begins, frozen)
        key = key_of(world)
        with app.app_context(), reading() as session:
            company = world.rows(select(Revocation.company_id))[0][0]
        mine = _period(world, begins, frozen, company_id=company)
    status, said = both(unpack(covered, tmp_path / "1"), key)
    assert status == 0, said
    assert "the population is complete" in said
    assert both(unpack(uncovered, tmp_path / "2"), key)[0] == 1
    status, said = both(unpack(mine, tmp_path / "3"), key)
    assert status == 0, said
    lines = [json.loads(line) for line in (tmp_path / "3" / "leaves.jsonl").read_text().splitlines()]
    assert {json.loads(line["leaf"])["company"] for line in lines if line["body"]} == {str(company)}
    assert len((tmp_path / "1" / "leaves.jsonl").read_text().splitlines()) == len(lines)
    rows = (tmp_path / "1" / "cuts.csv").read_text().splitlines()
    assert rows[0].startswith("number,company,store,person,scope,reason,hr_at")
    assert len(rows) == 2

    status, said = both_anchor(tmp_path / "1", key, tmp_path / "anchor.txt")
    assert status in {0, 3}, said
    other = anchor.note.replace("localhost", "elsewhere")
    (tmp_path / "other.txt").write_text(other)
    assert both_anchor(tmp_path / "1", key, tmp_path / "other.txt")[0] == 1


def both_anchor(folder: Path, key: str, anchor: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-B", folder / "verify.py", "--key", key, "--anchor", anchor], capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.returncode, done.stdout


def _period(world: World, begins: Any, frozen: Any, company_id: Any = None) -> bytes:
    file = io.BytesIO()
    with world.app.app_context():
        key = world.services.log_key()
        with reading() as session:
            period.write(
                file, session, key, world.services.settings, begins=begins, ends=begins + timedelta(minutes=30), company_id=company_id,
                now=clock.now(),
            )  # fmt: skip
    return file.getvalue()
