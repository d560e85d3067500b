"""What a change of password does in a tool, as it was seen (VA-40): measured by our own rotations, never assumed."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import insert_into, run
from idp.domain.tools.models import KillCapability, RecipeText, Tool, ToolAccount


def measured(session: Session, tool_account_id: uuid.UUID, *, change_ends_sessions: str, now: datetime) -> None:
    """A session that was made with the old password was probed after a proven change. The newest measurement holds."""
    row = session.execute(
        select(ToolAccount.application_id, RecipeText.slug, RecipeText.version, RecipeText.digest)
        .join(Tool, Tool.application_id == ToolAccount.application_id)
        .join(RecipeText, RecipeText.id == Tool.recipe_id)
        .where(ToolAccount.id == tool_account_id)
    ).one()
    proof = hashlib.sha256(f"{row.digest} {change_ends_sessions} {now.isoformat()}".encode()).hexdigest()
    facts = {
        "change_by": "form", "change_ends_sessions": change_ends_sessions, "measured_at": now, "proof_digest": proof,
        "tool_version": f"{row.slug} {row.version}"[:100],
    }  # fmt: skip
    statement = insert_into(session, KillCapability).values(
        id=ids.new_id(now), created_at=now, application_id=row.application_id, sign_out_everywhere=False, other_keys=False,
        mails_old_user=False, **facts,
    )  # fmt: skip
    run(session, statement.on_conflict_do_update(index_elements=["application_id"], set_=facts))
