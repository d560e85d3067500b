"""The `xmlsec1` program verifies and opens everything that we emit in XML: a second implementation, with a parser of its own.

Response, Assertion and metadata as they are sent are looked at in tests/protocol/saml; here are the rest: refusals, logout on both
bindings that sign XML, metadata in the middle of a roll, and the assertion inside an encrypted answer.
"""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from lxml import etree

from idp.core import clock
from idp.core.saml_keys import rotate_saml_key
from tests.actors import Browser, World
from tests.fakes.outbound import RecordingOutbound
from tests.interop.conftest import missing
from tests.protocol.saml.test_sso import xmlsec1_decrypts
from tests.saml import NS, ServiceProvider, pair, xmlsec1, xmlsec1_verifies

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def program() -> None:
    """It is installed."""
    if xmlsec1() is None:
        missing("no xmlsec1 found (Debian: xmlsec1)")


class Poster(ServiceProvider):
    """A service provider that has POST for logout."""

    def metadata(self, **given: object) -> bytes:
        """As another one's, with the other binding."""
        return super().metadata(**given).replace(b"bindings:HTTP-Redirect", b"bindings:HTTP-POST")  # type: ignore[arg-type]


def posted(browser: Browser, page: httpx2.Response, name: str) -> bytes:
    """The message that a page carries on."""
    (form,) = (f for f in browser.forms(page) if name in f["fields"])
    return base64.b64decode(form["fields"][name])


def certificates(browser: Browser) -> list[str]:
    """Those of our metadata, the one that signs first."""
    root = etree.fromstring(browser.http.get("/saml/metadata").content)
    return [node.text for node in root.findall(".//md:IDPSSODescriptor//ds:X509Certificate", NS)]


@SQLITE
def test_SA_32_refusals_and_logout(world: World, browser: Browser, outbound: RecordingOutbound, tmp_path: Path) -> None:
    """A refusal, our LogoutRequest and our LogoutResponse, each by POST and by SOAP; and none of them after one octet changed."""
    told, post = (
        world.service_provider(ServiceProvider("told")),
        world.service_provider(Poster("post", soap=False, redirect_logout=True)),
    )
    (certificate,) = certificates(browser)
    sent: dict[str, tuple[str, bytes]] = {}
    sent["a refusal"] = ("Response", posted(browser, browser.get(told.redirect_url(IsPassive="true")), "SAMLResponse"))

    person = world.person()
    browser.log_in(person)
    here = told.sign_on(browser)
    post.sign_on(browser)
    sent["an answer by SOAP"] = ("LogoutResponse", told.soap_logout(browser, here).content)

    browser.log_in(person)
    told.sign_on(browser)
    there = post.sign_on(browser)
    page = browser.get(post.logout_url(there))
    sent["an answer by POST"] = ("LogoutResponse", posted(browser, page, "SAMLResponse"))
    world.deliver()
    sent["a request by SOAP"] = ("LogoutRequest", outbound.calls[-1].body)

    browser.log_in(person)
    post.sign_on(browser)
    page = browser.post("/logout", {"csrf_token": browser.forms(browser.get("/"))[0]["fields"]["csrf_token"]})
    (link,) = re.findall(r'href="(/saml/slo/part[^"]+)"', page.text)
    page = browser.get(link.replace("&amp;", "&"))
    sent["a request by POST"] = ("LogoutRequest", posted(browser, page, "SAMLRequest"))

    assert len(sent) == 5
    for what, (node, octets) in sent.items():
        assert xmlsec1_verifies(octets, certificate, node, tmp_path), what
        assert not xmlsec1_verifies(
            octets.replace(b'Version="2.0"', b'Version="2.1"', 1), certificate, node, tmp_path
        ), what


@SQLITE
def test_SA_13_SA_16_encrypted_answers_and_a_roll(world: World, browser: Browser, tmp_path: Path) -> None:
    """Opened by the program, what is inside is an assertion whose own signature holds; metadata in a roll is signed by its first
    key, and the answers of that day by the same."""
    sealed = world.service_provider(ServiceProvider("sealed", encryption=pair("encryption")), encrypt=True)
    browser.log_in(world.person())
    services, now = world.app.extensions["sekisho"], clock.now()
    with world.app.app_context():
        rotate_saml_key(services.vault, publish_for=timedelta(days=2), keep_for=timedelta(days=14), now=now)
        services.saml_keys.forget()
    first, second = certificates(browser)
    document = browser.http.get("/saml/metadata").content
    assert xmlsec1_verifies(document, first, "EntityDescriptor", tmp_path)
    assert not xmlsec1_verifies(document, second, "EntityDescriptor", tmp_path)

    answer = sealed.sign_on(browser)
    assert xmlsec1_verifies(answer.raw, first, "Response", tmp_path)
    opened = xmlsec1_decrypts(answer.raw, sealed, tmp_path)
    assert etree.fromstring(opened).tag == f"{{{NS['saml']}}}Assertion"
    assert xmlsec1_verifies(opened, first, "Assertion", tmp_path)
    assert not xmlsec1_verifies(opened.replace(answer.name_id.encode(), b"nobody"), first, "Assertion", tmp_path)
