"""Ending a person's sessions at a service provider: LogoutRequest by SOAP, and a signed LogoutResponse that says so (SA-21, SA-22).

The channel of revocation: it needs nobody's browser. What is asked names the person as that service provider knows them and
every session that we granted; only a signed Success in answer to exactly this request is *acknowledged*, never more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sqlalchemy import select

from idp.core.db import reading
from idp.core.errors import Unavailable
from idp.core.outbound import Answer, Refused, Unreachable
from idp.domain.applications import saml
from idp.domain.applications.models import SamlSubject
from idp.domain.applications.names import FORMATS
from idp.domain.applications.saml import Provider
from idp.domain.sessions.models import AppSession
from idp.edges.saml import build, guard, xml
from idp.edges.saml.build import STATUS
from idp.edges.saml.metadata import paths
from idp.edges.saml.sign import sign
from idp.edges.saml.xml import Malformed, q
from idp.lifecycle.revocation.cutter import CutOrder, Outcome
from idp.lifecycle.revocation.record import MOST_SIDS
from idp.services import Services

#: with the 10 s of its last call an attempt is over before its lease is (outbox.queue.LEASE)
BUDGET_S = 15.0
HEADERS = {
    "Content-Type": "text/xml; charset=utf-8",
    "Accept": "text/xml",
    "SOAPAction": '"http://www.oasis-open.org/committees/security"',
    "User-Agent": "Sekisho",
}
#: of a status that we repeat in the log; a peer may write anything there
WORD = re.compile(r"[A-Za-z]{1,40}")
REASON = "urn:oasis:names:tc:SAML:2.0:logout:admin"


@dataclass(frozen=True)
class Name:
    """A person as a service provider knows them, and the sessions to end. indexes: none = every session of this name."""

    value: str
    format: str
    indexes: tuple[str, ...]


class SamlLogoutCutter:
    """Ends a person's sessions at one service provider, as far as its answer can tell.

    budget_s: an attempt begins no call later than so many seconds after its first.
    """

    def __init__(self, services: Services, *, budget_s: float = BUDGET_S) -> None:
        self._services = services
        self._budget_s = budget_s

    def cut(self, order: CutOrder) -> Outcome:
        """One attempt: a request for each name under which sessions were granted, with all their indexes (LO-05, SA-21).

        All of them must be accepted. One that is refused does not keep the others from being sent; one that gets no answer
        ends the attempt, and the next goes on from there.
        """
        with reading() as session:
            provider = saml.by_application(session, order.application_id)
            rows = session.execute(
                select(AppSession.sid, AppSession.sub, AppSession.name_id_format).where(AppSession.sid.in_(order.sids))
            ).all()
            kept = session.execute(
                select(SamlSubject.value, SamlSubject.kind).where(
                    SamlSubject.application_id == order.application_id, SamlSubject.account_id == order.account_id
                )
            ).all()
        if provider is None or provider.soap_logout_url is None:
            return Outcome("refused", "no_logout_endpoint")
        granted = {row.sid: Name(row.sub, row.name_id_format or "", (row.sid,)) for row in rows}
        names = [granted[sid] for sid in order.sids if sid in granted and granted[sid].format]
        if not names and order.whole_subject:
            names = [Name(row.value, FORMATS[row.kind], ()) for row in kept if row.kind in {"persistent", "email"}]
        if not names:
            return Outcome("refused", "nothing_to_tell")
        self._services.saml_keys.refresh(now=order.now)
        return self._all(provider, names, order)

    def _all(self, provider: Provider, names: Sequence[Name], order: CutOrder) -> Outcome:
        started, told = time.monotonic(), 0
        last: Outcome = Outcome("acknowledged")
        refused: Outcome | None = None
        for (value, form), group in groupby(names, key=lambda name: (name.value, name.format)):
            if time.monotonic() - started > self._budget_s:
                return replace(last, result="retry", error="too_slow", told=told)
            indexes = tuple(index for name in group for index in name.indexes)
            last = self._ask(provider, Name(value, form, indexes), order)
            if last.result == "retry":
                return replace(last, told=told)
            if last.result == "refused":
                refused = refused or last
            told += len(indexes) if refused is None else 0
        return refused or last

    def _ask(self, provider: Provider, name: Name, order: CutOrder) -> Outcome:
        """One name. A service provider that knows nobody of it with these indexes is asked once more without them, where every
        session is meant: only then has it said that there is nothing left."""
        shared = name.format == FORMATS["mapped"]
        whole = order.whole_subject and not shared
        if shared and not provider.honours_session_index:
            return Outcome("refused", "shared_account")
        if whole and len(name.indexes) >= MOST_SIDS:
            name = replace(
                name, indexes=()
            )  # more sessions than are named: the name without an index means all of them
        outcome = self._send(provider, name, order)
        if outcome.error == "UnknownPrincipal" and whole and name.indexes:
            outcome = self._send(provider, replace(name, indexes=()), order)
        if outcome.error == "UnknownPrincipal" and not shared:
            # signed, by itself, in answer to this request: it has no session of this name
            return Outcome("acknowledged", evidence=outcome.evidence)
        return outcome

    def _send(self, provider: Provider, name: Name, order: CutOrder) -> Outcome:
        """One request and its answer. Built and signed anew for each attempt, so that no ID is sent twice (LO-07)."""
        url = provider.soap_logout_url or ""
        request = build.logout_request(
            paths(self._services.settings.issuer)["entity_id"], url, provider.entity_id, name.value, name.format, name.indexes,
            now=order.now, reason=REASON,
        )  # fmt: skip
        facts: dict[str, object] = {"request": request.attrib["ID"], "sessions": len(name.indexes)}
        try:
            sign(request, self._services.saml_keys.signing(now=order.now, pinned=provider.signing_kid))
            answer = self._services.outbound.post(url, build.soap(request), headers=HEADERS)
        except Refused as error:
            return Outcome("refused", f"refused_by_us: {error}"[:200], evidence=facts)
        except Unreachable as error:
            return Outcome("retry", error.kind, evidence=facts)
        except Unavailable:
            return Outcome("retry", "no_signing_key", evidence=facts)
        return judge(answer, provider, str(request.attrib["ID"]), facts)


def judge(answer: Answer, provider: Provider, request_id: str, facts: dict[str, object]) -> Outcome:
    """What an answer means (SA-22). Pure.

    A status of 200 is the web server's; what counts is the message inside, signed by the service provider and about this
    request. Anything else is *not confirmed*: what may pass by itself is tried again, what needs a setting goes to a person.
    """
    facts = {**facts, "status": answer.status, "elapsed_ms": answer.elapsed_ms}
    try:
        envelope = guard.from_soap(answer.body)
    except guard.Refused as error:
        if answer.status == 400:
            return Outcome("refused", "http_400", evidence=facts)
        if error.reason == "soap_fault":
            return Outcome("retry", "soap_fault", evidence=facts)
        # a login page with status 200 is the usual one; what exactly our parser met is for who looks closer
        word = "no_saml_answer" if answer.status == 200 else f"http_{answer.status}"
        return Outcome("retry", word, evidence=facts | {"read_as": error.reason})
    try:
        verified = _response(envelope, provider, request_id)
    except Malformed as error:
        return Outcome("retry", "no_saml_answer", evidence=facts | {"read_as": str(error)})
    except guard.Refused as error:
        return Outcome("refused", error.reason, evidence=facts)
    return _status(verified, facts | {"response": verified.get("ID")})


def _response(envelope: guard.Envelope, provider: Provider, request_id: str) -> xml.Element:
    """The verified LogoutResponse. Raises Malformed for what is no answer, guard.Refused for one that counts for nothing."""
    root = xml.parse(envelope.octets)
    if root.tag != q("samlp", "LogoutResponse"):
        raise Malformed("no_logout_response")
    xml.validate(root)
    if root.find(q("ds", "Signature")) is None:
        raise guard.Refused("unsigned_response")
    verified = guard.verify_enveloped(root, provider.signing_certs)
    if xml.child_text(verified, "saml", "Issuer") != provider.entity_id:
        raise guard.Refused("signed_by_another")
    if verified.get("InResponseTo") != request_id:
        raise guard.Refused("answers_another_request")
    return verified


def _status(verified: xml.Element, facts: dict[str, object]) -> Outcome:
    codes = [
        word if WORD.fullmatch(word := (node.get("Value") or "").removeprefix(STATUS)) else "unknown_status"
        for node in verified.find(q("samlp", "Status")).iter(q("samlp", "StatusCode"))
    ]
    facts = {**facts, "saml_status": "/".join(codes[:2])}
    if codes == ["Success"]:
        return Outcome("acknowledged", evidence=facts)
    if "UnknownPrincipal" in codes:
        return Outcome("refused", "UnknownPrincipal", evidence=facts)
    if codes[0] in {"Requester", "VersionMismatch"}:
        return Outcome("refused", codes[-1], evidence=facts)
    return Outcome("retry", codes[-1], evidence=facts)  # PartialLogout, Responder: not confirmed, and it may pass
