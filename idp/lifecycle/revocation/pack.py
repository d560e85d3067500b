"""The evidence pack: a receipt as signed JSON that a machine, or an auditor with our public key, can check.

It says what was found, what each line reached, by which evidence, and what was *not* cut. The words `cut` and 遮断 appear only
beside states that allow them (AU-20). The signature is a JWT over the SHA-256 of the canonical form (RFC 8785) of everything
but the signature itself (docs/decisions/0011).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import datetime
from typing import Any

from idp import __version__
from idp.core.keys import Signer
from idp.lifecycle.revocation.models import Evidence
from idp.lifecycle.revocation.receipt import Line, Receipt

FORMAT = "sekisho-receipt-1"
TYP = "sekisho-receipt+jwt"


def build(receipt: Receipt, proofs: dict[uuid.UUID, list[Evidence]], *, issuer: str, now: datetime) -> dict[str, Any]:
    """The pack as plain data, frozen at `now`. Times are ISO 8601 UTC; ids are ours."""
    r = receipt.revocation
    return {
        "format": FORMAT,
        "issuer": issuer,
        "software": f"sekisho {__version__}",
        "frozen_at": _t(now),
        "number": r.number,
        "request": {
            "scope": r.scope_kind, "reason": r.reason, "door": r.door, "actor_kind": r.actor_kind,
            "requested_by": str(r.requested_by) if r.requested_by else None, "requested_at": _t(r.created_at),
        },
        "subject": {
            "company": receipt.company.code, "account": str(receipt.account.id), "login_name": receipt.account.login_name,
            "name": receipt.account.name, "store": receipt.store.code if receipt.store else None,
        },
        "t0": _t(r.t0),
        "completed_at": _t(r.completed_at),
        "verdict": {
            "word": receipt.verdict.word, "lines": receipt.verdict.total, "closed": receipt.verdict.closed,
            "everything_cut": receipt.verdict.everything_cut, "weakest_grade": receipt.verdict.weakest,
        },
        "lines": [_line(line, proofs.get(line.cut.id, [])) for line in receipt.lines],
        "not_cut": [line.cut.position for line in receipt.lines if line.open or line.contract not in {"LOCAL_DEAD", "VERIFIED", "NO_PATH"}],
    }  # fmt: skip


def _line(line: Line, proofs: list[Evidence]) -> dict[str, Any]:
    cut = line.cut
    return {
        "position": cut.position, "kind": cut.kind, "application": line.application_name, "count": cut.count, "state": line.state,
        "contract_state": line.contract, "grade": line.grade, "open": line.open, "residual_until": _t(cut.residual_until),
        "attempts": cut.attempts, "last_error": cut.last_error, "done_at": _t(cut.done_at),
        "closed_by": line.closed_by_name, "note": cut.close_note,
        "evidence": [{"at": _t(e.created_at), "kind": e.kind, "grade": e.grade, "detail": e.detail} for e in proofs],
    }  # fmt: skip


def canonical(data: dict[str, Any]) -> bytes:
    """The bytes that are signed: sorted keys, no spaces, UTF-8 (RFC 8785; the pack holds no floating-point numbers)."""
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def sign(pack: dict[str, Any], signer: Signer, *, now: datetime) -> dict[str, Any]:
    """The pack with its signature: a JWT over the SHA-256 of the canonical bytes, by a key of our published set."""
    digest = hashlib.sha256(canonical(pack)).hexdigest()
    claims = {"iss": pack["issuer"], "iat": int(now.timestamp()), "number": pack["number"], "sha256": digest}
    return {**pack, "signature": signer.sign(claims, typ=TYP, alg="ES256", now=now)}


def check(signed: dict[str, Any], signer: Signer) -> bool:
    """True when the pack is exactly what we signed."""
    body = {name: value for name, value in signed.items() if name != "signature"}
    verified = signer.verify(str(signed.get("signature", "")), typ=TYP)
    return verified is not None and verified[1].get("sha256") == hashlib.sha256(canonical(body)).hexdigest()


def _t(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z") if instant else None
