"""One suite for every Cutter (house.md 1.8, LO-04..LO-08, RV-24): what the worker may rely on, whatever the peer does.

A new kind of application adds its cutter to `CUTTERS` and passes as it is. The peers are real small servers. One database
engine: a cutter reads two rows and writes none.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import select

from idp.app import create_app
from idp.core import clock
from idp.core.db import db
from idp.core.outbound import HttpOutbound, Rules
from idp.domain.directory.models import Account
from idp.edges.oidc.backchannel import OidcLogoutCutter
from idp.lifecycle.revocation.cutter import CutOrder, Cutter, Outcome
from tests.actors import Person, RelyingParty, World
from tests.conftest import Template, dispose, settings_for
from tests.fakes import rp
from tests.fakes.rp import BadLogoutToken, LogoutReceiver, Peer, verify_logout_token

CUTTERS: dict[str, Callable[[Flask], Cutter]] = {"oidc": lambda app: OidcLogoutCutter(app.extensions["sekisho"])}
SIDS = ("sid-one-000000000", "sid-two-000000000", "sid-three-0000000")


@dataclass
class Stage:
    """A cutter, the peer it meets, and a person to be cut there."""

    app: Flask
    cutter: Cutter
    peer: Peer
    party: RelyingParty
    strict: RelyingParty
    person: Person
    subject: str
    receiver: LogoutReceiver

    def order(
        self, *, whole: bool = True, sids: tuple[str, ...] = SIDS, at: RelyingParty | None = None, **over: Any
    ) -> CutOrder:
        """One attempt."""
        party = at or self.party
        wish = {"delivery_id": uuid.uuid4(), "application_id": party.application_id, "account_id": self.person.id, "sids": sids, "whole_subject": whole,
                "attempt": 1, "now": clock.now(), **over}  # fmt: skip
        return CutOrder(**wish)

    def cut(self, behaviour: rp.Behaviour, *, cutter: Cutter | None = None, **over: Any) -> Outcome:
        """Meet a peer that behaves so; it must come back within seconds, with plain facts and no word of a body."""
        self.peer.behaviour = behaviour
        self.peer.calls.clear()
        started = time.monotonic()
        with self.app.app_context():
            outcome = (cutter or self.cutter).cut(self.order(**over))
        assert time.monotonic() - started < 10
        assert outcome.result in {"acknowledged", "retry", "refused"}
        assert outcome.error is None or len(outcome.error) <= 40
        assert "<html" not in json.dumps(dict(outcome.evidence)).lower()
        return outcome


@pytest.fixture(scope="module")
def stage(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests: nobody writes."""
    folder: Path = tmp_path_factory.mktemp("cutter")
    shutil.copy(sqlite_template.folder / "template.sqlite", folder / "test.sqlite")
    settings = settings_for(f"sqlite:///{folder}/test.sqlite", sqlite_template.folder)
    client = HttpOutbound(Rules.from_settings(settings), total_s=2.0)
    app = create_app(settings, outbound=client)
    world = World(app)
    with Peer(rp.ok) as peer:
        party = world.application("points", backchannel_logout_uri=peer.url)
        strict = world.application("strict", backchannel_logout_uri=peer.url, backchannel_logout_session_required=True)
        world.application("mute", backchannel_logout_uri=None)
        person = world.person()
        with app.app_context():
            app.extensions["sekisho"].signer.refresh(now=clock.now())
        receiver = LogoutReceiver(settings.issuer, party.client_id, party.http.get("/oidc/jwks").json())
        subject = str(world.rows(_subject(person))[0].subject)
        yield Stage(app, CUTTERS["oidc"](app), peer, party, strict, person, subject, receiver)
    dispose(app)


def _subject(person: Person) -> Any:
    return select(Account.subject).where(Account.id == person.id)


def test_LO_04_LO_05_an_honest_peer_is_told_exactly_once_for_the_whole_subject(stage: Stage) -> None:
    """One token without `sid`, correct in every claim, and the peer's three sessions of this person end, nobody else's."""
    stage.receiver.sessions = {(stage.subject, sid) for sid in SIDS} | {("somebody else", "x")}
    outcome = stage.cut(stage.receiver.take)
    assert outcome.result == "acknowledged"
    assert stage.receiver.refusals == []
    assert [("sid" in claims, claims["sub"]) for claims in stage.receiver.claims[-1:]] == [(False, stage.subject)]
    assert stage.receiver.sessions == {("somebody else", "x")}
    assert outcome.evidence["status"] == 200
    assert outcome.evidence["jti"] == stage.receiver.claims[-1]["jti"]
    call = stage.peer.calls[0]
    assert call.headers["content-type"] == "application/x-www-form-urlencoded"
    assert len(stage.peer.calls) == 1


def test_LO_05_single_sessions(stage: Stage) -> None:
    """Not the whole subject: one token for each session, and no token without `sid`, which would end the others too."""
    stage.receiver.sessions = {(stage.subject, sid) for sid in (*SIDS, "the one that stays")}
    assert stage.cut(stage.receiver.take, whole=False).result == "acknowledged"
    assert stage.receiver.sessions == {(stage.subject, "the one that stays")}
    assert [claims.get("sid") for claims in stage.receiver.claims[-3:]] == list(SIDS)


