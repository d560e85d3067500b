"""Single logout: by Redirect, POST and SOAP inbound, the chain through the browser, what is told to whom (SA-20 to SA-23)."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from lxml import etree
from sqlalchemy import select

from idp.domain.sessions.models import AppSession, LoginSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent, RefusalCount
from tests.actors import Browser, World
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.outbound import status as answers
from tests.saml import NS, Answer, ServiceProvider, deflate, inflate, pair, sign_query, soap_status


@pytest.fixture
def sp(world: World) -> ServiceProvider:
    """One with SOAP and Redirect logout."""
    return world.service_provider(ServiceProvider("coupon", redirect_logout=True))


@pytest.fixture
def session(world: World, browser: Browser, sp: ServiceProvider) -> Answer:
    """Somebody's session there."""
    browser.log_in(world.person())
    return sp.sign_on(browser)


def live(world: World, table: type = LoginSession) -> int:
    """How many are live."""
    return len(world.rows(select(table.id).where(table.ended_at.is_(None))))


def refusals(world: World) -> set[str]:
    """Words of the refusals in the log."""
    return {
        row.key.split(":")[0]
        for row in world.rows(select(RefusalCount.key).where(RefusalCount.tag == Tag.SAML_REFUSED))
    }


def test_SA_20_redirect_logout_ends_the_login_and_answers(
    world: World, browser: Browser, sp: ServiceProvider, session: Answer
) -> None:
    """A signed request: the login session and its app session end, and the answer goes back with RelayState."""
    answer = browser.get(sp.logout_url(session, relay="r s"), follow=False)
    assert answer.headers["location"].startswith(f"{sp.base}/slo?SAMLResponse=")
    assert "&RelayState=r%20s&" in answer.headers["location"]
    assert sp.read_logout_response(answer.headers["location"])[:2] == ("Success", None)
    assert live(world) == live(world, AppSession) == 0
    assert "/login" in str(browser.get("/").url)
    assert world.rows(select(AuditEvent.id).where(AuditEvent.tag == Tag.LOGOUT_REQUESTED))


def test_SA_20_soap_logout_needs_no_browser(
    world: World, browser: Browser, sp: ServiceProvider, session: Answer
) -> None:
    """And a second one for the same session is as good as the first: it is over."""
    assert soap_status(sp.soap_logout(browser, session).content)[:2] == ("Success", None)
    assert live(world) == 0
    assert soap_status(sp.soap_logout(browser, session).content)[:2] == ("Success", None)


def test_SA_20_what_does_not_log_out(world: World, browser: Browser, sp: ServiceProvider, session: Answer) -> None:
    """Unsigned, signed by another, expired, for another address, replayed, another's name: the session lives, the log says why."""
    other = world.service_provider(ServiceProvider("other", pair=pair("other"), redirect_logout=True))
    unsigned = f"/saml/slo?SAMLRequest={quote(deflate(etree.tostring(sp.logout_request(session))), safe='')}"
    bad = {
        "unsigned": unsigned,
        "bad_signature": sp.logout_url(session, pair=pair("other")),
        "wrong_destination": sp.logout_url(session, Destination="https://elsewhere.example/saml/slo"),
        "expired": sp.logout_url(session, NotOnOrAfter="2020-01-01T00:00:00Z"),
        "not_now": sp.logout_url(session, IssueInstant="2020-01-01T00:00:00Z"),
        "unknown_service_provider": sp.logout_url(session, issuer="https://nobody.example"),
    }
    for word, url in bad.items():
        assert browser.get(url, follow=False).status_code == 403, word
        assert word in refusals(world)
    theirs = browser.get(other.logout_url(session), follow=False)
    assert other.read_logout_response(theirs.headers["location"])[:2] == ("Requester", "UnknownPrincipal")
    assert sp.soap_logout(browser, session, signed=False).status_code == 400
    assert live(world) == 1
    once = sp.logout_url(session, name_id="nobody here")
    assert browser.get(once, follow=False).status_code == 303
    replayed = browser.get(once, follow=False)
    assert sp.read_logout_response(replayed.headers["location"])[:2] == ("Requester", "RequestDenied")
    assert live(world) == 1


def test_SA_22_SA_23_others_are_told_and_partial_is_said(
    world: World, browser: Browser, outbound: RecordingOutbound
) -> None:
    """The asking service provider hears PartialLogout while the other one only has a delivery; the delivery is a signed request."""
    first, second = (world.service_provider(ServiceProvider(s, redirect_logout=True)) for s in ("one", "two"))
    browser.log_in(world.person())
    mine, theirs = first.sign_on(browser), second.sign_on(browser)
    gone = browser.get(first.logout_url(mine), follow=False)
    assert first.read_logout_response(gone.headers["location"])[:2] == ("Success", "PartialLogout")
    outbound.behave(second.soap_url, lambda call: answers(200, second.honest(call.body))(call))
    world.deliver()
    (call,) = outbound.to(second.soap_url)
    asked = etree.fromstring(call.body).find("soap:Body/samlp:LogoutRequest", NS)
    assert asked.find("saml:NameID", NS).text == theirs.name_id
    assert [node.text for node in asked.findall("samlp:SessionIndex", NS)] == [theirs.session_index]
    assert outbound.to(first.soap_url) == []
    assert world.rows(select(AuditEvent.id).where(AuditEvent.tag == Tag.LOGOUT_DELIVERED))


def test_SA_23_the_chain_through_the_browser_survives_a_dead_service_provider(world: World, browser: Browser) -> None:
    """Our login dies first; each is asked in a frame; who has not answered is said, can be asked again, and holds nobody up."""
    front = [world.service_provider(ServiceProvider(s, soap=False, redirect_logout=True)) for s in ("alive", "dead")]
    browser.log_in(world.person())
    for peer in front:
        peer.sign_on(browser)
    page = browser.post("/logout", {"csrf_token": browser.forms(browser.get("/"))[0]["fields"]["csrf_token"]})
    assert live(world) == 0
    assert "frame-src 'self' https://alive.example https://dead.example" in page.headers["content-security-policy"]
    frames = re.findall(r'<iframe src="([^"]+)"', page.text)
    assert len(frames) == 2
    asked = browser.get(frames[0].replace("&amp;", "&"), follow=False).headers["location"]
    assert asked.startswith("https://alive.example/slo?SAMLRequest=")
    request_id = etree.fromstring(inflate(parse_qs(urlsplit(asked).query)["SAMLRequest"][0])).get("ID")
    message = deflate(
        front[0].response(request_id, signed=False, destination="http://localhost:8000/saml/slo", soap=False)
    )
    heard = browser.get(f"/saml/slo?{sign_query('SAMLResponse', message, front[0].pair)}")
    states = dict(re.findall(r'data-part="(\d)" data-state="(\w+)"', heard.text))
    assert states == {"0": "confirmed", "1": "waiting"}
    assert "<iframe" not in heard.text
    assert "/saml/slo/part?" in heard.text
