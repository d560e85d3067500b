"""Tools whose scripts do the work: 5 (a token in localStorage), 6 (a CSRF header that changes), 9 (strict policies), 13 (a host guard)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.tools.site import CSRF, SESSION, Site, recipe_text

#: what a person reads; long enough for two looks to be compared
DAY = (
    "<p data-staff-name>田中 さん</p><ul>"
    + "".join(f"<li>{n} 時 の 当番 は {n} 人</li>" for n in range(9, 18))
    + "</ul>"
)


def jwt(subject: str) -> str:
    """A token in the shape of a JWT. Its signature is a random number: only the tool that made it knows it."""
    parts = (json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": subject}))
    head = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    return f"{head}.{secrets.token_urlsafe(32)}"


@dataclass
class SinglePage(Site):
    """5: the login is a token that a script keeps in localStorage; `also_cookie` sets a session as well, and hands the token out."""

    also_cookie: bool = False
    issued: set[str] = field(default_factory=set)

    def known(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return (scheme == "Bearer" and token in self.issued) or super().known(request)

    async def _login(self, request: web.Request, body: bytes) -> web.Response:
        if request.method == "GET":
            return self.page(self._shell())
        form = json.loads(body)
        if any(form.get(name) != value for name, value in self.credentials.items()):
            return web.json_response({"error": "refused"}, status=403)
        token = jwt(form["login_id"])
        self.issued.add(token)
        answer = web.json_response({"token": token})
        if self.also_cookie:
            session, _ = self.open_session()
            answer.headers.add("Set-Cookie", f"{SESSION}={session}; Path=/; HttpOnly")
        return answer

    def _logged_out(self) -> web.Response:
        return web.json_response({"error": "login"}, status=401)

    async def do_api_me(self, request: web.Request, body: bytes) -> web.Response:
        return web.json_response({"name": "田中"})

    async def do_home(self, request: web.Request, body: bytes) -> web.Response:
        return self.page(DAY + "<script>fetch('/api/token').then(r => r.json()).then(j => fetch('/api/me', {headers: {Authorization: 'Bearer ' + j.token}}))</script>")  # fmt: skip

    async def do_api_token(self, request: web.Request, body: bytes) -> web.Response:
        token = jwt("store-7")
        self.issued.add(token)
        return web.json_response({"token": token})

    def _shell(self) -> str:
        return """<div id="root">…</div><script>
const root = document.getElementById("root");
async function show() {
  const me = await fetch("/api/me", {headers: {Authorization: "Bearer " + localStorage.getItem("jwt")}});
  if (me.ok) root.textContent = (await me.json()).name + " さん";
  else {
    root.innerHTML = '<form><label>ログインID<input name=login_id></label><label>パスワード<input name=password type=password></label><button>ログイン</button></form>';
    root.firstChild.addEventListener("submit", async event => {
      event.preventDefault();
      const answer = await fetch("/login", {method: "POST", body: JSON.stringify(Object.fromEntries(new FormData(event.target)))});
      if (answer.ok) { localStorage.setItem("jwt", (await answer.json()).token); show(); }
    });
  }
}
show();
</script>"""

    def recipe(self, **changes: Any) -> bytes:
        """Its probe is its interface: the page is the same for everybody."""
        origin = f"http://{self.host}"
        return recipe_text(
            self,
            replace={
                "driver: http": "driver: browser",
                "timeout_s: 5": "timeout_s: 30",
                f"probe: {origin}/home": f"probe: {origin}/api/me",
                '{all: [{css: "[data-staff-name]"}]}': "{all: [{status: 200}]}",
                f'{{any: [{{url: "{origin}/login*"}}, {{text: ログインしてください}}, {{status: 401}}]}}': "{any: [{status: 401}]}",
                '  websocket: ["/live"]\n': "",
                **changes,
            },
        )


@dataclass
class Rotating(Site):
    """6: every write wants a header whose value the last answer gave, and an account has one session."""

    next_token: str = ""
    writes: int = 0

    def open_session(self) -> tuple[str, str]:
        self.sessions.clear()
        self.next_token = secrets.token_urlsafe(24)
        return super().open_session()

    async def do_home(self, request: web.Request, body: bytes) -> web.Response:
        return self.page(
            f'{DAY}<meta name="csrf" content="{self.next_token}"><p id="state">…</p><script src="/static/work.js"></script>'
        )

    async def do_static_work_js(self, request: web.Request, body: bytes) -> web.Response:
        script = """(async () => {
  let token = document.querySelector("meta[name=csrf]").content;
  for (let i = 0; i < 3; i++) {
    const answer = await fetch("/api/write", {method: "POST", headers: {"X-CSRF-Token": token}, body: "{}"});
    if (!answer.ok) { document.getElementById("state").textContent = "refused"; return; }
    token = (await answer.json()).next;
  }
  document.getElementById("state").textContent = "3 回 書きました";
})();"""
        return web.Response(text=script, content_type="text/javascript")

    async def do_api_write(self, request: web.Request, body: bytes) -> web.Response:
        if request.headers.get("X-CSRF-Token") != self.next_token:
            return web.json_response({"error": "csrf"}, status=403)
        self.next_token = secrets.token_urlsafe(24)
        self.writes += 1
        return web.json_response({"next": self.next_token})


@dataclass
class Strict(Site):
    """9: a policy without exceptions, a script bound by its digest, a service worker. `names_itself`: the script holds its own address."""

    names_itself: bool = False

    def _script(self) -> bytes:
        own = f"// http://{self.host}/home\n" if self.names_itself else ""
        return f"""{own}document.getElementById("state").textContent = "スクリプト は 動いて います 今日 も 一日 よろしく";
fetch("/headers").then(r => document.getElementById("net").textContent = r.ok ? "通信 も できます" : "通信 できません");
navigator.serviceWorker?.register("/sw.js").then(
  () => document.getElementById("worker").textContent = "登録 済み", () => 0);
""".encode()

    async def do_home(self, request: web.Request, body: bytes) -> web.Response:
        digest = base64.b64encode(hashlib.sha384(self._script()).digest()).decode()
        return self.page(
            f'{DAY}<p id="state">…</p><p id="net"></p><p id="worker"></p><script src="/static/app.js" integrity="sha384-{digest}"></script>',
            **{"Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'"},
        )  # fmt: skip

    async def do_static_app_js(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response(body=self._script(), content_type="text/javascript")

    async def do_sw_js(self, request: web.Request, body: bytes) -> web.Response:
        return web.Response(text="self.addEventListener('fetch', () => 0)", content_type="text/javascript")


@dataclass
class Guarded(Site):
    """13: the page looks at its own name. how: `leave` goes to where it should be, `blank` shows nothing."""

    how: str = "leave"

    async def do_home(self, request: web.Request, body: bytes) -> web.Response:
        name, _, port = self.host.partition(":")
        away = f"location.replace(['http:', '', '{name}' + ':' + '{port}', 'home'].join('/'))"
        act = away if self.how == "leave" else "document.body.textContent = 'この アドレス では 使えません'"
        return self.page(f"{DAY}<script>if (location.hostname !== '{name}') {act};</script>")


__all__ = ["CSRF", "Guarded", "Rotating", "SinglePage", "Strict"]
