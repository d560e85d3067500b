"""監査エクスポートの検証 / Checks an export of the Sekisho audit log. Python 3.9 or newer, standard library only, offline.

    python3 verify.py [--key KEY] [--anchor FILE]... [FOLDER-OR-ZIP]

Without a path it checks the folder in which it lies. KEY is the log's verifier key (`name+hash+base64`), or a file with it,
which you got some other way than with this export: without it nothing outside the export says who signed. An anchor is a
checkpoint that lay in another place, beyond the reach of whoever keeps the log.

Exit status: 0 verified · 1 something is wrong · 2 not readable as an export · 3 sound in itself, but no key or anchor from
outside was given, or an anchor could not be compared.

Format: FORMAT.md. RFC 9162 (tree), C2SP signed-note and tlog-checkpoint, RFC 8032 (Ed25519), RFC 8785 (canonical JSON).
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

Check = Callable[[bytes, bytes], bool]
Say = Callable[[str, str], object]
Point = tuple[int, int, int, int]

FORMAT = "sekisho-evidence-1"
VERSION = 1


class Wrong(Exception):
    """What was found, in Japanese and English."""

    def __init__(self, japanese: str, english: str) -> None:
        super().__init__(f"{japanese} / {english}")


# --- Ed25519, RFC 8032 5.1. Slow and not constant-time, which verification of public data does not need -----------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def _recover_x(y: int, sign: int) -> Optional[int]:
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT % P
    if (x * x - x2) % P:
        return None
    return P - x if x & 1 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = _recover_x(BASE_Y, 0) or 0
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n: int, p: Point) -> Point:
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = _add(q, p)
        p = _add(p, p)
        n >>= 1
    return q


def _point(data: bytes) -> Optional[Point]:
    number = int.from_bytes(data, "little")
    y = number & (1 << 255) - 1
    x = _recover_x(y, number >> 255)
    return None if x is None else (x, y, 1, x * y % P)


def ed25519_ok(public: bytes, signature: bytes, message: bytes) -> bool:
    """RFC 8032 5.1.7, with S < L enforced. public: 32 bytes; signature: 64 bytes."""
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = _times(s, BASE), _add(r, _times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# --- signed notes and checkpoints, C2SP -------------------------------------------------------------------------------


def read_key(text: str) -> tuple[str, bytes]:
    """Name and public key of `name+hash+base64`. Raises Wrong."""
    try:
        name, digest, encoded = text.strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        good = raw[:1] == b"\x01" and len(raw) == 33
        if not good or hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() != digest:
            raise ValueError
    except ValueError:
        raise Wrong("検証鍵の形が正しくありません", "the verifier key is not well formed") from None
    return name, raw[1:]


def open_note(note: str, vkey: str, check: Optional[Check] = None) -> str:
    """The text of a signed note, when the signature of this key is good. check: another Ed25519 than ours. Raises Wrong."""
    name, public = read_key(vkey)
    text, blank, lines = note.rpartition("\n\n")
    if not blank or "\r" in note or not lines.endswith("\n"):
        raise Wrong("署名つきの文の形が正しくありません", "not a signed note")
    text += "\n"
    wanted = hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]
    for line in lines.splitlines():
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "\u2014":
            raise Wrong("署名の行の形が正しくありません", "not a signature line")
        if parts[1] != name:
            continue
        try:
            raw = base64.b64decode(parts[2], validate=True)
        except ValueError:
            raise Wrong("署名の行の形が正しくありません", "not a signature line") from None
        if raw[:4] == wanted:
            good = check(raw[4:], text.encode()) if check else ed25519_ok(public, raw[4:], text.encode())
            if good:
                return text
            raise Wrong("署名が正しくありません", f"the signature of {name} is wrong")
    raise Wrong("この鍵の署名がありません", f"not signed by {name}")


def open_checkpoint(note: str, vkey: str, check: Optional[Check] = None) -> tuple[int, bytes]:
    """(size, root) of a signed checkpoint whose origin is the key's name. Raises Wrong."""
    lines = open_note(note, vkey, check).splitlines()
    try:
        if len(lines) < 3 or lines[0] != read_key(vkey)[0] or str(int(lines[1])) != lines[1] or lines[1][0] == "-":
            raise ValueError
        root = base64.b64decode(lines[2], validate=True)
        if len(root) != 32:
            raise ValueError
    except ValueError:
        raise Wrong("チェックポイントの形が正しくありません", "not a checkpoint of this log") from None
    return int(lines[1]), root


