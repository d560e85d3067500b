"""What every page owes the browser: origin of requests, headers, hosts, return targets, escaping, errors, languages (WB-01 to WB-09,
WB-22). The application's address table is read, so that a new route is tried by itself."""

from __future__ import annotations

import re
import urllib.parse
from datetime import timedelta
from html.parser import HTMLParser

import httpx2
import pytest
import time_machine
from sqlalchemy import func, select, update
from werkzeug.routing import Rule

from idp.core import clock
from idp.core.db import Base, change, transaction
from idp.domain.directory import people
from idp.domain.directory.models import Assignment
from idp.domain.directory.roles import Role
from idp.edges import browser as guards
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from tests.actors import CLI, Browser, Person, World
from tests.functional.steps import cut, issue, page_id, token_on, told, type_code

# What these tests look at is decided before the database or after it; one engine is enough, but where a test says otherwise.
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
#: the exemptions of WB-01, by name: a fifth one needs a reason there first
EXEMPT = {
    "oidc.token", "oidc.userinfo", "oidc.authorize", "oidc.end_session", "saml.sso", "saml.slo", "saml.soap",
}  # fmt: skip
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
FILLED = {
    "<company>": "AOBA", "<code>": "S1", "<uuid:account_id>": "0197c5a0-0000-7000-8000-000000000000", "<number>": "R-2026-0101-AAAAAA",
    "<uuid:event_id>": "0197c5a0-0000-7000-8000-000000000000", "<uuid:recipe_id>": "0197c5a0-0000-7000-8000-000000000000",
    "<uuid:gateway_session_id>": "0197c5a0-0000-7000-8000-000000000000", "<uuid:tool_account_id>": "0197c5a0-0000-7000-8000-000000000000", "<int:position>": "0", "<slug>": "points", "<path:filename>": "css/base.css",
}  # fmt: skip


def address(rule: Rule, **values: str) -> str:
    """A rule as an address."""
    path = rule.rule
    for part, value in FILLED.items():
        path = path.replace(part, values.get(part.strip("<>").split(":")[-1], value))
    assert "<" not in path, path
    return path


def rules(world: World, method: str) -> list[Rule]:
    """Every rule that takes a method."""
    return [rule for rule in world.app.url_map.iter_rules() if method in (rule.methods or ())]


# --- where requests come from ---------------------------------------------------------------------------------------


