"""The first step of a login: find who it might be, in one read, before any hashing."""

from __future__ import annotations

import unicodedata
import uuid
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, aliased

from idp.domain.authn.models import Authenticator
from idp.domain.directory.models import Account, Company

AAL1, AAL2 = "urn:sekisho:aal1", "urn:sekisho:aal2"


@dataclass(frozen=True)
class Candidate:
    """What a login needs to know before it hashes: ids, epoch and verifier, and whether a second factor is enrolled."""

    account_id: uuid.UUID
    company_id: uuid.UUID
    company_code: str
    login_name: str
    epoch: int
    password_id: uuid.UUID | None
    verifier: str | None
    has_second_factor: bool


def split_login_id(text: str, company_code: str | None) -> tuple[str, str]:
    """`COMPANY/NUMBER`, or the number alone where the page's address names the company (D19). Full width is folded."""
    folded = unicodedata.normalize("NFKC", text).strip()
    company, _, number = folded.rpartition("/")
    return (company or company_code or "").strip().upper(), number.strip()


def find(session: Session, company_code: str, login_name: str) -> Candidate | None:
    """The account that this login id names, or None. Whether it lives is decided later, by the claim."""
    return _candidate(session, Company.code == company_code, Account.login_name == login_name)


def find_by_id(session: Session, account_id: uuid.UUID) -> Candidate | None:
    """The same for an account already known: re-authentication and password change."""
    return _candidate(session, Account.id == account_id)


def _candidate(session: Session, *who: ColumnElement[bool]) -> Candidate | None:
    password, totp = aliased(Authenticator), aliased(Authenticator)
    row = session.execute(
        select(
            Account.id,
            Account.company_id,
            Company.code,
            Account.login_name,
            Account.epoch,
            password.id.label("password_id"),
            password.verifier,
            totp.id.label("totp_id"),
        )
        .join(Company, Company.id == Account.company_id)
        .outerjoin(
            password, and_(password.account_id == Account.id, password.kind == "password", password.ended_at.is_(None))
        )
        .outerjoin(
            totp,
            and_(
                totp.account_id == Account.id,
                totp.kind == "totp",
                totp.ended_at.is_(None),
                totp.confirmed_at.is_not(None),
            ),
        )
        .where(*who, Account.ended_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    return Candidate(*row[:7], row.totp_id is not None)
