"""One request through to the tool and its answer back, checked again before a byte of it leaves (§8)."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from connectors.cookies import Cookie
from connectors.gateway import rules
from connectors.gateway.admit import COOKIE, NONCE
from connectors.gateway.body import HTML_TYPES, MAX_FORM, MAX_REWRITTEN, REWRITTEN_TYPES, Bridge
from connectors.gateway.jar import Opened
from connectors.gateway.multipart import Fields, Odd
from connectors.gateway.rules import Asked
from connectors.ports import GatewayView
from connectors.recipes import urls
from connectors.recipes.checks import Page, holds
from connectors.recipes.model import Recipe
from connectors.scanset import Patterns, Stream

HEAD_BYTES: Final = 64 * 1024
CHUNK: Final = 64 * 1024
UPLOAD_S: Final = 600.0
#: RFC 6265 §4.1.1. A quoted value may hide a semicolon as an octal escape, and would arrive as a second cookie
_COOKIE_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*")
READABLE_ENCODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


class TooBig(Exception):
    """The upload is larger than the recipe allows."""


class NotSent(Exception):
    """An upload was stopped before its end, and so before the tool could act on it; `Call.refused` says why."""


class LoggedOut(Exception):
    """The tool does not know our login any more. Its answer is never shown (VA-55)."""


class Unreadable(Exception):
    """The tool answered in a form that cannot be scanned: an encoding that was not offered, a part of a page."""


@dataclass(slots=True)
class Call:
    """One request of one person, and everything that is known about it.

    cookies: of the request, which aiohttp reads anew whenever it is asked; cacheable: the browser may keep the answer for an hour;
    fields: reads a multipart form on its way, where a route of the recipe looks at fields; started: bytes have left to the
    browser; late: its body was still on the way when the session was checked; refused: why the upload was stopped, a code of `pages`.
    """

    request: web.Request
    digest: bytes
    view: GatewayView
    recipe: Recipe
    bridge: Bridge
    asked: Asked
    url: str
    cookies: Mapping[str, str]
    cacheable: bool
    form: bytes | None = None
    fields: Fields | None = None
    started: bool = False
    late: bool = False
    refused: str = ""
    sent_bytes: int = 0
    rule: str = "allow"
    status: int = 0


async def read_form(request: web.Request, charset: str) -> tuple[bytes | None, str]:
    """A small form or JSON body, which is rewritten, and the text of a form, which routes look at. Raises TooBig."""
    kind = request.content_type if request.body_exists else ""
    is_form = kind == "application/x-www-form-urlencoded"
    if not is_form and not (kind == "application/json" and (request.content_length or MAX_FORM + 1) <= MAX_FORM):
        return None, ""
    data = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK):
        data += chunk
        if len(data) > MAX_FORM:
            raise TooBig
    return bytes(data), data.decode(charset, "replace") if is_form else ""


def outgoing_headers(call: Call, opened: Opened, now: float) -> CIMultiDict[str]:
    """The request's headers as the tool gets them."""
    request, session = call.request, call.recipe.session
    own_agent = opened.jar.user_agent if session.engine_user_agent else None
    keep = call.cacheable or "Range" in request.headers
    headers = rules.request_headers(request.headers, keep_conditional=keep, own_user_agent=own_agent)
    for name in ("Origin", "Referer"):
        if name in request.headers:
            headers[name] = call.bridge.inwards.text(request.headers[name])
    cookies = opened.jar.header_for(call.url, now=now)
    passed: list[str] = []
    if fitting := session.from_client.intersection(call.cookies):
        kept = {pair.partition("=")[0] for pair in cookies.split("; ")}
        passed = [
            f"{name}={value}"
            for name, value in call.cookies.items()
            if name in fitting and name not in kept and _COOKIE_VALUE.fullmatch(value)
        ]
    if line := "; ".join(part for part in (cookies, *passed) if part):
        headers["Cookie"] = line
    if opened.jar.authorization:
        headers["Authorization"] = opened.jar.authorization
    return headers


async def upload(call: Call) -> AsyncIterator[bytes]:
    """The request body, never more than the recipe allows, and nothing that its routes deny."""
    total, held = 0, b""
    async for chunk in call.request.content.iter_chunked(CHUNK):
        total += len(chunk)
        if total > call.recipe.routes.upload_max_bytes:
            raise _stopped(call, "too_big")
        if call.fields is None:
            yield chunk
            continue
        # One piece behind: what ends the form leaves only when all of it was read.
        if held:
            yield held
        _judge_fields(call, call.fields, chunk)
        held = chunk
    if call.fields is not None:
        if not call.fields.ended:
            raise _stopped(call, "bad_request")
        yield held


