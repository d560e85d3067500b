"""The receipt over HTTP: what it says, what it must never say, who may see it, and that its pack is signed (AU-20, ux.md 4)."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import select

from idp.app import create_app
from idp.domain.directory.roles import Role
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox.models import OutboxRow
from idp.lifecycle.revocation import pack
from idp.lifecycle.revocation.models import Cut, Revocation
from idp.lifecycle.revocation.receipt import Line, Receipt, line_of, verdict
from idp.lifecycle.revocation.words import CutKind
from tests.actors import Browser, Person, RelyingParty, World, line_states, receipt_number, utc
from tests.conftest import Template, dispose, settings_for
from tests.fakes.lives import cut, furnish
from tests.fakes.outbound import RecordingOutbound, down, ok, status

NOW = utc(2026, 12, 1, 3, 0)
FORMAT = {"ensure_ascii": False, "sort_keys": True, "separators": (",", ":")}

#: words that say that access is gone; they belong to LOCAL_DEAD and VERIFIED alone
SAYS_CUT = {
    "ja": re.compile(r"切断しました|切断を確認|遮断済|切断済|切れました"),
    "ja-easy": re.compile(r"切断しました|切りました|切れました|確かめました|遮断済"),
    "en": re.compile(r"\bcut\b|\bconfirmed\b|\bverified\b", re.IGNORECASE),
}
#: in English the word also stands in what denies it
DENIES = re.compile(
    r"not cut|cannot cut|cannot be cut|cannot be called cut|impossible to cut|no way to cut|nothing to cut|not confirmed|cannot be confirmed",
    re.IGNORECASE,
)


def text_of(html: str) -> str:
    """What a person reads: tags and readings away, attributes too."""
    bare = re.sub(r"<rp>.*?</rp>|<rt>.*?</rt>|</?ruby>|<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


def says_cut(text: str, language: str) -> bool:
    """True when a text claims that access is gone."""
    text = DENIES.sub("", text) if language == "en" else text.replace(" ", "")
    return SAYS_CUT[language].search(text) is not None


def banner(page: str) -> tuple[str, str, str | None]:
    """Verdict word, its sentence, and the weakest grade."""
    found = re.search(r'data-verdict="(\w+)"(?: data-weakest="(\w+)")?.*?banner-title">(.*?)</p>', page, re.DOTALL)
    assert found is not None, page[:2000]
    return found[1], text_of(found[3]), found[2]


def lines_by_app(world: World, parties: dict[str, RelyingParty], number: str) -> dict[tuple[str, str], Cut]:
    """The cuts of a receipt by kind and application."""
    names = {party.application_id: slug for slug, party in parties.items()}
    rows = world.rows(select(Cut).join(Revocation).where(Revocation.number == number))
    return {(row[0].kind, names.get(row[0].application_id, "")): row[0] for row in rows}


class Desk:
    """Head office at a fresh login: sessions of administrators end after minutes, and these tests travel."""

    def __init__(self, world: World, person: Person) -> None:
        self.world, self.person = world, person

    def __enter__(self) -> Browser:
        self.browser = Browser(self.world.app)
        self.browser.log_in(self.person)
        return self.browser

    def __exit__(self, *_: object) -> None:
        self.browser.__exit__()


def test_AT_H1_a_receipt_from_the_button_to_the_last_line(world: World, outbound: RecordingOutbound) -> None:
    """Two browsers, an application that is told, one that answers 500, one that refuses, one without an endpoint that says
    how long its logins live and one that does not say. Each line reaches its state, nothing is green while one is open,
    people close what only people can, with step-up and a note, and the end names its weakest evidence."""
    parties = {
        "told": world.application("told"), "broken": world.application("broken"), "refusing": world.application("refusing"),
        "quiet": world.application("quiet", backchannel_logout_uri=None, session_life_s=3600),
        "silent": world.application("silent", backchannel_logout_uri=None),
    }  # fmt: skip
    outbound.behave("https://broken.example/backchannel", status(500, b"stack trace s3cret"))
    outbound.behave("https://refusing.example/backchannel", status(400, b"<b>s3cret</b>"))
    with time_machine.travel(NOW, tick=False) as clock_:
        staff, hq = world.person(), world.person("hq1", role=Role.HQ_ADMIN, name="佐伯 本子")
        for n in range(2):
            with Browser(world.app) as phone:
                phone.log_in(staff)
                for party in list(parties.values())[n:]:
                    party.log_in(phone)
        with Desk(world, hq) as desk:
            dialog = desk.get(f"/hq/people/{staff.id}/stop")
            assert all(f"{slug} コンソール" in dialog.text for slug in parties), (
                "the dialog lists what the receipt will"
            )
            number = receipt_number(desk.submit())
            shown = Shown(world, parties, number)
            page = desk.get(f"/receipts/{number}")
            assert shown.check(page.text) == "action"
            assert line_states(page).keys() == {str(n) for n in range(len(line_states(page)))}
            world.deliver()
            page = desk.get(f"/receipts/{number}")
            assert shown.check(page.text) == "action"
            assert shown.states() == {
                "told": "acknowledged", "broken": "failed", "refusing": "manual", "quiet": "expiring", "silent": "unknown",
            }  # fmt: skip
            assert "まだ終わっていません。2件は手作業が必要です" in banner(page.text)[1]
            assert "s3cret" not in page.text

        outbound.behave("https://broken.example/backchannel", ok)
        clock_.shift(timedelta(minutes=6))
        world.deliver()
        assert shown.states()["broken"] == "acknowledged"
        clock_.shift(timedelta(hours=1))
        world.deliver()
        with Desk(world, hq) as desk:
            page = desk.get(f"/receipts/{number}")
            assert shown.check(page.text) == "action"
            quiet = shown.cut("quiet")
            assert (quiet.state, quiet.grade) == ("done", "none")
            assert quiet.done_at is not None
            assert "期限" in text_of(page.text)
            assert "確かめていません" in text_of(page.text), "a declared life that has passed proves nothing"

            for slug, outcome, note in (
                ("refusing", "done", "管理画面でログアウトした"),
                ("silent", "impossible", "管理画面がない"),
            ):
                where = f"/receipts/{number}/lines/{shown.cut(slug).position}"
                desk.get(where)
                assert desk.submit(action="", outcome=outcome, note="").status_code == 400, (
                    "without a note nothing closes"
                )
                assert shown.cut(slug).state == "needs_person"
                desk.get(where)
                assert desk.submit(action="", outcome=outcome, note=note).status_code == 200
            page = desk.get(f"/receipts/{number}")
            assert shown.check(page.text) == "done"
            word, sentence, low = banner(page.text)
            assert (word, low) == ("done", "none")
            assert "手続きはすべて終わりました" in sentence
            assert "証拠なし(2件)" in sentence
            excluded = text_of(page.text[page.text.index("切れたと言えないもの") :])
            assert excluded.index("silent コンソール") < excluded.index("told コンソール"), "the impossible come first"
            assert "佐伯 本子" in text_of(page.text)
            assert shown.cut("refusing").grade == "attested"
            assert shown.cut("silent").closed_by == hq.id
            english = desk.get(f"/receipts/{number}?lang=en")
            assert "Everything is cut" not in english.text
    times = [row[0].done_at for row in world.rows(select(Cut))]
    revocation = world.rows(select(Revocation))[0][0]
    assert all(revocation.t0 <= at <= revocation.completed_at for at in times)


class Shown:
    """What a receipt shows against what the database holds."""

    def __init__(self, world: World, parties: dict[str, RelyingParty], number: str) -> None:
        self.world, self.parties, self.number = world, parties, number

    def cut(self, slug: str) -> Cut:
        """The line of an application: told, or living by itself."""
        found = lines_by_app(self.world, self.parties, self.number)
        return found.get(("OIDC_LOGOUT", slug)) or found["APPLICATION_LOGIN", slug]

    def states(self) -> dict[str, str]:
        """The line states by application."""
        return {slug: line_of(self.cut(slug)).state for slug in self.parties}

    def check(self, page: str) -> str:
        """Every line is on the page as it is in the database, the counts add up, and the verdict fits. Returns it."""
        rows = {str(cut.position): line_of(cut) for cut in lines_by_app(self.world, self.parties, self.number).values()}
        shown = _rows(page)
        assert shown.keys() >= {str(line.cut.position) for line in rows.values()}
        for no, line in rows.items():
            assert shown[no] == (line.state, "true" if line.open else "false", line.grade), (no, line)
        word, sentence, _ = banner(page)
        total = re.search(r"全(\d+)件:([^<]*)", page)
        assert total is not None
        assert int(total[1]) == len(shown) == sum(int(n) for n in re.findall(r" (\d+)", total[2]))
        still_open = [line for line in shown.values() if line[1] == "true"]
        assert (word == "done") == (not still_open)
        assert not says_cut(sentence, "ja")
        progress = re.search(
            r'<progress[^>]*value="(\d+)"[^>]*max="(\d+)"|<progress[^>]*max="(\d+)"[^>]*value="(\d+)"', page
        )
        assert progress is not None
        assert {int(n) for n in progress.groups() if n} == {len(shown) - len(still_open), len(shown)}
        return word


def _rows(page: str) -> dict[str, tuple[str, str, str | None]]:
    found = {}
    for tag in re.findall(r"<tr [^>]*data-line=[^>]*>", page):
        attrs = dict(re.findall(r'data-([a-z]+)="([^"]*)"', tag))
        found[attrs["line"]] = (attrs["state"], attrs["open"], attrs.get("grade"))
    return found


def test_AT_H8_RV_24_acknowledged_is_not_cut(world: World, outbound: RecordingOutbound) -> None:
    """A liar answers 200 and keeps the session. Everything closes, and the sentence names grade and count, says 終わりました
    and never 切断しました, in any language; only a person who held nothing outside gets the other sentence."""
    hq = world.person("hq1", role=Role.HQ_ADMIN)
    lying = world.application("lying")
    with time_machine.travel(NOW, tick=False):
        number = cut(world, furnish(world, [lying], "1"))
        other = cut(world, furnish(world, [], "2"))
        world.deliver()
    with time_machine.travel(NOW + timedelta(minutes=6), tick=False):
        world.deliver()
        with Desk(world, hq) as desk:
            word, sentence, low = banner(desk.get(f"/receipts/{number}").text)
            assert (word, low) == ("done", "acknowledged")
            assert "手続きはすべて終わりました。証拠のいちばん弱いもの:先方の受付(1件)" in sentence
            for language in ("ja", "en", "ja-easy"):
                page = desk.get(f"/receipts/{number}?lang={language}")
                assert banner(page.text)[0] == "done"
                assert not says_cut(banner(page.text)[1], language)
                for row in re.findall(r"<tr [^>]*data-state=\"(?!confirmed|nothing).*?</tr>", page.text, re.DOTALL):
                    assert not says_cut(text_of(row), language)
            assert 'data-kind="ok"' in page.text
            for language, words in (("ja", "すべて切断しました"), ("en", "Everything is cut")):
                word, sentence, low = banner(desk.get(f"/receipts/{other}?lang={language}").text)
                assert (word, low) == ("done", "recorded")
                assert words in sentence


def test_AU_20_relying_party_down_is_not_confirmed(world: World, outbound: RecordingOutbound) -> None:
    """The page says 切断できていません and the pack UNCONFIRMED; both list it under what was not cut."""
    hq, points = world.person("hq1", role=Role.HQ_ADMIN), world.application()
    outbound.behave("https://points.example/backchannel", down)
    number = cut(world, furnish(world, [points], "1"))
    world.deliver()
    with Desk(world, hq) as desk:
        page = desk.get(f"/receipts/{number}").text
        assert banner(page)[0] == "action"
        assert "1件は切断できていません" in banner(page)[1]
        signed = desk.get(f"/receipts/{number}.json").json()
    line = next(line for line in signed["lines"] if line["kind"] == "OIDC_LOGOUT")
    assert (line["contract_state"], line["open"], line["grade"], line["attempts"]) == ("UNCONFIRMED", True, None, 1)
    assert line["position"] in signed["not_cut"]
    assert signed["verdict"]["everything_cut"] is False
    assert signed["completed_at"] is None


# --- words, over every state ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The product for its templates alone: nothing is read from the database, so one engine is enough."""
    folder = tmp_path_factory.mktemp("words")
    shutil.copy(sqlite_template.folder / "template.sqlite", folder / "t.sqlite")
    app = create_app(settings_for(f"sqlite:///{folder}/t.sqlite", sqlite_template.folder), outbound=RecordingOutbound())
    yield app
    dispose(app)


