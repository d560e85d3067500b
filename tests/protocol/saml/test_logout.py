"""Single logout: by Redirect, POST and SOAP inbound, the chain through the browser, what is told to whom (SA-20 to SA-23)."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from lxml import etree
from sqlalchemy import select

from idp.core import clock
from idp.core.db import transaction
from idp.domain.applications import names
from idp.domain.applications.models import Application
from idp.domain.applications.models import ServiceProvider as Row
from idp.domain.directory.models import Account
from idp.domain.sessions.models import AppSession, LoginSession
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent, RefusalCount
from tests.actors import CLI, Browser, World
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


def test_SA_20_a_shared_name_is_never_enough(world: World) -> None:
    """Two people share an account there: a logout by that name alone ends nobody's session, with its index exactly one; with the
    index of the one and a name of somebody else none."""
    sp = world.service_provider(ServiceProvider("shared", redirect_logout=True), name_id="mapped")
    people = [world.person("0001"), world.person("0002")]
    with world.app.app_context(), transaction() as session:
        application = session.scalar(select(Application).where(Application.slug == "shared"))
        for person in people:
            names.map_account(session, application, session.get(Account, person.id), "shop", actor=CLI, now=clock.now())
    with Browser(world.app) as one, Browser(world.app) as two:
        one.log_in(people[0])
        two.log_in(people[1])
        answers = [sp.sign_on(one), sp.sign_on(two)]
        assert soap_status(sp.soap_logout(one, answers[0], indexes=()).content)[:2] == ("Requester", "RequestDenied")
        assert "shared_name" in refusals(world)
        assert soap_status(sp.soap_logout(one, answers[0], name_id="nobody").content)[:2] == (
            "Requester",
            "UnknownPrincipal",
        )
        email = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
        assert soap_status(sp.soap_logout(one, answers[0], format=email).content)[:2] == (
            "Requester",
            "UnknownPrincipal",
        )
        assert live(world) == 2
        assert soap_status(sp.soap_logout(one, answers[0]).content)[:2] == ("Success", None)
        assert "/login" in str(one.get("/").url)
        assert "/login" not in str(two.get("/").url)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_SA_23_a_chain_does_only_what_it_was_opened_for(world: World, browser: Browser) -> None:
    """No chain, no such part, a part whose address went away, an end that nobody asked for, an end twice: a page, and never a 500."""
    asking = world.service_provider(ServiceProvider("asking", redirect_logout=True))
    front = world.service_provider(ServiceProvider("front", soap=False, redirect_logout=True))
    person = world.person()

    def chain_of(begin: Callable[[], httpx2.Response]) -> str:
        browser.log_in(person)
        front.sign_on(browser)
        return begin().headers["location"].partition("request=")[2]

    def by_button() -> httpx2.Response:
        token = browser.forms(browser.get("/"))[0]["fields"]["csrf_token"]
        return browser.post("/logout", {"csrf_token": token}, follow=False)

    own = chain_of(by_button)
    assert browser.get("/saml/slo/chain?request=unknown").status_code == 400
    for number in ("1", "x", "", "０", "9" * 5000):
        assert browser.get(f"/saml/slo/part?request={own}&n={number}", follow=False).status_code == 404, number[:9]
    assert browser.get(f"/saml/slo/part?request={own}&n=0", follow=False).status_code == 303
    assert browser.get(f"/saml/slo/finish?request={own}", follow=False).status_code == 400
    with world.app.app_context(), transaction() as session:
        session.query(Row).filter_by(entity_id=front.entity_id).update({"front_logout_url": None})
    assert browser.get(f"/saml/slo/part?request={own}&n=0", follow=False).status_code == 404
    with world.app.app_context(), transaction() as session:
        session.query(Row).filter_by(entity_id=front.entity_id).update({"front_logout_url": f"{front.base}/slo"})
    theirs = chain_of(lambda: browser.get(asking.logout_url(asking.sign_on(browser)), follow=False))
    page = browser.get(f"/saml/slo/chain?request={theirs}")
    assert "<iframe" in page.text
    assert f"url=/saml/slo/chain?request={theirs}&amp;round=1" in page.text, (
        "the page goes on without those that do not answer"
    )
    ended = browser.get(f"/saml/slo/finish?request={theirs}", follow=False)
    assert asking.read_logout_response(ended.headers["location"])[:2] == ("Success", "PartialLogout")
    assert browser.get(f"/saml/slo/finish?request={theirs}", follow=False).status_code == 400
