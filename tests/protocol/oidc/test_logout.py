"""LO-03 to LO-06, LO-12: RP-initiated and back-channel logout."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from sqlalchemy import select

from idp.core import clock
from idp.core.db import transaction
from idp.domain.directory.roles import Role
from idp.domain.sessions.models import AppSession
from idp.edges.oidc.claims import BACKCHANNEL_EVENT
from idp.ledgers.audit.events import Tag
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.actors import CLI, Browser, Person, RelyingParty
from tests.protocol.oidc.conftest import Provider, page_of

At = Callable[[float], datetime]


def url(**params: str) -> str:
    """A logout request."""
    return f"/oidc/logout?{urlencode(params)}"


def logged_in(browser: Browser) -> bool:
    """Whether our cookie still opens the portal."""
    return "/login" not in str(browser.get("/").url)


def sign_out(browser: Browser) -> None:
    """The logout button that every page of ours has."""
    page = browser.get("/me/sessions")
    (form,) = [f for f in browser.forms(page) if f["action"] == "/logout"]
    assert browser.post("/logout", form["fields"]).status_code == 200


def asks(answer: httpx2.Response, browser: Browser) -> bool:
    """The answer is our question, with a CSRF token."""
    forms = [f for f in browser.forms(answer) if f["action"] == "/logout/confirm"]
    return answer.status_code == 200 and len(forms) == 1 and bool(forms[0]["fields"]["csrf_token"])


def bye(client: RelyingParty) -> str:
    """The registered address after a logout."""
    return f"https://{client.slug}.example/bye"


def revoke(provider: Provider, person: Person, scope: Scope = Scope.ACCOUNT) -> None:
    """A revocation through the domain's one entrance; its pages have tests of their own."""
    with provider.app.app_context(), transaction() as session:
        target = Target(scope, person.id if scope is Scope.ACCOUNT else person.assignment_id)
        cascade.revoke(session, target, Order(Reason.LEFT, Door.CLI), actor=CLI, now=clock.now())