def _judge_fields(call: Call, fields: Fields, chunk: bytes) -> None:
    try:
        pairs = tuple(fields.feed(chunk))
    except Odd:
        raise _stopped(call, "bad_request") from None
    if pairs and rules.decide(call.recipe, replace(call.asked, pairs=call.asked.pairs + pairs), call.url) != "allow":
        call.rule = "deny"
        raise _stopped(call, "route_denied")


def _stopped(call: Call, code: str) -> NotSent:
    call.refused = code  # aiohttp reports whatever a body raises as a broken connection
    return NotSent(code)


async def ask_tool(client: aiohttp.ClientSession, call: Call, opened: Opened, *, now: float, silent_s: float) -> Reply:
    """The tool's answer; nothing is followed. The caller closes its head.

    Nothing is retried by us. aiohttp sends a request again that is idempotent and streams no body when a kept connection turns
    out to be closed before any answer (RFC 9110 §9.2.2): within this call, so a cut ends it too.
    silent_s: how long the tool may think, and then how long a body that is read whole may take; an upload gets ten minutes.
    Raises TimeoutError, Unreadable, and what aiohttp raises.
    """
    think_s = silent_s
    headers = outgoing_headers(call, opened, now)
    body: bytes | AsyncIterator[bytes] | None = None
    if call.form is not None:
        body = call.bridge.inwards.apply(call.form)
    elif call.request.body_exists:
        think_s = UPLOAD_S
        body = upload(call)
        if (length := call.request.content_length) is not None:
            headers[hdrs.CONTENT_LENGTH] = str(length)  # old tools refuse a chunked body
    url = URL(call.url, encoded=True)
    async with asyncio.timeout(think_s) as limit:
        head = await client.request(call.request.method, url, headers=headers, data=body, allow_redirects=False)
        try:
            if not head.content.is_eof():  # a small page has come with its head
                limit.reschedule(asyncio.get_running_loop().time() + silent_s)
            return await read_reply(head)
        except BaseException:
            head.close()
            raise


@dataclass(slots=True)
class Reply:
    """The tool's answer so far. body: whole when `complete`, else the beginning."""

    head: aiohttp.ClientResponse
    kind: str
    body: bytes
    complete: bool

    @property
    def is_html(self) -> bool:
        """Whether a person would read it as a page."""
        return self.kind in HTML_TYPES


async def read_reply(head: aiohttp.ClientResponse) -> Reply:
    """Read as much as is rewritten; everything else is streamed later. Raises Unreadable."""
    if head.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower() not in READABLE_ENCODINGS:
        raise Unreadable
    kind = head.content_type
    if head.status == 206 and kind in REWRITTEN_TYPES:
        raise Unreadable  # a page in pieces could carry half a secret in each
    if head.method == "HEAD" or head.status in (204, 304):
        return Reply(head, kind, b"", complete=True)
    if kind not in REWRITTEN_TYPES or (head.content_length or 0) > MAX_REWRITTEN:
        return Reply(head, kind, b"", complete=False)
    body = bytearray()
    while not head.content.at_eof():
        body += await head.content.readany()
        if len(body) > MAX_REWRITTEN:
            return Reply(head, kind, bytes(body), complete=False)
    return Reply(head, kind, bytes(body), complete=True)


def judge_login(call: Call, reply: Reply) -> None:
    """Raises LoggedOut when the answer shows that the tool has forgotten our login."""
    head = reply.head
    location = head.headers.get(hdrs.LOCATION)
    target = urls.joined(call.url, location) if location and 300 <= head.status < 400 else None
    html = ""
    if reply.is_html:
        html = reply.body[:HEAD_BYTES].decode(_charset(head, call.recipe), "replace")
    page = Page(call.url, head.status, html, target)
    if head.status == 401 or holds(call.recipe.checks.logged_out, page):
        raise LoggedOut


def _charset(head: aiohttp.ClientResponse, recipe: Recipe) -> str:
    given = head.charset or recipe.charset
    try:
        return codecs.lookup(given).name
    except LookupError:
        return recipe.charset


def take_cookies(call: Call, reply: Reply, opened: Opened, now: float) -> None:
    """Every Set-Cookie of the tool goes into the jar (D9)."""
    for header in reply.head.headers.getall(hdrs.SET_COOKIE, ()):
        opened.jar.set_from(header, url=call.url, now=now)


