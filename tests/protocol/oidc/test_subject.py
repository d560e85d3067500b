"""OI-10, OI-17: who a subject is, for ever; and the way in from the portal."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from idp.core import clock
from idp.core.db import transaction
from idp.domain.directory.roles import Role
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.actors import CLI
from tests.protocol.oidc.conftest import Provider


def test_OI_10_sub_is_nothing_that_can_be_guessed_or_reused(provider: Provider) -> None:
    """OIDC Core §8, §2: at most 255 ASCII characters, the same at every login and application, no name, no number, no e-mail."""
    person, client, browser = provider.enter(own=True)
    other = provider.application()
    sub = client.claims(client.log_in(browser)["id_token"])["sub"]
    assert sub.isascii()
    assert 22 <= len(sub) <= 255
    assert "@" not in sub
    assert person.login_name not in sub
    assert str(person.id) not in sub
    assert other.claims(other.log_in(provider.browser(person))["id_token"])["sub"] == sub


def test_OI_10_a_rehire_is_somebody_new(provider: Provider) -> None:
    """OI-10, RV-29, RV-31: the same staff number again is another subject; the old account at a relying party stays shut, and
    nothing of the old one revives."""
    person, client, browser = provider.enter(own=True)
    tokens = client.log_in(browser)
    before = client.claims(tokens["id_token"])
    with provider.app.app_context(), transaction() as session:
        cascade.revoke(
            session, Target(Scope.ACCOUNT, person.id), Order(Reason.LEFT, Door.CLI), actor=CLI, now=clock.now()
        )
    again = provider.person(number=person.login_name)
    after = client.claims(client.log_in(provider.browser(again))["id_token"])
    assert after["preferred_username"] == before["preferred_username"]
    assert after["sub"] != before["sub"]
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert client.userinfo(tokens["access_token"]).status_code == 401
    refused = provider.browser()
    assert refused.log_in(person).status_code == 401


def test_OI_17_login_from_the_portal(provider: Provider) -> None:
    """OIDC Core §4. Suite: oidcc-3rdparty-init-login-certification-test-plan. The tile sends the browser to the registered
    initiate_login_uri with our iss; the application then starts its own request, and the person sees no second login."""
    _, client, browser = provider.enter(initiate_login_uri="https://rp.example/start?from=portal")
    page = browser.get("/")
    assert f"/apps/{client.slug}/open" in page.text
    answer = browser.get(f"/apps/{client.slug}/open", follow=False)
    assert answer.status_code == 303
    parts = urlsplit(answer.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://rp.example/start"
    assert parse_qs(parts.query) == {"from": ["portal"], "iss": [client.issuer]}
    assert client.log_in(browser)["id_token"]


def test_OI_17_nothing_in_the_request_moves_the_target(provider: Provider) -> None:
    """OIDC Core §4 T−: no open redirect through target_link_uri, and no way in to an application that is not theirs."""
    _, client, browser = provider.enter(initiate_login_uri="https://rp.example/start")
    expected = browser.get(f"/apps/{client.slug}/open", follow=False).headers["location"]
    for query in (
        "target_link_uri=https://evil.example",
        "iss=https://evil.example",
        "login_hint=x",
        "next=https://evil.example",
        "initiate_login_uri=https://evil.example",
    ):
        assert browser.get(f"/apps/{client.slug}/open?{query}", follow=False).headers["location"] == expected
    hidden = provider.application(grant_roles=(Role.HQ_ADMIN,), initiate_login_uri="https://hidden.example/start")
    without = provider.application()
    foreign = provider.application(company="HOSHI", initiate_login_uri="https://hoshi.example/start")
    for slug in (hidden.slug, without.slug, foreign.slug, "unknown", "..", "%2e%2e"):
        answer = browser.get(f"/apps/{slug}/open", follow=False)
        assert answer.status_code in {404, 308}, slug
        assert "example" not in answer.headers.get("location", "")
    nobody = provider.browser().get(f"/apps/{client.slug}/open", follow=False)
    assert nobody.headers["location"].startswith("/login")
