"""SP-initiated single sign-on: Redirect and POST, what an answer holds, what it never does (SA-08 to SA-19)."""

from __future__ import annotations

from tests.actors import Browser, World
from tests.saml import SUCCESS, ServiceProvider


def test_SA_11_SA_12_a_person_signs_on_by_redirect(world: World, browser: Browser) -> None:
    """Login page first, then one answer with name, attributes and session; the second time without a page."""
    sp, person = world.service_provider(ServiceProvider("coupon")), world.person()
    page = browser.get(sp.redirect_url(relay="a b&c=ü"))
    assert "/login" in str(page.url)
    answer = sp.take(browser.log_in(person, at=""), browser)
    assert (answer.status, answer.relay_state, answer.in_response_to) == (SUCCESS, "a b&c=ü", sp.request_id)
    assert answer.attributes["preferred_username"] == [person.login]
    again = sp.sign_on(browser)
    assert again.name_id == answer.name_id
