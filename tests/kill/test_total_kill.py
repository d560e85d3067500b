"""RV-20, total kill: somebody holds one of every kind of artefact, is cut, and presents all of them again.

The list of kinds is the model registry: every table is either something that a person could present, or rest on, and then
has a replay here, or it is not, and says why. A new table without an entry fails, and so does a new kind of cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import time_machine
from sqlalchemy import select, true

from idp.core import clock
from idp.core.db import transaction
from idp.domain.authn.login import AAL2
from idp.domain.directory.roles import Role
from idp.domain.gateway import tickets
from idp.domain.gateway.models import UseTicket
from idp.domain.gateway.tickets import Purpose, Refused
from idp.lifecycle.revocation.words import CutKind
from idp.models import Base
from idp.services import ticket_key
from tests.actors import Browser, Person, RelyingParty, receipt_number
from tests.race.arena import COOKIE_HOST, Admin, Arena, accepted, receipt_of

TOKYO = ZoneInfo("Asia/Tokyo")
RECOVERY = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){3}\b")

#: table → the replays that present it, or why there is nothing to present
KINDS: dict[str, tuple[str, ...] | str] = {
    "account": ("password and TOTP",),
    "activation": ("activation code", "reset code"),
    "admission_ticket": ("admission ticket",),
    "app_session": ("silent request", "SAML sign-on"),
    "application": "not an artefact because it is what people enter; it ends through narrowing, not with a person",
    "assignment": ("silent request",),
    "audit_anchor": "not an artefact because it says where a copy of a checkpoint lies",
    "audit_checkpoint": "not an artefact because it is a signed head of the log",
    "audit_event": "not an artefact because it is the log",
    "audit_origin": "not an artefact because it is a name of the log",
    "audit_sealer": "not an artefact because it is the lease of the sealer",
    "audit_tile": "not an artefact because it holds hashes of the log",
    "audit_reader": "not an artefact because it is a position in the log",
    "authenticator": ("password and TOTP", "recovery code"),
    "authorization_code": ("authorization code",),
    "certification": "not an artefact because it says what checks of a recipe found",
    "company": "not an artefact because it is a shared row that people rest on",
    "company_key": "not an artefact because it is a key of ours",
    "credential_field": "not an artefact because it is sealed, and only the engine opens it, with a use-ticket",
    "credential_version": "not an artefact because it wraps the key of sealed fields",
    "cut": "not an artefact because it says what was ended",
    "entitlement": ("silent request",),
    "evidence": "not an artefact because it proves a cut",
    "gateway_access": "not an artefact because it is the log of requests",
    "gateway_cookie": ("gateway cookie",),
    "gateway_process": "not an artefact because it is the lease of a gateway process",
    "gateway_session": ("gateway cookie", "waiting launch"),
    "kill_capability": "not an artefact because it says what was measured at a tool",
    "login_job": "not an artefact because it is work of ours",
    "login_session": ("login cookie", "cookie of the other device"),
    "outbox": "not an artefact because it is a delivery of ours, and must outlive the person",
    "pending_login": ("pending second factor",),
    "pending_request": ("waiting request", "waiting SAML request"),
    "recipe": "not an artefact because it is a text of ours",
    "refusal_count": "not an artefact because it is a counter",
    "region": "not an artefact because it is a place",
    "reinstatement": "not an artefact because it is a wish that two administrators decide, never the person",
    "relying_party": "not an artefact because its secret is the company's; whoever saw it gets a line to rotate it (RV-02)",
    "revocation": "not an artefact because it is the decision",
    "rotation": "not an artefact because it is work of ours, and must outlive the person",
    "saml_subject": ("SAML sign-on",),
    "sealed_credential": "not an artefact because it is sealed, and no person is ever given it",
    "seen_message": "not an artefact because it is the memory of messages that came, so that none counts twice",
    "service_provider": "not an artefact because it is what people enter, the SAML side of an application",
    "signing_key": "not an artefact because it is a key of ours",
    "store": "not an artefact because it is a shared row that people rest on",
    "throttle": "not an artefact because it is a counter",
    "token_family": (
        "refresh token, confidential", "refresh token, public", "refresh token, offline", "access token", "offline access token",
        "refresh token of the other device",
    ),
    "tool": "not an artefact because it is what people enter, the password side of an application",
    "tool_account": "not an artefact because it is an account of the company inside a tool, and no person is given its password",
    "tool_session": "not an artefact because it is our login inside a tool; a person reaches it through a gateway session only",
    "use_ticket": ("use ticket",),
}  # fmt: skip

#: what a cut of this kind ends, by the replays that prove it
CUTS: dict[CutKind, tuple[str, ...] | str] = {
    CutKind.ENTITLEMENT: ("silent request",),
    CutKind.LOGIN_SESSION: ("login cookie",),
    CutKind.AUTHENTICATOR: ("password and TOTP", "recovery code"),
    CutKind.ACTIVATION: ("activation code", "reset code"),
    CutKind.PENDING: ("pending second factor",),
    CutKind.APP_SESSION: ("silent request",),
    CutKind.AUTHORIZATION_CODE: ("authorization code",),
    CutKind.TOKEN_FAMILY: ("refresh token, confidential", "refresh token, public", "refresh token, offline"),
    CutKind.ACCESS_TOKEN: ("access token",),
    CutKind.OIDC_LOGOUT: "not ours to present because it is the relying party's session, which it is told to end",
    CutKind.SAML_LOGOUT: "not ours to present because it is the service provider's session, which it is told to end",
    CutKind.APPLICATION_LOGIN: "not ours to present because it is the application's session, and nobody can tell it",
    CutKind.GATEWAY_SESSION: ("gateway cookie", "admission ticket", "waiting launch"),
    CutKind.TOOL_SESSION: ("use ticket",),
    CutKind.TOOL_PASSWORD: "not ours to refuse because it is the tool that must refuse it: the engine changes it, and its line waits for that",
    CutKind.CLIENT_SECRET: "not killed because it is the company's and goes on working: somebody rotates it (RV-02)",
}


class Holder:
    """A store manager of two stores who holds one of everything, and a newcomer who has not begun."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.person: Person = arena.person(role=Role.STORE_MANAGER, stores=("S1", "S2"), totp=True)
        self.newcomer: Person = arena.person(active=False)
        self.admin = Admin(arena, f"hq-of-{self.person.login_name}")
        self.browser = arena.logged_in(self.person, acr=AAL2)
        self.browser.get("/me/security")
        self.recovery = RECOVERY.findall(self.browser.submit(action="/me/security/recovery").text)
        self.login_session = arena.login_session_of(self.browser)
        self.tablet = arena.logged_in(self.person, acr=AAL2)
        # the families first, the short-lived and what an epoch would spoil last
        self.web = arena.web.log_in(self.browser)
        self.native = arena.native.log_in(self.browser)
        self.offline = arena.offline.log_in(self.browser, scope="openid offline_access")
        self.elsewhere = arena.native.log_in(self.tablet)
        self.code = arena.web.code(self.browser)
        self.verifier = arena.web.verifier
        stored = self.browser.http.post(arena.web.authorization_url().partition("?")[0], data=_wish(arena.web))
        self.waiting = stored.headers["location"]
        self.saml_waiting = self.browser.http.post("/saml/sso", data=arena.saml.post_form()).headers["location"]
        host = arena.waits(self.browser)
        self.cookie = arena.enters(arena.asks_ticket(self.browser, host), host)
        self.launch = arena.waits(self.browser)
        self.ticket = (arena.asks_ticket(self.browser, self.launch), self.launch)
        self.pending = [arena.pending_login(self.person) for _ in range(2)]
        self.reset_code = arena.activation_code(self.person, "reset")
        self.activation_code = arena.activation_code(self.newcomer)

    def replays(self) -> dict[str, Callable[[], bool]]:
        """Name → present it; True when it is accepted. In an order in which none spoils the next one."""
        a = self.arena
        return {
            "login cookie": lambda: a.is_in(self.browser.cookie),
            "cookie of the other device": lambda: a.is_in(self.tablet.cookie),
            "access token": lambda: accepted(a.web.userinfo(self.web["access_token"])),
            "offline access token": lambda: accepted(a.offline.userinfo(self.offline["access_token"])),
            "refresh token, confidential": lambda: accepted(a.web.refresh(self.web["refresh_token"])),
            "refresh token, public": lambda: accepted(a.native.refresh(self.native["refresh_token"])),
            "refresh token, offline": lambda: accepted(a.offline.refresh(self.offline["refresh_token"])),
            "refresh token of the other device": lambda: accepted(a.native.refresh(self.elsewhere["refresh_token"])),
            "authorization code": lambda: accepted(a.web.redeem(self.code, code_verifier=self.verifier)),
            "silent request": lambda: bool(self.enter(prompt="none")),
            "waiting request": lambda: "code=" in self.open(self.waiting),
            "SAML sign-on": lambda: self.signs_on(a.saml.redirect_url(IsPassive="true")),
            "waiting SAML request": lambda: self.signs_on(self.saml_waiting),
            "gateway cookie": lambda: a.is_inside(self.cookie),
            "waiting launch": self.asks_again,
            "admission ticket": lambda: bool(a.enters(*self.ticket)),
            "use ticket": self.uses_ticket,
            "reset code": lambda: a.code_works(self.reset_code),
            "activation code": lambda: a.code_works(self.activation_code),
            "pending second factor": lambda: self.finish(self.pending[0], "totp", self.person.code()),
            "recovery code": lambda: self.finish(self.pending[1], "recovery", self.recovery[0]) or self.log_in(self.recovery[1]),
            "password and TOTP": lambda: self.log_in(None),
        }  # fmt: skip

    def asks_again(self) -> bool:
        """A launch that nobody has entered yet: the browser asks for its ticket."""
        with Browser(self.arena.app) as copy:
            copy.http.cookies.set("sekisho", self.browser.cookie, domain=COOKIE_HOST, path="/")
            return bool(self.arena.asks_ticket(copy, self.launch))

    def uses_ticket(self) -> bool:
        """The engine presents the ticket that this person's launch wrote, holding its job."""
        now = clock.now()
        with self.arena.app.app_context():
            key = ticket_key(self.arena.world.services.vault)
            with transaction() as session:
                ticket = session.scalar(
                    select(UseTicket).where(UseTicket.account_id == self.person.id).order_by(UseTicket.id)
                )
                assert ticket is not None
                found = tickets.claim_use_ticket(
                    session, key, ticket.id, purpose=Purpose.LOGIN, tool_account_id=ticket.tool_account_id, job_id=ticket.job_id,
                    leased=true(), now=now,
                )  # fmt: skip
                return not isinstance(found, Refused)

    def open(self, url: str) -> str:
        """Where a request of the browser with the login cookie leads."""
        with Browser(self.arena.app) as copy:
            copy.http.cookies.set("sekisho", self.browser.cookie, domain=COOKIE_HOST, path="/")
            answer = copy.get(url, follow=False)
        assert answer.status_code < 500, answer.text[:500]
        return answer.headers.get("location", "")

    def signs_on(self, url: str) -> bool:
        """True when a SAML request of the browser with the login cookie is answered with an assertion."""
        with Browser(self.arena.app) as copy:
            copy.http.cookies.set("sekisho", self.browser.cookie, domain=COOKIE_HOST, path="/")
            page = copy.get(url, follow=False)
            assert page.status_code < 500, page.text[:500]
            if "SAMLResponse" not in page.text:
                return False
            return self.arena.saml.take(page, copy).assertion is not None

    def enter(self, **extra: str) -> dict[str, Any]:
        """A new authorization with the login cookie: tokens, or nothing."""
        party = self.arena.web
        location = self.open(party.authorization_url(**extra))
        if "code=" not in location:
            return {}
        found = party.redeem(party.answer(httpx2.Response(303, headers={"location": location}))["code"])
        tokens: dict[str, Any] = found.json() if accepted(found) else {}
        return tokens

    def finish(self, browser: Browser, way: str, code: str) -> bool:
        """The second step of a login whose first one is done."""
        if "/login/" not in str(browser.get(f"/login/{way}").url):
            return False
        return browser.submit(code=code, follow=False).status_code == 303

    def log_in(self, recovery: str | None) -> bool:
        """A whole login with password and second factor, in a new browser."""
        with Browser(self.arena.app) as fresh:
            fresh.get("/login")
            answer = fresh.submit(login_id=self.person.login, password=self.person.password)
            if "/login/totp" not in str(answer.url):
                return answer.status_code == 200
            if recovery is None:
                return fresh.submit(code=self.person.code(offset_s=30)).status_code == 200
            return self.finish(fresh, "recovery", recovery)

    def judge(self, *, dead: set[str], alive: set[str]) -> None:
        """Present everything; what must be refused was, what must survive did."""
        replays = self.replays()
        assert dead | alive <= set(replays)
        found = {name: replay() for name, replay in replays.items()}
        assert {name for name in dead if found[name]} == set(), "survivors"
        assert {name for name in alive if not found[name]} == set(), "cut too much"


