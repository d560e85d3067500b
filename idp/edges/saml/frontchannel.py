"""Our own logout, through the person's browser: the page with one frame per service provider, and what came of each (SA-23).

The login session is over before this page is shown. Nobody waits for a dead service provider: each is asked in a frame of its
own, the page moves on by itself after some seconds and says who has not confirmed, and a link asks that one again in full.
"""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

from flask import Response, g, redirect, render_template, request

from idp.core.db import reading, transaction
from idp.core.errors import NotFound, Stale
from idp.domain.applications import saml
from idp.domain.applications.saml import Provider
from idp.domain.sessions import chain, live
from idp.domain.sessions.chain import Chain
from idp.edges import browser
from idp.edges.browser import Answer
from idp.edges.saml import bp, build, slo
from idp.edges.saml.metadata import paths

#: how long the frames get before the page goes on without those that have not answered
FRAMES_S = 5


@bp.get("/saml/slo/chain", endpoint="chain")
def show() -> Answer:
    """Round 0 asks everybody at once; the next shows what came of it and leads back."""
    handle, later = request.args.get("request", ""), request.args.get("round", "0") != "0"
    with reading() as session:
        found = _chain(session, handle)
        providers = {part.provider: saml.of_id(session, uuid.UUID(part.provider)) for part in found.parts}
    waiting = [n for n, part in enumerate(found.parts) if part.state == "waiting"]
    # a POST page of ours cannot be shown inside a frame (frame-ancestors), so those are asked by their link
    framed = [n for n in waiting if not later and providers[found.parts[n].provider].front_logout_binding == "redirect"]
    done = not waiting or later or not framed
    onward = f"/saml/slo/finish?request={handle}" if found.initiator else found.target
    page = render_template(
        "saml/logged_out.html", chain=found, framed=framed, done=done, onward=onward, handle=handle,
        refresh=f"{FRAMES_S};url=/saml/slo/chain?request={handle}&round=1" if framed else None,
    )  # fmt: skip
    answer = Response(page)
    browser.set_cookie(answer, browser.CHAIN_COOKIE, handle, life=chain.LIFE)
    _allow_frames(answer, [providers[found.parts[n].provider] for n in framed])
    if done and found.initiator is not None and not waiting:
        return redirect(onward or "/", 303)
    return answer


def _chain(session: object, handle: str) -> Chain:
    found = chain.find(session, handle, now=browser.now())  # type: ignore[arg-type]
    if found is None:
        raise Stale("この画面は古くなりました。アプリからもう一度開いてください。", "logout chain is gone")
    return found


def _allow_frames(answer: Response, providers: list[Provider]) -> None:
    """This page, and only this one, may hold frames: of ours, and of exactly these service providers (WB-02)."""
    origins = {"{0.scheme}://{0.netloc}".format(urlsplit(one.front_logout_url or "")) for one in providers}
    sources = " ".join(["'self'", *sorted(origins)])
    nonce = f"'nonce-{g.csp_nonce}'"
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {nonce} 'strict-dynamic'; style-src {nonce}; img-src 'self' data:; connect-src 'self'; "
        f"frame-src {sources}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types sekisho"
    )


@bp.get("/saml/slo/part", endpoint="part")
def ask() -> Answer:
    """Ask one service provider, with a new message each time: inside a frame, or as a whole page when the person wants it."""
    handle, number = request.args.get("request", ""), request.args.get("n", "")
    now = browser.now()
    with transaction() as session:
        found = _chain(session, handle)
        part = next((part for n, part in enumerate(found.parts) if str(n) == number), None)
        if part is None:
            raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", "no such part")
        provider = saml.of_id(session, uuid.UUID(part.provider))
        if provider.front_logout_url is None:
            raise NotFound(
                "ページが見つかりません。URLが変わったか、見る権限がありません。", "no logout address any more"
            )
        message_id = chain.ask(session, found, int(number), now=now)
    root = build.logout_request(
        paths(browser.services().settings.issuer)["entity_id"], provider.front_logout_url, provider.entity_id, part.name_id, part.format,
        [part.index], now=now, reason="urn:oasis:names:tc:SAML:2.0:logout:user",
    )  # fmt: skip
    root.set("ID", message_id)
    return slo.send(provider, "SAMLRequest", root, provider.front_logout_url, None)


@bp.get("/saml/slo/finish", endpoint="finish")
def finish() -> Answer:
    """Back to the service provider that began it: Success, or PartialLogout while anybody has not confirmed."""
    handle, now = request.args.get("request", ""), browser.now()
    with transaction() as session:
        found = _chain(session, handle)
        if found.initiator is None or not live.use_request(session, found.id, now=now):
            raise Stale("この画面は古くなりました。アプリからもう一度開いてください。", "logout chain was finished")
        provider = saml.of_id(session, uuid.UUID(found.initiator.provider))
    whole = not found.initiator.partial and all(part.state == "confirmed" for part in found.parts)
    answer = slo.respond(
        provider, found.initiator.request_id, found.initiator.relay_state, "Success", None if whole else "PartialLogout"
    )
    browser.delete_cookie(answer, browser.CHAIN_COOKIE)
    return answer