# --- LO-03 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
def test_LO_03_with_the_hint_of_this_session(provider: Provider, at: At, method: str) -> None:
    """RP-Initiated §2, §3. Suite: oidcc-rp-initiated-logout, oidcc-rp-initiated-logout-with-id-token-hint. No question; the
    exact address, the state echoed, 303; an expired hint is fine. Ours is not deleted by wiping the browser (LO-12)."""
    at(0)
    person, client, browser = provider.enter(own=True)
    hint = client.log_in(browser)["id_token"]
    at(400)
    state = "a b&c=店"
    params = {"id_token_hint": hint, "post_logout_redirect_uri": bye(client), "state": state}
    if method == "post":
        with Browser(provider.app) as elsewhere:
            stored = elsewhere.http.post("/oidc/logout", data=params, headers={"Sec-Fetch-Site": "cross-site"})
        assert stored.status_code == 303
        answer = browser.get(stored.headers["location"], follow=False)
    else:
        answer = browser.get(url(**params), follow=False)
    assert answer.status_code == 303
    parts = urlsplit(answer.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == bye(client)
    assert parse_qs(parts.query) == {"state": [state]}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["clear-site-data"] == '"cache"'
    deleted = [c.partition("=")[0] for c in answer.headers.get_list("set-cookie")]
    assert deleted == ["sekisho"]
    assert browser.http.cookies.get("sekisho-device")
    assert not logged_in(browser)
    assert provider.count(Tag.LOGOUT_REQUESTED, person) == 1


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"state": "x"},
        {"client_id": "own"},
        {"client_id": "own", "post_logout_redirect_uri": "own", "state": "s"},
        {"logout_hint": "x", "ui_locales": "../x"},
    ],
)
def test_LO_03_without_a_hint_the_person_is_asked(provider: Provider, method: str, params: dict[str, str]) -> None:
    """RP-Initiated §2, §6, ASVS 10.6.2. Suite: oidcc-rp-initiated-logout-no-id-token-hint, -no-params, -only-state,
    -no-post-logout-redirect-uri. A question with a CSRF token, by GET and by POST, and nothing happens before it is answered."""
    _, client, browser = provider.enter()
    own = {"client_id": client.client_id, "post_logout_redirect_uri": bye(client)}
    sent = {k: own[k] if v == "own" else v for k, v in params.items()}
    answer = browser.get(url(**sent)) if method == "get" else browser.post("/oidc/logout", sent)
    assert asks(answer, browser)
    assert logged_in(browser)
    answer = browser.get(url(**sent)) if method == "get" else browser.post("/oidc/logout", sent)
    fields = browser.forms(answer)[-1]["fields"]
    bad = browser.post("/logout/confirm", {"request": fields["request"]}, follow=False)
    assert bad.status_code == 400
    foreign = browser.http.post("/logout/confirm", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 400
    assert logged_in(browser)
    done = browser.post("/logout/confirm", fields, follow=False)
    if "post_logout_redirect_uri" in sent:
        assert done.headers["location"] == f"{bye(client)}?state=s"
        assert f"form-action 'self' https://{client.slug}.example" in answer.headers["content-security-policy"]
    else:
        assert done.status_code == 200
        page_of(done)
    assert not logged_in(browser)


def test_LO_03_a_hint_that_is_no_id_token_of_ours(provider: Provider) -> None:
    """RP-Initiated §4, F18. Suite: oidcc-rp-initiated-logout-bad-id-token-hint, -modified-id-token-hint. An error here, never
    a redirect, and nobody is logged out. Logout and access tokens as a hint: the matrix of OA-25."""
    _, client, browser = provider.enter()
    other = provider.application()
    hint = client.log_in(browser)["id_token"]
    head, body, mac = hint.split(".")
    for bad in ("x", f"{head}.{body}.", f"{head}.{body[:-2]}AA.{mac}", f"{head}.{body}.{mac[:-2]}AA", "あ", "." * 2000):
        answer = browser.get(url(id_token_hint=bad, post_logout_redirect_uri=bye(client), state="x"), follow=False)
        assert answer.status_code == 400, bad
        page_of(answer)
    mismatch = browser.get(
        url(id_token_hint=hint, client_id=other.client_id, post_logout_redirect_uri=bye(client)), follow=False
    )
    assert mismatch.status_code == 400
    page_of(mismatch)
    assert logged_in(browser)


def test_LO_03_the_address_is_exact(provider: Provider) -> None:
    """RP-Initiated §3. Suite: oidcc-rp-initiated-logout-bad-post-logout-redirect-uri, -query-added-to-post-logout-redirect-uri.
    Also for somebody who is not logged in: it would be an open redirector."""
    _, client, browser = provider.enter()
    other = provider.application()
    hint = client.log_in(browser)["id_token"]
    for who in (browser, provider.browser()):
        for wrong in (
            bye(client) + "?x=1",
            bye(client) + "/",
            bye(client) + "#x",
            bye(client).upper(),
            bye(other),
            "https://evil.example",
            "javascript:alert(1)",
            "/",
            "//evil.example",
            bye(client) + "\n",
        ):
            for base in ({"id_token_hint": hint}, {"client_id": client.client_id}, {}):
                answer = who.get(url(**base, post_logout_redirect_uri=wrong, state="x"), follow=False)
                assert answer.status_code == 400, (wrong, base)
                page_of(answer)
    answer = browser.get(url(post_logout_redirect_uri=bye(client)), follow=False)  # nobody says whose it is
    assert answer.status_code == 400
    assert logged_in(browser)
    gone = provider.browser().get(
        url(client_id=client.client_id, post_logout_redirect_uri=bye(client), state="s"), follow=False
    )
    assert gone.headers["location"] == f"{bye(client)}?state=s"


def test_LO_03_somebody_elses_hint_is_no_weapon(provider: Provider) -> None:
    """LO-03, RV-30: the cookie decides whose session, the hint never does. An attacker's own valid ID token, or one of the
    victim's that leaked, leads to a question at most; without the cookie it ends nothing."""
    victim, client, browser = provider.enter(own=True)
    attacker = provider.browser(provider.person())
    theirs, mine = client.log_in(attacker)["id_token"], client.log_in(browser)["id_token"]
    assert asks(browser.get(url(id_token_hint=theirs)), browser)
    assert logged_in(browser)
    assert asks(attacker.get(url(id_token_hint=mine)), attacker)
    with Browser(provider.app) as nobody:
        answer = nobody.get(url(id_token_hint=mine, post_logout_redirect_uri=bye(client)), follow=False)
        assert answer.status_code == 303
    assert logged_in(browser)
    second = provider.browser(victim)  # the same person, another session: its hint does not spare the question here
    assert asks(second.get(url(id_token_hint=mine)), second)
    assert logged_in(second)


def test_LO_03_parameters_once_and_in_one_place(provider: Provider) -> None:
    """OA-02 at the logout endpoint; a stored request is found by its handle alone."""
    _, _, browser = provider.enter()
    for answer in (
        browser.http.get(f"{url(state='a')}&state=b"), browser.http.post("/oidc/logout?state=a", data={"state": "b"}),
        browser.http.post("/oidc/logout", content="state=a&state=b", headers={"Content-Type": "application/x-www-form-urlencoded"}),
        browser.http.get(url(request="x")),
    ):  # fmt: skip
        assert answer.status_code == 400, answer.url
        page_of(answer)
    assert logged_in(browser)


# --- LO-04, LO-05, LO-06 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_LO_04_the_logout_token(provider: Provider, at: At, alg: str) -> None:
    """BCL §2.4, §2.5. Suite: oidcc-backchannel-rp-initiated-logout. What arrived is verified with the published key set, as
    the relying party's ID tokens are; exactly these claims, no nonce, two minutes at most."""
    at(0)
    _, client, browser = provider.enter(own=True, id_token_alg=alg)
    id_token = client.claims(client.log_in(browser)["id_token"])
    now = int(at(100).timestamp())
    sign_out(browser)
    provider.world.deliver()
    (call,) = provider.outbound.to(client.logout_uri or "")
    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert set(call.form) == {"logout_token"}
    header, claims = provider.verified(call.form["logout_token"], alg=alg)
    assert (header["typ"], header["alg"]) == ("logout+jwt", alg)
    assert set(claims) == {"iss", "aud", "iat", "exp", "jti", "sub", "sid", "events"}
    assert claims["events"] == {BACKCHANNEL_EVENT: {}}
    assert (claims["iss"], claims["aud"]) == (client.issuer, client.client_id)
    assert (claims["sub"], claims["sid"]) == (id_token["sub"], id_token["sid"])
    assert claims["iat"] == now
    assert 0 < claims["exp"] - now <= 120
    assert len(claims["jti"]) >= 22


def test_LO_05_one_token_for_each_session_that_ended(provider: Provider) -> None:
    """LO-05, LO-02: logging out in one browser tells that browser's applications, each with its own sid, and no other's."""
    person = provider.person()
    first, second, silent = (
        provider.application(),
        provider.application(),
        provider.application(backchannel_logout_uri=None),
    )
    here, there = provider.browser(person), provider.browser(person)
    sids = {rp.slug: rp.claims(rp.log_in(here)["id_token"])["sid"] for rp in (first, second, silent)}
    elsewhere = first.claims(first.log_in(there)["id_token"])["sid"]
    assert len({*sids.values(), elsewhere}) == 4
    first.log_in(here)  # entered again: the same app session, the same sid
    sign_out(here)
    provider.world.deliver()
    for rp in (first, second):
        (call,) = provider.outbound.to(rp.logout_uri or "")
        assert rp.claims(call.form["logout_token"])["sid"] == sids[rp.slug]
    assert logged_in(there)
    own = [call for rp in (first, second) for call in provider.outbound.to(rp.logout_uri or "")]
    assert len(own) == 2  # others in this installation may be told late what tests before this one ended


@pytest.mark.parametrize("session_required", [False, True])
def test_LO_05_a_revocation_names_the_person(provider: Provider, session_required: bool) -> None:
    """LO-05, BCL §2.4: three sessions in three browsers; one `sub`-only token ends all three, plus one for each sid where the
    relying party wants `sid`."""
    person = provider.person()
    client = provider.application(backchannel_logout_session_required=session_required)
    sids = {client.claims(client.log_in(provider.browser(person))["id_token"])["sid"] for _ in range(3)}
    sub = client.claims(client.log_in(provider.browser(person))["id_token"])["sub"]
    revoke(provider, person)
    provider.world.deliver()
    tokens = [client.claims(call.form["logout_token"]) for call in provider.outbound.to(client.logout_uri or "")]
    whole = [token for token in tokens if "sid" not in token]
    assert len(whole) == 1
    assert {token["sub"] for token in tokens} == {sub}
    named = {token["sid"] for token in tokens if "sid" in token}
    assert (named >= sids and len(named) == 4) if session_required else named == set()
    assert len({token["jti"] for token in tokens}) == len(tokens)


def test_LO_06_a_logout_is_no_revocation(provider: Provider) -> None:
    """LO-06, C3: a plain logout ends what lives in the login and leaves the offline grant; a revocation ends that too."""
    manager = provider.person(role=Role.STORE_MANAGER)
    client, other = provider.application(offline_allowed=True), provider.application()
    browser = provider.browser(manager)
    offline, inside = client.log_in(browser, scope="openid offline_access"), other.log_in(browser)
    browser.get(url(id_token_hint=inside["id_token"]))
    assert not logged_in(browser)
    assert other.refresh(inside["refresh_token"]).json()["error"] == "invalid_grant"
    assert other.userinfo(inside["access_token"]).status_code == 401
    again = client.refresh(offline["refresh_token"])
    assert again.status_code == 200
    assert client.userinfo(again.json()["access_token"]).status_code == 200
    assert client.userinfo(offline["access_token"]).status_code == 200
    revoke(provider, manager)
    assert client.refresh(offline["refresh_token"]).json()["error"] == "invalid_grant"
    assert client.userinfo(again.json()["access_token"]).status_code == 401


def test_LO_02_no_code_without_its_ledger_row(provider: Provider) -> None:
    """LO-02: the app session with sid and sub is committed before the answer leaves, so a logout finds it although the code
    was never redeemed; sid is random and never the cookie."""
    person, client, browser = provider.enter(own=True)
    client.code(browser)
    rows = provider.world.rows(select(AppSession.sid, AppSession.sub).where(AppSession.account_id == person.id))
    assert len(rows) == 1
    assert rows[0].sid != browser.cookie
    sign_out(browser)
    provider.world.deliver()
    (call,) = provider.outbound.to(client.logout_uri or "")
    claims = client.claims(call.form["logout_token"])
    assert (claims["sid"], claims["sub"]) == (rows[0].sid, rows[0].sub)


def test_LO_12_back_shows_nothing(provider: Provider) -> None:
    """LO-12: every page is `no-store`, the cookie value is dead at the server, and the device is still known."""
    person, client, browser = provider.enter(own=True)
    page, cookie, device = browser.get("/me/sessions"), browser.cookie, browser.http.cookies.get("sekisho-device")
    assert page.headers["cache-control"] == "no-store"
    sign_out(browser)
    assert browser.page is not None
    assert browser.page.headers["clear-site-data"] == '"cache"'
    thief = provider.browser()
    thief.http.cookies.set("sekisho", cookie)
    assert not logged_in(thief)
    assert (
        thief.get(client.authorization_url(prompt="none"), follow=False)
        .headers["location"]
        .startswith(f"{client.redirect_uri}?error=login_required")
    )
    browser.log_in(person)
    assert browser.http.cookies.get("sekisho-device") == device
