"""Telling relying parties that a session is over: OpenID Connect Back-Channel Logout 1.0.

Deliveries are rows of the outbox (`tokens.ends.tell`, `cascade.revoke`); `OidcLogoutCutter` makes one attempt. The token is
minted for each attempt: a retry with an old `jti` or an expired token would be refused by a correct peer and prove nothing
(LO-07, RE-06).
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from sqlalchemy import select

from idp.core.db import reading
from idp.core.outbound import Answer, Refused, Unreachable
from idp.domain.applications.models import RelyingParty
from idp.domain.directory.models import Account
from idp.edges.oidc import claims
from idp.lifecycle.revocation.cutter import CutOrder, Outcome
from idp.services import Services

#: with the 10 s of its last call an attempt is over before its lease is (outbox.queue.LEASE)
BUDGET_S = 15.0
HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": "Sekisho"}


class OidcLogoutCutter:
    """Ends a person's sessions at one relying party, as far as its answer can tell.

    budget_s: an attempt begins no call later than so many seconds after its first.
    """

    def __init__(self, services: Services, *, budget_s: float = BUDGET_S) -> None:
        self._services = services
        self._budget_s = budget_s

    def cut(self, order: CutOrder) -> Outcome:
        """One attempt: a token for the whole subject, and one for each session where the relying party wants `sid` (LO-05).

        All of them must be accepted. One that is refused does not keep the others from being sent; one that gets no answer
        ends the attempt, and the next goes on from there.
        """
        with reading() as session:
            party = session.scalar(select(RelyingParty).where(RelyingParty.application_id == order.application_id))
            sub = session.scalar(select(Account.subject).where(Account.id == order.account_id))
        if party is None or sub is None or party.backchannel_logout_uri is None:
            return Outcome("refused", "no_logout_endpoint")
        named = order.sids if not order.whole_subject or party.backchannel_logout_session_required else ()
        wanted: list[str | None] = [*([None] if order.whole_subject else []), *named]
        if not wanted:
            return Outcome("refused", "nothing_to_tell")
        started, told = time.monotonic(), 0
        last, facts = Outcome("acknowledged"), dict[str, object]()
        refused: Outcome | None = None
        for sid in wanted:
            if time.monotonic() - started > self._budget_s:
                return replace(last, result="retry", error="too_slow", told=told)
            last = self._send(party, sub, sid, order.now)
            if last.result == "retry":
                return replace(last, told=told)
            if last.result == "refused" and sid is None and named:
                facts = {"without_sid": last.error}  # it wants `sid` in every token, and each session is named below
            elif last.result == "refused":
                refused = refused or last
            told += sid is not None and refused is None
        return refused or replace(last, evidence={**last.evidence, **facts})

    def _send(self, party: RelyingParty, sub: str, sid: str | None, now: datetime) -> Outcome:
        uri = party.backchannel_logout_uri or ""
        token = claims.logout_token(self._services.settings.issuer, party.client_id, sub=sub, sid=sid, now=now)
        signed = self._services.signer.sign(token, typ=claims.LOGOUT_TOKEN, alg=party.id_token_alg, now=now)
        facts = {"jti": token["jti"], "by": "sid" if sid else "sub"}
        try:
            answer = self._services.outbound.post(uri, urlencode({"logout_token": signed}).encode(), headers=HEADERS)
        except Refused as error:
            return Outcome("refused", f"refused_by_us: {error}"[:200], evidence=facts)
        except Unreachable as error:
            return Outcome("retry", error.kind, evidence=facts)
        return judge(answer, facts, now=now)


def judge(answer: Answer, facts: dict[str, object], *, now: datetime) -> Outcome:
    """What an answer means (LO-07). Pure.

    200 and 204 are the peer's word that it did it: *acknowledged*. A page of HTML with status 200 is a login page in front
    of the endpoint, not an answer of it; a redirect is not followed. 400 is the peer's refusal, and repeating it is no use.
    """
    facts = {**facts, "status": answer.status, "elapsed_ms": answer.elapsed_ms}
    if answer.status in {200, 204}:
        if _is_page(answer):
            return Outcome("retry", "html_page", evidence=facts)
        return Outcome("acknowledged", evidence=facts)
    if answer.status == 400:
        return Outcome("refused", "http_400", evidence=facts)
    return Outcome("retry", f"http_{answer.status}", retry_after_s=_retry_after(answer, now), evidence=facts)


def _is_page(answer: Answer) -> bool:
    """A document. The word `ok` under the text/html that many frameworks send by default is none."""
    start = answer.body[:1024].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return True
    return b"<" in answer.body and "html" in answer.headers.get("content-type", "").lower()


def _retry_after(answer: Answer, now: datetime) -> int | None:
    """Seconds; the header holds a number of them or a date (RFC 9110 §10.2.3). None: absent, past, or nonsense."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 8 else None
    try:
        return max(0, int((parsedate_to_datetime(text) - now).total_seconds())) if text else None
    except (TypeError, ValueError, OverflowError):
        return None