# --- the tree, RFC 9162 -----------------------------------------------------------------------------------------------


def leaf_hash(data: bytes) -> bytes:
    """RFC 9162 2.1.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162 2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def inclusion_ok(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 2.1.3.2."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def consistency_ok(first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]) -> bool:
    """RFC 9162 2.1.4.2, with the trivial cases 0 and equal."""
    if first == second:
        return first_root == second_root and not path
    if first == 0:
        return first_root == hashlib.sha256(b"").digest() and not path
    if not 0 < first < second or not path:
        return False
    if first & (first - 1) == 0:
        path = [first_root, *path]
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == first_root and sr == second_root


class Frontier:
    """The roots of the complete subtrees of the first `size` leaves, largest first: appending needs nothing else."""

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if bin(size).count("1") != len(roots):
            raise Wrong("木の縁が大きさと合いません", "the frontier does not fit its size")
        self.size, self.roots = size, list(roots)

    def append(self, leaf: bytes) -> None:
        """One more leaf hash."""
        self.size += 1
        at, size = leaf, self.size
        while size & 1 == 0:
            at, size = node_hash(self.roots.pop(), at), size >> 1
        self.roots.append(at)

    def root(self) -> bytes:
        """The root of the tree so far."""
        if not self.roots:
            return hashlib.sha256(b"").digest()
        at = self.roots[-1]
        for left in self.roots[-2::-1]:
            at = node_hash(left, at)
        return at


# --- leaves -----------------------------------------------------------------------------------------------------------

LEAF_KEYS = {"v", "id", "at", "tag", "company", "body", "personal"}


def canonical(data: Any) -> bytes:
    """RFC 8785 for what the log holds."""
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace")


def read_leaf(entry: dict[str, Any]) -> tuple[bytes, Optional[dict[str, Any]], Optional[dict[str, Any]]]:
    """(leaf hash, head, body) of one line of leaves.jsonl. Head and body are None for a version that is newer than this file,
    body also where it is not shown. Raises Wrong."""
    where = f"#{entry.get('index')}"
    text = entry.get("leaf")
    if not isinstance(text, str) or set(entry) - {"index", "leaf", "body", "proof"}:
        raise Wrong(f"行 {where} の形が正しくありません", f"row {where} is not well formed")
    try:
        head = json.loads(text)
        good = isinstance(head, dict) and canonical(head) == text.encode() and type(head.get("v")) is int
    except ValueError:
        good = False
    if not good:
        raise Wrong(f"行 {where} の形が正しくありません", f"row {where} is not canonical")
    hashed = leaf_hash(text.encode())
    if head["v"] > VERSION:
        return hashed, None, None
    if set(head) != LEAF_KEYS:
        raise Wrong(f"行 {where} の形が正しくありません", f"row {where} is not a leaf of version 1")
    body = entry.get("body")
    if body is None:
        return hashed, head, None
    if hashlib.sha256(body.encode()).hexdigest() != head["body"]:
        raise Wrong(f"行 {where} の内容が書きかえられています", f"the body of row {where} was changed")
    return hashed, head, json.loads(body)


# --- an export --------------------------------------------------------------------------------------------------------


class Export:
    """A folder or a zip file, read only."""

    def __init__(self, path: Any) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.names = {str(f.relative_to(self.path)).replace("\\", "/") for f in self.path.rglob("*") if f.is_file()}
            self.read: Callable[[str], bytes] = lambda name: (self.path / name).read_bytes()
        else:
            self.zip = zipfile.ZipFile(self.path)
            listed = self.zip.namelist()
            if len(listed) != len(set(listed)):
                raise Wrong("同じ名前のファイルが二つあります", "two files have the same name")
            self.names, self.read = set(listed), self.zip.read


def _manifest(export: Export, key: Optional[str]) -> tuple[dict[str, Any], str]:
    raw = export.read("manifest.json")
    manifest = json.loads(raw)
    if manifest.get("format") != FORMAT:
        raise Wrong("この検証プログラムより新しい形式です", f"format {manifest.get('format')!r} is not {FORMAT}")
    vkey = key or manifest["vkey"]
    if key and manifest["vkey"].strip() != key.strip():
        raise Wrong("書き出しの鍵が、渡された鍵と違います", "the export names another key than the one given")
    text = open_note(export.read("manifest.note").decode(), vkey)
    if text != f"sekisho-export\n{hashlib.sha256(raw).hexdigest()}\n":
        raise Wrong("目録が書きかえられています", "manifest.json was changed")
    files = manifest["files"]
    left = export.names - {"manifest.json", "manifest.note"}
    left = {n for n in left if not n.startswith("__pycache__/")}
    if left != set(files):
        raise Wrong("ファイルが足りないか、余分です", f"files differ from the manifest: {sorted(left ^ set(files))}")
    for name, digest in sorted(files.items()):
        if hashlib.sha256(export.read(name)).hexdigest() != digest:
            raise Wrong(f"{name} が書きかえられています", f"{name} was changed")
    return manifest, vkey


def _lines(export: Export, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export.read(name).decode().splitlines()]


def _hashes(items: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(item) for item in items]


def _check_receipt(export: Export, size: int, root: bytes, say: Say) -> None:
    """Rows with a path each, and a pack whose facts are those of the newest row that speaks of them."""
    newest: Optional[tuple[int, dict[str, Any]]] = None
    rows = 0
    for entry in _lines(export, "leaves.jsonl"):
        hashed, _, body = read_leaf(entry)
        if not inclusion_ok(hashed, entry["index"], size, _hashes(entry["proof"]), root):
            raise Wrong(f"行 #{entry['index']} は木の中にありません", f"row #{entry['index']} is not in the tree")
        rows += 1
        if (
            body
            and "facts" in body["detail"]
            and (newest is None or body["detail"]["facts_no"] > newest[1]["facts_no"])
        ):
            newest = (entry["index"], body["detail"])
    pack = json.loads(export.read("pack.json"))
    facts = hashlib.sha256(canonical(pack["facts"])).hexdigest()
    if newest is None or newest[1]["facts"] != facts or newest[1]["revocation_id"] != pack["facts"]["id"]:
        raise Wrong("受領書の内容が、ログの最後の記録と違います", "the receipt is not what the log last recorded")
    say(f"受領書 {pack['facts']['number']} は、ログの行 #{newest[0]} が記録した内容です",
        f"receipt {pack['facts']['number']} is what row #{newest[0]} recorded; {rows} rows are in the tree")  # fmt: skip
    for line in pack["not_cut"]:
        say(f"切れていない: {line['text_ja']}", f"NOT CUT: {line['text_en']}")


def _check_period(export: Export, manifest: dict[str, Any], vkey: str, say: Say) -> tuple[int, bytes]:
    """Every leaf between two checkpoints, in order: the population is complete because the second root needs each of them."""
    first_size, first_root = open_checkpoint(export.read("first-checkpoint.txt").decode(), vkey)
    second_size, second_root = open_checkpoint(export.read("second-checkpoint.txt").decode(), vkey)
    tree = Frontier(first_size, _hashes(manifest["frontier"]))
    if tree.root() != first_root:
        raise Wrong("最初のチェックポイントと合いません", "the rows do not begin at the first checkpoint")
    covers = [read_cover(export, entry, manifest) for entry in _lines(export, "covers.jsonl")]
    scope, count, opaque, emptied = manifest["company_id"], 0, 0, 0
    for entry in _lines(export, "leaves.jsonl"):
        hashed, head, _ = read_leaf(entry)
        if entry["index"] != tree.size:
            raise Wrong(f"行 #{tree.size} がありません", f"row #{tree.size} is missing")
        tree.append(hashed)
        count += 1
        if head is None:
            opaque += 1
        elif entry["body"] is None and (scope is None or head["company"] == scope):
            if not any(tag == head["tag"] and head["at"] < before for tag, before in covers):
                raise Wrong(
                    f"行 #{entry['index']} の内容が抜かれています", f"the body of row #{entry['index']} was taken out"
                )
            emptied += 1
    if tree.size != second_size or tree.root() != second_root:
        raise Wrong("二つめのチェックポイントと合いません", "the rows do not end at the second checkpoint")
    if count != manifest["rows"]:
        raise Wrong("行の数が目録と違います", "the number of rows differs from the manifest")
    say(f"母集団は完全です: 行 #{first_size}〜#{second_size - 1} の {count} 行(新しい形式 {opaque}、保存期限切れ {emptied})",
        f"the population is complete: {count} rows, #{first_size} to #{second_size - 1} ({opaque} of a newer version, {emptied} past retention)")  # fmt: skip
    return second_size, second_root


def read_cover(export: Export, entry: dict[str, Any], manifest: dict[str, Any]) -> tuple[str, str]:
    """(tag, before) of a sealed row that says that bodies of a tag were emptied. Raises Wrong."""
    size, root = open_checkpoint(export.read("checkpoint.txt").decode(), manifest["vkey"])
    hashed, head, body = read_leaf(entry)
    good = inclusion_ok(hashed, entry["index"], size, _hashes(entry["proof"]), root)
    if not good or head is None or body is None or head["tag"] != "audit:retention:ended":
        raise Wrong("保存期限の記録が正しくありません", "a record of retention is not in the tree")
    return (body["detail"]["tag"], body["detail"]["before"]) if body["detail"]["part"] == "body" else ("", "")


def check(path: Any, key: Optional[str] = None, anchors: Sequence[str] = (), say: Optional[Say] = None) -> int:
    """Check an export. key: verifier key text; anchors: signed checkpoints as text. Returns 0 or 3. Raises Wrong."""
    say = say or (lambda _japanese, _english: None)
    export = Export(path)
    manifest, vkey = _manifest(export, key)
    size, root = open_checkpoint(export.read("checkpoint.txt").decode(), vkey)
    say(f"チェックポイント: {size} 行、署名は正しい({read_key(vkey)[0]})",
        f"checkpoint of {size} rows, well signed by {read_key(vkey)[0]}")  # fmt: skip
    proofs = {(p["from"], p["to"]): _hashes(p["hashes"]) for p in manifest["consistency"]}
    if manifest["kind"] == "receipt":
        _check_receipt(export, size, root, say)
    else:
        second = _check_period(export, manifest, vkey, say)
        if not consistency_ok(second[0], second[1], size, root, proofs.get((second[0], size), [])):
            raise Wrong("二つのチェックポイントがつながりません", "the checkpoints do not belong to one tree")
    outside = key is not None
    for note in anchors:
        at, anchored = open_checkpoint(note, vkey)
        path_to: Optional[list[bytes]] = proofs.get((at, size))
        if at == size and anchored == root:
            path_to = []
        if path_to is None:
            say(
                f"行数 {at} のアンカーと比べる証明がありません",
                f"no proof to compare the anchor of {at} rows with; ask for one",
            )
            outside = False
            break
        if not consistency_ok(at, anchored, size, root, path_to):
            raise Wrong(f"行数 {at} のアンカーと合いません", f"the log contradicts the anchor of {at} rows")
        say(f"行数 {at} のアンカーと合います", f"agrees with the anchor of {at} rows")
        outside = True
    for place, when in manifest["anchors"].items():
        say(f"最後のアンカー {place}: {when or 'なし'}", f"last anchor at {place}: {when or 'never'}")
    return 0 if outside else 3


def main(arguments: Sequence[str]) -> int:
    """The command."""
    key: Optional[str] = None
    path: Optional[str] = None
    anchors: list[str] = []
    words = list(arguments)
    try:
        while words:
            word = words.pop(0)
            if word in {"-h", "--help"}:
                print(__doc__)
                return 0
            if word == "--key":
                key = words.pop(0)
                key = Path(key).read_text() if Path(key).is_file() else key
            elif word == "--anchor":
                anchors.append(Path(words.pop(0)).read_text())
            elif path is None and not word.startswith("-"):
                path = word
            else:
                raise IndexError
        status = check(path or Path(__file__).resolve().parent, key, anchors, lambda ja, en: print(f"  {ja}\n    {en}"))
    except Wrong as wrong:
        print(f"検証できません / FAILED: {wrong}")
        return 1
    except (IndexError, OSError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
        print(f"読めません / NOT READABLE: {type(error).__name__}: {error}")
        return 2
    if status:
        print("内部の矛盾はありません。ただし、外から得た鍵やアンカーとは比べていません。")
        print("SOUND IN ITSELF, but compared with no key or anchor from outside (--key, --anchor).")
        return 3
    print("検証できました / VERIFIED")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
