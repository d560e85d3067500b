"""The small fields of a multipart form, read while the form passes: routes with `?name=value` hold there too (VA-54).

Nothing is kept but the beginning of each field, so a form with a film in it costs no memory. A form that two readers could
read in two ways is refused: a preamble, folded or unknown part headers, names that are not plainly quoted.
"""

from __future__ import annotations

import re
from typing import Final

MAX_HEAD: Final = 8 * 1024
MAX_VALUE: Final = 1024
_BOUNDARY: Final = re.compile(r"multipart/form-data; ?boundary=(\"?)([0-9A-Za-z'()+_,./:=?-]{1,70})\1", re.IGNORECASE)
_DISPOSITION: Final = re.compile(
    rb'form-data; ?name="([^"\\\r\n]*)"(?:; ?filename="[^"\r\n]*")?(?:; ?filename\*=[^;"\s]+)?', re.IGNORECASE
)
_HARMLESS: Final = frozenset({b"content-type", b"content-length"})


class Odd(ValueError):
    """Not a form as browsers write it."""


def fields_of(content_type: str, charset: str) -> Fields | None:
    """A reader for a multipart form; None for a body of another type, or one whose boundary could be read in two ways."""
    found = _BOUNDARY.fullmatch(content_type.strip())
    return Fields(found.group(2).encode("ascii"), charset) if found else None


class Fields:
    """Feed it every piece before the piece goes on; it says which fields have ended in it."""

    def __init__(self, boundary: bytes, charset: str) -> None:
        self._delimiter, self._charset = b"\r\n--" + boundary, charset
        self._buffer = b"\r\n"  # so that the first delimiter looks like the others
        self._name: str | None = None
        self._value = b""
        self._in_head = False
        self.ended = False

    def feed(self, piece: bytes) -> list[tuple[str, str]]:
        """Names and values, each cut after MAX_VALUE bytes, without white space around it. Raises Odd."""
        self._buffer += piece
        found: list[tuple[str, str]] = []
        while not self.ended and (self._head() if self._in_head else self._content(found)):
            pass
        if self.ended and self._buffer.strip():
            raise Odd("something after the end")
        return found

    def _head(self) -> bool:
        """Read the headers of a part; False when more is needed."""
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            if len(self._buffer) > MAX_HEAD:
                raise Odd("a long head")
            return False
        names = []
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-disposition":
                match = _DISPOSITION.fullmatch(value.strip())
                if match is None:
                    raise Odd("a disposition")
                names.append(match.group(1).decode(self._charset, "replace"))
            elif name.lower() not in _HARMLESS:
                raise Odd("a header of a part")
        if len(names) != 1:
            raise Odd("no name, or two")
        self._name, self._value, self._buffer, self._in_head = names[0], b"", rest, False
        return True

    def _content(self, found: list[tuple[str, str]]) -> bool:
        """Read the content of a part; False when more is needed."""
        at, length = self._buffer.find(self._delimiter), len(self._delimiter)
        if at < 0:
            self._take(self._buffer[: 1 - length])
            self._buffer = self._buffer[1 - length :]
            return False
        follows = self._buffer[at + length : at + length + 2]
        if len(follows) < 2:
            return False
        self._take(self._buffer[:at])
        if self._name is not None:
            found.append((self._name, self._value.decode(self._charset, "replace").strip()))
        if follows not in (b"--", b"\r\n"):
            raise Odd("a delimiter")
        self._buffer = self._buffer[at + length + 2 :]
        self.ended, self._in_head = follows == b"--", follows == b"\r\n"
        return True

    def _take(self, content: bytes) -> None:
        if self._name is None and content:
            raise Odd("a preamble")
        if len(self._value) < MAX_VALUE:
            self._value += content[: MAX_VALUE - len(self._value)]
