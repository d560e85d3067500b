"""Who may see and do what to whom: the generated matrix of WB-07, and the ways round it that people try."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from werkzeug.routing import Rule

from idp.core import clock
from idp.core.db import transaction
from idp.domain.applications.models import Application, Entitlement
from idp.domain.directory import people
from idp.domain.directory.models import Account, Assignment
from idp.domain.directory.roles import Role
from idp.domain.gateway.models import ToolSession
from idp.domain.tools.models import RecipeText
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation.models import Revocation
from idp.lifecycle.revocation.words import Scope
from tests.actors import CLI, Browser, Person, World, line_states, receipt_number
from tests.functional.steps import count, cut, issue, page_id, shown_code, token_on
from tests.tools import place
from tests.unit.connectors.recipe_texts import COMPLETE

#: rules with a part in their address that is no object of a company's
NO_OBJECT = {"static", "login.company_login"}


@dataclass
class Town:
    """AOBA's store S1 with everything a route can name, and four people who have no business there."""

    world: World
    victim: Person
    values: dict[str, object]
    other_manager: Browser
    other_company: Browser
    part_timer: Browser
    ended: Browser

    def close(self) -> None:
        for browser in (self.other_manager, self.other_company, self.part_timer, self.ended):
            browser.http.close()


def town(world: World) -> Town:
    victim, gone = world.person("0413"), world.person("0499")
    manager = world.person("0201", store="S2", role=Role.STORE_MANAGER)
    foreign, clerk = world.person("hq1", company="HOSHI", role=Role.HQ_ADMIN), world.person("0421", store="S2")
    world.application("aobaonly", company="AOBA", grant_roles=(), initiate_login_uri="https://aobaonly.example/start")
    browsers = []
    for person in (manager, foreign, clerk, gone):
        browser = Browser(world.app)
        browser.log_in(person)
        browsers.append(browser)
    number = cut(world, gone)
    added = select(AuditEvent.id).where(AuditEvent.tag == Tag.ACCOUNT_ADDED.value, AuditEvent.subject_id == victim.id)
    values = {
        "account_id": victim.id, "code": "S1", "number": number, "slug": "aobaonly", "position": 0, "event_id": world.rows(added)[0][0],
        **inside_a_tool(world, victim),
    }  # fmt: skip
    return Town(world, victim, values, *browsers)


def inside_a_tool(world: World, victim: Person) -> dict[str, object]:
    """A gateway session of the victim, and the recipe behind it."""
    made = place(world.app, COMPLETE.encode())
    person, now = made.enter(victim.id), clock.now()
    with world.app.app_context(), transaction() as session:
        row = ToolSession(
            created_at=now,
            company_id=made.account.company_id,
            tool_account_id=made.account.id,
            ends_at=now + timedelta(hours=1),
        )
        session.add(row)
        session.flush()
        gateway_session = made.sit_down(session, person, row.id)
    recipe_id = world.rows(select(RecipeText.id))[0][0]
    return {"gateway_session_id": gateway_session, "recipe_id": recipe_id, "tool_account_id": made.account.id}


def object_rules(world: World) -> list[Rule]:
    """Every address that names an object; a new route is in here by itself, or fails for want of a value."""
    return [rule for rule in world.app.url_map.iter_rules() if rule.arguments and rule.endpoint not in NO_OBJECT]


def state(world: World, person: Person) -> tuple[object, ...]:
    """What no stranger may have changed."""
    account = world.rows(select(Account.epoch, Account.ends_at, Account.ended_at).where(Account.id == person.id))[0]
    grants = world.rows(select(func.count()).select_from(Entitlement))[0][0]
    apps = world.rows(select(Application.slug, Application.ended_at).order_by(Application.slug))
    issued = count(world, Tag.ACTIVATION_ISSUED, subject_id=person.id)
    return (
        tuple(account),
        grants,
        tuple(map(tuple, apps)),
        world.rows(select(func.count()).select_from(Revocation))[0][0],
        issued,
    )


