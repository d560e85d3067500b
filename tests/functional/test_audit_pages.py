"""What auditors, head office and managers find in the log, take away, and leave behind in it (AU-09, AU-12, AU-22)."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import time_machine
from sqlalchemy import select

from idp.core.spreadsheet import Sheet
from idp.domain.directory.models import Account
from idp.domain.directory.roles import Role
from idp.ledgers.audit import search
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.audit.search import Wanted
from idp.lifecycle.oversight.speed import figures
from idp.lifecycle.revocation.models import Revocation
from idp.lifecycle.revocation.words import Scope
from tests.actors import Browser, World, utc
from tests.functional.steps import count, cut, page_id, token_on

NOW = utc(2026, 11, 24, 1, 0)
EVENT = re.compile(r'<tr data-event="([0-9a-f-]+)" data-tag="([^"]+)">(.*?)</tr>', re.DOTALL)


def listed(page: httpx2.Response) -> list[tuple[str, str, str]]:
    """(id, tag, row) of the events on a page."""
    assert page.status_code == 200, page.text[:2000]
    return EVENT.findall(page.text)


def tags(page: httpx2.Response) -> set[str]:
    return {tag for _, tag, _ in listed(page)}


def exported(answer: httpx2.Response) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """First line, rows, last line of a JSON Lines file."""
    assert answer.status_code == 200, answer.text[:500]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    return lines[0], lines[1:-1], lines[-1]


def sheet(answer: httpx2.Response, encoding: str) -> list[list[str]]:
    assert answer.status_code == 200, answer.text[:500]
    return list(csv.reader(io.StringIO(answer.content.decode(encoding), newline="")))


def test_an_auditor_finds_by_every_filter_au12(world: World) -> None:
    """U01, U02: person by number and name, actor, store, application, event, result, time; what was looked at is in the log, as
    ids; another company's rows, and rows of no company, are not there; a fault names its field."""
    clock = time_machine.travel(NOW, tick=False)
    with clock:
        audit, hq = (
            world.person("audit", role=Role.AUDITOR, name="倉田 律"),
            world.person("hq1", role=Role.HQ_ADMIN, name="本部 花子"),
        )
        staff, foreign = (
            world.person("0413", name="髙橋 美咲", kana="タカハシ ミサキ"),
            world.person("0413", company="HOSHI", store="H1", name="星 太郎"),
        )
        points, rota = world.application("points"), world.application("rota", name="シフト表")
        with Browser(world.app) as phone, Browser(world.app) as other:
            phone.log_in(staff)
            points.log_in(phone)
            other.log_in(foreign)
            rota.log_in(other)
            phone.get("/login")
            assert Browser(world.app).get("/login").status_code == 200
    with (
        time_machine.travel(NOW + timedelta(hours=3), tick=False),
        Browser(world.app) as desk,
        Browser(world.app) as wrong,
    ):
        wrong.get("/login")
        assert wrong.submit(login_id="AOBA/0413", password="not the one they chose").status_code == 401
    with time_machine.travel(NOW + timedelta(hours=4), tick=False), Browser(world.app) as desk:
        world.deliver()
        desk.log_in(audit)
        everything = desk.get("/audit")
        assert page_id(everything) == "U01"
        assert {Tag.LOGIN_SUCCEEDED, Tag.CODE_ISSUED, Tag.ACCOUNT_ADDED, Tag.LOGIN_REFUSED} <= tags(everything)
        assert "星 太郎" not in everything.text
        assert "シフト表" not in everything.text
        assert "HOSHI" not in everything.text
        for text in ("0413", "AOBA/0413", "髙橋", "たかはし", "aoba/0413"):
            mine = listed(
                desk.get(
                    "/audit",
                )
                if not text
                else desk.get(f"/audit?person={text}&event=authn:login:succeeded")
            )
            assert len(mine) == 1, text
            assert "髙橋 美咲" in mine[0][2]
        assert tags(desk.get("/audit?store=s1")) == {Tag.STORE_ADDED, Tag.ACCOUNT_ADDED, Tag.ASSIGNMENT_ADDED}
        assert tags(desk.get("/audit?application=points")) == {Tag.CODE_ISSUED, Tag.CODE_REDEEMED}
        assert tags(desk.get("/audit?result=refused")) == {Tag.LOGIN_REFUSED}
        assert tags(desk.get("/audit?application=points&result=refused")) == set()
        assert Tag.LOGIN_SUCCEEDED not in tags(desk.get("/audit?since=2026-11-24T12:30&until=2026-11-24T13:30"))
        assert Tag.LOGIN_REFUSED not in tags(desk.get("/audit?until=2026-11-24T12:30"))
        assert tags(desk.get(f"/audit?actor={staff.id}&event=oidc:code:issued")) == {Tag.CODE_ISSUED}
        for query, where in {
            "person=9999": "person", "person=星": "person", f"person={foreign.id}": "person", "actor=nobody": "actor", "store=H1": "store",
            "store=S9": "store", "application=none": "application", "event=made:up:tag": "event", "since=2026-11-25T00:00&until=2026-11-24T00:00": "until",
            "result=maybe": "result", "since=yesterday": "since",
        }.items():  # fmt: skip
            refused = desk.get(f"/audit?{query}")
            assert refused.status_code == 400, query
            assert f'id="{where}-error"' in refused.text, query
        before = count(world, Tag.LOG_VIEWED)
        event_id = listed(desk.get("/audit?person=0413&event=authn:login:succeeded"))[0][0]
        one = desk.get(f"/audit/events/{event_id}")
        assert page_id(one) == "U02"
        assert all(
            word in one.text
            for word in ("ログインした", "AOBA/0413", "authn:login:succeeded", "127.0.0.1", "urn:sekisho:aal1")
        )
        assert count(world, Tag.LOG_VIEWED) == before + 2
        views = listed(desk.get("/audit?event=audit:log:viewed"))
        assert all("倉田 律" in row for _, _, row in views)
    seen = [r.detail for r in world.rows(select(AuditEvent).where(AuditEvent.tag == Tag.LOG_VIEWED.value)) for r in r]
    assert {"event_id": event_id, "page": "event"} in seen
    assert any(d.get("about") == str(staff.id) and d.get("event") == "authn:login:succeeded" for d in seen)
    assert not any("髙橋" in json.dumps(d, ensure_ascii=False) for d in seen), "ids, not names"
    strangers = world.rows(select(AuditEvent.id).where(AuditEvent.company_id.is_(None)).limit(1)) + world.rows(
        select(AuditEvent.id).where(AuditEvent.subject_id == foreign.id).limit(1)
    )
    with time_machine.travel(NOW + timedelta(hours=4), tick=False), Browser(world.app) as desk:
        desk.log_in(hq)
        assert desk.get(f"/audit/events/{event_id}").status_code == 200
        for row in strangers:
            assert desk.get(f"/audit/events/{row[0]}").status_code == 404