@SQLITE
def test_every_unsafe_request_proves_its_origin_wb01(world: World) -> None:
    """WB-01, OI-16: every unsafe route refuses a request without a form token, from another site, from a sibling domain, with a
    null or missing origin; exactly the named ones are exempt; nothing happened."""
    operator = world.person("op", company="SEKISHO", role=Role.OPERATOR)
    assert guards.CSRF_EXEMPT == EXEMPT
    with Browser(world.app) as desk:
        desk.log_in(operator)
        token = token_on(desk.get("/"))
        audit = world.rows(select(func.count()).select_from(AuditEvent))
        unsafe = [
            rule
            for rule in world.app.url_map.iter_rules()
            if UNSAFE & (rule.methods or set()) and rule.endpoint not in EXEMPT
        ]
        assert len(unsafe) > 25
        sent: list[tuple[dict[str, str], dict[str, str]]] = [
            ({}, {"Sec-Fetch-Site": "same-origin"}),
            ({"csrf_token": token[:-2] + "xx"}, {"Sec-Fetch-Site": "same-origin"}),
            ({"csrf_token": token}, {"Sec-Fetch-Site": "cross-site"}),
            ({"csrf_token": token}, {"Sec-Fetch-Site": "same-site"}),
            ({"csrf_token": token}, {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8000"}),
            ({"csrf_token": token}, {"Origin": "null"}),
            ({"csrf_token": token}, {"Origin": "http://localhost:8001"}),
            ({"csrf_token": token}, {"Origin": "https://localhost:8000"}),
            ({"csrf_token": token}, {"Referer": "http://localhost:8000.evil.example/login"}),
            ({"csrf_token": token}, {}),
        ]
        for rule in unsafe:
            for form, headers in sent:
                answer = desk.http.post(address(rule), data=form, headers=headers)
                assert answer.status_code == 400 or (
                    rule.endpoint == "setup.first_admin" and answer.status_code == 404
                ), (rule.rule, headers)
            plain = desk.http.post(
                address(rule),
                content='{"csrf_token": 1}',
                headers={"Content-Type": "text/plain", "Sec-Fetch-Site": "same-origin"},
            )
            assert plain.status_code in {400, 404}, rule.rule
        assert world.rows(select(func.count()).select_from(AuditEvent)) == audit
        assert operator.name in desk.get("/").text, "not even the logout"
        for good in (
            {"Origin": "http://localhost:8000"},
            {"Referer": "http://localhost:8000/login"},
            {"Sec-Fetch-Site": "none"},
        ):
            answer = desk.http.post("/hq/companies", data={"csrf_token": token, "code": "", "name": ""}, headers=good)
            assert page_id(answer) == "H05C", good
    with Browser(world.app) as stranger:
        theirs = token_on(stranger.get("/login"))
        with Browser(world.app) as victim:
            victim.log_in(operator)
            assert victim.post("/logout", {"csrf_token": theirs}).status_code == 400, "a token belongs to one browser"


@SQLITE
def test_reading_changes_nothing_wb01(world: World) -> None:
    """WB-01: no GET or HEAD of any page changes a row but the counters of refusals and the log of who read the log."""
    hq, staff = world.person("hq1", role=Role.HQ_ADMIN), world.person("0413")
    world.application("points")
    number = cut(world, world.person("0414"))
    with time_machine.travel(clock.now(), tick=False), Browser(world.app) as desk:
        desk.log_in(hq)
        values = {"account_id": str(staff.id), "number": number}

        def all_rows() -> dict[str, int]:
            counted = {
                table.name: world.rows(select(func.count()).select_from(table))[0][0]
                for table in Base.metadata.sorted_tables
            }
            about_reading = select(func.count()).where(
                (AuditEvent.result == "refused")
                | AuditEvent.tag.in_([Tag.LOG_VIEWED, Tag.LOG_EXPORTED, Tag.REPORT_VIEWED, Tag.REPORT_EXPORTED])
            )  # whoever reads the log is in the log (AU-12)
            refusals = world.rows(about_reading)[0][0]
            return {**counted, "audit_event": counted["audit_event"] - refusals, "refusal_count": 0}

        desk.get("/saml/metadata")  # opens our SAML key, once per process, which is a row of the log (VA-32)
        before = all_rows()
        for rule in rules(world, "GET"):
            if rule.endpoint in {"oidc.authorize", "oidc.end_session", "receipts.export"}:
                continue  # the first two keep a request that waits for a person; the third is an act: taking evidence away (AU-12)
            desk.get(address(rule, **values))
            desk.http.head(address(rule, **values))
        assert all_rows() == before


@SQLITE
def test_a_forged_host_is_nobody_wb04(world: World) -> None:
    """WB-04: another Host, an X-Forwarded-Host, an absolute address: 404, and nothing of it comes back, in page or header."""
    world.person("0413")
    with Browser(world.app) as browser:
        token = token_on(browser.get("/login"))
        for host in (
            "evil.example",
            "localhost:8001",
            "localhost",
            "localhost:8000.evil.example",
            "localhost:8000@evil.example",
        ):
            for path in (
                "/login",
                "/e",
                "/.well-known/openid-configuration",
                "/oidc/jwks",
                "/",
                "/static/css/base.css",
                "/setup",
            ):
                answer = browser.http.get(path, headers={"Host": host})
                assert answer.status_code == 404, (host, path)
                assert "evil" not in answer.text
                assert not any("evil" in value for value in answer.headers.values())
            assert (
                browser.http.post(
                    "/login", data={"csrf_token": token}, headers={"Host": host, "Sec-Fetch-Site": "same-origin"}
                ).status_code
                == 404
            )
        for name in (
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Real-IP",
            "X-Forwarded-For",
            "Forwarded",
            "X-Original-URL",
            "X-Rewrite-URL",
        ):
            answer = browser.http.get("/login", headers={name: "evil.example"})
            assert answer.status_code == 200
            assert "evil" not in answer.text
        assert (
            "evil"
            not in browser.http.get(
                "/.well-known/openid-configuration", headers={"X-Forwarded-Host": "evil.example"}
            ).text
        )
        assert browser.http.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200


NEXT = [
    "//evil.example", "/\\evil.example", "\\\\evil.example", "/%09/evil.example", "/\t/evil.example", "https:evil.example", "https://evil.example",
    "HTTPS:/evil.example", "javascript:alert(1)", "data:text/html,x", "/\r\nSet-Cookie: a=b", "/x\r\nLocation: //evil.example", "///evil.example",
    "/.//evil.example", "/x//evil.example", "/\u3002evil.example", "\uff0f\uff0fevil.example", "/\u2044/evil.example", "@evil.example", "evil.example",
    " //evil.example", "/ /evil.example", "//localhost:8000@evil.example", "/\x00/evil.example", "/%2f%2fevil.example", "/..//evil.example", "?//evil",
    "//%65vil.example", "/;//evil.example", "ftp://evil.example", "//[::1]", "/%5cevil.example", "/login/../..//evil.example",
]  # fmt: skip


@SQLITE
def test_a_return_target_never_leaves_the_site_wb05(world: World) -> None:
    """WB-05: after login, second factor and step-up one comes back to a page of ours or to the front page; an own address keeps its
    whole query."""
    staff, hq = world.person("0413"), world.person("0414", totp=True)
    own = "/receipts?open=1&before=&x=%E3%81%82"

    def stays(answer: httpx2.Response, target: str) -> None:
        found = urllib.parse.urljoin("http://localhost:8000/login", answer.headers["location"])
        assert urllib.parse.urlsplit(found).netloc == "localhost:8000", target
        assert "evil" not in urllib.parse.urlsplit(found).netloc
        assert "\n" not in answer.headers["location"]

    with time_machine.travel(clock.now(), tick=False) as frozen, Browser(world.app) as phone:
        token = token_on(phone.get("/login"))
        phone.log_in(staff)
        frozen.shift(timedelta(seconds=1))
        for target in NEXT:
            for at in ("/login", "/login/step-up"):
                form = {
                    "csrf_token": token,
                    "login_id": staff.login,
                    "password": staff.password,
                    "request": "",
                    "next": target,
                    "code": "",
                }
                answer = phone.post(at, form, follow=False)
                if answer.status_code in {303, 302}:
                    stays(answer, target)
                else:
                    assert "\0" in target, (at, target, answer.status_code)
            page = phone.get("/login?" + urllib.parse.urlencode({"next": target}))
            assert page.status_code in {200, 404}
            assert "javascript:" not in re.sub(r'value="[^"]*"', "", page.text)
        with Browser(world.app) as desk:
            page = desk.get(own)
            assert "/login" in str(page.url)
            desk.submit(login_id=hq.login, password=hq.password)
            answer = desk.submit(code=hq.code(), follow=False)
            assert answer.headers["location"] == own, "the query survives the second page"
        for target in NEXT[:8]:
            frozen.shift(timedelta(seconds=60))
            with Browser(world.app) as desk:
                desk.get("/login")
                desk.submit(login_id=hq.login, password=hq.password, next=target)
                stays(desk.submit(code=hq.code(), follow=False), target)


# --- headers --------------------------------------------------------------------------------------------------------


@SQLITE
def test_headers_of_every_answer_wb02_wb03(world: World) -> None:
    """WB-02, WB-03, D17: every answer of every route, refusals included: a policy without unsafe words and with a nonce of its own,
    which the page's scripts carry; never stored; nosniff, CORP, COOP, no referrer. Static files alone may be cached."""
    operator, staff = world.person("op", company="SEKISHO", role=Role.OPERATOR), world.person("0413")
    world.application("points")
    nonces: list[str] = []
    with Browser(world.app) as desk, Browser(world.app) as nobody:
        desk.log_in(operator)
        values = {"account_id": str(staff.id), "number": cut(world, staff)}
        for who in (desk, nobody):
            for rule in rules(world, "GET"):
                answer = who.get(address(rule, **values), follow=False)
                h, where = answer.headers, rule.rule
                policy = h["Content-Security-Policy"]
                assert "unsafe" not in policy, where
                assert "*" not in policy, where
                assert {
                    "default-src 'none'",
                    "base-uri 'none'",
                    "frame-ancestors 'none'",
                    "trusted-types sekisho",
                } <= set(policy.split("; ")), where
                nonce = re.search(r"script-src 'nonce-([A-Za-z0-9_-]{22})' 'strict-dynamic'", policy)
                assert nonce is not None, where
                nonces.append(nonce.group(1))
                assert h["X-Content-Type-Options"] == "nosniff", where
                assert h["Referrer-Policy"] == "no-referrer", where
                assert h["Cross-Origin-Resource-Policy"] == "same-origin", where
                assert "Cookie" in h["Vary"], where
                assert h["X-Request-Id"], where
                assert ("Cross-Origin-Opener-Policy" in h) == (rule.endpoint not in guards.OPENER_PAGES), where
                if rule.endpoint == "static":
                    assert "max-age=3600" in h["Cache-Control"]
                    assert "set-cookie" not in h
                    continue
                assert h["Cache-Control"] == "no-store", where
                assert "Server" not in h, where
                assert "X-Powered-By" not in h, where
                for tag in re.findall(r"<(?:script|style|link)\b[^>]*>", answer.text):
                    assert f'nonce="{nonce.group(1)}"' in tag, (where, tag)
                assert not re.search(r"<[^>]+\son[a-z]+\s*=", answer.text), where
                assert not re.search(r"<[^>]+\sstyle\s*=", answer.text), where
                assert not re.search(r'(?:src|href|action)="(?:https?:)?//(?!points\.example)', answer.text), where
        assert len(set(nonces)) == len(nonces)
        assert desk.get("/no/such/page").headers["Cache-Control"] == "no-store"


# --- what people write ----------------------------------------------------------------------------------------------

POLYGLOT = [
    "</title><script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'-alert(1)-'", "{{7*7}}${7*7}<%= 7*7 %>%(name)s", "漢字(かんじ)<b>x</b>",
]  # fmt: skip


class Tags(HTMLParser):
    """The elements of a page, and attributes that would run a script."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.handlers += [
            name for name, value in attrs if name.startswith("on") or (value or "").lower().startswith("javascript:")
        ]


@SQLITE
@pytest.mark.parametrize("language", ["ja", "en", "ja-easy"])
def test_names_are_text_on_every_page_wb06(world: World, language: str) -> None:
    """WB-06: names of people, stores, regions, companies and applications, notes, user agents and search words with markup in them
    are shown as text on every page that shows them, title included, in every language."""
    nasty = POLYGLOT
    now = clock.now()
    with world.app.app_context(), transaction() as session:
        company = people.get_company(session, "AOBA")
        company.name = nasty[1]
        store = people.get_store(session, company.id, "S1", None, None)  # type: ignore[arg-type]
        store.name = nasty[0]
        region = people.add_region(session, company, code="R", name=nasty[2], actor=CLI, now=now)
        people.add_store(session, company, code="S9", name=nasty[3], actor=CLI, now=now, region=region)
    hq, other_hq = (
        world.person("hq1", role=Role.HQ_ADMIN, name=nasty[0]),
        world.person("hq2", role=Role.HQ_ADMIN, name=nasty[1]),
    )
    manager = world.person("0101", role=Role.STORE_MANAGER, name=nasty[4], kana=nasty[1])
    staff, gone = (
        world.person("0413", name=nasty[1] + nasty[0], kana=nasty[0]),
        world.person("0414", name=nasty[0], kana=nasty[3]),
    )
    console = world.application("points", name=nasty[0] + nasty[1], initiate_login_uri="https://points.example/start")
    seen: list[tuple[str, str]] = []

    def look(browser: Browser, path: str) -> None:
        page = browser.get(path)
        assert page.status_code in {200, 403, 409}, (path, page.status_code)
        check(path, page)

    def check(path: str, page: httpx2.Response) -> None:
        if "html" not in page.headers["content-type"]:
            return
        seen.append((path, page_id(page)))
        body = page.text
        for raw in ("<script>alert", "<img src=x", "</title><script", "<b>x</b>", 'onerror=alert(1)>"', "49$", "49<%"):
            assert raw not in body, (path, raw, body[max(0, body.find(raw) - 200) : body.find(raw) + 100])
        assert len(re.findall(r"<title>[^<]*</title>", body)) == 1, path
        tags = Tags()
        tags.feed(body)
        assert "img" not in tags.names, path
        assert not tags.handlers, (path, tags.handlers)

    with Browser(world.app) as desk, Browser(world.app) as shop, Browser(world.app) as phone:
        phone.http.headers["User-Agent"] = nasty[1]
        phone.log_in(staff)
        console.log_in(phone)
        number = cut(world, gone)
        desk.log_in(hq, at=f"/login?lang={language}")
        shop.log_in(manager, at=f"/login?lang={language}")
        with Browser(world.app) as asker:
            asker.log_in(other_hq)
            asker.get(f"/hq/people/{gone.id}")
            asker.submit(action=f"/hq/people/{gone.id}/reinstate", note=nasty[0])
        query = urllib.parse.quote(nasty[0])
        values = {"account_id": str(staff.id), "number": number}
        for rule in rules(world, "GET"):
            if rule.endpoint.split(".")[0] in {"portal", "security", "hq", "apps", "receipts", "login", "health"}:
                if rule.endpoint in {"receipts.export", "portal.open_app", "receipts.line"}:
                    continue
                path = address(rule, **values)
                if desk.get(path, follow=False).status_code == 200:
                    look(desk, path)
                    look(desk, f"{path}?q={query}&next={query}&request={query}")
            elif rule.endpoint.startswith("store."):
                look(shop, address(rule, **values))
        look(desk, f"/hq/people/{gone.id}")
        look(desk, "/hq/people?q=04")
        look(desk, f"/hq/people?q={query}")
        look(shop, "/store/S1/staff?tab=ended")
        look(shop, f"/store/S1/staff?q={query}")
        look(phone, "/me/sessions")
        look(phone, f"/c/{urllib.parse.quote('<script>alert(1)', safe='')}")
        with Browser(world.app) as newcomer:
            newcomer.get(f"/e?lang={language}")
            check("/e", type_code(newcomer, issue(world, staff)))
            check("activated", newcomer.submit(password="quiet river under bridge", again="quiet river under bridge"))
        check("reset", shop.post(f"/store/S1/staff/{staff.id}/reset", {"csrf_token": token_on(shop.get("/"))}))
        world.app.config["TESTING"] = False
        check(
            "oidc",
            phone.get(console.authorization_url(state=nasty[0], redirect_uri="https://evil.example/" + nasty[1])),
        )
        check("logout", desk.post("/logout", {"csrf_token": token_on(desk.get("/"))}))
    assert {"M01", "M09", "S01", "S02", "S04", "S05", "H01", "H03", "H04", "H05", "A01", "A03", "R01", "S11"} <= {
        screen for _, screen in seen
    }


def test_garbage_in_addresses_is_theirs_not_ours_wb09(world: World) -> None:
    """WB-09, WB-22: odd bytes, quotes, huge values and wrong types in every part of every address are answered without an error of
    ours, on both engines; a 50 KB field is looked at in no time."""
    operator = world.person("op", company="SEKISHO", role=Role.OPERATOR)
    world.application("points")
    odd = ["%00", "'%20OR%201=1--", "..%2f..%2fetc", "x" * 3000, "-1", "99999999999999999999", "%0d%0aX:%20y"]
    arguments = ("q", "after", "before", "company", "next", "request", "lang", "tab", "open", "part")
    with Browser(world.app) as desk:
        desk.log_in(operator)
        for rule in rules(world, "GET"):
            for value in odd if rule.arguments else odd[:1]:
                path = address(rule, **dict.fromkeys(rule.arguments, value)) if rule.arguments else rule.rule
                assert desk.get(path, follow=False).status_code < 500, path
        for path in (
            "/hq/people",
            "/receipts",
            "/hq/people/new",
            "/hq/stores",
            "/login",
            "/login/step-up",
            "/oidc/authorize",
            "/oidc/logout",
            "/saml/sso",
            "/saml/slo",
            "/saml/slo/chain",
            "/saml/slo/part",
            "/saml/slo/finish",
        ):
            for value in (*odd[:4], "%FF", "%E2%80%AE", odd[-1]):
                query = "&".join(f"{name}={value}" for name in arguments)
                assert desk.get(f"{path}?{query}", follow=False).status_code < 500, (path, value)
        token = token_on(desk.get("/"))
        long, nul = "あ" * 16_000, "a\0b"
        for path, names in (
            ("/login", ("login_id", "password", "request", "next")), ("/e", ("code",)), ("/e/password", ("code", "password", "again")),
            ("/hq/stores", ("code", "name", "region")), ("/hq/companies", ("code", "name")), ("/me/sessions/end", ("id",)),
            ("/hq/people/new", ("name", "kana", "login_name", "role", "store", "ends_on", "locale")), ("/hq/apps/points/grants/end", ("id",)),
            ("/hq/apps/points/grants", ("subject_kind", "subject", "role", "functions")), ("/login/step-up", ("password", "code", "request", "next")),
            ("/me/security/totp/new", ("sealed", "authenticator_id", "code")), ("/me/password", ("current", "password", "again")),
            ("/hq/apps/new", ("name", "slug", "redirect_uris", "session_life_minutes", "backchannel_logout_uri", "functions", "initiate_login_uri")),
        ):  # fmt: skip
            for value in (nul, long, "\ud83d\ude00\u202e"):
                form = {
                    "csrf_token": token,
                    **dict.fromkeys(names, value.encode("utf-16", "surrogatepass").decode("utf-16")),
                }
                with time_machine.travel(clock.now(), tick=True):
                    assert desk.post(path, form, follow=False).status_code < 500, (path, value[:5])


# --- errors ---------------------------------------------------------------------------------------------------------


@SQLITE
def test_errors_have_a_number_and_nothing_else_wb22(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """WB-22, ux.md 11 row 60: every error page carries the number that finds its log line or audit row; no stack, no names of ours."""
    hq, staff = world.person("hq1", role=Role.HQ_ADMIN), world.person("0413")
    assert world.app.debug is False
    assert world.app.testing is False
    with Browser(world.app) as desk, Browser(world.app) as phone:
        desk.log_in(hq)
        phone.log_in(staff)
        pages = [
            desk.get("/no/such/page"), phone.get("/hq"), desk.get(f"/hq/people/{FILLED['<uuid:account_id>']}"),
            desk.post("/logout", {}), desk.http.request("TRACE", "/"), desk.http.delete("/"),
        ]  # fmt: skip
        with world.app.app_context(), transaction() as session:
            change(session, update(Assignment).where(Assignment.account_id == staff.id).values(role="nonsense"))
        caplog.clear()
        broken = phone.get("/")
        assert broken.status_code == 500
        pages.append(broken)
        assert broken.headers["X-Request-Id"] in {getattr(r, "request_id", None) for r in caplog.records}
        for page in pages:
            assert page.status_code >= 400
            number = re.search(r'data-testid="request-id">([^<]+)<', page.text)
            assert number is not None, page.text
            assert number.group(1) == page.headers["X-Request-Id"]
            for word in ("Traceback", "sqlalchemy", "werkzeug", "idp.", "ValueError", "nonsense", str(hq.id)):
                assert word not in page.text, word
    refused = {row[0] for row in world.rows(select(AuditEvent.request_id).where(AuditEvent.result == "refused"))}
    assert {pages[1].headers["X-Request-Id"], pages[2].headers["X-Request-Id"]} <= refused


# --- languages ------------------------------------------------------------------------------------------------------


@SQLITE
def test_the_language_is_kept_and_loses_nothing(world: World) -> None:
    """AT-S8, ux.md 9.5: chosen by link, kept for the browser; the link keeps what the page was about, also after a wrong password;
    the person's own language comes before the browser's; an unknown one changes nothing."""
    staff = world.person("0413")
    console = world.application("points")
    with Browser(world.app) as phone:
        phone.http.headers["Accept-Language"] = "en-GB,en;q=0.9"
        assert 'lang="en"' in phone.get("/login").text
        for code in ("ja", "ja-easy", "en"):
            page = phone.get(f"/login?lang={code}")
            assert f'<html lang="{code}"' in page.text
            assert f'<html lang="{code}"' in phone.get("/help/login").text
        assert '<html lang="en"' in phone.get("/login?lang=xx").text
        waiting = phone.get(console.authorization_url())
        assert "request=" in str(waiting.url)
        for page in (waiting, phone.submit(login_id=staff.login, password="wrong")):
            link = re.search(r'href="(/login\?[^"]*lang=ja-easy[^"]*)"', page.text)
            assert link is not None
            assert "request=" in link.group(1)
        phone.get(link.group(1).replace("&amp;", "&"))
        assert "<ruby>" in phone.page.text  # type: ignore[union-attr]
        answer = phone.submit(login_id=staff.login, password=staff.password)
        assert console.answer(answer)["code"]
        assert 'lang="ja-easy"' in phone.get("/").text


@SQLITE
def test_the_words_of_a_refusal_do_not_depend_on_who_asks(world: World) -> None:
    """AC-06: in every language the failed login is one sentence, for real and invented ids."""
    staff: Person = world.person("0777")
    for language in ("ja", "en", "ja-easy"):
        with Browser(world.app) as a, Browser(world.app) as b:
            a.get(f"/login?lang={language}"), b.get(f"/login?lang={language}")
            real = told(a.submit(login_id=staff.login, password="wrong"), staff.login)
            assert real == told(b.submit(login_id="AOBA/9999", password="wrong"), "AOBA/9999")
