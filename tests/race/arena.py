"""One installation in which many races are run, each with people of its own: building one per race would cost the day."""

from __future__ import annotations

import base64
import itertools
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from flask import Flask
from sqlalchemy import select

from idp.core import clock, ids
from idp.core.db import reading, run, transaction
from idp.domain.authn import activation, second_factor
from idp.domain.authn.login import AAL1, AAL2
from idp.domain.directory import people
from idp.domain.directory.models import Account, Assignment
from idp.domain.directory.people import Place
from idp.domain.directory.roles import Power, Role
from idp.domain.gateway import admissions, gateway_sessions
from idp.domain.gateway.models import GatewaySession
from idp.domain.sessions import live
from idp.domain.sessions.live import Opening
from idp.domain.sessions.models import LoginSession
from tests import postgres
from tests.actors import CLI, Browser, Person, RelyingParty, World, receipt_number
from tests.race.puppets import Stage
from tests.saml import ServiceProvider
from tests.toolbox import SHIFT_NOTE, Toolbox

#: SHA-256 of the nonce cookie of every browser here
CHALLENGE = b"n" * 32
PASSWORD = "quiet-river-under-seven-lanterns"
#: the host of a cookie that a browser keeps for `localhost`
COOKIE_HOST = "localhost.local"


class Admin:
    """Somebody at head office, with a browser of their own: forms are sent without loading their pages first."""

    def __init__(self, arena: Arena, number: str) -> None:
        self.person = arena.person(role=Role.HQ_ADMIN, number=number)
        self.browser = arena.logged_in(self.person, acr=AAL2, idle_s=3600)
        self.csrf = self.browser.forms(self.browser.get("/me/password"))[-1]["fields"]["csrf_token"]

    def send(self, path: str, **values: str) -> httpx2.Response:
        """Press one button."""
        return self.browser.post(path, {"csrf_token": self.csrf, **values}, follow=False)

    def stop(self, person: Person, *, once: str = "") -> httpx2.Response:
        """「すべて切断」: account scope."""
        values = {"reason": "left", "when": "now", "once": once or secrets.token_urlsafe(32)}
        return self.send(f"/hq/people/{person.id}/stop", **values)

    def stop_one(self, person: Person, kind: str, target: uuid.UUID) -> httpx2.Response:
        """One assignment, one application's use, one login session."""
        return self.send(f"/hq/people/{person.id}/stop-one", id=f"{kind}:{target}")