def test_every_row_about_a_person_names_the_company(world: World) -> None:
    """An auditor sees a company's log: a row about somebody of the company that forgot to say so would be missing from it."""
    with time_machine.travel(NOW, tick=False):
        staff, hq = world.person("0413", totp=True), world.person("hq1", role=Role.HQ_ADMIN)
        points = world.application("points")
        with Browser(world.app) as phone, Browser(world.app) as desk:
            phone.log_in(staff)
            points.log_in(phone)
            phone.get("/me/security")
            phone.submit(action="/me/security/recovery")
            phone.post("/logout", {"csrf_token": token_on(phone.get("/"))})
            desk.log_in(hq)
        cut(world, staff)
        world.deliver()
    lost = world.rows(select(AuditEvent.tag).where(AuditEvent.subject_id.is_not(None), AuditEvent.company_id.is_(None)))
    assert lost == []
    assert count(world, Tag.CUT_CLOSED, subject_id=staff.id, application_id=points.application_id) == 1


def test_managers_see_their_store_and_nobody_elses_wb07(world: World) -> None:
    """AU-12, WB-07: S1's manager sees S1's rows and those of its people while they worked there, not where they were, not S2, not
    who moved away afterwards; an area's manager names a store or a person first; part-timers have no such page."""
    with time_machine.travel(NOW, tick=False) as clock:
        one, two = (
            world.person("0101", role=Role.STORE_MANAGER, name="店長 一"),
            world.person("0201", store="S2", role=Role.STORE_MANAGER),
        )
        area, staff = world.person("area1", role=Role.AREA_MANAGER), world.person("0413")
        moved, elsewhere = world.person("0414", name="異動 する子"), world.person("0421", store="S2", name="別店 次郎")
        with Browser(world.app) as phone:
            phone.log_in(moved)
        with Browser(world.app) as phone:
            phone.log_in(elsewhere)
        clock.shift(timedelta(hours=1))
        world.assign(moved, "S2")
        cut(world, moved, scope=Scope.ASSIGNMENT, target=moved.assignment_id)
        clock.shift(timedelta(hours=1))
        with Browser(world.app) as phone:
            phone.log_in(moved)
            assert phone.get("/audit").status_code == 403
            assert phone.get("/audit/access").status_code == 403
        with Browser(world.app) as desk:
            desk.log_in(one)
            mine = desk.get("/audit")
            assert {Tag.ACCOUNT_ADDED, Tag.REVOKED} <= tags(mine)
            assert "別店 次郎" not in mine.text
            logins = listed(desk.get("/audit?person=0414&event=authn:login:succeeded"))
            assert len(logins) == 1, "the login after the move is the other store's"
            assert "127.0.0.1" not in desk.get(f"/audit/events/{logins[0][0]}").text
            assert desk.get("/audit?person=0421").status_code == 400
            assert desk.get("/audit?store=S2").status_code == 400
            later, theirs = (
                world.rows(select(AuditEvent.id).where(AuditEvent.tag == Tag.LOGIN_SUCCEEDED.value, AuditEvent.subject_id == p.id).order_by(AuditEvent.id.desc()).limit(1))[0][0]
                for p in (moved, elsewhere)
            )  # fmt: skip
            assert desk.get(f"/audit/events/{later}").status_code == 404
            assert desk.get(f"/audit/events/{theirs}").status_code == 404
            _, rows, _ = exported(desk.get("/audit/export?format=jsonl&since="))
            assert rows
            assert {row["store"] for row in rows} == {"S1"}
            assert not any(row["address"] for row in rows)
            access = desk.get("/audit/access?day=2026-11-24")
            assert "異動 する子" in access.text
            assert "別店 次郎" not in access.text
            assert "S2店" not in access.text
        with Browser(world.app) as desk:
            desk.log_in(two)
            assert len(listed(desk.get("/audit?person=0414&event=authn:login:succeeded"))) == 1
            assert desk.get(f"/audit/events/{later}").status_code == 200
        with Browser(world.app) as desk:
            desk.log_in(area)
            asks = desk.get("/audit")
            assert listed(asks) == []
            assert "店舗か人を入れてください" in asks.text
            assert tags(desk.get("/audit?store=S2"))
            assert "店舗を入れてください" in desk.get("/audit/access").text
            assert desk.get("/audit/export?format=csv").status_code == 400
    del staff


