"""The two tools of the demonstration: what they refuse, as tools of other makers do."""

from __future__ import annotations

import pytest
import time_machine
from flask.testing import FlaskClient

from connectors.demo.tools.desk import LOCK_AFTER, Account
from connectors.demo.tools.order_desk import create_order_desk
from connectors.demo.tools.shift_note import create_shift_note

PASSWORD = "Sakura-2026"
NAMES = {"corp_cd": "SAKURA", "login_id": "渋谷"}


def post(browser: FlaskClient, path: str, **form: str) -> tuple[int, str]:
    answer = browser.post(path, data=form and "&".join(f"{k}={quoted(v)}" for k, v in form.items()))
    return answer.status_code, answer.get_data().decode("cp932")


def quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("cp932"))


@pytest.fixture
def shift() -> tuple[FlaskClient, Account]:
    account = Account(NAMES, PASSWORD)
    return create_shift_note(account).test_client(), account


def test_the_shift_table_speaks_cp932_and_wants_its_token(shift: tuple[FlaskClient, Account]) -> None:
    browser, account = shift
    assert browser.get("/shifts").location == "/login"
    assert post(browser, "/login", **NAMES, password="wrong")[1].count("違います") == 1
    assert post(browser, "/login", **NAMES, password=PASSWORD)[0] == 302
    token = next(iter(account.sessions.values())).token
    assert post(browser, "/shifts", row="0", day="2", hours="9-13", token="forged")[0] == 400
    assert post(browser, "/shifts", row="9", day="2", hours="9-13", token=token)[0] == 400
    assert post(browser, "/shifts", row="1", day="0", hours="深夜", token=token)[0] == 303
    page = browser.get("/shifts")
    assert page.content_type == "text/html; charset=cp932"
    assert "髙橋 健 さんの月曜日を保存しました" in page.get_data().decode("cp932")
    assert "髙橋 健,深夜" in browser.get("/shifts.csv").get_data().decode("cp932")


def test_a_change_of_password_ends_other_sessions(shift: tuple[FlaskClient, Account]) -> None:
    browser, account = shift
    other = browser.application.test_client()
    for one in (other, browser):
        post(one, "/login", **NAMES, password=PASSWORD)
    token = list(account.sessions.values())[-1].token
    form = {"old_pw": PASSWORD, "new_pw": "Sakura-2027", "new_pw2": "Sakura-2027", "token": token}
    for wrong in ({"old_pw": "x"}, {"new_pw2": "other"}, {"new_pw": "short", "new_pw2": "short"}):
        assert "変更しました" not in post(browser, "/account/password", **{**form, **wrong})[1]
    assert "パスワードを変更しました" in post(browser, "/account/password", **form)[1]
    assert browser.get("/shifts").status_code == 200
    assert other.get("/shifts").status_code == 302


def test_both_lock_after_five_failures_for_ten_minutes() -> None:
    account = Account({"login_id": "shibuya"}, PASSWORD)
    browser = create_order_desk(account).test_client()
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for _ in range(LOCK_AFTER):
            assert browser.post("/api/login", json={"login_id": "shibuya", "password": "wrong"}).status_code == 403
        right = {"login_id": "shibuya", "password": PASSWORD}
        assert browser.post("/api/login", json=right).json == {"error": "locked"}
        clock.shift(601)
        assert browser.post("/api/login", json=right).status_code == 200
        assert browser.get("/api/orders").status_code == 200
        clock.shift(8 * 3600)
        assert browser.get("/api/orders").status_code == 401


def test_the_order_desk_refuses_bad_orders() -> None:
    account = Account({"login_id": "shibuya"}, PASSWORD)
    browser = create_order_desk(account).test_client()
    assert browser.post("/api/orders", json={"item": 0, "count": 1}).status_code == 401
    for login in ([], "x", {"login_id": "shibuya"}, {"login_id": "shibuya", "password": ["a"]}):
        assert browser.post("/api/login", json=login).status_code == 403
    browser.post("/api/login", json={"login_id": "shibuya", "password": PASSWORD})
    assert browser.post("/api/orders", json={"item": 0, "count": 1}).status_code == 403
    token = {"X-CSRF-Token": next(iter(account.sessions.values())).token}
    for order in (
        [],
        {"item": "0", "count": 1},
        {"item": True, "count": 1},
        {"item": 9, "count": 1},
        {"item": 0, "count": 0},
        {"item": 0, "count": 1000},
    ):
        assert browser.post("/api/orders", json=order, headers=token).status_code == 400
    assert browser.post("/api/orders", json={"item": 0, "count": 2}, headers=token).json == {
        "number": 1,
        "name": "おにぎり 鮭",
        "count": 2,
    }
