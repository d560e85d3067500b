"""The work at the counter: functions, stores, points, coupons, pages."""

import re

import pytest
from console_actors import Browser
from console_fake_provider import HANAKO, KEN, FakeProvider

from connectors.demo.console.entropy import new_secret
from connectors.demo.console.folding import fold

JAPANESE = {"Accept-Language": "ja"}


def member_ids(browser: Browser, query: str = "") -> list[str]:
    return re.findall(r'data-member="(\d+)"', browser.get(f"/{query}").text)


def points(browser: Browser, member_id: str) -> int:
    return int(re.findall(r'data-points="(\d+)"', browser.get(f"/members/{member_id}").text)[0])


def test_members_are_those_of_the_own_stores(browser: Browser, provider: FakeProvider) -> None:
    browser.login()
    assert len(member_ids(browser)) == 24
    assert len(member_ids(browser, "?store=00123")) == 12
    assert member_ids(browser, "?store=00999") == []


def test_member_of_another_store_is_404_for_reading_and_writing(
    browser: Browser, other_browser: Browser, provider: FakeProvider
) -> None:
    """product.md, scenario member-admin: one store cannot see another's members."""
    browser.login()
    provider.person = {**KEN, "functions": HANAKO["functions"]}
    other_browser.login()
    foreign = member_ids(other_browser)[0]
    own = member_ids(browser)[0]
    assert browser.get(f"/members/{foreign}").status_code == 404
    fields = {"direction": "add", "amount": "5", "reason": "付け忘れ"}
    assert browser.post(f"/members/{own}", f"/members/{foreign}/points", **fields).status_code == 404
    assert browser.get("/members/1").status_code == 404


def test_same_store_code_of_another_company_is_another_store(
    browser: Browser, other_browser: Browser, provider: FakeProvider
) -> None:
    """requirements.md D19: codes are unique inside one company only."""
    browser.login()
    provider.person = {**HANAKO, "sub": "x", "company": {"code": "MIDORI", "name": "みどり"}}
    other_browser.login()
    assert not set(member_ids(browser)) & set(member_ids(other_browser))


def test_missing_functions_hide_the_buttons_and_refuse_the_posts(browser: Browser, provider: FakeProvider) -> None:
    provider.person = KEN
    browser.login()
    own = member_ids(browser)[0]
    assert "/points" not in browser.get(f"/members/{own}").text
    assert 'action="/coupons"' not in browser.get("/").text
    assert browser.post("/", f"/members/{own}/points", direction="add", amount="5", reason="x").status_code == 403
    assert browser.post("/", "/coupons", store="00999", title="x").status_code == 403


def test_without_points_view_no_member_is_shown(browser: Browser, provider: FakeProvider) -> None:
    browser.login()
    own = member_ids(browser)[0]
    provider.person = {**HANAKO, "functions": []}
    browser.login()
    assert member_ids(browser) == []
    assert browser.get(f"/members/{own}").status_code == 403


def test_points_change_once_with_who_and_why(browser: Browser) -> None:
    browser.login()
    own = member_ids(browser)[0]
    before = points(browser, own)
    fields = {"direction": "add", "amount": "1,2００", "reason": "レジでの付け忘れ", "request_id": new_secret()}
    for _ in range(2):  # a double tap sends the same form twice
        answer = browser.post(f"/members/{own}", f"/members/{own}/points", **fields)
        assert (answer.status_code, answer.location) == (303, f"/members/{own}?done=points")
    assert points(browser, own) == before + 1200
    page = browser.get(f"/members/{own}").text
    assert all(text in page for text in ("+1,200", "レジでの付け忘れ", "髙橋 花子", "AOBA/0413"))


