"""Finding a secret in what leaves, without holding it (VA-53).

For a field of a tool account only an anchor of 3 or 4 bytes, its offset, the length and an HMAC of the whole are kept,
per encoding, under a key of this tool session: who takes over the gateway learns a few bytes, and no password. Values
that the gateway holds anyway (jar cookies, the upstream `Authorization`) are searched as they are.

The scan is a net. The wall is that field values never enter the path of an answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus

#: shorter values occur by chance; certification says so
MIN_GUARDED_CHARS: Final = 8
MIN_COOKIE_CHARS: Final = 16
_ANCHOR: Final = 4
_COMMON: Final = frozenset(b"etaoinshrdlu -=/\"'<>abcdefghijklmnopqrstuvwxyz")


class SecretFound(Exception):
    """A guarded value is about to leave. The message never holds it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One encoding of one value: `anchor` stands `offset` bytes into `length` bytes whose HMAC is `mac`."""

    anchor: bytes
    offset: int
    length: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class ScanSet:
    """What the engine makes of the fields of a login. key: 32 bytes of this tool session."""

    key: bytes
    guards: tuple[Guard, ...]

    def to_json(self) -> bytes:
        """For sealing."""
        rows = [[g.anchor.hex(), g.offset, g.length, g.mac.hex()] for g in self.guards]
        return json.dumps({"key": self.key.hex(), "guards": rows}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ScanSet:
        """The inverse of `to_json`."""
        read = json.loads(data)
        guards = (Guard(bytes.fromhex(a), o, n, bytes.fromhex(m)) for a, o, n, m in read["guards"])
        return cls(bytes.fromhex(read["key"]), tuple(guards))


NO_GUARDS: Final = ScanSet(b"\0" * 32, ())


def encodings(value: str, charset: str = "utf-8") -> frozenset[bytes]:
    """The byte forms in which a value may stand in a page, a header or a frame; each at least 8 bytes long."""
    raw = {value.encode()}
    if charset != "utf-8":
        raw.add(value.encode(charset, "ignore"))
    forms = set(raw)
    for one in raw:
        for text in (quote(one, safe=""), quote(one), quote_plus(one)):
            forms |= {text.encode(), _lower_percent(text).encode()}
        forms |= {one.hex().encode(), one.hex().upper().encode()}
        forms |= {f"%{one.hex('%')}".encode(), f"%{one.hex('%').upper()}".encode()}
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            forms |= {_base64_inside(one, shift, alphabet(b"\0" * shift + one)) for shift in range(3)}
    escaped = html.escape(value)
    forms |= {escaped.encode(), escaped.replace("&#x27;", "&#39;").encode(), html.escape(value, quote=False).encode()}
    inside = json.dumps(value)[1:-1]
    forms |= {
        inside.encode(),
        inside.replace("/", "\\/").encode(),
        json.dumps(value, ensure_ascii=False)[1:-1].encode(),
    }
    forms |= {value.encode("utf-16-le"), value.encode("utf-16-be")}
    return frozenset(form for form in forms if len(form) >= MIN_GUARDED_CHARS)


def _lower_percent(text: str) -> str:
    return "%".join(part if i == 0 else part[:2].lower() + part[2:] for i, part in enumerate(text.split("%")))


def _base64_inside(value: bytes, shift: int, encoded: bytes) -> bytes:
    """The characters that only the value decides when it stands `shift` bytes after a multiple of three."""
    first = (shift * 8 + 5) // 6
    last = (shift + len(value)) * 8 // 6
    return encoded[first:last]


def build(values: Iterable[str], *, key: bytes, charset: str = "utf-8") -> ScanSet:
    """Guards for the values of secret fields. Values under 8 characters are not guarded."""
    guards = {
        _guard(form, key) for value in values if len(value) >= MIN_GUARDED_CHARS for form in encodings(value, charset)
    }
    return ScanSet(key, tuple(sorted(guards, key=lambda guard: guard.mac)))


def _guard(form: bytes, key: bytes) -> Guard:
    # The rarest window is the anchor: every place where it occurs costs an HMAC.
    starts = range(len(form) - _ANCHOR + 1)
    offset = min(starts, key=lambda i: sum(byte in _COMMON for byte in form[i : i + _ANCHOR]))
    mac = hmac.new(key, form, hashlib.sha256).digest()
    return Guard(form[offset : offset + _ANCHOR], offset, len(form), mac)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Everything that must not leave to one browser. literals: byte forms that we hold; scan: those that we do not."""

    literals: tuple[bytes, ...] = ()
    scan: ScanSet = NO_GUARDS
    _anchors: tuple[tuple[bytes, tuple[int, ...], tuple[Guard, ...]], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Put the guards together that share an anchor, with its bytes, the rarest first."""
        shared: dict[bytes, list[Guard]] = {}
        for guard in self.scan.guards:
            shared.setdefault(guard.anchor, []).append(guard)
        anchors = (
            (anchor, tuple(sorted(set(anchor), key=_COMMON.__contains__)), tuple(guards))
            for anchor, guards in shared.items()
        )
        object.__setattr__(self, "_anchors", tuple(anchors))

    @property
    def longest(self) -> int:
        """Bytes of the longest pattern; 0 without any."""
        lengths = [len(literal) for literal in self.literals] + [guard.length for guard in self.scan.guards]
        return max(lengths, default=0)

    def found_in(self, data: bytes) -> bool:
        """Whether any guarded value stands in the data."""
        for literal in self.literals:
            if literal in data:
                return True
        for anchor, each, guards in self._anchors:
            for byte in each:  # one byte is found many times faster than four, and most pages lack one of them
                if byte not in data:
                    break
            else:
                if anchor in data and any(self._guard_hits(guard, data) for guard in guards):
                    return True
        return False

    def _guard_hits(self, guard: Guard, data: bytes) -> bool:
        at = data.find(guard.anchor)
        while at >= 0:
            start = at - guard.offset
            if start >= 0 and start + guard.length <= len(data):
                mac = hmac.new(self.scan.key, data[start : start + guard.length], hashlib.sha256).digest()
                if hmac.compare_digest(mac, guard.mac):
                    return True
            at = data.find(guard.anchor, at + 1)
        return False


def literals(values: Iterable[str]) -> tuple[bytes, ...]:
    """Byte forms of values that we hold ourselves, sorted so that equal jars make equal patterns."""
    return tuple(sorted({form for value in values for form in encodings(value)}))


class Stream:
    """Scans a stream in pieces. The longest pattern less one byte is held back, so no part of a match leaves."""

    def __init__(self, patterns: Patterns, *, lines: bool = False) -> None:
        """lines: release up to the last line end at once (server-sent events); no guarded value holds one."""
        self._patterns = patterns
        self._keep = max(0, patterns.longest - 1)
        self._lines = lines
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may leave now. Raises SecretFound."""
        if not self._keep:
            return chunk
        data = self._held + chunk
        if self._patterns.found_in(data):
            raise SecretFound
        cut = max(0, len(data) - self._keep)
        if self._lines:
            cut = max(cut, data.rfind(b"\n") + 1)
        self._held = data[cut:]
        return data[:cut]

    def finish(self) -> bytes:
        """The rest."""
        rest, self._held = self._held, b""
        return rest