def test_every_object_is_foreign_to_strangers_wb07(world: World) -> None:
    """WB-07, AT-M4: every route with an object × another store's manager, another company's head office, a part-timer: 404 or 403,
    never the object, and a row that says who asked; whoever was stopped is sent to log in. Nothing changes."""
    t = town(world)
    before, rules = state(world, t.victim), object_rules(world)
    assert len(rules) >= 18
    tried = 0
    for rule in rules:
        missing = rule.arguments - set(t.values)
        assert not missing, f"{rule.rule}: give the matrix a value for {missing}"
        path = rule.rule
        for name in rule.arguments:
            path = (
                path.replace(f"<{name}>", str(t.values[name]))
                .replace(f"<uuid:{name}>", str(t.values[name]))
                .replace(f"<int:{name}>", "0")
            )
        assert "<" not in path, path
        for who in (t.other_manager, t.other_company, t.part_timer, t.ended):
            token = token_on(who.get("/"))
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                rows = count(world, Tag.FOREIGN_OBJECT)
                if method == "GET":
                    answer = who.get(path, follow=False)
                else:
                    form = {
                        "csrf_token": token,
                        "id": f"assignment:{t.victim.assignment_id}",
                        "when": "now",
                        "reason": "left",
                        "note": "x",
                    }
                    answer = who.post(path, form, follow=False)
                tried += 1
                where = f"{method} {path}"
                if who is t.ended:
                    assert answer.status_code == 303, where
                    assert answer.headers["location"].startswith("/login"), where
                    continue
                assert answer.status_code in {403, 404}, where
                assert t.victim.name not in answer.text, where
                assert count(world, Tag.FOREIGN_OBJECT) == rows + 1, where
                last = world.rows(
                    select(AuditEvent.request_id, AuditEvent.actor_id)
                    .where(AuditEvent.tag == Tag.FOREIGN_OBJECT.value)
                    .order_by(AuditEvent.id.desc())
                )
                assert answer.headers["X-Request-Id"] in [row.request_id for row in last], where
    assert tried >= 80
    assert state(world, t.victim) == before
    t.close()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the decision is made before any query
def test_pages_without_an_object_need_their_power_wb07(world: World) -> None:
    """WB-07: what needs a power is refused to a part-timer, and head office's pages to a store manager too, with a row."""
    clerk, manager = world.person("0421"), world.person("0101", role=Role.STORE_MANAGER)
    store_managers = {"receipts.listing"}
    for person in (clerk, manager):
        with Browser(world.app) as browser:
            browser.log_in(person)
            token = token_on(browser.get("/"))
            for rule in world.app.url_map.iter_rules():
                if rule.arguments or rule.endpoint.split(".")[0] not in {"hq", "apps", "receipts"}:
                    continue
                if person is manager and rule.endpoint in store_managers:
                    continue
                rows = count(world, Tag.FOREIGN_OBJECT)
                answer = (
                    browser.get(rule.rule)
                    if "GET" in (rule.methods or ())
                    else browser.post(rule.rule, {"csrf_token": token})
                )
                assert answer.status_code == 403, (person.role, rule.rule)
                assert count(world, Tag.FOREIGN_OBJECT) == rows + 1