def every_line() -> list[Line]:
    """A line for each way a cut can stand, of each kind that can stand so."""
    at, person = NOW, NOW + timedelta(minutes=3)

    def make(state: str, kind: CutKind, **over: Any) -> Line:
        values = {"count": 1, "attempts": 0, "residual_until": None, "closed_by": None, "next_try_at": None, "grade": None, "done_at": None,
                  "last_error": None, "close_note": None, "position": 0, **over}  # fmt: skip
        return line_of(Cut(kind=kind.value, state=state, **values))

    who = uuid.uuid4()
    out, away, token = CutKind.OIDC_LOGOUT, CutKind.APPLICATION_LOGIN, CutKind.ACCESS_TOKEN
    local = [kind for kind in CutKind if kind not in {out, away, token, CutKind.CLIENT_SECRET}]
    errors = ["network", "timeout", "html_page", "http_503", "http_302", "too_slow", "tls", "internal_error"]
    return [
        make("waiting", out), make("leased", out, attempts=2), *[make("waiting", out, attempts=2, last_error=e, next_try_at=person) for e in errors],
        make("needs_person", out, attempts=1, last_error="http_400"), make("needs_person", away), make("needs_person", CutKind.CLIENT_SECRET),
        make("waiting", token, residual_until=person), make("waiting", away, residual_until=person),
        make("done", out, grade="acknowledged", done_at=at, attempts=1), make("done", out, grade="verified", done_at=at),
        make("done", out, grade="attested", closed_by=who, done_at=at, close_note="x"), make("done", away, grade="attested", closed_by=who, done_at=at, close_note="x"),
        make("done", out, grade="none", closed_by=who, done_at=at, close_note="x"), make("done", away, grade="none", closed_by=who, done_at=at, close_note="x"),
        make("done", away, grade="none", residual_until=at, done_at=at), make("done", token, grade="recorded", residual_until=at, done_at=at),
        *[make("done", kind, grade="recorded", done_at=at) for kind in local], *[make("done", kind, grade="recorded", count=0, done_at=at) for kind in local],
    ]  # fmt: skip


