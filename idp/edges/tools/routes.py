"""The way into a tool at the portal: M03, the launch with its progress, the admission of a browser that comes from the gateway."""

from __future__ import annotations

import base64
import binascii
import uuid
from urllib.parse import urlencode

from flask import redirect, render_template, request

from idp.core.db import reading, transaction
from idp.core.errors import Invalid, NotFound
from idp.domain.applications import registry
from idp.domain.gateway import gateway_sessions
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.tools import bp
from idp.edges.tools import open as way

MISSING = "ページが見つかりません。URLが変わったか、見る権限がありません。"


@bp.get("/tools")
def tools() -> Answer:
    """Where the gateway sends somebody who is not, or no longer, in a tool."""
    return redirect("/", 303)


@bp.get("/tools/<slug>/start")
@require()
def start(looking: Looking, slug: str) -> Answer:
    """M03: which tool, as whom, how far its password gets. Opening it is a POST of its own."""
    with reading() as session:
        found = registry.tiles(session, looking.login.account_id, looking.login.company_id, now=browser.now())
    tile = next((t for t in found if t.application.slug == slug and t.application.protocol == "tool"), None)
    if tile is None:
        raise NotFound(MISSING, f"tool {slug[:64]}")
    _lets_out()
    # a link on another site may lead here, but the page then waits for a hand
    goes_on = request.headers.get("Sec-Fetch-Site") == "same-origin"
    return render_template("web/tool_start.html", application=tile.application, goes_on=goes_on)


@bp.post("/tools/<slug>/open")
@require()
def open_tool(_looking: Looking, slug: str) -> Answer:
    """The launch (§5.1 step 1)."""
    tickets = way.key()
    with transaction() as session:
        done = way.launch(session, slug, tickets, now=browser.now())
    if isinstance(done, way.Refused):
        return _say_no(done, slug)
    if done.live:
        return redirect(_entrance(done.opened.host), 303)
    return redirect(f"/tools/launch/{done.opened.id}", 303)


@bp.get("/tools/launch/<uuid:gateway_session_id>")
@require()
def launch(looking: Looking, gateway_session_id: uuid.UUID) -> Answer:
    """The progress of a launch: reloads by itself until the tool is logged in, or says who can help."""
    with reading() as session:
        found = gateway_sessions.launch_of(
            session,
            gateway_session_id,
            login_session_id=looking.login.id,
            account_id=looking.login.account_id,
            now=browser.now(),
        )
    if found is None:
        raise NotFound(MISSING, f"launch {gateway_session_id}")
    if found.state in {"live", "renewing"}:
        return redirect(_entrance(found.host), 303)
    if found.state != "opening":
        return render_template("web/tool_refused.html", code=found.code or "tool_away", name=found.name), 409
    return render_template("web/tool_launch.html", name=found.name, slow=found.slow)


@bp.get("/tools/admit")
@require()
def admit(looking: Looking) -> Answer:
    """The gateway asks who is in front of this browser (§5.1 step 4). One page for everything that is not theirs."""
    host = f"{request.args.get('label', '')[:64]}.{browser.services().settings.gateway_at}"
    with transaction() as session:
        done = way.admit(session, looking.login, host, challenge=_challenge(), now=browser.now())
    if isinstance(done, way.Refused):
        return _say_no(done, host)
    scheme = browser.services().settings.gateway_scheme
    return redirect(f"{scheme}://{host}/.sekisho/enter?{urlencode({'ticket': done})}", 303)


def _challenge() -> bytes:
    """SHA-256 of the nonce cookie at the gateway. Raises Invalid."""
    text = request.args.get("challenge", "")
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != 32:
        raise Invalid(
            "この画面は古くなりました。アプリの一覧から、もう一度開いてください。", "challenge of the gateway"
        )
    return found


def _entrance(host: str) -> str:
    return f"{browser.services().settings.gateway_scheme}://{host}/.sekisho/start"


def _lets_out() -> None:
    """The form's answer leads through the gateway: Chromium applies `form-action` to every redirect after a POST (WB-02)."""
    settings = browser.services().settings
    if settings.gateway_at:
        browser.allow_form_target(f"{settings.gateway_scheme}://*.{settings.gateway_at}")


def _say_no(refusal: way.Refused, what: str) -> Answer:
    if refusal.not_found:
        raise NotFound(MISSING, f"tool {what[:80]}: {refusal.code}")
    if refusal.code in {"no_assignment", "assurance"}:
        return render_template("oidc/blocked.html", application=refusal.name, reason=refusal.code, back="/"), 403
    return render_template("web/tool_refused.html", code=refusal.code, name=refusal.name), 409
