"""Sealed credentials: what a person typed goes in, and which version holds. Coming out again is `opening.py`.

Sealing never happens inside a transaction: company keys are rows with transactions of their own, and on SQLite that would
wait for itself. So a deposit has two steps: `seal`, with no transaction open, and `put`, which fails when somebody else was
first.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from connectors.recipes.model import Label, Recipe
from idp.core import ids
from idp.core.db import add_all, change, claim, reading
from idp.core.errors import Conflict, Invalid, NotFound
from idp.domain.credentials.contexts import context_of
from idp.domain.credentials.models import CredentialField, CredentialVersion, Rotation, SealedCredential
from idp.domain.directory.people import clean_note
from idp.domain.tools.models import ToolAccount
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from vault import Context, Sealed, Sealer, Secret

#: one field in UTF-8
LONGEST = 1024
TAKEN = "ほかの人が先に変えました。開き直して、もう一度入れてください。"


class BadFields(Invalid):
    """Fields that cannot be sealed, all of them at once: one Invalid for each, which names the field and never its value."""

    status = 422

    def __init__(self, problems: tuple[Invalid, ...]) -> None:
        first = problems[0]
        names = [problem.field for problem in problems]
        super().__init__(first.public, f"fields {names}", field=first.field, values=first.values)
        self.problems = problems


@dataclass(frozen=True)
class CheckedFields:
    """Fields that can be sealed. folded: names of those whose full-width characters became half-width."""

    fields: Mapping[str, Secret]
    folded: tuple[str, ...]


def typed_fields(recipe: Recipe, account: ToolAccount) -> tuple[str, ...]:
    """The fields that a person types for this account: those of the recipe but the ones that stand in its host names."""
    return tuple(name for name in recipe.fields if name not in account.host_fields)


def check_fields(recipe: Recipe, account: ToolAccount, given: Mapping[str, str]) -> CheckedFields:
    """What a person typed, as fields of the recipe; the host fields of the account are added. Raises BadFields."""
    problems: list[Invalid] = []
    found: dict[str, Secret] = {}
    folded = []
    for name in typed_fields(recipe, account):
        field, text = recipe.fields[name], given.get(name, "")
        if field.halfwidth:
            text = unicodedata.normalize("NFKC", text)
            if text != given.get(name, ""):
                folded.append(name)
        if not field.secret:
            text = text.strip()
        problem = _why_not(name, field.label, text)
        if problem is not None:
            problems.append(problem)
        else:
            found[name] = Secret(text)
    problems += [
        Invalid("「%(field)s」という項目は、このツールにありません。", field=name[:40], values={"field": name[:40]})
        for name in sorted(given.keys() - recipe.fields.keys())
    ]
    if problems:
        raise BadFields(tuple(problems))
    return CheckedFields({**found, **{n: Secret(v) for n, v in account.host_fields.items()}}, tuple(folded))


def _why_not(name: str, label: Label, text: str) -> Invalid | None:
    said = {"field": label}
    if not text:
        return Invalid("「%(field)s」を入れてください。", field=name, values=said)
    if any(unicodedata.category(c) in {"Cc", "Cs"} for c in text):
        return Invalid("「%(field)s」に、改行などの見えない文字が入っています。", field=name, values=said)
    if len(text.encode()) > LONGEST:
        return Invalid("「%(field)s」が長すぎます(1024バイトまで)。", field=name, values=said)
    return None


@dataclass(frozen=True)
class Fresh:
    """A version that is sealed and not stored yet. seen: the current version when it was sealed; None: there was none."""

    credential_id: uuid.UUID
    version: int
    sealed: Sealed
    seen: int | None


def seal(sealer: Sealer, account: ToolAccount, fields: Mapping[str, Secret], *, now: datetime) -> Fresh:
    """Seal the next version of an account's credential under a data key of its own. No transaction may be open."""
    with reading() as session:
        known = session.execute(
            select(SealedCredential.id, SealedCredential.current_version).where(
                SealedCredential.tool_account_id == account.id
            )
        ).one_or_none()
        newest = session.scalar(
            select(func.max(CredentialVersion.version)).where(CredentialVersion.credential_id == known.id)
        ) if known else None  # fmt: skip
    credential_id, version = (known.id if known else ids.new_id(now)), (newest or 0) + 1
    sealed = sealer.seal(fields, context_of(account, credential_id, version))
    return Fresh(credential_id, version, sealed, known.current_version if known else None)


def put(session: Session, account: ToolAccount, fresh: Fresh, *, actor: Actor, now: datetime) -> int:
    """Store what a person typed: the new current version, known to people; the old one becomes previous. Returns its number.

    A lock on the credential ends, because nothing of what was damaged is used any more; so does a rotation that waits for a
    person, who has now said which password holds. Raises Conflict: somebody else was first, or a machine is changing it.
    """
    waiting = session.execute(
        select(Rotation.id, Rotation.state, Rotation.new_version).where(
            Rotation.credential_id == fresh.credential_id, Rotation.ended_at.is_(None)
        )
    ).one_or_none()
    if waiting is not None and waiting.state != "needs_human":
        raise Conflict(
            "このパスワードは、いま自動で変えています。終わってから、もう一度入れてください。", f"rotation {waiting.id}"
        )
    if fresh.version == 1:
        session.add(
            SealedCredential(
                id=fresh.credential_id, created_at=now, company_id=account.company_id, tool_account_id=account.id, current_version=1,
                known_to_people=True, known_since=now,
            )
        )  # fmt: skip
        try:
            session.flush()
        except IntegrityError:
            raise Conflict(TAKEN, f"credential of {account.id}") from None
    else:
        seen = SealedCredential.current_version
        went = claim(
            session,
            update(SealedCredential)
            .where(SealedCredential.id == fresh.credential_id, seen.is_(None) if fresh.seen is None else seen == fresh.seen)
            .values(current_version=fresh.version, pending_version=None, known_to_people=True, known_since=now, locked_reason=None),
        )  # fmt: skip
        if not went:
            raise Conflict(TAKEN, f"credential {fresh.credential_id}")
    _step_down(session, fresh.credential_id)
    add_version(session, fresh, state="current", now=now)
    if waiting is not None:
        change(
            session,
            update(Rotation).where(Rotation.id == waiting.id).values(state="abandoned", code="typed_by_person", ended_at=now),
        )  # fmt: skip
    record(
        session, Tag.CREDENTIAL_DEPOSITED, actor=actor, now=now, company_id=account.company_id, store_id=account.store_id,
        application_id=account.application_id, tool_account_id=account.id, credential_id=fresh.credential_id, version=fresh.version,
        fields=sorted(fresh.sealed.fields), key_id=fresh.sealed.key_id,
    )  # fmt: skip
    return fresh.version


