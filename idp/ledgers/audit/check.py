"""Checking the log in the database, from the first row to the last: `sekisho audit verify` (AU-07).

Pure: rows, tiles, checkpoints and anchors come in, findings go out. Every row is encoded again and hashed into a tree of its
own; nothing that the database says about hashes, sizes or roots is believed, it is compared. One pass, constant memory.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from idp.ledgers.audit import leaf, merkle, verify
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.head import Head

#: a damaged log says a thousand things; the first ones are what matters
MOST = 50


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. where: the place in the tree, or of the checkpoint; what: a machine word; text: English."""

    where: int
    what: str
    text: str


@dataclass
class Report:
    """What a check saw. findings empty: all is well."""

    rows: int = 0
    opaque: int = 0
    erased: int = 0
    emptied: int = 0
    checkpoints: int = 0
    anchors: int = 0
    root: str = ""
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, where: int, what: str, text: str) -> None:
        """Note a finding."""
        if len(self.findings) < MOST:
            self.findings.append(Finding(where, what, text))


@dataclass(frozen=True)
class Origin:
    """A name of the log, and the size at which it begins."""

    name: str
    vkey: str
    began_at_size: int
    link: str | None


@dataclass(frozen=True)
class Log:
    """What is checked. rows: every sealed row by place; tiles: (level, position) → hashes; checkpoints: (origin name, size,
    root, note), by size; anchors: signed checkpoints that lay in another place; checker: Ed25519 for a public key."""

    rows: Iterable[Any]
    tiles: Callable[[int, int], bytes | None]
    size: int
    checkpoints: Sequence[tuple[str, int, bytes, str]]
    origins: Sequence[Origin]
    head: Head | None
    checker: Callable[[bytes], verify.Check]
    anchors: Sequence[str] = ()
    keys: Sequence[str] = ()
    #: rows that wait for the seal and say why others were emptied: the sealer is seconds behind
    waiting: Iterable[Any] = ()


class _Emptied:
    """Rows whose content is gone, and the sealed rows that say why."""

    def __init__(self) -> None:
        self.bodies: list[tuple[int, str, str]] = []
        self.personal: list[tuple[int, str, str, set[uuid.UUID | None]]] = []
        self.erased: set[str] = set()
        self.ended: dict[str, list[tuple[str, str]]] = {"body": [], "personal": []}

    def see(self, row: Any) -> None:
        """One row of a version that we know."""
        at = leaf.instant(row.created_at)
        if row.body_hash is not None:
            self.bodies.append((row.leaf_index, row.tag, at))
        elif row.tag == Tag.PERSONAL_ERASED.value:
            self.erased.add(str(row.subject_id))
        elif row.tag == Tag.RETENTION_ENDED.value and row.detail.get("part") in self.ended:
            self.ended[row.detail["part"]].append((str(row.detail.get("tag")), str(row.detail.get("before"))))
        if row.personal_hash is not None:
            self.personal.append((row.leaf_index, row.tag, at, {row.subject_id, row.actor_id}))

    def judge(self, report: Report) -> None:
        """An emptied row without a sealed reason was emptied by hand."""
        for index, tag, at in self.bodies:
            if not _over(self.ended["body"], tag, at):
                report.wrong(index, "body_gone", "the body is gone and no sealed row says why")
        for index, tag, at, people in self.personal:
            erased = {str(person) for person in people if person is not None} & self.erased
            if not erased and not _over(self.ended["personal"], tag, at):
                report.wrong(index, "personal_gone", "the personal block is gone and no sealed row says why")


def _over(ended: Sequence[tuple[str, str]], tag: str, at: str) -> bool:
    return any(tag == ended_tag and at < before for ended_tag, before in ended)


def check(log: Log) -> Report:
    """Look at everything. Findings come in the order of the rows, then checkpoints, then anchors."""
    report, emptied, tree = Report(), _Emptied(), verify.Frontier()
    wanted = {size for _, size, _, _ in log.checkpoints} | {origin.began_at_size for origin in log.origins}
    outside = _outside(log, report)
    wanted |= {size for size, _, _, _ in outside}
    roots: dict[int, bytes] = {0: merkle.EMPTY_ROOT}
    levels: dict[int, list[bytes]] = {0: []}
    for row in log.rows:
        if row.leaf_index != tree.size:
            what = "missing" if (row.leaf_index or 0) > tree.size else "order"
            report.wrong(tree.size, what, f"place {tree.size} is held by place {row.leaf_index}")
            break  # what follows would be a thousand findings of this one
        hashed = _hash(row, report, emptied)
        tree.append(hashed)
        _tile(log, levels, 0, hashed, tree.size, report)
        if tree.size in wanted:
            roots[tree.size] = tree.root()
    report.rows, report.root = tree.size, tree.root().hex()
    if tree.size != log.size:
        report.wrong(tree.size, "size", f"{tree.size} rows, and the sealer wrote {log.size}")
    _last_tiles(log, levels, tree.size, report)
    for row in log.waiting:
        emptied.see(row)
    emptied.judge(report)
    _signed(log, roots, tree.size, report)
    limits = {o.name: after.began_at_size for o, after in zip(log.origins, log.origins[1:], strict=False)}
    for size, root, place, name in outside:
        report.anchors += 1
        if size > limits.get(name, size):
            continue  # an operator gave that origin up at a smaller size, and a signed link says so
        if size > tree.size:
            report.wrong(size, "cut_off", f"{place} knows {size} rows, the log has {tree.size}: its end is cut off")
        elif roots.get(size) != root:
            report.wrong(size, "anchor", f"the first {size} rows are not those of {place}")
    return report