PROBE = """{% import "macros/receipt.html" as rc %}{% for line in lines %}{{ rc.state_label(line) }}|{{ rc.sentence(line) }}|{{ rc.kind_what(line) }}
|{{ rc.kind_detail(line) }}|{{ rc.grade_label(line.grade) if line.grade }}|{{ rc.why_not_cut(line) if line.contract not in ('LOCAL_DEAD', 'VERIFIED', 'NO_PATH') }}\x1e{% endfor %}"""


@pytest.mark.parametrize("language", ["ja", "en", "ja-easy"])
def test_AU_20_the_words_of_every_line(words: Flask, language: str) -> None:
    """Over every state, kind and error: only LOCAL_DEAD and VERIFIED are said to be cut or confirmed; every line has words."""
    lines = every_line()
    with words.test_request_context(f"/?lang={language}"):
        rendered = words.jinja_env.from_string(PROBE).render(lines=lines).split("\x1e")
    assert len(rendered) == len(lines) + 1
    positive = 0
    for line, html in zip(lines, rendered, strict=False):
        label, sentence, *rest = html.split("|")
        assert text_of(label).strip()
        assert text_of(sentence).strip()
        assert "none" not in text_of(html).lower().split("|")[1], html
        claims = says_cut(text_of(" ".join((label, sentence, rest[-1]))), language)
        if line.contract in {"LOCAL_DEAD", "VERIFIED"}:
            positive += claims
        else:
            assert not claims, (line.state, line.contract, text_of(html))
    assert positive, "nothing is ever said to be cut, so this test sees nothing"