def _wish(party: RelyingParty) -> dict[str, str]:
    query = party.authorization_url().partition("?")[2]
    return dict(httpx2.QueryParams(query))


EVERYTHING = {name for kinds in KINDS.values() if not isinstance(kinds, str) for name in kinds}
#: whatever of another person's a scope cannot reach
NEWCOMER = {"activation code"}
DEVICES = {"cookie of the other device", "refresh token of the other device"}
WAYS_IN = {"password and TOTP", "recovery code"}
#: an epoch that grew ends these with every revocation of the person, whatever its scope
BY_EPOCH = {"reset code", "pending second factor", "use ticket"}
#: what lies in a tool
INSIDE = {"gateway cookie", "waiting launch", "admission ticket"}


def test_RV_20_every_table_is_replayed_or_says_why_not(arena: Arena) -> None:
    """A new kind without a kill test fails: tables of the registry, kinds of cut, and replays name each other completely."""
    tables = {mapper.local_table.name for mapper in Base.registry.mappers}  # type: ignore[attr-defined]
    assert tables == set(Base.metadata.tables)
    assert tables == set(KINDS), f"new: {sorted(tables - set(KINDS))}, gone: {sorted(set(KINDS) - tables)}"
    assert all(not isinstance(why, str) or why.startswith("not an artefact because ") for why in KINDS.values())
    assert set(CutKind) == set(CUTS)
    assert {name for names in CUTS.values() if not isinstance(names, str) for name in names} <= EVERYTHING
    assert set(Holder(arena).replays()) == EVERYTHING