def _step_down(session: Session, credential_id: uuid.UUID) -> None:
    """current becomes previous, previous and pending become discarded: one version back is kept, in case this one is wrong."""
    states = ((("pending", "previous"), "discarded"), (("current",), "previous"))
    for before, after in states:
        change(
            session,
            update(CredentialVersion)
            .where(CredentialVersion.credential_id == credential_id, CredentialVersion.state.in_(before))
            .values(state=after),
        )


def add_version(session: Session, fresh: Fresh, *, state: str, now: datetime) -> None:
    """Store the rows of a sealed version. Raises Conflict when this number exists: somebody else sealed one meanwhile."""
    session.add(
        CredentialVersion(
            id=ids.new_id(now), created_at=now, credential_id=fresh.credential_id, version=fresh.version, state=state,
            wrapped_dek=fresh.sealed.wrapped_dek, key_id=fresh.sealed.key_id,
        )
    )  # fmt: skip
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(TAKEN, f"version {fresh.version} of {fresh.credential_id}") from None
    rows = [
        {"id": ids.new_id(now), "created_at": now, "credential_id": fresh.credential_id, "version": fresh.version,
         "field": name, "sealed": payload}
        for name, payload in sorted(fresh.sealed.fields.items())
    ]  # fmt: skip
    add_all(session, CredentialField, rows)


def sealed_version(session: Session, credential_id: uuid.UUID, version: int) -> tuple[Sealed, Context]:
    """One version as it lies in the database, and the place that it is bound to. Raises NotFound."""
    row = session.execute(
        select(CredentialVersion.wrapped_dek, ToolAccount)
        .join(SealedCredential, SealedCredential.id == CredentialVersion.credential_id)
        .join(ToolAccount, ToolAccount.id == SealedCredential.tool_account_id)
        .where(CredentialVersion.credential_id == credential_id, CredentialVersion.version == version)
    ).one_or_none()
    if row is None:
        raise NotFound("預かったパスワードが見つかりません。", f"version {version} of {credential_id}")
    fields = session.execute(
        select(CredentialField.field, CredentialField.sealed).where(
            CredentialField.credential_id == credential_id, CredentialField.version == version
        )
    ).all()
    return Sealed(row.wrapped_dek, {f.field: f.sealed for f in fields}), context_of(row[1], credential_id, version)


def credential_of(session: Session, tool_account_id: uuid.UUID) -> SealedCredential | None:
    """The credential of a tool account; None before the first deposit."""
    return session.scalar(select(SealedCredential).where(SealedCredential.tool_account_id == tool_account_id))


def lock(session: Session, credential_id: uuid.UUID, reason: str, *, actor: Actor, now: datetime) -> bool:
    """Nobody opens it until a person decides. False: it was locked already."""
    went = bool(
        change(
            session,
            update(SealedCredential)
            .where(SealedCredential.id == credential_id, SealedCredential.locked_reason.is_(None))
            .values(locked_reason=reason),
        )
    )
    if went:
        _record_lock(session, Tag.CREDENTIAL_LOCKED, credential_id, actor=actor, now=now, code=reason)
    return went


def unlock(session: Session, credential_id: uuid.UUID, *, note: str, actor: Actor, now: datetime) -> bool:
    """A person decided: the bytes were put right (a restored backup). Typing the password anew ends a lock as well. Raises
    Invalid."""
    note = clean_note(note, "note")
    went = bool(
        change(
            session,
            update(SealedCredential)
            .where(SealedCredential.id == credential_id, SealedCredential.locked_reason.is_not(None))
            .values(locked_reason=None),
        )
    )
    if went:
        _record_lock(session, Tag.CREDENTIAL_UNLOCKED, credential_id, actor=actor, now=now, personal={"note": note})
    return went


def _record_lock(session: Session, tag: Tag, credential_id: uuid.UUID, *, actor: Actor, now: datetime, code: str | None = None,
                 personal: dict[str, str] | None = None) -> None:  # fmt: skip
    account = session.execute(
        select(ToolAccount.id, ToolAccount.company_id, ToolAccount.store_id, ToolAccount.application_id)
        .join(SealedCredential, SealedCredential.tool_account_id == ToolAccount.id)
        .where(SealedCredential.id == credential_id)
    ).one()
    record(
        session, tag, actor=actor, now=now, company_id=account.company_id, store_id=account.store_id,
        application_id=account.application_id, tool_account_id=account.id, credential_id=credential_id, code=code, personal=personal,
    )  # fmt: skip
