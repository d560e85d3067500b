"""The story of the product: somebody logs in once, works, is let go by two taps, and the receipt tells the truth."""

from __future__ import annotations

import pytest

from idp.domain.directory.roles import Role
from tests.actors import Browser, World, line_states, receipt_number
from tests.fakes.outbound import RecordingOutbound, down


def test_login_console_cut(world: World, outbound: RecordingOutbound) -> None:
    """A part-timer's console session, token and login end when the manager presses one button, and the line says how surely."""
    staff, manager = world.person("0413"), world.person("0101", role=Role.STORE_MANAGER, name="鈴木 一郎")
    console = world.application("points")
    with Browser(world.app) as phone, Browser(world.app) as desk:
        assert "山本 健" in phone.log_in(staff).text
        tokens = console.log_in(phone)
        claims = console.claims(tokens["id_token"])
        assert claims["stores"] == [{"code": "S1", "name": "S1店", "role": "staff"}]
        assert claims["functions"] == ["points.adjust", "points.view"]
        assert console.userinfo(tokens["access_token"]).status_code == 200

        desk.log_in(manager)
        desk.get(f"/store/S1/staff/{staff.id}/stop")
        page = desk.submit()
        number = receipt_number(page)
        assert page.status_code == 200
        assert 'data-verdict="waiting"' in page.text
        assert {line["state"] for line in line_states(page).values()} >= {"confirmed", "queued", "expiring"}

        assert console.userinfo(tokens["access_token"]).status_code == 401
        assert console.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert "/login" in str(phone.get("/").url)
        assert phone.log_in(staff).status_code == 401

        world.deliver()
        assert len(outbound.to("https://points.example/backchannel")) == 1
        states = line_states(desk.get(f"/receipts/{number}"))
        assert "acknowledged" in {line["state"] for line in states.values()}


@pytest.mark.parametrize("language", ["ja", "en", "ja-easy"])
def test_pages_speak(world: World, language: str) -> None:
    """Every page family renders in every language without an error."""
    hq = world.person("hq1", role=Role.HQ_ADMIN, name="佐伯 本子")
    world.application("points")
    with Browser(world.app) as desk:
        desk.log_in(hq, at=f"/login?lang={language}")
        for path in ("/", "/hq", "/hq/open-cuts", "/hq/people", "/hq/people?q=hq", "/hq/people/new", "/hq/stores", "/hq/apps", "/hq/apps/new",
                     "/hq/apps/points", f"/hq/people/{hq.id}", f"/hq/people/{hq.id}/stop", "/receipts", "/me/sessions", "/me/security",
                     "/me/password", "/me/security/totp/new", "/status", "/help/login"):  # fmt: skip
            page = desk.get(path)
            assert page.status_code == 200, (path, page.text[-1500:])
            assert f'lang="{language}"' in page.text


def test_dead_relying_party_is_never_called_cut(world: World, outbound: RecordingOutbound) -> None:
    """RV-25: an RP that is down keeps the receipt red, and the line closes by itself when it comes back."""
    staff, hq = world.person(), world.person("hq1", role=Role.HQ_ADMIN)
    console = world.application("points")
    outbound.behave("https://points.example/backchannel", down)
    with Browser(world.app) as phone, Browser(world.app) as desk:
        phone.log_in(staff)
        console.log_in(phone)
        desk.log_in(hq)
        desk.get(f"/hq/people/{staff.id}/stop")
        number = receipt_number(desk.submit())
        world.deliver()
        page = desk.get(f"/receipts/{number}")
        assert 'data-verdict="action"' in page.text
        assert "failed" in {line["state"] for line in line_states(page).values()}
        assert "すべて切断しました" not in page.text
