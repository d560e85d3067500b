"""`sekisho tool check` (vault-and-gateway.md §6, §14): no database, no key, every mistake at once."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from idp.cli import cli

TOOLS = Path(__file__).parents[2] / "connectors" / "demo" / "tools"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["tool", "check", *arguments], standalone_mode=False)
    if isinstance(result.exception, click.exceptions.Exit):
        return result.exception.exit_code, result.output
    if result.exception is not None:
        raise result.exception
    return result.return_value if isinstance(result.return_value, int) else 0, result.output


@pytest.mark.parametrize("name", ["shift_note", "order_desk"])
def test_the_recipes_of_the_demonstration_are_good_on_loopback_only(name: str) -> None:
    status, output = run(str(TOOLS / f"{name}.yaml"), "--loopback", "--json")
    found = json.loads(output)
    assert (status, found["ok"], found["problems"]) == (0, True, [])
    assert len(found["digest"]) == 64
    status, output = run(str(TOOLS / f"{name}.yaml"))
    assert status == 1
    assert "host_forbidden" in output
    assert "この機械自身です" in output
    assert "this machine itself" in output


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("recipe: 2\nid: X\nlogin: {driver: magic}\n", encoding="utf-8")
    status, output = run(str(bad), "--json")
    found = json.loads(output)
    assert (status, found["ok"]) == (1, False)
    codes = {problem["code"] for problem in found["problems"]}
    assert {"unsupported_version", "missing_key", "wrong_type"} <= codes
    assert all(problem["ja"] and problem["en"] and problem["line"] for problem in found["problems"])
    with pytest.raises(click.BadParameter):
        run(str(tmp_path / "absent.yaml"))
