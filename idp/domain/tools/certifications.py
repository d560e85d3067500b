"""Certifications in the database: what the checks of a recipe found at one tool account, for 90 days (VA-41)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from connectors.certify.model import Certification as Found
from connectors.certify.model import Outcome
from idp.core import ids
from idp.domain.tools.models import Certification, ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record


def store(session: Session, tool_account_id: uuid.UUID, found: Found, *, actor: Actor, now: datetime) -> Certification:
    """Keep the result, passed or failed: the newest run holds, so one that fails closes the gateway lane of this account."""
    account = session.get_one(ToolAccount, tool_account_id)
    row = Certification(
        id=ids.new_id(now), created_at=now, company_id=account.company_id, tool_account_id=account.id, recipe_digest=found.recipe_digest,
        result="passed" if found.certified else "failed", checks=checks_of(found), evidence_digest=found.evidence_digest,
        run_at=_instant(found.run_at), expires_at=_instant(found.expires_at),
    )  # fmt: skip
    session.add(row)
    session.flush()
    record(
        session, Tag.CERTIFICATION_RUN, actor=actor, now=now, result="ok" if found.certified else "refused", company_id=account.company_id,
        store_id=account.store_id, application_id=account.application_id, tool_account_id=account.id, certification_id=row.id,
        digest=found.recipe_digest, refused_for=list(found.refused_for) or None, evidence=found.evidence_digest,
    )  # fmt: skip
    return row


def checks_of(found: Found) -> list[dict[str, Any]]:
    """The checks as the page and the table have them: outcomes, codes, digests of the evidence, never a value of a field."""
    rows: list[dict[str, Any]] = [
        {"check": check.name, "outcome": check.outcome.value, "detail": check.code, "evidence": check.digest}
        for check in found.checks
    ]
    rows += [
        {"check": "guarded", "outcome": Outcome.FAILED.value, "detail": "too_short_to_guard", "field": name}
        for name in found.unguarded
    ]
    return rows


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
