"""Issuing and redeeming codes, and rotating families. Each issuance: shared rows, gate claimed, decided, artefact (RE-20)."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ScalarSelect, Select, Update, bindparam, exists, func, join, or_, select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import NOW, Instant, Query, add_all, claim, prepared, run
from idp.core.keystore import SigningKey
from idp.domain.applications.decide import (
    APPLICATION_COLUMNS,
    ApplicationFacts,
    Facts,
    application_facts,
    facts_of,
    facts_query,
)
from idp.domain.applications.models import Application, Entitlement, RelyingParty
from idp.domain.directory.models import Account, Assignment, Company, Store
from idp.domain.directory.scope import account_alive
from idp.domain.sessions.live import app_session_alive, login_session_alive, owner_alive
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens.models import AuthorizationCode, TokenFamily

_GENERATION = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class RefreshTokens:
    """Derives refresh tokens instead of storing them: `family.generation.HMAC(family, generation)` (OA-15).

    A lost answer can then be repeated, and every old generation is recognised, with no token at rest in any form. key:
    32 bytes, sealed under the signing class: a database dump alone makes no token.
    """

    key: bytes

    def make(self, family_id: uuid.UUID, generation: int) -> str:
        """The refresh token of one generation."""
        return f"{_b64(family_id.bytes)}.{generation}.{_b64(self._mac(family_id, generation))}"

    def read(self, token: str) -> tuple[uuid.UUID, int] | None:
        """Family and generation of a genuine token of ours; None for anything else."""
        parts = token.split(".")
        if len(parts) != 3 or len(token) > 120 or not _GENERATION.fullmatch(parts[1]):
            return None
        try:
            family_id, mac = uuid.UUID(bytes=_unb64(parts[0])), _unb64(parts[2])
        except ValueError:
            return None
        generation = int(parts[1])
        return (family_id, generation) if hmac.compare_digest(mac, self._mac(family_id, generation)) else None

    def _mac(self, family_id: uuid.UUID, generation: int) -> bytes:
        return hmac.new(
            self.key, b"refresh\0" + family_id.bytes + generation.to_bytes(8, "big"), hashlib.sha256
        ).digest()


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- shared rows ---------------------------------------------------------------------------------------------------


def shared_stores(account: Select[uuid.UUID]) -> ScalarSelect[int]:
    """A scalar that takes the stores of an account FOR SHARE and counts them: part of the first statement of an issuance.

    Store before account in the lock order, and no statement of its own. account: a SELECT of one account id.
    """
    locked = (
        select(Store.id)
        .join(Assignment, Assignment.store_id == Store.id)
        .where(Assignment.account_id == account.correlate(None).scalar_subquery(), Assignment.ended_at.is_(None))
        .order_by(Store.id)
        .with_for_update(read=True, of=Store)
        .cte("shared_stores")
    )
    return select(func.count()).select_from(locked).scalar_subquery()


# --- codes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodeRequest:
    """What an authorization code is bound to (OA-05)."""

    redirect_uri: str
    code_challenge: str | None
    nonce: str | None
    scope: str
    claims: dict[str, Any]


def issue_code(
    session: Session, app_session_id: uuid.UUID, application_id: uuid.UUID, account_id: uuid.UUID, wish: CodeRequest, *,
    epoch: int, life: timedelta, now: datetime,
) -> str:  # fmt: skip
    """Store a code's digest inside a claimed login session and return the code."""
    code = ids.new_secret()
    row = {
        "id": ids.new_id(now), "created_at": now, "code_digest": ids.digest(code), "app_session_id": app_session_id,
        "application_id": application_id, "account_id": account_id, "family_id": ids.new_id(now), "redirect_uri": wish.redirect_uri,
        "code_challenge": wish.code_challenge, "nonce": wish.nonce, "scope": wish.scope, "claims": wish.claims, "epoch": epoch,
        "ends_at": now + life,
    }  # fmt: skip
    add_all(session, AuthorizationCode, [row])
    return code


def redeem_code(session: Session, code_id: uuid.UUID, *, now: datetime) -> bool:
    """Claim a code, once, and only while the account is at the epoch under which it was issued (OA-05, OA-06)."""
    return claim(session, _redemption(), {"code_id": code_id, "now": now})


@prepared
def _redemption() -> Update:
    same_epoch = exists(
        select(Account.id).where(Account.id == AuthorizationCode.account_id, Account.epoch == AuthorizationCode.epoch)
    )
    return (
        update(AuthorizationCode)
        .where(
            AuthorizationCode.id == bindparam("code_id"), AuthorizationCode.redeemed_at.is_(None), AuthorizationCode.ended_at.is_(None),
            AuthorizationCode.ends_at > NOW, same_epoch,
        )
        .values(redeemed_at=NOW)
    )  # fmt: skip


@dataclass(frozen=True)
class Grant:
    """What a token answer is made of, whichever way it was reached."""

    family_id: uuid.UUID
    app_session_id: uuid.UUID
    sid: str
    account_id: uuid.UUID
    company_id: uuid.UUID
    offline: bool
    scope: str
    acr: str
    amr: tuple[str, ...]
    auth_time: datetime


