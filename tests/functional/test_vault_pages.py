"""The pages of tools and of the vault (V01 to V05, A07 to A09), over HTTP: the way in of a recipe, an account, a password;
who may; and that no screen and no command ever shows a value (D13, VA-31)."""

from __future__ import annotations

import io
import json
import re
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import click
import httpx2
import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import select

from idp.cli import cli
from idp.core import clock
from idp.core.db import transaction
from idp.domain.credentials import rotations
from idp.domain.credentials.models import CredentialVersion, Rotation, SealedCredential
from idp.domain.directory.roles import Role
from idp.domain.tools.models import RecipeText, Tool, ToolAccount
from idp.ledgers.audit.models import AuditEvent
from tests.actors import Browser, Person, World
from tests.toolbox import FIELDS, SHIFT_NOTE, Toolbox

PLANTED = FIELDS["password"]
RESOLVED = ("tool:account:resolved", "credential:credential:unlocked")


@pytest.fixture
def box(world: World) -> Toolbox:
    return Toolbox(world)


def hq(world: World, number: str = "hq1", **more: Any) -> Person:
    return world.person(number, role=Role.HQ_ADMIN, name=f"本部 {number}", **more)


def upload(browser: Browser, url: str, *, file: bytes, **fields: str) -> httpx2.Response:
    """Send the form of the current page with a file, as a browser does."""
    form = next(f for f in browser.forms() if f["method"] == "post" and f["action"] != "/logout")
    page = browser.http.post(
        url, data={**form["fields"], **fields}, files={"file": ("t.csv", file, "text/csv")}, headers={"Sec-Fetch-Site": "same-origin"}
    )  # fmt: skip
    return browser._follow(page, follow=True)


def test_from_a_recipe_to_a_deposited_password(box: Toolbox) -> None:
    """The wizard: mistakes with line and field, what was understood, a second person, the tool, its account, the deposit."""
    world = box.world
    with Browser(world.app) as desk, Browser(world.app) as other:
        desk.log_in(hq(world))
        other.log_in(hq(world, "hq2"))
        desk.get("/hq/tools/recipes/new")
        bad = desk.submit(
            text=SHIFT_NOTE.replace("driver: http", "driver: magic").replace("landing: /shifts", ""), act="check"
        )
        assert bad.status_code == 422
        assert {"wrong_type", "missing_key"} <= set(re.findall(r'mono small">(\w+)<', bad.text))
        assert "login.driver" in bad.text
        assert box.count(RecipeText) == 0
        good = desk.submit(text=SHIFT_NOTE, act="check")
        assert (good.status_code, "localhost:8021" in good.text, "機械が変えられます" in good.text) == (200, True, True)
        proposed = desk.submit(act="propose")
        where = str(proposed.url.path)
        assert "別の人の承認を待っています" in proposed.text
        assert desk.post(f"{where}/approve", {"digest": "x"}).status_code == 400  # no form token
        other.get(where)
        assert "承認ずみです" in other.submit(action=f"{where}/approve").text
        desk.get(f"/hq/tools/new?recipe={where.rpartition('/')[2]}")
        page = desk.submit()
        assert page.url.path == "/hq/apps/shift-note/tool"
        assert "まだアカウントがありません" in page.text
        wrong = desk.submit(action="/hq/apps/shift-note/tool/accounts", label="新宿", store="H1")
        assert (wrong.status_code, box.count(ToolAccount)) == (422, 0)
        page = desk.submit(
            action="/hq/apps/shift-note/tool/accounts", label="1号店", store="S1", recovery_owner="store"
        )
        assert page.url.path.endswith("/deposit")
        empty = desk.submit(field_corp_cd="ｋａｅｄｅ", field_login_id="planted-user-77", field_password="")
        assert empty.status_code == 422
        assert "planted-user-77" not in empty.text
        assert "「パスワード」を入れてください。" in empty.text
        english = desk.get(f"{empty.url.path}?lang=en").text
        assert all(f">{word}</label>" in english for word in ("Company code", "Login ID", "Password"))
        assert ">パスワード</label>" not in english
        desk.get(f"{empty.url.path}?lang=en")
        assert "Enter “Password”" in desk.submit(field_corp_cd="k", field_login_id="u", field_password="").text
        desk.get(f"{empty.url.path}?lang=ja")
        page = desk.submit(
            field_corp_cd="ｋａｅｄｅ", field_login_id="planted-user-77", field_password=PLANTED, rotate="y"
        )
        assert (page.status_code, "預けました" in page.text, "半角に直しました" in page.text) == (200, True, True)
        assert "パスワードを変えています" in page.text  # a person knows it: changed at once unless they say no
        account = uuid.UUID(page.url.path.rpartition("/")[2])
        assert box.open(account)["password"] == PLANTED
        for path in (
            "/hq/tools",
            "/hq/vault",
            f"/hq/vault/{account}",
            "/hq/apps/shift-note/tool",
            "/hq/apps",
            "/hq/apps/shift-note",
        ):
            for language in ("ja", "en"):
                shown = desk.get(f"{path}?lang={language}")
                assert shown.status_code == 200, (path, shown.text[-800:])
        page = desk.get("/hq/apps/shift-note?lang=ja").text
        assert ('href="/hq/apps/shift-note/tool"' in page, "/hq/apps/shift-note/saml" in page) == (True, False)
        assert 'href="/hq/tools" aria-current="page"' in desk.get("/hq/apps/shift-note/tool").text
        history = desk.get(f"/hq/vault/{account}?lang=ja")
        assert "預かった秘密を開いた" in history.text
        assert len(box.audit("audit:log:viewed")) >= 4
    assert tuple(world.rows(select(Rotation.trigger, Rotation.state))[0]) == ("import", "planned")


