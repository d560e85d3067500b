"""People and peers as they meet the product: a browser, a relying party, and the world they live in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pyotp
from flask import Flask
from sqlalchemy import select

from idp.core import clock, ids
from idp.core.db import reading, transaction
from idp.domain.applications import registry, saml
from idp.domain.applications.registration import Registration
from idp.domain.applications.saml import SpRegistration
from idp.domain.authn import activation, second_factor
from idp.domain.directory import people
from idp.domain.directory.models import Account, Assignment, Store
from idp.domain.directory.people import Place
from idp.domain.directory.roles import ROLES, Power, Role
from idp.edges.saml import metadata
from idp.edges.web import seeds
from idp.ledgers.audit.log import Actor
from idp.services import Services
from idp.worker import Worker

CLI = Actor("cli")


class _Forms(HTMLParser):
    """The forms of a page: action, method and fields as a browser would send them."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self._form: dict[str, Any] | None = None
        self._select: str | None = None
        self._textarea: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = dict(attrs)
        if tag == "form":
            self._form = {"action": a.get("action") or "", "method": a.get("method") or "get", "fields": {}}
            self.forms.append(self._form)
        if self._form is None:
            return
        fields, name = self._form["fields"], a.get("name")
        if tag == "input" and name:
            if a.get("type") in {"radio", "checkbox"}:
                if "checked" in a:
                    fields[name] = a.get("value") or "y"
            elif a.get("type") != "submit":
                fields[name] = a.get("value") or ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in a or self._select not in fields):
            fields[self._select] = a.get("value") or ""
        elif tag == "textarea" and name:
            fields[name] = ""
            self._textarea = name

    def handle_data(self, data: str) -> None:
        if self._textarea and self._form is not None:
            self._form["fields"][self._textarea] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        elif tag == "textarea":
            self._textarea = None


class Browser:
    """One browser profile: cookies kept, forms read from pages, same-origin headers sent."""

    def __init__(
        self, app: Flask | None = None, *, base_url: str = "http://localhost:8000", address: str = "127.0.0.1"
    ) -> None:
        transport = httpx2.WSGITransport(app=app, remote_addr=address) if app is not None else None
        self.base_url = base_url
        self.http = httpx2.Client(
            base_url=base_url, transport=transport, timeout=30, headers={"User-Agent": "test browser"}
        )
        self.page: httpx2.Response | None = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, url: str, *, follow: bool = True) -> httpx2.Response:
        """Open a page. Redirects inside our origin are followed, one to another origin is returned."""
        return self._follow(self.http.get(url), follow=follow)

    def post(self, url: str, data: dict[str, str], *, follow: bool = True, **headers: str) -> httpx2.Response:
        """Send a form from a page of ours."""
        sent = {"Sec-Fetch-Site": "same-origin", **headers}
        return self._follow(self.http.post(url, data=data, headers=sent), follow=follow)

    def _follow(self, answer: httpx2.Response, *, follow: bool) -> httpx2.Response:
        for _ in range(10):
            location = answer.headers.get("location", "")
            if not follow or not answer.has_redirect_location or not location.startswith(("/", self.base_url)):
                break
            answer = self.http.get(location)
        self.page = answer
        return answer

    def forms(self, page: httpx2.Response | None = None) -> list[dict[str, Any]]:
        """The forms of a page, the current one by default."""
        parser = _Forms()
        parser.feed((page or self.page).text)  # type: ignore[union-attr]
        return parser.forms

    def submit(self, *, action: str | None = None, follow: bool = True, **values: str) -> httpx2.Response:
        """Fill in and send a form of the current page: the one with this action, or the last one that is no logout."""
        assert self.page is not None
        known = [f for f in self.forms() if f["method"] == "post" and f["action"] != "/logout"]
        form = next((f for f in known if f["action"] == action), None) if action else (known[-1] if known else None)
        assert form is not None, f"no form {action!r} on {self.page.url}:\n{self.page.text[:2000]}"
        target = form["action"] or str(self.page.url)
        return self.post(target, {**form["fields"], **values}, follow=follow)

    def log_in(self, person: Person, *, at: str = "/login") -> httpx2.Response:
        """Log in on the page, with the second factor where the person has one. Returns the last answer."""
        if at:
            self.get(at)
        answer = self.submit(login_id=person.login, password=person.password)
        if person.totp_secret and "/login/totp" in str(answer.url):
            answer = self.submit(code=person.code())
        return answer

    @property
    def cookie(self) -> str:
        """The value of our login cookie, or an empty text."""
        return self.http.cookies.get("sekisho", default="")


