"""What rotations came to: read by a cut that waits for one, by the engine, and by the clock that empties what is discarded.

The story of a rotation is its evidence: what was seen at the tool, in order, without a value.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from connectors.engine.rotation import Event, State
from idp.core.db import change
from idp.domain.credentials.models import CredentialField, CredentialVersion, Rotation, SealedCredential

Evidence = Sequence[dict[str, Any]]
#: how long a discarded version stays sealed: a person may find that it was the right one after all
KEEP_DISCARDED: Final = timedelta(days=30)
#: how many versions are emptied in one transaction
WINDOW: Final = 100


def newest_since(session: Session, tool_account_id: uuid.UUID, *, since: datetime) -> Rotation | None:
    """The newest rotation of an account that began at or after an instant, ended or not.

    Its beginning is when NEW was sealed: whoever left before that can know neither NEW nor its making.
    """
    rows = session.scalars(
        select(Rotation)
        .join(SealedCredential, SealedCredential.id == Rotation.credential_id)
        .where(
            SealedCredential.tool_account_id == tool_account_id, or_(Rotation.ended_at.is_(None), Rotation.ended_at >= since)
        )
        .order_by(Rotation.created_at.desc(), Rotation.id.desc())
    ).all()  # fmt: skip
    return next((row for row in rows if (began_at(row) or row.created_at) >= since or _not_begun(row)), None)


def forms_lost(session: Session, tool_account_id: uuid.UUID, *, since: datetime) -> int:
    """How many rotations from then on came to nothing because the tool never got their form: its answer was lost, and OLD holds."""
    rows = session.scalars(
        select(Rotation)
        .join(SealedCredential, SealedCredential.id == Rotation.credential_id)
        .where(SealedCredential.tool_account_id == tool_account_id, Rotation.created_at >= since, Rotation.ended_at.is_not(None))
    )  # fmt: skip
    return sum(form_was_lost(row) for row in rows)


def form_was_lost(row: Rotation) -> bool:
    """Abandoned with OLD proven after an answer that never came: nothing speaks against another one. A tool that said *changed*
    and kept OLD would do so again."""
    events = [entry.get("event") for entry in row.evidence]
    proven = row.state == State.ABANDONED.value and events[-1:] == [Event.OLD_WORKS.value]
    return proven and Event.SUBMITTED_OK.value not in events


def began_at(row: Rotation) -> datetime | None:
    """When its first NEW was sealed; None before that."""
    first = next((entry for entry in row.evidence if entry.get("event") == Event.SEALED.value), None)
    return datetime.fromisoformat(first["at"]) if first else None


def _not_begun(row: Rotation) -> bool:
    return row.ended_at is None and began_at(row) is None


def was_sent(evidence: Evidence) -> bool:
    """Whether a new password may have left for the tool's form: `submitting` is stored before."""
    return any(entry.get("state") == State.SUBMITTING.value for entry in evidence)


def word_of(evidence: Evidence, name: str) -> str | None:
    """What the last entry that speaks of it says: `old_session`, `old_password`, `new_password`."""
    return next((entry[name] for entry in reversed(evidence) if name in entry), None)


def shred_discarded(session: Session, *, now: datetime) -> int:
    """Discarded versions that no rotation of the last 30 days used: their wrap and their fields go, so nothing opens them.

    Returns how many, at most `WINDOW`.
    """
    before = now - KEEP_DISCARDED
    used = select(Rotation.id).where(
        Rotation.credential_id == CredentialVersion.credential_id,
        or_(Rotation.old_version == CredentialVersion.version, Rotation.new_version == CredentialVersion.version),
        or_(Rotation.ended_at.is_(None), Rotation.ended_at >= before),
    )
    old = (
        select(CredentialVersion.id, CredentialVersion.credential_id, CredentialVersion.version)
        .where(CredentialVersion.state == "discarded", CredentialVersion.created_at < before, ~used.exists())
        .order_by(CredentialVersion.id)
        .limit(WINDOW)
    )
    rows = session.execute(old).all()
    for row in rows:
        change(
            session,
            update(CredentialVersion).where(CredentialVersion.id == row.id).values(state="shredded", wrapped_dek=b""),
        )
        change(
            session,
            update(CredentialField)
            .where(CredentialField.credential_id == row.credential_id, CredentialField.version == row.version)
            .values(sealed=b""),
        )
    return len(rows)
