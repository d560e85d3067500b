"""The door: `/.sekisho/start` and `/.sekisho/enter`, the only pages that another site may lead to (§5.1, VA-51).

A ticket in a URL is not enough to come in: it was made for the browser that holds the nonce cookie of this origin, and it
is claimed once. So a ticket read over a shoulder, from a log or from a history opens nothing.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from connectors.gateway import pages
from connectors.gateway.settings import GatewaySettings
from connectors.ports import Door, NewSecret

COOKIE: Final = "__Host-sekisho-gw"
NONCE: Final = "__Host-sekisho-nonce"
NONCE_S: Final = 120
PREFIX: Final = "/.sekisho/"


def digest_of(cookie: str) -> bytes:
    """How a cookie is known to the database."""
    return hashlib.sha256(cookie.encode()).digest()


async def answer(
    request: web.Request, host: str, *, door: Door, settings: GatewaySettings, new_secret: NewSecret
) -> web.StreamResponse:
    """A request for a path of ours."""
    portal = f"{settings.idp}/tools"
    if request.method != "GET":
        return pages.page("method", portal=portal)
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        return pages.page("cross_site", portal=portal)  # in a frame, or as a picture: nobody sees where it came from
    if request.path == f"{PREFIX}start":
        return _start(host, settings, new_secret)
    if request.path == f"{PREFIX}enter":
        return await _enter(request, host, door, settings)
    return pages.page("bad_request", portal=portal, status=404)


def _start(host: str, settings: GatewaySettings, new_secret: NewSecret) -> web.Response:
    nonce = new_secret()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(nonce.encode()).digest()).rstrip(b"=").decode()
    query = urlencode({"label": host.partition(".")[0], "challenge": challenge})
    moved = web.Response(status=303, headers={"Location": f"{settings.idp}/tools/admit?{query}"})
    pages.guard(moved)
    moved.set_cookie(NONCE, nonce, max_age=NONCE_S, path="/", secure=True, httponly=True, samesite="Lax")
    return moved


async def _enter(request: web.Request, host: str, door: Door, settings: GatewaySettings) -> web.Response:
    portal = f"{settings.idp}/tools"
    nonce, ticket = request.cookies.get(NONCE, ""), request.query.get("ticket", "")
    admission = None
    if nonce and ticket:
        challenge = hashlib.sha256(nonce.encode()).digest()
        admission = await door.admit(ticket, host=host, challenge=challenge)
    if admission is None:
        refused = pages.page("ticket_invalid", portal=portal)
        refused.del_cookie(NONCE, path="/", secure=True, httponly=True, samesite="Lax")
        return refused
    if admission.next_host is not None:
        entered = web.Response(status=303, headers={"Location": f"{settings.origin(admission.next_host)}{PREFIX}start"})
        pages.guard(entered)
    else:
        # 200 and not 303: a redirect would carry the cross-site chain into Sec-Fetch-Site of the tool's first page.
        entered = pages.page("entered", portal=portal, go=admission.landing)
    entered.set_cookie(COOKIE, admission.cookie, path="/", secure=True, httponly=True, samesite="Lax")
    entered.del_cookie(NONCE, path="/", secure=True, httponly=True, samesite="Lax")
    return entered


def farewell(answer_: web.StreamResponse) -> None:
    """Forget this origin in the browser: the cookie, the cache and what scripts stored, and nothing of other people."""
    answer_.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
    answer_.headers["Clear-Site-Data"] = '"cache", "storage"'