def mirrored(call: Call, opened: Opened) -> list[Cookie]:
    """Cookies that the tool's scripts must read and that the browser does not have in this form yet."""
    host = call.bridge.to_tool_hosts[call.view.host].partition(":")[0]
    return [
        cookie
        for cookie in opened.jar
        if cookie.name in call.recipe.session.mirror
        and (cookie.domain == host or (not cookie.host_only and host.endswith("." + cookie.domain)))
        and call.cookies.get(cookie.name) != cookie.value
        and cookie.name not in (COOKIE, NONCE)
    ]


class Stop(Exception):
    """The tool leads to a host that its recipe does not declare. The argument is that host's address."""


def browser_headers(call: Call, reply: Reply, opened: Opened) -> CIMultiDict[str]:
    """The answer's headers as the browser gets them. Raises Stop."""
    head, bridge, public = reply.head, call.bridge, call.recipe.hosts.public
    rewritten = reply.complete and bool(reply.body)
    listed = {n.strip().lower() for value in head.headers.getall("Connection", ()) for n in value.split(",")}
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in head.headers.items():
        low = name.lower()
        if low in rules.DROPPED_RESPONSE or low in listed or low.startswith(rules.DROPPED_PREFIXES):
            continue
        if low in rules.POLICIES:
            headers.add(name, bridge.policy(value))
        elif low in rules.MAPPED_RESPONSE:
            mapped = bridge.outwards.text(value)
            if not bridge.names_others(bridge.inwards.text(mapped), public):
                headers.add(name, mapped)
        elif low != "etag" or not rewritten:
            headers.add(name, value)
    for name in (hdrs.LOCATION, "Refresh"):
        if (target := head.headers.get(name)) is not None:
            headers[name] = _moved(call, name, target)
    headers.add("Content-Security-Policy", rules.OUR_POLICY)
    headers["Cache-Control"] = "private, max-age=3600" if _may_keep(call, head) else "no-store"
    headers["X-Robots-Tag"] = "noindex, nofollow"
    headers["Referrer-Policy"] = "same-origin"
    for cookie in mirrored(call, opened):
        headers.add(hdrs.SET_COOKIE, f"{cookie.name}={cookie.value}; Path={cookie.path}; Secure; SameSite=Lax")
    return headers


def _moved(call: Call, name: str, value: str) -> str:
    before, mark, target = ("", "", value)
    if name == "Refresh":
        before, mark, target = value.partition("=")
        if not mark:
            return value
    mapped = call.bridge.location(target.strip(" '\""), base=call.url, public=call.recipe.hosts.public)
    if mapped is None:
        raise Stop(target)
    return f"{before}{mark}{mapped}"


def _may_keep(call: Call, head: aiohttp.ClientResponse) -> bool:
    return call.cacheable and head.status in (200, 304)


def header_bytes(headers: CIMultiDict[str]) -> bytes:
    """All header values in one piece, for the scan."""
    return "\n".join(headers.values()).encode("utf-8", "surrogateescape")


async def stream(call: Call, reply: Reply, headers: CIMultiDict[str], patterns: Patterns) -> web.StreamResponse:
    """Send a body piece by piece, scanned. Raises SecretFound before any piece of a guarded value has left."""
    head = reply.head
    answer = web.StreamResponse(status=head.status, reason=head.reason, headers=headers)
    encoded = head.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("", "identity")
    if head.content_length is not None and not encoded:
        answer.content_length = head.content_length
    scan = Stream(patterns, lines=reply.kind == "text/event-stream")
    # The first piece is scanned before the head leaves: most leaks then still end in a page that says so.
    first = scan.feed(reply.body) if reply.body else b""
    pieces = head.content.iter_chunked(CHUNK) if reply.kind != "text/event-stream" else head.content.iter_any()
    call.started = True
    await answer.prepare(call.request)
    if first:
        await answer.write(first)
    async for piece in pieces:
        if out := scan.feed(piece):
            call.sent_bytes += len(out)
            await answer.write(out)
    if rest := scan.finish():
        call.sent_bytes += len(rest)
        await answer.write(rest)
    await answer.write_eof()
    return answer


def whole(call: Call, reply: Reply, headers: CIMultiDict[str], body: bytes) -> web.Response:
    """Send a body that was read whole."""
    call.sent_bytes = len(body)
    answer = web.Response(status=reply.head.status, reason=reply.head.reason, headers=headers, body=body or None)
    if not body and hdrs.CONTENT_TYPE not in headers and hdrs.CONTENT_TYPE in answer.headers:
        del answer.headers[hdrs.CONTENT_TYPE]
    return answer
