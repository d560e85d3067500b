"""/saml/slo and /saml/slo/soap: logout that a service provider asks for, by Redirect, POST and SOAP (SAMLProf §4.4, SA-20).

The signature is mandatory on every binding. What ends is found by (this service provider, NameID, SessionIndex), so that one
cannot reach another's sessions; the login session dies first, then the others are told. `frontchannel` has our own requests.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import Response, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as WSGIResponse

from idp.core.db import transaction
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.applications.names import FORMATS
from idp.domain.applications.saml import Provider
from idp.domain.sessions import chain
from idp.domain.sessions.chain import Initiator
from idp.domain.sessions.models import AppSession
from idp.domain.tokens import ends, seen
from idp.edges import browser, posting
from idp.edges.browser import Answer
from idp.edges.saml import bp, build, guard, sso, xml
from idp.edges.saml.guard import Envelope, Message
from idp.edges.saml.metadata import paths
from idp.edges.saml.sign import sign, sign_query
from idp.edges.saml.xml import Element, q
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal, record

SOAP_TYPE = "text/xml"


@bp.route("/saml/slo", methods=["GET", "POST"], endpoint="slo")
def slo() -> Answer:
    """The SingleLogoutService of the front channel: a LogoutRequest, or the answer to one of ours."""
    try:
        envelope = _envelope()
        message = guard.receive(
            envelope, ["LogoutRequest", "LogoutResponse"], find=sso.find_provider, own_url=paths(browser.services().settings.issuer)["slo"],
            now=browser.now(), must_sign=True,
        )  # fmt: skip
        if message.kind == "LogoutResponse":
            return _heard(message)
        done = _end(message)
    except guard.Refused as error:
        return sso.refused(error)
    answer = _continue(message, done)
    browser.delete_cookie(answer, browser.LOGIN_COOKIE)
    answer.headers["Clear-Site-Data"] = '"cache"'  # LO-12
    return answer


def _envelope() -> Envelope:
    """Of either binding; the parameter's name says which message it may be, and the root element decides."""
    if request.method == "GET":
        name = "SAMLResponse" if b"SAMLResponse=" in request.query_string else "SAMLRequest"
        return guard.from_redirect(request.query_string, "SAMLResponse" if name == "SAMLResponse" else "SAMLRequest")
    names = set(request.form) - {"RelayState"}
    if request.args or len(names) != 1 or any(len(v) != 1 for _, v in request.form.lists()):
        raise guard.Refused("repeated_parameter")
    name = names.pop()
    if name not in {"SAMLRequest", "SAMLResponse"}:
        raise guard.Refused("no_message")
    return guard.from_post(request.form[name], request.form.get("RelayState"))


@bp.post("/saml/slo/soap", endpoint="soap")
def soap() -> Answer:
    """The back channel: answers with a LogoutResponse, or a SOAP fault that says nothing about why."""
    try:
        message = guard.receive(
            guard.from_soap(request.get_data(cache=False)), ["LogoutRequest"], find=sso.find_provider,
            own_url=paths(browser.services().settings.issuer)["soap"], now=browser.now(), must_sign=True,
        )  # fmt: skip
        done = _end(message)
    except guard.Refused as error:
        sso.count(error)
        # SOAP 1.1 answers every fault with 500; this one is the peer's, and 500 is what our alarms watch
        return Response(_fault(), status=400, mimetype=SOAP_TYPE)
    return Response(build.soap(_response(message, done)), mimetype=SOAP_TYPE)


def _fault() -> bytes:
    return (
        f'<soap:Envelope xmlns:soap="{xml.SOAP}"><soap:Body><soap:Fault><faultcode>soap:Client</faultcode>'
        "<faultstring>The message was refused.</faultstring></soap:Fault></soap:Body></soap:Envelope>"
    ).encode()


# --- what ends -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """What a LogoutRequest ended. code, second: the status to answer. handle: of the chain that the browser goes through."""

    code: str
    second: str | None
    handle: str | None


def _end(message: Message) -> Done:
    """End the login sessions that hold the named sessions, in one transaction with the deliveries. Raises guard.Refused."""
    now, root, provider = browser.now(), message.root, message.provider
    limit = guard.instant(root.get("NotOnOrAfter"))
    if root.get("NotOnOrAfter") is not None and (limit is None or limit <= now - guard.SKEW):
        raise guard.Refused("expired", provider.entity_id)
    name = root.find(q("saml", "NameID"))
    if name is None:
        raise guard.Refused("no_name", provider.entity_id)
    with transaction() as session:
        if not seen.first_time(session, provider.entity_id, message.id, until=now + guard.REMEMBER, now=now):
            count_refusal(session, Tag.SAML_REFUSED, f"replayed:{provider.entity_id}"[:128], now=now)
            return Done("Requester", "RequestDenied", None)
        indexes = [xml.text(node) for node in root.findall(q("samlp", "SessionIndex"))]
        if provider.name_id == "mapped" and not indexes:
            # without an index the name means colleagues too (SA-14)
            count_refusal(session, Tag.SAML_REFUSED, f"shared_name:{provider.entity_id}"[:128], now=now)
            return Done("Requester", "RequestDenied", None)
        found = _sessions(session, provider, name, indexes)
        if not found:
            count_refusal(session, Tag.SAML_REFUSED, f"unknown_principal:{provider.entity_id}"[:128], now=now)
            return Done("Requester", "UnknownPrincipal", None)
        return _log_out(session, message, [row for row in found if row.ended_at is None], now=now)


