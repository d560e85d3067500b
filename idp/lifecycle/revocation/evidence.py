"""The evidence pack of one revocation: a zip file with facts, names, page, rows of the log with their proofs (AU-20).

What was *not* cut stands first, in the page and in the data. The facts are those whose digest the newest sealed row about this
revocation carries; a pack is refused while that row still waits for the seal, because it could prove nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core.errors import Conflict
from idp.core.logkey import LogKey
from idp.core.settings import Settings
from idp.domain.applications.models import Application
from idp.domain.directory.models import Account
from idp.ledgers.audit import bundle, merkle, store
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation import facts, labels
from idp.lifecycle.revocation.receipt import Receipt

TOKYO = ZoneInfo("Asia/Tokyo")
#: the rows that carry facts
TAGS = (
    Tag.REVOKED, Tag.CUT_ATTEMPTED, Tag.CUT_CLOSED, Tag.CUT_NEEDS_PERSON, Tag.CUT_ATTESTED, Tag.CUT_IMPOSSIBLE, Tag.RECEIPT_SEALED,
    Tag.RECEIPT_REOPENED,
)  # fmt: skip


def write(
    file: IO[bytes], session: Session, receipt: Receipt, key: LogKey, settings: Settings, *, now: datetime
) -> None:
    """Write the pack of a receipt that the caller may see. Raises Conflict while its newest row is not sealed."""
    at = bundle.sealed(session)
    found = facts.of(session, receipt.revocation.id)
    rows = _rows(session, receipt, at.checkpoint.size, facts.digest(found))
    manifest = bundle.manifest(
        session, at, kind="receipt", issuer=settings.issuer, places=settings.anchor_places, now=now
    )
    pack = _pack(session, receipt, found, manifest)
    read = store.reader(session)
    made = bundle.Bundle(file)
    made.text("checkpoint.txt", at.checkpoint.note)
    made.text("pack.json", json.dumps(pack, ensure_ascii=False, indent=1))
    made.text("pack.html", page(pack, settings.template_folder))
    made.lines("leaves.jsonl", (
        bundle.line(row, path=merkle.inclusion(read, row.leaf_index or 0, at.checkpoint.size)) for row in rows
    ))  # fmt: skip
    made.close(manifest, key, at.origin.name)


def _rows(session: Session, receipt: Receipt, size: int, digest: str) -> Sequence[AuditEvent]:
    """Every row about the revocation, by place; the one with the largest `facts_no` carries the facts as they are."""
    about = session.scalars(
        select(AuditEvent)
        .where(
            AuditEvent.subject_id == receipt.account.id,
            AuditEvent.tag.in_([tag.value for tag in TAGS]),
            AuditEvent.created_at >= receipt.revocation.t0,
        )
        .order_by(AuditEvent.leaf_index)
    )
    mine = str(receipt.revocation.id)
    rows = [row for row in about if row.detail.get("revocation_id") == mine]
    waiting = [row for row in rows if row.leaf_index is None or row.leaf_index >= size]
    if waiting or not rows:
        raise Conflict("この切断の記録は、まだ封印されていません。数秒後にもう一度試してください。", f"receipt {mine}")
    if digest not in {row.detail.get("facts") for row in rows}:
        raise Conflict(
            "この切断は、封印が始まる前の版で記録されました。証拠パックは作れません。",
            f"receipt {mine}: no row has its facts",
        )
    return rows


def _pack(session: Session, receipt: Receipt, found: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """Facts, then what people call them. The names are the directory's of today, and no row proves them."""
    applications = {line["application"] for line in found["lines"] if line["application"]}
    people = {line["closed_by"] for line in found["lines"] if line["closed_by"]} | {found["requested_by"]}
    called = _names(session, Application, applications)
    names = {
        "company": {"code": receipt.company.code, "name": receipt.company.name},
        "store": {"code": receipt.store.code, "name": receipt.store.name} if receipt.store else None,
        "person": {"login_name": receipt.account.login_name, "name": receipt.account.name},
        "applications": called,
        "people": _names(session, Account, people),
        "notes": {str(line.cut.position): line.cut.close_note for line in receipt.lines if line.cut.close_note},
    }
    lines = [_shown(line, called) for line in found["lines"]]
    order = {"IMPOSSIBLE": 0, "UNCONFIRMED": 1, "MANUAL": 2, "RESIDUAL": 3}
    not_cut = [
        line
        for fact, line in zip(found["lines"], lines, strict=True)
        if fact["open"] or line["contract"] not in labels.GONE
    ]
    return {
        "not_cut": sorted(not_cut, key=lambda line: (order.get(line["contract"], 4), line["position"])),
        "everything_cut": not not_cut, "facts": found, "names": names, "lines": lines, "anchors": manifest["anchors"],
        "made_at": manifest["made_at"], "issuer": manifest["issuer"], "software": manifest["software"],
    }  # fmt: skip


def _names(session: Session, table: type[Application | Account], wanted: set[str | None]) -> dict[str, str]:
    known = [uuid.UUID(value) for value in wanted if value]
    rows = session.execute(select(table.id, table.name).where(table.id.in_(known))).all() if known else []
    return {str(row.id): row.name for row in rows}


def _shown(line: dict[str, Any], applications: dict[str, str]) -> dict[str, Any]:
    """One line in words. method: how it was ended; sent, acknowledged, verified: when, if ever."""
    kind, state = labels.of(labels.KIND, line["kind"]), labels.of(labels.CONTRACT, line["contract"])
    where = applications.get(line["application"] or "", "")
    at = {proof["kind"]: proof["at"] for proof in line["evidence"]}
    tries = [proof["at"] for proof in line["evidence"] if proof["kind"].startswith("attempt_")]
    until = f" {line['residual_until']}" if line["contract"] == "RESIDUAL" else ""
    return {
        "position": line["position"], "contract": line["contract"], "kind_ja": kind.ja, "kind_en": kind.en, "application": where,
        "text_ja": f"{where + ':' if where else ''}{kind.ja} — {state.ja}{until}",
        "text_en": f"{where + ': ' if where else ''}{kind.en} — {state.en}{until}",
        "state_ja": state.ja, "state_en": state.en, "count": line["count"], "sent_at": min(tries, default=None),
        "attempts": len(tries), "acknowledged_at": at.get("attempt_acknowledged"), "verified_at": at.get("attempt_verified", at.get("probe_refused")),
        "local_at": at.get("ended_in_revocation"), "residual_until": line["residual_until"], "done_at": line["done_at"],
        "owner": line["closed_by"], "deadline_at": line["deadline_at"] if line["open"] else None,
    }  # fmt: skip


def page(pack: dict[str, Any], templates: Path) -> str:
    """The pack as a page that stands alone, in both languages."""
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    reason, scope = labels.of(labels.REASON, pack["facts"]["reason"]), labels.of(labels.SCOPE, pack["facts"]["scope"])
    return environment.get_template("evidence/pack.html").render(
        pack=pack, facts=pack["facts"], reason=reason, scope=scope, tokyo=_tokyo
    )


def _tokyo(at: str) -> str:
    """2026-12-01 12:00:00 of an instant as the log writes it."""
    return datetime.fromisoformat(at).astimezone(TOKYO).strftime("%Y-%m-%d %H:%M:%S")