def test_an_auditor_changes_nothing_and_sees_nothing_else(world: World) -> None:
    """AT-U4: every address that takes a POST refuses an auditor, or is the auditor's own; head office's and stores' pages are
    closed; nothing about anybody else changes."""
    own = {"login", "portal", "security", "static", "setup", "health", "oidc", "saml", "tools"}
    with time_machine.travel(NOW, tick=False):
        audit, staff = world.person("audit", role=Role.AUDITOR), world.person("0413")
        world.application("points", company="AOBA")
        number = cut(world, world.person("0499"))
        values = {
            "account_id": staff.id,
            "code": "S1",
            "number": number,
            "slug": "points",
            "position": 0,
            "event_id": staff.id,
            "recipe_id": staff.id,
            "tool_account_id": staff.id,
        }
        rows = world.rows(select(Account.id, Account.epoch, Account.ends_at, Account.ended_at).order_by(Account.id))
        with Browser(world.app) as desk:
            desk.log_in(audit)
            token, tried = {"csrf_token": token_on(desk.get("/")), "reason": "left", "when": "now", "note": "x"}, 0
            for rule in world.app.url_map.iter_rules():
                edge = rule.endpoint.split(".")[0]
                if edge in own:
                    continue
                path = rule.rule
                for name in rule.arguments:
                    path = re.sub(rf"<(\w+:)?{name}>", str(values[name]), path)
                methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
                if methods - {"GET"}:
                    tried += 1
                    assert desk.post(path, token, follow=False).status_code in {403, 404}, path
                if "GET" in methods:
                    status = desk.get(path, follow=False).status_code
                    assert status < 500
                    assert (
                        (status in {200, 400, 403, 404, 409})
                        if edge in {"audit", "oversight", "receipts"} or path == "/hq/open-cuts"
                        else (status == 403)
                    ), (path, status)
            assert tried >= 12
            home = desk.get("/")
            assert 'href="/audit"' in home.text
            assert 'href="/hq' not in home.text
        assert (
            world.rows(select(Account.id, Account.epoch, Account.ends_at, Account.ended_at).order_by(Account.id))
            == rows
        )
        assert len(world.rows(select(Revocation.id))) == 1


