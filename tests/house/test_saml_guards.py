"""SA-30: every guard of the SAML door is taken out, one by one, and the test that the table names for it goes red.

Shown, not said (`tests/refusals.py`, `tests/saml_guards.py`, `tests/mutants.py`). The default run takes out every second one of
those that the attack corpus and the tests without a database show; `SEKISHO_SAML_GUARDS=all` takes out every one, in minutes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests import saml_guards
from tests.house.test_claims import run
from tests.mutants import ROOT
from tests.refusals import refusals

EVERYTHING = os.environ.get("SEKISHO_SAML_GUARDS") == "all"
#: files whose tests need no installation of their own
FAST = (
    "tests/protocol/saml/test_attacks.py",
    "tests/protocol/saml/test_second_lines.py",
    "tests/protocol/saml/test_metadata.py",
)


def test_SA_30_every_place_that_says_no_is_in_the_table() -> None:
    """And nothing else is; each can be taken out, and each rule's text stands where the table says."""
    found = {site.name: site for site in refusals()}
    listed = [guard for guards in saml_guards.GUARDS.values() for guard in guards]
    assert sorted(listed) == sorted(found), set(listed) ^ set(found)
    assert len(saml_guards.sites()) == len(found) + len(saml_guards.RULES)
    for site in saml_guards.sites().values():
        assert site.code.co_name == site.function.rpartition(".")[2]


def test_SA_30_every_requirement_of_the_first_stage_has_a_guard() -> None:
    """All SA of stage 1 in docs/requirements.md, with a guard, or with the reason why there is none to take out."""
    text = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^- \*\*(SA-\d\d) \[1\]\*\*", text, re.MULTILINE))
    assert len(wanted) >= 25
    guarded = {*saml_guards.GUARDS, *(rule[0] for rule in saml_guards.RULES)}
    assert wanted - guarded == set(saml_guards.HELD_OTHERWISE)
    assert guarded <= wanted


def test_SA_30_removing_any_single_guard_turns_its_test_red(tmp_path: Path) -> None:
    """A test that is named and was not collected, a fixture that fails, and a test that stays green all fail here."""
    every = saml_guards.tests()
    wanted = set(every) if EVERYTHING else set(sorted(g for g, node in every.items() if node.startswith(FAST))[::2])
    assert len(wanted) > (150 if EVERYTHING else 50)
    files = sorted({every[guard].partition("::")[0] for guard in wanted})
    names = tmp_path / "names"
    names.write_text("\n".join(sorted(wanted)), encoding="utf-8")
    report, output = run(tmp_path / "run", "-k", "not postgresql", *files, mutants=f"@{names}")
    assert not report["broken"], f"a fixture fails, which proves nothing: {report['broken']}\n{output}"
    missing = wanted - set(report["red"]) - set(report["green"])
    assert missing == set(), "the table names tests that do not exist"
    assert set(report["green"]) == set(), "guards whose removal nothing notices"
    assert wanted <= set(report["red"])
