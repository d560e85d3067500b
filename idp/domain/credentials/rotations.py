"""Changing a tool's password so that one known version always logs in (VA-42, VA-43): the rows behind the pure table.

`connectors.engine.rotation` names the next state and what is stored with it; here each step is one claim on (state, fence),
with its effect on the credential and its audit row in the same transaction. A crash between two steps leaves a state from
which the table goes on, and nothing is ever submitted twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.orm import Session

from connectors.engine.rotation import Effect, Event, State, Step, after, resumed
from idp.core import ids
from idp.core.db import change, claim, insert_into, run
from idp.core.errors import Conflict
from idp.domain.credentials.models import CredentialVersion, Rotation, SealedCredential
from idp.domain.credentials.rotated import was_sent
from idp.domain.credentials.service import Fresh, add_version
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, Actor, record

LEASE: Final = timedelta(seconds=20)
#: after this a rotation in doubt asks for a person, and one that has not begun is not begun any more
LIFE: Final = timedelta(hours=24)
#: waits before another look at a tool that did not answer
LATER: Final = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=5), timedelta(minutes=30))
#: where a password was sent and the answer was lost: the next one may be the last allowed, and is not for the same bad minute
AFTER_A_TRY: Final = timedelta(minutes=2)
#: something was submitted, and which password holds is not proven yet
IN_DOUBT: Final = tuple(s.value for s in (State.SUBMITTING, State.VERIFYING, State.UNCERTAIN, State.OLD_LEFT))
TRIGGERS: Final = ("import", "leaver", "leak", "schedule", "owner")


@dataclass(frozen=True)
class Held:
    """A leased rotation, as it was at the lease. evidence: what was seen so far, in order."""

    id: uuid.UUID
    fence: int
    state: State
    credential_id: uuid.UUID
    tool_account_id: uuid.UUID
    company_id: uuid.UUID
    old_version: int
    new_version: int | None
    rounds: int
    created_at: datetime
    deadline_at: datetime
    evidence: tuple[dict[str, Any], ...]


def plan(
    session: Session,
    tool_account_id: uuid.UUID,
    *,
    trigger: str,
    actor: Actor,
    now: datetime,
    life: timedelta = LIFE,
    cut_id: uuid.UUID | None = None,
) -> Rotation:
    """The open rotation of an account's credential, or a new one. That a recipe can change the password is the caller's test.

    Raises Conflict where there is nothing to change: no deposit, or a locked credential.
    """
    credential = session.scalar(select(SealedCredential).where(SealedCredential.tool_account_id == tool_account_id))
    if credential is None or credential.current_version is None:
        raise Conflict("このアカウントのパスワードは、まだ預けられていません。", f"tool account {tool_account_id}")
    if credential.locked_reason is not None:
        raise Conflict("このパスワードには鍵がかかっています。先に確かめてください。", f"credential {credential.id}")
    row_id = ids.new_id(now)
    statement = insert_into(session, Rotation).values(
        id=row_id, created_at=now, company_id=credential.company_id, credential_id=credential.id, old_version=credential.current_version,
        trigger=trigger, state=State.PLANNED.value, rounds=0, fence=0, next_at=now, evidence=[], deadline_at=now + life,
    )  # fmt: skip
    if run(session, statement.on_conflict_do_nothing().returning(Rotation.id)).first() is not None:
        _log(
            session, Tag.ROTATION_PLANNED, credential.id, actor=actor, now=now, rotation_id=row_id, trigger=trigger, cut_id=cut_id
        )  # fmt: skip
    found = open_of(session, tool_account_id)
    if found is None:
        raise Conflict("別の変更が、いま終わりました。もう一度試してください。", f"credential {credential.id}")
    return found


def open_of(session: Session, tool_account_id: uuid.UUID) -> Rotation | None:
    """The rotation of an account that has not ended; one that waits for a person is open."""
    return session.scalar(
        select(Rotation)
        .join(SealedCredential, SealedCredential.id == Rotation.credential_id)
        .where(SealedCredential.tool_account_id == tool_account_id, Rotation.ended_at.is_(None))
    )


# --- leases --------------------------------------------------------------------------------------------------------


def due(session: Session, *, now: datetime, limit: int) -> Sequence[tuple[uuid.UUID, uuid.UUID]]:
    """Rotations that may go on, with their tool accounts, oldest first."""
    rows = session.execute(
        select(Rotation.id, SealedCredential.tool_account_id)
        .join(SealedCredential, SealedCredential.id == Rotation.credential_id)
        .where(*_free(now))
        .order_by(Rotation.next_at, Rotation.id)
        .limit(max(0, limit))
    ).all()
    return [(row[0], row[1]) for row in rows]


def lease(session: Session, rotation_id: uuid.UUID, *, now: datetime) -> Held | None:
    """Take a rotation for 20 s; None when somebody else has it. The caller has the tool account's row, and nobody works there.

    A rotation whose program died in the middle of a submit is in doubt from here on, and is never submitted again.
    """
    taken = claim(
        session,
        update(Rotation)
        .where(Rotation.id == rotation_id, *_free(now))
        .values(leased_until=now + LEASE, fence=Rotation.fence + 1),
    )
    if not taken:
        return None
    held = _held(session, rotation_id)
    event = resumed(held.state)
    return step(session, held, event, now=now, code="interrupted") if event is not None else held


def extend(session: Session, held: Held, *, now: datetime) -> bool:
    """Hold it for another 20 s. False: it was taken away."""
    return bool(change(session, update(Rotation).where(*_mine(held, now)).values(leased_until=now + LEASE)))


def is_held(held: Held, now: datetime) -> ColumnElement[bool]:
    """This engine still holds the rotation. For the WHERE of what is done under the lease."""
    return exists(select(Rotation.id).where(*_mine(held, now)))


def wait(session: Session, held: Held, *, until: datetime, code: str | None, now: datetime) -> None:
    """Give the lease back; the rotation goes on then, from the state it is in."""
    change(
        session,
        update(Rotation).where(*_mine(held, now)).values(leased_until=None, next_at=max(until, now), code=code),
    )


# --- steps ---------------------------------------------------------------------------------------------------------


class Lost(Exception):
    """The rotation is not in this state under this fence any more: nothing was written."""


def step(session: Session, held: Held, event: Event, *, now: datetime, code: str | None = None, **seen: Any) -> Held:
    """Take one step of the table: state, effect, evidence and audit row. seen: facts for the evidence, never a value.

    Raises Lost (roll back and let go), NotListed for an event that cannot happen here.
    """
    there = after(held.state, event, rule_rounds=held.rounds)
    entry = {
        "event": event.value,
        "state": there.state.value,
        "at": now.isoformat(),
        **({"code": code} if code else {}),
        **seen,
    }
    ends = there.state in {State.DONE, State.ABANDONED}
    values: dict[str, Any] = {
        "state": there.state.value, "code": code, "evidence": [*held.evidence, entry],
        "rounds": held.rounds + (event is Event.RULE_BROKEN), "leased_until": None if ends else now + LEASE,
        "ended_at": now if ends else None,
    }  # fmt: skip
    if not _go(session, held, values, now=now):
        raise Lost(f"rotation {held.id} is not {held.state} under fence {held.fence}")
    _apply(session, held, there, event, now=now)
    _log(
        session, Tag.ROTATION_MOVED, held.credential_id, actor=SYSTEM, now=now, rotation_id=held.id, event_name=event.value,
        state=there.state.value, code=code, result="refused" if there.state is State.NEEDS_HUMAN or event is Event.GAVE_UP else "ok",
    )  # fmt: skip
    return _held(session, held.id)


def sealed(session: Session, held: Held, fresh: Fresh, *, now: datetime) -> Held:
    """NEW lies sealed as pending, and nothing was sent yet (C1). A NEW before it, that the tool refused for a rule, is discarded."""
    if held.new_version is not None:
        _set_state(session, held.credential_id, held.new_version, "discarded")
    add_version(session, fresh, state="pending", now=now)
    change(
        session,
        update(SealedCredential).where(SealedCredential.id == held.credential_id).values(pending_version=fresh.version),
    )
    change(session, update(Rotation).where(Rotation.id == held.id).values(new_version=fresh.version))
    session.expire_all()
    if held.state is State.PLANNED:
        return step(session, held, Event.SEALED, now=now)
    if not _go(session, held, {"leased_until": now + LEASE}, now=now):
        raise Lost(f"rotation {held.id}")
    return _held(session, held.id)


def needs_human(session: Session, held: Held, code: str, *, now: datetime) -> Held:
    """A machine cannot go on from here, and says why; both versions stay openable.

    Which password holds is asked only where it may be NEW: what was never sent to the tool's form is discarded, and OLD stays.
    """
    event = Event.NO_TRIES
    if code == "refused" and held.state in {State.PENDING, State.OLD_LEFT}:
        event = Event.OLD_REFUSED
    elif held.state is State.PENDING and not was_sent(held.evidence):
        event = Event.GAVE_UP
    if held.state is State.PLANNED:  # nothing was sealed: the person who puts it right starts a new one
        if not _go(
            session,
            held,
            {"state": State.ABANDONED.value, "code": code, "ended_at": now, "leased_until": None},
            now=now,
        ):
            raise Lost(f"rotation {held.id}")
        _log(
            session, Tag.ROTATION_MOVED, held.credential_id, actor=SYSTEM, now=now, rotation_id=held.id, state="abandoned",
            code=code, result="refused",
        )  # fmt: skip
        return _held(session, held.id)
    return step(session, held, event, now=now, code=code)


def _apply(session: Session, held: Held, there: Step, event: Event, *, now: datetime) -> None:
    new = held.new_version
    if event in {Event.NEW_WORKS, Event.OLD_WORKS}:
        version = new if event is Event.NEW_WORKS else held.old_version
        change(session, _version(held.credential_id, version or 0).values(proven_at=now))
    if there.effect is Effect.PROMOTE and new is not None:
        # the one moment in which NEW becomes the password: an older `previous` is kept sealed as discarded
        change(
            session,
            update(CredentialVersion)
            .where(CredentialVersion.credential_id == held.credential_id, CredentialVersion.state == "previous")
            .values(state="discarded"),
        )
        _set_state(session, held.credential_id, held.old_version, "previous")
        _set_state(session, held.credential_id, new, "current")
        change(
            session,
            update(SealedCredential)
            .where(SealedCredential.id == held.credential_id)
            .values(current_version=new, pending_version=None, known_to_people=False, known_since=now),
        )
    elif there.effect is Effect.DISCARD_NEW and new is not None:
        _set_state(session, held.credential_id, new, "discarded")
        change(
            session,
            update(SealedCredential).where(SealedCredential.id == held.credential_id).values(pending_version=None),
        )


def decide(session: Session, rotation_id: uuid.UUID, *, holds: str, actor: Actor, now: datetime) -> None:
    """A person found out which password holds: `old` or `new`. A third one they deposit instead. Raises Conflict.

    What a person says is not proven: the credential stays known to people, and the next rotation proves one.
    """
    row = session.get(Rotation, rotation_id)
    if row is None or row.state != State.NEEDS_HUMAN.value or row.ended_at is not None or holds not in {"old", "new"}:
        raise Conflict("この変更は、もう決まっています。開き直してください。", f"rotation {rotation_id}")
    credential_id, old, new = row.credential_id, row.old_version, row.new_version
    went = claim(
        session,
        update(Rotation)
        .where(Rotation.id == rotation_id, Rotation.state == State.NEEDS_HUMAN.value, Rotation.ended_at.is_(None))
        .values(state=State.ABANDONED.value, code=f"person_says_{holds}", ended_at=now),
    )
    if not went:
        raise Conflict("この変更は、もう決まっています。開き直してください。", f"rotation {rotation_id}")
    if holds == "new" and new is not None:
        _set_state(session, credential_id, old, "previous")
        _set_state(session, credential_id, new, "current")
    elif new is not None:
        _set_state(session, credential_id, new, "discarded")
    change(
        session,
        update(SealedCredential)
        .where(SealedCredential.id == credential_id)
        .values(current_version=new if holds == "new" and new else old, pending_version=None),
    )
    _log(
        session, Tag.ROTATION_MOVED, credential_id, actor=actor, now=now, rotation_id=rotation_id, state="abandoned", code=f"person_says_{holds}"
    )  # fmt: skip


def _go(session: Session, held: Held, values: dict[str, Any], *, now: datetime) -> bool:
    """The one conditional UPDATE of a step: this state, this fence, this lease."""
    return claim(
        session, update(Rotation).where(*_mine(held, now), Rotation.state == held.state.value).values(**values)
    )


def _free(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Rotation.ended_at.is_(None), Rotation.state != State.NEEDS_HUMAN.value, Rotation.next_at <= now,
        or_(Rotation.leased_until.is_(None), Rotation.leased_until <= now),
    )  # fmt: skip


def _mine(held: Held, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Rotation.id == held.id, Rotation.fence == held.fence, Rotation.ended_at.is_(None), Rotation.leased_until > now,
    )  # fmt: skip


def _held(session: Session, rotation_id: uuid.UUID) -> Held:
    session.expire_all()
    row = session.get_one(Rotation, rotation_id)
    account = session.scalar(select(SealedCredential.tool_account_id).where(SealedCredential.id == row.credential_id))
    assert account is not None  # noqa: S101 - a foreign key
    return Held(
        row.id, row.fence, State(row.state), row.credential_id, account, row.company_id, row.old_version, row.new_version, row.rounds,
        row.created_at, row.deadline_at, tuple(row.evidence),
    )  # fmt: skip


def _version(credential_id: uuid.UUID, version: int) -> Any:
    return update(CredentialVersion).where(
        CredentialVersion.credential_id == credential_id, CredentialVersion.version == version
    )


def _set_state(session: Session, credential_id: uuid.UUID, version: int, state: str) -> None:
    change(session, _version(credential_id, version).values(state=state))


def _log(session: Session, tag: Tag, credential_id: uuid.UUID, *, actor: Actor, now: datetime, result: str = "ok", **detail: Any) -> None:  # fmt: skip
    account = session.execute(
        select(ToolAccount.id, ToolAccount.company_id, ToolAccount.store_id, ToolAccount.application_id)
        .join(SealedCredential, SealedCredential.tool_account_id == ToolAccount.id)
        .where(SealedCredential.id == credential_id)
    ).one()
    record(
        session, tag, actor=actor, now=now, result=result, company_id=account.company_id, store_id=account.store_id,
        application_id=account.application_id, tool_account_id=account.id, credential_id=credential_id, **detail,
    )  # fmt: skip