def test_pages_go_on_and_say_how_far_they_came(world: World) -> None:
    """No row twice, none left out, at any size of page; where the bound on reading is reached the search says so and goes on."""
    with time_machine.travel(NOW, tick=False) as clock:
        person = world.person("0413")
        for _ in range(3):
            for slug in ("wrong one", "wrong two"):
                with Browser(world.app) as phone:
                    phone.get("/login")
                    phone.submit(login_id=person.login, password=slug)
            with Browser(world.app) as phone:
                phone.log_in(person)
            clock.shift(timedelta(minutes=2))
            world.deliver()
    company = world.rows(select(Account.company_id).where(Account.id == person.id))[0][0]
    found: dict[str, list[Any]] = {}
    with world.app.app_context():
        from idp.core.db import reading

        for wanted in (
            Wanted(company_id=company), Wanted(subject_id=person.id, company_id=company), Wanted(company_id=company, tag=Tag.LOGIN_REFUSED.value),
            Wanted(company_id=company, result="refused"), Wanted(company_id=company, result="ok"), Wanted(),
            Wanted(subject_id=person.id, tag=Tag.LOGIN_SUCCEEDED.value, result="ok"), Wanted(subject_id=person.id, result="refused"),
        ):  # fmt: skip
            with reading() as session:
                whole = [row.id for row in search.find(session, wanted, before=None, limit=500).rows]
                assert whole == sorted(whole, reverse=True)
                for limit, scan in ((1, 1), (2, 3), (3, 2), (50, 5)):
                    pieces, before, stops = [], None, 0
                    for _ in range(200):
                        piece = search.find(session, wanted, before=before, limit=limit, scan=scan)
                        pieces += [row.id for row in piece.rows]
                        stops += piece.stopped_at is not None
                        if piece.after is None:
                            break
                        before = piece.after
                    assert pieces == whole, (wanted, limit, scan)
                    found.setdefault(str(wanted), []).append(stops)
    assert any(any(stops) for stops in found.values()), "the bound was never reached"


