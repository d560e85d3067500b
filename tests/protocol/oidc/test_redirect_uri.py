"""OA-01, OA-10, OA-33: where an answer may go. Exact strings; on failure a page here, never a redirect."""

from __future__ import annotations

import pytest

from idp.core import clock
from idp.core.db import transaction
from idp.core.errors import Invalid
from idp.domain.applications import registry
from idp.domain.applications.registration import Registration, check_registration
from tests.actors import CLI, RelyingParty
from tests.protocol.oidc.conftest import Provider, page_of

#: each is the registered https://rp.example/callback?tab=1 with one thing wrong
WRONG = {
    "query added": "https://rp.example/callback?tab=1&x=1",
    "query taken away": "https://rp.example/callback",
    "query in another order or case": "https://rp.example/callback?TAB=1",
    "fragment": "https://rp.example/callback?tab=1#frag",
    "empty fragment": "https://rp.example/callback?tab=1#",
    "host in capitals": "https://RP.example/callback?tab=1",
    "scheme in capitals": "HTTPS://rp.example/callback?tab=1",
    "path in capitals": "https://rp.example/Callback?tab=1",
    "trailing slash": "https://rp.example/callback/?tab=1",
    "trailing dot in the host": "https://rp.example./callback?tab=1",
    "trailing dot in the path": "https://rp.example/callback.?tab=1",
    "encoded dots": "https://rp.example/x/%2e%2e/callback?tab=1",
    "dots": "https://rp.example/x/../callback?tab=1",
    "encoded slash": "https://rp.example%2fcallback?tab=1",
    "user before the host": "https://rp.example@evil.example/callback?tab=1",
    "user of the host": "https://user@rp.example/callback?tab=1",
    "backslash": "https://rp.example\\@evil.example/callback?tab=1",
    "default port": "https://rp.example:443/callback?tab=1",
    "another scheme": "http://rp.example/callback?tab=1",
    "subdomain": "https://a.rp.example/callback?tab=1",
    "suffix of the host": "https://rp.example.evil.example/callback?tab=1",
    "another path below": "https://rp.example/callback/evil?tab=1",
    "punycode": "https://xn--rp-fka.example/callback?tab=1",
    "look-alike letter": "https://rр.example/callback?tab=1",
    "localhost": "http://localhost/callback?tab=1",
    "loopback": "http://127.0.0.1/callback?tab=1",
    "tab": "https://rp.example/call\tback?tab=1",
    "newline": "https://rp.example/callback?tab=1\nX: 1",
    "leading space": " https://rp.example/callback?tab=1",
    "trailing NUL": "https://rp.example/callback?tab=1\0",
    "javascript": "javascript:alert(1)",
    "relative": "/callback?tab=1",
    "without a scheme": "//rp.example/callback?tab=1",
    "not a URI": "http://[",
    "eight kilobytes": "https://rp.example/callback?tab=1" + "a" * 8192,
    "empty": "",
}


@pytest.mark.parametrize("uri", WRONG.values(), ids=WRONG)
def test_OA_01_anything_but_the_exact_string_is_a_page_and_never_a_redirect(provider: Provider, uri: str) -> None:
    """RFC 9700 §4.1.3. Suite: oidcc-ensure-registered-redirect-uri, oidcc-redirect-uri-query-added,
    oidcc-redirect-uri-query-mismatch, oidcc-redirect-uri-regfrag. By GET and by POST, for errors that would otherwise go
    to the client, and with somebody logged in."""
    client = provider.application(redirect_uris=("https://rp.example/callback?tab=1",))
    somebody = provider.somebody() if uri in {WRONG["query added"], WRONG["tab"]} else None
    browser = provider.browser(somebody)
    for extra in ({}, {"prompt": "none"}, {"response_type": "token"}, {"scope": "profile"}, {"code_challenge": None}):
        answer = browser.get(client.authorization_url(redirect_uri=uri, **extra), follow=False)
        assert 400 <= answer.status_code < 500
        assert "rp.example" not in page_of(answer)
        assert "evil" not in answer.text
    stored = browser.post("/oidc/authorize", _form(client, uri), follow=False)
    if stored.status_code == 303:
        assert stored.headers["location"].startswith("/oidc/authorize?request=")
        stored = browser.get(stored.headers["location"], follow=False)
    assert 400 <= stored.status_code < 500
    page_of(stored)


def _form(client: RelyingParty, uri: str) -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": uri,
        "scope": "openid",
        "prompt": "none",
    }


