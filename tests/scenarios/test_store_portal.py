"""Scenario `store-portal` of product.md, console part: one login, the point console, and a leaver who is cut live."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

from idp.core import clock
from tests.scenarios.conftest import Demo, Person

#: set to a folder to keep pictures of what was seen (docs/images is made this way)
PICTURES = os.environ.get("SEKISHO_PICTURES")


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page where somebody asked for it."""
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


def fits(page: Page) -> None:
    """Nothing is wider than the screen (320 px and up)."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page.url


def log_in(page: Page, who: dict[str, Any]) -> None:
    """Fill in the login form, and the second factor where it is asked for."""
    page.get_by_label("ログインID").fill(who["login"])
    page.get_by_label("パスワード", exact=True).fill(who["password"])
    page.get_by_test_id("primary").click()
    if who.get("totp_secret"):
        page.get_by_label("確認コード").fill(pyotp.TOTP(who["totp_secret"]).at(clock.now()))
        page.get_by_test_id("primary").click()


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Person]:
    """A part-timer's phone, the narrowest there is."""
    person = Person(chromium, width=320, height=720)
    yield person
    person.close()


@pytest.fixture
def desk(chromium: Browser) -> Iterator[Person]:
    """A desk at the shop or at head office."""
    person = Person(chromium)
    yield person
    person.close()


def test_store_portal(demo: Demo, phone: Person, desk: Person) -> None:
    """AT-M2: 2 clicks from the row, the next request refused, the console dead on reload, the receipt in step."""
    staff, manager = demo.person("AOBA/0413"), demo.person("AOBA/0101")

    page = phone.page
    page.goto(f"{demo.issuer}/login")
    fits(page)
    picture(page, "login")
    log_in(page, staff)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    fits(page)
    picture(page, "portal")
    page.get_by_role("link", name="ポイント管理コンソール").click()
    expect(page).to_have_url(re.compile(re.escape(demo.console)))
    expect(page.get_by_text(staff["name"]).first).to_be_visible()
    picture(page, "console")

    boss = desk.page
    boss.goto(f"{demo.issuer}/login")
    log_in(boss, manager)
    boss.goto(f"{demo.issuer}/store/00123/staff")
    picture(boss, "staff")
    row = boss.get_by_role("row").filter(has_text=staff["name"])
    row.get_by_role("link", name="利用を止める").click()
    expect(boss.get_by_role("heading", level=1)).to_contain_text(staff["name"])
    picture(boss, "stop")
    boss.get_by_role("button", name="いますぐ止める").click()
    expect(boss).to_have_url(re.compile("/receipts/R-"))
    picture(boss, "receipt-cutting")

    expect(boss.locator("[data-state=acknowledged]").first).to_be_visible(timeout=15_000)
    picture(boss, "receipt-waiting")
    assert "すべて切断しました" not in boss.content()

    page.reload()
    expect(page).to_have_url(re.compile(re.escape(demo.issuer) + "/login"))
    picture(page, "leaver")
    log_in(page, staff)
    expect(page.get_by_text("ログインできませんでした")).to_be_visible()
    fits(page)


def test_head_office_sees_and_exports(demo: Demo, desk: Person) -> None:
    """F14: search, cut, watch; the pack can be taken away. English from the first page."""
    page = desk.page
    page.goto(f"{demo.issuer}/login?lang=en")
    hq = demo.person("AOBA/hq1")
    page.get_by_label("Login ID").fill(hq["login"])
    page.get_by_label("Password", exact=True).fill(hq["password"])
    page.get_by_test_id("primary").click()
    page.locator("input[name=code]").fill(pyotp.TOTP(hq["totp_secret"]).at(clock.now()))
    page.get_by_test_id("primary").click()
    page.goto(f"{demo.issuer}/hq")
    picture(page, "hq-en")
    page.goto(f"{demo.issuer}/hq/people?q=AOBA/0421")
    page.get_by_role("link", name=re.compile("श्रेष्ठ")).first.click()
    picture(page, "hq-person-en")
    page.goto(page.url + "/stop")
    page.get_by_test_id("primary").click()
    expect(page.locator("[data-verdict=done]")).to_be_visible(timeout=15_000)
    picture(page, "receipt-done-en")
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON").click()
    assert download.value.suggested_filename.startswith("R-")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(demo: Demo, chromium: Browser, width: int) -> None:
    """Every page of a manager and of head office fits 320 px, without a sideways scroll."""
    person = Person(chromium, width=width, height=800)
    page = person.page
    page.goto(f"{demo.issuer}/login")
    log_in(page, demo.person("AOBA/0201"))
    paths = [
        "/",
        "/store/00124/staff",
        "/store/00124/staff/new",
        "/receipts",
        "/me/sessions",
        "/me/security",
        "/me/password",
        "/help/login",
        "/status",
    ]
    for path in paths:
        page.goto(demo.issuer + path)
        fits(page)
        picture(page, f"page{path.replace('/', '-')}-{width}")
    person.close()