def test_LO_05_a_peer_that_wants_sid_in_every_token(stage: Stage) -> None:
    """Whole subject plus each session; that it answers 400 to the token without `sid` keeps nothing from being sent and is
    no refusal, because each session was named. A refusal of a named one is."""
    receiver = LogoutReceiver(stage.receiver.issuer, stage.strict.client_id, stage.receiver.keys, requires_sid=True)
    receiver.sessions = {(stage.subject, sid) for sid in SIDS}
    outcome = stage.cut(receiver.take, at=stage.strict)
    assert len(stage.peer.calls) == 4
    assert receiver.sessions == set()
    assert outcome.result == "acknowledged"
    assert outcome.evidence["without_sid"] == "http_400"

    refuse_second = iter([200, 200, 400, 200])
    outcome = stage.cut(lambda handler, _call: handler.answer(next(refuse_second)), at=stage.strict)
    assert (outcome.result, outcome.error, len(stage.peer.calls)) == ("refused", "http_400", 4)

    assert stage.cut(rp.status(400), at=stage.strict, sids=()).result == "refused", (
        "nothing was named, so this is a refusal"
    )


def test_LO_07_a_new_token_each_time(stage: Stage) -> None:
    """The same order twice: other `jti`, and `iat` and `exp` of the attempt, at most two minutes apart."""
    stage.cut(rp.ok)
    first = RelyingParty.claims(stage.peer.calls[0].token)
    later = clock.now() + timedelta(seconds=90)
    stage.cut(rp.ok, now=later)
    second = RelyingParty.claims(stage.peer.calls[0].token)
    assert first["jti"] != second["jti"]
    assert second["iat"] == int(later.timestamp()) > first["iat"]
    assert second["exp"] - second["iat"] <= 120
    assert "nonce" not in second


STATUSES = [
    (204, "acknowledged", None), (400, "refused", "http_400"), (201, "retry", "http_201"), (301, "retry", "http_301"), (302, "retry", "http_302"),
    (307, "retry", "http_307"), (401, "retry", "http_401"), (404, "retry", "http_404"), (405, "retry", "http_405"), (408, "retry", "http_408"),
    (429, "retry", "http_429"), (500, "retry", "http_500"), (502, "retry", "http_502"), (503, "retry", "http_503"), (504, "retry", "http_504"),
]  # fmt: skip


def test_LO_07_every_status_has_one_meaning(stage: Stage) -> None:
    """200 and 204 acknowledge; 400 refuses; everything else is tried again, redirects included, and is not followed."""
    for status, result, error in STATUSES:
        outcome = stage.cut(rp.status(status, **({"Location": "/elsewhere"} if status in {301, 302, 307} else {})))
        assert (outcome.result, outcome.error) == (result, error)
        assert outcome.evidence["status"] == status
        assert [call.method for call in stage.peer.calls] == ["POST"]


def test_LO_07_retry_after(stage: Stage) -> None:
    """Seconds or a date; nonsense, and what overflows, is no wish at all."""
    soon = datetime.now(UTC) + timedelta(seconds=120)
    for text, low, high in (
        ("7", 7, 7),
        (" 7 ", 7, 7),
        (format_datetime(soon, usegmt=True), 110, 121),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ):
        outcome = stage.cut(rp.status(503, Retry_After=text))
        assert outcome.retry_after_s is not None
        assert low <= outcome.retry_after_s <= high
    for text in ("-1", "soon", "1e3", "٣", "9" * 30, "Wed, 99 Oct 2015", ""):
        assert stage.cut(rp.status(429, Retry_After=text.encode().decode("latin-1"))).retry_after_s is None