def test_points_never_fall_under_zero(browser: Browser) -> None:
    browser.login()
    own = member_ids(browser)[0]
    before = points(browser, own)
    fields = {"direction": "subtract", "amount": str(before + 1), "reason": "訂正"}
    answer = browser.post(f"/members/{own}?lang=ja", f"/members/{own}/points", **fields)
    assert answer.status_code == 400
    assert "<title>エラー:" in answer.text
    assert f"残りは{before:,}ポイント" in answer.text
    assert points(browser, own) == before
    browser.post(f"/members/{own}", f"/members/{own}/points", **{**fields, "amount": str(before)})
    assert points(browser, own) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"amount": "0"}, {"amount": "-5"}, {"amount": "100001"}, {"amount": "x"}, {"reason": " "}, {"direction": "?"}],
)
def test_form_errors_come_back_with_what_was_typed(settled: Browser, wrong: dict) -> None:
    own = member_ids(settled)[0]
    fields = {"direction": "add", "amount": "5", "reason": "ほかの理由", **wrong}
    answer = settled.post(f"/members/{own}", f"/members/{own}/points", **fields)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    if "reason" not in wrong:
        assert 'value="ほかの理由"' in answer.text


def test_forms_need_the_token_of_this_session(browser: Browser, other_browser: Browser) -> None:
    browser.login()
    other_browser.login()
    own = member_ids(browser)[0]
    foreign = re.findall(r'name="csrf_token" value="(\w+)"', other_browser.get("/").text)[0]
    fields = {"direction": "add", "amount": "5", "reason": "x", "request_id": new_secret()}
    for token in ("", foreign, "é"):
        answer = browser.client.post(f"/members/{own}/points", data={**fields, "csrf_token": token})
        assert answer.status_code == 400
    assert browser.client.post(f"/members/{own}/points", data=fields).status_code == 400


def test_coupon_is_published_in_an_own_store_only(browser: Browser) -> None:
    browser.login()
    fields = {"title": "年末セール 200円引き", "discount": "200", "ends_on": "2099-12-31"}
    assert browser.post("/", "/coupons", store="00124", **fields).status_code == 303
    assert "年末セール" in browser.get("/").text
    assert browser.post("/", "/coupons", store="00999", **fields).status_code == 404
    past = browser.post("/", "/coupons", store="00124", **{**fields, "ends_on": "2020-01-01"})
    assert (past.status_code, "年末セール" in past.text) == (400, True)


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("高橋", "髙橋 花子"),
        ("たかはし", "タカハシ ハナコ"),
        ("吉田", "𠮷田 健"),
        ("ﾖｼﾀﾞ", "ヨシダ"),
        ("nguyen", "Nguyễn Thị Lan"),
    ],
)
def test_search_finds_a_name_however_it_is_typed(typed: str, written: str) -> None:
    assert fold(typed) in fold(written)


def test_search_treats_wildcards_as_letters(browser: Browser) -> None:
    browser.login()
    assert member_ids(browser, "?q=%25") == []
    assert member_ids(browser, "?q=_") == []
    assert "00123" not in member_ids(browser, "?q=%E9%AB%98%E6%A9%8B")


def test_seed_is_the_same_after_a_new_login(browser: Browser) -> None:
    browser.login()
    first = member_ids(browser)
    browser.login()
    assert member_ids(browser) == first
    page = browser.get("/?store=00123").text
    assert "髙橋" in page
    assert "𠮷田" in page


def test_every_page_keeps_the_conventions(browser: Browser) -> None:
    """ux.md 1.3 and check-list 46, 51: hooks, one h1, no placeholder, no script, strict policy, no store."""
    browser.login()
    own = member_ids(browser)[0]
    paths = ("/", f"/members/{own}", "/logout", "/logged-out", "/members/1", "/nothing", "/callback", "/members//1")
    for path in paths:
        for language in ("ja", "en"):
            answer = browser.get(path, query_string={"lang": language})
            page = answer.text
            assert f'<html lang="{language}">' in page, path
            assert page.count("<h1") == 1
            assert re.search(r'<body data-page="C0\d">', page)
            assert page.count('data-testid="primary"') == 1
            assert not re.search(r"placeholder=|<script|style=|\son\w+=|disabled", page)
            assert answer.headers["Cache-Control"] == "no-store"
            policy = answer.headers["Content-Security-Policy"]
            assert f"form-action 'self' {browser.provider.issuer};" in policy
            assert "default-src 'none'; style-src 'self'; img-src 'self';" in policy


def test_names_are_escaped(browser: Browser, provider: FakeProvider) -> None:
    provider.person = {**HANAKO, "name": "<b>花子</b>"}
    browser.login()
    assert "<b>花子" not in browser.get("/", headers=JAPANESE).text