def test_OA_01_the_exact_string_works_and_keeps_its_query(provider: Provider) -> None:
    """OIDC Core §3.1.2.1: simple string comparison. Suite: oidcc-redirect-uri-query-OK."""
    client, browser = provider.visit(redirect_uris=("https://rp.example/callback?tab=1&name=%E5%BA%97",))
    answer = browser.get(client.authorization_url(), follow=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("https://rp.example/callback?tab=1&name=%E5%BA%97&code=")
    assert client.redeem(client.answer(answer)["code"]).status_code == 200


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1/cb", "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb", "http://[::1]:8123/cb"]
)
def test_OA_01_a_native_client_may_listen_on_any_loopback_port(provider: Provider, uri: str) -> None:
    """RFC 8252 §7.3. The code is bound to the port that was used: redeeming it with another one fails."""
    person = provider.somebody()
    client = provider.public(redirect_uris=("http://127.0.0.1/cb", "http://[::1]:9999/cb"))
    browser = provider.browser(person)
    client.redirect_uri = uri
    code = client.code(browser)
    assert client.redeem(code, redirect_uri="http://127.0.0.1:4711/cb").json()["error"] == "invalid_grant"
    assert client.redeem(code).status_code == 200


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:4711/cb/", "http://127.0.0.1:4711/CB", "http://127.0.0.1:4711/cb?x=1", "http://127.0.0.1:4711/cb#f",
        "http://localhost:4711/cb", "https://127.0.0.1:4711/cb", "HTTP://127.0.0.1:4711/cb", "http://127.0.0.2:4711/cb",
        "http://127.1:4711/cb", "http://2130706433:4711/cb", "http://u@127.0.0.1:4711/cb", "http://127.0.0.1:4711@evil.example/cb",
        "http://127.0.0.1:/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:x/cb", "http://127.0.0.1:123456/cb", "http://127.0.0.1:４７/cb",
        "http://127.0.0.1:4711/c\tb", "http://127.0.0.1:4711/c\nb", "http://127.0.0.1:4711/cb\r\nX: y", "http://127.0.0.1:4711/x/../cb",
        "http://[::1", "http://[::1]evil.example/cb", "http://[::1]:4711/cb", "\thttp://127.0.0.1:4711/cb",
    ],
)  # fmt: skip
def test_OA_01_the_loopback_rule_forgives_the_port_alone(provider: Provider, uri: str) -> None:
    """RFC 8252 §7.3, RFC 9700 §4.1.3. A URL parser folds case and drops tabs and newlines; the comparison must not."""
    client = provider.public(redirect_uris=("http://127.0.0.1/cb",))
    answer = provider.browser().get(client.authorization_url(redirect_uri=uri), follow=False)
    assert 400 <= answer.status_code < 500, answer.status_code
    page_of(answer)


def test_OA_01_the_loopback_rule_is_for_clients_without_a_secret(provider: Provider) -> None:
    """A confidential client is a server with an address; the port rule would let any local program take its codes."""
    client = provider.application(redirect_uris=("http://127.0.0.1/cb",))
    browser = provider.browser()
    page_of(browser.get(client.authorization_url(redirect_uri="http://127.0.0.1:4711/cb"), follow=False))
    assert "/login?request=" in browser.get(client.authorization_url(), follow=False).headers["location"]


@pytest.mark.parametrize("client_id", ["", "rp_unknown", "rp\0", "あ", "x" * 5000, "' OR 1=1 --"])
def test_OA_10_an_unknown_client_is_told_here(provider: Provider, client_id: str) -> None:
    """RFC 9700 §4.11.2: no open redirector. Also with prompt=none, which an attacker can choose."""
    client = provider.application()
    for extra in ({}, {"prompt": "none"}, {"response_type": "token"}, {"response_mode": "form_post"}):
        answer = provider.browser().get(client.authorization_url(client_id=client_id, **extra), follow=False)
        assert 400 <= answer.status_code < 500
        assert client.slug not in page_of(answer)
    answer = provider.browser().get(client.authorization_url(client_id=None), follow=False)
    assert answer.status_code in {400, 403}
    page_of(answer)


def test_OA_10_an_application_that_has_ended_is_told_here(provider: Provider) -> None:
    """Its addresses are nobody's any more: they may belong to somebody else by now."""
    _, client, browser = provider.enter()
    code = client.code(browser)
    with provider.app.app_context(), transaction() as session:
        assert registry.end_application(session, client.application_id, actor=CLI, now=clock.now())
    for extra in ({}, {"prompt": "none"}):
        page_of(browser.get(client.authorization_url(**extra), follow=False))
    assert client.redeem(code).status_code == 401


@pytest.mark.parametrize(
    "uri",
    [
        "https://rp.example/cb#frag", "https://rp.example/*", "https://*.rp.example/cb", "https://user@rp.example/cb", "http://rp.example/cb",
        "javascript:alert(1)", "data:text/html,x", "https:///cb", "https://rp.example/c b", "https://rp.example/c\tb", "https://rp.example\\cb",
        "ftp://rp.example/cb", "/cb", "https://rp.example:99999/cb", "https://[::1/cb", "https://" + "a" * 2000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["client_secret_basic", "none"])
def test_OA_01_such_an_address_cannot_be_registered(uri: str, method: str) -> None:
    """RFC 9700 §4.1.3: a pattern is never an address. Pure, so no database."""
    with pytest.raises(Invalid) as refused:
        check_registration(Registration("x", (uri,), auth_method=method), loopback=False)
    assert refused.value.field == "redirect_uris"


def test_OA_33_native_applications_bring_a_claimed_address_or_a_scheme_with_a_dot(provider: Provider) -> None:
    """RFC 8252 §7.1, §8.4: a scheme without a dot can be anybody's; a custom scheme is a public client's, with PKCE."""
    for scheme in (
        "jp.example.app:/cb",
        "jp.example.app://login/cb",
        "https://app.example/cb",
        "http://127.0.0.1/cb",
        "http://[::1]/cb",
    ):
        check_registration(Registration("x", (scheme,), auth_method="none"), loopback=False)
    for scheme in ("myapp:/cb", "myapp://cb", "http://localhost/cb"):
        with pytest.raises(Invalid):
            check_registration(Registration("x", (scheme,), auth_method="none"), loopback=False)
    with pytest.raises(Invalid):
        check_registration(Registration("x", ("jp.example.app:/cb",)), loopback=False)
    person = provider.somebody()
    client = provider.public(redirect_uris=("jp.example.app:/cb",))
    browser = provider.browser(person)
    without = client.answer(
        browser.get(client.authorization_url(code_challenge=None, code_challenge_method=None), follow=False)
    )
    assert without["error"] == "invalid_request"
    assert client.log_in(browser)["id_token"]
    posted = client.answer(browser.get(client.authorization_url(response_mode="form_post"), follow=False))
    assert posted["error"] == "invalid_request"