def test_RV_20_without_a_cut_everything_works(arena: Arena) -> None:
    """The control: each replay is accepted while nobody is cut, so that *refused* means something below."""
    Holder(arena).judge(dead=set(), alive=EVERYTHING)


def test_RV_20_account_scope_kills_everything(arena: Arena) -> None:
    """One press of 「すべて切断」 for each of the two people: every artefact of every kind is refused, offline ones too (RV-22)."""
    holder = Holder(arena)
    for person in (holder.person, holder.newcomer):
        receipt_of(holder.admin.stop(person))
    holder.judge(dead=EVERYTHING, alive=set())


def test_RV_20_AC_42_reached_end_date_kills_everything_with_the_worker_stopped(arena: Arena) -> None:
    """Booked for tonight. A minute before midnight in Tokyo everything works, a few seconds after it nothing does: no sweep ran,
    and none of the artefacts had expired by itself (RV-35, D7)."""
    tomorrow = (clock.now().astimezone(TOKYO) + timedelta(days=1)).date()
    midnight = datetime.combine(tomorrow + timedelta(days=1), time.min, tzinfo=TOKYO)
    with time_machine.travel(midnight - timedelta(seconds=20), tick=False) as clockwork:
        control, holder = Holder(arena), Holder(arena)
        for person in (holder.person, holder.newcomer):
            answer = holder.admin.send(f"/hq/people/{person.id}/stop", reason="left", when="today", once="x")
            assert answer.status_code == 303
            assert "/receipts/" not in answer.headers["location"]
        assert arena.is_in(holder.browser.cookie)
        assert accepted(arena.web.userinfo(holder.web["access_token"]))
        clockwork.move_to(midnight + timedelta(seconds=5))
        holder.judge(dead=EVERYTHING, alive=set())
        control.judge(dead=set(), alive=EVERYTHING)


