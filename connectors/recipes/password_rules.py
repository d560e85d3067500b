"""Password rules in the syntax of Apple's password-manager-resources, and what follows from them.

    minlength: 8; maxlength: 16; required: lower; required: upper, digit; allowed: [-_.]; max-consecutive: 2;

`required: upper, digit` means one of the two. Without `required` and `allowed` every printable ASCII character may occur.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

ASCII: Final = "".join(chr(c) for c in range(0x21, 0x7F))
CLASSES: Final[dict[str, str]] = {
    "upper": string.ascii_uppercase,
    "lower": string.ascii_lowercase,
    "digit": string.digits,
    "special": "-~!@#$%^&*_+=`|(){}[:;\"'<>,.?] ",
    "ascii-printable": ASCII + " ",
    "unicode": ASCII + " ",
}
#: what a generated password is made of when the rules name a wide class: nothing that is lost in a form or a letter
SAFE: Final = frozenset(string.ascii_letters + string.digits + "-_.!#%+=:@")
PLAIN: Final = frozenset(string.ascii_letters + string.digits)
GENERATED_CHARS: Final = 24
SHORTEST: Final = 1
LONGEST: Final = 1024


class RulesError(ValueError):
    """position: characters from 1; why, why_en: the two sentences."""

    def __init__(self, position: int, why: str, why_en: str) -> None:
        super().__init__(f"{position}: {why_en}")
        self.position, self.why, self.why_en = position, why, why_en


@dataclass(frozen=True, slots=True)
class Rules:
    """required: each a set of characters of which one must occur; allowed: every character that may occur."""

    min_length: int
    max_length: int
    required: tuple[frozenset[str], ...]
    allowed: frozenset[str]
    max_consecutive: int | None

    @property
    def length(self) -> int:
        """Characters of a generated password."""
        return max(self.min_length, min(self.max_length, GENERATED_CHARS))

    @property
    def alphabet(self) -> str:
        """Characters that a generated password may hold, in a fixed order."""
        safe = self.allowed & SAFE
        return "".join(sorted(safe or self.allowed))

    @property
    def bits(self) -> int:
        """Entropy of a generated password, rounded down; the required classes take off less than the rounding."""
        return int(self.length * math.log2(len(self.alphabet)))

    @property
    def can_be_met(self) -> bool:
        """Whether any password satisfies them."""
        enough = self.max_consecutive is None or len(self.allowed) > 1 or self.min_length <= self.max_consecutive
        return (
            self.min_length <= self.max_length
            and len(self.required) <= self.max_length
            and bool(self.allowed)
            and enough
        )

    def broken_by(self, password: str) -> list[str]:
        """The rules that a password breaks, as `minlength`, `maxlength`, `allowed`, `required`, `max-consecutive`."""
        broken = []
        if len(password) < self.min_length:
            broken.append("minlength")
        if len(password) > self.max_length:
            broken.append("maxlength")
        if not set(password) <= self.allowed:
            broken.append("allowed")
        if any(not wanted & set(password) for wanted in self.required):
            broken.append("required")
        if self.max_consecutive is not None and _longest_run(password) > self.max_consecutive:
            broken.append("max-consecutive")
        return broken

    def generate(self, below: Callable[[int], int]) -> str:
        """A password that satisfies them. below(n): a uniform random number from 0 to n-1, of a secure source.

        Drawn whole and drawn again until it fits, so that every allowed password is equally likely: planting one
        character per class first would tell an attacker where to look.
        """
        alphabet = self.alphabet
        if any(not wanted & set(alphabet) for wanted in self.required):
            alphabet = "".join(sorted(self.allowed))
        for _ in range(100_000):
            password = "".join(alphabet[below(len(alphabet))] for _ in range(self.length))
            if not self.broken_by(password):
                return password
        raise RulesError(1, "満たすパスワードを作れません", "no password could be made")


def _longest_run(text: str) -> int:
    longest = run = 0
    before = ""
    for char in text:
        run = run + 1 if char == before else 1
        before, longest = char, max(longest, run)
    return longest


def parse(text: str) -> Rules:
    """Read the rules. Raises RulesError at the first thing that cannot be read."""
    low, high, run = SHORTEST, LONGEST, None
    required: list[frozenset[str]] = []
    allowed: set[str] = set()
    for start, part in _properties(text):
        name, colon, value = part.partition(":")
        name, at = name.strip().lower(), start + len(name) + 2
        if not colon:
            raise RulesError(start + 1, "「名前: 値;」の形にしてください", "write `name: value;`")
        if name == "minlength":
            low = max(low, _number(value, at))
        elif name == "maxlength":
            high = min(high, _number(value, at))
        elif name == "max-consecutive":
            number = _number(value, at)
            run = number if run is None else min(run, number)
        elif name == "required":
            required.append(frozenset(_characters(value, at)))
        elif name == "allowed":
            allowed |= _characters(value, at)
        else:
            raise RulesError(start + 1, f"「{name}」は使えません", f"unknown property “{name}”")
    everything = set().union(allowed, *required) or set(ASCII)
    if low > high:
        raise RulesError(1, "minlength が maxlength より大きいです", "minlength is above maxlength")
    return Rules(low, high, tuple(required), frozenset(everything), run)


def _properties(text: str) -> list[tuple[int, str]]:
    """Split at `;` outside brackets; each with its offset."""
    parts: list[tuple[int, str]] = []
    start, inside = 0, False
    for i, char in enumerate(text):
        if inside and char == "]" and text[i + 1 : i + 2] != "]":
            inside = False
        elif not inside and char == "[":
            inside = True
        elif char == ";" and not inside:
            parts.append((start, text[start:i]))
            start = i + 1
    if inside:
        raise RulesError(len(text), "] がありません", "] is missing")
    parts.append((start, text[start:]))
    return [(offset + len(part) - len(part.lstrip()), part.strip()) for offset, part in parts if part.strip()]


def _number(value: str, at: int) -> int:
    value = value.strip()
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= LONGEST:
        raise RulesError(at, f"1から{LONGEST}の数を書いてください", f"a number from 1 to {LONGEST}")
    return int(value)


def stricter(rules: Rules) -> Rules:
    """The same rules with letters and digits alone, where they can still be met: what tools object to are mostly symbols."""
    narrow = replace(rules, allowed=rules.allowed & PLAIN)
    meets = all(wanted & narrow.allowed for wanted in rules.required) and len(narrow.allowed) >= 10
    return narrow if meets else rules


def _characters(value: str, at: int) -> set[str]:
    found: set[str] = set()
    rest = value.strip()
    while rest:
        if rest.startswith("["):
            end = rest.find("]", 1)
            while rest[end + 1 : end + 2] == "]":  # `[]]` and `[-]]` hold a closing bracket
                end += 1
            inner = rest[1:end]
            if end < 0 or not inner or not set(inner) <= set(ASCII + " "):
                raise RulesError(at, "[ ] の中はASCII文字だけです", "[…] holds printable ASCII only")
            found |= set(inner)
            rest = rest[end + 1 :].lstrip()
        else:
            word, _, tail = rest.partition(",")
            if word.strip().lower() not in CLASSES:
                raise RulesError(at, f"「{word.strip()}」は使えません", f"unknown class “{word.strip()}”")
            found |= set(CLASSES[word.strip().lower()])
            rest = "," + tail if _ else ""
        if rest:
            if not rest.startswith(","):
                raise RulesError(at, "「,」で区切ってください", "separate with a comma")
            rest = rest[1:].lstrip()
            if not rest:
                raise RulesError(at, "「,」の後がありません", "nothing after the comma")
    if not found:
        raise RulesError(at, "値がありません", "no value")
    return found
