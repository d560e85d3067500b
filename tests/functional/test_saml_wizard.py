"""The SAML connection wizard: drop metadata, see what was understood, test with one's own login, go live (A05, A06, SA-15)."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from idp.domain.applications.models import ServiceProvider as Row
from idp.domain.directory.roles import Role
from tests.actors import Browser, World
from tests.fakes.outbound import RecordingOutbound
from tests.fakes.outbound import status as answers
from tests.saml import SUCCESS, ServiceProvider, pair


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_SA_15_from_metadata_to_live(world: World, browser: Browser, outbound: RecordingOutbound) -> None:
    """By address; what it says is shown before anything is stored; tested by the administrator only; then live for everybody.
    Later its keys change: the page shows the difference and waits for a person."""
    sp = ServiceProvider("coupon", encryption=pair("encryption"))
    url = "https://coupon.example/metadata"
    browser.log_in(world.person("op", company="SEKISHO", role=Role.OPERATOR))
    outbound.behave(url, answers(200, sp.metadata()))
    browser.get("/hq/apps/saml/new")
    page = browser.submit(act="check", metadata_url=url)
    assert sp.entity_id in page.text
    assert sp.acs[0] in page.text
    assert world.rows(select(Row.id)) == []
    page = browser.submit(act="register", name="クーポン", slug="coupon", encrypt="y")
    assert str(page.url).endswith("/hq/apps/coupon/saml")
    assert "テスト中です" in page.text
    browser.get("/hq/apps/coupon")
    page = browser.submit(action="/hq/apps/coupon/grants", subject_kind="role", role="staff")
    card = page.text.partition("<tbody>")[2].partition("</tbody>")[0]
    seen = re.sub(r'<span class="visually-hidden">.*?</span>', "", card)
    assert (seen.count(">スタッフ<"), 'data-l="役割"></td>' in card) == (1, True), (
        "once: an empty cell is no line of a card"
    )
    staff = world.person()
    with Browser(world.app) as other:
        other.log_in(staff)
        assert other.get(sp.redirect_url()).status_code == 403
        browser.get("/hq/apps/coupon/saml")
        assert "公開しています" in browser.submit(action="/hq/apps/coupon/saml/live", live="yes").text
        assert sp.sign_on(other).status == SUCCESS
    outbound.behave(
        url, answers(200, ServiceProvider("coupon", pair=pair("newer"), encryption=pair("encryption")).metadata())
    )
    page = browser.submit(action="/hq/apps/coupon/saml/metadata")
    assert "確認を待っています" in page.text
    assert "signing_certs" in page.text
    page = browser.submit(action="/hq/apps/coupon/saml/approve")
    assert "確認を待っています" not in page.text
    assert world.rows(select(Row.signing_certs))[0][0] == [pair("newer").der]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_cannot_be_used_is_said_at_its_field(world: World, browser: Browser, outbound: RecordingOutbound) -> None:
    """Nothing, no XML, an address that answers an error, a taken name, a pattern that could name two people."""
    world.service_provider(ServiceProvider("taken"))
    browser.log_in(world.person("op", company="SEKISHO", role=Role.OPERATOR))
    metadata = ServiceProvider("coupon").metadata().decode()
    outbound.behave("https://x.example/m", answers(404))
    for form, sentence in (
        ({"act": "check"}, "メタデータのファイルか"), ({"act": "check", "metadata": "<x"}, "XMLを読めません"),
        ({"act": "check", "metadata_url": "https://x.example/m"}, "エラーを返しました"),
        ({"act": "register", "metadata": metadata, "name": "x", "slug": "taken"}, "もう使われています"),
        ({"act": "register", "metadata": metadata, "name": "x", "slug": "ok", "encrypt": "y"}, "暗号化する設定ですが"),
        ({"act": "register", "metadata": metadata, "name": "x", "slug": "ok", "name_id": "email", "email_pattern": "{login_name}@a.example"}, "会社ごと"),
    ):  # fmt: skip
        browser.get("/hq/apps/saml/new")
        page = browser.submit(**form)
        assert page.status_code == 400, form
        assert sentence in page.text, form
    assert browser.get("/hq/apps").text.count("/hq/apps/taken") == 1