def test_exports_are_whole_marked_and_harmless_wb08(world: World) -> None:
    """U03: all rows of the search in both shapes; first and last line say who, when, what and how many; formulas in half and full
    width stay text; what CP932 lacks stands as 〓 and is counted; the export is in the log and not in itself."""
    evil = "＝HYPERLINK(1)"
    with time_machine.travel(NOW, tick=False):
        audit = world.person("audit", role=Role.AUDITOR, name="倉田 律")
        world.person("0413", name=evil)
        world.person("0414", name="𠮷田 一~郎")
        for number in range(4):
            world.person(f"06{number:02}")
    with time_machine.travel(NOW + timedelta(minutes=5), tick=False), Browser(world.app) as desk:
        desk.log_in(audit)
    with time_machine.travel(NOW + timedelta(minutes=6), tick=False), Browser(world.app) as desk:
        desk.log_in(audit)
        company = world.rows(select(Account.company_id).where(Account.id == audit.id))[0][0]
        want = [
            str(r[0])
            for r in world.rows(
                select(AuditEvent.id)
                .where(AuditEvent.company_id == company, AuditEvent.created_at < NOW + timedelta(minutes=6))
                .order_by(AuditEvent.id.desc())
            )
        ]
        first, rows, last = exported(desk.get("/audit/export?format=jsonl"))
        assert [row["id"] for row in rows] == want
        assert (first["by"], first["name"], first["at"]) == ("AOBA/audit", "倉田 律", "2026-11-24T10:06:00.000+09:00")
        assert (last["rows"], last["by"]) == (len(want), "AOBA/audit")
        assert first["asked"]["in_company"] == str(company)
        assert (
            next(r for r in rows if r["tag"] == "directory:account:added" and r["subject"] == "AOBA/0413")[
                "subject_name"
            ]
            == evil
        )
        utf = desk.get("/audit/export?format=csv")
        assert utf.content.startswith(b"\xef\xbb\xbf")
        assert "attachment" in utf.headers["content-disposition"]
        lines = sheet(utf, "utf-8-sig")
        assert (lines[0][0], lines[1][2], lines[-1][3]) == ("at", "by AOBA/audit 倉田 律", f"rows={len(want)}")
        assert [line[-1] for line in lines[2:-1]] == want
        cells = {cell for line in lines for cell in line}
        assert f"'{evil}" in cells
        assert not [c for c in cells if c.startswith(tuple("=+-@＝＋－＠\t\r"))]
        sjis = sheet(desk.get("/audit/export?format=csv-cp932"), "cp932")
        names = {line[7] for line in sjis[2:-1]}
        assert "〓田 一~郎" in names
        assert "stand as 〓" in sjis[-1][4]
        for bad in ("", "xlsx", "csv&event=none:such:tag", "csv&person=9999"):
            assert desk.get(f"/audit/export?format={bad}").status_code == 400, bad
    assert count(world, Tag.LOG_EXPORTED, actor_id=audit.id) == 3


def test_a_cell_is_never_a_formula() -> None:
    """WB-08, by hand: every start that a spreadsheet reads, quotes, line breaks, NUL, and twins that CP932 knows by another name."""
    plain = Sheet("utf-8")
    for start in "=+-@\t\r\n＝＋－＠":
        assert plain.line([f"{start}1"]).decode() == f'"\'{start}1"\r\n'
    assert plain.line(['a"b', "x\0y", None, 5]).decode() == '"a""b","xy","","5"\r\n'
    old = Sheet("cp932")
    assert old.line(["〜−—", "〓", "🙂é"]).decode("cp932") == '"～－―","〓","〓〓"\r\n'
    assert old.replaced == 2


