"""Five service providers that others wrote log people in, log them out and are cut, as docs/integrate/saml.md sets them up.

mod_auth_mellon, mod_shib, SimpleSAMLphp, python3-saml and node-saml, each twice: with plain and with encrypted assertions. The
programs are the judges: each validates signatures, times, audience, InResponseTo and its own name by its own reading of the
standard. One engine: the wire is the same on both databases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.interop import openid_client
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
SOAP = ("mellon", "mellon-sealed", "shib", "shib-sealed", "ssp", "ssp-sealed")
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
    reasons = (mellon.why_not(), shibboleth.why_not(), simplesaml.why_not(), toolkits.python_why_not(), openid_client.why_not())
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
        yield Landscape(installation, places, lambda: "\n".join(server.log() for server in servers))


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