def test_V05_a_table_is_all_or_nothing(box: Toolbox) -> None:
    """Every bad row and column is named and no cell is repeated; with one of them nothing is stored; else everything is."""
    tool = box.tool()
    known = box.account(tool, store="S1", label="古い")
    head = "store,person,label,企業コード,login_id,password\n"
    rows = f"S1,,,kaede,u1,{PLANTED}-1\n,0413,,ｋａｅｄｅ,u2,{PLANTED}-2\nS2,,二号店,kaede,u3,{PLANTED}-3\n"
    box.world.person("0413")
    with Browser(box.app) as desk:
        desk.log_in(hq(box.world))
        here = "/hq/apps/shifts/tool/import"

        def send(table: bytes, act: str = "deposit") -> httpx2.Response:
            desk.get(here)
            return upload(desk, here, file=table, act=act, rotate="")

        for table, row, field in (
            (head + rows + f"S9,,,kaede,u,{PLANTED}\n", "5", "store"),
            (head + rows + f",9999,,kaede,u,{PLANTED}\n", "5", "person"),
            (head + rows + f"S2,,,kaede,u,{PLANTED}\n", "5", "store"),
            (head + rows + f"{PLANTED},,,kaede,u\n", "5", ""),
            (head + rows.replace("u2", ""), "3", "login_id"),
            (head + rows.replace("u3", "u\t3"), "4", "login_id"),
            (
                head.replace("企業コード", "Company code").replace("login_id", "Login ID") + rows.replace("u2", ""),
                "3",
                "login_id",
            ),
            (head.replace(",password", f",{PLANTED}") + rows, "1", "6"),
            (head.replace("login_id", "store") + rows, "1", "store"),
            (head.replace(",login_id", "").replace(",password", ",password,login_id,login_id") + rows, "1", "login_id"),
        ):
            page = send(table.encode())
            found = re.findall(r'data-row="(\d+)" data-field="([^"]*)"', page.text)
            assert (row, field) in found, (table, found)
            assert page.status_code == 422
            assert PLANTED not in page.text
            assert box.count(CredentialVersion) == 0
        for broken in (b"", head.encode(), b"\xff\xfe\x00\x81", b'"' + head.encode() + rows.encode()):
            assert send(broken).status_code == 422
        assert "3行すべて読めました" in send((head + rows).encode(), "check").text
        assert (box.count(CredentialVersion), box.count(ToolAccount)) == (0, 1)
        page = send((head + rows).encode("cp932"))
        assert (page.status_code, box.count(CredentialVersion), box.count(ToolAccount)) == (200, 3, 3)
    assert box.open(known)["password"] == f"{PLANTED}-1"
    labels = {row.label: row.id for row in box.world.rows(select(ToolAccount.label, ToolAccount.id))}
    assert box.open(labels["0413"]) == {"corp_cd": "kaede", "login_id": "u2", "password": f"{PLANTED}-2"}
    assert box.open(labels["二号店"])["password"] == f"{PLANTED}-3"