@pytest.mark.parametrize("language", ["ja", "en", "ja-easy"])
def test_AU_20_the_sentence_of_every_verdict(words: Flask, language: str) -> None:
    """Every pair of lines: "everything is cut" stands exactly over receipts in which every path is dead or verified."""
    lines = every_line()
    template = words.jinja_env.from_string(
        '{% import "macros/receipt.html" as rc %}{{ rc.verdict_title(receipt) }}\x1e{{ rc.counts(receipt.lines) }}'
    )
    everything = {"ja": "すべて切断しました", "en": "Everything is cut", "ja-easy": "ぜんぶ 切りました"}[language]
    revocation = Revocation(t0=NOW, completed_at=NOW + timedelta(seconds=4), number="R-2026-1201-AAAAAA")
    seen = 0
    with words.test_request_context(f"/?lang={language}"):
        for one in lines:
            for other in lines[::3]:
                pair = (one, other)
                said = verdict(pair)
                title, counts = template.render(receipt=Receipt(revocation, None, None, None, None, pair, said)).split(
                    "\x1e"
                )  # type: ignore[arg-type]
                title = text_of(title)
                dead = all(line.contract in {"LOCAL_DEAD", "VERIFIED", "NO_PATH"} for line in pair)
                something = any(line.contract != "NO_PATH" for line in pair)
                if not dead:
                    assert not says_cut(title, language), (pair, title)
                assert (everything in title) == (dead and something), (pair, title)
                seen += dead and something
                numbers = [int(n) for n in re.findall(r"\d+", text_of(counts))]
                assert numbers[0] == 2 == sum(numbers[1:]), counts
    assert seen


