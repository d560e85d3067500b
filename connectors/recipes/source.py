"""YAML text → a tree that remembers lines, with everything refused that makes YAML a programming language (VA-58).

Events are judged before a tree is built: PyYAML composes recursively, so a thousand opening brackets would otherwise
end in a RecursionError, and an alias bomb in gigabytes. Tags could name Python types; duplicate keys let a reviewer see
one value and the program use the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import yaml

from connectors.recipes.problems import Problem, RecipeError

MAX_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 8

Scalar = str | int | float | bool | date | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands. value: a scalar, a tuple of nodes, or a dictionary from key to node."""

    value: Any
    line: int
    column: int


def read(data: bytes) -> Node:
    """The tree of one document. Raises RecipeError with the first thing that makes it unreadable."""
    if len(data) > MAX_BYTES:
        raise RecipeError([Problem("too_big", "", 1, 1, {"limit": "64 KiB"})])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError([Problem("not_yaml", "", line, 1, {"why": "UTF-8"})]) from None
    try:
        _judge_events(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise RecipeError([Problem("not_yaml", "", line, column, {"why": error.problem or "syntax"})]) from None
    except yaml.YAMLError as error:  # a character that YAML forbids: it has a position and no mark
        why = str(getattr(error, "reason", "syntax"))
        raise RecipeError([Problem("not_yaml", "", 1, 1, {"why": why})]) from None
    if root is None:
        raise RecipeError([Problem("not_yaml", "", 1, 1, {"why": "empty"})])
    found: list[Problem] = []
    tree = _node(root, "", found)
    if found:
        raise RecipeError(found)
    return tree


def _judge_events(text: str) -> None:
    depth, documents = 0, 0
    found: list[Problem] = []

    def refuse(code: str, event: Any, **about: str) -> None:
        mark = event.start_mark
        found.append(Problem(code, "", mark.line + 1, mark.column + 1, about))

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            refuse("yaml_feature", event, feature="*alias")
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            refuse("yaml_feature", event, feature="&anchor")
        elif getattr(event, "tag", None) is not None:
            refuse("yaml_feature", event, feature="!tag")
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1 or event.tags or event.version:
                refuse("yaml_feature", event, feature="---, %TAG, %YAML")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                refuse("too_big", event, limit=f"{MAX_DEPTH}段 / {MAX_DEPTH} levels")
                break
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
    if found:
        raise RecipeError(found)


def _node(node: yaml.Node, path: str, found: list[Problem]) -> Node:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if isinstance(node, yaml.SequenceNode):
        return Node(tuple(_node(item, f"{path}[{i}]", found) for i, item in enumerate(node.value)), line, column)
    if isinstance(node, yaml.MappingNode):
        members: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                found.append(_problem("yaml_feature", path, key_node, feature="? key, <<"))
                continue
            if key in members:
                found.append(_problem("yaml_feature", path, key_node, feature=f"重複/duplicate “{key}”"))
                continue
            members[key] = _node(value_node, f"{path}.{key}".lstrip("."), found)
        return Node(members, line, column)
    return Node(_scalar(node, path, found), line, column)


def _scalar(node: yaml.Node, path: str, found: list[Problem]) -> Scalar:
    kind, text = node.tag.rpartition(":")[2], str(node.value)
    try:
        if kind == "int" and text.lstrip("+-").isdecimal():  # no octal, no sexagesimal: `1:30` is a text to people
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "timestamp" and len(text) == 10:
            return date.fromisoformat(text)
    except ValueError:
        found.append(_problem("wrong_type", path, node, expected="正しい値", expected_en="a real date or number"))
        return None
    if kind == "bool" and text in {"true", "false"}:  # and no `yes`, `on`, `off`: YAML 1.1 turns Norway into False
        return text == "true"
    if kind == "null":
        return None
    return text


def _problem(code: str, path: str, node: yaml.Node, **about: str) -> Problem:
    return Problem(code, path, node.start_mark.line + 1, node.start_mark.column + 1, about)
