"""AU-07: whatever is done to a log or to an export is found, and nothing is found where nothing was done.

Random, seeded, in memory. The forger has the database, knows the format, and repairs as much as a random depth says: the row's own
hash, the tiles, the roots of the checkpoints, at last every signature with a key of their own. `SEKISHO_MUTATIONS=10000` is the run
of a night or of CI; the default is a sample.
"""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import json
import os
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from idp.core import logkey
from idp.ledgers.audit import check, leaf, merkle, note, verify
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.head import Head
from tests.actors import utc

COUNT = int(os.environ.get("SEKISHO_MUTATIONS", "400"))
SEED = int(os.environ.get("SEKISHO_MUTATION_SEED", "20261122"))
NAME = "log.example/log"
checker = functools.cache(logkey.checker)


@functools.cache
def key(number: int) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Public part and signing function of the log's key (0) and of a forger's (1)."""
    made = OKPKey.import_key({
        "kty": "OKP", "crv": "Ed25519", "d": base64.urlsafe_b64encode(bytes([number + 1]) * 32).rstrip(b"=").decode(),
        "x": base64.urlsafe_b64encode(_public(number)).rstrip(b"=").decode(),
    })  # fmt: skip
    return _public(number), made.get_op_key("sign").sign


def _public(number: int) -> bytes:
    """RFC 8032 5.1.5, by the arithmetic of the verifier itself."""
    hashed = bytearray(hashlib.sha512(bytes([number + 1]) * 32).digest()[:32])
    hashed[0] &= 248
    hashed[31] = hashed[31] & 63 | 64
    x, y, z, _ = verify._times(int.from_bytes(hashed, "little"), verify.BASE)
    inverse = pow(z, verify.P - 2, verify.P)
    return (y * inverse % verify.P | (x * inverse % verify.P & 1) << 255).to_bytes(32, "little")


@dataclass
class Row:
    """A row of audit_event."""

    leaf_index: int
    id: uuid.UUID
    created_at: Any
    tag: str
    company_id: uuid.UUID | None
    result: str = "ok"
    actor_kind: str = "person"
    actor_id: uuid.UUID | None = None
    store_id: uuid.UUID | None = None
    subject_id: uuid.UUID | None = None
    application_id: uuid.UUID | None = None
    request_id: str = "r"
    software: str = "0.1.0"
    detail: dict[str, Any] = field(default_factory=dict)
    personal: dict[str, Any] | None = None
    personal_salt: bytes | None = None
    personal_hash: bytes | None = None
    body_hash: bytes | None = None
    leaf_version: int = 1
    leaf_hash: bytes = b""


@dataclass
class Forged:
    """Everything that a database and the places beside it hold. `log()` is what the check reads."""

    rows: list[Row]
    tiles: dict[tuple[int, int], bytes]
    checkpoints: list[tuple[str, int, bytes, str]]
    vkey: str
    head: Head
    anchors: list[str]
    size: int
    keys: tuple[str, ...] = ()

    def log(self) -> check.Log:
        return check.Log(
            rows=sorted(self.rows, key=lambda row: row.leaf_index), tiles=lambda level, position: self.tiles.get((level, position)),
            size=self.size, checkpoints=self.checkpoints, origins=[check.Origin(NAME, self.vkey, 0, None)], head=self.head,
            checker=checker, anchors=self.anchors, keys=self.keys,
        )  # fmt: skip

    def copy(self) -> Forged:
        rows = [replace(row, detail=dict(row.detail)) for row in self.rows]
        return replace(self, rows=rows, tiles=dict(self.tiles), checkpoints=list(self.checkpoints))

    def findings(self) -> set[str]:
        return {finding.what for finding in check.check(self.log()).findings}


SIZES = (5, 16, 30)


def tiles_of(hashes: list[bytes]) -> dict[tuple[int, int], bytes]:
    return merkle.append(lambda _l, _p: b"", 0, hashes)


def honest(dice: random.Random, count: int = 30) -> Forged:
    """A sealed log with an opaque row, an erased person, a retention that ended, three checkpoints and an anchor."""
    rows = []
    for number in range(count):
        row = Row(
            number, uuid.UUID(int=dice.getrandbits(128), version=4), utc(2026, 11, 1) + timedelta(seconds=number * 61), Tag.LOGIN_SUCCEEDED.value,
            uuid.UUID(int=number % 3 + 1), actor_id=uuid.UUID(int=number % 5 + 100), subject_id=uuid.UUID(int=number % 5 + 100),
            detail={"n": number, "acr": "urn:x"}, personal={"address": f"192.0.2.{number}"}, personal_salt=dice.randbytes(16),
        )  # fmt: skip
        rows.append(row)
    rows[3].tag = Tag.CODE_ISSUED.value
    rows[9].leaf_version = 7
    rows[25].tag, rows[25].subject_id = Tag.PERSONAL_ERASED.value, uuid.UUID(int=102)
    rows[26].tag = Tag.RETENTION_ENDED.value
    rows[26].detail = {"tag": Tag.CODE_ISSUED.value, "part": "body", "before": leaf.instant(utc(2026, 12, 1))}
    for row in rows:
        row.leaf_hash = leaf.leaf_hash(row) if row.leaf_version == 1 else dice.randbytes(32)
    tiles = tiles_of([row.leaf_hash for row in rows])
    vkey = note.vkey(NAME, key(0)[0])
    checkpoints = [(NAME, size, *signed(tiles, size, 0)) for size in SIZES]
    for row in rows:  # only after sealing
        if row.subject_id == uuid.UUID(int=102) and row.leaf_version == 1:
            row.personal_hash, row.personal, row.personal_salt = leaf.personal_digest(row), None, None
    rows[3].body_hash = leaf.body_digest(rows[3])
    _empty_body(rows[3])
    root = merkle.root(lambda level, position: tiles[level, position], count).hex()
    return Forged(rows, tiles, checkpoints, vkey, Head(NAME, vkey, count, root), [checkpoints[1][3]], count)


def _empty_body(row: Row) -> None:
    row.result = row.actor_kind = row.request_id = row.software = ""
    row.actor_id = row.store_id = row.subject_id = row.application_id = None
    row.detail = {}


def signed(tiles: dict[tuple[int, int], bytes], size: int, who: int) -> tuple[bytes, str]:
    root = merkle.root(lambda level, position: tiles[level, position], size)
    public, sign = key(who)
    return root, note.signed(note.checkpoint(NAME, size, root), NAME, public, sign)


# --- what a forger does to rows ---------------------------------------------------------------------------------------


def some(log: Forged, dice: random.Random) -> Row:
    """A row whose content is there to be changed."""
    return dice.choice(
        [row for row in log.rows if row.leaf_version == 1 and row.body_hash is None and row.personal is not None]
    )


def change_value(log: Forged, dice: random.Random) -> None:
    row = some(log, dice)
    name = dice.choice(["tag", "result", "actor_kind", "request_id", "software", "detail", "actor_id", "store_id", "subject_id",
                        "application_id", "company_id", "personal", "personal_salt", "id"])  # fmt: skip
    value = getattr(row, name)
    if isinstance(value, dict):
        value = {**value, dice.choice([*value, "new"]): dice.randrange(10**6) + 1000}
    elif isinstance(value, bytes):
        at = dice.randrange(len(value))
        value = value[:at] + bytes([value[at] ^ 1 << dice.randrange(8)]) + value[at + 1 :]
    elif isinstance(value, str):
        value += dice.choice("xyz ")
    else:
        value = uuid.UUID(int=dice.getrandbits(128), version=4)
    setattr(row, name, value)


def backdate(log: Forged, dice: random.Random) -> None:
    row = some(log, dice)
    row.created_at += timedelta(microseconds=dice.choice([-1, 1, -3_600_000_000, 10**6]))


def swap_rows(log: Forged, dice: random.Random) -> None:
    one, two = dice.sample(log.rows, 2)
    one.leaf_index, two.leaf_index = two.leaf_index, one.leaf_index


def drop(log: Forged, dice: random.Random) -> None:
    gone = dice.choice(log.rows[:-1])
    log.rows.remove(gone)
    if dice.random() < 0.7:
        for row in log.rows:
            row.leaf_index -= row.leaf_index > gone.leaf_index


def duplicate(log: Forged, dice: random.Random) -> None:
    row = copy.deepcopy(dice.choice(log.rows))
    place = dice.randrange(len(log.rows))
    for other in log.rows:
        other.leaf_index += other.leaf_index >= place
    row.leaf_index = place
    log.rows.append(row)


def insert_row(log: Forged, dice: random.Random) -> None:
    duplicate(log, dice)
    log.rows[-1].id = uuid.UUID(int=dice.getrandbits(128), version=4)


def truncate(log: Forged, dice: random.Random) -> None:
    left = dice.randrange(0, len(log.rows))
    log.rows = [row for row in log.rows if row.leaf_index < left]
    log.checkpoints = [entry for entry in log.checkpoints if entry[1] <= left]


def empty_by_hand(log: Forged, dice: random.Random) -> None:
    rows = [r for r in log.rows if r.leaf_version == 1 and r.body_hash is None and r.personal is not None
            and r.tag == Tag.LOGIN_SUCCEEDED.value]  # fmt: skip
    row = dice.choice(rows)
    if dice.random() < 0.5:
        row.personal_hash, row.personal, row.personal_salt = leaf.personal_digest(row), None, None
    else:
        row.body_hash = leaf.body_digest(row)
        _empty_body(row)


def uncover(log: Forged, dice: random.Random) -> None:
    """Take away what says why a row is empty."""
    row = log.rows[dice.choice([25, 26])]
    row.tag = Tag.LOGIN_SUCCEEDED.value


ROWS = [change_value, change_value, backdate, swap_rows, drop, duplicate, insert_row, truncate, empty_by_hand, uncover]


# --- and to what proves them ------------------------------------------------------------------------------------------


def flip_tile(log: Forged, dice: random.Random) -> None:
    place = dice.choice(list(log.tiles))
    content = bytearray(log.tiles[place])
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    log.tiles[place] = bytes(content)


def drop_tile(log: Forged, dice: random.Random) -> None:
    del log.tiles[dice.choice(list(log.tiles))]


def flip_leaf_hash(log: Forged, dice: random.Random) -> None:
    row = dice.choice(log.rows)
    row.leaf_hash = bytes([row.leaf_hash[0] ^ 1 << dice.randrange(8)]) + row.leaf_hash[1:]


def touch_note(log: Forged, dice: random.Random) -> None:
    at = dice.randrange(len(log.checkpoints))
    name, size, root, text = log.checkpoints[at]
    place = dice.randrange(len(text))
    log.checkpoints[at] = (name, size, root, text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :])


def swap_notes(log: Forged, dice: random.Random) -> None:
    one, two = dice.sample(range(len(log.checkpoints)), 2)
    a, b = log.checkpoints[one], log.checkpoints[two]
    log.checkpoints[one], log.checkpoints[two] = (*a[:3], b[3]), (*b[:3], a[3])


def resize(log: Forged, dice: random.Random) -> None:
    at = dice.randrange(len(log.checkpoints))
    name, size, root, text = log.checkpoints[at]
    log.checkpoints[at] = (
        (name, size - 1, root, text) if dice.random() < 0.5 else (name, size, hashlib.sha256(root).digest(), text)
    )


def other_key(log: Forged, dice: random.Random) -> None:
    """Everything signed anew by somebody else, key and all: only what lies outside the database knows better."""
    log.vkey = note.vkey(NAME, key(1)[0])
    log.checkpoints = [(NAME, size, *signed(log.tiles, size, 1)) for _, size, _, _ in log.checkpoints]


PROOFS = [flip_tile, drop_tile, flip_leaf_hash, touch_note, swap_notes, resize, other_key]


def repair(log: Forged, depth: int) -> None:
    """What a forger can make consistent again, step by step."""
    rows = sorted(log.rows, key=lambda row: row.leaf_index)
    if depth >= 1:
        for row in rows:
            if row.leaf_version == 1:
                row.leaf_hash = leaf.leaf_hash(row)
    if depth >= 2:
        log.tiles, log.size = tiles_of([row.leaf_hash for row in rows]), len(rows)
    if depth >= 3:
        log.checkpoints = [(n, s, *signed(log.tiles, s, 1)) for n, s, _, _ in log.checkpoints if s <= len(rows)]
    if depth >= 4:
        log.vkey = note.vkey(NAME, key(1)[0])


def test_AU07_every_mutation_of_a_database_is_found() -> None:
    """0 misses, and 0 false alarms: the same log untouched, grown by rows that nobody signed yet, and with its covers waiting."""
    dice = random.Random(SEED)
    original = honest(dice)
    assert original.findings() == set()
    known = original.copy()
    known.keys = (known.vkey,)
    assert known.findings() == set()
    missed: list[tuple[str, int]] = []
    for number in range(COUNT):
        log = original.copy()
        mutation = dice.choice(ROWS if dice.random() < 0.75 else PROOFS)
        mutation(log, dice)
        depth = dice.randrange(5) if mutation in ROWS else 0
        if mutation is empty_by_hand and dice.random() < 0.5:
            depth = 0
        repair(log, depth)
        if not log.findings():
            missed.append((mutation.__name__, depth))
        if number % 50 == 0:
            assert original.findings() == set()
    assert missed == []


def test_AU07_what_is_allowed_is_no_alarm() -> None:
    """A newer format, a log that grew since the last signature, an origin given up after a restore with its link."""
    dice = random.Random(SEED + 1)
    log = honest(dice, 300)
    assert log.findings() == set()
    log.head = Head(NAME, log.vkey, 30, log.checkpoints[2][2].hex())
    assert log.findings() == set()
    report = check.check(log.log())
    assert (report.rows, report.opaque, report.emptied, report.checkpoints, report.anchors) == (300, 1, 1, 3, 2)
    assert report.erased >= 5


# --- an export --------------------------------------------------------------------------------------------------------


class Taken:
    """An export in a folder, and its parts in memory. The forger here even holds the log's key; what they do not hold is the
    signed checkpoint of another tree."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder, source = folder, honest(dice)
        rows, tiles = source.rows, source.tiles
        read: merkle.Read = lambda level, position: tiles[level, position]  # noqa: E731
        for row in rows:
            if row.leaf_version != 1:
                row.leaf_version = 1
        rows[20].detail = {"facts": "", "facts_no": 4, "revocation_id": "r1"}
        facts = {"id": "r1", "number": "R-1", "lines": [{"position": 0, "contract": "LOCAL_DEAD"}]}
        rows[20].detail["facts"] = hashlib.sha256(verify.canonical(facts)).hexdigest()
        for row in rows:
            row.leaf_hash = leaf.leaf_hash(row)
        tiles.update(tiles_of([row.leaf_hash for row in rows]))
        shown = [row for row in rows if row.leaf_index in {18, 19, 20, 21}]
        self.lines = [
            {"index": row.leaf_index, "leaf": leaf.encode(row).decode(), "body": leaf.canonical(leaf.body(row)).decode(),
             "proof": [h.hex() for h in merkle.inclusion(read, row.leaf_index, 30)]}
            for row in shown
        ]  # fmt: skip
        self.pack = {"not_cut": [], "facts": facts}
        self.checkpoint = signed(tiles, 30, 0)[1]
        self.older = signed(tiles, 16, 0)
        self.consistency = [{"from": 16, "to": 30, "hashes": [h.hex() for h in merkle.consistency(read, 16, 30)]}]

    def write(
        self, *, who: int = 0, repair: bool = True, after: Callable[[dict[str, bytes]], object] | None = None
    ) -> None:
        """Write it, manifest and all. who: whose key signs the manifest."""
        files = {
            "checkpoint.txt": self.checkpoint.encode(), "pack.json": json.dumps(self.pack).encode(), "pack.html": b"<p>page",
            "leaves.jsonl": b"".join(verify.canonical(line) + b"\n" for line in self.lines),
        }  # fmt: skip
        public, sign = key(who)
        manifest = json.dumps({
            "format": verify.FORMAT, "kind": "receipt", "vkey": note.vkey(NAME, public), "anchors": {}, "consistency": self.consistency,
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }).encode()  # fmt: skip
        text = f"sekisho-export\n{hashlib.sha256(manifest).hexdigest()}\n"
        files |= {"manifest.json": manifest, "manifest.note": note.signed(text, NAME, public, sign).encode()}
        if after is not None:
            after(files)
        for name in {file.name for file in self.folder.iterdir()} - set(files):
            (self.folder / name).unlink()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)