def test_RV_20_RV_27_assignment_scope_leaves_the_login_and_one_store(arena: Arena) -> None:
    """Leaving S1: all grants end because claims list all stores; both login sessions stay, and whoever enters anew has S2 only."""
    holder = Holder(arena)
    receipt_of(holder.admin.stop_one(holder.person, "assignment", holder.person.assignment_id))
    tokens = holder.enter()
    assert [store["code"] for store in RelyingParty.claims(tokens["id_token"])["stores"]] == ["S2"]
    assert [store["code"] for store in arena.web.userinfo(tokens["access_token"]).json()["stores"]] == ["S2"]
    holder.judge(
        dead={
            "refresh token, confidential", "refresh token, public", "refresh token, offline", "access token", "offline access token",
            "authorization code", "refresh token of the other device", *INSIDE, *BY_EPOCH,
        },
        alive={"login cookie", "cookie of the other device", *WAYS_IN, *NEWCOMER},
    )  # fmt: skip


def test_RV_20_application_scope_leaves_the_other_applications(arena: Arena) -> None:
    """One application's use: its grants end, on every device; those of other applications and both logins stay."""
    holder = Holder(arena)
    receipt_of(holder.admin.stop_one(holder.person, "application", arena.web.application_id))
    holder.judge(
        dead={"refresh token, confidential", "access token", "authorization code", *BY_EPOCH},
        alive={
            "login cookie", "refresh token, public", "refresh token, offline", "offline access token", "SAML sign-on",
            "waiting SAML request", *INSIDE, *DEVICES, *WAYS_IN, *NEWCOMER,
        },
    )  # fmt: skip