HOSTILE: list[tuple[str, rp.Behaviour, set[str]]] = [
    ("hangs", rp.hang, {"timeout"}), ("drips", rp.drip(0.05), {"timeout"}), ("ten megabytes", rp.big(), {"too_large"}),
    ("login page", rp.login_page, {"html_page"}), ("login page without a type", rp.status(200, rp.LOGIN_PAGE), {"html_page"}),
    ("page that calls itself JSON", rp.status(200, b" \n<HTML><body>hi", Content_Type="application/json"), {"html_page"}),
    ("no HTTP", rp.no_http, {"protocol"}), ("hangs up", rp.hang_up, {"protocol", "network"}), ("header flood", rp.flood_of_headers, {"protocol", "timeout"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "behaviour", "words"), HOSTILE, ids=[name for name, *_ in HOSTILE])
def test_LO_07_LO_08_nothing_a_hostile_peer_does_counts_as_success(
    stage: Stage, name: str, behaviour: rp.Behaviour, words: set[str]
) -> None:
    """It is a retry with a word for the receipt, in time, and never an exception."""
    outcome = stage.cut(behaviour)
    assert outcome.result == "retry"
    assert outcome.error in words


def test_LO_07_small_answers_are_answers(stage: Stage) -> None:
    """`ok` under the text/html that frameworks send by default, JSON, an empty body: acknowledged."""
    for body, kind in (
        (b"ok", "text/html; charset=utf-8"),
        (b"", "text/html"),
        (b'{"ok":true}', "application/json"),
        (b"done", "text/plain"),
    ):
        assert stage.cut(rp.status(200, body, Content_Type=kind)).result == "acknowledged"


def test_RV_24_a_lying_peer_gets_no_more_than_its_word(stage: Stage) -> None:
    """200 and the session lives on: the outcome cannot be stronger than *acknowledged*, and says nothing of verified."""
    outcome = stage.cut(rp.ok)
    assert outcome.result == "acknowledged"
    assert not {"verified", "confirmed", "cut"} & set(outcome.evidence)


def test_down_and_unknown(stage: Stage) -> None:
    """Nobody listens: a retry. No such application, no such person, nothing to tell: a person, never *acknowledged*."""
    with stage.app.app_context():
        for over in ({"application_id": uuid.uuid4()}, {"account_id": uuid.uuid4()}):
            outcome = stage.cutter.cut(stage.order(**over))
            assert (outcome.result, outcome.error) == ("refused", "no_logout_endpoint")
        outcome = stage.cutter.cut(stage.order(whole=False, sids=()))
        assert (outcome.result, outcome.error) == ("refused", "nothing_to_tell")


def test_house_1_9_no_transaction_while_the_peer_is_called(stage: Stage) -> None:
    """While a peer thinks, no connection of ours is checked out: a hung peer must not hold a database connection."""
    held: list[int] = []

    def look(handler: rp.Handler, _call: rp.Received) -> None:
        held.append(sum(engine.pool.checkedout() for engine in engines))  # type: ignore[attr-defined]
        handler.answer(200)

    with stage.app.app_context():
        engines = list(db.engines.values())
    assert stage.cut(look, whole=False).result == "acknowledged"
    assert held == [0, 0, 0]


def test_RE_02_an_attempt_is_over_before_its_lease(stage: Stage) -> None:
    """Many sessions at a slow peer: the attempt stops in time, says how many it told, and the next goes on from there."""
    short = OidcLogoutCutter(stage.app.extensions["sekisho"], budget_s=0.3)
    many = tuple(f"sid-{n:014d}" for n in range(12))
    told: list[str] = []

    def slowly(handler: rp.Handler, call: rp.Received) -> None:
        handler.peer.closing.wait(0.1)
        told.append(RelyingParty.claims(call.token)["sid"])
        handler.answer(200)

    left, attempts = many, 0
    while attempts < 12:
        attempts += 1
        outcome = stage.cut(slowly, cutter=short, whole=False, sids=left)
        if outcome.result == "acknowledged":
            break
        assert (outcome.result, outcome.error) == ("retry", "too_slow")
        assert 0 < outcome.told < len(left)
        left = left[outcome.told :]
    assert outcome.result == "acknowledged"
    assert told == list(many), "each session was told once, in order"

    answers = iter([200, 200, 503])
    outcome = stage.cut(lambda handler, _call: handler.answer(next(answers)), whole=False)
    assert (outcome.result, outcome.error, outcome.told) == ("retry", "http_503", 2)


def test_LO_04_the_receiver_refuses_each_missing_or_extra_claim(stage: Stage) -> None:
    """The fixture itself: a token of ours passes, and every change to it is noticed; otherwise the tests above prove nothing."""
    key = ECKey.generate_key("P-256", {"kid": "k"})
    keys = {"keys": [key.as_dict(private=False)]}
    now = int(time.time())
    good = {
        "iss": "i",
        "aud": "c",
        "iat": now,
        "exp": now + 120,
        "jti": "j" * 16,
        "sub": "s",
        "sid": "x",
        "events": {rp.EVENT: {}},
    }

    def check(claims: dict[str, Any], typ: str = "logout+jwt", signer: ECKey = key) -> None:
        token = jwt.encode({"alg": "ES256", "typ": typ, "kid": "k"}, claims, signer, algorithms=["ES256"])
        verify_logout_token(token, keys, issuer="i", client_id="c")

    check(good)
    check({name: value for name, value in good.items() if name != "sid"})
    for name in set(good) - {"sid"}:
        with pytest.raises(BadLogoutToken):
            check({key: value for key, value in good.items() if key != name})
    for change in ({"nonce": "n"}, {"iss": "other"}, {"aud": ["c"]}, {"aud": "other"}, {"exp": now + 121}, {"exp": now - 90}, {"iat": now + 600},
                   {"jti": ""}, {"events": {}}, {"events": {rp.EVENT: {}, "other": {}}}, {"events": {rp.EVENT: {"x": 1}}}, {"name": "山本"}):  # fmt: skip
        with pytest.raises(BadLogoutToken):
            check({**good, **change})
    with pytest.raises(BadLogoutToken):
        check(good, typ="JWT")
    with pytest.raises(BadLogoutToken):
        check(good, signer=ECKey.generate_key("P-256", {"kid": "k"}))