def spoil_line(taken: Taken, dice: random.Random) -> None:
    """One character of a leaf or a body, one bit of a proof, another place."""
    line = dice.choice(taken.lines)
    name = dice.choice(["leaf", "body", "index", "proof"])
    if name == "index":
        line["index"] = dice.choice([n for n in range(-1, 36) if n != line["index"]])
    elif name == "proof":
        path = line["proof"]
        at = dice.randrange(len(path))
        path[at] = (
            hashlib.sha256(path[at].encode()).hexdigest()
            if dice.random() < 0.5
            else path[at][:-1] + "0f"[path[at][-1] == "0"]
        )
    else:
        text = line[name]
        at = dice.randrange(len(text))
        line[name] = text[:at] + chr(ord(text[at]) ^ 1 << dice.randrange(5)) + text[at + 1 :]


def cross_lines(taken: Taken, dice: random.Random) -> None:
    """Proofs, bodies or places of two rows exchanged."""
    one, two = dice.sample(taken.lines, 2)
    name = dice.choice(["proof", "body", "index", "leaf"])
    one[name], two[name] = two[name], one[name]


def spoil_facts(taken: Taken, dice: random.Random) -> None:
    facts = taken.pack["facts"]
    assert isinstance(facts, dict)
    dice.choice([
        lambda: facts.update(number="R-2"), lambda: facts.update(id="r2"), facts["lines"].clear,
        lambda: facts["lines"][0].update(contract="VERIFIED"), lambda: facts.update(extra=1),
    ])()  # fmt: skip