def test_RV_20_login_session_scope_leaves_the_other_device(arena: Arena) -> None:
    """One lost phone: everything that was issued inside its login session ends, offline grants too; the tablet works on."""
    holder = Holder(arena)
    receipt_of(holder.admin.stop_one(holder.person, "login_session", holder.login_session))
    holder.judge(
        dead={
            "login cookie", "refresh token, confidential", "refresh token, public", "refresh token, offline", "access token",
            "offline access token", "authorization code", "silent request", "waiting request", "SAML sign-on", "waiting SAML request",
            *INSIDE, *BY_EPOCH,
        },
        alive={*DEVICES, *WAYS_IN, *NEWCOMER},
    )  # fmt: skip


def test_RV_29_what_was_killed_stays_dead_when_the_person_comes_back(arena: Arena) -> None:
    """Two administrators let the person in again: no artefact of the time before revives, not even the password."""
    holder, second = Holder(arena), arena.admins[0]
    receipt_number(holder.admin.stop(holder.person))
    assert holder.admin.send(f"/hq/people/{holder.person.id}/reinstate", note="wrong person").status_code == 303
    assert second.send(f"/hq/people/{holder.person.id}/reinstate/approve").status_code == 200
    holder.judge(dead=EVERYTHING - NEWCOMER, alive=NEWCOMER)