# --- the pack ------------------------------------------------------------------------------------------------------


def verify_pack(signed: dict[str, Any], keys: dict[str, Any]) -> bool:
    """What an auditor does, with nothing of ours: the published keys, SHA-256, sorted JSON."""
    body = {name: value for name, value in signed.items() if name != "signature"}
    try:
        found = jwt.decode(str(signed.get("signature")), KeySet.import_key_set(keys), algorithms=["ES256"])
    except (JoseError, ValueError):
        return False
    digest = hashlib.sha256(json.dumps(body, **FORMAT).encode()).hexdigest()  # type: ignore[arg-type]
    claims = found.claims
    return found.header["typ"] == "sekisho-receipt+jwt" and (claims["sha256"], claims["number"], claims["iss"]) == (
        digest,
        body["number"],
        body["issuer"],
    )


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every leaf of a JSON value."""
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*at, key))
    else:
        yield at


def changed(signed: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """A copy with one leaf changed by as little as possible."""
    copy = json.loads(json.dumps(signed))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    new: Any = "x"
    match old:
        case bool():
            new = not old
        case int():
            new = old + 1
        case str() if path == ("signature",):
            new = old[:-6] + ("A" if old[-6] != "A" else "B") + old[-5:]
        case str():
            new = old + " "
    holder[path[-1]] = new
    return copy


def test_AU_20_the_pack_is_signed_and_complete(world: World, outbound: RecordingOutbound) -> None:
    """Its signature verifies with the published keys and with no change to any value; it has every line with its evidence,
    who asked and when, and nothing of what a peer answered. Taking it away is an event."""
    hq = world.person("hq1", role=Role.HQ_ADMIN, name="佐伯 本子")
    points, quiet = world.application(), world.application("quiet", backchannel_logout_uri=None, session_life_s=3600)
    outbound.behave("https://points.example/backchannel", status(200, b"s3cret words of the peer", set_cookie="s3cret"))
    account = furnish(world, [points, quiet], "1")
    with Desk(world, hq) as desk:
        desk.get(f"/hq/people/{account}/stop")
        number = receipt_number(desk.submit())
        world.deliver()
        answer = desk.get(f"/receipts/{number}.json")
        page = desk.get(f"/receipts/{number}")
    keys = points.http.get("/oidc/jwks").json()
    signed = answer.json()
    assert answer.headers["content-disposition"] == f'attachment; filename="{number}.json"'
    assert answer.headers["content-type"].startswith("application/json")
    assert verify_pack(signed, keys)
    assert pack.check(signed, world.services.signer)

    leaves = list(paths(signed))
    assert len(leaves) > 60
    for path in leaves:
        assert not verify_pack(changed(signed, path), keys), path
    for broken in (
        changed(signed, ("lines", 0, "state")),
        changed(signed, ("signature",)),
        {**signed, "extra": 1},
        {k: v for k, v in signed.items() if k != "signature"},
    ):
        assert not pack.check(broken, world.services.signer)
        assert not verify_pack(broken, keys)
    swapped = {**signed, "lines": signed["lines"][::-1]}
    assert not verify_pack(swapped, keys)

    assert {
        str(line["position"]): (line["state"], "true" if line["open"] else "false", line["grade"])
        for line in signed["lines"]
    } == _rows(page.text)
    assert signed["request"]["requested_by"] == str(hq.id)
    assert signed["request"]["door"] == "console"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", signed[name]) for name in ("t0", "frozen_at"))
    by_kind = {line["kind"]: line for line in signed["lines"]}
    told = by_kind["OIDC_LOGOUT"]
    assert (told["contract_state"], told["grade"]) == ("ACKED", "acknowledged")
    assert told["evidence"][0]["detail"]["status"] == 200
    assert told["evidence"][0]["detail"]["jti"]
    assert by_kind["APPLICATION_LOGIN"]["contract_state"] == "RESIDUAL"
    assert by_kind["ACCESS_TOKEN"]["residual_until"] is not None, "the JWT window has its time (RV-23)"
    not_cut = {line["kind"] for line in signed["lines"] if line["position"] in signed["not_cut"]}
    assert not_cut == {"OIDC_LOGOUT", "APPLICATION_LOGIN", "ACCESS_TOKEN"}
    assert "s3cret" not in answer.text
    taken = world.rows(select(AuditEvent).where(AuditEvent.tag == Tag.RECEIPT_EXPORTED.value))
    assert [row[0].actor_id for row in taken] == [hq.id]


# --- the page that renews itself, and who may see it ----------------------------------------------------------------


def test_ux_4_the_live_part_is_the_macro_and_nothing_else(world: World, outbound: RecordingOutbound) -> None:
    """`?part=1` answers one element with the id, the address it came from and `data-done`; it is exactly what the page holds."""
    hq, points = world.person("hq1", role=Role.HQ_ADMIN), world.application()
    outbound.behave("https://points.example/backchannel", down)
    with time_machine.travel(NOW, tick=False) as clock_:
        number = cut(world, furnish(world, [points], "1"))
        for done in (False, True):
            with Desk(world, hq) as desk:
                part, page = desk.get(f"/receipts/{number}?part=1"), desk.get(f"/receipts/{number}")
            html = part.text.strip()
            assert re.match(
                rf'<div id="receipt-live" data-live="/receipts/{number}\?part=1" data-every="\d+" data-done="{str(done).lower()}"',
                html,
            )
            assert html.endswith("</div>")
            assert html.count("<div") == html.count("</div>")
            assert "<html" not in html
            assert "<script" not in html
            assert html in page.text
            assert part.headers["cache-control"] == "no-store"
            assert ('http-equiv="refresh"' in page.text) is not done
            outbound.behave("https://points.example/backchannel", ok)
            clock_.shift(timedelta(minutes=6))
            world.deliver()


def test_WB_07_receipts_in_scope_only(world: World, outbound: RecordingOutbound) -> None:
    """Store, head office of the company: yes. The other store's manager, another company, the colleague, the person, nobody:
    the same answer as for a number that does not exist, for page, part, pack and line, and no list shows it."""
    points = world.application()
    outbound.behave("https://points.example/backchannel", status(400))
    person = world.person("0413")
    with Browser(world.app) as phone:
        phone.log_in(person)
        points.log_in(phone)
    number = cut(world, person.id)
    world.deliver()
    position = next(row[0].position for row in world.rows(select(Cut)) if row[0].kind == "OIDC_LOGOUT")
    places = [
        f"/receipts/{number}",
        f"/receipts/{number}?part=1",
        f"/receipts/{number}.json",
        f"/receipts/{number}/lines/{position}",
    ]
    allowed = [world.person("0101", role=Role.STORE_MANAGER), world.person("hq1", role=Role.HQ_ADMIN)]
    strangers = [
        world.person("0201", role=Role.STORE_MANAGER, store="S2"), world.person("hq2", role=Role.HQ_ADMIN, company="HOSHI"),
        world.person("0999"), world.person("0102", role=Role.STORE_MANAGER, company="HOSHI", store="H1"),
    ]  # fmt: skip
    for viewer in allowed:
        with Browser(world.app) as browser:
            browser.log_in(viewer)
            for place in places[:3]:
                assert browser.get(place).status_code == 200, (viewer.login, place)
            assert number in browser.get("/receipts").text
    exported = len(world.rows(select(AuditEvent.id).where(AuditEvent.tag == Tag.RECEIPT_EXPORTED.value)))
    for viewer in strangers:
        with Browser(world.app) as browser:
            browser.log_in(viewer)
            for place in places:
                answer = browser.get(place)
                missing = browser.get(place.replace(number, "R-2026-0101-AAAAAA"))
                assert answer.status_code == missing.status_code == (403 if missing.status_code == 403 else 404), (
                    viewer.login,
                    place,
                )
                assert "points コンソール" not in answer.text
            assert number not in browser.get("/receipts").text
            assert number not in browser.get("/receipts?open=1").text
            answer = browser.post(places[3], {"outcome": "done", "note": "x", "csrf_token": "x"})
            assert answer.status_code in {400, 403, 404}
    with Browser(world.app) as browser:
        for place in places:
            assert "/login" in str(browser.get(place).url)
    assert len(world.rows(select(AuditEvent.id).where(AuditEvent.tag == Tag.RECEIPT_EXPORTED.value))) == exported
    assert line_of(next(row[0] for row in world.rows(select(Cut)) if row[0].kind == "OIDC_LOGOUT")).state == "manual"


def test_R02_a_line_is_closed_by_a_person_once(world: World, outbound: RecordingOutbound) -> None:
    """Step-up first; only lines that wait for a person; once; never to *acknowledged* or better; a worker does not reopen it."""
    hq, points = world.person("hq1", role=Role.HQ_ADMIN), world.application()
    outbound.behave("https://points.example/backchannel", status(400))
    with time_machine.travel(NOW, tick=False) as clock_:
        number = cut(world, furnish(world, [points], "1"))
        shown = Shown(world, {"points": points}, number)
        with Desk(world, hq) as desk:
            where = f"/receipts/{number}/lines/{shown.cut('points').position}"
            desk.get(where)
            assert not [form for form in desk.forms() if "note" in form["fields"]], "a line that still runs has no form"
            world.deliver()
            desk.get(where)
            clock_.shift(timedelta(minutes=6))  # the step-up is older than five minutes now
            before = shown.cut("points")
            for answer in (
                desk.submit(action="", outcome="impossible", note="書いた理由"),
                desk.submit(code=hq.wrong_code()),
            ):
                assert (answer.status_code, 'data-page="L09"' in answer.text) == (401, True)
                carried = desk.forms()[-1]["fields"]
                assert {**carried, "outcome": "impossible", "note": "書いた理由"} == carried, "nothing is written twice"
            assert shown.cut("points").state == before.state == "needs_person"
        clock_.shift(timedelta(minutes=1))
        with Desk(world, hq) as desk, Browser(world.app) as second:
            clock_.shift(timedelta(seconds=31))
            second.log_in(hq)
            for browser in (desk, second):
                browser.get(where)
            assert desk.submit(action="", outcome="done", note="終わった").status_code == 200
            closed = shown.cut("points")
            assert (closed.state, closed.grade, closed.closed_by, closed.close_note) == (
                "done",
                "attested",
                hq.id,
                "終わった",
            )
            assert second.submit(action="", outcome="impossible", note="ちがう").status_code == 400
            assert shown.cut("points").close_note == "終わった"
            assert desk.get(f"/receipts/{number}/lines/999").status_code == 404
        clock_.shift(timedelta(minutes=10))
        world.deliver()
        assert shown.cut("points").grade == "attested"
        tags = [row.tag for row in world.rows(select(AuditEvent.tag).order_by(AuditEvent.id))]
        assert tags.count(Tag.CUT_ATTESTED.value) == 1
        assert Tag.CUT_IMPOSSIBLE.value not in tags
    assert world.rows(select(OutboxRow.outcome))[0].outcome == "refused"