@dataclass
class Arena:
    """The product, two administrators, and the kinds of relying party that refresh differently, a service provider."""

    app: Flask
    engine: str
    stage: Stage
    world: World
    server: postgres.PostgresServer | None = None
    admins: tuple[Admin, ...] = ()
    web: RelyingParty = field(init=False)
    native: RelyingParty = field(init=False)
    saml: ServiceProvider = field(init=False)
    offline: RelyingParty = field(init=False)
    tool: uuid.UUID = field(init=False)
    _numbers: Any = field(default_factory=lambda: itertools.count(1000))

    def __post_init__(self) -> None:
        with self.app.app_context():
            self.verifier = self.world.services.hasher.make(PASSWORD)
        self.web = self.world.application("web")
        self.native = self.world.application(
            "native", auth_method="none", redirect_uris=("https://native.example/callback",)
        )
        self.offline = self.world.application("offline", offline_allowed=True)
        self.saml = self.world.service_provider(ServiceProvider("coupon"))
        self.admins = (Admin(self, "hq1"), Admin(self, "hq2"))

    # --- tools -----------------------------------------------------------------------------------------------------

    @cached_property
    def toolbox(self) -> Toolbox:
        """Everything about tools, and one tool in it, `shifts`, which each person enters with a login of their own."""
        box = Toolbox(self.world)
        recipe = box.recipe(SHIFT_NOTE.replace("sharing: shared", "sharing: per-person"))
        self.tool = box.tool("shifts", recipe_id=recipe)
        account = box.account(self.tool)
        box.deposit(account)
        box.certify(account, recipe)
        return box

    def opens_tool(self, browser: Browser) -> httpx2.Response:
        """The launch of somebody who is logged in: POST, without the page before it."""
        return browser.post("/tools/shifts/open", {"csrf_token": self.csrf_of(browser)}, follow=False)

    def csrf_of(self, browser: Browser) -> str:
        """A form token of this browser."""
        token: str = browser.forms(browser.get("/me/password"))[-1]["fields"]["csrf_token"]
        return token

    def waits(self, browser: Browser) -> str:
        """The gateway host of a fresh launch."""
        self.toolbox  # noqa: B018 - made at the first use
        answer = self.opens_tool(browser)
        assert answer.status_code == 303, (answer.status_code, answer.text[:800])
        row_id = uuid.UUID(answer.headers["location"].rpartition("/")[2])
        hosts: dict[str, str] = self.world.rows(select(GatewaySession.hosts).where(GatewaySession.id == row_id))[0][0]
        return next(iter(hosts))

    def asks_ticket(self, browser: Browser, host: str) -> str:
        """The ticket for this origin, or an empty text."""
        challenge = base64.urlsafe_b64encode(CHALLENGE).rstrip(b"=").decode()
        answer = browser.get(f"/tools/admit?label={host.partition('.')[0]}&challenge={challenge}", follow=False)
        assert answer.status_code in {303, 403, 404, 503}, (answer.status_code, answer.text[:500])
        return dict(parse_qsl(urlsplit(answer.headers.get("location", "")).query)).get("ticket", "")

    def enters(self, ticket: str, host: str) -> str:
        """The cookie that the gateway gives for a ticket, or an empty text."""
        with self.app.app_context(), transaction() as session:
            found = admissions.enter(session, ticket, host=host, challenge=CHALLENGE, now=clock.now())
            return found.cookie if found else ""

    def is_inside(self, cookie: str) -> bool:
        """Whether the gateway lets this cookie through: its live check."""
        with self.app.app_context(), reading() as session:
            values = {"digests": [ids.digest(cookie)], "now": clock.now()}
            return bool(run(session, gateway_sessions.live_query(), values))

    # --- people ----------------------------------------------------------------------------------------------------

    def person(
        self,
        *,
        role: Role = Role.STAFF,
        stores: tuple[str, ...] = ("S1",),
        totp: bool = False,
        active: bool = True,
        number: str = "",
    ) -> Person:
        """Somebody new. The password's verifier is made once: hashing it again for each would prove nothing here."""
        number, now = number or str(next(self._numbers)), clock.now()
        with self.app.app_context():
            with transaction() as session:
                company = people.get_company(session, "AOBA")
                places = [Place(company, people.get_store(session, company.id, s, None, Power.HIRE)) for s in stores]
                if role is Role.HQ_ADMIN:
                    places = [Place(company)]
                account = people.add_account(
                    session, places[0], login_name=number, name="山本 健", kana="", role=role, actor=CLI, now=now
                )
                account_id = account.id
                if active:
                    code = activation.issue(
                        session, account_id, purpose="activate", life=timedelta(hours=1), actor=CLI, now=now
                    )
                    waiting = activation.find(session, code or "", now=now)
                    assert waiting is not None
                    assert activation.use(session, waiting, verifier=self.verifier, actor=CLI, now=now)
                session.flush()
                first = session.scalar(select(Assignment.id).where(Assignment.account_id == account_id))
                for place in places[1:]:
                    people.add_assignment(session, account_id, place, role=role, actor=CLI, now=now)
            secret = self.world._totp(account_id) if totp else None
        assert first is not None
        return Person(account_id, "AOBA", number, PASSWORD, "山本 健", role, stores[0], first, secret)

    def logged_in(self, person: Person, *, acr: str = AAL1, idle_s: int = 1800) -> Browser:
        """A browser of theirs, just logged in. The login itself is the domain's; the path over HTTP is raced elsewhere."""
        browser = Browser(self.app)
        with self.app.app_context(), transaction() as session:
            row = session.execute(select(Account.company_id, Account.epoch).where(Account.id == person.id)).one()
            cookie = live.open_login(
                session, account_id=person.id, company_id=row.company_id, epoch=row.epoch, actor=CLI, now=clock.now(),
                how=Opening(acr, ("pwd",) if acr == AAL1 else ("pwd", "otp", "mfa"), idle_s, 8 * 3600),
            )  # fmt: skip
        assert cookie is not None
        browser.http.cookies.set("sekisho", cookie, domain=COOKIE_HOST, path="/")
        return browser

    def pending_login(self, person: Person) -> Browser:
        """A browser in which the password was right and the second factor is still due."""
        browser = Browser(self.app)
        with self.app.app_context(), transaction() as session:
            epoch = session.scalar(select(Account.epoch).where(Account.id == person.id))
            handle = second_factor.open_pending(session, person.id, epoch=epoch or 0, now=clock.now())
        browser.http.cookies.set("sekisho-2fa", handle, domain=COOKIE_HOST, path="/")
        return browser

    def activation_code(self, person: Person, purpose: activation.Purpose = "activate") -> str:
        """A one-time code for them."""
        with self.app.app_context(), transaction() as session:
            code = activation.issue(
                session, person.id, purpose=purpose, life=timedelta(minutes=15), actor=CLI, now=clock.now()
            )
        assert code is not None
        return code

    def login_session_of(self, browser: Browser) -> uuid.UUID:
        """The row behind a browser's cookie."""
        rows = self.world.rows(select(LoginSession.id).where(LoginSession.cookie_digest == ids.digest(browser.cookie)))
        found: uuid.UUID = rows[0][0]
        return found

    # --- what still works ------------------------------------------------------------------------------------------

    def is_in(self, cookie: str) -> bool:
        """True when this cookie opens a page."""
        with Browser(self.app) as other:
            other.http.cookies.set("sekisho", cookie, domain=COOKIE_HOST, path="/")
            answer = other.get("/me/security", follow=False)
        assert answer.status_code in {200, 303}, answer.text[:500]
        return "/login" not in answer.headers.get("location", "")

    def code_works(self, code: str) -> bool:
        """True when this one-time code still lets its owner choose a password."""
        with Browser(self.app) as other:
            other.get("/e")
            return other.submit(code=code).status_code == 200

    def deadlocks(self) -> int:
        """How many the server has broken so far."""
        return self.server.log().count("deadlock detected") if self.server else 0


def accepted(answer: httpx2.Response) -> bool:
    """True for a success. Anything that is neither a success nor a clear refusal fails the test: no 5xx but *come back*."""
    assert answer.status_code < 500 or answer.status_code == 503, (
        answer.status_code,
        str(answer.url),
        answer.text[:300],
    )
    return answer.status_code < 400


def receipt_of(answer: httpx2.Response) -> str:
    """The receipt that a revocation answered with; a revocation that was not carried out fails the test."""
    assert answer.status_code == 303, (answer.status_code, answer.text[:500])
    return receipt_number(answer)


def assignment_is_live(arena: Arena, assignment_id: uuid.UUID) -> bool:
    """As the database has it."""
    with arena.app.app_context(), reading() as session:
        return session.scalar(select(Assignment.ended_at).where(Assignment.id == assignment_id)) is None


def offline_tokens(arena: Arena, browser: Browser) -> dict[str, Any]:
    """Tokens of an offline family."""
    return arena.offline.log_in(browser, scope="openid offline_access")
