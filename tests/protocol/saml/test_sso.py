"""Single sign-on: requests by Redirect and POST, what an answer holds, and what it never does (SA-08 to SA-19)."""

from __future__ import annotations

import base64
import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from lxml import etree
from sqlalchemy import select, update

from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Invalid
from idp.core.saml_keys import rotate_saml_key, withdraw_saml_key
from idp.domain.applications import names, saml, sp_metadata
from idp.domain.applications.models import Application, SamlSubject
from idp.domain.applications.models import ServiceProvider as Row
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import AppSession
from idp.edges.saml import metadata
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation.cascade import Order
from idp.lifecycle.revocation.models import Cut
from idp.lifecycle.revocation.remap import remap
from idp.lifecycle.revocation.words import Door, Reason
from tests.actors import CLI, Browser, World
from tests.conftest import REQUIRE_ALL
from tests.fakes.lives import cut
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.outbound import status as answers
from tests.saml import (
    NS,
    SUCCESS,
    Answer,
    ServiceProvider,
    deflate,
    pair,
    sign_query,
    sign_xml,
    stamp,
    xmlsec1,
    xmlsec1_verifies,
)  # fmt: skip

ALGORITHMS = {"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "http://www.w3.org/2001/04/xmlenc#sha256"}
F = "urn:oasis:names:tc:SAML:2.0:nameid-format:"
AC = "urn:oasis:names:tc:SAML:2.0:ac:classes:"
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def policy(form: str, **attributes: str) -> str:
    """A NameIDPolicy."""
    given = " ".join(f'{k}="{v}"' for k, v in attributes.items())
    return f'<samlp:NameIDPolicy Format="{form}" {given}/>'


def context(*classes: str, comparison: str = "exact") -> str:
    """A RequestedAuthnContext."""
    inside = "".join(f"<saml:AuthnContextClassRef>{c}</saml:AuthnContextClassRef>" for c in classes)
    return f'<samlp:RequestedAuthnContext Comparison="{comparison}">{inside}</samlp:RequestedAuthnContext>'


def test_SA_11_SA_12_a_person_signs_on_by_redirect(world: World, browser: Browser) -> None:
    """Login page first, then one answer with name, attributes and session; the second time without a page. The ledger row is
    there before the answer is, under exactly this name and index (LO-02), and so is the audit row."""
    sp, person = world.service_provider(ServiceProvider("coupon")), world.person()
    page = browser.get(sp.redirect_url(relay="a b&c=ü\"'><script>"))
    assert "/login" in str(page.url)
    answer = sp.take(browser.log_in(person, at=""), browser)
    assert (answer.status, answer.relay_state, answer.in_response_to) == (SUCCESS, "a b&c=ü\"'><script>", sp.request_id)
    assert "form-action https:;" in browser.page.headers["content-security-policy"]
    assert answer.attributes["preferred_username"] == [person.login]
    assert answer.attributes["stores"] == ["S1"]
    assert answer.attributes["functions"] == ["points.adjust", "points.view"]
    assert "email" not in answer.attributes
    again = sp.sign_on(browser)
    assert (again.name_id, again.session_index) == (answer.name_id, answer.session_index)
    (row,) = world.rows(select(AppSession.sub, AppSession.sid, AppSession.name_id_format))
    assert (row.sub, row.sid, row.name_id_format) == (answer.name_id, answer.session_index, f"{F}persistent")
    issued = world.rows(select(AuditEvent.detail).where(AuditEvent.tag == Tag.ASSERTION_ISSUED))
    assert len(issued) == 2
    assert answer.name_id not in str(issued)
    limit = answer.assertion.find("saml:AuthnStatement", NS).get("SessionNotOnOrAfter")
    assert limit > answer.assertion.find("saml:AuthnStatement", NS).get("AuthnInstant")


def test_SA_11_F4_every_algorithm_in_the_octets_that_we_send(world: World, browser: Browser, tmp_path: Path) -> None:
    """Response and Assertion signed RSA-SHA256 over SHA-256, nothing else; encrypted with AES-GCM under RSA-OAEP when the
    metadata can; and the xmlsec1 program, an independent implementation, accepts all of it (SA-32)."""
    if xmlsec1() is None:
        assert not REQUIRE_ALL, "this run requires the xmlsec1 program"
        pytest.skip("the xmlsec1 program is not installed")
    plain = world.service_provider(ServiceProvider("plain"))
    sealed = world.service_provider(ServiceProvider("sealed", encryption=pair("encryption")), encrypt=True)
    browser.log_in(world.person())
    document = browser.http.get("/saml/metadata").content
    certificate = etree.fromstring(document).findtext(".//md:IDPSSODescriptor//ds:X509Certificate", namespaces=NS)
    assert certificate
    assert xmlsec1_verifies(document, certificate, "EntityDescriptor", tmp_path)
    answer = plain.sign_on(browser)
    for node in ("Response", "Assertion"):
        assert xmlsec1_verifies(answer.raw, certificate, node, tmp_path), node
        assert not xmlsec1_verifies(answer.raw.replace(answer.name_id.encode(), b"nobody"), certificate, node, tmp_path)
    root = etree.fromstring(answer.raw)
    used = {
        n.get("Algorithm") for name in ("SignatureMethod", "DigestMethod") for n in root.iter(f"{{{NS['ds']}}}{name}")
    }
    assert used == ALGORITHMS
    assert len(root.findall(".//ds:Signature", NS)) == 2
    hidden = sealed.sign_on(browser)
    assert hidden.assertion is not None
    assert hidden.name_id.encode() not in hidden.raw
    assert b"tripledes" not in hidden.raw
    assert b"-cbc" not in hidden.raw
    assert xmlsec1_verifies(hidden.raw, certificate, "Response", tmp_path)
    assert b"SessionIndex" in xmlsec1_decrypts(hidden.raw, sealed, tmp_path)


def xmlsec1_decrypts(octets: bytes, sp: ServiceProvider, folder: Path) -> bytes:
    """The EncryptedData as the xmlsec1 program opens it with the service provider's key."""

    assert sp.encryption is not None
    (folder / "key.pem").write_bytes(sp.encryption.private_pem)
    data = etree.fromstring(octets).find(".//xenc:EncryptedData", NS)
    (folder / "data.xml").write_bytes(etree.tostring(data))
    done = subprocess.run(
        ["xmlsec1", "--decrypt", "--privkey-pem", str(folder / "key.pem"), str(folder / "data.xml")], capture_output=True, check=True
    )  # fmt: skip
    return done.stdout


@SQLITE
def test_SA_13_encrypt_or_refuse_never_plaintext(world: World, browser: Browser) -> None:
    """Registered without a certificate: refused. The certificate went away later: an error page and no assertion (trap F5)."""
    with pytest.raises(Invalid) as error:
        world.service_provider(ServiceProvider("bare"), encrypt=True)
    assert error.value.field == "encrypt"
    elliptic = ServiceProvider("elliptic", encryption=pair("elliptic", "ec"))
    with pytest.raises(Invalid):
        world.service_provider(elliptic, encrypt=True)
    sp = world.service_provider(ServiceProvider("sealed", encryption=pair("encryption")), encrypt=True)
    browser.log_in(world.person())
    with world.app.app_context(), transaction() as session:
        session.query(Row).update({"encryption_certs": []})
    page = browser.get(sp.redirect_url())
    assert page.status_code == 400
    assert "SAMLResponse" not in page.text
    assert world.rows(select(AppSession.id)) == []


def test_SA_06_SA_08_requests_that_are_accepted(world: World, browser: Browser) -> None:
    """POST with an XML signature; Redirect signed, also with lower-case escapes; an elliptic key; an expired certificate."""
    sps = [
        world.service_provider(ServiceProvider(name, pair=keys, signs_requests=True))
        for name, keys in (("rsa", pair("sp")), ("ec", pair("ec", "ec")), ("old", pair("old", expired=True)))
    ]
    browser.log_in(world.person())
    for sp in sps:
        assert sp.sign_on(browser, relay="ü /+").status == SUCCESS
        form = sp.post_form(relay="r")
        page = browser.post("/saml/sso", form, **{"Sec-Fetch-Site": "cross-site"})
        assert sp.take(page, browser).relay_state == "r"
    rsa = sps[0]
    query = rsa.redirect_url(relay="a/b").partition("?")[2]

    lower = sign_query("SAMLRequest", deflate(etree.tostring(rsa.authn_request())), rsa.pair, relay="a/b", lower=True)
    assert re.search("%[0-9]?[a-f]", lower)
    assert query != lower
    assert rsa.take(browser.get(f"/saml/sso?{lower}"), browser).relay_state == "a/b"


def test_SA_08_SA_09_requests_that_are_not(world: World, browser: Browser) -> None:
    """Unsigned although the metadata signs (trap F3); addresses that only look like ours; the same request twice."""
    strict = world.service_provider(ServiceProvider("strict", signs_requests=True))
    sp = world.service_provider(
        ServiceProvider("coupon", acs=("https://coupon.example/acs", "https://coupon.example/second"))
    )
    browser.log_in(world.person())
    assert browser.get(strict.redirect_url(signed=False)).status_code == 403
    for url in (
        "https://coupon.example/acs/", "https://coupon.example/acs?x", "https://COUPON.example/acs", "https://coupon.example\\acs",
        "http://coupon.example/acs", "https://evil.example/acs", "javascript:alert(1)",
    ):  # fmt: skip
        page = browser.get(sp.redirect_url(AssertionConsumerServiceURL=url, signed=True))
        assert page.status_code == 403, url
        assert "SAMLResponse" not in page.text
    assert (
        browser.get(sp.redirect_url(AssertionConsumerServiceURL=None, AssertionConsumerServiceIndex="9")).status_code
        == 403
    )
    second = sp.redirect_url(AssertionConsumerServiceURL=None, AssertionConsumerServiceIndex="1")
    assert browser.forms(browser.get(second))[0]["action"] == "https://coupon.example/second"
    assert browser.get(second).status_code == 400, "start again"
    artifact = sp.redirect_url(ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Artifact")
    assert sp.take(browser.get(artifact), browser).second == "UnsupportedBinding"


def test_SA_10_force_passive_and_context(world: World, browser: Browser) -> None:
    """ForceAuthn asks again and moves AuthnInstant; IsPassive shows nothing; a class is met, stepped up to, or refused."""
    sp, person = world.service_provider(ServiceProvider("coupon")), world.person(totp=True)
    silent = sp.redirect_url(IsPassive="true")
    assert sp.take(browser.get(silent), browser).second == "NoPassive"
    start = clock.now()
    with time_machine.travel(start, tick=False) as clockwork:
        browser.log_in(person)
        first = sp.sign_on(browser)
        assert first.authn_context == "https://refeds.org/profile/mfa"
        clockwork.move_to(start + timedelta(minutes=2))
        page = browser.get(sp.redirect_url(ForceAuthn="true"))
        assert "/login" in str(page.url)
        page = browser.submit(login_id=person.login, password=person.password)
        forced = sp.take(browser.submit(code=person.code()), browser)
        instants = [a.assertion.find("saml:AuthnStatement", NS).get("AuthnInstant") for a in (first, forced)]
        assert instants[0] < instants[1]
        for wish, second in (
            (context("urn:sekisho:aal3"), "NoAuthnContext"), (context(f"{AC}Kerberos"), "NoAuthnContext"),
            (context("urn:sekisho:aal2", comparison="better"), "NoAuthnContext"),
        ):  # fmt: skip
            assert sp.sign_on(browser, wish).second == second
        for wish, found in (
            (context(f"{AC}PasswordProtectedTransport"), f"{AC}PasswordProtectedTransport"),
            (context(f"{AC}PasswordProtectedTransport", comparison="minimum"), "https://refeds.org/profile/mfa"),
            (context(f"{AC}Kerberos", "https://refeds.org/profile/mfa"), "https://refeds.org/profile/mfa"),
            (context("urn:sekisho:aal1", comparison="better"), "https://refeds.org/profile/mfa"),
        ):  # fmt: skip
            assert sp.sign_on(browser, wish).authn_context == found


@SQLITE
def test_SA_05_every_key_of_the_metadata_and_no_other(world: World, browser: Browser) -> None:
    """Both certificates of a service provider that rolls its key; what a message says of keys in its KeyInfo is not read, be it
    somebody else's."""
    sp = ServiceProvider("coupon", signs_requests=True, also=pair("next"))
    world.service_provider(sp)
    browser.log_in(world.person())
    for keys in (pair("next"), pair("sp")):
        sp.pair = keys
        assert sp.sign_on(browser).status == SUCCESS
        signed = sign_xml(sp.authn_request(), sp.pair)
        info = signed.find("ds:Signature/ds:KeyInfo", NS)
        foreign = etree.fromstring(
            etree.tostring(sign_xml(sp.authn_request(), pair("other")).find("ds:Signature/ds:KeyInfo", NS))
        )
        info.getparent().replace(info, foreign)
        page = browser.post(
            "/saml/sso",
            {"SAMLRequest": base64.b64encode(etree.tostring(signed)).decode()},
            **{"Sec-Fetch-Site": "cross-site"},
        )
        assert sp.take(page, browser).status == SUCCESS


def test_SA_05_SA_08_what_a_process_remembers_of_a_service_provider_decides_nothing(
    world: World, browser: Browser
) -> None:
    """Another process changes keys, the duty to sign, addresses, the name's kind: the next request is judged by that, both ways."""
    sp = ServiceProvider("coupon", signs_requests=True)
    world.service_provider(sp)
    old, new = pair("sp"), pair("next")
    browser.log_in(world.person())

    def elsewhere(**values: object) -> None:
        assert sp.entity_id in world.services.saml_providers, "remembered, so that there is something to be wrong about"
        with world.app.app_context(), transaction() as session:
            session.execute(update(Row).where(Row.entity_id == sp.entity_id).values(**values))

    def status(*, signed: bool = True, **attributes: str | None) -> int:
        return browser.get(sp.redirect_url(signed=signed, **attributes)).status_code

    assert (status(), status(signed=False)) == (200, 403)
    elsewhere(signing_certs=[new.der])
    assert status() == 403
    sp.pair = new
    assert status() == 200
    elsewhere(signing_certs=[old.der, new.der], requests_signed=False)
    assert status(signed=False) == 200
    elsewhere(requests_signed=True)
    assert status(signed=False) == 403
    first, second = sp.acs[0], "https://coupon.example/second"
    elsewhere(acs=[{"url": second, "index": 0, "default": True}])
    assert status(AssertionConsumerServiceURL=first) == 403
    assert browser.forms(browser.get(sp.redirect_url(AssertionConsumerServiceURL=second)))[0]["action"] == second
    elsewhere(acs=[{"url": first, "index": 0, "default": True}], name_id="transient")
    with world.app.app_context(), reading() as session:
        kept = session.scalar(select(SamlSubject.value).where(SamlSubject.kind == "persistent"))
    answer = sp.sign_on(browser)
    assert answer.name_id_format == F + "transient"
    assert answer.name_id != kept
    elsewhere(name_id="email", email_pattern="{login_name}@example.jp")
    wanted = policy(F + "persistent")
    assert sp.sign_on(browser, wanted).second == "InvalidNameIDPolicy"
    elsewhere(name_id="persistent")
    assert sp.sign_on(browser, wanted).name_id == kept


@SQLITE
def test_SA_08_what_is_not_done_is_said_and_not_left_out(world: World, browser: Browser) -> None:
    """A context by declaration, a subject confirmation, another kind of name: a signed no with the status of each."""
    sp = world.service_provider(ServiceProvider("coupon"))
    browser.log_in(world.person())
    name = sp.sign_on(browser).name_id
    confirmation = '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>'
    declared = "<samlp:RequestedAuthnContext><saml:AuthnContextDeclRef>urn:x</saml:AuthnContextDeclRef></samlp:RequestedAuthnContext>"
    for wish, second in (
        (declared, "NoAuthnContext"), (f"<saml:Subject>{confirmation}</saml:Subject>", "RequestUnsupported"),
        (f"<saml:Subject><saml:NameID>{name}</saml:NameID>{confirmation}</saml:Subject>", "RequestUnsupported"),
        (policy(f"{F}kerberos"), "InvalidNameIDPolicy"),
    ):  # fmt: skip
        answer = sp.sign_on(browser, wish)
        assert (answer.second, answer.assertion) == (second, None)


@SQLITE
def test_SA_08_what_ended_while_a_person_logs_in_gets_no_answer(world: World, browser: Browser) -> None:
    """The address of a stored request was taken out of the metadata, or the application ended: an error page and no assertion."""
    sp, person = world.service_provider(ServiceProvider("coupon")), world.person()
    pages = []
    browser.get(sp.redirect_url())
    with world.app.app_context(), transaction() as session:
        session.query(Row).update({"acs": [{"url": "https://coupon.example/other", "index": 0, "default": True}]})
    pages.append(browser.log_in(person, at=""))
    with world.app.app_context(), transaction() as session:
        session.query(Row).update({"acs": [{"url": sp.acs[0], "index": 0, "default": True}]})
        session.query(Application).update({"ended_at": clock.now()})
    with Browser(world.app) as stranger:  # nobody is asked for a password in the name of an application that is over
        pages.append(stranger.get(sp.redirect_url()))
    for page in pages:
        assert page.status_code == 403
        assert "このアプリの利用は終わりました" in page.text
        assert "SAMLResponse" not in page.text
    assert world.rows(select(AppSession.id)) == []


@SQLITE
def test_SA_09_a_message_is_remembered_as_long_as_it_is_fresh(world: World, browser: Browser) -> None:
    """Also over a sweep of the worker: the same request and the same logout at the end of their three minutes."""
    sp, start = world.service_provider(ServiceProvider("coupon", redirect_logout=True)), clock.now()
    with time_machine.travel(start, tick=False) as clockwork:
        browser.log_in(world.person())
        request, answer = sp.redirect_url(), sp.sign_on(browser)
        assert sp.take(browser.get(request), browser).status == SUCCESS
        logout = sp.logout_url(answer, name_id="nobody here")
        assert browser.get(logout, follow=False).status_code == 303
        clockwork.move_to(start + timedelta(seconds=179))
        world.deliver()
        assert browser.get(request).status_code == 400
        replayed = browser.get(logout, follow=False)
        assert sp.read_logout_response(replayed.headers["location"])[:2] == ("Requester", "RequestDenied")


@SQLITE
def test_SA_11_SA_12_what_an_answer_says_and_until_when(world: World, browser: Browser) -> None:
    """Both signatures, over SHA-256, by a key of 3072 bits; five minutes, one audience, one recipient, the end of the session."""
    sp, start = (
        world.service_provider(ServiceProvider("coupon"), session_life_s=600),
        clock.now().replace(microsecond=0),
    )
    with time_machine.travel(start, tick=False):
        browser.log_in(world.person())
        answer = sp.sign_on(browser)
    root, said = etree.fromstring(answer.raw), answer.assertion
    assert [n.getparent().tag.rpartition("}")[2] for n in root.iter(f"{{{NS['ds']}}}Signature")] == [
        "Response",
        "Assertion",
    ]
    used = {
        n.get("Algorithm") for name in ("SignatureMethod", "DigestMethod") for n in root.iter(f"{{{NS['ds']}}}{name}")
    }
    assert used == ALGORITHMS
    assert {len(base64.b64decode(n.text)) for n in root.iter(f"{{{NS['ds']}}}SignatureValue")} == {384}
    data = said.find("saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData", NS)
    assert (data.get("Recipient"), data.get("InResponseTo")) == (sp.acs[0], sp.request_id)
    conditions, until = said.find("saml:Conditions", NS), stamp(start + timedelta(minutes=5))
    assert data.get("NotOnOrAfter") == conditions.get("NotOnOrAfter") == until
    assert conditions.get("NotBefore") == stamp(start - timedelta(minutes=1))
    assert [n.text for n in conditions.iter(f"{{{NS['saml']}}}Audience")] == [sp.entity_id]
    (statement,) = said.findall("saml:AuthnStatement", NS)
    assert statement.get("SessionNotOnOrAfter") == stamp(start + timedelta(seconds=600))
    assert root.get("Destination") == sp.acs[0]


@SQLITE
def test_SA_10_a_weaker_login_is_stepped_up(world: World, browser: Browser) -> None:
    """One factor was shown, two are asked for, and there is no second yet: enrolment comes first, and then the answer."""
    sp = world.service_provider(ServiceProvider("coupon"))
    browser.log_in(world.person())
    wish = context("https://refeds.org/profile/mfa")
    assert sp.take(browser.get(sp.redirect_url(wish, IsPassive="true")), browser).second == "NoAuthnContext"
    assert "/me/security/totp/new" in str(browser.get(sp.redirect_url(wish)).url)


def test_SA_14_names(world: World, browser: Browser) -> None:
    """Persistent: pairwise, the same after a second login. Transient: new each time. What is not offered is refused."""
    one, two = world.service_provider(ServiceProvider("one")), world.service_provider(ServiceProvider("two"))
    browser.log_in(world.person())
    assert one.sign_on(browser, policy(f"{F}persistent", AllowCreate="false")).second == "InvalidNameIDPolicy"
    mine = one.sign_on(browser, policy(f"{F}persistent", AllowCreate="true"))
    assert mine.name_id == one.sign_on(browser, policy(f"{F}persistent", AllowCreate="false")).name_id
    assert mine.name_id != two.sign_on(browser).name_id
    name = mine.assertion.find("saml:Subject/saml:NameID", NS)
    assert (name.get("NameQualifier"), name.get("SPNameQualifier")) == (
        "http://localhost:8000/saml/metadata",
        one.entity_id,
    )
    brief = [one.sign_on(browser, policy(f"{F}transient")) for _ in range(2)]
    assert len({a.name_id for a in brief}) == 2
    assert {a.name_id_format for a in brief} == {f"{F}transient"}
    email = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
    assert one.sign_on(browser, policy(email)).second == "InvalidNameIDPolicy"
    assert one.sign_on(browser, policy(f"{F}persistent", SPNameQualifier=two.entity_id)).second == "InvalidNameIDPolicy"
    subject = f"<saml:Subject><saml:NameID>{mine.name_id}</saml:NameID></saml:Subject>"
    assert one.sign_on(browser, subject).name_id == mine.name_id
    assert one.sign_on(browser, subject.replace(mine.name_id, "somebody-else")).second == "UnknownPrincipal"


def test_SA_14_RV_31_an_email_name_is_never_a_second_persons(world: World, browser: Browser) -> None:
    """The staff number of somebody who left is given again: the new person does not get into the old account at the application."""
    sp = world.service_provider(
        ServiceProvider("mail"), name_id="email", email_pattern="{login_name}.{company}@staff.example.jp"
    )
    old = world.person()
    browser.log_in(old)
    assert sp.sign_on(browser).name_id == "0413.aoba@staff.example.jp"
    cut(world, old.id)
    new = world.person()
    assert new.login == old.login
    with Browser(world.app) as other:
        other.log_in(new)
        assert sp.sign_on(other).second == "UnknownPrincipal"


def test_SA_14_mapped_accounts_are_shared_there_and_persons_here(world: World) -> None:
    """Two people, one account at the application: our log keeps who it was, and the receipt gives the cut to a person."""
    sp = world.service_provider(ServiceProvider("shared"), name_id="mapped")
    people = [world.person("0001"), world.person("0002"), world.person("0003")]
    with world.app.app_context(), transaction() as session:
        application = session.scalar(select(Application).where(Application.slug == "shared"))
        for person in people[:2]:
            account = session.get(Account, person.id)
            names.map_account(session, application, account, "shop-aoba", actor=CLI, now=clock.now())
    answers: list[Answer] = []
    for person in people:
        with Browser(world.app) as browser:
            browser.log_in(person)
            answers.append(sp.sign_on(browser))
    assert [a.name_id for a in answers[:2]] == ["shop-aoba"] * 2
    assert answers[0].session_index != answers[1].session_index
    assert answers[2].second == "UnknownPrincipal"
    logged = world.rows(select(AuditEvent.subject_id).where(AuditEvent.tag == Tag.ASSERTION_ISSUED))
    assert {row.subject_id for row in logged} == {people[0].id, people[1].id}
    cut(world, people[0].id)
    world.deliver()
    (kind,) = [row for row in world.rows(select(Cut.kind, Cut.state)) if row.kind == "SAML_LOGOUT"]
    assert kind.state == "needs_person"


def test_SA_14_RV_01_another_mapped_account_ends_the_old_one(world: World, outbound: RecordingOutbound) -> None:
    """The session under the old shared name is told by its name and index, with a receipt; the next answer has the new name. The
    same name again, or a first one, ends nothing. Who cannot end a single session gets a line for a person."""
    exact = world.service_provider(ServiceProvider("exact"), name_id="mapped", honours_session_index=True)
    coarse = world.service_provider(ServiceProvider("coarse"), name_id="mapped")
    outbound.behave(exact.soap_url, lambda call: answers(200, exact.honest(call.body))(call))
    person = world.person()

    def work_as(sp: ServiceProvider, name: str) -> str | None:
        with world.app.app_context(), transaction(reserved=True) as session:
            application, account = session.get_one(Application, sp.application_id), session.get_one(Account, person.id)
            made = remap(session, application, account, name, Order(Reason.OTHER, Door.CLI), actor=CLI, now=clock.now())
            return made.number if made else None

    for sp in (exact, coarse):
        assert work_as(sp, "shop-a") is None
    with Browser(world.app) as browser:
        browser.log_in(person)
        old = exact.sign_on(browser)
        coarse.sign_on(browser)
        assert work_as(exact, "shop-a") is None
        assert work_as(exact, "shop-b") is not None
        new = exact.sign_on(browser)
        assert (old.name_id, new.name_id) == ("shop-a", "shop-b")
        assert new.session_index != old.session_index
        assert work_as(coarse, "shop-b") is not None
        assert "/login" not in str(browser.get("/").url), "the person goes on working"
    world.deliver()
    (call,) = outbound.calls
    asked = etree.fromstring(call.body).find("soap:Body/samlp:LogoutRequest", NS)
    assert asked.findtext("saml:NameID", namespaces=NS) == "shop-a"
    assert [n.text for n in asked.findall("samlp:SessionIndex", NS)] == [old.session_index]
    states = [row.state for row in world.rows(select(Cut.state).where(Cut.kind == "SAML_LOGOUT").order_by(Cut.id))]
    assert states == ["done", "needs_person"]


@SQLITE
def test_attributes_are_mapped_per_service_provider(world: World, browser: Browser) -> None:
    """Names and formats of the standard, a constant, and nothing that the mapping leaves out."""
    mapping = (
        {"name": "urn:oid:0.9.2342.19200300.100.1.1", "format": "uri", "friendly": "uid", "source": "login_name"},
        {"name": "shop", "format": "unspecified", "source": "stores"}, {"name": "kind", "format": "basic", "source": "const:staff"},
    )  # fmt: skip
    sp = world.service_provider(ServiceProvider("coupon"), attributes=mapping)
    browser.log_in(world.person())
    answer = sp.sign_on(browser)
    assert answer.attributes == {"urn:oid:0.9.2342.19200300.100.1.1": ["0413"], "shop": ["S1"], "kind": ["staff"]}
    formats = [n.get("NameFormat").rsplit(":", 1)[-1] for n in answer.assertion.iter(f"{{{NS['saml']}}}Attribute")]
    assert formats == ["uri", "unspecified", "basic"]


def test_SA_18_nobody_asked(world: World, browser: Browser) -> None:
    """An answer without a request: off by default; opted in, to the default address, with a target of the list only."""
    closed = world.service_provider(ServiceProvider("closed"))
    sp = world.service_provider(ServiceProvider("opened"), idp_initiated=True, idp_targets=("home",))
    browser.log_in(world.person())
    assert browser.get("/saml/start/closed").status_code == 404
    assert browser.get("/saml/start/unknown").status_code == 404
    assert browser.get("/saml/start/opened?target=https://evil.example").status_code == 404
    answer = sp.take(browser.get("/saml/start/opened?target=home"), browser)
    assert (answer.in_response_to, answer.relay_state, answer.status) == (None, "home", SUCCESS)
    portal = browser.get("/").text
    assert "/apps/opened/open" in portal
    assert "/apps/closed/open" not in portal
    assert closed.sign_on(browser).status == SUCCESS


@SQLITE
def test_a_connection_that_is_not_live_is_for_its_administrators(world: World, browser: Browser) -> None:
    """Before going live only people who manage applications get in; everybody else is told that they may not."""
    sp = world.service_provider(ServiceProvider("coupon"), live=False)
    browser.log_in(world.person())
    assert browser.get(sp.redirect_url()).status_code == 403
    with Browser(world.app) as admin:
        admin.log_in(world.person("hq", role=Role.HQ_ADMIN))
        assert sp.sign_on(admin).status == SUCCESS


def test_SA_16_a_roll_without_a_gap_and_a_pinned_key(world: World, browser: Browser) -> None:
    """Published, waiting, signing, withdrawn: both certificates stand in the metadata until the old one has gone, the answer
    is signed by the one that ought to, and a service provider that pins the old one keeps it. A withdrawn key signs nothing."""
    sp, pinned = world.service_provider(ServiceProvider("coupon")), world.service_provider(ServiceProvider("pins"))
    browser.log_in(world.person())
    services, start = world.services, clock.now()

    def certificates() -> list[str]:
        found = etree.fromstring(browser.http.get("/saml/metadata").content)
        return [n.text for n in found.findall(".//md:KeyDescriptor//ds:X509Certificate", NS)]

    def signer(peer: ServiceProvider) -> str:
        return str(
            etree.fromstring(peer.sign_on(browser).raw).findtext("ds:Signature//ds:X509Certificate", namespaces=NS)
        )

    (old,) = certificates()
    with world.app.app_context(), transaction() as session:
        row = session.scalar(select(Row).where(Row.entity_id == pinned.entity_id))
        kid = services.saml_keys.signing(now=start).kid
        saml.change_decisions(session, row, {"pin_key": kid}, actor=CLI, now=start)
    with world.app.app_context():
        made = rotate_saml_key(
            services.vault, publish_for=timedelta(minutes=10), keep_for=timedelta(minutes=10), now=start
        )
    with time_machine.travel(start + timedelta(seconds=11), tick=False) as clockwork:
        assert certificates() == [old, made.certificate]
        assert signer(sp) == old
        clockwork.move_to(start + timedelta(minutes=11))
        assert certificates() == [made.certificate, old]
        assert (signer(sp), signer(pinned)) == (made.certificate, old)
        clockwork.move_to(start + timedelta(minutes=21))
        assert certificates() == [made.certificate]
        assert (signer(sp), signer(pinned)) == (made.certificate, old)
        with world.app.app_context():
            fresh = withdraw_saml_key(services.vault, kid, now=clock.now())
        assert fresh is not None
        clockwork.move_to(start + timedelta(minutes=22))
        assert signer(pinned) == fresh.certificate


@SQLITE
def test_SA_15_changed_metadata_waits_for_a_person(world: World, browser: Browser) -> None:
    """Another ACS or key in a replaced document is held, and until somebody approves exactly it nothing goes there. Dates alone
    are taken. Another entityID, an end in the past, a DTD, two service providers: refused with a sentence."""
    sp = world.service_provider(ServiceProvider("coupon"))
    browser.log_in(world.person())
    now = clock.now()

    def receive(document: bytes) -> list[str]:
        with world.app.app_context(), transaction() as session:
            row = session.scalar(select(Row))
            facts = metadata.read(document, now=now)
            return [d.what for d in sp_metadata.receive(session, row, facts, loopback=True, actor=CLI, now=now)]

    assert receive(sp.metadata(valid_until=now + timedelta(days=3))) == []
    assert world.rows(select(Row.metadata_until))[0][0] is not None
    evil = sp.metadata(acs=("https://evil.example/acs",))
    assert receive(evil) == ["acs"]
    assert browser.get(sp.redirect_url(AssertionConsumerServiceURL="https://evil.example/acs")).status_code == 403
    assert sp.sign_on(browser).status == SUCCESS
    with world.app.app_context(), pytest.raises(Conflict), transaction() as session:
        sp_metadata.approve(session, session.scalar(select(Row)), digest="0" * 64, actor=CLI, now=now)
    (held,) = world.rows(select(Row.held))
    with world.app.app_context(), transaction() as session:
        sp_metadata.approve(session, session.scalar(select(Row)), digest=held[0]["digest"], actor=CLI, now=now)
    page = browser.get(sp.redirect_url(AssertionConsumerServiceURL="https://evil.example/acs"))
    assert browser.forms(page)[0]["action"] == "https://evil.example/acs"
    for bad in (
        ServiceProvider("other").metadata(), sp.metadata(valid_until=now - timedelta(days=1)),
        sp.metadata().replace(b"<md:Entity", b"<!DOCTYPE x><md:Entity", 1), b"<html/>", b"",
        sp.metadata().replace(b'use="signing"', b'use="signing" x="1"'),
    ):  # fmt: skip
        with pytest.raises(Invalid) as error:
            receive(bad)
        assert error.value.field == "metadata"


@SQLITE
def test_SA_15_what_is_approved_is_what_was_looked_at(world: World) -> None:
    """Nothing is held; it cannot be encrypted for any more; it changed while somebody looked."""
    sp = world.service_provider(ServiceProvider("coupon", encryption=pair("encryption")), encrypt=True)
    now = clock.now()

    def hold(document: bytes) -> str:
        with world.app.app_context(), transaction() as session:
            facts = metadata.read(document, now=now)
            sp_metadata.receive(session, session.scalar(select(Row)), facts, loopback=True, actor=CLI, now=now)
        return facts.digest

    with world.app.app_context():
        with pytest.raises(Conflict), transaction() as session:
            sp_metadata.approve(session, session.scalar(select(Row)), digest="0" * 64, actor=CLI, now=now)
        digest = hold(ServiceProvider("coupon").metadata())
        with pytest.raises(Invalid), transaction() as session:
            sp_metadata.approve(session, session.scalar(select(Row)), digest=digest, actor=CLI, now=now)
        digest = hold(sp.metadata(acs=("https://coupon.example/first",)))
        with reading() as session:
            looked_at = session.scalar(select(Row))
        now += timedelta(seconds=1)
        hold(sp.metadata(acs=("https://coupon.example/second",)))
        with pytest.raises(Conflict), transaction() as session:
            sp_metadata.approve(session, looked_at, digest=digest, actor=CLI, now=now)
    assert world.rows(select(Row.acs))[0][0][0]["url"] == sp.acs[0]


def test_SA_21_RV_01_a_revocation_tells_by_soap_or_says_until_when(world: World, browser: Browser) -> None:
    """With SOAP a delivery waits; without, the line lives until the session that we granted ends, and is never called cut."""
    told, front = (
        world.service_provider(ServiceProvider("told")),
        world.service_provider(ServiceProvider("front", soap=False)),
    )
    person = world.person()
    browser.log_in(person)
    for peer in (told, front):
        peer.sign_on(browser)
    number = cut(world, person.id)
    assert re.fullmatch(r"R-.*", number)
    lines = {row.kind: row for row in world.rows(select(Cut.kind, Cut.state, Cut.residual_until, Cut.grade))}
    assert (lines["SAML_LOGOUT"].state, lines["SAML_LOGOUT"].grade) == ("waiting", None)
    (row,) = world.rows(select(AppSession.ends_at).where(AppSession.application_id == front.application_id))
    assert (lines["APPLICATION_LOGIN"].state, lines["APPLICATION_LOGIN"].residual_until) == ("waiting", row.ends_at)