def open_family(
    session: Session,
    grant: Grant,
    application_id: uuid.UUID,
    *,
    generation: int,
    life: timedelta,
    access_until: datetime,
    now: datetime,
) -> None:
    """Store the family that a redeemed code opens. generation 0: the client may not refresh."""
    row = {
        "id": grant.family_id, "created_at": now, "app_session_id": grant.app_session_id, "application_id": application_id,
        "account_id": grant.account_id, "company_id": grant.company_id, "offline": grant.offline, "scope": grant.scope,
        "acr": grant.acr, "amr": list(grant.amr), "auth_time": grant.auth_time, "generation": generation, "rotated_at": now,
        "access_until": access_until, "ends_at": now + life,
    }  # fmt: skip
    add_all(session, TokenFamily, [row])


def claim_family(
    session: Session, family_id: uuid.UUID, *, generation: int, rotate: bool, access_until: datetime, now: datetime
) -> bool:
    """Claim a family at one generation, and rotate it: one statement (performance.md 4.1).

    The family is itself the gate: the row is updated in place, so a revocation, which must update this very row, either
    waits and ends it or is seen here. What it lives in is tested in the same WHERE: the app session and login session,
    or for an offline family the account (D4).
    """
    values = {"family_id": family_id, "presented": generation, "until": access_until, "now": now}
    return claim(session, _family_gate(rotate), values)


@prepared
def _family_gate(rotate: bool) -> Update:  # noqa: FBT001 - a key of the cache
    inside = exists(select(AppSession.id).where(AppSession.id == TokenFamily.app_session_id, *app_session_alive(NOW)))
    outside = TokenFamily.offline.is_(True) & owner_alive(TokenFamily.account_id, NOW)
    values: dict[str, Any] = {"access_until": bindparam("until", type_=Instant())}
    if rotate:
        values |= {"generation": TokenFamily.generation + 1, "rotated_at": NOW}
    return (
        update(TokenFamily)
        .where(
            TokenFamily.id == bindparam("family_id"), TokenFamily.generation == bindparam("presented"), TokenFamily.ended_at.is_(None),
            TokenFamily.ends_at > NOW, or_(TokenFamily.offline.is_(False) & inside, outside),
        )
        .values(**values)
    )  # fmt: skip


# --- what the endpoints read first ---------------------------------------------------------------------------------

CLIENT_COLUMNS = (
    *APPLICATION_COLUMNS, Application.name.label("application_name"), RelyingParty.client_id, RelyingParty.secret_digest,
    RelyingParty.old_secret_digest, RelyingParty.old_secret_ends_at, RelyingParty.auth_method, RelyingParty.redirect_uris,
    RelyingParty.id_token_alg, RelyingParty.pkce_exempt, RelyingParty.refresh_allowed, RelyingParty.offline_allowed,
    RelyingParty.post_logout_redirect_uris,
)  # fmt: skip


def client_query() -> Query:
    """A client and its application, whose shared row is taken (lock order 1). Parameter: client_id."""
    return (
        select(*CLIENT_COLUMNS)
        .select_from(RelyingParty)
        .join(Application, Application.id == RelyingParty.application_id)
        .where(RelyingParty.client_id == bindparam("client_id"))
        .with_for_update(read=True, of=Application)
    )


@dataclass(frozen=True)
class LiveGrant:
    """What a live access token stands for. acr: of the login it was issued in."""

    application: ApplicationFacts
    facts: Facts
    acr: str


def live_grant(session: Session, family_id: str, kid: str, *, now: datetime) -> LiveGrant | None:
    """The live check behind userinfo: the family, everything it lives in and what decides, in one SELECT; None when any has
    ended.

    kid: the key that signed the token; one that was withdrawn in an emergency verifies nothing from its commit on (OI-15).
    """
    try:
        wanted = uuid.UUID(family_id)
    except ValueError:
        return None
    rows = run(session, _live_grant(), {"family_id": wanted, "kid": kid, "now": now})
    if not rows:
        return None
    application = application_facts(rows[0])
    return LiveGrant(application, facts_of(rows, [application.id])[application.id], rows[0].acr)


@prepared
def _live_grant() -> Query:
    start = (
        join(TokenFamily, Application, Application.id == TokenFamily.application_id)
        .join(RelyingParty, RelyingParty.application_id == Application.id)
        .join(Account, Account.id == TokenFamily.account_id)
    )
    withdrawn = exists(
        select(SigningKey.id).where(SigningKey.kid == bindparam("kid"), SigningKey.withdrawn_at.is_not(None))
    )
    inside = (
        select(AppSession.id)
        .join(LoginSession, LoginSession.id == AppSession.login_session_id)
        .where(
            AppSession.id == TokenFamily.app_session_id, AppSession.ended_at.is_(None), AppSession.ends_at > NOW, *login_session_alive(NOW)
        )
    )  # fmt: skip
    query = facts_query(
        Entitlement.application_id == TokenFamily.application_id,
        start=start,
        columns=(TokenFamily.acr, *APPLICATION_COLUMNS),
    )
    return query.where(
        TokenFamily.id == bindparam("family_id"), ~withdrawn, TokenFamily.ended_at.is_(None), TokenFamily.ends_at > NOW,
        Application.ended_at.is_(None), *account_alive(NOW), Company.ended_at.is_(None),
        or_(TokenFamily.offline.is_(True), exists(inside)),
    )  # fmt: skip