def _hash(row: Any, report: Report, emptied: _Emptied) -> bytes:
    """The leaf hash of a row: computed again, or the stored one of a version that we do not know (AU-08)."""
    if row.leaf_version > leaf.VERSION:
        report.opaque += 1
        return bytes(row.leaf_hash)
    report.erased += row.personal_hash is not None
    report.emptied += row.body_hash is not None
    shown = row.body_hash is not None and (row.detail or row.result or row.actor_kind or row.subject_id)
    if shown or (row.personal_hash is not None and row.personal is not None):
        report.wrong(row.leaf_index, "changed", "content and the digest that stands for emptied content are both there")
    emptied.see(row)
    hashed = leaf.leaf_hash(row)
    if row.leaf_hash != hashed:
        report.wrong(row.leaf_index, "changed", "the row is not what was sealed")
    return hashed


def _tile(log: Log, levels: dict[int, list[bytes]], level: int, hashed: bytes, size: int, report: Report) -> None:
    """Collect one hash of a level; a full tile is compared, and its root is the next one of the level above."""
    entries = levels.setdefault(level, [])
    entries.append(hashed)
    if len(entries) == merkle.WIDTH:
        content = b"".join(entries)
        position = (size >> 8 * (level + 1)) - 1
        if log.tiles(level, position) != content:
            report.wrong(size - 1, "tile", f"tile {level}/{position} is not what the rows give")
        entries.clear()
        _tile(log, levels, level + 1, merkle.fold(content), size, report)


def _last_tiles(log: Log, levels: Mapping[int, Sequence[bytes]], size: int, report: Report) -> None:
    for level, entries in levels.items():
        position = size >> 8 * (level + 1)
        stored = log.tiles(level, position)
        ours = b"".join(entries)
        if (stored or b"")[: len(ours)] != ours:  # the log may have grown since its size was read
            report.wrong(size, "tile", f"tile {level}/{position} is not what the rows give")


def _signed(log: Log, roots: Mapping[int, bytes], size: int, report: Report) -> None:
    """Every checkpoint: well signed by its origin, and a root that the rows give. Every origin: known, and linked."""
    known = {origin.name: origin for origin in log.origins}
    for number, origin in enumerate(log.origins):
        if log.keys and origin.vkey not in log.keys:
            report.wrong(origin.began_at_size, "key", f"{origin.name} is signed by a key that was not given")
        if number and (origin.link is None or not _linked(log, origin, log.origins[number - 1], roots)):
            report.wrong(origin.began_at_size, "link", f"{origin.name} is not linked to the origin before it")
    for name, at, root, text in log.checkpoints:
        report.checkpoints += 1
        try:
            signed = verify.open_checkpoint(text, known[name].vkey, log.checker(verify.read_key(known[name].vkey)[1]))
        except (verify.Wrong, KeyError) as error:
            report.wrong(at, "signature", f"checkpoint of {at} rows: {error}")
            continue
        if signed != (at, root) or at > size or roots.get(at) != root:
            report.wrong(at, "checkpoint", f"the first {at} rows are not those that were signed")
    if log.head is not None:
        now = log.origins[-1] if log.origins else None
        if now is None or (now.name, now.vkey) != (log.head.origin, log.head.vkey):
            report.wrong(log.head.size, "head", f"the second store speaks of {log.head.origin}")
    elif log.checkpoints:
        report.wrong(0, "head", "the second store is missing, and checkpoints were signed")


def _linked(log: Log, origin: Origin, before: Origin, roots: Mapping[int, bytes]) -> bool:
    try:
        text = verify.open_note(origin.link or "", origin.vkey, log.checker(verify.read_key(origin.vkey)[1]))
    except verify.Wrong:
        return False
    lines = text.splitlines()
    begins = f"begins {origin.began_at_size} {roots.get(origin.began_at_size, b'').hex()}"
    return lines[1:3] == [origin.name, f"from {before.name}"] and begins in lines


def _outside(log: Log, report: Report) -> list[tuple[int, bytes, str, str]]:
    """Sizes, roots, places and origins that did not come out of the database: anchors that were handed in, and the second store."""
    found = (
        [(log.head.size, bytes.fromhex(log.head.root), "the second store", log.head.origin)]
        if log.head is not None
        else []
    )
    for number, text in enumerate(log.anchors, 1):
        for vkey in dict.fromkeys([*log.keys, *(origin.vkey for origin in log.origins)]):
            try:
                size, root = verify.open_checkpoint(text, vkey, log.checker(verify.read_key(vkey)[1]))
            except verify.Wrong:
                continue
            found.append((size, root, f"anchor {number}", verify.read_key(vkey)[0]))
            break
        else:
            report.wrong(0, "anchor", f"anchor {number} is not signed by this log")
    return found
