"""The portal: what may I open (M01, M03), and the navigation that every page shows."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request

from idp.core.db import reading
from idp.core.errors import NotFound
from idp.domain.applications import registry
from idp.domain.directory.roles import ROLES, Power, Reach
from idp.edges import browser, language
from idp.edges.browser import Answer, Looking, require

bp = Blueprint("portal", __name__)


def navigation(looking: Looking) -> list[dict[str, Any]]:
    """The left column: only what this person can use."""
    viewer, t = looking.viewer, language.text
    items = [("/", t("アプリ"), "app")]
    mine = [s for s in viewer.standings_with(Power.SEE_PEOPLE) if ROLES[s.role].reach is Reach.STORE and s.store_code]
    items += [(f"/store/{s.store_code}/staff", t("%(store)sのスタッフ", store=s.store_name), "users") for s in mine]
    wide = any(ROLES[s.role].reach is not Reach.STORE for s in viewer.standings_with(Power.SEE_PEOPLE))
    if wide:
        items += [("/hq", t("本部"), "building"), ("/hq/people", t("人"), "users")]
    if wide and viewer.can(Power.MANAGE_PLACES):
        items.append(("/hq/stores", t("店舗"), "store"))
    if viewer.can(Power.MANAGE_APPLICATIONS):
        items.append(("/hq/apps", t("アプリの管理"), "settings"))
        items += [("/hq/tools", t("ツール"), "link"), ("/hq/vault", t("パスワード金庫"), "lock")]
    if viewer.can(Power.SEE_RECEIPTS):
        items.append(("/receipts", t("切断の記録"), "receipt"))
    if viewer.can(Power.SEE_LOG):
        items.append(("/audit", t("監査"), "history"))
    items += [("/me/sessions", t("ログイン中の端末"), "device"), ("/me/security", t("セキュリティ"), "shield")]
    here = request.path
    if here.startswith("/hq/apps/") and here.split("/")[4:5] == ["tool"]:
        here = "/hq/tools"  # where people come from to the accounts of one
    best = max(
        (href for href, _, _ in items if here == href or here.startswith(f"{href.rstrip('/')}/")), key=len, default=""
    )
    return [{"href": href, "label": label, "icon": icon, "current": href == best} for href, label, icon in items]


@bp.get("/")
@require()
def home(looking: Looking) -> Answer:
    """M01: tiles, decided by the same gate as an issuance."""
    with reading() as session:
        found = registry.tiles(session, looking.login.account_id, looking.login.company_id, now=browser.now())
    return render_template("web/portal.html", tiles=found)


@bp.get("/apps/<slug>/open")
@require()
def open_app(looking: Looking, slug: str) -> Answer:
    """M03: third-party-initiated login; the application starts its own authorization request (OI-17)."""
    with reading() as session:
        found = registry.tiles(session, looking.login.account_id, looking.login.company_id, now=browser.now())
    tile = next((t for t in found if t.application.slug == slug), None)
    if tile is None or not tile.initiate_login_uri:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"application {slug}")
    uri = tile.initiate_login_uri
    if tile.application.protocol in {"saml", "tool"}:
        return redirect(uri, 303)  # its own address, or our opt-in start (SA-18); of a tool the page that opens it
    return redirect(f"{uri}{'&' if '?' in uri else '?'}{urlencode({'iss': browser.services().settings.issuer})}", 303)
