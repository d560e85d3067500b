"""npm's `openid-client` 6 logs people in, refreshes, logs out, and finds every door shut after a revocation.

The library is the judge: it validates state, `iss`, nonce, PKCE, the ID token with its signature and hashes, `auth_time`,
and the `sub` of userinfo by its own reading of the specifications. One engine: the wire is the same on both databases.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.interop.installation import Installation, Someone, Traveller
from tests.interop.openid_client import Failed, Node, OpenidClient

# slug: (auth method, algorithm of the ID token, response mode)
KINDS = {
    "np-basic": ("client_secret_basic", "ES256", "query"),
    "np-post": ("client_secret_post", "RS256", "form_post"),
    "np-public": ("none", "ES256", "query"),
}


@pytest.fixture(scope="module")
def clients(node: Node, installation: Installation) -> dict[str, OpenidClient]:
    """One relying party of each kind. Nobody listens at their addresses: the test carries the answers to the library."""
    made = {}
    wishes = {
        slug: ("--redirect-uri", f"http://localhost/{slug}/callback", "--post-logout-redirect-uri", f"http://localhost/{slug}/bye",
               "--auth-method", method, "--id-token-alg", alg)
        for slug, (method, alg, _) in KINDS.items()
    }  # fmt: skip
    for slug, registered in installation.register(wishes).items():
        method, alg, _ = KINDS[slug]
        base = f"http://localhost/{slug}"
        made[slug] = OpenidClient(node, installation.issuer, registered, f"{base}/callback", f"{base}/bye", method, alg)
    return made


@pytest.fixture
def browser(installation: Installation) -> Iterator[Traveller]:
    """A browser that knows no relying party: answers to one stay with the test."""
    with Traveller(installation.issuer) as made:
        yield made


def finish(client: OpenidClient, browser: Traveller, answer: httpx2.Response, mode: str) -> dict[str, object]:
    """Hand the browser's answer to the library: the address, or the form that the browser would post there."""
    if mode == "query":
        assert answer.status_code == 303, answer.text[:1500]
        return client.finish(answer.headers["location"])
    (form,) = (f for f in browser.forms(answer) if f["action"] == client.redirect_uri)
    return client.finish(client.redirect_uri, form["fields"])


@pytest.mark.parametrize("slug", KINDS)
def test_login_refresh_userinfo_logout(
    installation: Installation, clients: dict[str, OpenidClient], browser: Traveller, slug: str
) -> None:
    """OI-01, OA-04, OA-14, LO-03: the whole life of a login, for each kind of client; at its end nothing works any more."""
    client, person, mode = clients[slug], installation.colleague, KINDS[slug][2]
    how = {} if mode == "query" else {"response_mode": mode}

    answer = browser.get(client.begin(prompt="none"))
    with pytest.raises(Failed) as nobody:
        client.finish(answer.headers["location"])
    assert nobody.value.error == "login_required"

    browser.get(client.begin(max_age="3600", **how))
    assert 'name="login_id"' in browser.page.text  # type: ignore[union-attr]
    claims = finish(client, browser, browser.enter(person), mode)
    assert claims["aud"] == client.registered.client_id
    assert claims["name"] == person.name
    assert claims["preferred_username"] == person.login
    assert claims["functions"] == ["points.view"]
    assert claims["auth_time"]
    assert client.userinfo()["stores"] == [{"code": person.store, "name": claims["stores"][0]["name"], "role": "staff"}]  # type: ignore[index]

    old = client.tokens["refresh_token"]
    new = client.refresh()
    assert (new["refresh_token"] != old) == (client.auth_method == "none")  # D4: only public clients get a new one
    assert new["claims"]["sub"] == claims["sub"]
    assert new["claims"]["auth_time"] == claims["auth_time"]
    assert client.userinfo()["sub"] == claims["sub"]

    gone = browser.get(client.end_session_url(state="where was I"))
    assert gone.status_code == 303, gone.text[:1500]
    assert gone.headers["location"].startswith(f"{client.bye}?")
    assert parse_qs(urlsplit(gone.headers["location"]).query) == {"state": ["where was I"]}
    assert_dead(client)
    with pytest.raises(Failed) as again:
        client.finish(browser.get(client.begin(prompt="none")).headers["location"])
    assert again.value.error == "login_required"


def test_second_use_of_a_code(installation: Installation, clients: dict[str, OpenidClient], browser: Traveller) -> None:
    """OA-07: a code redeemed twice is refused the second time, and what the first use had given dies with it."""
    client = clients["np-basic"]
    browser.get(client.begin())
    answer = browser.enter(installation.colleague)
    client.finish(answer.headers["location"])
    assert client.userinfo()
    with pytest.raises(Failed) as twice:
        client._step("finish", callback=answer.headers["location"], checks=client.checks)
    assert (twice.value.error, twice.value.status) == ("invalid_grant", 400)
    assert_dead(client)


def test_revocation(installation: Installation, clients: dict[str, OpenidClient], browser: Traveller) -> None:
    """RV-01: one revocation, and refresh and userinfo end at every client at once; a colleague's go on."""
    person, colleague = installation.leaver(), installation.colleague
    log_in_everywhere(clients, browser, person)
    mine = dict(clients["np-basic"].tokens)
    with Traveller(installation.issuer) as other:
        log_in_everywhere({"np-basic": clients["np-basic"]}, other, colleague)
    theirs, clients["np-basic"].tokens = clients["np-basic"].tokens, mine
    for client in clients.values():
        assert client.userinfo()["preferred_username"] == person.login

    installation.revoke(person)
    for client in clients.values():
        assert_dead(client)
        browser.get(client.begin(prompt="none"))
        with pytest.raises(Failed) as out:
            client.finish(browser.page.headers["location"])  # type: ignore[union-attr]
        assert out.value.error == "login_required"
    clients["np-basic"].tokens = theirs
    assert clients["np-basic"].userinfo()["preferred_username"] == colleague.login
    assert clients["np-basic"].refresh()["access_token"]


def log_in_everywhere(clients: dict[str, OpenidClient], browser: Traveller, person: Someone) -> None:
    """One login on the form; the other relying parties get theirs without a question."""
    for number, (slug, client) in enumerate(clients.items()):
        mode = KINDS[slug][2]
        answer = browser.get(client.begin(**({} if mode == "query" else {"response_mode": mode})))
        if number == 0:
            answer = browser.enter(person)
        assert finish(client, browser, answer, mode)["preferred_username"] == person.login


def assert_dead(client: OpenidClient) -> None:
    """Refresh and userinfo are refused, in the words that a client understands as an end and not as a fault."""
    with pytest.raises(Failed) as refresh:
        client.refresh()
    assert (refresh.value.error, refresh.value.status) == ("invalid_grant", 400)
    with pytest.raises(Failed) as userinfo:
        client.userinfo()
    assert (userinfo.value.error, userinfo.value.status) == ("invalid_token", 401)