def test_who_could_use_what_on_a_day(world: World) -> None:
    """U07: a right exists from the later of its beginnings to the earliest of its ends; a person who left and came back has a gap;
    an entitlement that ended counts on its last day and not on the next; export agrees with the page."""
    from idp.core.db import transaction
    from idp.domain.applications import registry
    from idp.domain.applications.models import Entitlement
    from tests.actors import CLI

    def day(browser: Browser, text: str, **more: str) -> dict[str, set[str]]:
        query = "&".join(f"{k}={v}" for k, v in {"day": text, **more}.items())
        found: dict[str, set[str]] = {}
        for login, app in re.findall(
            r'data-account="([^"]+)" data-app="([^"]+)"', browser.get(f"/audit/access?{query}").text
        ):
            found.setdefault(login.partition("/")[2], set()).add(app)
        return found

    with time_machine.travel(NOW, tick=False) as clock:
        audit, staff = world.person("audit", role=Role.AUDITOR), world.person("0413")
        other = world.person("0421", store="S2")
        points = world.application("points", grant_roles=(Role.STAFF,))
        clock.shift(timedelta(days=3))
        cut(world, staff)
        hq1, hq2 = world.person("hq1", role=Role.HQ_ADMIN), world.person("hq2", role=Role.HQ_ADMIN)
        clock.shift(timedelta(days=3))
        with Browser(world.app) as desk:
            desk.log_in(hq1)
            desk.get(f"/hq/people/{staff.id}")
            desk.submit(action=f"/hq/people/{staff.id}/reinstate", note="もどった")
        with Browser(world.app) as desk:
            desk.log_in(hq2)
            desk.get(f"/hq/people/{staff.id}")
            assert desk.submit(action=f"/hq/people/{staff.id}/reinstate/approve").status_code == 200
        clock.shift(timedelta(days=3))
        with world.app.app_context(), transaction() as session:
            grant = session.scalar(select(Entitlement.id).where(Entitlement.application_id == points.application_id))
            assert grant is not None
            assert registry.end_entitlement(session, grant, actor=CLI, now=NOW + timedelta(days=9))
        clock.shift(timedelta(days=1))
        with Browser(world.app) as desk:
            desk.log_in(audit)
            both, one = {"0413": {"points"}, "0421": {"points"}}, {"0421": {"points"}}
            assert day(desk, "2026-11-23") == {}
            assert day(desk, "2026-11-24") == both
            assert day(desk, "2026-11-27") == both, "the day of the cut itself"
            assert day(desk, "2026-11-28") == one
            assert day(desk, "2026-11-30") == both, "back again"
            assert day(desk, "2026-12-03") == both
            assert day(desk, "2026-12-04") == {}
            assert day(desk, "2026-11-24", store="S2") == one
            assert day(desk, "2026-11-24", application="points", store="S1") == {"0413": {"points"}}
            assert desk.get("/audit/access?store=H1").status_code == 400
            assert desk.get("/audit/access?day=soon").status_code == 400
            lines = sheet(desk.get("/audit/access?day=2026-11-28&format=csv"), "utf-8-sig")
            assert [line[0] for line in lines[2:-1]] == ["AOBA/0421"]
            assert lines[2][2] == "S2:staff"
            assert (lines[1][1], lines[-1][3]) == ("sekisho-access-1", "rows=1")
    assert count(world, Tag.REPORT_EXPORTED, actor_id=audit.id) == 1
    del other


def test_time_to_cut_from_the_personnel_record_to_the_last_line_au22(world: World) -> None:
    """AU-22, U08: HR date → asked → local → confirmed, p50, p95 and longest per store; an open receipt is counted and not timed;
    a booked end measures from its booking; the plot has its numbers beside it."""
    with time_machine.travel(NOW, tick=False) as clock:
        audit, manager = world.person("audit", role=Role.AUDITOR), world.person("0101", role=Role.STORE_MANAGER)
        late, booked, slow = world.person("0413"), world.person("0414"), world.person("0421", store="S2")
        points = world.application("points", backchannel_logout_uri=None, session_life_s=3600)
        never = world.application("never", backchannel_logout_uri=None)
        for person, party in ((late, points), (slow, never)):
            with Browser(world.app) as phone:
                phone.log_in(person)
                party.log_in(phone)
        with Browser(world.app) as desk:
            desk.log_in(manager)
            desk.get(f"/store/S1/staff/{late.id}/stop")
            assert desk.submit(left_on="2026-11-30").status_code == 400
            desk.get(f"/store/S1/staff/{late.id}/stop")
            desk.submit(left_on="2026-11-22")  # it ended at midnight in Tokyo, which is 15:00 UTC
            desk.get(f"/store/S1/staff/{booked.id}/stop")
            desk.submit(when="today")
        cut(world, slow)
        clock.shift(timedelta(days=1))
        world.deliver()
        with Browser(world.app) as desk:
            desk.log_in(audit)
            page = desk.get("/audit/speed")
            assert page_id(page) == "U08"
            steps = {
                m[0]: m[1:]
                for m in re.findall(
                    r'data-step="(\w+)" data-p50="([\d.]+)" data-p95="([\d.]+)" data-max="([\d.]+)"', page.text
                )
            }
            day = 86400.0
            assert tuple(map(float, steps["hr_to_cut"])) == (10 * 3600.0, 10 * 3600.0, 10 * 3600.0) or steps
            rows = sheet(desk.get("/audit/speed?format=csv"), "utf-8-sig")
            head, body = rows[0], {r[1] or r[2]: dict(zip(rows[0], r, strict=False)) for r in rows[2:-1]}
            assert "hr_to_cut_p95_s" in head
            assert (body["(all)"]["total"], body["(all)"]["open"]) == ("3", "1")
            s1, s2 = body["S1"], body["S2"]
            hours = {
                "late": 34 * 3600.0,
                "booked": 10 * 3600.0,
            }  # cut at 10:00 JST on the 24th; 24:00 on the 22nd is 34 h before
            assert float(s1["hr_to_cut_max_s"]) == hours["late"]
            assert float(s1["asked_to_cut_max_s"]) == day, "booked at 10:00, the worker ran a day later"
            assert float(s1["hr_to_cut_p50_s"]) == hours["booked"], "24:00 to the sweep at 10:00"
            assert (s2["open"], s2["cut_to_confirmed_count"]) == ("1", "0")
            assert "<svg" in page.text
            assert desk.get("/audit/speed?since=2026-11-25&until=2026-11-24").status_code == 400
            assert "この期間に止めた人はいません" in desk.get("/audit/speed?since=2025-01-01&until=2025-01-02").text


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [((), None), ((5,), (5, 5, 5)), (range(1, 101), (50, 95, 100)), ((9, 1, 5, 3), (3, 9, 9)), ((0, 0, 7), (0, 7, 7))],
)
def test_percentiles_are_nearest_rank(seconds: Any, wanted: tuple[float, float, float] | None) -> None:
    """The value that at least so many per cent do not exceed; none of nothing."""
    found = figures(list(map(float, seconds)))
    assert (found and (found.p50, found.p95, found.longest)) == wanted


