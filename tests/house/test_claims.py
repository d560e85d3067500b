"""D7: whatever may happen once is one `claim()`; removing any single one of them turns a test red.

Shown, not said: every call site in `idp` is taken out, one by one (`tests/mutants.py`), and the tests that carry
`@pytest.mark.guards("module.function")` for it are run. They must fail. A site without a guard fails here too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import postgres
from tests.conftest import REQUIRE_ALL
from tests.mutants import ROOT, sites

#: where guards may be
GUARDED_IN = ("tests/race", "tests/kill")
OURS = ("SEKISHO_", "PYTEST_", "PYTHONDONTWRITE")


def run(folder: Path, *arguments: str, mutants: str = "") -> tuple[dict[str, Any], str]:
    """pytest in a process of its own, which a mutant may spoil as it likes. Returns its report and its output."""
    folder.mkdir()
    report = folder / "report.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    environment |= {"SEKISHO_MUTANT_REPORT": str(report), "SEKISHO_MUTANTS": mutants}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "tests.mutants", f"--basetemp={folder / 'tmp'}", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    output = done.stdout[-6000:] + done.stderr[-2000:]
    assert report.exists(), output
    return json.loads(report.read_text()), output


def test_D7_removing_any_single_claim_turns_a_test_red(tmp_path: Path) -> None:
    """Every site has a guard, every guard a site, and every guard goes red without its claim.

    SQLite first: most claims refuse something in any order. Those that only decide between two writers at once are taken
    out on PostgreSQL. The unmutated guards are green in the ordinary run, where they are tests like any other.
    """
    names = {site.name for site in sites()}
    assert len(names) == len(sites()) >= 24
    first, output = run(tmp_path / "one", "-k", "sqlite", *GUARDED_IN, mutants="all")
    guarded = set(first["guards"])
    assert names - guarded == set(), "claims that no test guards"
    assert guarded - names == set(), "guards of claims that do not exist"
    assert not first["broken"], f"a fixture fails, which proves nothing\n{output}"
    left = names - set(first["red"])
    if left and (reason := postgres.why_not()):
        assert not REQUIRE_ALL, f"PostgreSQL is required in this run: {reason}"
        left = set()
    if left:
        second, output = run(tmp_path / "two", "-k", "postgresql", *GUARDED_IN, mutants=",".join(sorted(left)))
        assert not second["broken"], f"a fixture fails, which proves nothing\n{output}"
        left -= set(second["red"])
    assert left == set(), f"claims whose removal nothing notices\n{output}"
