"""D7: whatever may happen once is one `claim()`; removing any single one of them turns a test red.

Shown, not said: every call site in `idp` is taken out, one by one, in a process of its own, and the tests that carry
`@pytest.mark.guards("module.function")` for it are run. They must fail. A site without a guard fails here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.conftest import REQUIRE_ALL
from tests.mutants import ROOT, Site, sites

SITES = sites()
#: where guards may be: collected once per process, so not the whole of `tests`
GUARDED_IN = ("tests/race", "tests/kill")


def run(folder: Path, *arguments: str, site: Site | None = None) -> tuple[int, dict[str, Any], str]:
    """pytest in a process of its own, on what was collected or with one claim taken out. Exit status, report, output."""
    report = folder / "report.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "SEKISHO_"))}
    environment |= {"SEKISHO_MUTANT_REPORT": str(report), **({"SEKISHO_MUTANT": site.name} if site else {})}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "tests.mutants", f"--basetemp={folder / 'tmp'}", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    output = done.stdout[-6000:] + done.stderr[-2000:]
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, output


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Site → the tests that guard it."""
    status, report, output = run(tmp_path_factory.mktemp("guards"), "--collect-only", *GUARDED_IN)
    assert status == 0, output
    found: dict[str, list[str]] = report["guards"]
    return found


def test_D7_every_claim_has_a_guard_and_every_guard_a_claim(guards: dict[str, list[str]]) -> None:
    """A new claim needs a test that shows what it refuses; a guard of something that is gone is a lie."""
    names = {site.name for site in SITES}
    assert len(names) == len(SITES) >= 24
    assert names - set(guards) == set(), "claims that no test guards"
    assert set(guards) - names == set(), "guards of claims that do not exist"


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_D7_removing_a_claim_turns_a_test_red(site: Site, guards: dict[str, list[str]], tmp_path: Path) -> None:
    """One mutant. SQLite where that is enough, because a server per mutant would cost more than the tests; else PostgreSQL."""
    nodes = guards.get(site.name, [])
    assert nodes, "no test guards this claim"
    status, report, output = 0, {}, ""
    for engine in ("sqlite", "postgresql"):
        if engine == "postgresql" and (reason := postgres.why_not()):
            if REQUIRE_ALL:
                pytest.fail(f"PostgreSQL is required in this run: {reason}")
            pytest.skip(reason)
        chosen = [node for node in nodes if f"[{engine}" in node]
        if chosen:
            status, report, output = run(tmp_path, *chosen, site=site)
            assert report.get("applied"), f"the mutant was not made\n{output}"
            assert not report["broken"], f"a fixture fails, which proves nothing\n{output}"
            if report["failed"]:
                break
    assert status == 1, f"nothing turned red without this claim\n{output}"
    assert report["failed"], output
