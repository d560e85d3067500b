"""Five service providers that others wrote log people in, log them out and are cut, as docs/integrate/saml.md sets them up.

mod_auth_mellon, mod_shib, SimpleSAMLphp, python3-saml and node-saml, each twice: with plain and with encrypted assertions. The
programs are the judges: each validates signatures, times, audience, InResponseTo and its own name by its own reading of the
standard. One engine: the wire is the same on both databases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.interop import npm
from tests.interop.conftest import missing
from tests.interop.installation import Installation, Someone
from tests.interop.processes import wait_for
from tests.interop.saml import mellon, shibboleth, simplesaml, toolkits
from tests.interop.saml.places import Place, Server, seen
from tests.interop.saml.surfer import Surfer

MAKERS: dict[str, tuple[Callable[[str], Server], ...]] = {
    "mellon": (mellon.Mellon,),
    "shib": (shibboleth.Shibboleth,),
    "ssp": (simplesaml.SimpleSaml,),
    "python": (
        lambda issuer: toolkits.PythonSaml(issuer, "python", sealed=False),
        lambda issuer: toolkits.PythonSaml(issuer, "python-sealed", sealed=True),
    ),
    "node": (
        lambda issuer: toolkits.NodeSaml(issuer, "node", sealed=False),
        lambda issuer: toolkits.NodeSaml(issuer, "node-sealed", sealed=True, posts=True),
    ),
}
SIGNED = ("mellon", "mellon-sealed", "shib", "shib-sealed")
MUTE = ("ssp", "ssp-sealed")
SOAP = (*SIGNED, *MUTE)
FRONT = ("python", "python-sealed", "node", "node-sealed")
TOLD_S = 40.0


@dataclass
class Landscape:
    """All service providers, running and registered."""

    installation: Installation
    places: dict[str, Place]
    logs: Callable[[], str]

    def surfer(self) -> Surfer:
        """A browser that may go to all of them."""
        return Surfer(self.installation.issuer, {place.origin for place in self.places.values()})


@pytest.fixture(scope="module")
def land(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landscape]:
    """Started together, each with our metadata; then registered with its own, both as they were published."""
    reasons = (
        mellon.why_not(),
        shibboleth.why_not(),
        simplesaml.why_not(),
        toolkits.python_why_not(),
        npm.why_not(),
    )
    for reason in reasons:
        if reason:
            missing(reason)
    folder = tmp_path_factory.mktemp("saml")
    metadata = httpx2.get(f"{installation.issuer}/saml/metadata", timeout=20).content
    with ExitStack() as stack:
        servers: list[Server] = []
        for makers in MAKERS.values():
            for make in makers:
                server = make(installation.issuer)
                stack.callback(server.close)
                servers.append(server)
                server.start(metadata)
        places: dict[str, Place] = {}
        for server in servers:
            server.ready()
            for place in server.places:
                register(installation, place, folder)
                places[place.slug] = place
        assert set(places) == {*SOAP, *FRONT}
        yield Landscape(
            installation, places, lambda: "\n".join([*(server.log() for server in servers), installation.logs()])
        )


def register(installation: Installation, place: Place, folder: Path) -> None:
    """With the metadata that the program itself publishes."""
    file = folder / f"{place.slug}.xml"
    file.write_bytes(place.metadata())
    made = installation.add_saml(place.slug, file, *place.options)
    assert (made["soap_logout"] is not None) == place.soap
    assert made["encrypt"] == place.sealed
    assert made["signed_requests"], f"{place.slug} does not say that it signs its requests"


@pytest.mark.parametrize("slug", [*SOAP, *FRONT])
def test_login_attributes_logout(land: Landscape, slug: str) -> None:
    """SA-08, SA-11, SA-13, SA-20: the program accepts all that we send, shows what we said, and ends with our login."""
    place, person = land.places[slug], land.installation.colleague
    with land.surfer() as browser:
        browser.visit(place.page)
        assert browser.asks_for_login, f"{browser.page.url}\n{browser.page.text[:3000]}\n{land.logs()}"
        shown = seen(browser.enter(person))
        assert shown["name"] == [person.name]
        assert shown["stores"] == [person.store]
        assert shown["functions"] == ["points.view"]
        assert shown["preferred_username"] == [person.login]
        if place.denied:
            assert browser.visit(place.denied).status_code in {401, 403}
        gone = browser.visit(place.logout)
        assert str(gone.url) == place.bye, f"{gone.url}\n{gone.text[:3000]}\n{land.logs()}"
        browser.visit(place.page)
        assert browser.asks_for_login, land.logs()


@dataclass
class Cut:
    """A revocation of somebody who was logged in everywhere from two devices, while a colleague was, too."""

    person: Someone
    devices: list[Surfer]
    colleague: Surfer
    lines: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cut(land: Landscape) -> Iterator[Cut]:
    """Everywhere at once, once: what is looked at afterwards is the same for all service providers."""
    installation, person = land.installation, land.installation.leaver()
    with land.surfer() as phone, land.surfer() as desk, land.surfer() as other:
        for browser, who in ((phone, person), (desk, person), (other, installation.colleague)):
            for place in land.places.values():
                page = browser.visit(place.page)
                shown = seen(browser.enter(who) if browser.asks_for_login else page)
                assert shown["preferred_username"] == [who.login]
        number = installation.revoke(person)
        lines = wait_for("the receipt", lambda: settled(installation, number), within_s=TOLD_S, failed=land.logs)
        yield Cut(person, [phone, desk], other, lines)


def settled(installation: Installation, number: str) -> dict[str, dict[str, Any]] | None:
    """The lines of the receipt about the service providers, when none of them is waiting any more."""
    found = installation.logout_lines(number, "SAML_LOGOUT", "APPLICATION_LOGIN")
    assert set(found) >= {*SOAP, *FRONT}
    lines = {slug: found[slug] for slug in (*SOAP, *FRONT)}  # the demo's tools have lines of their own
    return lines if not {line["state"] for line in lines.values()} & {"queued", "cutting"} else None


@pytest.mark.parametrize("slug", SOAP)
def test_revocation_ends_every_session(land: Landscape, cut: Cut, slug: str) -> None:
    """RV-03, SA-21: both sessions at the service provider are gone, and a colleague's is not."""
    place = land.places[slug]
    assert cut.lines[slug]["kind"] == "SAML_LOGOUT"
    for device in cut.devices:
        device.visit(place.page)
        assert device.asks_for_login, f"{device.page.text[:2000]}\n{land.logs()}"
    assert seen(cut.colleague.visit(place.page))["preferred_username"] == [land.installation.colleague.login]


