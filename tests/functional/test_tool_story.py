"""Tools and the vault from the command line, one story: recipe, second person, tool, accounts, deposits, rotation of keys."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, update

from idp.app import create_app
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.keystore import CompanyKeyRow
from idp.core.settings import Settings
from idp.domain.credentials.opening import Brake, Use, open_for
from idp.domain.directory.models import Account
from idp.domain.tools import recipes
from idp.ledgers.audit.log import SYSTEM, Actor
from idp.services import build_vault
from tests.conftest import dispose
from tests.functional.test_commands import Run, environment, run
from tests.toolbox import ENGINE, FIELDS, SHIFT_NOTE

__all__ = ["environment", "run"]


def opened(app: Flask, account: str) -> dict[str, str]:
    """What the engine would get."""
    from uuid import UUID

    with app.app_context():
        vault = build_vault(Settings.from_env(), opens=ENGINE)
        fields = open_for(vault, Brake(60), UUID(account), Use("login"), actor=SYSTEM, now=clock.now())
        return {name: secret.reveal() for name, secret in fields.items()}


def test_a_tool_from_the_command_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands of a shell are one person; a table is all or nothing; keys of both kinds rotate; the passwords still open."""
    run("init", "--json")
    run("company", "add", "AOBA", "あおばストア")
    for store in ("S1", "S2"):
        run("store", "add", "AOBA", store, f"{store}店")
    run("staff", "add", "AOBA", "hq1", "本部", "--kana", "ホンブ", "--role", "hq_admin", "--json")
    file = tmp_path / "shift.yaml"
    file.write_text(SHIFT_NOTE.replace("driver: http", "driver: magic"), encoding="utf-8")
    bad = run("tool", "recipe", "propose", str(file), "--json")
    assert (bad.status, bad.data["problems"][0]["path"]) == (1, "login.driver")
    file.write_text(SHIFT_NOTE, encoding="utf-8")
    recipe = run("tool", "recipe", "propose", str(file), "--json").data
    assert recipe["approved_at"] is None
    again = run("tool", "recipe", "approve", recipe["id"], "--digest", recipe["digest"])
    assert (again.status, "提案した人とは別の人" in again.err) == (1, True)
    app = create_app(Settings.from_env())
    try:
        with app.app_context():
            with reading() as session:
                person = session.scalar(select(Account.id).where(Account.login_name == "hq1"))
            with transaction() as session:
                from uuid import UUID

                recipes.approve_recipe(
                    session, UUID(recipe["id"]), digest=recipe["digest"], actor=Actor("person", person), now=clock.now()
                )
        assert (
            run("tool", "add", "shifts", "シフトノート", "--recipe", recipe["id"], "--company", "AOBA", "--json").status
            == 0
        )
        made = run(
            "tool",
            "account",
            "add",
            "shifts",
            "--company",
            "AOBA",
            "--store",
            "S1",
            "--label",
            "一号店",
            "--recovery-owner",
            "store",
            "--json",
        )
        account = made.data["id"]
        assert (
            run("tool", "account", "add", "shifts", "--company", "AOBA", "--store", "S1", "--label", "二つ目").status
            == 1
        )
        for given, status in (
            ('{"login_id": 1}', 1),
            ("no json", 1),
            (json.dumps({**FIELDS, "password": ""}), 1),
            (json.dumps(FIELDS), 0),
        ):
            monkeypatch.setattr("sys.stdin", io.StringIO(given))
            said = run("tool", "deposit", account, "--rotate", "--json")
            assert said.status == status, said.err
            assert not any(value in said.out + said.err for value in FIELDS.values())
        assert said.data == {
            "deposited": [{"account": account, "version": 1, "made_half_width": []}],
            "rotations_planned": 1,
        }
        table = tmp_path / "t.csv"
        table.write_text("store,企業コード,login_id,password\nS2,kaede,u2,p2\nS9,kaede,u9,p9\n", encoding="cp932")
        refused = run("tool", "deposit", "shifts", "--file", str(table), "--company", "AOBA", "--json")
        assert refused.status == 1
        assert [(p["row"], p["field"]) for p in refused.data["problems"]] == [(3, "store")]
        table.write_text("store,企業コード,login_id,password\nS2,kaede,u2,p2\n", encoding="utf-8")
        other = run("tool", "deposit", "shifts", "--file", str(table), "--company", "AOBA", "--json").data["deposited"][
            0
        ]["account"]
        shown = {row["id"]: row for row in run("tool", "show", "shifts", "--json").data}
        assert (shown[account]["refused_as"], shown[other]["known_to_people"]) == ("not_certified", True)

        root = run("vault", "rotate-root", "--class", "credential", "--json").data
        assert (root["moved"], root["still_under_old"], len(root["old_root_keys_held"])) == (1, 0, 1)
        assert opened(app, account) == dict(FIELDS)
        assert (
            run("vault", "rotate-root", "--class", "credential", "--drop-old", "--json").data["dropped"]
            == root["old_root_keys_held"]
        )
        assert opened(app, other)["password"] == "p2"
        moved = run("vault", "rotate-company", "AOBA", "--class", "credential", "--json").data
        assert (moved["moved"], moved["still_under_old"], moved["switched_off"]) == (2, 0, [])
        with app.app_context(), transaction() as session:
            session.execute(
                update(CompanyKeyRow)
                .where(CompanyKeyRow.state == "retiring")
                .values(moved_at=clock.now() - timedelta(minutes=5))
            )
        finished = run("vault", "rotate-company", "AOBA", "--class", "credential", "--json").data
        assert (finished["moved"], len(finished["switched_off"])) == (0, 1)
        status = run("vault", "status", "--json").data
        keys = {(k["company"], k["class"], k["state"]): k["under_it"] for k in status["company_keys"]}
        assert (keys["AOBA", "credential", "active"], keys["AOBA", "credential", "shredded"]) == (2, 0)
        assert (
            status["provider_ok"],
            status["credentials"],
            status["credentials_locked"],
            status["rotations_open"],
        ) == (True, 2, 0, 1)
        assert opened(app, account) == dict(FIELDS)
    finally:
        dispose(app)
