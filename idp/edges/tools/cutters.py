"""What a cut leaves to do inside tools: our login that was one person's alone, and passwords that the person may know (VA-42).

Neither sends anything: the engine does, by rows, and here the rows are read until they say how it ended. So the worker holds no
password and no jar, and a line never says more than what was seen at the tool.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from connectors.engine.rotation import State
from idp.core.db import reading, transaction
from idp.core.errors import Conflict
from idp.core.settings import Settings
from idp.domain.credentials import rotated, rotations
from idp.domain.credentials.models import Rotation
from idp.domain.credentials.standing import standing
from idp.domain.gateway.models import LoginJob, ToolSession
from idp.domain.tools import recipes
from idp.ledgers.audit.log import SYSTEM
from idp.lifecycle.revocation.cutter import CutOrder, Outcome

#: how soon to look again while the engine works
SOON: Final = timedelta(seconds=2)
#: our own login is logged out within a minute, or never: its job is over then
LATE: Final = timedelta(minutes=3)
#: how many forms a tool may lose until a person is asked, and how long after one the next is sent
LOST_FORMS: Final = 3
AFTER_A_LOST_FORM: Final = timedelta(minutes=5)
#: a rotation that a person ended by saying which password holds
DECIDED: Final = frozenset({"typed_by_person", "person_says_old", "person_says_new"})


class ToolSessionCutter:
    """TOOL_SESSION: the tool's logout was sent for this session, and its probe then refused our jar."""

    def cut(self, order: CutOrder) -> Outcome:
        """One look at the session that the line names."""
        with reading() as session:
            row = session.get(ToolSession, uuid.UUID(order.target))
            if row is None:
                return Outcome("refused", "no_session")
            result = session.scalar(
                select(LoginJob.result)
                .where(LoginJob.tool_session_id == row.id, LoginJob.done_at.is_not(None))
                .order_by(LoginJob.done_at.desc(), LoginJob.id.desc())
                .limit(1)
            )
        facts = {"session": str(row.id), "result": result}
        if row.ended_at is None:
            overdue = order.now - (order.t0 or order.now) >= LATE
            return Outcome("retry" if overdue else "later", "engine_away" if overdue else None, again_at=order.now + SOON, evidence=facts)  # fmt: skip
        word = (result or "").removeprefix("discarded_")
        if word in {"logged_out", "no_jar"} or result in {"ticket_invalid", "obsolete"}:
            # no_jar, ticket_invalid: the cut came before the login, so there never was one
            return Outcome("acknowledged", evidence=facts)
        # the jar is gone with us; whether the tool still believes it nobody can say
        return Outcome("refused", f"logout_{word or 'unknown'}"[:60], evidence=facts)


class ToolPasswordCutter:
    """TOOL_PASSWORD: the password of one account inside a tool was changed after the person left.

    verified: a login with NEW worked, OLD was refused, and so was the session that OLD had made. What was not tried or still
    let somebody in is said, and the line is no more than acknowledged (§9). A rotation closes the lines of everybody who left
    before it began.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def cut(self, order: CutOrder) -> Outcome:
        """One look; the first one plans the rotation."""
        account_id, since = uuid.UUID(order.target), order.t0 or order.now
        with reading() as session:
            row = rotated.newest_since(session, account_id, since=since)
            open_now = rotations.open_of(session, account_id)
            lost = rotated.forms_lost(session, account_id, since=since)
        if row is None and open_now is None:
            return self._plan(account_id, order)
        if row is None and open_now is not None:
            # it began before this person left: they may have seen what it was made from, so another one follows
            return self._waiting(open_now, order)
        assert row is not None  # noqa: S101 - decided above
        if row.ended_at is None:
            return self._waiting(row, order)
        if row.state == State.DONE.value:
            return judge(row)
        facts = {"rotation": str(row.id), "code": row.code}
        if row.code in DECIDED:
            return self._plan(account_id, order)  # a person put it right, and what they said is proven now
        if rotated.form_was_lost(row) and lost < LOST_FORMS:
            again = row.ended_at + AFTER_A_LOST_FORM
            return self._plan(account_id, order) if order.now >= again else Outcome("retry", "form_lost", again_at=again, evidence=facts)  # fmt: skip
        return Outcome("refused", f"not_changed_{row.code or row.state}"[:60], evidence=facts)

    def _plan(self, account_id: uuid.UUID, order: CutOrder) -> Outcome:
        with transaction() as session:
            on = recipes.ground(self._settings, now=order.now)
            found = standing(session, [account_id], on, now=order.now).get(account_id)
            if found is None or found.account.ended_at is not None:
                return Outcome("refused", "no_account")
            if not found.machine_can_change:
                return Outcome("refused", "no_recipe_can")
            if not found.deposited:
                return Outcome("refused", "not_deposited")
            try:
                planned = rotations.plan(session, account_id, trigger="leaver", actor=SYSTEM, now=order.now)
            except Conflict as conflict:
                return Outcome("refused", "cannot_plan", evidence={"why": conflict.private})
            return Outcome("later", again_at=order.now + SOON, memory={"rotation": str(planned.id)})

    def _waiting(self, row: Rotation, order: CutOrder) -> Outcome:
        facts = {"rotation": str(row.id), "state": row.state, "code": row.code}
        if row.state == State.NEEDS_HUMAN.value:
            return Outcome("refused", f"needs_human_{row.code}"[:60], evidence=facts)
        again = max(order.now + SOON, min(row.next_at, order.now + timedelta(minutes=1)))
        return Outcome("retry" if row.code else "later", row.code, again_at=again, evidence=facts if row.code else {})


def judge(row: Rotation) -> Outcome:
    """What a finished rotation proves. Pure."""
    seen = {
        name: rotated.word_of(row.evidence, name) or "not_probed"
        for name in ("new_password", "old_password", "old_session")
    }
    facts = {"rotation": str(row.id), **seen}
    if seen["old_password"] == "works":
        return Outcome("refused", "old_password_works", evidence=facts)
    if seen == {"new_password": "works", "old_password": "refused", "old_session": "refused"}:
        return Outcome("verified", evidence=facts)
    return Outcome("acknowledged", evidence=facts)