def test_accounts_that_sleep_pci_8_2_6(world: World) -> None:
    """U09: 90 days without a login by default; who never came counts from their first day; stopped people and newcomers do not."""
    with time_machine.travel(NOW, tick=False) as clock:
        audit, awake, asleep, never, gone = (
            world.person("audit", role=Role.AUDITOR), *(world.person(number) for number in ("0413", "0414", "0415", "0416"))
        )  # fmt: skip
        for person in (awake, asleep):
            with Browser(world.app) as phone:
                phone.log_in(person)
        clock.shift(timedelta(days=60))
        with Browser(world.app) as phone:
            phone.log_in(awake)
        cut(world, gone)
        clock.shift(timedelta(days=31))
        world.person("0417")
        with Browser(world.app) as desk:
            desk.log_in(audit)

            def sleepers(query: str = "") -> set[str]:
                return set(re.findall(r'data-account="AOBA/([^"]+)"', desk.get(f"/audit/inactive{query}").text))

            assert sleepers() == {"0414", "0415"}
            assert sleepers("?days=30") == {"0413", "0414", "0415"}
            assert sleepers("?store=S2") == set()
            for bad in ("?days=0", "?days=x", "?store=H1"):
                assert desk.get(f"/audit/inactive{bad}").status_code == 400, bad
            _, rows, last = exported(desk.get("/audit/inactive?format=jsonl"))
            assert {(r["login"], r["last_seen_at"] is None) for r in rows} == {
                ("AOBA/0414", False),
                ("AOBA/0415", True),
            }
            assert last["rows"] == 2
    del never


def test_an_operator_looks_into_every_company(world: World) -> None:
    """The platform's log has rows of no company; a code narrows it, and that company's auditor sees that the operator looked."""
    with time_machine.travel(NOW, tick=False), Browser(world.app) as desk, Browser(world.app) as theirs:
        operator, audit = (
            world.person("op", company="SEKISHO", role=Role.OPERATOR, name="運用 次郎"),
            world.person("audit", role=Role.AUDITOR),
        )
        desk.log_in(operator)
        assert {Tag.SECRET_OPENED, Tag.COMPANY_ADDED} <= tags(desk.get("/audit"))
        assert "HOSHI" not in "".join(
            row for _, _, row in listed(desk.get("/audit?company=aoba&event=directory:store:added"))
        )
        assert desk.get("/audit?company=NONE").status_code == 400
        theirs.log_in(audit)
        seen = [row for _, _, row in listed(theirs.get("/audit?event=audit:log:viewed"))]
        assert any("SEKISHO/op" in row for row in seen)
        assert not any("運用 次郎" in row for row in seen), "of another company: the login, not the name"
