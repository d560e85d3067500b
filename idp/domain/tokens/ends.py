"""How sessions, codes and families end: set-based, downwards in the lock order, each row once. Gateway sessions end with the
app sessions that they live in, in the same transaction.

Logout, idle, narrowing, reuse and revocation all come through here (RV-01, LO-06). What tells them apart is only how far
they reach: a logout leaves offline families alive, a revocation ends every grant.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, or_, select, update
from sqlalchemy.orm import Session

from idp.core.db import change
from idp.domain.applications.models import RelyingParty, ServiceProvider
from idp.domain.applications.names import FORMATS
from idp.domain.gateway import gateway_sessions
from idp.domain.gateway.models import GatewaySession
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens.models import AuthorizationCode, TokenFamily
from idp.ledgers.outbox import queue

LOGOUT_TOPIC = "logout"
#: how a peer is told; the worker maps it to a cutter (`CutKind` has the same words)
OIDC, SAML = "OIDC_LOGOUT", "SAML_LOGOUT"


@dataclass(frozen=True)
class Told:
    """An app session that has just ended and whose relying party wants to be told."""

    app_session_id: uuid.UUID
    application_id: uuid.UUID
    kind: str = OIDC


def end_login_sessions(session: Session, *which: ColumnElement[bool], reason: str, now: datetime) -> int:
    """End login sessions. Returns how many were live. Their app sessions are the caller's next step."""
    return change(
        session,
        update(LoginSession).where(*which, LoginSession.ended_at.is_(None)).values(ended_at=now, end_reason=reason),
    )


def end_app_sessions(session: Session, *which: ColumnElement[bool], reason: str, now: datetime) -> int:
    """End app sessions. Returns how many were live. The gateway sessions inside them are the caller's next step."""
    return change(
        session, update(AppSession).where(*which, AppSession.ended_at.is_(None)).values(ended_at=now, end_reason=reason)
    )


def end_gateway_sessions(session: Session, *which: ColumnElement[bool], reason: str, now: datetime) -> int:
    """End the gateway sessions inside these app sessions, live or ended ones. Returns how many were live."""
    inside = GatewaySession.app_session_id.in_(select(AppSession.id).where(*which))
    return gateway_sessions.end_sessions(session, inside, reason=reason, now=now)


def end_codes(session: Session, *which: ColumnElement[bool], now: datetime) -> int:
    """End authorization codes that could still be redeemed. Returns how many."""
    return change(
        session,
        update(AuthorizationCode)
        .where(
            *which,
            AuthorizationCode.ended_at.is_(None),
            AuthorizationCode.redeemed_at.is_(None),
            AuthorizationCode.ends_at > now,
        )
        .values(ended_at=now),
    )


def end_families(session: Session, *which: ColumnElement[bool], reason: str, now: datetime) -> int:
    """End token families. Returns how many were live."""
    return change(
        session,
        update(TokenFamily).where(*which, TokenFamily.ended_at.is_(None)).values(ended_at=now, end_reason=reason),
    )


def log_out(session: Session, login_session_id: uuid.UUID, *, reason: str, now: datetime) -> Sequence[Told] | None:
    """End one login session and what lives in it; offline families live on (LO-06). No revocation.

    Returns the app sessions whose relying parties have to be told, or None when the login session had ended already.
    """
    if not end_login_sessions(session, LoginSession.id == login_session_id, reason=reason, now=now):
        return None
    mine = AppSession.login_session_id == login_session_id
    end_app_sessions(session, mine, reason=reason, now=now)
    end_gateway_sessions(session, mine, reason=reason, now=now)
    _end_below(session, select(AppSession.id).where(mine), reason=reason, now=now)
    return told(session, mine, AppSession.ended_at == now)


def end_other_logins(
    session: Session, account_id: uuid.UUID, *, keep: uuid.UUID | None, reason: str, now: datetime
) -> Sequence[Told]:
    """End every login session of an account but one, with everything in them, offline families included (OA-16).

    After a password was changed or reset, whoever knew the old one must hold nothing.
    """
    which = [LoginSession.account_id == account_id]
    apps = [AppSession.account_id == account_id]
    families = [TokenFamily.account_id == account_id]
    if keep is not None:
        which.append(LoginSession.id != keep)
        apps.append(AppSession.login_session_id != keep)
        kept = select(AppSession.id).where(AppSession.login_session_id == keep)
        families.append(TokenFamily.app_session_id.not_in(kept) | TokenFamily.offline.is_(True))
    end_login_sessions(session, *which, reason=reason, now=now)
    end_app_sessions(session, *apps, reason=reason, now=now)
    end_gateway_sessions(session, *apps, reason=reason, now=now)
    end_codes(session, AuthorizationCode.account_id == account_id, now=now)
    end_families(session, *families, reason=reason, now=now)
    return told(session, *apps, AppSession.ended_at == now)