def test_who_may_see_what(box: Toolbox) -> None:
    """WB-07: another company's HQ finds nothing, staff and managers are refused; a store manager sees names and states only."""
    tool = box.tool(company=None)
    account = box.account(tool, store="S1", label="くさいラベル")
    box.deposit(account)
    paths = (
        "/hq/tools",
        "/hq/vault",
        f"/hq/vault/{account}",
        f"/hq/vault/{account}/deposit",
        "/hq/apps/shifts/tool",
        "/hq/tools/recipes/new",
    )
    with Browser(box.app) as manager, Browser(box.app) as foreign:
        manager.log_in(box.world.person("0101", role=Role.STORE_MANAGER))
        assert {manager.get(path).status_code for path in paths} == {403}
        page = manager.get("/store/S1/tools")
        assert ("シフトノート" in page.text, "くさいラベル" in page.text, "本部が確かめています" in page.text) == (
            True,
            False,
            True,
        )
        assert manager.get("/store/S2/tools").status_code == 404
        foreign.log_in(hq(box.world, "hq9", company="HOSHI", store=None))
        assert foreign.get(f"/hq/vault/{account}").status_code == 404
        assert foreign.get(f"/hq/vault/{account}/deposit").status_code == 404
        assert "くさいラベル" not in foreign.get("/hq/vault").text + foreign.get("/hq/apps/shifts/tool").text
        foreign.get("/hq/apps/shifts/tool")
        taken = foreign.submit(action="/hq/apps/shifts/tool/accounts", label="x", company="AOBA", store="S1")
        assert taken.status_code == 422  # S1 is no store of theirs, whatever company they name
        for act in ("rotate", "resolve", "decide", "end"):
            token = foreign.forms(foreign.get("/hq/vault"))[0]["fields"]["csrf_token"]
            assert foreign.post(f"/hq/vault/{account}/{act}", {"csrf_token": token, "note": "x"}).status_code == 404, (
                act
            )
    assert box.world.rows(select(ToolAccount.state, ToolAccount.ended_at)) == [("active", None)]
    assert len(box.audit("directory:foreign_object:refused")) >= 6