def lose_newest(taken: Taken, dice: random.Random) -> None:
    taken.lines = [line for line in taken.lines if line["index"] != 20]


def older_checkpoint(taken: Taken, dice: random.Random) -> None:
    taken.checkpoint = taken.older[1]


def spoil_checkpoint(taken: Taken, dice: random.Random) -> None:
    at = dice.randrange(len(taken.checkpoint) - 1)
    taken.checkpoint = taken.checkpoint[:at] + chr(ord(taken.checkpoint[at]) ^ 1) + taken.checkpoint[at + 1 :]


def spoil_consistency(taken: Taken, dice: random.Random) -> None:
    hashes = taken.consistency[0]["hashes"]
    assert isinstance(hashes, list)
    at = dice.randrange(len(hashes))
    dice.choice([
        lambda: hashes.pop(at), lambda: hashes.insert(at, hashes[at]), lambda: hashes.__setitem__(at, "00" * 32), hashes.reverse,
    ])()  # fmt: skip


def test_AU07_every_mutation_of_an_export_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the manifest signed again by the log's own key the tree still finds it; any byte of any file without that; another
    key everywhere. An anchor of the same log agrees with the untouched one every time."""
    monkeypatch.setattr(
        verify, "ed25519_ok", functools.lru_cache(4096)(verify.ed25519_ok)
    )  # the same answers, once each
    dice = random.Random(SEED + 2)
    original = Taken(tmp_path, dice)
    vkey, anchor = note.vkey(NAME, key(0)[0]), original.older[1]

    def found(*anchors: str) -> bool:
        try:
            return verify.check(tmp_path, vkey, anchors) != 0
        except (verify.Wrong, OSError, KeyError, TypeError, AttributeError, ValueError):
            return True

    def flip(files: dict[str, bytes]) -> None:
        name = dice.choice(sorted(files))
        content = bytearray(files[name])
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        files[name] = bytes(content)

    def lose(files: dict[str, bytes]) -> None:
        del files[dice.choice(sorted(files))]

    def add(files: dict[str, bytes]) -> None:
        files["more.txt"] = b"x"

    deep = [
        spoil_line,
        spoil_line,
        spoil_line,
        cross_lines,
        spoil_facts,
        lose_newest,
        older_checkpoint,
        spoil_checkpoint,
        spoil_consistency,
    ]
    missed = []
    for number in range(COUNT):
        taken = copy.deepcopy(original)
        if dice.random() < 0.6:
            mutation = dice.choice(deep)
            mutation(taken, dice)
            if (taken.lines, taken.pack, taken.checkpoint, taken.consistency) == (
                original.lines, original.pack, original.checkpoint, original.consistency
            ):  # fmt: skip
                continue  # two rows had the same part
            taken.write()
            name = mutation.__name__
        else:
            last = dice.choice([flip, flip, flip, lose, add])
            taken.write(who=dice.choice([0, 0, 1]), after=last)
            name = last.__name__
        if not found(anchor):
            missed.append(name)
        if number % 25 == 0:
            original.write()
            assert not found(anchor)
            assert not found()
    assert missed == []
