"""Refreshing: one claim is the gate and the rotation; late and replayed generations are told apart (RFC 6749 §6, OA-15)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidScopeError
from authlib.oauth2.rfc6749.grants import RefreshTokenGrant
from sqlalchemy import select

from idp.domain.tokens import ends, grants
from idp.domain.tokens.grants import Grant
from idp.domain.tokens.models import TokenFamily
from idp.edges.oidc.client import Client
from idp.edges.oidc.exchange import METHODS, Exchange
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    """Refreshing (RFC 6749 §6): rotation for public clients, one generation for confidential ones (D4, OA-15)."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    server: Exchange

    def authenticate_refresh_token(self, refresh_token: str) -> _Family | None:
        """The family of a genuine token, read with the client."""
        server = self.server
        if server.refresh is None or server.row.family_id is None:
            return None
        self._asked = dict(server.row.claims or {})
        return _Family(server.row)

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
    """A stored family in Authlib's words."""

    def __init__(self, row: Any) -> None:
        self.application_id = row.family_application_id
        self.generation, self.rotated_at, self.ended = row.generation, row.rotated_at, row.family_ended_at is not None
        self.grant = Grant(
            row.family_id,
            row.app_session_id,
            row.sid,
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
        return bool(self.application_id == client.application.id)

    def get_scope(self) -> str:
        """What was granted."""
        return self.grant.scope


def register(server: Exchange) -> None:
    """Let this exchange refresh."""
    server.register_grant(RefreshGrant)