def test_a_person_resolves_after_step_up(box: Toolbox) -> None:
    """Degraded is on the list before anybody promises a cut; resolving takes a fresh proof and a reason, both in the log."""
    import time_machine

    account, who = box.account(box.tool(), label="共通"), hq(box.world)
    box.deposit(account)
    with Browser(box.app) as desk:
        desk.log_in(who)
        assert 'data-code="not_certified"' in desk.get("/hq/tools").text
        box.set(ToolAccount, ToolAccount.id == account, state="degraded", code="recipe_drift")
        box.set(SealedCredential, SealedCredential.tool_account_id == account, locked_reason="vault_integrity")
        listed = desk.get("/hq/tools").text
        assert 'data-code="vault_integrity"' in listed
        desk.get(f"/hq/vault/{account}")
        assert desk.submit(action=f"/hq/vault/{account}/resolve", note="").status_code == 422
        with time_machine.travel(clock.now().timestamp() + 6 * 60, tick=False):
            desk.get(f"/hq/vault/{account}")
            written = '画面を"もどして"もらった <b>\n2行目'
            asked = desk.submit(action=f"/hq/vault/{account}/resolve", note=written)
            assert (asked.status_code, 'data-page="L09"' in asked.text) == (401, True)
            assert "書いた内容は消えません" in asked.text
            assert written not in str(asked.url)
            wrong = desk.submit(code=who.wrong_code())
            assert (wrong.status_code, 'data-page="L09"' in wrong.text) == (401, True)
            assert box.world.rows(select(ToolAccount.state)) == [("degraded",)]
            was = desk.cookie
            page = desk.submit(code=who.code())  # the proof and the act are one press; nothing is written twice
            assert (page.status_code, page.url.path, desk.cookie != was) == (200, f"/hq/vault/{account}", True)
            assert desk.get(f"/hq/vault/{account}").status_code == 200  # with the new cookie
        notes = box.world.rows(select(AuditEvent.personal).where(AuditEvent.tag.in_(RESOLVED)))
        assert [row.personal["note"] for row in notes] == [written, written]
        assert box.world.rows(select(ToolAccount.state, ToolAccount.code)) == [("active", None)]
        assert box.world.rows(select(SealedCredential.locked_reason)) == [(None,)]
        # a change that ended in doubt
        desk.get(f"/hq/vault/{account}")
        desk.submit(action=f"/hq/vault/{account}/rotate")
        box.set(Rotation, Rotation.ended_at.is_(None), state="needs_human")
        assert 'data-code="rotation"' in desk.get("/hq/tools").text
        desk.get(f"/hq/vault/{account}")
        assert desk.submit(action=f"/hq/vault/{account}/decide", holds="old").status_code == 200
        assert box.count(Rotation, Rotation.ended_at.is_(None)) == 0
        # a change that ended before anything was sent: nobody is asked which one holds
        box.set(ToolAccount, ToolAccount.id == account, state="degraded", code="rotation_no_tries")
        assert "パスワードの変更が終わりませんでした" in desk.get("/hq/tools").text
        seen = desk.get(f"/hq/vault/{account}").text
        assert ('id="resolve"' in seen, 'id="decide"' in seen) == (True, False)
        desk.get(f"/hq/vault/{account}")
        assert desk.submit(action=f"/hq/vault/{account}/end").url.path == "/hq/apps/shifts/tool"
        assert desk.get(f"/hq/vault/{account}").status_code == 404


# --- D13, VA-31 -----------------------------------------------------------------------------------------------------


def readable(app: Flask, **ids: str) -> Iterator[str]:
    """Every address of the product that a GET may ask, with real ids in it."""
    for rule in sorted(app.url_map.iter_rules(), key=str):
        if "GET" not in (rule.methods or ()) or rule.endpoint == "static":
            continue
        yield re.sub(r"<(?:\w+:)?(\w+)>", lambda m: ids.get(m[1], "x"), str(rule))


