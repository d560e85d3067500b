"""One token request: Authlib's validation around our claims. The grants are `code_grant` and `refresh_grant`.

Per request one `Exchange`, with the transaction in it: no server object outlives a request, so no state leaks between
them (libraries.md, style.md 6). Authlib asks questions in its order; what is claimed and stored happens in the one
method `issue`, in the order of RE-20: shared rows, gate, decision, artefact.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer
from authlib.oauth2.rfc6749.errors import InvalidGrantError
from flask import Response, json
from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import Query, prepared, run
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import Allowed, Facts
from idp.domain.directory.models import Company
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens import grants
from idp.domain.tokens.grants import Grant
from idp.domain.tokens.models import AuthorizationCode, TokenFamily
from idp.edges.oidc import claims
from idp.edges.oidc.client import Client, Request, could_be_client_id
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, count_refusal
from idp.services import Services

METHODS = ["client_secret_basic", "client_secret_post", "none"]
GRANT_TYPES = ("authorization_code", "refresh_token")
#: plain columns and not entities: an ORM row costs more than its query
CODE_COLUMNS = (
    AuthorizationCode.id.label("code_id"), AuthorizationCode.app_session_id, AuthorizationCode.account_id,
    AuthorizationCode.application_id.label("code_application_id"), AuthorizationCode.family_id, AuthorizationCode.redirect_uri,
    AuthorizationCode.code_challenge, AuthorizationCode.nonce, AuthorizationCode.scope, AuthorizationCode.claims,
    AuthorizationCode.redeemed_at,
)  # fmt: skip
FAMILY_COLUMNS = (
    TokenFamily.id.label("family_id"), TokenFamily.application_id.label("family_application_id"), TokenFamily.app_session_id,
    TokenFamily.account_id, TokenFamily.company_id, TokenFamily.offline, TokenFamily.scope, TokenFamily.acr, TokenFamily.amr,
    TokenFamily.auth_time, TokenFamily.generation, TokenFamily.rotated_at, TokenFamily.ended_at.label("family_ended_at"),
)  # fmt: skip


class Exchange(AuthorizationServer):  # type: ignore[misc]
    """One token request: services, transaction, instant, and the client once it was found."""

    def __init__(self, services: Services, session: Session, *, now: datetime, actor: Actor) -> None:
        super().__init__()
        self.services = services
        self.session = session
        self.now = now
        self.actor = actor
        self.client: Client | None = None
        self.row: Any = None
        self.code = ""
        self.refresh: tuple[uuid.UUID, int] | None = None

    def create_oauth2_request(self, request: Request) -> Request:
        """Ours is one already."""
        if request.form.get("grant_type") == "refresh_token":
            self.refresh = self.services.refresh_tokens().read(request.form.get("refresh_token", ""))
        else:
            self.code = request.form.get("code", "")
        return request

    def query_client(self, client_id: str) -> Client | None:
        """The client, and in the same statement whatever its grant refers to: statements are budgeted (performance.md 4.1)."""
        if not could_be_client_id(client_id):
            return None
        values: dict[str, Any] = {"client_id": client_id}
        if self.code:
            query, values["code_digest"] = _client_and_code(), ids.digest(self.code)
        elif self.refresh:
            query, values["family_id"] = _client_and_family(), self.refresh[0]
        else:
            query = _client_alone()
        self.row = run(self.session, query, values).one_or_none()
        self.client = Client(self.row, self.now) if self.row is not None else None
        return self.client

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        """Answer as JSON, never cached. Errors are counted for the log."""
        if status >= 400:
            count_refusal(
                self.session,
                Tag.REQUEST_REFUSED,
                f"token:{self.client.client_id if self.client else self.actor.address}",
                now=self.now,
            )
        text = json.dumps(dict(body) if isinstance(body, list) else body)
        return Response(text, status=status, headers=headers, mimetype="application/json")

    def issue(
        self, grant: Grant, *, nonce: str | None, asked: dict[str, list[str]], refresh_generation: int
    ) -> dict[str, Any]:
        """Decide, then make the token answer. Called with the gate claimed. Raises InvalidGrantError when refused."""
        client = self.client
        if client is None:
            raise InvalidGrantError
        facts = gate.load_facts(self.session, grant.account_id, client.application.id, now=self.now)
        allowed = gate.decide(client.application, facts, acr=grant.acr) if facts else None
        if facts is None or not isinstance(allowed, Allowed):
            raise InvalidGrantError("The person may no longer use this application.")
        return self._tokens(client, grant, facts, allowed, nonce=nonce, asked=asked, generation=refresh_generation)

    def _tokens(
        self,
        client: Client,
        grant: Grant,
        facts: Facts,
        allowed: Allowed,
        *,
        nonce: str | None,
        asked: dict[str, list[str]],
        generation: int,
    ) -> dict[str, Any]:
        settings, signer = self.services.settings, self.services.signer
        life = settings.access_token_s
        access = signer.sign(
            claims.access_token(
                settings.issuer, client.client_id, facts, grant, asked=asked.get("userinfo", []), now=self.now, life_s=life
            ),
            typ=claims.ACCESS_TOKEN, alg="ES256", now=self.now,
        )  # fmt: skip
        person = claims.about(facts, allowed, scope=grant.scope, asked=frozenset(asked.get("id_token", [])))
        id_token = claims.id_token(
            settings.issuer, client.client_id, grant, person, access=access, nonce=nonce, now=self.now, life_s=life
        )
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": life,
            "scope": grant.scope,
            "id_token": signer.sign(id_token, typ=claims.ID_TOKEN, alg=client.row.id_token_alg, now=self.now),
        }
        if generation:
            answer["refresh_token"] = self.services.refresh_tokens().make(grant.family_id, generation)
        return answer

    @property
    def access_until(self) -> datetime:
        """When the access token of this answer expires: the residual that a receipt prints."""
        return self.now + timedelta(seconds=self.services.settings.access_token_s)


# --- what is read first: the client, and in the same statement what its grant refers to ---------------------------------


@prepared
def _client_alone() -> Query:
    return grants.client_query()


@prepared
def _client_and_code() -> Query:
    this = AuthorizationCode.code_digest == bindparam("code_digest")
    company = select(Company.id).where(Company.id == AppSession.company_id).with_for_update(read=True).scalar_subquery()
    return (
        grants.client_query()
        .add_columns(
            *CODE_COLUMNS, AppSession.sid, AppSession.company_id, LoginSession.acr, LoginSession.amr, LoginSession.auth_time,
            company.label("company_lock"), grants.shared_stores(select(AuthorizationCode.account_id).where(this)),
        )
        .outerjoin(AuthorizationCode, this)
        .outerjoin(AppSession, AppSession.id == AuthorizationCode.app_session_id)
        .outerjoin(LoginSession, LoginSession.id == AppSession.login_session_id)
    )  # fmt: skip


@prepared
def _client_and_family() -> Query:
    this = TokenFamily.id == bindparam("family_id")
    company = (
        select(Company.id).where(Company.id == TokenFamily.company_id).with_for_update(read=True).scalar_subquery()
    )
    return (
        grants.client_query()
        .add_columns(
            *FAMILY_COLUMNS, AuthorizationCode.claims, AppSession.sid, company.label("company_lock"),
            grants.shared_stores(select(TokenFamily.account_id).where(this)),
        )
        .outerjoin(TokenFamily, this)
        .outerjoin(AppSession, AppSession.id == TokenFamily.app_session_id)
        .outerjoin(
            AuthorizationCode,
            # by the indexed column; an app session has few codes, and one of them opened this family
            and_(
                AuthorizationCode.app_session_id == TokenFamily.app_session_id,
                AuthorizationCode.family_id == TokenFamily.id,
            ),
        )
    )  # fmt: skip
