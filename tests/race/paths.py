"""Every path that issues something, as a scene that can be raced: prepare it, issue, and later ask what still works."""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import httpx2
import pyotp
from sqlalchemy import select

from idp.core import clock
from idp.core.errors import Conflict
from idp.domain.authn.login import AAL2
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.domain.gateway.models import GatewaySession
from idp.domain.sessions.models import AppSession
from tests.actors import Browser, Person, RelyingParty
from tests.race.arena import Arena, accepted, assignment_is_live, offline_tokens

EVERYWHERE = ("account", "assignment", "application", "login_session")
SEED = re.compile(r"\b[A-Z2-7]{4}(?: [A-Z2-7]{4}){7}\b")


class Scene(ABC):
    """One person and one issuance. `issue` runs in a thread; everything else before or after it.

    marker: how the statement that stores the artefact begins. scopes: the revocations that reach this issuance. reentry:
    scopes after which the same thing may be issued anew, so that only what came *before* the revocation must be dead.
    """

    marker: ClassVar[str]
    scopes: ClassVar[tuple[str, ...]] = ("account",)
    reentry: ClassVar[tuple[str, ...]] = ()
    stores: ClassVar[tuple[str, ...]] = ("S1", "S2")
    role: ClassVar[Role] = Role.STAFF
    totp: ClassVar[bool] = False
    active: ClassVar[bool] = True

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.person: Person = arena.person(role=self.role, stores=self.stores, totp=self.totp, active=self.active)
        self.party: RelyingParty = arena.web
        self.browser: Browser | None = None
        self.login_session: uuid.UUID | None = None
        self.prepare()
        if self.browser is not None:
            self.login_session = arena.login_session_of(self.browser)

    @abstractmethod
    def prepare(self) -> None:
        """Everything up to the request that issues."""

    @abstractmethod
    def issue(self) -> httpx2.Response | None:
        """The request that issues."""

    @abstractmethod
    def works(self, answer: httpx2.Response | None) -> list[str]:
        """What of the issued, and of what it was issued from, still works; presenting it is the test."""

    def log_in(self) -> Browser:
        """A browser in which this person is logged in."""
        self.browser = self.arena.logged_in(
            self.person, acr=AAL2 if self.role is not Role.STAFF else "urn:sekisho:aal1"
        )
        return self.browser

    def revoke(self, scope: str, admin: int = 0) -> httpx2.Response:
        """The revocation that races."""
        by = self.arena.admins[admin]
        match scope:
            case "account":
                return by.stop(self.person)
            case "assignment":
                return by.stop_one(self.person, "assignment", self.person.assignment_id)
            case "application":
                return by.stop_one(self.person, "application", self.party.application_id)
            case _:
                assert self.login_session is not None
                return by.stop_one(self.person, "login_session", self.login_session)

    def first_store(self, tokens: dict[str, Any]) -> list[str]:
        """The store that was taken away, when an ID token still claims it (RV-27)."""
        stores = RelyingParty.claims(tokens["id_token"])["stores"]
        return ["claims of the ended store"] if any(s["code"] == "S1" for s in stores) else []

    def cookie_works(self, cookie: str) -> list[str]:
        """A login cookie, tried."""
        return ["login cookie"] if cookie and self.arena.is_in(cookie) else []

    def enters_with_ended_store(self, browser: Browser) -> list[str]:
        """Whoever is still logged in enters anew: their claims must not name the ended store."""
        if not browser.cookie or not self.arena.is_in(browser.cookie):
            return []
        return self.first_store(self.arena.web.log_in(browser))


class LoginByPassword(Scene):
    """POST /login: the gate is the account, at the epoch that was read before the hash."""

    marker = "INSERT INTO login_session"
    scopes = ("account", "assignment")

    def prepare(self) -> None:
        self.phone = Browser(self.arena.app)
        self.phone.get("/login")

    def issue(self) -> httpx2.Response:
        return self.phone.submit(login_id=self.person.login, password=self.person.password, follow=False)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        found = ["assignment"] * assignment_is_live(self.arena, self.person.assignment_id)
        if self.person_lives():
            return found + self.enters_with_ended_store(self.phone)
        return found + self.cookie_works(self.phone.cookie)

    def person_lives(self) -> bool:
        """False after account scope."""
        return not self.arena.world.rows(Account.__table__.select().where(Account.id == self.person.id))[0].ended_at


class LoginByTotp(LoginByPassword):
    """POST /login/totp: account, time step, unfinished login, login session."""

    totp = True

    def prepare(self) -> None:
        self.phone = self.arena.pending_login(self.person)
        self.phone.get("/login/totp")
        self.code = self.person.code()

    def issue(self) -> httpx2.Response:
        return self.phone.submit(code=self.code, follow=False)