def test_VA_31_no_page_shows_a_value(box: Toolbox) -> None:
    """Every route there is, asked by head office, by the operator and by a store manager, after a deposit, an open, a refused
    form and a table: no answer holds a planted value in any usual encoding. A new route is asked by itself."""
    import base64

    values = {"corp_cd": "planted-corp", "login_id": "planted-user", "password": PLANTED}
    needles = set()
    for value in values.values():
        raw = value.encode()
        needles |= {
            value,
            raw.hex(),
            base64.b64encode(raw).decode().rstrip("="),
            value.replace("-", "%2D"),
            json.dumps(value)[1:-1],
        }
    account = box.account(box.tool(), store="S1", label="共通")
    box.deposit(account, values)
    box.open(account)
    recipe = box.world.rows(select(RecipeText.id))[0][0]
    ids = {
        "tool_account_id": str(account),
        "account_id": str(account),
        "slug": "shifts",
        "recipe_id": str(recipe),
        "code": "S1",
        "company": "AOBA",
        "event_id": str(account),
    }
    asked: dict[int, int] = {}
    for person in (
        hq(box.world),
        box.world.person("op", company="SEKISHO", role=Role.OPERATOR),
        box.world.person("0101", role=Role.STORE_MANAGER),
    ):
        with Browser(box.app) as browser:
            browser.log_in(person)
            browser.get(f"/hq/vault/{account}/deposit")
            if person.role is Role.HQ_ADMIN:
                browser.submit(field_corp_cd=values["corp_cd"], field_login_id=values["login_id"], field_password="")
                assert not needles & set(re.findall(r"[\w%+/-]+", browser.page.text))  # type: ignore[union-attr]
                browser.get(f"/hq/vault/{account}/deposit")
                browser.submit(**{f"field_{name}": value for name, value in values.items()}, rotate="y")
            for path in readable(box.app, **ids):
                answer = browser.http.get(path)
                asked[answer.status_code] = asked.get(answer.status_code, 0) + 1
                said = answer.text + json.dumps(dict(answer.headers))
                assert not [needle for needle in needles if needle in said], path
    assert asked[200] >= 60
    assert not asked.get(500)


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    """Every command there is."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name)


def test_VA_31_no_command_shows_a_value(
    box: Toolbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command there is, with whatever arguments fit: none prints a planted value, and none has an option to."""
    if box.world.services.settings.database_url.startswith("postgresql"):
        pytest.skip("commands call what the pages call; one engine is enough here")
    account = box.account(box.tool(), store="S1", label="共通")
    box.deposit(account)
    settings = box.world.services.settings
    for name, value in {
        "ENVIRONMENT": "development", "ISSUER": settings.issuer, "DATABASE_URL": settings.database_url, "ROOT_KEY": settings.root_key,
        "PEPPER_FILE": settings.pepper_file, "LOG_HEAD_FILE": settings.log_head,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SEKISHO_{name}", str(value))
    known = list(commands(cli))
    assert {("vault", "status"), ("tool", "deposit"), ("tool", "show")} <= set(known)
    runs: list[tuple[str, ...]] = [(*command, "--help") for command in known]
    runs += [
        ("tool", "list", "--json"), ("tool", "show", "shifts"), ("tool", "recipe", "list"),
        ("vault", "status"), ("vault", "rotate-company", "AOBA", "--class", "credential", "--json"),
        ("tool", "deposit", str(account), "--json"), ("audit", "verify"),
    ]  # fmt: skip
    good, spoken = 0, ""
    for run in runs:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(FIELDS)))
        result = CliRunner().invoke(cli, list(run), input=json.dumps(FIELDS))
        good += result.exit_code == 0
        spoken += result.output + repr(result.exception or "")
    spoken += "".join(capsys.readouterr())
    assert good == len(runs)
    assert PLANTED not in spoken
    assert FIELDS["login_id"] not in spoken
    words = " ".join(spoken.split()).lower()
    assert not re.search(r"--(reveal|show-secret|show-password|plain|unmask)", words)
    assert box.open(account)["password"] == PLANTED


def test_V02_rotation_by_hand_needs_a_form_in_the_recipe(box: Toolbox) -> None:
    """Where no machine can change the password the page says so, and the act is refused."""
    plain = SHIFT_NOTE.split("password:\n  rules")[0].replace("id: shift-note", "id: shift-plain")
    account = box.account(box.tool(recipe_id=box.recipe(plain)))
    box.deposit(account)
    assert box.world.rows(select(Tool.lane)) == [("gateway",)]
    with Browser(box.app) as desk:
        desk.log_in(hq(box.world))
        page = desk.get(f"/hq/vault/{account}")
        assert "/rotate" not in page.text
        token = desk.forms()[0]["fields"]["csrf_token"]
        assert desk.post(f"/hq/vault/{account}/rotate", {"csrf_token": token}).status_code == 409
    with box.app.app_context(), transaction() as session:
        assert rotations.open_of(session, account) is None