@pytest.mark.parametrize("slug", SIGNED)
def test_revocation_is_acknowledged(land: Landscape, cut: Cut, slug: str) -> None:
    """SA-22: one request for both sessions, one signed Success that we verified."""
    line = cut.lines[slug]
    assert (line["state"], line["grade"], line["attempts"]) == ("acknowledged", "acknowledged", 1), (
        f"{line}\n{land.logs()}"
    )


@pytest.mark.parametrize("slug", MUTE)
def test_revocation_without_an_answer_stays_open(land: Landscape, cut: Cut, slug: str) -> None:
    """SA-22, AU-20: SimpleSAMLphp 1.19 ends the sessions, trips over its own answer and shows a page with status 200 (line 147 of
    its `saml2-logout.php` takes an endpoint for an address). That is no evidence, and the receipt stays red."""
    line = cut.lines[slug]
    assert (line["state"], line["contract"], line["grade"]) == ("failed", "UNCONFIRMED", None), f"{line}\n{land.logs()}"


@pytest.mark.parametrize("slug", FRONT)
def test_revocation_without_soap(land: Landscape, cut: Cut, slug: str) -> None:
    """RV-24, SA-21: nobody can tell it, so the receipt says until when its session may live, and the next login is refused."""
    line, place = cut.lines[slug], land.places[slug]
    assert (line["kind"], line["state"]) == ("APPLICATION_LOGIN", "expiring"), line
    assert line["until"]
    device = cut.devices[0]
    assert seen(device.visit(place.page))["preferred_username"] == [cut.person.login]
    with land.surfer() as fresh:
        fresh.http.cookies.update(device.http.cookies)
        for name in [cookie.name for cookie in fresh.http.cookies.jar if cookie.name == slug]:
            fresh.http.cookies.delete(name)
        fresh.visit(place.page)
        assert fresh.asks_for_login


def test_logout_at_our_portal(land: Landscape) -> None:
    """SA-21, SA-23, LO-01: who has SOAP is told by the worker, the others through the person's own browser."""
    with land.surfer() as browser:
        for place in land.places.values():
            page = browser.visit(place.page)
            seen(browser.enter(land.installation.colleague) if browser.asks_for_login else page)
        page = browser.log_out_here()
        for link in browser.links(page, "/saml/slo/part"):
            page = browser.visit(link)
        assert browser.parts(page) == ["confirmed"] * len(FRONT), f"{page.text}\n{land.logs()}"
        for slug in FRONT:
            browser.visit(land.places[slug].page)
            assert browser.asks_for_login, f"{slug}\n{land.logs()}"
        for slug in SOAP:
            wait_for(slug, partial(gone, browser, land.places[slug]), within_s=TOLD_S, failed=land.logs)


def gone(browser: Surfer, place: Place) -> bool:
    """True when the service provider sends the person back to our login form."""
    browser.visit(place.page)
    return browser.asks_for_login


@pytest.mark.parametrize("slug", ["mellon", "shib", "ssp", "python", "node"])
def test_logout_at_one_ends_the_others(land: Landscape, slug: str) -> None:
    """SA-20, SA-22, SA-23: the one that asks takes our PartialLogout while others are only being told, and is back on its page;
    the one with SOAP is told by the worker, the one without in a frame."""
    others = ("shib-sealed", "python-sealed")
    with land.surfer() as browser:
        for place in (land.places[one] for one in (slug, *others)):
            page = browser.visit(place.page)
            seen(browser.enter(land.installation.colleague) if browser.asks_for_login else page)
        page = browser.visit(land.places[slug].logout)
        assert page.url.path == httpx2.URL(land.places[slug].bye).path, f"{page.url}\n{page.text[:3000]}\n{land.logs()}"
        for other in others:
            wait_for(other, partial(gone, browser, land.places[other]), within_s=TOLD_S, failed=land.logs)
        assert gone(browser, land.places[slug])
