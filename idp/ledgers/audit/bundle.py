"""Exports: a zip file with the data, the checkpoint, the proofs, `verify.py`, and the note of the format (AU-07).

The manifest names every file by its SHA-256 and is itself signed by the log key, so that whatever is changed on the way is found
before anything is believed. Rows are written one by one; an export of millions takes no more memory than one of ten.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from idp import __version__
from idp.core.errors import Conflict
from idp.core.logkey import LogKey
from idp.core.settings import PROJECT_ROOT
from idp.ledgers.audit import leaf, merkle, note, store, verify
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditAnchor, AuditCheckpoint, AuditEvent, AuditOrigin

#: proofs to this many anchored checkpoints travel with an export; for others there is `sekisho audit consistency`
ANCHORS = 200
#: how an export is named in the signed note under its manifest; no checkpoint begins so
NOTE = "sekisho-export"


class Bundle:
    """A zip file that is being written. `close` writes the manifest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._files: dict[str, str] = {}
        self.lines(name="verify.py", lines=[Path(verify.__file__).read_bytes()])
        self.lines(name="FORMAT.md", lines=[_format_note()])

    def text(self, name: str, content: str) -> None:
        """A small file."""
        self.lines(name, [content.encode()])

    def lines(self, name: str, lines: Iterable[bytes]) -> int:
        """A file of any size, in pieces. Returns the number of pieces."""
        digest, count = hashlib.sha256(), 0
        with self._zip.open(name, "w", force_zip64=True) as target:
            for line in lines:
                digest.update(line)
                target.write(line)
                count += 1
        self._files[name] = digest.hexdigest()
        return count

    def close(self, manifest: dict[str, Any], key: LogKey, origin: str) -> None:
        """Write and sign the manifest."""
        raw = json.dumps({**manifest, "files": self._files}, ensure_ascii=False, indent=1, sort_keys=True).encode()
        self._zip.writestr("manifest.json", raw)
        digest = hashlib.sha256(raw).hexdigest()
        self._zip.writestr("manifest.note", note.signed(f"{NOTE}\n{digest}\n", origin, key.public, key.sign))
        self._zip.close()


def _format_note() -> bytes:
    """docs/protocols/evidence.md, of a wheel or of a clone."""
    packaged = Path(__file__).resolve().parents[2] / "_evidence.md"
    return (packaged if packaged.exists() else PROJECT_ROOT / "docs" / "protocols" / "evidence.md").read_bytes()


@dataclass(frozen=True)
class Sealed:
    """The state of the log that an export speaks of: origin and newest checkpoint."""

    origin: AuditOrigin
    checkpoint: AuditCheckpoint


def sealed(session: Session) -> Sealed:
    """Raises Conflict while nothing was sealed yet."""
    origin, checkpoint = store.origin(session), store.latest(session)
    if origin is None or checkpoint is None:
        raise Conflict("監査ログは、まだ封印されていません。workerが動いているか確かめてください。", "no checkpoint")
    return Sealed(origin, checkpoint)


def manifest(
    session: Session, at: Sealed, *, kind: str, issuer: str, places: list[str], now: datetime
) -> dict[str, Any]:
    """What every export says of itself, and how it joins the checkpoints that lie elsewhere."""
    read, size = store.reader(session), at.checkpoint.size
    anchored = session.scalars(
        select(AuditAnchor.size)
        .join(AuditCheckpoint, AuditCheckpoint.id == AuditAnchor.checkpoint_id)
        .where(AuditCheckpoint.origin_id == at.origin.id, AuditAnchor.size <= size)
        .group_by(AuditAnchor.size)
        .order_by(AuditAnchor.size.desc())
        .limit(ANCHORS)
    ).all()
    last = store.last_anchors(session, places)
    return {
        "format": verify.FORMAT, "kind": kind, "made_at": leaf.instant(now), "issuer": issuer, "software": f"sekisho {__version__}",
        "origin": at.origin.name, "vkey": at.origin.vkey,
        "origins": [
            {"name": o.name, "vkey": o.vkey, "began_at_size": o.began_at_size, "link": o.link}
            for o in session.scalars(select(AuditOrigin).order_by(AuditOrigin.id))
        ],
        "anchors": {place: leaf.instant(seen[0]) if seen else None for place, seen in last.items()},
        "consistency": [proof(read, first, size) for first in anchored],
    }  # fmt: skip