def end_application_use(
    session: Session, application_id: uuid.UUID, *, reason: str, now: datetime
) -> dict[uuid.UUID, list[Told]]:
    """An application or its entitlements were narrowed: every app session of it ends, and people come in anew (RE-20).

    Returns who has to be told, by account.
    """
    mine = AppSession.application_id == application_id
    end_app_sessions(session, mine, reason=reason, now=now)
    end_gateway_sessions(session, mine, reason=reason, now=now)
    end_codes(session, AuthorizationCode.application_id == application_id, now=now)
    end_families(session, TokenFamily.application_id == application_id, reason=reason, now=now)
    found: dict[uuid.UUID, list[Told]] = {}
    for account_id, entry in _told(session, mine, AppSession.ended_at == now):
        found.setdefault(account_id, []).append(entry)
    return found


def end_replayed_family(session: Session, family_id: uuid.UUID, *, reason: str, now: datetime) -> Sequence[Told]:
    """A code or an old refresh token came a second time: the family ends, and its app session with it (OA-07, OA-15).

    One of the two who presented it is a thief, and we cannot tell which.
    """
    app_session_id = session.scalar(select(TokenFamily.app_session_id).where(TokenFamily.id == family_id))
    if app_session_id is None:
        return []
    end_app_sessions(session, AppSession.id == app_session_id, reason=reason, now=now)
    end_gateway_sessions(session, AppSession.id == app_session_id, reason=reason, now=now)
    end_families(
        session,
        (TokenFamily.id == family_id)
        | ((TokenFamily.app_session_id == app_session_id) & TokenFamily.offline.is_(False)),
        reason=reason,
        now=now,
    )
    return told(session, AppSession.id == app_session_id, AppSession.ended_at == now)


def told(session: Session, *which: ColumnElement[bool]) -> Sequence[Told]:
    """Those of these app sessions whose application can be told: back-channel logout, or SAML logout by SOAP."""
    return [entry for _, entry in _told(session, *which)]


def _told(session: Session, *which: ColumnElement[bool]) -> list[tuple[uuid.UUID, Told]]:
    rows = session.execute(
        select(AppSession.account_id, AppSession.id, AppSession.application_id, ServiceProvider.id.label("saml"))
        .outerjoin(RelyingParty, RelyingParty.application_id == AppSession.application_id)
        .outerjoin(ServiceProvider, ServiceProvider.application_id == AppSession.application_id)
        .where(
            *which,
            or_(
                RelyingParty.backchannel_logout_uri.is_not(None), and_(ServiceProvider.soap_logout_url.is_not(None), ~shared_name())
            ),
        )
    )  # fmt: skip
    return [
        (row.account_id, Told(row.id, row.application_id, OIDC if row.saml is None else SAML)) for row in rows
    ]  # fmt: skip


def shared_name() -> ColumnElement[bool]:
    """The app session's name at the service provider is colleagues' too, and it cannot end one session of a name (SA-14)."""
    return and_(AppSession.name_id_format == FORMATS["mapped"], ServiceProvider.honours_session_index.is_not(True))


def _end_below(session: Session, app_sessions: Select[uuid.UUID], *, reason: str, now: datetime) -> None:
    end_codes(session, AuthorizationCode.app_session_id.in_(app_sessions), now=now)
    end_families(
        session, TokenFamily.app_session_id.in_(app_sessions), TokenFamily.offline.is_(False), reason=reason, now=now
    )


def tell(
    session: Session, account_id: uuid.UUID, told: Sequence[Told], *, give_up_after: timedelta, now: datetime
) -> None:
    """Queue one logout per app session that has just ended (LO-05). In the transaction that ended it."""
    for app in told:
        queue.put(
            session, topic=LOGOUT_TOPIC, destination=str(app.application_id), dedup_key=f"logout:{app.app_session_id}", now=now,
            give_up_after=give_up_after, kind=app.kind, application_id=str(app.application_id), account_id=str(account_id),
            app_session_id=str(app.app_session_id), whole_subject=False,
        )  # fmt: skip
