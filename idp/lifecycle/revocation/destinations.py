"""Where a person has been: every application ever entered, and whatever of it works on without them."""

from __future__ import annotations

import uuid
from datetime import timedelta

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from idp.domain.applications.models import Application, RelyingParty, ServiceProvider
from idp.domain.sessions.models import AppSession
from idp.domain.tokens import ends
from idp.domain.tokens.models import TokenFamily
from idp.lifecycle.revocation.plan import Destination
from idp.lifecycle.revocation.words import CutKind, Scope

#: `Application.protocol` of a password-only tool
TOOL = "tool"


def entered(session: Session, apps: ColumnElement[bool], families: ColumnElement[bool]) -> tuple[Destination, ...]:
    """One per application ever entered in this scope, live or long ended: a peer's own login does not end with ours (RV-01)."""
    tokens = session.execute(
        select(TokenFamily.application_id, func.max(TokenFamily.access_until).label("until"))
        .where(families)
        .group_by(TokenFamily.application_id)
    )
    until = {row.application_id: row.until for row in tokens}
    rows = session.execute(
        select(
            AppSession.application_id, func.max(AppSession.last_issued_at).label("entered_at"),
            Application.session_life_s, RelyingParty.backchannel_logout_uri, ServiceProvider.id.label("saml"),
            ServiceProvider.soap_logout_url, func.max(AppSession.ends_at).label("session_until"),
            func.max(case((ends.shared_name(), 1), else_=0)).label("shared_name"),
        )
        .join(Application, Application.id == AppSession.application_id)
        .outerjoin(RelyingParty, RelyingParty.application_id == Application.id)
        .outerjoin(ServiceProvider, ServiceProvider.application_id == Application.id)
        .where(apps, Application.protocol != TOOL)  # what became of tools is `tools.use_of`'s
        .group_by(
            AppSession.application_id, Application.session_life_s, RelyingParty.backchannel_logout_uri, Application.name,
            ServiceProvider.id, ServiceProvider.soap_logout_url,
        )
        .order_by(Application.name, AppSession.application_id)
    ).all()  # fmt: skip
    return tuple(
        Destination(
            application_id=row.application_id,
            entered_at=row.entered_at,
            tell=row.backchannel_logout_uri is not None or row.soap_logout_url is not None,
            session_life=timedelta(seconds=row.session_life_s) if row.session_life_s else None,
            access_until=until.get(row.application_id),
            session_until=row.session_until if row.saml is not None else None,
            kind=CutKind.OIDC_LOGOUT if row.saml is None else CutKind.SAML_LOGOUT,
            shared_name=bool(row.shared_name),
        )
        for row in rows
    )


def secrets_seen(session: Session, scope: Scope, account_id: uuid.UUID) -> tuple[uuid.UUID, ...]:
    """Applications whose client secret this person was shown and nobody has rotated since. They work on for the company."""
    if scope is not Scope.ACCOUNT:
        return ()
    return tuple(
        session.scalars(
            select(Application.id)
            .join(RelyingParty, RelyingParty.application_id == Application.id)
            .where(RelyingParty.secret_seen_by == account_id, Application.ended_at.is_(None))
            .order_by(Application.name, Application.id)
        )
    )
