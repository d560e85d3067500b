"""Recipe text → `Recipe`, or every problem at once (vault-and-gateway.md §6).

`blocks.py` reads each block into its part of the model; here they are put together, and the rules that look at more than
one block are applied (`across.py`). A recipe touches passwords, so it is treated as code: nothing in it is guessed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from connectors.recipes import across, blocks
from connectors.recipes.hosts import LABEL, PLACEHOLDER, Ground
from connectors.recipes.model import Recipe
from connectors.recipes.problems import Problem, RecipeError
from connectors.recipes.reader import At
from connectors.recipes.source import Node, read

REQUIRED = ("recipe", "id", "version", "title", "hosts", "fields", "login", "checks", "session", "routes")
OPTIONAL = ("terms", "charset", "password")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe that can be used, and what should still be looked at."""

    recipe: Recipe
    warnings: tuple[Problem, ...]


def load(data: bytes, ground: Ground) -> Loaded:
    """Read a recipe. Raises RecipeError with every error found; warnings come with the recipe.

    With `ground.values` the placeholders of its hosts are filled in; the digest stays that of the text.
    """
    problems: list[Problem] = []
    tree = read(data)
    tree = _fill_hosts(tree, tree, ground, problems)
    top = At(tree, "", problems).keys(REQUIRED, OPTIONAL)
    if top["recipe"].present and top["recipe"].node.value != 1:
        top["recipe"].note("unsupported_version")
    if not top["terms"].present:
        top["terms"].note("terms_missing")
    title = top["title"].keys(("ja", "en"))
    recipe = Recipe(
        id=blocks.identifier(top["id"]),
        version=top["version"].number(1, 1_000_000, 1),
        digest=hashlib.sha256(data).hexdigest(),
        title_ja=title["ja"].text(),
        title_en=title["en"].text(),
        terms=blocks.terms(top["terms"], ground),
        hosts=blocks.hosts(top["hosts"], ground),
        charset=blocks.charset(top["charset"]),
        fields=blocks.fields(top["fields"]),
        login=blocks.login(top["login"], ground),
        checks=blocks.checks(top["checks"], ground),
        session=blocks.session(top["session"], ground),
        routes=blocks.routes(top["routes"]),
        password=blocks.password(top["password"], ground) if top["password"].present else None,
    )
    across.judge(recipe, At(tree, "", problems), top, frozenset(PLACEHOLDER.findall(data.decode("utf-8"))))
    errors = [problem for problem in problems if not problem.is_warning]
    if errors:
        raise RecipeError(errors)
    return Loaded(recipe, tuple(problems))


def _fill_hosts(node: Node, top: Node, ground: Ground, problems: list[Problem], path: str = "") -> Node:
    """The tree with `{field}` replaced. Only a value that is one DNS label gets in, so it cannot add a dot or a slash.

    While a recipe is only checked, each placeholder stands for an imaginary label.
    """
    if isinstance(node.value, tuple):
        items = (_fill_hosts(item, top, ground, problems, f"{path}[{i}]") for i, item in enumerate(node.value))
        return Node(tuple(items), node.line, node.column)
    if isinstance(node.value, dict):
        below = {k: _fill_hosts(v, top, ground, problems, f"{path}.{k}".lstrip(".")) for k, v in node.value.items()}
        return Node(below, node.line, node.column)
    if not isinstance(node.value, str) or "{" not in node.value:
        return node
    text = node.value
    for name in PLACEHOLDER.findall(text):
        declared = top.value.get("fields") if isinstance(top.value, dict) else None
        field = declared.value.get(name) if declared and isinstance(declared.value, dict) else None
        secret = field.value.get("secret") if field and isinstance(field.value, dict) else None
        value = "placeholder" if ground.values is None else ground.values.get(name, "").lower()
        if secret is None or secret.value is not False or not LABEL.fullmatch(value):
            problems.append(Problem("host_placeholder", path, node.line, node.column, {"field": name}))
            value = "placeholder"
        text = text.replace(f"{{{name}}}", value)
    return Node(text, node.line, node.column)


__all__ = ["Loaded", "RecipeError", "load"]
