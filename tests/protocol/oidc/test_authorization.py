"""OA-02, OA-04, OA-08, OA-09, OA-11, OI-16: the authorization endpoint as a machine sees it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

import idp.edges
from tests.actors import Browser
from tests.protocol.oidc.conftest import Provider, page_of

ORIGIN = "http://localhost:8000"
EDGES = Path(idp.edges.__file__).parent


def pairs(url: str) -> dict[str, str]:
    """The parameters of a URL as a form."""
    return dict(parse_qsl(urlsplit(url).query))


@pytest.mark.parametrize(
    "name",
    [
        "client_id",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "prompt",
        "request",
        "unknown",
    ],
)
def test_OA_02_a_parameter_sent_twice_is_refused_here(provider: Provider, name: str) -> None:
    """RFC 6749 §3.1. Which of the two counts would be the attacker's choice, so nothing is sent anywhere, by GET or POST."""
    client, browser = provider.visit()
    value = pairs(client.authorization_url(prompt="none")).get(name, "x")
    url = client.authorization_url(prompt="none", **({} if name in {"prompt", "client_id"} else {name: value}))
    for second in (value, "other"):
        twice = f"{url}&{urlencode({name: second})}"
        assert 400 <= browser.get(twice, follow=False).status_code < 500
        page_of(browser.page)  # type: ignore[arg-type]
        posted = browser.http.post(
            "/oidc/authorize",
            content=urlsplit(twice).query,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert posted.status_code == 400
    mixed = browser.http.post(f"/oidc/authorize?{urlencode({name: value})}", data=pairs(url))
    assert mixed.status_code == 400
    page_of(mixed)


def test_OA_02_a_handle_sent_twice_is_refused(provider: Provider) -> None:
    """The handle of a stored request obeys the rule too."""
    client, browser = provider.visit()
    stored = browser.post("/oidc/authorize", pairs(client.authorization_url()), follow=False).headers["location"]
    handle = pairs(stored)["request"]
    assert 400 <= browser.get(f"{stored}&request={handle}", follow=False).status_code < 500
    assert client.answer(browser.get(stored, follow=False))["code"]


def test_OA_02_resource_may_repeat_and_is_then_an_invalid_target(provider: Provider) -> None:
    """RFC 8707 §2, OA-26: an access token names one API, ours, and nothing else can be asked for."""
    client, browser = provider.visit()
    ours, theirs = "http://localhost:8000/oidc/userinfo", "https://api.example"
    two = client.authorization_url() + "&" + urlencode([("resource", ours), ("resource", theirs)])
    assert client.answer(browser.get(two, follow=False))["error"] == "invalid_target"
    assert (
        client.answer(browser.get(client.authorization_url(resource=theirs), follow=False))["error"] == "invalid_target"
    )
    code = client.code(browser, resource=ours)
    assert client.redeem(code, resource=theirs).json()["error"] == "invalid_target"
    assert client.redeem(code, resource=ours).status_code == 200


def test_OA_04_iss_on_every_answer(provider: Provider) -> None:
    """RFC 9207 §2, §3: on success and on error, by redirect and by form, with the state that was sent."""
    client, browser = provider.visit()
    good = client.answer(browser.get(client.authorization_url(), follow=False))
    assert (good["iss"], good["state"]) == (client.issuer, client.state)
    assert set(good) == {"code", "iss", "state"}
    silent = {"prompt": "none"}
    wrong = ({"response_type": "token"}, {"response_type": None}, {"scope": "profile"}, {"code_challenge_method": "plain"}, {"request": "x.y.z"},
             {"response_mode": "fragment"}, {"max_age": "x"}, {"prompt": "none login"}, {"claims": "["})  # fmt: skip
    for extra in wrong:
        bad = client.answer(provider.browser().get(client.authorization_url(**silent | extra), follow=False))
        assert (bad["iss"], bad["state"], "error" in bad, "code" in bad) == (
            client.issuer,
            client.state,
            True,
            False,
        ), extra
    bare = client.answer(provider.browser().get(client.authorization_url(state=None, **silent), follow=False))
    assert bare == {"error": "login_required", "iss": client.issuer}
    posted = browser.get(client.authorization_url(response_mode="form_post"), follow=False)
    assert browser.forms(posted)[0]["fields"].keys() == {"code", "iss", "state"}


def test_OA_04_state_comes_back_byte_for_byte(provider: Provider) -> None:
    """RFC 6749 §4.1.2, Form Post §4: whatever it holds; in the form it is escaped, never markup."""
    client, browser = provider.visit()
    for state in ("a b+c&d=e%20", '"><script>alert(1)</script>', "店=1;\U0001f600", "x" * 4000):
        url = client.authorization_url() + "&"
        url = re.sub(r"state=[^&]*&", urlencode({"state": state}) + "&", url)
        assert client.answer(browser.get(url, follow=False))["state"] == state
        form = browser.get(f"{url}response_mode=form_post", follow=False)
        assert "<script>alert" not in form.text
        assert browser.forms(form)[0]["fields"]["state"] == state


@pytest.mark.parametrize(
    "response_type",
    ["token", "id_token", "id_token token", "code token", "code id_token", "none", "", "CODE", "code code", "あ\"'"],
)
def test_OA_08_code_is_the_only_response_type(provider: Provider, response_type: str) -> None:
    """RFC 9700 §2.1.2. Suite: oidcc-response-type-missing; fapi2 …-ensure-response-type-token-fails."""
    client, browser = provider.visit()
    answer = browser.get(client.authorization_url(response_type=response_type), follow=False)
    assert answer.status_code == 303
    assert "#" not in answer.headers["location"]
    expected = "unsupported_response_type" if response_type else "invalid_request"
    assert client.answer(answer)["error"] == expected


@pytest.mark.parametrize("mode", ["fragment", "query.jwt", "web_message", "", "form_post "])
def test_OA_08_response_modes_are_a_closed_list(provider: Provider, mode: str) -> None:
    """OAuth 2.0 Multiple Response Types §2.1: query and form_post."""
    client, browser = provider.visit()
    assert (
        client.answer(browser.get(client.authorization_url(response_mode=mode), follow=False))["error"]
        == "invalid_request"
    )
    assert client.answer(browser.get(client.authorization_url(response_mode="query"), follow=False))["code"]


def test_OA_08_no_grant_but_code_and_refresh(provider: Provider) -> None:
    """RFC 9700 §2.1.2, §2.4: no password grant, no client credentials, nothing unadvertised."""
    person, client, _ = provider.enter()
    for grant in ("password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:device_code",
                  "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:token-exchange", 'x"あ'):  # fmt: skip
        answer = client.token(grant_type=grant, username=person.login, password=person.password, scope="openid")
        assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
    assert client.token(scope="openid").json()["error"] == "invalid_request"


def test_OA_08_form_post(provider: Provider) -> None:
    """Form Post Response Mode §2, C14. Suite: the oidcc-formpost-basic plan, oidcc-server through it. A script with the
    page's nonce sends it, a button does so without scripts, and nothing leads to an address without TLS (decision 0032)."""
    client, browser = provider.visit()
    answer = browser.get(client.authorization_url(response_mode="form_post"), follow=False)
    assert answer.status_code == 200
    page = page_of(answer)
    policy = {d.split()[0]: d.split()[1:] for d in answer.headers["content-security-policy"].split(";")}
    nonce = re.search(r"<script[^>]*nonce=\"([^\"]+)\"", page)
    assert nonce is not None
    assert f"'nonce-{nonce[1]}'" in policy["script-src"]
    assert "'unsafe-inline'" not in policy["script-src"]
    assert policy["form-action"] == ["https:"]
    assert re.search(r"<button[^>]*>", page)
    (form,) = browser.forms(answer)
    assert (form["method"], form["action"]) == ("post", client.redirect_uri)
    assert form["fields"]["code"] not in str(answer.url)
    assert client.redeem(form["fields"]["code"]).status_code == 200
    assert "no-store" in answer.headers["cache-control"]


def test_OA_08_form_post_carries_errors_too(provider: Provider) -> None:
    """Suite: oidcc-prompt-none-not-logged-in in the form_post plan."""
    client = provider.application()
    browser = provider.browser()
    answer = browser.get(client.authorization_url(response_mode="form_post", prompt="none"), follow=False)
    (form,) = browser.forms(answer)
    assert form["fields"] == {"error": "login_required", "state": client.state, "iss": client.issuer}


# --- OA-09 -----------------------------------------------------------------------------------------------------------


def test_OA_09_every_redirect_in_the_source_is_a_303() -> None:
    """RFC 9700 §4.12: a 307 or 308 would send the password on. Source, so no database."""
    seen = 0
    for path in EDGES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "redirect":
                code = (
                    node.args[1]
                    if len(node.args) > 1
                    else next((k.value for k in node.keywords if k.arg == "code"), None)
                )
                assert isinstance(code, ast.Constant), f"{path}:{node.lineno}"
                assert code.value == 303, f"{path}:{node.lineno}"
                seen += 1
    assert seen > 20


def test_OA_09_every_post_route_answers_with_303_if_it_redirects(provider: Provider) -> None:
    """RFC 9700 §4.12, by enumeration of the URL map: anonymous and as a person, with and without a final slash."""
    person = provider.person()
    anonymous, known = provider.browser(), provider.browser(person)
    redirected = set()
    for rule in provider.app.url_map.iter_rules():
        if "POST" not in (rule.methods or ()):
            continue
        parts = {
            name: "S1" if name == "code" else str(person.id) if name.endswith("id") else "x" for name in rule.arguments
        }
        path = rule.rule
        for name, value in parts.items():
            path = re.sub(rf"<(?:[^<>]+:)?{name}>", value, path)
        assert "<" not in path, path
        for who in (anonymous, known):
            for target in (path, f"{path}/"):
                answer = who.post(target, {"login_id": person.login, "password": person.password}, follow=False)
                if 300 <= answer.status_code < 400:
                    assert answer.status_code == 303, (target, answer.status_code)
                    redirected.add(rule.endpoint)
    assert {"oidc.authorize", "oidc.end_session", "login.login"} & redirected >= {"oidc.authorize", "oidc.end_session"}


def test_OA_09_a_doubled_slash_is_no_redirect(provider: Provider) -> None:
    """RFC 9700 §4.12: Werkzeug sends a POST to /oidc//token on with 308, and the password with it."""
    browser = provider.browser()
    for path in ("/oidc//token", "/oidc//authorize", f"{ORIGIN}//login", "/login//totp"):
        answer = browser.post(path, {"password": "x"}, follow=False)
        assert answer.status_code < 300 or answer.status_code >= 400, path


def test_OA_09_the_way_from_password_to_client_is_303(provider: Provider) -> None:
    """RFC 9700 §4.12 at the one place where it matters most: the POST with the password, and what follows it."""
    person, client = provider.somebody(), provider.application()
    browser = provider.browser()
    page = browser.get(client.authorization_url())
    assert "/login?request=" in str(page.url)
    first = browser.submit(login_id=person.login, password=person.password, follow=False)
    assert first.status_code == 303
    second = browser.get(first.headers["location"], follow=False)
    assert second.status_code == 303
    assert client.answer(second)["code"]


# --- OA-11 -----------------------------------------------------------------------------------------------------------


def test_OA_11_headers_of_the_interaction(provider: Provider) -> None:
    """RFC 9700 §4.16, §4.2, D17: not framed, no referrer, not stored; the interaction keeps its opener."""
    client, browser = provider.visit()
    other = provider.application(grant_roles=())
    answers = [
        provider.browser().get(client.authorization_url()), browser.get(client.authorization_url(), follow=False),
        browser.get(client.authorization_url(response_mode="form_post"), follow=False), browser.get(client.authorization_url(redirect_uri="https://evil.example")),
        browser.get(other.authorization_url()), browser.get("/oidc/logout"), browser.get("/login/step-up"),
    ]  # fmt: skip
    for answer in answers:
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], answer.url
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "cross-origin-opener-policy" not in answer.headers, answer.url
    assert browser.get("/").headers["cross-origin-opener-policy"] == "same-origin"


