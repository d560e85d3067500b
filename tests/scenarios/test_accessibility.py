"""axe-core on the pages people use most: WCAG 2.2 A and AA, light and dark, telephone and desk (ux.md 11, 49).

The rules are Deque's, unchanged and pinned; a machine finds about half of what a person with a screen reader would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
from playwright.sync_api import Browser, Page

from idp.core.settings import shipped_templates
from tests.interop import npm
from tests.scenarios.conftest import Demo, Person
from tests.scenarios.test_store_portal import log_in

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
BRIEF = {"resultTypes": ["violations"], "preload": False}
#: target-size is of 2.2 AA, and off unless somebody asks
EVERYTHING = {"runOnly": TAGS, "rules": {"target-size": {"enabled": True}}, **BRIEF}
#: all that can differ where only the colours do
COLOURS = {"runOnly": ["color-contrast"], **BRIEF}
SIZES = {"phone": (390, 800), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def axe() -> str:
    """The text of axe-core."""
    if reason := npm.why_not():
        if os.environ.get("SEKISHO_REQUIRE_ALL") == "1":
            pytest.fail(f"required in this run: {reason}")
        pytest.skip(reason)
    return (npm.FOLDER / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """One browser for the whole round; nothing moves, so that a colour is the one that stays."""
    person = Person(chromium)
    person.page.emulate_media(reduced_motion="reduce")
    yield person.page
    person.close()


def wrong_with(page: Page, axe: str, name: str) -> set[str]:
    """What axe says of this page in every size and colour scheme: rule, place and why."""
    page.evaluate(axe)
    found = set()
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme, rules in (("light", EVERYTHING), ("dark", COLOURS)):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            result: dict[str, Any] = page.evaluate("rules => axe.run(document, rules)", rules)
            assert result["passes"], f"axe looked at nothing on {name}"
            found |= {
                f"{name}, {size}, {scheme}: {rule['id']}: {node['target']}: {node['failureSummary']}"
                for rule in result["violations"]
                for node in rule["nodes"]
            }
    return found


def test_the_judge_sees_what_is_planted(page: Page, axe: str) -> None:
    """Without this a judge that looks at nothing would pass every page. One fault is there in the dark only."""
    page.set_content(
        """<!doctype html><html lang="ja"><title>x</title><style>:root { color-scheme:light dark } body { background:Canvas }
        @media (prefers-color-scheme:dark) { p { color:#333 } } a { font-size:8px; display:block; line-height:8px }</style>
        <main><h1>x</h1><p>暗いときだけ読めない</p><input><a href="/1">一</a><a href="/2">二</a></main></html>"""
    )
    seen = {tuple(fault.split(": ")[:2]) for fault in wrong_with(page, axe, "planted")}
    by_size = {(f"planted, {size}, light", rule) for size in SIZES for rule in ("label", "target-size")}
    assert seen == by_size | {(f"planted, {size}, dark", "color-contrast") for size in SIZES}


def test_WCAG_22_AA_no_page_has_a_known_fault(demo: Demo, page: Page, axe: str) -> None:
    """Every kind of page: before the login, of staff, of a store manager with a revocation and its receipt, of head office."""
    found: set[str] = set()

    def look(path: str, status: int = 200) -> None:
        answer = page.goto(demo.issuer + path)
        assert answer is not None
        assert answer.status == status, path
        found.update(wrong_with(page, axe, path))

    look("/nothing", 404)
    broken = jinja2.Environment(loader=jinja2.FileSystemLoader(shipped_templates()), autoescape=True)
    body = broken.get_template("errors/500.html").render()
    page.route("**/broken", lambda route: route.fulfill(status=500, content_type="text/html", body=body))
    look("/broken", 500)
    look("/e")
    look("/login")
    page.get_by_test_id("primary").click()
    found |= wrong_with(page, axe, "/login with errors")

    page.goto(f"{demo.issuer}/login")
    log_in(page, demo.person("AOBA/0201"))
    for path in ("/", "/store/00124/staff", "/me/security"):
        look(path)
    look("/hq", 403)
    page.goto(f"{demo.issuer}/store/00124/staff/new")  # somebody whom no other scenario needs
    for name, text in (("name", "冬木 一時"), ("kana", "フユキ カズトキ"), ("login_name", "0498")):
        page.locator(f"input[name={name}]").fill(text)
    page.get_by_test_id("primary").click()
    found |= wrong_with(page, axe, "the letter")
    page.goto(f"{demo.issuer}/store/00124/staff")
    page.get_by_role("row").filter(has_text="冬木 一時").get_by_role("link", name="利用を止める").click()
    found |= wrong_with(page, axe, "the question before a revocation")
    page.get_by_test_id("primary").click()
    page.wait_for_url("**/receipts/R-*")
    found |= wrong_with(page, axe, "the receipt")

    page.context.clear_cookies()
    page.goto(f"{demo.issuer}/login")
    log_in(page, demo.person("SEKISHO/admin"))
    for path in (
        "/hq/people?q=AOBA/04", "/hq/apps/points", "/hq/tools", "/hq/vault", f"/hq/vault/{demo.world['tools'][0]['account']}",
        "/op/styleguide",
    ):  # fmt: skip
        look(path)
    assert not found, "\n".join(sorted(found))
