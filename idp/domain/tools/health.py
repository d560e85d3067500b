"""Whether a tool works: a person has to look (degraded), a certification is withdrawn, the terms were attested."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core.db import change
from idp.core.errors import Conflict, Invalid
from idp.domain.applications.models import Application
from idp.domain.directory.people import clean_note
from idp.domain.tools.models import Certification, Tool, ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record


def degrade(session: Session, tool_account_id: uuid.UUID, code: str, *, actor: Actor, now: datetime) -> bool:
    """A machine cannot go on with this account, and says why: recipe_drift, refused, human_check, vault_integrity, …

    False: it was degraded already, or is no more.
    """
    return _turn(session, tool_account_id, ("active",), {"state": "degraded", "code": code}, Tag.TOOL_DEGRADED, actor=actor, now=now, code=code)  # fmt: skip


def resolve(session: Session, tool_account_id: uuid.UUID, *, note: str, actor: Actor, now: datetime) -> None:
    """A person looked, and it may be used again: the tries start anew. Raises Invalid without a note, Conflict when it is well."""
    personal = {"note": clean_note(note, "note")}
    wanted = {"state": "active", "code": None, "tries": 0, "tries_since": None, "blocked_until": None}
    if not _turn(
        session, tool_account_id, ("degraded",), wanted, Tag.TOOL_RESOLVED, actor=actor, now=now, personal=personal
    ):
        raise Conflict("このアカウントは、もう使えるようになっています。", f"tool account {tool_account_id}")


def retyped(session: Session, tool_account_id: uuid.UUID, *, actor: Actor, now: datetime) -> bool:
    """A person typed the password anew: what was wrong with the old one is over. Other reasons still want a look."""
    values = {"state": "active", "code": None, "tries": 0, "tries_since": None, "blocked_until": None}
    return _turn(
        session, tool_account_id, ("degraded",), values, Tag.TOOL_RESOLVED, actor=actor, now=now, only=("refused", "vault_integrity")
    )  # fmt: skip


def disable(session: Session, tool_account_id: uuid.UUID, *, actor: Actor, now: datetime) -> bool:
    """Take an account out of use: nobody enters with it any more. The caller ends what is open."""
    return _turn(
        session, tool_account_id, ("active", "degraded"), {"state": "disabled", "ended_at": now}, Tag.TOOL_ACCOUNT_ENDED, actor=actor, now=now
    )  # fmt: skip


def _turn(
    session: Session, tool_account_id: uuid.UUID, before: tuple[str, ...], values: Mapping[str, object], tag: Tag, *, actor: Actor,
    now: datetime, code: str | None = None, only: tuple[str, ...] = (), personal: dict[str, str] | None = None,
) -> bool:  # fmt: skip
    which = [ToolAccount.id == tool_account_id, ToolAccount.state.in_(before)]
    if only:
        which.append(ToolAccount.code.in_(only))
    went = change(session, update(ToolAccount).where(*which).values(**values))
    if went:
        session.expire_all()
        account = session.get_one(ToolAccount, tool_account_id)
        record(
            session, tag, actor=actor, now=now, company_id=account.company_id, store_id=account.store_id,
            application_id=account.application_id, tool_account_id=account.id, code=code, personal=personal,
        )  # fmt: skip
    return bool(went)


def withdraw_certification(
    session: Session, tool_account_id: uuid.UUID, code: str, *, actor: Actor, now: datetime
) -> int:
    """Drift, or a secret was found in an answer: nobody new gets in until the tool is certified again. Returns how many."""
    went = change(
        session,
        update(Certification)
        .where(Certification.tool_account_id == tool_account_id, Certification.withdrawn_at.is_(None), Certification.expires_at > now)
        .values(withdrawn_at=now, withdrawn_code=code),
    )  # fmt: skip
    if went:
        account = session.get_one(ToolAccount, tool_account_id)
        record(
            session, Tag.CERTIFICATION_WITHDRAWN, actor=actor, now=now, company_id=account.company_id, store_id=account.store_id,
            application_id=account.application_id, tool_account_id=account.id, code=code,
        )  # fmt: skip
    return went


def attest_terms(session: Session, application_id: uuid.UUID, *, note: str, actor: Actor, now: datetime) -> None:
    """The terms forbid automation or sharing, and somebody holds a written permission: who, when, where it lies (VA-48)."""
    if not note.strip():
        raise Invalid("許可の書類がどこにあるかを書いてください。", field="note")
    tool = session.scalar(select(Tool).where(Tool.application_id == application_id))
    if tool is None:
        raise Invalid("このアプリはツールではありません。", f"application {application_id}")
    change(
        session,
        update(Tool).where(Tool.id == tool.id).values(terms_attested_by=actor.account_id, terms_attested_at=now),
    )
    company_id = session.scalar(select(Application.company_id).where(Application.id == application_id))
    record(
        session, Tag.TERMS_ATTESTED, actor=actor, now=now, company_id=company_id, application_id=application_id, recipe_id=tool.recipe_id,
        personal={"note": clean_note(note, "note")},
    )  # fmt: skip