# --- OI-16 -----------------------------------------------------------------------------------------------------------


def test_OI_16_unknown_parameters_are_ignored(provider: Provider) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-ensure-request-with-unknown-parameter-succeeds."""
    client, browser = provider.visit()
    assert client.log_in(browser, extra="foobar", registration="{}", dpop_jkt="x", あ='"<script>')["id_token"]


def test_OI_16_post_to_authorize(provider: Provider) -> None:
    """OIDC Core §3.1.2.1. Suite: oidcc-ensure-post-request-succeeds. A cross-site POST brings no cookie, so it is stored
    without effect and a GET of ours finds cookie and request together (AC-40). The answer is given once."""
    client, browser = provider.visit()
    form = pairs(client.authorization_url())
    with Browser(provider.app) as elsewhere:
        stored = elsewhere.http.post(
            "/oidc/authorize", data=form, headers={"Sec-Fetch-Site": "cross-site", "Origin": "https://rp.example"}
        )
    assert stored.status_code == 303
    location = stored.headers["location"]
    assert re.fullmatch(r"/oidc/authorize\?request=[\w-]{40,}", location)
    answer = browser.get(location, follow=False)
    assert client.redeem(client.answer(answer)["code"]).status_code == 200
    again = browser.get(location, follow=False)
    assert again.status_code == 400
    page_of(again)
    for handle in ("", "x", "x" * 5000, "あ"):
        page_of(browser.get(f"/oidc/authorize?{urlencode({'request': handle})}", follow=False))


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"request_uri": "https://rp.example/request.jwt"}, "request_uri_not_supported"),
        ({"request": "x", "request_uri": "https://rp.example/r"}, "request_not_supported"),
    ],
)
def test_OI_16_request_objects_are_refused_not_ignored(provider: Provider, extra: dict[str, str], error: str) -> None:
    """OIDC Core §6. Suite: oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported. And nothing is
    fetched: request_uri would be a way to make us call anybody (OA-13)."""
    client, browser = provider.visit()
    assert client.answer(browser.get(client.authorization_url(**extra), follow=False))["error"] == error
    assert provider.outbound.calls == []


def test_OI_16_a_request_without_openid_is_refused(provider: Provider) -> None:
    """OIDC Core §3.1.2.1: scope MUST contain openid; unknown scopes are ignored."""
    client, browser = provider.visit()
    for scope in (None, "", "profile", "OPENID", "openidx"):
        assert client.answer(browser.get(client.authorization_url(scope=scope), follow=False))["error"] in {
            "invalid_scope",
            "invalid_request",
        }
    answer = client.log_in(browser, scope="unknown openid email offline_access")
    assert answer["scope"] == "openid"


@pytest.mark.parametrize("name", ["state", "nonce", "client_id", "login_hint", "claims", "あ", "scope"])
@pytest.mark.parametrize("value", ["\0", "\ud800", "\r\nX-Injected: 1", "あ" * 3000, '\U0001f600"\\', "%"])
def test_OI_16_no_byte_of_a_request_is_a_fault_of_ours(provider: Provider, name: str, value: str) -> None:
    """RFC 6749 §4.1.2.1, WB-22, trap A4: an answer or a refusal, never a 500, and never a header of the sender's making."""
    client = provider.application()
    browser = provider.browser()
    query = urlencode({**pairs(client.authorization_url(prompt="none")), name: value}, errors="surrogatepass")
    for answer in (
        browser.http.get(f"/oidc/authorize?{query}"),
        browser.http.post(
            "/oidc/authorize", content=query, headers={"Content-Type": "application/x-www-form-urlencoded"}
        ),
        browser.http.get(f"/oidc/logout?{query}"),
    ):
        assert answer.status_code < 500, answer.text[-800:]
        assert "x-injected" not in answer.headers
        location = answer.headers.get("location", "")
        if location.startswith("https://"):
            description = parse_qs(urlsplit(location).query).get("error_description", [""])[0]
            assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]*", description)


def test_OA_10_a_person_without_the_application_sees_why(provider: Provider) -> None:
    """OIDC Core §3.1.2.6: known and not allowed is a page with the way back; silently it is the error. No code either way."""
    client, browser = provider.visit(grant_roles=())
    page = browser.get(client.authorization_url(), follow=False)
    assert page.status_code == 403
    assert "error=access_denied" in page_of(page)
    assert client.answer(browser.get(client.authorization_url(prompt="none"), follow=False))["error"] == "access_denied"
