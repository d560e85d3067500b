"""An auditor at a browser: find a stop, read the event, save its proof, see who could use what and how fast it went (AT-U1)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Browser, expect

from idp.ledgers.audit import verify
from tests.scenarios.conftest import Demo, Person
from tests.scenarios.test_store_portal import fits, log_in, picture


def test_an_auditor_finds_a_stop_and_takes_the_proof_home(demo: Demo, chromium: Browser) -> None:
    """No administrator is asked: one filter, one row, one proof that holds without the product; nothing wider than 320 px."""
    demo.wait_for_tools()  # before that a receipt has lines about passwords that somebody knows
    manager, auditor = Person(chromium), Person(chromium)
    boss, page = manager.page, auditor.page
    boss.goto(f"{demo.issuer}/login")
    log_in(boss, demo.person("AOBA/0101"))
    boss.goto(f"{demo.issuer}/store/00123/staff/new")  # somebody whom no other scenario needs
    for name, text in (("name", "秋山 一時"), ("kana", "アキヤマ カズトキ"), ("login_name", "0499")):
        boss.locator(f"input[name={name}]").fill(text)
    boss.get_by_test_id("primary").click()
    expect(boss.get_by_text("秋山 一時").first).to_be_visible()
    boss.goto(f"{demo.issuer}/store/00123/staff")
    boss.get_by_role("row").filter(has_text="秋山 一時").get_by_role("link", name="利用を止める").click()
    boss.get_by_role("button", name="いますぐ止める").click()
    expect(boss).to_have_url(re.compile("/receipts/R-"))
    expect(boss.locator("[data-verdict=done]")).to_be_visible(timeout=20_000)

    page.goto(f"{demo.issuer}/login")
    log_in(page, demo.person("AOBA/audit"))
    page.get_by_role("link", name="監査", exact=True).first.click()
    expect(page.locator("tr[data-event]").first).to_be_visible()
    page.get_by_label("出来事").select_option("revocation:revocation:executed")
    page.get_by_role("button", name="さがす").click()
    expect(page.locator("tr[data-event]")).to_have_count(
        page.locator("tr[data-tag='revocation:revocation:executed']").count()
    )
    picture(page, "audit")
    page.locator("tr[data-event] a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("利用を止めた")
    for _ in range(20):  # the sealer needs a moment
        if page.get_by_role("link", name="この記録が入っている証明を保存").count():
            break
        page.wait_for_timeout(500)
        page.reload()
    picture(page, "audit-event")
    with page.expect_download() as download:
        page.get_by_role("link", name="この記録が入っている証明を保存").click()
    found = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    size, root = verify.open_checkpoint(found["checkpoint"], found["vkey"])
    hashed, _, body = verify.read_leaf({name: found[name] for name in ("index", "leaf", "body", "proof")})
    assert verify.inclusion_ok(hashed, found["index"], size, [bytes.fromhex(h) for h in found["proof"]], root)
    assert body is not None
    assert body["detail"]["door"] == "console"

    for path, name in (("access", "audit-access"), ("speed", "audit-speed"), ("inactive", "audit-inactive")):
        page.goto(f"{demo.issuer}/audit/{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        picture(page, name)
    page.set_viewport_size({"width": 320, "height": 720})
    for path in ("", "/access", "/speed", "/inactive"):
        page.goto(f"{demo.issuer}/audit{path}")
        fits(page)
    picture(page, "audit-inactive-320")
    page.goto(f"{demo.issuer}/audit?lang=en")
    fits(page)
    picture(page, "audit-320-en")
    manager.close()
    auditor.close()
