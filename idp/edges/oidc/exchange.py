"""The token endpoint's grants: Authlib's validation around our claims.

Per request one `Exchange`, with the transaction in it: no server object outlives a request, so no state leaks between
them (libraries.md, style.md 6). Authlib asks questions in its order; what is claimed and stored happens in the one
method `issue`, in the order of RE-20: shared rows, gate, decision, artefact.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

from authlib.oauth2.rfc6749 import AuthorizationServer
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError, InvalidScopeError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Response, json
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import Allowed, Facts
from idp.domain.directory.models import Company
from idp.domain.directory.people import company_of
from idp.domain.sessions.live import claim_app_session
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens import ends, grants
from idp.domain.tokens.grants import Grant
from idp.domain.tokens.models import AuthorizationCode, TokenFamily
from idp.edges.oidc import claims
from idp.edges.oidc.client import Client, Request, could_be_client_id
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, count_refusal, record
from idp.services import Services

METHODS = ["client_secret_basic", "client_secret_post", "none"]
GRANT_TYPES = ("authorization_code", "refresh_token")


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
        self.register_grant(CodeGrant, [S256()])
        self.register_grant(RefreshGrant)

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
        query = grants.client_query(client_id)
        if self.code:
            query = _with_code(query, self.code)
        elif self.refresh:
            query = _with_family(query, self.refresh[0])
        self.row = self.session.execute(query).one_or_none()
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


def _with_code(query: Any, code: str) -> Any:
    company = select(Company.id).where(Company.id == AppSession.company_id).with_for_update(read=True).scalar_subquery()
    return (
        query.add_columns(
            AuthorizationCode, AppSession.sid, AppSession.company_id, LoginSession.acr, LoginSession.amr, LoginSession.auth_time,
            company.label("company_lock"), grants.shared_stores(select(AuthorizationCode.account_id).where(AuthorizationCode.code_digest == ids.digest(code))),
        )
        .outerjoin(AuthorizationCode, AuthorizationCode.code_digest == ids.digest(code))
        .outerjoin(AppSession, AppSession.id == AuthorizationCode.app_session_id)
        .outerjoin(LoginSession, LoginSession.id == AppSession.login_session_id)
    )  # fmt: skip


def _with_family(query: Any, family_id: uuid.UUID) -> Any:
    company = (
        select(Company.id).where(Company.id == TokenFamily.company_id).with_for_update(read=True).scalar_subquery()
    )
    return (
        query.add_columns(
            TokenFamily,
            AuthorizationCode.claims,
            AppSession.sid,
            company.label("company_lock"),
            grants.shared_stores(select(TokenFamily.account_id).where(TokenFamily.id == family_id)),
        )
        .outerjoin(TokenFamily, TokenFamily.id == family_id)
        .outerjoin(AppSession, AppSession.id == TokenFamily.app_session_id)
        .outerjoin(
            AuthorizationCode,
            # by the indexed column; an app session has few codes, and one of them opened this family
            and_(
                AuthorizationCode.app_session_id == TokenFamily.app_session_id,
                AuthorizationCode.family_id == TokenFamily.id,
            ),
        )
    )


class S256(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256 and nothing else, for confidential clients too (OA-03, trap F14)."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD: ClassVar[list[str]] = ["S256"]

    def get_authorization_code_challenge_method(self, authorization_code: Any) -> str:
        """Only one exists."""
        return "S256"


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    """Redeeming a code (RFC 6749 §4.1.3)."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    server: Exchange

    @staticmethod
    def validate_authorization_redirect_uri(request: Any, client: Client) -> str:
        """As Authlib's, but with constant texts: its own echo the parameter and crash on a quote (trap A4)."""
        wanted = request.payload.redirect_uri
        if not wanted or not client.check_redirect_uri(wanted):
            raise InvalidRequestError("redirect_uri is missing or not registered.")
        return str(wanted)

    def query_authorization_code(self, code: str, client: Client) -> Any:
        """The code of this client that was read with the client; a used one is a replay (OA-07)."""
        row = self.server.row
        if not code or row.AuthorizationCode is None or row.AuthorizationCode.application_id != client.application.id:
            return None
        if row.AuthorizationCode.redeemed_at is not None:
            self._replayed(row.AuthorizationCode)
            return None
        return _Code(row.AuthorizationCode)

    def authenticate_user(self, authorization_code: _Code) -> Any:
        """Claim the gate, then the code. Whoever comes second at the code has replayed it."""
        server, code = self.server, authorization_code.row
        # what the claims forget must be read before them
        self._grant = _grant_of(server.row, code)
        self._wish = (code.nonce, dict(code.claims))
        code_id, app_session_id = code.id, code.app_session_id
        if not claim_app_session(server.session, app_session_id, now=server.now):
            return None
        if not grants.redeem_code(server.session, code_id, now=server.now):
            fresh = server.session.execute(
                select(AuthorizationCode).where(AuthorizationCode.id == code_id)
            ).scalar_one()
            if fresh.redeemed_at is not None:
                self._replayed(fresh)
            return None
        return self._grant

    def generate_token(
        self,
        user: Any = None,
        scope: Any = None,
        grant_type: Any = None,
        expires_in: Any = None,
        include_refresh_token: bool = True,
    ) -> dict[str, Any]:
        """Decide and sign. Authlib's signature; the values come from the claimed code."""
        nonce, asked = self._wish
        return self.server.issue(user, nonce=nonce, asked=asked, refresh_generation=1 if include_refresh_token else 0)

    def save_token(self, token: dict[str, Any]) -> None:
        """Store the family and the audit row."""
        server, grant = self.server, self._grant
        if server.client is None:
            raise InvalidGrantError
        application_id = server.client.application.id
        grants.open_family(
            server.session, grant, application_id, generation=1 if "refresh_token" in token else 0,
            life=timedelta(seconds=server.services.settings.family_life_s), access_until=server.access_until, now=server.now,
        )  # fmt: skip
        record(
            server.session, Tag.CODE_REDEEMED, actor=server.actor, now=server.now, company_id=grant.company_id, subject_id=grant.account_id,
            application_id=application_id, family_id=grant.family_id, app_session_id=grant.app_session_id, offline=grant.offline,
        )  # fmt: skip

    def delete_authorization_code(self, authorization_code: Any) -> None:
        """Nothing: the claim spent it, and the row recognises a replay (trap F15)."""

    def _replayed(self, code: AuthorizationCode) -> None:
        server = self.server
        told = ends.end_replayed_family(server.session, code.family_id, reason="code_replayed", now=server.now)
        ends.tell(
            server.session, code.account_id, told, give_up_after=server.services.settings.give_up_after, now=server.now
        )
        record(
            server.session, Tag.CODE_REPLAYED, actor=server.actor, now=server.now, result="refused",
            company_id=company_of(server.session, code.account_id), subject_id=code.account_id, application_id=code.application_id,
            family_id=code.family_id,
        )  # fmt: skip


