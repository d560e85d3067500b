"""The tree: RFC 9162 hashing over stored tiles of 256 hashes (C2SP tlog-tiles). Pure; a tile comes from `read`.

Level 0 holds leaf hashes, level n the roots of complete subtrees of 256^n leaves. Appending touches the last tile of each
level and nothing else; any root, inclusion or consistency proof reads O(log n) tiles and hashes at most 255 entries of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

WIDTH = 256
HASH = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

#: the bytes of the tile at (level, position); only asked for tiles that exist
Read = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """RFC 9162 2.1.1: hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162 2.1.1: hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(read: Read, size: int, hashes: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """The tiles that change when these leaf hashes follow a tree of `size` leaves: (level, position) → whole content."""
    changed: dict[tuple[int, int], bytes] = {}
    level, start, new = 0, size, list(hashes)
    while new:
        position, filled = divmod(start, WIDTH)
        content = (read(level, position)[: filled * HASH] if filled else b"") + b"".join(new)
        if len(content) != (filled + len(new)) * HASH:
            raise ValueError(f"tile {level}/{position} is shorter than the tree")
        new = []
        for offset in range(0, len(content), WIDTH * HASH):
            tile = content[offset : offset + WIDTH * HASH]
            changed[level, position + offset // (WIDTH * HASH)] = tile
            if len(tile) == WIDTH * HASH:
                new.append(fold(tile))
        level, start = level + 1, start // WIDTH
    return changed


def root(read: Read, size: int) -> bytes:
    """RFC 9162 2.1.1: the root of the first `size` leaves."""
    return _range(read, 0, size) if size else EMPTY_ROOT


def inclusion(read: Read, index: int, size: int) -> list[bytes]:
    """RFC 9162 2.1.3.1: the path from leaf `index` to the root of the first `size` leaves, lowest first."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range(read, middle, high))
            high = middle
        else:
            path.append(_range(read, low, middle))
            low = middle
    return path[::-1]


def consistency(read: Read, first: int, second: int) -> list[bytes]:
    """RFC 9162 2.1.4.1: that the tree of `second` leaves begins with the tree of `first`. Empty for equal sizes or first 0."""
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {first} is no beginning of one of {second}")
    if first in {0, second}:
        return []
    low, high, whole, path = 0, second, True, []
    while first != high - low:
        split = _split(high - low)
        if first <= split:
            path.append(_range(read, low + split, high))
            high = low + split
        else:
            path.append(_range(read, low, low + split))
            low, first, whole = low + split, first - split, False
    if not whole:
        path.append(_range(read, low, high))
    return path[::-1]


def frontier(read: Read, size: int) -> list[bytes]:
    """The roots of the complete subtrees that the first `size` leaves fall into, largest first."""
    roots, low = [], 0
    while low < size:
        height = (size - low).bit_length() - 1
        roots.append(_complete(read, low, height))
        low += 1 << height
    return roots


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


def _range(read: Read, low: int, high: int) -> bytes:
    """The root of leaves low…high-1, where low is a multiple of the power of two that splits the range."""
    size = high - low
    if size & (size - 1) == 0:
        return _complete(read, low, size.bit_length() - 1)
    middle = low + _split(size)
    return node_hash(_range(read, low, middle), _range(read, middle, high))


def _complete(read: Read, low: int, height: int) -> bytes:
    """The root of the complete subtree of 2^height leaves that begins at `low`: folded out of one tile."""
    level, rest = divmod(height, 8)
    position, entry = divmod(low >> 8 * level, WIDTH)
    part = read(level, position)[entry * HASH : (entry + (1 << rest)) * HASH]
    if len(part) != HASH << rest:
        raise ValueError(f"tile {level}/{position} is shorter than the tree")
    return fold(part)


def fold(entries: bytes) -> bytes:
    """The root of a power of two of concatenated hashes."""
    while len(entries) > HASH:
        entries = b"".join(
            hashlib.sha256(b"\x01" + entries[at : at + 2 * HASH]).digest() for at in range(0, len(entries), 2 * HASH)
        )
    return entries