def _sessions(session: Session, provider: Provider, name: Element, indexes: Sequence[str]) -> list[AppSession]:
    """The app sessions that this service provider may name, live or ended; nobody else's (SA-20)."""
    form = name.get("Format")
    query = select(AppSession).where(
        AppSession.application_id == provider.application_id, AppSession.sub == xml.text(name), AppSession.name_id_format.is_not(None)
    )  # fmt: skip
    if form not in {None, FORMATS["mapped"]}:
        query = query.where(AppSession.name_id_format == form)
    if indexes:
        query = query.where(AppSession.sid.in_(indexes))
    return list(session.scalars(query.order_by(AppSession.id)))


def _log_out(session: Session, message: Message, mine: Sequence[AppSession], *, now: datetime) -> Done:
    settings, provider = browser.services().settings, message.provider
    others: set[uuid.UUID] = set()
    skip = {row.id for row in mine}
    logins = list(dict.fromkeys((row.login_session_id, row.account_id, row.company_id) for row in mine))
    for login_session_id, account_id, company_id in logins:
        told = ends.log_out(session, login_session_id, reason="logout", now=now) or []
        told = [entry for entry in told if entry.app_session_id not in skip]
        ends.tell(session, account_id, told, give_up_after=settings.give_up_after, now=now)
        others |= {entry.application_id for entry in told}
        record(
            session, Tag.LOGOUT_REQUESTED, actor=browser.actor(account_id), now=now, company_id=company_id, subject_id=account_id,
            login_session_id=login_session_id, application_id=provider.application_id, told=len(told), by="saml",
        )  # fmt: skip
    names = session.scalars(select(Application.name).where(Application.id.in_(others)).order_by(Application.name)).all()
    handle = None
    if logins and message.binding != "soap":
        handle = chain.open_chain(
            session, [login for login, _, _ in logins], now=now, told=names, skip=list(skip),
            initiator=Initiator(str(provider.id), message.id, message.relay_state, partial=bool(others)),
        )  # fmt: skip
    unreached = message.binding == "soap" and _front_only(session, [login for login, _, _ in logins], skip, now=now)
    # queued is not done: what has not answered yet is not logged out as far as anybody knows (SAMLProf §4.4.3.4)
    return Done("Success", "PartialLogout" if others or unreached else None, handle)


def _front_only(session: Session, logins: Sequence[uuid.UUID], skip: set[uuid.UUID], *, now: datetime) -> bool:
    found = session.scalar(
        select(AppSession.id)
        .join(ServiceProvider, ServiceProvider.application_id == AppSession.application_id)
        .where(
            AppSession.login_session_id.in_(logins), AppSession.ended_at == now, AppSession.id.not_in(skip),
            ServiceProvider.soap_logout_url.is_(None),
        )
        .limit(1)
    )  # fmt: skip
    return found is not None


# --- answering -------------------------------------------------------------------------------------------------------


def _continue(message: Message, done: Done) -> WSGIResponse:
    """On to the others through the browser, or straight back with the answer."""
    if done.handle is not None:
        return redirect(f"/saml/slo/chain?request={done.handle}", 303)
    return respond(message.provider, message.id, message.relay_state, done.code, done.second)


def respond(
    provider: Provider, request_id: str, relay_state: str | None, code: str, second: str | None
) -> WSGIResponse:
    """The LogoutResponse to a service provider, by the binding of its metadata; a page for the person where it has none."""
    url = provider.front_logout_response_url or provider.front_logout_url
    if url is None:
        return Response(render_template("saml/logged_out.html", chain=None, done=True))
    services, now = browser.services(), browser.now()
    issuer = paths(services.settings.issuer)["entity_id"]
    root = build.logout_response(issuer, url, request_id, code, second, now=now)
    return send(provider, "SAMLResponse", root, url, relay_state)


def send(provider: Provider, parameter: str, root: Element, url: str, relay_state: str | None) -> WSGIResponse:
    """A signed message through the browser, by the service provider's own front-channel binding."""
    services, now = browser.services(), browser.now()
    key = services.saml_keys.signing(now=now, pinned=provider.signing_kid)
    if provider.front_logout_binding == "post":
        sign(root, key)
        fields = {parameter: build.posted(xml.octets(root))}
        if relay_state is not None:
            fields["RelayState"] = relay_state
        return Response(posting.page(url, fields))
    query = sign_query(parameter, build.deflated(root), relay_state, key)
    return redirect(f"{url}{'&' if '?' in url else '?'}{query}", 303)


def _response(message: Message, done: Done) -> Element:
    """The signed answer of a SOAP exchange: it goes back on the same connection, so it names no destination."""
    services, now = browser.services(), browser.now()
    issuer = paths(services.settings.issuer)["entity_id"]
    root = build.logout_response(issuer, None, message.id, done.code, done.second, now=now)
    sign(root, services.saml_keys.signing(now=now, pinned=message.provider.signing_kid))
    return root


def _heard(message: Message) -> Answer:
    """A service provider answered one of our front-channel requests: a signed Success confirms it, once (SA-22)."""
    status = message.root.find(f"{q('samlp', 'Status')}/{q('samlp', 'StatusCode')}")
    inner = None if status is None else status.find(q("samlp", "StatusCode"))
    good = status is not None and status.get("Value") == f"{build.STATUS}Success" and inner is None
    with transaction() as session:
        known = chain.answered(
            session, message.root.get("InResponseTo") or "", message.provider.id, good=good, now=browser.now()
        )
        if not known:
            count_refusal(session, Tag.SAML_REFUSED, f"unasked:{message.provider.entity_id}"[:128], now=browser.now())
    if request.headers.get("Sec-Fetch-Dest") == "iframe":
        # the page around it goes on by itself; from in here the answer to who began it would go into the frame, and be lost
        return Response(status=204)
    handle = browser.read_cookie(browser.CHAIN_COOKIE)
    if handle:
        return redirect(f"/saml/slo/chain?request={handle}&round=1", 303)
    return render_template("saml/logged_out.html", chain=None, done=True)
