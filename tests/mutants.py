"""A pytest plugin that takes one `claim()` out of the product: `claim(session, stmt)` becomes `(claim(session, stmt) or True)`.

    SEKISHO_MUTANT=idp.domain.tokens.grants.redeem_code python -m pytest -p tests.mutants tests/race/test_guards.py

The module is rewritten while it is imported and nothing is written to disk. `SEKISHO_MUTANT_REPORT` names a file that gets
what happened, as JSON; with `--collect-only` it gets which tests carry `@pytest.mark.guards` for which site.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Site:
    """One call of `claim(`. name: `module.function`, with `#1`, `#2` … when a function has several; where: line and column."""

    name: str
    module: str
    path: Path
    where: tuple[int, int]


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
                found.append(Site(f"{module}.{function}{suffix}", module, path, where))
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


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the rewritten source itself: neither reads nor writes cached bytecode."""

    site: Site

    def get_code(self, fullname: str) -> CodeType:
        change = _Ignore(self.site.where)
        tree = ast.fix_missing_locations(change.visit(ast.parse(self.site.path.read_text(encoding="utf-8"))))
        assert change.hits == 1, f"{self.site}: {change.hits} calls were rewritten"
        REPORT["applied"] = True
        return compile(tree, str(self.site.path), "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, site: Site) -> None:
        self.site = site

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Only the one module is ours."""
        if fullname != self.site.module:
            return None
        loader = _Loader(fullname, str(self.site.path))
        loader.site = self.site
        return importlib.machinery.ModuleSpec(fullname, loader, origin=str(self.site.path))


REPORT: dict[str, Any] = {"applied": False, "failed": [], "broken": [], "guards": {}}

if wanted := os.environ.get("SEKISHO_MUTANT"):
    _site = {site.name: site for site in sites()}[wanted]
    assert _site.module not in sys.modules, f"{_site.module} was imported before the plugin"
    sys.meta_path.insert(0, _Finder(_site))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who guards what."""
    for item in items:
        for marker in item.iter_markers("guards"):
            for site in marker.args:
                REPORT["guards"].setdefault(site, []).append(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure in the test itself is what a mutant is for; one in a fixture proves nothing."""
    if report.failed:
        REPORT["failed" if report.when == "call" else "broken"].append(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write the report."""
    if path := os.environ.get("SEKISHO_MUTANT_REPORT"):
        Path(path).write_text(json.dumps(REPORT), encoding="utf-8")
