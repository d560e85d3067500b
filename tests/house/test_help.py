"""The help of every command in Japanese and English: one catalogue, complete, and lines that fit a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from babel.messages.pofile import read_po
from click.testing import CliRunner

from idp import cli as product
from idp.cli import cli, spoken

ROOT = Path(__file__).parents[2]
CATALOGUE = ROOT / "templates" / "locale" / "ja" / "cli.po"
JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")
#: what a person copies into a shell, or looks up: the same in both languages
LITERAL = re.compile(r"`[^`]+`|--[a-z][a-z-]+|SEKISHO_[A-Z_]+|\([A-Z]+-\d+\)|/saml/\w+")


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command there is, with the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


@cache
def wanted() -> frozenset[str]:
    """Every paragraph of help."""
    found = {*spoken.HEADINGS, *spoken.NOTES}
    for _, command in commands(cli):
        found |= {part for part in spoken.paragraphs(command.help or "") if part}
        found |= {one.help for one in command.params if isinstance(one, click.Option) and one.help}
    return frozenset(found)


def test_every_help_text_has_its_japanese() -> None:
    """None is missing, obsolete, fuzzy or empty; options, names of settings and requirements are the same in both."""
    with CATALOGUE.open("rb") as file:
        found = {str(one.id): one for one in read_po(file, locale="ja") if one.id}
    assert len(wanted()) > 150
    assert found.keys() == wanted()
    for english, one in found.items():
        japanese = str(one.string)
        assert not one.fuzzy, english
        assert JAPANESE.search(japanese) or english == "SAML 2.0.", english
        assert not JAPANESE.search(english.replace("関所", "")), f"English stands in the code: {english}"
        assert sorted(LITERAL.findall(english)) == sorted(LITERAL.findall(japanese)), english


def test_every_page_of_help_speaks_japanese_and_fits() -> None:
    """No English paragraph is left, no line of it is wider than 80 columns; the commands themselves stay English."""
    run, before = CliRunner(), {path: command.help for path, command in commands(cli)}
    for path, _ in commands(cli):
        page = run.invoke(spoken.in_japanese(cli), [*path, "--help"], prog_name="sekisho")
        assert page.exit_code == 0, page.output
        assert page.output.startswith("使い方: sekisho")
        assert "この説明を出して終わります。" in page.output
        for line in page.output.splitlines():
            wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
            assert wide <= 80 or not JAPANESE.search(line), (path, line)
            assert not line.lstrip().startswith(("。", "、")), (path, line)
        plain = " ".join(page.output.split())
        left = [text for text in wanted() if len(text) > 12 and text in plain and text != "SAML 2.0."]
        assert not left, (path, left)
    assert {path: command.help for path, command in commands(cli)} == before
    assert "Usage: sekisho" in run.invoke(cli, ["revoke", "--help"], prog_name="sekisho").output


@pytest.mark.parametrize(
    ("variables", "speaks"),
    [
        ({"LANG": "ja_JP.UTF-8"}, True), ({"LANG": "ja"}, True), ({"LC_ALL": "ja_JP.eucJP", "LANG": "C"}, True),
        ({"LC_ALL": "", "LC_MESSAGES": "ja_JP.UTF-8", "LANG": "en_US.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "ja_JP.UTF-8"}, False), ({"LANG": "en_US.UTF-8"}, False), ({}, False), ({"LANG": "C"}, False),
    ],
)  # fmt: skip
def test_the_terminal_decides(variables: dict[str, str], speaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """LC_ALL before LC_MESSAGES before LANG, as in POSIX; an empty one is not set."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    root = product.root()
    assert (root is not cli) is speaks


def test_the_command_itself() -> None:
    """As somebody types it, at a terminal that speaks Japanese."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("SEKISHO_", "LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-m", "idp.cli", "receipt", "show", "--help"], cwd=ROOT, env={**keep, "LANG": "ja_JP.UTF-8", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "レシートを1行ずつ出します。" in done.stdout
    assert "[OPTIONS] NUMBER" in done.stdout
    assert not done.stderr
