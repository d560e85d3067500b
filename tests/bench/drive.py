"""The load: relying parties and browsers on keep-alive connections, from processes of their own on the other core.

The client is a socket and a few lines of parsing, so that the figures are the server's. What it checks is the status of each
answer: a benchmark of refusals would be fast.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from tests.bench import machine

TOKEN = re.compile(rb'name="csrf_token"[^>]*value="([^"]+)"')
ONCE = re.compile(rb'name="once"[^>]*value="([^"]+)"')
FORM = "application/x-www-form-urlencoded"


def authn_request(party: str) -> str:
    """The query of a fresh AuthnRequest in the Redirect binding. party: the service provider's entityID."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    request = (
        f'<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_{secrets.token_hex(16)}" Version="2.0" '
        f'IssueInstant="{moment}"><saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">{party}</saml:Issuer></samlp:AuthnRequest>'
    ).encode()
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return urlencode({"SAMLRequest": base64.b64encode(engine.compress(request) + engine.flush()).decode()})


@dataclass(frozen=True)
class Answer:
    """Status, header block and body of one answer."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """The first header of this name, or an empty text."""
        found = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*([^\r]*)", self.head)
        return found.group(1).decode("latin-1") if found else ""

    def cookies(self) -> dict[str, str]:
        """The cookies that it sets."""
        lines = re.findall(rb"(?im)^set-cookie:[ \t]*([^=]+)=([^;\r]*)", self.head)
        return {name.decode(): value.decode() for name, value in lines}


class Http:
    """One keep-alive connection to the server. HTTP/1.1 with Content-Length, which is all that we send."""

    def __init__(self, port: int, host: str) -> None:
        self._port = port
        self._host = host
        self._socket: socket.socket | None = None

    def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> Answer:
        """One request. Raises OSError when the connection breaks."""
        body = urlencode(form).encode() if form is not None else b""
        head = {"Host": self._host, **(headers or {})}
        if form is not None:
            head |= {"Content-Type": FORM, "Content-Length": str(len(body))}
        text = "".join(f"{k}: {v}\r\n" for k, v in head.items())
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + body)
        return self._read(self._socket)

    def _read(self, conn: socket.socket) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(conn)
        head, _, body = data.partition(b"\r\n\r\n")
        answer = Answer(int(head.split(b" ", 2)[1]), head, b"")
        length = int(answer.header("content-length") or 0)
        parts = [body]
        have = len(body)
        while have < length:
            parts.append(self._more(conn))
            have += len(parts[-1])
        if answer.header("connection").lower() == "close":
            self.close()
        return Answer(answer.status, head, b"".join(parts))

    @staticmethod
    def _more(conn: socket.socket) -> bytes:
        data = conn.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection before its answer was complete")
        return data

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass
class Actor:
    """One person's browser and the relying parties they use, on one connection each."""

    plan: dict[str, Any]
    login_id: str
    http: Http = field(init=False)
    cookie: str = ""
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = Http(self.plan["port"], self.plan["host"])

    def expect(self, status: int, answer: Answer) -> Answer:
        """The answer, when it has this status."""
        if answer.status != status:
            raise RuntimeError(f"expected {status}, got {answer.status}: {answer.head[:300]!r} {answer.body[:300]!r}")
        return answer

    # --- operations ------------------------------------------------------------------------------------------------

    def floor(self) -> None:
        """A request that needs nothing: what Flask and our guards cost."""
        self.expect(200, self.http.call("GET", "/healthz"))

    def discovery(self) -> None:
        """The discovery document."""
        self.expect(200, self.http.call("GET", "/.well-known/openid-configuration"))

    def jwks(self) -> None:
        """The key set."""
        self.expect(200, self.http.call("GET", "/oidc/jwks"))

    def login_page(self) -> None:
        """The login form."""
        self.expect(200, self.http.call("GET", "/login"))

    def form(self, path: str) -> tuple[dict[str, str], dict[str, str]]:
        """Hidden fields of a form page and the headers with which a browser sends it."""
        cookie = f"sekisho={self.cookie}" if self.cookie else ""
        page = self.expect(200, self.http.call("GET", path, headers={"Cookie": cookie} if cookie else {}))
        fields = {}
        for name, pattern in (("csrf_token", TOKEN), ("once", ONCE)):
            if found := pattern.search(page.body):
                fields[name] = found.group(1).decode()
        jar = "; ".join(filter(None, [cookie, *(f"{k}={v}" for k, v in page.cookies().items())]))
        return fields, {"Cookie": jar, "Sec-Fetch-Site": "same-origin"}

    def login(self) -> None:
        """Page, form, password: a new login session."""
        self.cookie = ""
        fields, headers = self.form("/login")
        data = {**fields, "login_id": self.login_id, "password": self.plan["password"], "request": "", "next": ""}
        answer = self.expect(303, self.http.call("POST", "/login", headers=headers, form=data))
        self.cookie = answer.cookies()["sekisho"]

    def code_flow(self, client: str = "web") -> None:
        """Authorize inside the login session, then redeem the code."""
        party = self.plan["clients"][client]
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode({
            "response_type": "code", "client_id": party["id"], "redirect_uri": party["redirect"], "scope": "openid profile",
            "state": "s", "nonce": "n", "code_challenge": challenge, "code_challenge_method": "S256",
        })  # fmt: skip
        went = self.expect(
            303, self.http.call("GET", f"/oidc/authorize?{query}", headers={"Cookie": f"sekisho={self.cookie}"})
        )
        found = parse_qs(urlsplit(went.header("location")).query)
        if "code" not in found:
            raise RuntimeError(f"no code: {went.header('location')}")
        form = {
            "grant_type": "authorization_code",
            "code": found["code"][0],
            "redirect_uri": party["redirect"],
            "code_verifier": verifier,
        }
        self._token(client, form)

    def _token(self, client: str, form: dict[str, str]) -> None:
        party = self.plan["clients"][client]
        headers = {}
        if party["secret"]:
            pair = base64.b64encode(f"{quote(party['id'])}:{quote(party['secret'])}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        else:
            form = {**form, "client_id": party["id"]}
        answer = self.expect(200, self.http.call("POST", "/oidc/token", headers=headers, form=form))
        self.tokens[client] = {
            name: re.search(rb'"' + name.encode() + rb'": ?"([^"]+)"', answer.body).group(1).decode()  # type: ignore[union-attr]
            for name in ("access_token", "refresh_token")
        }

    def refresh(self) -> None:
        """A confidential client refreshes."""
        self._token("web", {"grant_type": "refresh_token", "refresh_token": self.tokens["web"]["refresh_token"]})

    def refresh_public(self) -> None:
        """A public client refreshes, and its token rotates."""
        self._token("native", {"grant_type": "refresh_token", "refresh_token": self.tokens["native"]["refresh_token"]})

    def userinfo(self) -> None:
        """Who is behind this access token?"""
        bearer = {"Authorization": f"Bearer {self.tokens['web']['access_token']}"}
        self.expect(200, self.http.call("GET", "/oidc/userinfo", headers=bearer))

    def saml(self, slug: str) -> None:
        """An AuthnRequest by Redirect inside the login session, answered with a Response."""
        asked = authn_request(self.plan["providers"][slug])
        page = self.http.call("GET", f"/saml/sso?{asked}", headers={"Cookie": f"sekisho={self.cookie}"})
        if b'name="SAMLResponse"' not in self.expect(200, page).body:
            raise RuntimeError("no SAML answer")

    def saml_both(self) -> None:
        """Response and Assertion signed."""
        self.saml("saml-both")

    def saml_one(self) -> None:
        """The Assertion signed alone."""
        self.saml("saml-one")

    def portal(self) -> None:
        """The home page, with its live check."""
        self.expect(200, self.http.call("GET", "/", headers={"Cookie": f"sekisho={self.cookie}"}))

    def revoke(self, account_id: str) -> float:
        """A manager stops somebody on the page; seconds from sending the form to the answer."""
        path = f"/store/S1/staff/{account_id}/stop"
        fields, headers = self.form(path)
        began = time.monotonic()
        answer = self.http.call("POST", path, headers=headers, form={**fields, "when": "now", "reason": "left"})
        took = time.monotonic() - began
        self.expect(303, answer)
        return took


@dataclass(frozen=True)
class Run:
    """What a run of one operation gave. times: seconds of each; errors: of those that failed."""

    seconds: float
    times: list[float]
    errors: list[str]


def closed_loop(actors: list[Actor], operation: str, seconds: float) -> Run:
    """Every actor does the operation again and again until the time is over."""
    times: list[float] = []
    errors: list[str] = []
    began = time.monotonic()
    until = began + seconds

    def work(actor: Actor) -> None:
        act: Callable[[], None] = getattr(actor, operation)
        mine = []
        while time.monotonic() < until:
            start = time.monotonic()
            try:
                act()
            except (OSError, RuntimeError) as error:
                errors.append(str(error))
                actor.http.close()
                if len(errors) > 20:
                    break
                continue
            mine.append(time.monotonic() - start)
        times.extend(mine)

    threads = [threading.Thread(target=work, args=(actor,)) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Run(time.monotonic() - began, times, errors)


# --- the login storm -----------------------------------------------------------------------------------------------


async def _storm(pipe: Pipe, plan: dict[str, Any], rate: float, seconds: float) -> Counter[str]:
    """Logins arrive at a rate, whatever became of those before: each on its own connection, as in a real flood.

    Until the pipe says stop, and at most so many seconds.
    """
    actor = Actor(plan, plan["crowd"][0])
    fields, headers = actor.form("/login")
    actor.http.close()
    outcome: Counter[str] = Counter()
    pending: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - began) < seconds and not pipe.poll():
        while sent < passed * rate and len(pending) < 3000:
            task = asyncio.create_task(
                _arrive(plan, plan["crowd"][sent % len(plan["crowd"])], fields, headers, outcome)
            )
            pending.add(task)
            task.add_done_callback(pending.discard)
            sent += 1
        await asyncio.sleep(0.002)
    outcome["sent"], outcome["waiting at the end"], outcome["seconds"] = sent, len(pending), round(passed)
    pipe.recv()
    for task in list(pending):
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return outcome


async def _arrive(
    plan: dict[str, Any], login_id: str, fields: dict[str, str], headers: dict[str, str], outcome: Counter[str]
) -> None:
    body = urlencode({**fields, "login_id": login_id, "password": plan["password"], "request": "", "next": ""}).encode()
    head = {
        "Host": plan["host"],
        **headers,
        "Content-Type": FORM,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    text = "POST /login HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in head.items()) + "\r\n"
    try:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", plan["port"])
            writer.write(text.encode() + body)
            line = await reader.readline()
            writer.close()
        outcome[line.split(b" ")[1].decode() if line else "closed"] += 1
    except (OSError, TimeoutError) as error:
        outcome[type(error).__name__] += 1


# --- processes -----------------------------------------------------------------------------------------------------


def driver(pipe: Pipe, plan: dict[str, Any]) -> None:
    """The process that drives: takes (what, arguments) from the pipe until None."""
    machine.pin(1)
    actors = [Actor(plan, name) for name in plan["actors"]]
    while (order := pipe.recv()) is not None:
        what, *rest = order
        if what == "warm":
            for actor in actors:
                actor.http.close()
                actor.login()
                actor.code_flow("web")
                actor.code_flow("native")
            pipe.send(None)
        elif what == "run":
            pipe.send(closed_loop(actors, *rest))
        elif what == "storm":
            pipe.send(asyncio.run(_storm(pipe, plan, *rest)))
        elif what == "once":  # each actor once, for a shutdown with requests in flight
            pipe.send(_once(pipe, plan, *rest))


def _once(pipe: Pipe, plan: dict[str, Any], operation: str, number: int) -> Counter[str]:
    """So many requests at the same moment, which the pipe is told; what became of them."""
    outcome: Counter[str] = Counter()
    ready = threading.Barrier(number + 1)

    def work(actor: Actor, name: str, fields: dict[str, str], headers: dict[str, str]) -> None:
        ready.wait(60)
        try:
            data = {**fields, "login_id": name, "password": plan["password"], "request": "", "next": ""}
            outcome[str(actor.http.call("POST", f"/{operation}", headers=headers, form=data).status)] += 1
        except OSError as error:
            outcome[type(error).__name__] += 1

    people = [(Actor(plan, name), name) for name in plan["crowd"][:number]]
    threads = [threading.Thread(target=work, args=(actor, name, *actor.form("/login"))) for actor, name in people]
    for thread in threads:
        thread.start()
    ready.wait(60)
    pipe.send("sent")
    for thread in threads:
        thread.join()
    return outcome


def peers(pipe: Pipe, port: int) -> None:
    """The relying parties' logout endpoints: one server that counts which path was called when."""
    machine.pin(1)
    asyncio.run(_peers(pipe, port))


async def _peers(pipe: Pipe, port: int) -> None:
    called: dict[str, float] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            await reader.readexactly(int(length.group(1)) if length else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            called.setdefault(head.split(b" ", 2)[1].decode(), time.monotonic())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port, backlog=1024)
    async with server:
        while True:
            if pipe.poll():
                order = pipe.recv()
                if order is None:
                    return
                if order == "forget":
                    called.clear()
                pipe.send(dict(called))
            await asyncio.sleep(0.01)