@dataclass
class Person:
    """Somebody with an account, and what they know."""

    id: uuid.UUID
    company: str
    login_name: str
    password: str
    name: str
    role: Role
    store: str | None
    assignment_id: uuid.UUID
    totp_secret: str | None = None

    @property
    def login(self) -> str:
        """COMPANY/NUMBER."""
        return f"{self.company}/{self.login_name}"

    def code(self, *, offset_s: int = 0) -> str:
        """What the authenticator app shows."""
        assert self.totp_secret is not None
        return pyotp.TOTP(self.totp_secret).at(clock.now() + timedelta(seconds=offset_s))

    def wrong_code(self) -> str:
        """Six digits that are none of this minute's codes."""
        near = {self.code(offset_s=s) for s in (-60, -30, 0, 30, 60)}
        return next(c for c in (f"{n:06d}" for n in range(10)) if c not in near)


@dataclass
class RelyingParty:
    """A real OpenID Connect client: discovers, builds requests, redeems, refreshes, validates; no shortcut into the product."""

    http: httpx2.Client
    issuer: str
    client_id: str
    secret: str | None
    redirect_uri: str
    logout_uri: str | None
    application_id: uuid.UUID
    slug: str
    auth_method: str = "client_secret_basic"
    state: str = ""
    nonce: str = ""
    verifier: str = ""
    seen: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """The discovery document."""
        found: dict[str, Any] = self.http.get("/.well-known/openid-configuration").json()
        return found

    def authorization_url(self, **extra: str | None) -> str:
        """A fresh authorization request. extra: parameters to add, replace, or, with None, leave out."""
        self.state, self.nonce, self.verifier = (
            secrets.token_urlsafe(16),
            secrets.token_urlsafe(16),
            secrets.token_urlsafe(48),
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        params: dict[str, str | None] = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": self.redirect_uri, "scope": "openid profile",
            "state": self.state, "nonce": self.nonce, "code_challenge": challenge, "code_challenge_method": "S256", **extra,
        }  # fmt: skip
        return f"/oidc/authorize?{urlencode({k: v for k, v in params.items() if v is not None})}"

    def answer(self, response: httpx2.Response) -> dict[str, str]:
        """The parameters with which a browser was sent back to us."""
        location = response.headers.get("location", "")
        assert location.startswith(self.redirect_uri), f"{response.status_code} {location or response.text[:1500]}"
        return {k: v[0] for k, v in parse_qs(urlsplit(location).query).items()}

    def code(self, browser: Browser, **extra: str | None) -> str:
        """An authorization code for whoever is logged in in this browser."""
        answer = self.answer(browser.get(self.authorization_url(**extra)))
        assert answer.get("state") == self.state
        assert answer.get("iss") == self.issuer
        return answer["code"]

    def token(self, **form: str) -> httpx2.Response:
        """Call the token endpoint, authenticated as registered."""
        headers = {}
        if self.auth_method == "client_secret_basic" and self.secret:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()
        elif self.auth_method == "client_secret_post" and self.secret:
            form = {**form, "client_id": self.client_id, "client_secret": self.secret}
        else:
            form = {**form, "client_id": self.client_id}
        return self.http.post("/oidc/token", data=form, headers=headers)

    def redeem(self, code: str, **over: str) -> httpx2.Response:
        """Exchange a code."""
        return self.token(
            **{
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.redirect_uri,
                "code_verifier": self.verifier,
                **over,
            }
        )

    def refresh(self, refresh_token: str, **over: str) -> httpx2.Response:
        """Refresh."""
        return self.token(**{"grant_type": "refresh_token", "refresh_token": refresh_token, **over})

    def log_in(self, browser: Browser, **extra: str | None) -> dict[str, Any]:
        """The whole code flow for whoever is logged in in this browser: the token answer."""
        answer = self.redeem(self.code(browser, **extra))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def userinfo(self, access_token: str) -> httpx2.Response:
        """Ask who this is."""
        return self.http.get("/oidc/userinfo", headers={"Authorization": f"Bearer {access_token}"})

    @staticmethod
    def claims(token: str) -> dict[str, Any]:
        """The claims of a JWT, unverified; signatures have tests of their own."""
        part = token.split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return found


