"""What head office sees of deposited passwords: whose, how old, how they stand, who opened them. Never a value (D13)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from connectors.recipes.hosts import Ground
from idp.domain.applications.models import Application
from idp.domain.credentials.models import CredentialVersion, Rotation, SealedCredential
from idp.domain.credentials.standing import EXPIRY_NOTICE, Standing, standing
from idp.domain.directory.models import Account, Company, Store
from idp.domain.directory.scope import Viewer
from idp.domain.tools.models import ToolAccount
from idp.domain.tools.registry import in_my_companies
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent

LIMIT = 500
#: what happened to one account, as its page lists it
HISTORY = (
    Tag.SECRET_OPENED, Tag.CREDENTIAL_DEPOSITED, Tag.CREDENTIAL_LOCKED, Tag.CREDENTIAL_UNLOCKED, Tag.TOOL_DEGRADED, Tag.TOOL_RESOLVED,
    Tag.CERTIFICATION_WITHDRAWN, Tag.TOOL_ACCOUNT_ADDED, Tag.ROTATION_PLANNED, Tag.ROTATION_MOVED,
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tool account. store, person, company: names; changed_at: of the current version; proven_at: its last login that worked."""

    standing: Standing
    application: Application
    company: str
    store: str | None
    person: str | None
    credential: SealedCredential | None
    changed_at: datetime | None
    proven_at: datetime | None
    rotation: Rotation | None
    at: datetime

    @property
    def expires_soon(self) -> bool:
        """The certification ends within two weeks."""
        until = self.standing.certified_until
        return self.standing.certification == "valid" and until is not None and until - self.at <= EXPIRY_NOTICE

    @property
    def waits_for(self) -> str | None:
        """Why a person is needed, as a code; None when nobody is."""
        if self.rotation is not None and self.rotation.state == "needs_human":
            return "rotation"
        found = self.standing.refusal
        if found is not None:
            return self.standing.account.code or found if found == "tool_degraded" else found
        return "expires_soon" if self.expires_soon else None


def entries(
    session: Session, viewer: Viewer | None, on: Ground, *, now: datetime, application_id: uuid.UUID | None = None,
    tool_account_id: uuid.UUID | None = None, store_id: uuid.UUID | None = None,
) -> list[Entry]:  # fmt: skip
    """Accounts in the viewer's companies, by tool and label. viewer None: whoever the caller has let in, for one store."""
    query = (
        select(ToolAccount, Application, Company.code, Store, Account, SealedCredential, CredentialVersion, Rotation)
        .join(Application, Application.id == ToolAccount.application_id)
        .join(Company, Company.id == ToolAccount.company_id)
        .outerjoin(Store, Store.id == ToolAccount.store_id)
        .outerjoin(Account, Account.id == ToolAccount.account_id)
        .outerjoin(SealedCredential, SealedCredential.tool_account_id == ToolAccount.id)
        .outerjoin(
            CredentialVersion,
            (CredentialVersion.credential_id == SealedCredential.id) & (CredentialVersion.version == SealedCredential.current_version),
        )
        .outerjoin(Rotation, (Rotation.credential_id == SealedCredential.id) & Rotation.ended_at.is_(None))
        .where(ToolAccount.ended_at.is_(None), Application.ended_at.is_(None))
        .order_by(Application.name, Application.id, ToolAccount.id)
        .limit(LIMIT)
    )  # fmt: skip
    if viewer is not None:
        query = query.where(in_my_companies(viewer))
    for column, wanted in (
        (ToolAccount.application_id, application_id), (ToolAccount.id, tool_account_id), (ToolAccount.store_id, store_id)
    ):  # fmt: skip
        if wanted is not None:
            query = query.where(column == wanted)
    rows = session.execute(query).all()
    stands = standing(session, [row[0].id for row in rows], on, now=now)
    return [
        Entry(
            stands[account.id], application, company, f"{store.code} {store.name}" if store else None,
            f"{person.login_name} {person.name}" if person else None, credential, version.created_at if version else None,
            version.proven_at if version else None, rotation, now,
        )
        for account, application, company, store, person, credential, version, rotation in rows
    ]  # fmt: skip


def versions(session: Session, credential_id: uuid.UUID) -> Sequence[CredentialVersion]:
    """The versions of a credential, newest first; the page shows their numbers, states and times."""
    query = select(CredentialVersion).where(CredentialVersion.credential_id == credential_id)
    return session.scalars(query.order_by(CredentialVersion.version.desc()).limit(20)).all()


@dataclass(frozen=True)
class Happened:
    """One event of an account: who is the person behind it or, without one, the kind of actor."""

    at: datetime
    tag: str
    result: str
    who: str
    purpose: str
    version: int | None
    code: str
    state: str


def history(session: Session, entry: Entry, *, limit: int = 50) -> list[Happened]:
    """Who opened it when and what else happened to it, from the log, newest first; among the last 500 events of its tool."""
    account = entry.standing.account
    rows = session.execute(
        select(AuditEvent, Account.login_name, Account.name)
        .outerjoin(Account, Account.id == func.coalesce(AuditEvent.subject_id, AuditEvent.actor_id))
        .where(AuditEvent.application_id == account.application_id, AuditEvent.tag.in_([tag.value for tag in HISTORY]))
        .order_by(AuditEvent.id.desc())
        .limit(500)
    ).all()
    mine = {str(account.id), str(entry.credential.id) if entry.credential else ""}
    found = []
    for event, number, name in rows:
        detail = event.detail or {}
        if {str(detail.get("tool_account_id")), str(detail.get("credential_id"))} & mine:
            found.append(
                Happened(
                    event.created_at, event.tag, event.result, f"{number} {name}" if number else event.actor_kind, str(detail.get("purpose") or ""),
                    detail.get("version"), str(detail.get("code") or ""), str(detail.get("state") or ""),
                )
            )  # fmt: skip
    return found[:limit]
