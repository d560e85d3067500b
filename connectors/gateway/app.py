"""`create_gateway(ports, settings, …)`: the order in which every request is judged. Read this first.

host → framing → Sec-Fetch-Site → live check → Origin → route rules → jar → tool → logged-out test → body rules → scan →
live check again → bytes. Nothing of a person's right is cached; what is held open is ended by the sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Final

import aiohttp
from aiohttp import web

from connectors.egress import judge_url, open_client
from connectors.gateway import admit, pages, rules
from connectors.gateway.access import AccessLog
from connectors.gateway.body import Bridge
from connectors.gateway.exchange import Call
from connectors.gateway.jar import JarKeeper
from connectors.gateway.live import LiveCheck, Sweep
from connectors.gateway.passage import Passage
from connectors.gateway.renewals import Renewals
from connectors.gateway.settings import GatewaySettings
from connectors.gateway.sockets import Held
from connectors.ports import AccessRow, GatewayPorts, GatewayView, NewSecret, Now
from connectors.recipes import urls
from connectors.recipes.model import Recipe

log = logging.getLogger(__name__)

MAX_BRIDGES: Final = 10_000


class Gateway:
    """One gateway process."""

    def __init__(self, ports: GatewayPorts, settings: GatewaySettings, *, now: Now, new_secret: NewSecret) -> None:
        self.ports, self.settings, self.now, self.new_secret = ports, settings, now, new_secret
        self.held = Held()
        self.live = LiveCheck(ports.live)
        self.sweep = Sweep(ports, self.held, now, every_s=settings.sweep_s, lease_s=settings.lease_s)
        self.jars = JarKeeper(ports.jars)
        self.renewals = Renewals(ports.door, self.jars, now, wait_s=settings.renew_s)
        self.access = AccessLog(ports.trail)
        self.portal = f"{settings.idp}/tools"
        self._recipes: dict[str, Recipe] = {}
        self._bridges: dict[str, Bridge] = {}
        self._client: aiohttp.ClientSession | None = None

    @property
    def client(self) -> aiohttp.ClientSession:
        """The client to the tools; exists while the application runs."""
        assert self._client is not None, "the gateway is not running"  # noqa: S101 - a mistake of the program
        return self._client

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """aiohttp's clean-up context: the client, the sweep and the access log live as long as the application."""
        self._client = open_client(loopback=self.settings.loopback, total_s=None, own_headers=False)
        await self.sweep.once()
        tasks = [asyncio.create_task(self.sweep.run()), asyncio.create_task(self.access.run())]
        yield
        self.held.end_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request of every origin."""
        refused = self._framing(request)
        if refused is not None:
            return refused
        host = request.headers.get("Host", "").lower()
        if request.rel_url.raw_path.startswith(admit.PREFIX):
            return await self._guarded(
                admit.answer(request, host, door=self.ports.door, settings=self.settings, new_secret=self.new_secret)
            )
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            return self._page("cross_site")
        if request.headers.get("Service-Worker") == "script":
            return self._page("worker_refused")
        return await self._guarded(self._for_session(request, host))

    async def _guarded(self, work: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """A port that fails means no: without an answer of the database nothing is admitted and nothing released."""
        try:
            return await work
        except (web.HTTPException, asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - fail closed; its name is enough, its text may hold data
            log.error("gateway request failed: %s", type(error).__name__)  # noqa: TRY400
            return self._page("unavailable")

    def _framing(self, request: web.Request) -> web.Response | None:
        """What no tool may be asked, whoever asks (VA-57)."""
        headers = request.headers
        hosts = headers.getall("Host", ())
        if len(hosts) != 1 or not self.settings.is_ours(hosts[0].lower()):
            return self._page("misdirected")
        if request.method not in rules.METHODS:
            return self._page("method")
        if (
            len(headers) > rules.MAX_HEADERS
            or sum(map(len, headers)) + sum(map(len, headers.values())) > rules.MAX_HEADER_BYTES
        ):
            return self._page("headers")
        if "Content-Length" in headers and "Transfer-Encoding" in headers:
            return self._page("bad_request")
        if not request.raw_path.startswith("/"):
            return self._page("bad_request")
        return None

    async def _for_session(self, request: web.Request, host: str) -> web.StreamResponse:
        cookies = request.cookies
        cookie = cookies.get(admit.COOKIE, "")
        if not cookie:
            return self._nobody(request)
        digest = admit.digest_of(cookie)
        began = self.now()
        if not self.sweep.holds_lease:
            return self._page("unavailable")
        late = request.body_exists and not request.content.is_eof()
        view = await self.live.check(digest)
        if view is None:
            return self.ended()
        if view.host != host:
            return self._nobody(request)
        if not self._origin_fits(request, view, host):
            return self._page("cross_site")
        call = await self._call(request, digest, view, cookies)
        if isinstance(call, web.Response):
            return call
        call.late = late
        try:
            return await self._held(call)
        finally:
            row = AccessRow(
                view.gateway_session, began, request.method, call.asked.path, call.status, call.sent_bytes, call.rule
            )
            self.access.add(row)

    async def _held(self, call: Call) -> web.StreamResponse:
        """Serve a call that a cut can stop at any point, also while its form is still on the way.

        The cut cancels the task that aiohttp made for this request, and takes the cancellation back once it has arrived.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is a task's
        entry = self.held.hold(call.digest, task.cancel)
        try:
            answer = await Passage(self, call).serve()
        except asyncio.CancelledError:
            if not entry.was_cut or task.uncancel():  # the browser left, or the process stops
                raise
            answer = self._cut(call)
        else:
            if entry.was_cut:
                task.uncancel()  # it was on its way out
                answer = answer if call.started else self._cut(call)
        finally:
            self.held.let_go(entry)
        call.status = answer.status
        return answer

    def _cut(self, call: Call) -> web.Response:
        """The session ended while the call was under way: a page, or where bytes have left already a broken end."""
        call.rule = "cut"
        answer = self.ended()
        answer.force_close()
        if call.started and call.request.transport is not None:
            call.request.transport.abort()
        return answer

    def _nobody(self, request: web.Request) -> web.Response:
        navigates = request.method == "GET" and request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        if not navigates:
            return self._page("ended")
        moved = web.Response(status=303, headers={"Location": self.portal})
        pages.guard(moved)
        return moved

    def _origin_fits(self, request: web.Request, view: GatewayView, host: str) -> bool:
        """Requests that change something, and sub-resources, come from an origin of the same gateway session.

        All origins of this gateway share a site, so `Sec-Fetch-Site` alone would let one tool's page use another's.
        """
        origin = request.headers.get("Origin")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return origin == self.settings.origin(host)
        if request.method not in rules.SAFE_METHODS:
            site = request.headers.get("Sec-Fetch-Site")
            return self._is_of(origin, view) if origin is not None else site == "same-origin"
        if origin is not None and not self._is_of(origin, view):
            return False
        same_site = request.headers.get("Sec-Fetch-Site") == "same-site"
        if same_site and request.headers.get("Sec-Fetch-Mode") != "navigate":
            referer = urls.parts(request.headers.get("Referer", ""))
            return self._is_of(f"{referer.scheme}://{referer.netloc}", view)
        return True

    def _is_of(self, origin: str, view: GatewayView) -> bool:
        return any(origin == self.settings.origin(name) for name in view.hosts)

    async def _call(
        self, request: web.Request, digest: bytes, view: GatewayView, cookies: Mapping[str, str]
    ) -> Call | web.Response:
        recipe = self._recipes.get(view.recipe_key)
        if recipe is None:
            recipe = self._recipes[view.recipe_key] = await self.ports.recipes.recipe(view.recipe_key)
        bridge = self._bridges.get(view.gateway_session)
        if bridge is None:
            if len(self._bridges) >= MAX_BRIDGES:
                self._bridges.clear()
            bridge = self._bridges[view.gateway_session] = Bridge(
                view.hosts, our_scheme=self.settings.scheme, tool_scheme=urls.parts(recipe.login.url).scheme
            )
        url = bridge.tool_url(view.host, request.raw_path)
        judge_url(url, recipe.hosts.declared, loopback=self.settings.loopback)
        raw_path, _, query = request.raw_path.partition("?")
        try:
            path = rules.normal_path(raw_path, recipe.charset)
        except rules.BadPath:
            return self._page("bad_request")
        asked = rules.Asked(request.method, path, rules.pairs_of(query, recipe.charset))
        return Call(request, digest, view, recipe, bridge, asked, url, cookies, rules.cacheable(recipe, asked))

    def ended(self) -> web.Response:
        """The page after a cut, which also forgets this origin in the browser."""
        answer = self._page("ended")
        admit.farewell(answer)
        return answer

    def _page(self, code: str, detail: str = "") -> web.Response:
        return pages.page(code, portal=self.portal, detail=detail)


def create_gateway(
    ports: GatewayPorts, settings: GatewaySettings, *, now: Now, new_secret: NewSecret
) -> web.Application:
    """A gateway that is ready to serve. now: seconds since 1970; new_secret: 256 random bits as text.

    Run it with `serving()`: other options of aiohttp's runner change what is promised here.
    """
    gateway = Gateway(ports, settings, now=now, new_secret=new_secret)
    app = web.Application()
    app.cleanup_ctx.append(gateway.running)
    app.on_response_prepare.append(_unnamed)
    app.router.add_route("*", "/{anything:(?s:.*)}", gateway.handle)  # with line ends, or `%0a` would get past us
    return app


async def _unnamed(_request: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["Server"] = "sekisho"


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, *, bound: socket.socket | None = None
) -> AsyncIterator[int]:
    """Serve on loopback behind a TLS edge; yields the port. Request bodies are passed on as they are, not inflated.

    bound: a socket to serve on instead, for who has to know the port before there is an application.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        max_line_size=16 * 1024,
        max_field_size=16 * 1024,
        max_headers=2 * rules.MAX_HEADERS,
        handler_cancellation=True,
        shutdown_timeout=2.0,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port) if bound is None else web.SockSite(runner, bound)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
