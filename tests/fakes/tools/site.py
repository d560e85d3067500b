"""One small tool on loopback with every habit that tools have; a test switches on the ones it is about.

The numbers are those of vault-and-gateway.md §11. It keeps its own sessions and records every request, so that a test can
say what reached the tool and what did not.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import WSMsgType, encode_basic_auth, web

SESSION = "tool_sess"
CSRF = "csrf_token"


@dataclass(frozen=True)
class Hit:
    """One request as it arrived at the tool."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    known: bool


@dataclass
class Site:
    """The tool. credentials: field name → value as the login form posts them."""

    credentials: dict[str, str]
    charset: str = "utf-8"
    two_pages: bool = False  # 3
    csrf: bool = True  # 2, 6
    expired_as_200: bool = False  # 11
    basic: bool = False  # 14
    lock_after: int | None = None  # 15
    asks_code: bool = False  # 7
    captcha: bool = False
    renamed: bool = False  # 18
    action: str | None = None
    extra_password_field: bool = False
    twin_field: bool = False
    lets_everybody_in: bool = False
    down: bool = False
    login_delay: float = 0.0
    other_host: str = ""  # 8
    service_worker: bool = False  # 9
    scripted: bool = False  # the form is made by a script, and the login is a fetch
    calls_home: str = ""  # an address that the login page's script tries to reach
    changing: str = ""  # 16: dies_after, keeps_old, truncates, rule
    change_ends_sessions: bool = False
    accepts_any_known: bool = False  # every password that it ever had still logs in
    deaf: bool = False  # its logout does nothing
    early_session: bool = False  # the session of its login page becomes the login
    lost: list[str] = field(default_factory=list)  # "POST /login": it is done, and its answer is lost, once for each

    sessions: dict[str, str] = field(default_factory=dict)
    unheard: list[str] = field(default_factory=list)  # as `lost`, and it was not done
    hits: list[Hit] = field(default_factory=list)
    failures: int = 0
    locked: bool = False
    had: list[str] = field(default_factory=list)
    logins: int = 0
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    closed_with: list[int | None] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    upload_pieces: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    host: str = ""
    forms: dict[str, str] = field(default_factory=dict)

    # --- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self) -> tuple[str, str]:
        """A login: the session id and its CSRF token."""
        session, token = secrets.token_hex(16), secrets.token_hex(8)
        self.sessions[session] = token
        self.logins += 1
        return session, token

    def forget_sessions(self) -> None:
        """Everybody is logged out by the tool."""
        self.sessions.clear()

    def known(self, request: web.Request) -> bool:
        """Whether the request carries a session of ours."""
        if self.basic:
            user, password = list(self.credentials.values())[:2]
            return request.headers.get("Authorization") == encode_basic_auth(user, password)
        return self.lets_everybody_in or request.cookies.get(SESSION, "") in self.sessions

    def paths(self) -> list[str]:
        """Method and path of every request, in order."""
        return [f"{hit.method} {hit.path}" for hit in self.hits]

    # --- serving -----------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        streams = path == "/upload-slow"
        body = b"" if streams else await request.read()
        self.hits.append(Hit(request.method, request.raw_path, dict(request.headers), body, self.known(request)))
        self.reached.set()
        if self.down:
            return web.Response(status=500, text="down")
        here = f"{request.method} {path}"
        if here in self.unheard:
            self.unheard.remove(here)
            return web.Response(status=503, text="not now")
        if here in self.lost:
            self.lost.remove(here)
            await self._answer(request, path, body)  # what it did is done
            return web.Response(status=502, text="the answer was lost")
        return await self._answer(request, path, body)

    async def _answer(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        if path.startswith("/login"):
            return await self._login(request, body)
        if not self.known(request):
            return self._logged_out()
        name = "do_" + path.strip("/").replace("-", "_").replace("/", "_").replace(".", "_")
        handler = getattr(self, name, None)
        if handler is None:
            return web.Response(status=404, text="no such page", content_type="text/html")
        answer = await handler(request, body)
        assert isinstance(answer, web.StreamResponse)
        return answer

    def _logged_out(self) -> web.Response:
        if self.basic:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="tool"'})
        if self.expired_as_200:
            return self.page("<p>ログインしてください</p>", cookie=f"{SESSION}=; Max-Age=0; Path=/")
        return web.Response(status=302, headers={"Location": "/login?next=/home"})

    def page(self, inner: str, *, status: int = 200, cookie: str | None = None, **headers: str) -> web.Response:
        body = f"<!doctype html><html><body>{inner}</body></html>".encode(self.charset, "xmlcharrefreplace")
        answer = web.Response(
            status=status, body=body, headers={"Content-Type": f"text/html; charset={self.charset}", **headers}
        )
        if cookie:
            answer.headers.add("Set-Cookie", cookie)
        return answer

    # --- the login ---------------------------------------------------------------------------------------------------

    async def _login(self, request: web.Request, body: bytes) -> web.Response:
        if self.login_delay:
            await asyncio.sleep(self.login_delay)
        if request.method == "GET":
            guest = f"{SESSION}={secrets.token_hex(16)}; Path=/; HttpOnly" if self.early_session else None
            return self.page(self._scripted() if self.scripted else self._form(second=False), cookie=guest)
        form = {
            k: v[0] for k, v in parse_qs(body.decode("ascii"), encoding=self.charset, keep_blank_values=True).items()
        }
        self.forms = form
        if self.csrf and form.get("__VIEWSTATE") != "vs-1":
            return self.page("<p>不正な送信です</p>", status=400)
        if self.two_pages and "password" not in form:
            return self.page(self._form(second=True))
        wanted = dict(list(self.credentials.items())[1:]) if self.two_pages else self.credentials
        known = self.accepts_any_known and form.get("password") in self.had
        if self.locked or (not known and any(form.get(name) != value for name, value in wanted.items())):
            self.failures += 1
            self.locked = self.locked or (self.lock_after is not None and self.failures >= self.lock_after)
            note = "アカウントがロックされています" if self.locked else "IDかパスワードが違います"
            return self.page(f"<p>{note}</p><p>ログインしてください</p>{self._form(second=False)}")
        self.failures = 0
        if self.asks_code:
            return self.page(
                '<form action="/login" method="post"><label>確認コード<input name=code autocomplete="one-time-code"></label></form>'
            )
        session, token = self.open_session()
        if self.early_session and (guest := request.cookies.get(SESSION)):
            self.sessions[guest], session = self.sessions.pop(session), guest
        answer = web.Response(status=302, headers={"Location": "/home"})
        answer.headers.add("Set-Cookie", f"{SESSION}={session}; Path=/; HttpOnly")
        answer.headers.add("Set-Cookie", f"{CSRF}={token}; Path=/")
        return answer

    def _form(self, *, second: bool) -> str:
        names = list(self.credentials)
        shown = names[1:] if second else (names[:1] if self.two_pages else names)
        rows = []
        for name in shown:
            kind = "password" if name == "password" else "text"
            auto = "current-password" if name == "password" else "off"
            posted = f"x{name}" if self.renamed else name
            label = (
                ""
                if self.renamed
                else {"corp_cd": "企業コード", "login_id": "ログインＩＤ", "password": "パスワード"}.get(name, name)
            )
            rows.append(
                f'<p><label for="f_{name}">{label}</label><input id="f_{name}" name="{posted}" type="{kind}" autocomplete="{auto}"></p>'
            )
            if self.twin_field and name != "password":
                rows.append(
                    f'<p><label for="g_{name}">{label}</label><input id="g_{name}" name="{posted}" type="{kind}"></p>'
                )
        if self.extra_password_field:
            rows.append('<input type="password" name="password2">')
        rows.append('<input type="text" name="website" style="display:none" value="">')
        if self.captcha:
            rows.append('<div class="g-recaptcha" data-sitekey="x"></div>')
        hidden = '<input type="hidden" name="__VIEWSTATE" value="vs-1">' if self.csrf else ""
        action = self.action or "/login"
        return (
            f'<form id="login" method="post" action="{action}">{hidden}{"".join(rows)}'
            '<button type="submit" name="go" value="1">ログイン</button></form>'
        )

    def _scripted(self) -> str:
        """A page whose script makes the form a moment later and logs in by `fetch`."""
        form = json.dumps(self._form(second=False))
        away = f"fetch({json.dumps(self.calls_home)}).catch(() => 0);" if self.calls_home else ""
        return f"""<div id="root">…</div><script>
setTimeout(() => {{
  {away}
  document.getElementById("root").innerHTML = {form};
  document.getElementById("login").addEventListener("submit", async event => {{
    event.preventDefault();
    const answer = await fetch("/login", {{method: "POST", body: new URLSearchParams(new FormData(event.target))}});
    if (answer.url.endsWith("/home")) location.href = "/home";
    else document.getElementById("root").innerHTML = await answer.text();
  }});
}}, 50);
</script>"""

    # --- pages inside ------------------------------------------------------------------------------------------------

    async def do_home(self, request: web.Request, body: bytes) -> web.Response:
        other = f'<a href="http://{self.other_host}/home">API</a>' if self.other_host else ""
        return self.page(
            f'<p data-staff-name>田中 さん 髙橋①</p><a href="http://{self.host}/form">form</a>{other}'
            f'<script>var u="http:\\/\\/{self.host}\\/api";var evil="http://{self.host}.evil.example/";</script>'
            f'<a href="/go?to=http%3A%2F%2F{self.host.replace(":", "%3A")}%2Fhome">go</a>',
            **{"Content-Security-Policy": f"default-src 'self' http://{self.host}; report-uri /r", "ETag": '"1"',
               "Strict-Transport-Security": "max-age=1", "Server": "tool/1"},
        )  # fmt: skip

    async def do_headers(self, request: web.Request, body: bytes) -> web.Response:
        return web.json_response(
            {k.lower(): v for k, v in request.headers.items() if k.lower() not in {"cookie", "authorization"}}
        )

    async def do_form(self, request: web.Request, body: bytes) -> web.Response:
        token = self.sessions.get(request.cookies.get(SESSION, ""))
        if self.csrf and request.headers.get("X-CSRF") != token:
            return self.page("<p>CSRF</p>", status=403)
        return self.page(f"<p>saved {html.escape(body.decode(self.charset, 'replace'))}</p>")

    async def do_leak(self, request: web.Request, body: bytes) -> web.Response:
        return self.page(f'<input value="{html.escape(self.credentials["password"])}">')

    async def do_leak_json(self, request: web.Request, body: bytes) -> web.Response:
        return web.json_response({"you": self.credentials["password"]})

    async def do_leak_stream(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await answer.prepare(request)
        await answer.write(b"x" * 5000)
        secret = self.credentials["password"].encode()
        await answer.write(secret[:5])
        await asyncio.sleep(0.02)
        await answer.write(secret[5:] + b"y" * 5000)
        return answer

    async def do_leak_header(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response(text="x", headers={"X-Debug": request.cookies[SESSION]})

    async def do_set(self, request: web.Request, body: bytes) -> web.Response:
        answer = self.page("<p>set</p>")
        for pair in request.query.getall("c", []):
            answer.headers.add("Set-Cookie", pair)
        return answer

    async def do_go(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def do_list_csv(self, request: web.Request, body: bytes) -> web.Response:
        data = "店舗,氏名\r\n渋谷,髙橋①\r\n".encode("cp932")
        return web.Response(
            body=data, headers={"Content-Type": "text/csv", "Content-Disposition": "attachment; filename=list.csv"}
        )

    async def do_upload(self, request: web.Request, body: bytes) -> web.Response:
        self.uploads.append(body)
        return web.json_response({"bytes": len(body), "length": request.headers.get("Content-Length")})

    async def do_upload_slow(self, request: web.Request, body: bytes) -> web.Response:
        try:
            async for _ in request.content.iter_any():
                self.upload_pieces += 1
        except Exception:
            self.closed_with.append(None)
            raise
        return web.json_response({"pieces": self.upload_pieces})

    async def do_slow(self, request: web.Request, body: bytes) -> web.Response:
        await self.gate.wait()
        return self.page("<p>slow secret report</p>", cookie=request.query.get("c"))

    async def do_half(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/html"})
        await answer.prepare(request)
        await answer.write(b"<p>the other half")
        await self.gate.wait()
        return answer

    async def do_events(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for number in range(1000):
                await answer.write(f"data: {number}\n\n".encode())
                await asyncio.sleep(0.02)
        return answer

    async def do_live(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if "wait" in request.query:
            await self.gate.wait()
        socket = web.WebSocketResponse(protocols=("v1",))
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT and message.data == "leak":
                await socket.send_str(json.dumps({"p": self.credentials["password"]}))
            elif message.type is WSMsgType.TEXT:
                await socket.send_str("tool:" + message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        self.closed_with.append(socket.close_code)
        return socket

    async def do_account_password(self, request: web.Request, body: bytes) -> web.Response:
        form = {k: v[0] for k, v in parse_qs(body.decode("ascii"), encoding=self.charset).items()}
        fields = "".join(f'<input type="password" name="{name}">' for name in ("old_pw", "new_pw", "new_pw2"))
        shown = f'<form method="post" action="/account/password">{fields}<button>変更する</button></form>'
        if request.method == "GET":
            return self.page(shown)
        new = form.get("new_pw", "")
        if form.get("old_pw") != self.credentials["password"] or new != form.get("new_pw2") or self.changing == "rule":
            return self.page(f"<p>使えない文字があります</p>{shown}")
        self.had.append(self.credentials["password"])
        if self.changing != "keeps_old":
            self.credentials["password"] = new[:16] if self.changing == "truncates" else new
        if self.change_ends_sessions:
            self.forget_sessions()
        if self.changing == "dies_after":
            return web.Response(status=500, text="oops")
        return self.page("<p>パスワードを変更しました</p>")

    async def do_static_a_css(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response(text="p{}", content_type="text/css", headers={"Cache-Control": "public"})

    async def do_brotli(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response(body=b"\x00", headers={"Content-Type": "text/html", "Content-Encoding": "br"})

    async def do_part(self, request: web.Request, body: bytes) -> web.Response:
        return self.page(self.credentials["password"][:5], status=206, **{"Content-Range": "bytes 0-9/100"})

    async def do_logout(self, request: web.Request, body: bytes) -> web.Response:
        if not self.deaf:
            self.sessions.pop(request.cookies.get(SESSION, ""), None)
        return web.Response(status=302, headers={"Location": "/login"})

    async def do_home2(self, request: web.Request, body: bytes) -> web.Response:
        return await self.do_home(request, body)


@contextlib.asynccontextmanager
async def running(site: Site, *, name: str = "localhost") -> AsyncIterator[Site]:
    """Serve the tool on a free port of loopback; `site.host` says where."""
    app = web.Application(client_max_size=200 * 1024 * 1024)
    app.router.add_route("*", "/{anything:.*}", site.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.host = f"{name}:{runner.addresses[0][1]}"
        yield site
    finally:
        site.gate.set()
        for socket in site.sockets:
            await socket.close()
        await runner.cleanup()


def recipe_text(site: Site, **changes: Any) -> bytes:
    """A recipe for the tool as it stands; `changes` replaces pieces of the text."""
    origin = f"http://{site.host}"
    labels = {"corp_cd": "企業コード", "login_id": "ログインID", "password": "パスワード"}
    fields = "\n".join(
        f"  {n}: {{label: {labels[n]}, secret: {'true' if n == 'password' else 'false'}}}" for n in site.credentials
    )
    fills = [
        f"    - fill: {{field: {n}, by: [{'{type: password}' if n == 'password' else '{label: ' + labels[n] + '}'}]}}"
        for n in site.credentials
    ]
    if site.basic:
        fills = [f"    - open: {{url: {origin}/home}}"]
    submit = "    - submit: {by: [{role: button, name: ログイン}]}"
    steps = fills if site.basic else [fills[0], submit, *fills[1:], submit] if site.two_pages else [*fills, submit]
    basic = "  basic_auth: {user: login_id, password: password}\n" if site.basic else ""
    also = f'  also: ["{site.other_host}"]\n' if site.other_host else ""
    text = f"""\
recipe: 1
id: shift-note
version: 1
title: {{ja: シフトノート, en: Shift Note}}
terms: {{url: "{origin}/terms", read_on: 2026-11-01, shared_account: allowed, automation: allowed}}
hosts:
  primary: "{site.host}"
{also}charset: {site.charset}
fields:
{fields}
login:
  driver: http
  url: {origin}/login
  steps:
{chr(10).join(steps)}
{basic}  timeout_s: 5
  attempts: {{max: 2, window_minutes: 30}}
checks:
  probe: {origin}/home
  logged_in: {{all: [{{css: "[data-staff-name]"}}]}}
  logged_out: {{any: [{{url: "{origin}/login*"}}, {{text: ログインしてください}}, {{status: 401}}]}}
session:
  sharing: shared
  limits: {{idle_minutes: 30, max_hours: 12}}
  logout: {{method: POST, url: "{origin}/logout"}}
  cookies: {{mirror: [{CSRF}], from_client: [theme], device: [seen_before]}}
routes:
  landing: /home
  logout: ["/logout"]
  deny: {{password: ["/account/password/**"], email: ["/account/mail/**"], users: ["POST /staff/**"],
         keys: absent, billing: ["/index.php?act=plan"]}}
  cacheable: ["/static/**"]
  websocket: ["/live"]
  upload_max_mb: 2
password:
  rules: "minlength: 8; maxlength: 24; required: lower; required: upper; required: digit;"
  history: 3
  change:
    url: {origin}/account/password
    steps:
      - fill: {{field: password, by: [{{name: old_pw}}]}}
      - fill: {{field: password.new, by: [{{name: new_pw}}]}}
      - fill: {{field: password.new, by: [{{name: new_pw2}}]}}
      - submit: {{by: [{{role: button, name: 変更する}}]}}
    success: {{any: [{{text: パスワードを変更しました}}]}}
"""
    for old, new in changes.pop("replace", {}).items():
        assert old in text, old
        text = text.replace(old, new)
    return text.encode()
