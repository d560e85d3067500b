"""The middle of a request: state of the tool session, route rules, the tool itself, the release."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from yarl import URL

from connectors.egress import Refused
from connectors.gateway import admit, exchange, pages, rules
from connectors.gateway.exchange import Call, LoggedOut, Reply, Stop, Unreadable
from connectors.gateway.jar import JarConflict, Opened
from connectors.gateway.multipart import fields_of
from connectors.gateway.sockets import MAX_MESSAGE, PING_S, relay
from connectors.ports import AccessRow, GatewayView
from connectors.recipes import urls
from connectors.scanset import SecretFound

if TYPE_CHECKING:
    from connectors.gateway.app import Gateway

log = logging.getLogger(__name__)


class Shown(Exception):
    """A page of ours answers the call."""

    def __init__(self, page: web.StreamResponse) -> None:
        super().__init__()
        self.page = page


class Passage:
    """One call on its way; made anew for each."""

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self._gateway, self._call = gateway, call

    async def serve(self) -> web.StreamResponse:
        """The answer to the call."""
        call = self._call
        try:
            await self._read_form()
            call.rule = rules.decide(call.recipe, call.asked, call.url)
            await self._judge_route()
            await self._ready()
            if call.request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._socket()
            return await self._through()
        except Shown as shown:
            return shown.page
        except Stop as stop:
            await self._alarm("undeclared_host")
            return self._page("stop", urls.parts(str(stop)).netloc)
        except SecretFound:
            call.rule = "secret_in_answer"
            await self._alarm("secret_in_answer")
            return self._broken("secret_in_answer")
        except TimeoutError:
            return self._broken("tool_slow")
        except (aiohttp.ClientError, Refused, Unreadable) as error:
            if call.refused:
                return self._page(call.refused)
            log.warning("tool %s: %s", call.recipe.id, type(error).__name__)
            return self._broken("tool_away")

    async def _read_form(self) -> None:
        """Read a small form, which routes look at; raises Shown for one that is too big.

        A form may dribble in for as long as its sender likes. One that was not there yet when the session was checked is
        checked again: it could have been begun before the cut to be finished after it.
        """
        call, request = self._call, self._call.request
        if not request.body_exists:
            return
        charset = call.recipe.charset
        try:
            call.form, text = await exchange.read_form(request, charset)
        except exchange.TooBig:
            raise Shown(self._page("too_big")) from None
        if call.form is None and rules.looks_at_fields(call.recipe, call.asked):
            call.fields = fields_of(request.headers.get("Content-Type", ""), charset)
        opaque = call.form is None and call.fields is None
        pairs = call.asked.pairs + rules.pairs_of(text, charset)
        call.asked = replace(call.asked, pairs=pairs, opaque_body=opaque)
        if call.late and call.form is not None:
            call.view = await self._fresh()

    async def _judge_route(self) -> None:
        """Raises Shown for what never goes to the tool."""
        rule = self._call.rule
        if rule == "deny":
            raise Shown(self._page("route_denied"))
        if rule == "logout":
            raise Shown(await self._leave())
        if rule == "login_page":
            raise Shown(self._to_landing())
        if (self._call.request.content_length or 0) > self._call.recipe.routes.upload_max_bytes:
            raise Shown(self._page("too_big"))

    async def _ready(self) -> None:
        """Wait for a login under way; raises Shown unless the tool session is live."""
        call, view = self._call, self._call.view
        if view.state == "opening":
            view = await self._opened()
        if view.state == "live":
            return
        if view.state == "needs_human":
            raise Shown(self._page("needs_human", view.code or ""))
        if view.state != "renewing":
            raise Shown(self._page("unavailable"))
        if call.request.method not in rules.SAFE_METHODS:
            raise Shown(self._page("resend"))
        await self._renewed()

    async def _opened(self) -> GatewayView:
        """Look for one second, in which most logins finish; raises Shown with the waiting page after that."""
        call = self._call
        for _ in range(5):
            await asyncio.sleep(0.2)
            call.view = await self._fresh()
            if call.view.state != "opening":
                return call.view
        if call.request.method != "GET":
            raise Shown(self._page("resend"))
        raise Shown(pages.page("opening", portal=self._gateway.portal, go=call.request.raw_path, after_s=1))

    async def _fresh(self) -> GatewayView:
        """The live check, again; raises Shown with the last page when something has ended."""
        view = await self._gateway.live.check(self._call.digest)
        if view is None:
            self._call.rule = "cut"
            raise Shown(self._gateway.ended())
        return view

    async def _renewed(self) -> None:
        """Join the renewal of this generation; raises Shown unless a live login is there for the call."""
        call = self._call
        result = await self._gateway.renewals.wait(call.view.tool_session, call.view.generation)
        if result.state == "needs_human":
            raise Shown(self._page("needs_human", result.code or ""))
        call.view = await self._fresh()
        if result.state == "late" or call.view.state != "live":
            raise Shown(self._page("unavailable"))

    async def _through(self) -> web.StreamResponse:
        """Ask the tool; after a lost login once more for what may be repeated, and never for what may not."""
        call, gateway = self._call, self._gateway
        if call.request.method not in rules.SAFE_METHODS:
            await gateway.access.before(self._row())
        for attempt in (1, 2):
            opened = await gateway.jars.current(call.view.tool_session, call.view.jar_version)
            now = gateway.now()
            reply = await exchange.ask_tool(gateway.client, call, opened, now=now, silent_s=gateway.settings.upstream_s)
            try:
                async with reply.head:
                    exchange.judge_login(call, reply)
                    return await self._release(reply, opened, now)
            except LoggedOut:
                gateway.renewals.start(call.view.tool_session, call.view.generation)
                if call.request.method not in rules.SAFE_METHODS:
                    raise Shown(self._page("resend")) from None
                if attempt == 1:
                    await self._renewed()
        # A fresh login was logged out at once. The renewal just begun is the second within a minute, which the port
        # turns into needs_human(session_flaps).
        await self._alarm("session_flaps")
        return self._page("needs_human", "session_flaps")

    async def _release(self, reply: Reply, opened: Opened, now: float) -> web.StreamResponse:
        """Cookies into the jar, body rules, scan, the second live check, and only then the first byte."""
        call, gateway = self._call, self._gateway
        exchange.take_cookies(call, reply, opened, now)
        headers = exchange.browser_headers(call, reply, opened)
        try:
            await gateway.jars.save(call.view.tool_session, opened)
        except JarConflict:
            raise Shown(self._page("unavailable")) from None
        patterns = opened.guarded(call.recipe)
        body = call.bridge.outwards.apply(reply.body) if reply.complete else reply.body
        if patterns.found_in(exchange.header_bytes(headers)) or patterns.found_in(body):
            raise SecretFound
        await self._fresh()
        if reply.complete:
            return exchange.whole(call, reply, headers, body)
        return await exchange.stream(call, reply, headers, patterns)

    async def _socket(self) -> web.StreamResponse:
        call, gateway = self._call, self._gateway
        if not rules.socket_allowed(call.recipe, call.asked):
            return self._page("socket_denied")
        opened = await gateway.jars.current(call.view.tool_session, call.view.jar_version)
        headers = exchange.outgoing_headers(call, opened, gateway.now())
        headers.popall("Accept-Encoding", None)
        wanted = call.request.headers.get("Sec-WebSocket-Protocol", "")
        protocols = tuple(name.strip() for name in wanted.split(",") if name.strip())
        await gateway.access.before(self._row())
        tool = await gateway.client.ws_connect(
            URL(call.url, encoded=True),
            headers=headers,
            protocols=protocols,
            max_msg_size=MAX_MESSAGE,
            heartbeat=PING_S,
        )
        try:
            await self._fresh()
        except BaseException:
            await tool.close()
            raise
        names = (tool.protocol,) if tool.protocol else ()
        browser = web.WebSocketResponse(protocols=names, max_msg_size=MAX_MESSAGE, heartbeat=PING_S)
        call.started = True
        await browser.prepare(call.request)
        await relay(browser, tool, lambda: opened.guarded(call.recipe), lambda: self._alarm("secret_in_answer"))
        return browser

    async def _leave(self) -> web.StreamResponse:
        """The tool's own logout button: this person leaves, the colleagues stay in."""
        await self._gateway.ports.door.leave(self._call.digest)
        if self._call.request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate":
            answer = web.Response(status=303, headers={"Location": self._gateway.portal})
        else:
            # A script cannot follow us to another origin; it goes on by itself, and its next page leads to the portal.
            answer = web.json_response({})
        pages.guard(answer)
        admit.farewell(answer)
        return answer

    def _to_landing(self) -> web.StreamResponse:
        call = self._call
        if (
            call.request.method not in rules.SAFE_METHODS
            or call.asked.path == urls.parts(call.recipe.routes.landing).path
        ):
            return self._page("route_denied")
        primary = next(iter(call.view.hosts))
        target = f"{self._gateway.settings.origin(primary)}{call.recipe.routes.landing}"
        moved = web.Response(status=303, headers={"Location": target})
        pages.guard(moved)
        return moved

    def _broken(self, code: str) -> web.StreamResponse:
        """A page, or where bytes have left already an end that the browser cannot take for a whole answer."""
        if self._call.started and self._call.request.transport is not None:
            self._call.request.transport.abort()
        return self._page(code, self._call.recipe.title_ja)

    async def _alarm(self, code: str) -> None:
        view = self._call.view
        await self._gateway.ports.trail.alarm(
            code, gateway_session=view.gateway_session, tool_session=view.tool_session, recipe=self._call.recipe.id
        )

    def _row(self) -> AccessRow:
        call = self._call
        return AccessRow(
            call.view.gateway_session, self._gateway.now(), call.request.method, call.asked.path, None, 0, call.rule
        )

    def _page(self, code: str, detail: str = "") -> web.Response:
        return pages.page(code, portal=self._gateway.portal, detail=detail)