def test_nobody_hands_out_more_than_they_hold_wb07(world: World) -> None:
    """WB-07: a role, company, store, epoch or id in extra fields is not taken; a store manager hires staff of that store and no
    more; head office gives no operator; the operator's own role stays in the operator's company."""
    manager, hq = world.person("0101", role=Role.STORE_MANAGER), world.person("hq1", role=Role.HQ_ADMIN)
    operator = world.person("op", company="SEKISHO", role=Role.OPERATOR)
    wish = {"name": "新 花子", "kana": "シン ハナコ"}
    with Browser(world.app) as desk:
        desk.log_in(manager)
        for number, role in enumerate(
            ("store_manager", "area_manager", "hq_admin", "operator", "auditor", "nonsense", "")
        ):
            desk.get("/store/S1/staff/new")
            assert desk.submit(**wish, login_name=f"05{number:02}", role=role).status_code == 400, role
        desk.get("/store/S1/staff/new")
        extra = {
            "company_id": str(uuid.uuid4()), "company": "HOSHI", "store_id": str(world.store_id("S2")), "store": "S2", "epoch": "99", "ends_at": "",
            "id": str(manager.id), "account_id": str(manager.id), "subject": "mine", "ended_at": "", "locale": "en", "is_platform": "1",
        }  # fmt: skip
        shown_code(desk.submit(**wish, login_name="0550", **extra))
        for bad in (
            {"locale": "xx"},
            {"login_name": "a b"},
            {"login_name": "../../x"},
            {"name": "山\u202e本"},
            {"kana": "x\0y"},
            {"name": "n" * 201},
        ):
            desk.get("/store/S1/staff/new")
            assert desk.submit(**{**wish, "login_name": "0551", **bad}).status_code == 400, bad
    row = world.rows(
        select(Account, Assignment)
        .join(Assignment, Assignment.account_id == Account.id)
        .where(Account.login_name == "0550")
    )[0]
    assert (row[0].epoch, row[1].epoch, row[1].role, row[1].store_id) == (1, 1, "staff", world.store_id("S1"))
    assert row[0].subject != "mine"
    assert row[0].id != manager.id
    for person, company in ((hq, "AOBA"), (operator, "AOBA")):
        with Browser(world.app) as desk:
            desk.log_in(person)
            desk.get(f"/hq/people/new?company={company}")
            assert desk.submit(**wish, login_name="0560", role="operator").status_code == 400, person.role
            desk.get("/hq/people/new?company=HOSHI")
            if person is hq:
                assert desk.page.status_code == 200  # type: ignore[union-attr]
                assert desk.submit(**wish, login_name="0561", role="staff", store="H1").status_code == 404
                assert (
                    desk.post(
                        "/hq/people/new",
                        {**desk_form(desk), **wish, "login_name": "0562", "role": "staff", "store": "H1"},
                    ).status_code
                    == 400
                )
    assert not world.rows(select(Account.id).where(Account.login_name.in_(("0560", "0561", "0562"))))


def desk_form(browser: Browser) -> dict[str, str]:
    """A token from a page of head office."""
    return {"csrf_token": token_on(browser.get("/hq/people/new")), "locale": "ja", "ends_on": ""}


def test_a_former_manager_has_no_power_rv30(world: World) -> None:
    """RV-30, WB-07: who moved from S1 to S2 is out of reach of S1's manager, but for looking; who also manages S2 gets no new
    password from S1; and a cut by S1's or the area's manager never reaches a store that is not theirs."""
    one, moved, both = world.person("0101", role=Role.STORE_MANAGER), world.person("0413"), world.person("0414")
    area = world.person("area1", role=Role.AREA_MANAGER)
    world.assign(moved, "S2")
    world.assign(both, "S2", Role.STORE_MANAGER)
    with world.app.app_context(), transaction() as session:
        people.add_store(
            session, people.get_company(session, "AOBA"), code="FAR", name="遠い店", actor=CLI, now=clock.now()
        )
    spread = world.person("0415")
    world.assign(spread, "FAR")
    cut(world, moved, scope=Scope.ASSIGNMENT, target=moved.assignment_id)
    with Browser(world.app) as desk, Browser(world.app) as office, Browser(world.app) as phone:
        desk.log_in(one)
        token = {"csrf_token": token_on(desk.get("/"))}
        assert desk.get(f"/store/S1/staff/{moved.id}").status_code == 200
        for path in (
            f"/store/S1/staff/{moved.id}/reset",
            f"/store/S1/staff/{both.id}/reset",
            f"/hq/people/{moved.id}/reset",
        ):
            assert desk.post(path, token).status_code in {403, 404}, path
        stop = {**token, "when": "now", "reason": "left"}
        for path in (f"/store/S1/staff/{moved.id}/stop", f"/hq/people/{moved.id}/stop", f"/hq/people/{both.id}/stop"):
            assert desk.post(path, stop).status_code in {403, 404}, path
        phone.log_in(moved)
        assert moved.name in phone.page.text  # type: ignore[union-attr]
        # the store page stops somebody who manages another store here, and only here
        desk.get(f"/store/S1/staff/{both.id}/stop")
        desk.submit()
        assert world.rows(select(Account.ended_at).where(Account.id == both.id))[0][0] is None

        office.log_in(area)
        token = {"csrf_token": token_on(office.get("/"))}
        assert (
            office.post(f"/hq/people/{spread.id}/stop", {**token, "when": "now", "reason": "left"}).status_code == 403
        )
        far = world.rows(
            select(Assignment.id).where(
                Assignment.account_id == spread.id, Assignment.store_id == world.store_id("FAR")
            )
        )[0][0]
        assert office.post(f"/hq/people/{spread.id}/stop-one", {**token, "id": f"assignment:{far}"}).status_code == 404
        done = office.post(f"/hq/people/{spread.id}/stop-one", {**token, "id": f"assignment:{spread.assignment_id}"})
        assert receipt_number(done)
    assert world.rows(select(Assignment.ended_at).where(Assignment.id == far))[0][0] is None