class _Code:
    """A stored code in Authlib's words. Copied out, because a claim makes the session forget the row."""

    def __init__(self, row: AuthorizationCode) -> None:
        self.row = row
        self.code_challenge, self.redirect_uri, self.scope = row.code_challenge, row.redirect_uri, row.scope

    def get_redirect_uri(self) -> str:
        """What the code is bound to."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """What was granted."""
        return self.scope


def _grant_of(row: Any, code: AuthorizationCode) -> Grant:
    return Grant(
        family_id=code.family_id, app_session_id=code.app_session_id, sid=row.sid, account_id=code.account_id, company_id=row.company_id,
        offline="offline_access" in code.scope.split(), scope=code.scope, acr=row.acr, amr=tuple(row.amr), auth_time=row.auth_time,
    )  # fmt: skip


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    """Refreshing (RFC 6749 §6): rotation for public clients, one generation for confidential ones (D4, OA-15)."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    server: Exchange

    def authenticate_refresh_token(self, refresh_token: str) -> _Family | None:
        """The family of a genuine token, read with the client."""
        server = self.server
        if server.refresh is None or server.row.TokenFamily is None:
            return None
        self._asked = dict(server.row.claims or {})
        return _Family(server.row.TokenFamily, server.row.sid)

    def authenticate_user(self, refresh_token: _Family) -> Any:
        """Claim the family at the generation presented; see `_late` for everything else."""
        server = self.server
        family, presented = refresh_token.grant, server.refresh[1] if server.refresh else 0
        rotate = server.client is not None and server.client.is_public
        current, rotated_at, ended = refresh_token.generation, refresh_token.rotated_at, refresh_token.ended
        if ended or presented < 1:
            raise InvalidGrantError
        if presented == current:
            went = grants.claim_family(
                server.session,
                family.family_id,
                generation=presented,
                rotate=rotate,
                access_until=server.access_until,
                now=server.now,
            )
            if went:
                self._generation = presented + 1 if rotate else presented
                return family
            again = server.session.execute(
                select(TokenFamily.generation, TokenFamily.rotated_at, TokenFamily.ended_at).where(
                    TokenFamily.id == family.family_id
                )
            ).one()
            if again.ended_at is not None or again.generation == presented:
                raise InvalidGrantError  # it, or what it lives in, has ended
            current, rotated_at = again.generation, again.rotated_at
        return self._late(family, presented, current, rotated_at)

    def _late(self, family: Grant, presented: int, current: int, rotated_at: datetime) -> Grant:
        """An older generation. One step old, within seconds, its successor unused: the answer was lost, and the same
        successor is given again. Anything else is a replay: family and app session end (OA-15)."""
        server = self.server
        grace = timedelta(seconds=server.services.settings.refresh_grace_s)
        if presented == current - 1 and server.now - rotated_at <= grace:
            same = grants.claim_family(
                server.session,
                family.family_id,
                generation=current,
                rotate=False,
                access_until=server.access_until,
                now=server.now,
            )
            if same:
                self._generation = current
                return family
        told = ends.end_replayed_family(server.session, family.family_id, reason="refresh_reuse", now=server.now)
        ends.tell(
            server.session,
            family.account_id,
            told,
            give_up_after=server.services.settings.give_up_after,
            now=server.now,
        )
        record(
            server.session, Tag.REFRESH_REUSE, actor=server.actor, now=server.now, result="refused", company_id=family.company_id,
            subject_id=family.account_id, application_id=server.client.application.id if server.client else None,
            family_id=family.family_id, presented=presented, current=current,
        )  # fmt: skip
        raise InvalidGrantError

    def issue_token(self, user: Grant, refresh_token: Any) -> dict[str, Any]:
        """Decide and sign; the scope may shrink for this access token only (RFC 6749 §6)."""
        wished = self.request.payload.scope
        scope = " ".join(s for s in user.scope.split() if s in wished.split()) if wished else user.scope
        if "openid" not in scope.split():
            raise InvalidScopeError
        del refresh_token
        return self.server.issue(
            replace(user, scope=scope), nonce=None, asked=self._asked, refresh_generation=self._generation
        )

    def save_token(self, token: dict[str, Any]) -> None:
        """The claim stored everything; here is the audit row."""
        server = self.server
        grant: Grant = self.request.user
        record(
            server.session, Tag.TOKEN_REFRESHED, actor=server.actor, now=server.now, company_id=grant.company_id, subject_id=grant.account_id,
            application_id=server.client.application.id if server.client else None, family_id=grant.family_id, generation=self._generation,
        )  # fmt: skip

    def revoke_old_credential(self, refresh_token: Any) -> None:
        """Nothing: the claim rotated the one row there is (trap F15)."""


class _Family:
    """A stored family in Authlib's words, with everything that a claim would forget copied out."""

    def __init__(self, row: TokenFamily, sid: str) -> None:
        self.application_id = row.application_id
        self.generation, self.rotated_at, self.ended = row.generation, row.rotated_at, row.ended_at is not None
        self.grant = Grant(
            row.id,
            row.app_session_id,
            sid,
            row.account_id,
            row.company_id,
            row.offline,
            row.scope,
            row.acr,
            tuple(row.amr),
            row.auth_time,
        )

    def check_client(self, client: Client) -> bool:
        """Only the client it was issued to."""
        return self.application_id == client.application.id

    def get_scope(self) -> str:
        """What was granted."""
        return self.grant.scope
