"""A pytest plugin that takes one guard out of the product: a `claim()`, whose answer is then ignored, or one of the places where
the SAML door says no (`tests/refusals.py`).

    SEKISHO_MUTANTS=all python -m pytest -p tests.mutants tests/race/test_guards.py -k sqlite

Every collected test that carries `@pytest.mark.guards(site)`, or that `tests/saml_guards.py` names, is run once for each
of its sites, and while the test itself runs (not its fixtures) the function around that site has the code of the mutant.
Nothing is written to disk, and the process is thrown away afterwards: `tests/house/test_claims.py` and `test_saml_guards.py`
start it. `SEKISHO_MUTANTS` is `all` (claims), names of sites with commas, or `@` and a file with one name a line. `SEKISHO_MUTANT_REPORT`
names a file that gets what happened, as JSON.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests import saml_guards
from tests.refusals import Refusal, Rule

ROOT = Path(__file__).resolve().parents[1]
WANTED = os.environ.get("SEKISHO_MUTANTS", "")


@dataclass(frozen=True)
class Site:
    """One call of `claim(`. name: `module.function`, with `#1`, `#2` … when a function has several; where: line and column."""

    name: str
    module: str
    function: str
    path: Path
    where: tuple[int, int]

    @property
    def code(self) -> CodeType:
        """The function's code with the claim's answer ignored."""
        return mutated(self)


def is_claim(node: ast.AST) -> bool:
    """A call of `claim` by that name, or as an attribute of its module."""
    if not isinstance(node, ast.Call):
        return False
    return (isinstance(node.func, ast.Name) and node.func.id == "claim") or (
        isinstance(node.func, ast.Attribute) and node.func.attr == "claim"
    )


def sites(root: Path = ROOT) -> list[Site]:
    """Every call site in `idp`, in the order of the files."""
    found: list[Site] = []
    for path in sorted((root / "idp").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        per_function: dict[str, list[tuple[int, int]]] = defaultdict(list)
        _walk(ast.parse(path.read_text(encoding="utf-8")), [], per_function)
        for function, places in per_function.items():
            for number, where in enumerate(sorted(places), 1):
                suffix = f"#{number}" if len(places) > 1 else ""
                found.append(Site(f"{module}.{function}{suffix}", module, function, path, where))
    return found


def _walk(node: ast.AST, inside: list[str], found: dict[str, list[tuple[int, int]]]) -> None:
    if is_claim(node):
        found[".".join(inside) or "<module>"].append((node.lineno, node.col_offset))  # type: ignore[attr-defined]
    named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    for child in ast.iter_child_nodes(node):
        _walk(child, [*inside, node.name] if named else inside, found)  # type: ignore[attr-defined]


class _Ignore(ast.NodeTransformer):
    def __init__(self, where: tuple[int, int]) -> None:
        self.where = where
        self.hits = 0

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not is_claim(node) or (node.lineno, node.col_offset) != self.where:
            return node
        self.hits += 1
        return ast.copy_location(ast.BoolOp(ast.Or(), [node, ast.Constant(value=True)]), node)


def mutated(site: Site) -> CodeType:
    """The code of the function around a site, with the claim's answer ignored."""
    change = _Ignore(site.where)
    tree = ast.fix_missing_locations(change.visit(ast.parse(site.path.read_text(encoding="utf-8"))))
    assert change.hits == 1, f"{site}: {change.hits} calls were rewritten"
    code = compile(tree, str(site.path), "exec", dont_inherit=True)
    for part in site.function.split("."):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == part)
    return code


@contextmanager
def applied(site: Site | Refusal | Rule) -> Iterator[None]:
    """The product without this guard, for as long as the block lasts."""
    found: Any = importlib.import_module(site.module)
    for part in site.function.split("."):
        found = getattr(found, part)
    function = inspect.unwrap(found)
    assert isinstance(function, FunctionType)
    original = function.__code__
    function.__code__ = site.code
    try:
        yield
    finally:
        function.__code__ = original


REPORT: dict[str, Any] = {"red": {}, "green": {}, "broken": {}, "guards": {}}
CLAIMS = {site.name: site for site in sites()}
SAML = saml_guards.sites()
BY_NAME: dict[str, Site | Refusal | Rule] = {**CLAIMS, **SAML}
if WANTED.startswith("@"):  # a file with one name a line: names of rules are texts of code
    CHOSEN = set(Path(WANTED[1:]).read_text(encoding="utf-8").splitlines())
else:
    CHOSEN = set(CLAIMS) if WANTED == "all" else set(filter(None, WANTED.split(",")))
#: the site that is out at the moment, if any
OUT: list[Site | Refusal | Rule] = []


def guarded(item: pytest.Item) -> list[str]:
    """The sites that a test says it guards."""
    marked = [site for marker in item.iter_markers("guards") for site in marker.args]
    return [*marked, *saml_guards.guarded(item.nodeid)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who guards what; only guards of the chosen sites are run."""
    for item in items:
        for site in guarded(item):
            REPORT["guards"].setdefault(site, []).append(item.nodeid)
    if WANTED:
        items[:] = [item for item in items if CHOSEN & set(guarded(item))]


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run it once for each of its sites. A failure of the test itself is what a mutant is for; one of a fixture proves nothing."""
    if not WANTED:
        return None
    mine = [BY_NAME[name] for name in guarded(item) if name in CHOSEN & set(BY_NAME)]
    for number, site in enumerate(mine, 1):
        OUT.append(site)
        item._initrequest()  # type: ignore[attr-defined]  # a second run needs fixtures of its own
        reports = runtestprotocol(item, log=False, nextitem=item if number < len(mine) else nextitem)
        failed = {report.when for report in reports if report.failed}
        verdict = "broken" if failed - {"call"} else "red" if failed else "green"
        REPORT[verdict].setdefault(site.name, []).append(item.nodeid)
        OUT.remove(site)
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """The mutant lives while the test runs."""
    with applied(OUT[0]) if OUT else nullcontext():
        yield


def pytest_sessionfinish() -> None:
    """Write the report."""
    if path := os.environ.get("SEKISHO_MUTANT_REPORT"):
        Path(path).write_text(json.dumps(REPORT), encoding="utf-8")
