"""The names by which service providers know people (SA-14): pairwise, kept for ever, never a second person's."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import Query, insert_into, prepared, run
from idp.core.errors import Invalid
from idp.domain.applications.models import Application, SamlSubject
from idp.domain.directory.models import Account
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

#: kinds of names, and the formats in which they are sent
FORMATS = {
    "persistent": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    "transient": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
    "email": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
    "mapped": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
}
#: those that never change once they are given: they may be read before the login session is claimed, `mapped` may not
KEPT = ("persistent", "email")


@prepared
def _name() -> Query:
    return select(SamlSubject.value).where(
        SamlSubject.application_id == bindparam("application"),
        SamlSubject.account_id == bindparam("account"),
        SamlSubject.kind == bindparam("kind"),
    )


def known_name(session: Session, application_id: uuid.UUID, account_id: uuid.UUID, kind: str) -> str | None:
    """The name under which a service provider knows this account already."""
    name: str | None = run(
        session, _name(), {"application": application_id, "account": account_id, "kind": kind}
    ).scalar()
    return name


def keep_name(
    session: Session, application_id: uuid.UUID, account_id: uuid.UUID, kind: str, value: str, *, now: datetime
) -> str | None:
    """Give an account this name at a service provider, or find the one that it has. None: the value is somebody else's, and
    a name is never used for a second person (SA-14)."""
    row = {
        "id": ids.new_id(now), "created_at": now, "application_id": application_id, "account_id": account_id, "kind": kind,
        "value": value,
    }  # fmt: skip
    session.execute(insert_into(session, SamlSubject).values(row).on_conflict_do_nothing())
    return known_name(session, application_id, account_id, kind)


def map_account(
    session: Session, application: Application, account: Account, value: str, *, actor: Actor, now: datetime
) -> None:
    """Say under which shared name of the service provider a person works; our log keeps who it was. Raises Invalid."""
    value = value.strip()
    if not value or len(value) > 255 or not value.isprintable():
        raise Invalid("アプリ側の利用者IDは1〜255文字で入れてください。", field="name_id")
    row = {
        "id": ids.new_id(now), "created_at": now, "application_id": application.id, "account_id": account.id, "kind": "mapped",
        "value": value,
    }  # fmt: skip
    statement = insert_into(session, SamlSubject).values(row)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["application_id", "account_id", "kind"], set_={"value": value, "created_at": now}
        )
    )
    record(
        session, Tag.ACCOUNT_MAPPED, actor=actor, now=now, company_id=account.company_id, subject_id=account.id,
        application_id=application.id, name_id=value,
    )  # fmt: skip