class Activate(Scene):
    """POST /e/password: the code becomes a password."""

    marker = "INSERT INTO authenticator"
    active = False

    def prepare(self) -> None:
        self.code = self.arena.activation_code(self.person)
        self.phone = Browser(self.arena.app)
        self.phone.get("/e")
        self.phone.submit(code=self.code)

    def issue(self) -> httpx2.Response:
        password = self.person.password
        return self.phone.submit(password=password, again=password, follow=False)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        with Browser(self.arena.app) as other:
            entered = other.log_in(self.person).status_code == 200
        return ["password"] * entered + ["code"] * self.arena.code_works(self.code)


class ResetCode(Scene):
    """POST /hq/people/…/reset: a one-time code for somebody who forgot."""

    marker = "INSERT INTO activation"

    def prepare(self) -> None:
        self.desk = self.arena.admins[1]

    def issue(self) -> httpx2.Response:
        return self.desk.send(f"/hq/people/{self.person.id}/reset")

    def works(self, answer: httpx2.Response | None) -> list[str]:
        shown = re.search(r'data-testid="code">([^<]+)<', answer.text if answer is not None else "")
        return ["reset code"] if shown and self.arena.code_works(shown.group(1)) else []


class AddAssignment(Scene):
    """One more store for somebody: the command line's door, as no page has one."""

    marker = "INSERT INTO assignment"
    scopes = ("account", "assignment")
    stores = ("S1",)
    added: uuid.UUID | None = None

    def prepare(self) -> None:
        pass

    def issue(self) -> None:
        try:
            self.added = self.arena.world.assign(self.person, "S2")
        except Conflict:
            self.added = None

    def works(self, answer: httpx2.Response | None) -> list[str]:
        first = assignment_is_live(self.arena, self.person.assignment_id)
        ended = self.arena.world.rows(Account.__table__.select().where(Account.id == self.person.id))[0].ended_at
        second = self.added is not None and ended is not None and assignment_is_live(self.arena, self.added)
        return ["first assignment"] * first + ["new assignment"] * second


class Authorize(Scene):
    """GET /oidc/authorize: the gate is the login session."""

    marker = "INSERT INTO authorization_code"
    scopes = EVERYWHERE
    reentry = ("application", "assignment")

    def prepare(self) -> None:
        self.log_in()
        self.url = self.party.authorization_url()
        self.verifier = self.party.verifier

    def issue(self) -> httpx2.Response:
        assert self.browser is not None
        return self.browser.get(self.url, follow=False)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        location = answer.headers.get("location", "") if answer is not None else ""
        if not location.startswith(self.party.redirect_uri) or "code=" not in location:
            return []
        self.party.verifier = self.verifier
        redeemed = self.party.redeem(self.party.answer(answer)["code"])  # type: ignore[arg-type]
        if not accepted(redeemed):
            return []
        return ["code", *self.first_store(redeemed.json())]


class Redeem(Scene):
    """POST /oidc/token with a code: the gate is the app session."""

    marker = "INSERT INTO token_family"
    scopes = EVERYWHERE

    def prepare(self) -> None:
        self.code = self.party.code(self.log_in())
        self.verifier = self.party.verifier

    def issue(self) -> httpx2.Response:
        return self.party.redeem(self.code, code_verifier=self.verifier)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        found = []
        if answer is not None and accepted(answer):
            found += self.tokens_work(answer.json())
        return found + ["code"] * accepted(self.party.redeem(self.code, code_verifier=self.verifier))

    def tokens_work(self, tokens: dict[str, Any]) -> list[str]:
        """Access and refresh token, tried."""
        found = ["access token"] * accepted(self.party.userinfo(tokens["access_token"]))
        return found + ["refresh token"] * accepted(self.party.refresh(tokens["refresh_token"]))


class RefreshPublic(Redeem):
    """POST /oidc/token with a refresh token of a public client: the family rotates in place and is its own gate."""

    marker = "UPDATE token_family"

    def prepare(self) -> None:
        self.party = self.arena.native
        self.before = self.party.log_in(self.log_in())

    def issue(self) -> httpx2.Response:
        return self.party.refresh(self.before["refresh_token"])

    def works(self, answer: httpx2.Response | None) -> list[str]:
        found = self.tokens_work(answer.json()) if answer is not None and accepted(answer) else []
        return found + self.tokens_work(self.before)


class RefreshOffline(RefreshPublic):
    """The same for an offline family of a confidential client: what it lives in is the account (RV-22)."""

    role = Role.STORE_MANAGER

    def prepare(self) -> None:
        self.party = self.arena.offline
        self.before = offline_tokens(self.arena, self.log_in())