def test_last_manager_and_oneself_rv28(world: World) -> None:
    """RV-28, AT-M7: the store page refuses oneself and the last manager and offers two ways out; head office is never blocked."""
    manager, deputy = world.person("0101", role=Role.STORE_MANAGER), world.person("0102", role=Role.STORE_MANAGER)
    area, hq = world.person("area1", role=Role.AREA_MANAGER), world.person("hq1", role=Role.HQ_ADMIN)
    with Browser(world.app) as desk, Browser(world.app) as region, Browser(world.app) as office:
        desk.log_in(manager)
        page = desk.get(f"/store/S1/staff/{manager.id}/stop")
        assert page.status_code == 409
        token = {"csrf_token": token_on(page), "when": "now", "reason": "left"}
        assert desk.post(f"/store/S1/staff/{manager.id}/stop", token).status_code == 409
        assert receipt_number(desk.post(f"/store/S1/staff/{deputy.id}/stop", {**token, "once": "x"}))
        region.log_in(area)
        page = region.get(f"/store/S1/staff/{manager.id}/stop")
        assert page.status_code == 409
        assert f"/hq/people/{manager.id}/stop" in page.text
        office.log_in(hq)
        office.get(f"/hq/people/{manager.id}/stop")
        assert receipt_number(office.submit())
        assert "/login" in str(desk.get("/").url)
        office.get(f"/hq/people/{hq.id}/stop")
        assert office.submit().status_code in {200, 303}, "also oneself"
        assert "/login" in str(office.get("/hq").url)


def test_leaving_one_of_two_stores_rv27(world: World) -> None:
    """RV-27: the manager of S1 ends the assignment at S1; the login session stays, every app session and family ends, and the next
    entry speaks of S2 alone; the person's other manager notices nothing."""
    manager, staff = world.person("0101", role=Role.STORE_MANAGER), world.person("0413")
    world.assign(staff, "S2")
    first, second = world.application("points"), world.application("coupon")
    with Browser(world.app) as desk, Browser(world.app) as phone:
        phone.log_in(staff)
        held = [(app, app.log_in(phone)) for app in (first, second)]
        desk.log_in(manager)
        page = desk.get(f"/store/S1/staff/{staff.id}/stop")
        assert "S1店の所属だけを終わらせます" in page.text
        receipt = desk.submit()
        assert {"confirmed", "queued"} <= {line["state"] for line in line_states(receipt).values()}
        for app, tokens in held:
            assert app.userinfo(tokens["access_token"]).status_code == 401
            assert app.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert staff.name in phone.get("/").text, "the login session stays"
        for app, _ in held:
            assert [s["code"] for s in app.claims(app.log_in(phone)["id_token"])["stores"]] == ["S2"]
        assert desk.get(f"/store/S1/staff/{staff.id}/stop").status_code == 404, "no longer this manager's to stop"
    assert world.rows(select(Account.ended_at).where(Account.id == staff.id))[0][0] is None


def test_the_page_for_codes_does_not_name_strangers_ac06(world: World) -> None:
    """AC-06, WB-07: a receipt or person that does not exist and one of somebody else's answer with the same page."""
    manager, theirs = world.person("0101", role=Role.STORE_MANAGER), world.person("0421", store="S2")
    issue(world, theirs)
    number = cut(world, theirs)
    with Browser(world.app) as desk:
        desk.log_in(manager)
        pages = [desk.get(p) for p in (f"/receipts/{number}", "/receipts/R-2026-0101-AAAAAA", f"/receipts/{number}.json", f"/store/S1/staff/{theirs.id}",
                                       f"/store/S1/staff/{uuid.uuid4()}", "/store/S2/staff", "/store/NOPE/staff")]  # fmt: skip
        assert {page.status_code for page in pages} == {404}
        assert {page_id(page) for page in pages} == {"X03"}
        assert len({page.text.split("<main")[1].split("request-id")[0] for page in pages}) == 1
