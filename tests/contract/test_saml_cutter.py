"""The SAML cutter against real small servers: what it sends, and that only a signed Success counts (SA-21, SA-22, LO-07, LO-08)."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from lxml import etree

from idp.app import create_app
from idp.core import clock
from idp.core.db import db, transaction
from idp.core.outbound import HttpOutbound, Rules
from idp.domain.applications import names
from idp.domain.applications.models import Application
from idp.domain.directory.models import Account
from idp.edges.saml.cutter import SamlLogoutCutter
from idp.lifecycle.revocation.cutter import CutOrder, Outcome
from tests.actors import CLI, Browser, Person, World
from tests.conftest import Template, dispose, settings_for
from tests.contract.test_cutter import HOSTILE
from tests.fakes import rp
from tests.fakes.rp import Peer
from tests.saml import NS, Answer, ServiceProvider, pair, verify

S = "urn:oasis:names:tc:SAML:2.0:status:"


@dataclass
class Stage:
    """A cutter, the service provider it meets, and a person with sessions there."""

    app: Flask
    world: World
    cutter: SamlLogoutCutter
    peer: Peer
    sp: ServiceProvider
    person: Person
    sessions: list[Answer]

    def order(self, **over: Any) -> CutOrder:
        """One attempt."""
        wish = {
            "delivery_id": uuid.uuid4(), "application_id": self.sp.application_id, "account_id": self.person.id,
            "sids": tuple(a.session_index for a in self.sessions), "whole_subject": True, "attempt": 1, "now": clock.now(), **over,
        }  # fmt: skip
        return CutOrder(**wish)

    def cut(self, behaviour: rp.Behaviour, *, cutter: SamlLogoutCutter | None = None, **over: Any) -> Outcome:
        """Meet a service provider that behaves so."""
        self.peer.behaviour = behaviour
        self.peer.calls.clear()
        with self.app.app_context():
            outcome = (cutter or self.cutter).cut(self.order(**over))
        assert outcome.error is None or len(outcome.error) <= 40
        assert "<" not in json.dumps(dict(outcome.evidence))
        return outcome

    def answering(self, **how: Any) -> rp.Behaviour:
        """A service provider that answers a LogoutResponse made so."""
        return lambda handler, call: handler.answer(200, self.sp.honest(call.body, **how), Content_Type="text/xml")

    def asked(self) -> list[Any]:
        """The LogoutRequests that arrived."""
        return [etree.fromstring(call.body).find("soap:Body/samlp:LogoutRequest", NS) for call in self.peer.calls]


@pytest.fixture(scope="module")
def stage(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests: nobody writes."""
    folder: Path = tmp_path_factory.mktemp("saml_cutter")
    shutil.copy(sqlite_template.folder / "template.sqlite", folder / "test.sqlite")
    settings = settings_for(f"sqlite:///{folder}/test.sqlite", sqlite_template.folder)
    app = create_app(settings, outbound=HttpOutbound(Rules.from_settings(settings), total_s=2.0))
    world = World(app)
    with Peer(rp.ok) as peer:
        sp = world.service_provider(ServiceProvider("coupon", base=f"http://127.0.0.1:{peer.port}"))
        world.service_provider(ServiceProvider("mute", soap=False))
        person = world.person()
        sessions = []
        for _ in range(2):
            with Browser(app) as browser:
                browser.log_in(person)
                sessions.append(sp.sign_on(browser))
        yield Stage(app, world, SamlLogoutCutter(app.extensions["sekisho"]), peer, sp, person, sessions)
    dispose(app)


def test_SA_21_one_signed_request_names_the_person_and_every_session(stage: Stage) -> None:
    """Signed by our key, for this address and from now, with NameID, qualifiers and all indexes; a new ID each time."""
    outcome = stage.cut(stage.answering())
    assert outcome.result == "acknowledged"
    assert outcome.evidence["saml_status"] == "Success"
    (request,) = stage.asked()
    alone = etree.fromstring(etree.tostring(request))
    signed = verify(alone, alone.xpath("string(.//ds:X509Certificate)", namespaces=NS))
    assert signed.get("Destination") == stage.sp.soap_url
    assert signed.get("NotOnOrAfter") > signed.get("IssueInstant")
    name = signed.find("saml:NameID", NS)
    assert (name.text, name.get("SPNameQualifier")) == (stage.sessions[0].name_id, stage.sp.entity_id)
    assert [n.text for n in signed.findall("samlp:SessionIndex", NS)] == [a.session_index for a in stage.sessions]
    assert stage.peer.calls[0].headers["content-type"].startswith("text/xml")
    stage.cut(stage.answering())
    assert stage.asked()[0].get("ID") != request.get("ID")


def test_SA_21_single_sessions_name_only_themselves(stage: Stage) -> None:
    """Not the whole subject: the other session of the same person is not named."""
    one = stage.sessions[1].session_index
    assert stage.cut(stage.answering(), whole_subject=False, sids=(one,)).result == "acknowledged"
    assert [n.text for n in stage.asked()[0].findall("samlp:SessionIndex", NS)] == [one]


