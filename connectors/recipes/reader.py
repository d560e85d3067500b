"""A place in a recipe that knows how to be read as one type, and that notes a problem instead of raising.

Every method gives a value of the right type even for wrong input, so that the loader goes on and finds the next mistake
too; the recipe made from such values is thrown away.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from connectors.recipes.problems import Problem
from connectors.recipes.source import Node

NOTHING: Final = Node(None, 1, 1)
HIGH_ENTROPY_BITS: Final = 4.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9+=_\-]{20,}")
_HEX: Final = re.compile(r"[0-9a-f]{32,}")


@dataclass(frozen=True, slots=True)
class At:
    """One node, the keys that lead to it, and the list that problems go to. present: whether it was written at all."""

    node: Node
    path: str
    problems: list[Problem]
    present: bool = True

    def note(self, code: str, **about: str) -> None:
        """Record a problem at this place."""
        self.problems.append(Problem(code, self.path, self.node.line, self.node.column, about))

    def wrong(self, ja: str, en: str) -> None:
        """Record `wrong_type`, unless the place is absent and that was said already."""
        if self.present:
            self.note("wrong_type", expected=ja, expected_en=en)

    def keys(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, At]:
        """Its members; every name asked for is there, absent ones with `present` False."""
        members: dict[str, Node] = self.node.value if isinstance(self.node.value, dict) else {}
        if not isinstance(self.node.value, dict):
            self.wrong("項目の並び(名前: 値)", "keys and values")
        allowed = (*required, *optional)
        for key, node in members.items():
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, 1)
                At(node, self._below(key), self.problems).note(
                    "unknown_key",
                    key=key,
                    near=f"「{near[0]}」のことですか。" if near else "",
                    near_en=f"Did you mean “{near[0]}”? " if near else "",
                    allowed=", ".join(allowed),
                )
        if isinstance(self.node.value, dict):
            for key in required:
                if key not in members:
                    self.note("missing_key", key=key)
        blank = Node(None, self.node.line, self.node.column)
        return {k: At(members.get(k, blank), self._below(k), self.problems, k in members) for k in allowed}

    def free_keys(self) -> dict[str, At]:
        """Its members whatever their names: the block `fields`."""
        if not isinstance(self.node.value, dict):
            self.wrong("項目の並び(名前: 値)", "keys and values")
            return {}
        return {k: At(node, self._below(k), self.problems) for k, node in self.node.value.items()}

    def items(self) -> list[At]:
        """Its list items; an absent list is an empty one."""
        if not isinstance(self.node.value, tuple):
            self.wrong("[ ] か - の並び", "a list")
            return []
        return [At(node, f"{self.path}[{i}]", self.problems) for i, node in enumerate(self.node.value)]

    def text(self, default: str = "") -> str:
        """A text that is not empty."""
        if isinstance(self.node.value, str) and self.node.value:
            return self.node.value
        self.wrong("文字列", "a text (quote it if it looks like a number)")
        return default

    def texts(self) -> list[str]:
        """A list of texts."""
        return [item.text() for item in self.items()]

    def number(self, low: int, high: int, default: int) -> int:
        """A whole number within bounds."""
        value = self.node.value
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(f"{low}から{high}までの整数", f"a whole number from {low} to {high}")
        return default

    def flag(self, *, default: bool) -> bool:
        """true or false."""
        if isinstance(self.node.value, bool):
            return self.node.value
        self.wrong("true か false", "true or false")
        return default

    def day(self) -> date:
        """A date."""
        if isinstance(self.node.value, date):
            return self.node.value
        self.wrong("日付(2026-11-01)", "a date (2026-11-01)")
        return date.max

    def choice(self, options: Sequence[str], default: str) -> str:
        """One of a few words."""
        if self.node.value in options and isinstance(self.node.value, str):
            return self.node.value
        self.wrong(f"{'・'.join(options)} のどれか", f"one of {', '.join(options)}")
        return default

    def only_key(self, kinds: Sequence[str]) -> tuple[str, At] | None:
        """The one member of a mapping of exactly one, as in `- fill: {…}`."""
        members = self.node.value
        if isinstance(members, dict) and len(members) == 1:
            key = next(iter(members))
            if key in kinds:
                return key, At(members[key], self._below(key), self.problems)
        self.wrong(f"{'・'.join(kinds)} のどれか1つ", f"exactly one of {', '.join(kinds)}")
        return None

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def every_text(node: Node, path: str = "") -> Iterator[tuple[str, str, Node]]:
    """All texts of a tree with their paths, for the rules that hold everywhere."""
    value: Any = node.value
    if isinstance(value, str):
        yield path, value, node
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from every_text(item, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from every_text(item, f"{path}.{key}".lstrip("."))


def looks_secret(text: str) -> bool:
    """Whether a text looks like a pasted key: a long run of mixed case and digits with high entropy, or of hex digits.

    A slash ends a run, and so paths of the tool are not taken for keys.
    """
    for run in _TOKEN.findall(text):
        counts = Counter(run)
        bits = -sum(n / len(run) * math.log2(n / len(run)) for n in counts.values())
        mixed = run.lower() != run and run.upper() != run and any(c.isdigit() for c in run)
        if (bits >= HIGH_ENTROPY_BITS and mixed) or _HEX.fullmatch(run):
            return True
    return False