class SamlSignOn(Scene):
    """GET /saml/sso: the gate is the login session; what is issued is an assertion, and our ledger row of it."""

    marker = "INSERT INTO app_session"
    scopes = EVERYWHERE
    reentry = ("application", "assignment")

    def prepare(self) -> None:
        self.party = self.arena.saml  # type: ignore[assignment]
        self.log_in()
        self.url = self.arena.saml.redirect_url()

    def issue(self) -> httpx2.Response:
        assert self.browser is not None
        return self.browser.get(self.url, follow=False)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        if answer is None or answer.status_code != 200 or "SAMLResponse" not in answer.text or self.browser is None:
            return []
        said = self.arena.saml.take(answer, self.browser)
        rows = self.arena.world.rows(select(AppSession.ended_at).where(AppSession.sid == said.session_index))
        assert len(rows) == 1, "an assertion without a ledger row"
        if rows[0].ended_at is not None:
            return []  # it was sent before the cut, is in the ledger, and its service provider is being told
        return ["code", *(["claims of the ended store"] if "S1" in said.attributes["stores"] else [])]


class StepUp(Scene):
    """POST /login/step-up: the same login session gets a new cookie, by UPDATE in place (AC-40)."""

    marker = "UPDATE login_session SET cookie_digest"
    scopes = ("account", "login_session")

    def prepare(self) -> None:
        self.log_in().get("/login/step-up")

    def issue(self) -> httpx2.Response:
        assert self.browser is not None
        return self.browser.submit(password=self.person.password, follow=False)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        assert self.browser is not None
        return self.cookie_works(self.browser.cookie)


class EnrolTotp(StepUp):
    """POST /me/security/totp/new: authenticator, recovery codes and a new cookie in one transaction."""

    marker = "INSERT INTO authenticator"

    def prepare(self) -> None:
        page = self.log_in().get("/me/security/totp/new")
        found = SEED.search(page.text)
        assert found is not None
        self.code = pyotp.TOTP(found.group().replace(" ", "")).at(clock.now())

    def issue(self) -> httpx2.Response:
        assert self.browser is not None
        return self.browser.submit(code=self.code, follow=False)


class OpenTool(Scene):
    """POST /tools/…/open: the gate is the login session; what is issued is a gateway session."""

    marker = "INSERT INTO gateway_session"
    scopes = EVERYWHERE
    reentry = ("application", "assignment")
    cookie = ""

    def prepare(self) -> None:
        self.arena.toolbox  # noqa: B018 - made at the first use
        self.party = replace(self.arena.web, application_id=self.arena.tool)
        self.token = self.arena.csrf_of(self.log_in())

    def issue(self) -> httpx2.Response:
        assert self.browser is not None
        return self.browser.post("/tools/shifts/open", {"csrf_token": self.token}, follow=False)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        if (
            answer is None
            or not answer.headers.get("location", "").startswith("/tools/launch/")
            or self.browser is None
        ):
            return []
        row_id = uuid.UUID(answer.headers["location"].rpartition("/")[2])
        host = next(iter(self.arena.world.rows(select(GatewaySession.hosts).where(GatewaySession.id == row_id))[0][0]))
        ticket = self.arena.asks_ticket(self.browser, host)
        return ["code"] if ticket and self.arena.is_inside(self.arena.enters(ticket, host)) else []


class Admit(OpenTool):
    """GET /tools/admit: the gates are the app session and the gateway session; what is issued is a ticket."""

    marker = "INSERT INTO admission_ticket"
    reentry = ()

    def prepare(self) -> None:
        super().prepare()
        assert self.browser is not None
        self.host = self.arena.waits(self.browser)
        self.ticket = ""

    def issue(self) -> None:
        assert self.browser is not None
        self.ticket = self.arena.asks_ticket(self.browser, self.host)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        cookie = self.arena.enters(self.ticket, self.host) if self.ticket else ""
        return ["ticket"] if cookie and self.arena.is_inside(cookie) else []


class EnterTool(Admit):
    """`/.sekisho/enter` at the gateway: the gate is the gateway session with all above it; what is issued is its cookie."""

    marker = "INSERT INTO gateway_cookie"

    def prepare(self) -> None:
        super().prepare()
        super().issue()

    def issue(self) -> None:
        self.cookie = self.arena.enters(self.ticket, self.host)

    def works(self, answer: httpx2.Response | None) -> list[str]:
        return ["gateway cookie"] if self.cookie and self.arena.is_inside(self.cookie) else []


PATHS: tuple[type[Scene], ...] = (
    LoginByPassword, LoginByTotp, Activate, ResetCode, AddAssignment, Authorize, Redeem, RefreshPublic, RefreshOffline, SamlSignOn, StepUp, EnrolTotp,
    OpenTool, Admit, EnterTool,
)  # fmt: skip
PAIRS = [(path, scope) for path in PATHS for scope in path.scopes]