def test_SA_21_a_shared_name_is_not_told_to_who_ends_all_of_it(stage: Stage) -> None:
    """The plan gives such a line to a person already; the cutter refuses it as well, before anything is sent (SA-14)."""
    sp = stage.world.service_provider(
        ServiceProvider("shared", base=f"http://localhost:{stage.peer.port}"), name_id="mapped"
    )
    with stage.app.app_context(), transaction() as session:
        application, account = (
            session.get_one(Application, sp.application_id),
            session.get_one(Account, stage.person.id),
        )
        names.map_account(session, application, account, "shop", actor=CLI, now=clock.now())
    with Browser(stage.app) as browser:
        browser.log_in(stage.person)
        session_index = sp.sign_on(browser).session_index
    outcome = stage.cut(stage.answering(), application_id=sp.application_id, sids=(session_index,))
    assert (outcome.result, outcome.error) == ("refused", "shared_account")
    assert stage.peer.calls == []


#: what comes back, and what it is worth
ANSWERS: list[tuple[str, dict[str, Any], tuple[str, str | None]]] = [
    ("unsigned", {"signed": False}, ("refused", "unsigned_response")),
    ("another's key", {"pair": pair("stranger")}, ("refused", "bad_signature")),
    ("another's name", {"issuer": "https://other.example"}, ("refused", "signed_by_another")),
    ("partial", {"second": f"{S}PartialLogout"}, ("retry", "PartialLogout")),
    ("responder", {"status": f"{S}Responder"}, ("retry", "Responder")),
    ("requester", {"status": f"{S}Requester", "second": f"{S}RequestDenied"}, ("refused", "RequestDenied")),
    ("a status of its own", {"status": "https://x.example/yes"}, ("retry", "unknown_status")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "how", "worth"), ANSWERS, ids=[name for name, *_ in ANSWERS])
def test_SA_22_anything_but_a_signed_success_is_not_confirmed(
    stage: Stage, name: str, how: dict[str, Any], worth: tuple[str, str | None]
) -> None:
    """Each answer has one meaning, and none of these is *acknowledged*."""
    outcome = stage.cut(stage.answering(**how))
    assert (outcome.result, outcome.error) == worth


def test_SA_22_an_answer_to_another_request_confirms_nothing(stage: Stage) -> None:
    """A recorded Success of yesterday; a SOAP fault with status 200; a LogoutRequest instead of a response."""
    old = stage.sp.response("_of_yesterday")
    assert stage.cut(rp.status(200, old)).error == "answers_another_request"
    fault = f'<s:Envelope xmlns:s="{NS["soap"]}"><s:Body><s:Fault><faultcode>s:Server</faultcode><faultstring>x</faultstring></s:Fault></s:Body></s:Envelope>'
    assert (stage.cut(rp.status(200, fault.encode())).result, stage.cut(rp.status(500, fault.encode())).error) == (
        "retry",
        "soap_fault",
    )
    mirror = stage.cut(lambda handler, call: handler.answer(200, call.body))
    assert (mirror.result, mirror.error) == ("retry", "no_saml_answer")
    page = stage.cut(rp.status(200, rp.LOGIN_PAGE))
    assert (page.result, page.error, page.evidence["read_as"]) == ("retry", "no_saml_answer", "doctype")
    off = old.replace(b"<samlp:Status>", b"<samlp:Status x='1'>")
    assert stage.cut(rp.status(200, off)).evidence["read_as"] == "schema"


def test_SA_21_who_knows_nobody_of_that_name_is_asked_once_more(stage: Stage) -> None:
    """UnknownPrincipal with indexes may be a lost index; without them it is the service provider's word that nobody is there."""
    outcome = stage.cut(stage.answering(status=f"{S}Requester", second=f"{S}UnknownPrincipal"))
    assert outcome.result == "acknowledged"
    assert outcome.evidence["saml_status"] == "Requester/UnknownPrincipal"
    assert [len(r.findall("samlp:SessionIndex", NS)) for r in stage.asked()] == [2, 0]


@pytest.mark.parametrize(("name", "behaviour", "_words"), HOSTILE, ids=[name for name, *_ in HOSTILE])
def test_LO_07_LO_08_nothing_a_hostile_peer_does_counts_as_success(
    stage: Stage, name: str, behaviour: rp.Behaviour, _words: set[str]
) -> None:
    """A retry with a word, in time, and never an exception; redirects are not followed."""
    assert stage.cut(behaviour).result == "retry"
    for status in (204, 301, 404, 503):
        assert (
            stage.cut(rp.status(status, **({"Location": "/else"} if status == 301 else {}))).error == f"http_{status}"
            if status != 204
            else True
        )
        assert len(stage.peer.calls) == 1


def test_down_unknown_and_shared(stage: Stage) -> None:
    """Nothing to tell or nobody to tell it to: a person, never *acknowledged*."""
    with stage.app.app_context():
        assert stage.cutter.cut(stage.order(application_id=uuid.uuid4())).error == "no_logout_endpoint"
        assert stage.cutter.cut(stage.order(account_id=uuid.uuid4(), sids=())).error == "nothing_to_tell"


def test_house_1_9_RE_02_no_transaction_and_no_endless_attempt(stage: Stage) -> None:
    """While the peer thinks no connection of ours is held; an attempt that ran out of its budget says how far it came."""
    held: list[int] = []

    def look(handler: rp.Handler, call: rp.Received) -> None:
        held.append(sum(engine.pool.checkedout() for engine in engines))  # type: ignore[attr-defined]
        stage.answering()(handler, call)

    with stage.app.app_context():
        engines = list(db.engines.values())
    assert stage.cut(look).result == "acknowledged"
    assert held == [0]
    spent = SamlLogoutCutter(stage.app.extensions["sekisho"], budget_s=-1.0)
    outcome = stage.cut(stage.answering(), cutter=spent, now=clock.now() + timedelta(seconds=1))
    assert (outcome.result, outcome.error, outcome.told) == ("retry", "too_slow", 0)
