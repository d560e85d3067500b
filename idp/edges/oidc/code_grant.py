"""Redeeming a code: Authlib's checks of the request, our claims of the gate and of the code (RFC 6749 §4.1.3, RFC 7636)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from sqlalchemy import select

from idp.domain.sessions.live import claim_app_session
from idp.domain.tokens import ends, grants
from idp.domain.tokens.grants import Grant
from idp.domain.tokens.models import AuthorizationCode
from idp.edges.oidc.client import Client
from idp.edges.oidc.exchange import METHODS, Exchange
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record


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
        if not code or row.code_id is None or row.code_application_id != client.application.id:
            return None
        if row.redeemed_at is not None:
            self._replayed(row)
            return None
        return _Code(row)

    def authenticate_user(self, authorization_code: _Code) -> Any:
        """Claim the gate, then the code. Whoever comes second at the code has replayed it."""
        server, row = self.server, authorization_code.row
        self._grant = _grant_of(row)
        self._wish = (row.nonce, dict(row.claims))
        if not claim_app_session(server.session, row.app_session_id, now=server.now):
            return None
        if not grants.redeem_code(server.session, row.code_id, now=server.now):
            redeemed_at = select(AuthorizationCode.redeemed_at).where(AuthorizationCode.id == row.code_id)
            if server.session.scalar(redeemed_at) is not None:
                self._replayed(row)
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

    def _replayed(self, row: Any) -> None:
        server = self.server
        told = ends.end_replayed_family(server.session, row.family_id, reason="code_replayed", now=server.now)
        ends.tell(
            server.session, row.account_id, told, give_up_after=server.services.settings.give_up_after, now=server.now
        )
        record(
            server.session, Tag.CODE_REPLAYED, actor=server.actor, now=server.now, result="refused", company_id=row.company_id, subject_id=row.account_id,
            application_id=row.code_application_id, family_id=row.family_id,
        )  # fmt: skip


class _Code:
    """A stored code in Authlib's words."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.code_challenge: str | None = row.code_challenge

    def get_redirect_uri(self) -> str:
        """What the code is bound to."""
        return str(self.row.redirect_uri)

    def get_scope(self) -> str:
        """What was granted."""
        return str(self.row.scope)


def _grant_of(row: Any) -> Grant:
    return Grant(
        family_id=row.family_id, app_session_id=row.app_session_id, sid=row.sid, account_id=row.account_id, company_id=row.company_id,
        offline="offline_access" in row.scope.split(), scope=row.scope, acr=row.acr, amr=tuple(row.amr), auth_time=row.auth_time,
    )  # fmt: skip


def register(server: Exchange) -> None:
    """Let this exchange redeem codes, with PKCE."""
    server.register_grant(CodeGrant, [S256()])
