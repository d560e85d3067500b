"""A sealed record at rest: one wrapped data key and the payload of each field. Ciphertext only, safe to store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from uuid import UUID

from vault.envelope import parse_wrapped_key
from vault.errors import Damaged

_MAGIC: Final = b"SKB1"
_COUNT_BYTES: Final = 2
_NAME_LENGTH_BYTES: Final = 2
_BLOB_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Sealed:
    """What `seal` returns and `open` takes.

    wrapped_dek: SKW1, 97 bytes. fields: field name → SKS1 bytes. Store the parts in columns of their own, or all of
    it in one with `to_bytes()`. That a field is missing is not detected here: callers ask for fields by name.
    """

    wrapped_dek: bytes = field(repr=False)
    fields: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    @property
    def key_id(self) -> UUID:
        """The company key that wraps the data key: the gauge "still under the old key" counts by it.

        Read from the record, so it cannot disagree with it. Raises Damaged, UnknownSuite.
        """
        return UUID(bytes=parse_wrapped_key(self.wrapped_dek).wrapping_key_id)

    def to_bytes(self) -> bytes:
        """`SKB1` · u32 length ‖ wrapped key · u16 count · per field, by name: u16 length ‖ name · u32 length ‖ payload."""
        parts = [_MAGIC, _prefixed(self.wrapped_dek, _BLOB_LENGTH_BYTES), len(self.fields).to_bytes(_COUNT_BYTES)]
        for name in sorted(self.fields):
            parts.append(_prefixed(name.encode(), _NAME_LENGTH_BYTES))
            parts.append(_prefixed(self.fields[name], _BLOB_LENGTH_BYTES))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Sealed:
        """The record that `to_bytes` wrote. Raises Damaged for every other byte string, trailing bytes included."""
        reader = _Reader(data)
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise Damaged("not an SKB1 record")
        wrapped_dek = reader.prefixed(_BLOB_LENGTH_BYTES)
        fields: dict[str, bytes] = {}
        for _ in range(int.from_bytes(reader.take(_COUNT_BYTES))):
            name = _name(reader.prefixed(_NAME_LENGTH_BYTES))
            fields[name] = reader.prefixed(_BLOB_LENGTH_BYTES)
        sealed = cls(wrapped_dek, fields)
        # One record, one byte string: this refuses trailing bytes, names twice or out of order, all at once.
        if sealed.to_bytes() != data:
            raise Damaged("an SKB1 record that we did not write")
        return sealed


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise Damaged("an SKB1 record is cut short")
        self._at += count
        return taken

    def prefixed(self, length_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(length_bytes)))


def _prefixed(data: bytes, length_bytes: int) -> bytes:
    return len(data).to_bytes(length_bytes) + data


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Damaged("a field name in an SKB1 record is not UTF-8") from None