def proof(read: merkle.Read, first: int, second: int) -> dict[str, Any]:
    """A consistency proof as the manifest holds it."""
    return {"from": first, "to": second, "hashes": [h.hex() for h in merkle.consistency(read, first, second)]}


def line(row: Any, *, body: bool = True, path: list[bytes] | None = None) -> bytes:
    """One row of leaves.jsonl. body: show it, if it is still there. The personal block never leaves: its digest is enough."""
    if row.leaf_version > leaf.VERSION:
        raise Conflict("この版より新しい行があります。Sekishoを更新してください。", f"leaf version {row.leaf_version}")
    entry: dict[str, Any] = {
        "index": row.leaf_index, "leaf": leaf.encode(row).decode(),
        "body": leaf.canonical(leaf.body(row)).decode() if body and row.body_hash is None else None,
    }  # fmt: skip
    if path is not None:
        entry["proof"] = [h.hex() for h in path]
    return leaf.canonical(entry) + b"\n"


# --- a period ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """The checkpoints around a period, and the rows between them."""

    first_size: int
    first_note: str
    second: AuditCheckpoint


def span(session: Session, at: Sealed, *, begins: datetime, ends: datetime, key: LogKey) -> Span:
    """The smallest span between two checkpoints that holds every sealed row of [begins, ends). Raises Conflict when there is
    none, or when rows of the period still wait for the seal.

    Where no checkpoint of this origin lies before the period, the span begins at nothing: a signed checkpoint of size 0.
    """
    within = (AuditEvent.created_at >= begins, AuditEvent.created_at < ends)
    low, high = session.execute(
        select(func.min(AuditEvent.leaf_index), func.max(AuditEvent.leaf_index)).where(*within)
    ).one()
    waiting = session.scalar(select(AuditEvent.id).where(*within, AuditEvent.leaf_index.is_(None)).limit(1))
    if waiting is not None or (high is not None and high >= at.checkpoint.size):
        raise Conflict(
            "この期間の行は、まだすべて封印されていません。数秒後にもう一度試してください。", "unsealed rows"
        )
    if low is None:
        raise Conflict("この期間には、1行もありません。", f"{begins} {ends}")
    mine = AuditCheckpoint.origin_id == at.origin.id
    before = session.scalars(
        select(AuditCheckpoint).where(mine, AuditCheckpoint.size <= low).order_by(AuditCheckpoint.size.desc()).limit(1)
    ).one_or_none()
    after = session.scalars(
        select(AuditCheckpoint).where(mine, AuditCheckpoint.size > high).order_by(AuditCheckpoint.size).limit(1)
    ).one()
    if before is not None:
        return Span(before.size, before.note, after)
    empty = note.checkpoint(at.origin.name, 0, merkle.EMPTY_ROOT)
    return Span(0, note.signed(empty, at.origin.name, key.public, key.sign), after)


def frontier(session: Session, size: int) -> list[bytes]:
    """The roots of the complete subtrees of the first `size` leaves, largest first."""
    return merkle.frontier(store.reader(session), size)


def between(session: Session, first: int, second: int, *, company_id: uuid.UUID | None) -> Iterator[bytes]:
    """The rows of a span, in order. company_id: only this company's bodies are shown; every leaf is."""
    for row in store.rows(session, first, second):
        yield line(row, body=company_id is None or row.company_id == company_id)


def covers(session: Session, at: Sealed) -> Iterator[bytes]:
    """The rows that say that bodies were emptied because their time was over, each with its path (AU-09)."""
    rows = session.scalars(
        select(AuditEvent)
        .where(AuditEvent.tag == Tag.RETENTION_ENDED.value, AuditEvent.leaf_index < at.checkpoint.size)
        .order_by(AuditEvent.leaf_index)
    )
    read = store.reader(session)
    for row in rows:
        if row.leaf_index is not None and row.body_hash is None:
            yield line(row, path=merkle.inclusion(read, row.leaf_index, at.checkpoint.size))
