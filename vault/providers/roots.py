"""Root keys held as bytes, for the providers that read them from somewhere: file, environment, command.

The text form is one key per line, `class id base64 [current]`; empty lines and lines from "#" are skipped:

    credential 0192f0c1-6f1e-7c3a-9a55-3d1f0e5a7b01 q83v…= current
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault import envelope
from vault.context import KeyClass, KeyContext
from vault.errors import Damaged, RootRefused, SealedRoot

_CURRENT: Final = "current"
#: 32 random bytes hold fewer than 16 different ones less often than once in 10^9; a placeholder nearly always does.
_FEWEST_DIFFERENT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class RootKey:
    """One root key. key: 32 bytes."""

    key_class: KeyClass
    id: UUID
    key: bytes = field(repr=False)
    current: bool

    def __post_init__(self) -> None:
        refuse_placeholder(self.key)


class Roots:
    """A fixed set of root keys, exactly one current in each class that it holds at all."""

    def __init__(self, keys: Iterable[RootKey]) -> None:
        """Raises RootRefused for no keys, an id or key twice, or a class without exactly one current key."""
        self.keys: Final = tuple(keys)
        if not self.keys:
            raise RootRefused("no root key")
        # One key under two classes would let a process of the one class unwrap the keys of the other.
        if len({key.id for key in self.keys}) < len(self.keys) or len({key.key for key in self.keys}) < len(self.keys):
            raise RootRefused("a root key or its id occurs twice")
        for key_class in {key.key_class for key in self.keys}:
            if sum(key.current for key in self.keys if key.key_class is key_class) != 1:
                raise RootRefused(f"class {key_class.value} needs exactly one current root key")

    def key_ids(self, key_class: KeyClass) -> tuple[str, ...]:
        return tuple(str(key.id) for key in self.keys if key.key_class is key_class)

    def current(self, key_class: KeyClass) -> str:
        for key in self.keys:
            if key.key_class is key_class and key.current:
                return str(key.id)
        raise SealedRoot(f"no root key of class {key_class.value} is held here")

    def get(self, key_id: str) -> RootKey:
        for key in self.keys:
            if str(key.id) == key_id:
                return key
        raise SealedRoot(f"root key {key_id} is not held here")

    def check_value(self, key_id: str) -> bytes:
        root = self.get(key_id)
        return derive(root.key, "sekisho/root/check", root.id.bytes, length=32)

    def wrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        """SKW1, with the root key's id as the wrapping key."""
        root = self._for(key_id, context)
        return envelope.wrap_key(_wrapping_key(root), root.id.bytes, data, context.key_id.bytes, context)

    def unwrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        root = self._for(key_id, context)
        wrapped = envelope.parse_wrapped_key(data)
        if wrapped.wrapping_key_id != root.id.bytes or wrapped.key_id != context.key_id.bytes:
            raise Damaged("the wrap names other keys than its row")
        return envelope.unwrap_key(_wrapping_key(root), wrapped, context)

    def _for(self, key_id: str, context: KeyContext) -> RootKey:
        root = self.get(key_id)
        if root.key_class is not context.key_class:
            raise Damaged(f"root key {key_id} is not of class {context.key_class.value}")
        return root


def parse_roots(text: str) -> Roots:
    """Root keys from their text form. Raises RootRefused; the message gives the line number and never the line."""
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if words:
            keys.append(_parse_line(words, number))
    return Roots(keys)


def format_roots(roots: Roots) -> str:
    """The text form of root keys."""
    lines = []
    for root in roots.keys:
        words = [root.key_class.value, str(root.id), base64.b64encode(root.key).decode("ascii")]
        lines.append(" ".join([*words, _CURRENT] if root.current else words) + "\n")
    return "".join(lines)


def decode_key(text: str) -> bytes:
    """32 bytes from strict base64. Raises RootRefused without the text."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != envelope.KEY_BYTES or base64.b64encode(key).decode("ascii") != text:
        raise RootRefused("a root key is 32 bytes in base64")
    return key


def refuse_placeholder(key: bytes) -> None:
    """Raises RootRefused for a key that nobody drew at random: zeros, a word repeated (VA-22)."""
    if len(key) != envelope.KEY_BYTES or len(set(key)) < _FEWEST_DIFFERENT_BYTES:
        raise RootRefused("a root key is a placeholder, not 32 random bytes")


def derive(key: bytes, label: str, info: bytes = b"", *, length: int) -> bytes:
    """A value of its own for each label from one random key. Source: RFC 5869 §2.3, §3.3 (no extract step needed)."""
    return HKDFExpand(SHA512(), length, label.encode("ascii") + b"\0" + info).derive(key)


def _wrapping_key(root: RootKey) -> bytes:
    return derive(root.key, "sekisho/root/wrap", root.id.bytes, length=envelope.KEY_BYTES)


def _parse_line(words: list[str], number: int) -> RootKey:
    shape_is_known = len(words) == 3 or (len(words) == 4 and words[3] == _CURRENT)
    if not shape_is_known or words[0] not in {key_class.value for key_class in KeyClass}:
        raise RootRefused(f"line {number} is not `class id base64 [current]`")
    try:
        key_id = UUID(words[1])
    except ValueError:
        raise RootRefused(f"line {number}: the id is not a UUID") from None
    return RootKey(KeyClass(words[0]), key_id, decode_key(words[2]), current=len(words) == 4)