#: per peppers and cost: the passwords of a world's first person, of its second and so on, with their verifiers
_HASHED: dict[object, list[tuple[str, str]]] = {}


class World:
    """Two companies: AOBA with stores S1 and S2, HOSHI with store H1. Adds people and applications through the domain."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.services: Services = app.extensions["sekisho"]
        self.worker = Worker(app)
        self._people = 0
        now = clock.now()
        with app.app_context():
            self.services.signer.refresh(now=now)
            with transaction() as session:
                platform = people.add_company(
                    session, code="SEKISHO", name="運用", actor=CLI, now=now, is_platform=True
                )
                del platform
                for code, name, stores in (("AOBA", "あおばストア", ("S1", "S2")), ("HOSHI", "ほし書店", ("H1",))):
                    company = people.add_company(session, code=code, name=name, actor=CLI, now=now)
                    region = people.add_region(session, company, code="TOKYO", name="東京", actor=CLI, now=now)
                    for store in stores:
                        people.add_store(
                            session, company, code=store, name=f"{store}店", actor=CLI, now=now, region=region
                        )

    def person(
        self, number: str = "0413", *, company: str = "AOBA", store: str | None = "S1", role: Role = Role.STAFF, name: str = "山本 健",
        kana: str = "ヤマモト ケン", totp: bool | None = None, password: str | None = None, ends_at: datetime | None = None,
    ) -> Person:  # fmt: skip
        """A person who has chosen a password; with a second factor where the role demands one (or totp=True)."""
        now = clock.now()
        if password is None:
            password, verifier = self._password()
        else:
            verifier = self.services.hasher.make(password)
        if ROLES[role].reach.value != "store":
            store = None
        with self.app.app_context():
            with transaction() as session:
                owner = people.get_company(session, company)
                place = (
                    Place(owner, people.get_store(session, owner.id, store, None, Power.HIRE))
                    if store
                    else Place(owner)
                )
                if role is Role.AREA_MANAGER:
                    place = Place(owner, region=people.get_region(session, owner.id, "TOKYO"))
                account = people.add_account(
                    session,
                    place,
                    login_name=number,
                    name=name,
                    kana=kana,
                    role=role,
                    actor=CLI,
                    now=now,
                    ends_at=ends_at,
                )
                account_id = account.id
                code = activation.issue(
                    session, account_id, purpose="activate", life=timedelta(hours=1), actor=CLI, now=now
                )
            with transaction() as session:
                waiting = activation.find(session, code or "", now=now)
                assert waiting is not None
                assert activation.use(session, waiting, verifier=verifier, actor=CLI, now=now)
            with reading() as session:
                assignment_id = session.scalar(select(Assignment.id).where(Assignment.account_id == account_id))
            secret = self._totp(account_id) if (ROLES[role].second_factor if totp is None else totp) else None
        assert assignment_id is not None
        return Person(account_id, company, number, password, name, role, store, assignment_id, secret)

    def _password(self) -> tuple[str, str]:
        """A password that nobody else in this world has, and its verifier. People of other worlds have had both: each is hashed
        once per run, at the cost and with the peppers of this world's hasher, which could not tell that it was not now."""
        hasher = self.services.hasher
        known = _HASHED.setdefault((*hasher._peppers.items(), hasher._cost), [])
        if len(known) == self._people:
            password = f"{secrets.token_hex(4)}-quiet-river-{secrets.token_hex(4)}"
            known.append((password, hasher.make(password)))
        self._people += 1
        return known[self._people - 1]

    def _totp(self, account_id: uuid.UUID) -> str:
        secret, now = pyotp.random_base32(32), clock.now()
        with reading() as session:
            row = session.execute(select(Account.company_id, Account.epoch).where(Account.id == account_id)).one()
        sealed = seeds.seal_seed(self.services.vault, secret, ids.new_id(now), account_id, row.company_id)
        with transaction() as session:
            codes = second_factor.add_totp(
                session,
                account_id,
                authenticator_id=sealed.authenticator_id,
                sealed=sealed.sealed,
                step=0,
                epoch=row.epoch,
                actor=CLI,
                now=now,
            )
        assert codes is not None
        return secret

    def assign(self, person: Person, store: str, role: Role = Role.STAFF) -> uuid.UUID:
        """One more assignment."""
        with self.app.app_context(), transaction() as session:
            company = people.get_company(session, person.company)
            place = Place(company, people.get_store(session, company.id, store, None, Power.HIRE))
            return people.add_assignment(session, person.id, place, role=role, actor=CLI, now=clock.now()).id

    def application(
        self, slug: str = "points", *, grant_roles: tuple[Role, ...] = tuple(Role), functions: tuple[str, ...] = ("points.view", "points.adjust"),
        company: str | None = None, **over: Any,
    ) -> RelyingParty:  # fmt: skip
        """A registered relying party that every role may use, with a logout endpoint unless told otherwise."""
        base = f"https://{slug}.example"
        wish = Registration(**{
            "name": f"{slug} コンソール", "redirect_uris": (f"{base}/callback",), "functions": functions,
            "post_logout_redirect_uris": (f"{base}/bye",), "backchannel_logout_uri": f"{base}/backchannel", **over,
        })  # fmt: skip
        with self.app.app_context(), transaction() as session:
            owner = people.get_company(session, company).id if company else None
            made = registry.add_relying_party(
                session, wish, slug=slug, company_id=owner, loopback=True, actor=CLI, now=clock.now()
            )
            for role in grant_roles:
                registry.grant(
                    session,
                    made.application,
                    subject_kind="role",
                    subject_id=None,
                    role=role.value,
                    functions=functions,
                    company_id=None,
                    actor=CLI,
                    now=clock.now(),
                )
            found = (made.relying_party.client_id, made.application.id)
        http = httpx2.Client(base_url="http://localhost:8000", transport=httpx2.WSGITransport(app=self.app), timeout=30)
        return RelyingParty(
            http,
            "http://localhost:8000",
            found[0],
            made.secret,
            wish.redirect_uris[0],
            wish.backchannel_logout_uri,
            found[1],
            slug,
            wish.auth_method,
        )

    def service_provider(
        self, peer: Any, *, grant_roles: tuple[Role, ...] = tuple(Role), functions: tuple[str, ...] = ("points.view", "points.adjust"),
        company: str | None = None, **over: Any,
    ) -> Any:  # fmt: skip
        """Register a `tests.saml.ServiceProvider` by its own metadata; every role may use it. over: SpRegistration's."""
        now = clock.now()
        facts = metadata.read(peer.metadata(), now=now)
        wish = SpRegistration(**{"name": f"{peer.slug} コンソール", "functions": functions, **over})
        with self.app.app_context(), transaction() as session:
            owner = people.get_company(session, company).id if company else None
            application, _ = saml.add_service_provider(
                session, wish, facts, slug=peer.slug, company_id=owner, loopback=True, actor=CLI, now=now
            )
            for role in grant_roles:
                registry.grant(
                    session, application, subject_kind="role", subject_id=None, role=role.value, functions=functions, company_id=None,
                    actor=CLI, now=now,
                )  # fmt: skip
            peer.application_id = application.id
        return peer

    def deliver(self) -> None:
        """Let the worker do everything that is due now, in this thread."""
        self.worker.drain()

    def store_id(self, code: str) -> uuid.UUID:
        """The id of a store."""
        with self.app.app_context(), reading() as session:
            found = session.scalar(select(Store.id).where(Store.code == code))
            assert found is not None
            return found

    def rows(self, query: Any) -> list[Any]:
        """Look into the database: for what nobody outside can see, such as audit rows."""
        with self.app.app_context(), reading() as session:
            return list(session.execute(query).all())


NUMBER = re.compile(r"R-\d{4}-\d{4}-[0-9A-Z]{6}")


def receipt_number(page: httpx2.Response) -> str:
    """The number of the receipt that a page or redirect names."""
    found = NUMBER.search(str(page.url)) or NUMBER.search(page.headers.get("location", "")) or NUMBER.search(page.text)
    assert found is not None, page.text[:1500]
    return found.group()


def line_states(page: httpx2.Response) -> dict[str, dict[str, str]]:
    """The lines of a receipt page: position → data-state, data-open, data-grade."""
    found = {}
    for tag in re.findall(r"<tr [^>]*data-line=[^>]*>", page.text):
        attrs = dict(re.findall(r'data-([a-z]+)="([^"]*)"', tag))
        found[attrs.pop("line")] = attrs
    return found


def utc(*parts: int) -> datetime:
    """An aware UTC datetime."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]
