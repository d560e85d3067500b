"""Rules that look at more than one block of a recipe, or at every text of it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from connectors.recipes import urls
from connectors.recipes.model import BROWSER_ONLY, NEW, Check, Condition, Recipe
from connectors.recipes.problems import Problem
from connectors.recipes.reader import At, every_text, looks_secret

_SCRIPT: Final = re.compile(r"javascript:|<\s*script|\[\s*on[a-z]+", re.IGNORECASE)


def judge(recipe: Recipe, top: At, blocks: dict[str, At], in_hosts: frozenset[str]) -> None:
    """Note every problem that no single block shows. in_hosts: fields that host placeholders use."""
    _texts(top)
    _declared(recipe, top)
    _fields(recipe, blocks, in_hosts)
    _checks(recipe, blocks)
    change = recipe.password.change if recipe.password else None
    if change and recipe.login.driver != "browser":
        for number, step in enumerate(change.steps, start=1):
            if step.kind in BROWSER_ONLY:
                blocks["password"].note("driver_cannot", step=str(number), kind=step.kind)


def _texts(top: At) -> None:
    for path, text, node in every_text(top.node):
        if _SCRIPT.search(text):
            top.problems.append(Problem("script_found", path, node.line, node.column))
        elif looks_secret(text):
            top.problems.append(Problem("secret_in_recipe", path, node.line, node.column))


def _declared(recipe: Recipe, top: At) -> None:
    """Every URL that we would call or believe lies on a declared host."""
    hosts, known = recipe.hosts, ", ".join(recipe.hosts.declared)
    for path, text, node in every_text(top.node):
        if path.startswith("terms.") or not text.startswith(("https://", "http://")):
            continue
        host = urls.parts(text).netloc.lower()
        if host not in hosts.declared:
            problem = Problem("host_not_declared", path, node.line, node.column, {"host": host, "declared": known})
            top.problems.append(problem)


def _fields(recipe: Recipe, blocks: dict[str, At], in_hosts: frozenset[str]) -> None:
    at = blocks["fields"]
    if at.present and not recipe.secret_fields:
        at.note("no_secret_field")
    used: set[str] = set(recipe.login.basic_auth or ())
    used |= {step.field for step in recipe.login.steps if step.field}
    change = recipe.password.change if recipe.password else None
    in_change = {step.field for step in change.steps if step.field} if change else set()
    for name in sorted(used | {field.removesuffix(NEW) for field in in_change}):
        if name and name not in recipe.fields:
            blocks["login"].note("unknown_field", field=name)
    if change and not any(field.endswith(NEW) for field in in_change):
        blocks["password"].note("unknown_field", field=f"password{NEW}")
    for name in recipe.fields:
        if name not in used | in_hosts:
            at.note("unused_field", field=name)


def _checks(recipe: Recipe, blocks: dict[str, At]) -> None:
    both = recipe.checks
    shared = set(both.logged_in.conditions) & set(both.logged_out.conditions)
    if shared and both.logged_in.conditions and _decides(both.logged_in, shared) and _decides(both.logged_out, shared):
        blocks["checks"].note("check_same")
    path = unquote(urls.parts(both.probe).path) or "/"
    denied = [glob for globs in recipe.routes.deny.values() for glob in globs or ()]
    if any(glob.folded().matches("GET", path.casefold()) for glob in denied):
        blocks["checks"].note("probe_denied")


def _decides(check: Check, shared: set[Condition]) -> bool:
    """Whether the shared conditions alone can make the check true."""
    return check.mode == "any" or set(check.conditions) <= shared
