"""The outbound client (WB-20, LO-08): where it refuses to go, and how little a peer can do to it. No database here.

Peers are real servers on loopback. Names are answered by a resolver of the test, put in the place of the standard
library's; nothing of ours is replaced.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from idp.core.outbound import MAX_ADDRESSES, MAX_BODY, HttpOutbound, Refused, Rules, Unreachable
from idp.core.settings import Settings
from tests.certificates import Authority
from tests.fakes import rp
from tests.fakes.rp import Peer

PUBLIC = Rules(loopback=False, ports=frozenset({443, 8443}))
DEMO = Rules(loopback=True, ports=frozenset({443, 8443}))
#: made once: reading the system's authorities takes a fifth of a second
TLS = ssl.create_default_context()
PUBLIC_ADDRESS = "93.184.216.34"

REFUSED = [
    # schemes
    "http://rp.example/x", "ftp://rp.example/", "file:///etc/passwd", "gopher://rp.example/", "javascript:alert(1)", "//rp.example/x",
    "rp.example/x", "https:", "https:///x", "", "https:rp.example", "HTTP://rp.example/", "data:text/plain,x", "unix:///var/run/docker.sock",
    # user names, fragments
    "https://admin@rp.example/", "https://admin:pw@rp.example/", "https://@rp.example/", "https://rp.example@127.0.0.1/",
    "https://127.0.0.1#@rp.example/", "https://rp.example/#x",
    # ports
    "https://rp.example:22/", "https://rp.example:80/", "https://rp.example:6379/", "https://rp.example:0/", "https://rp.example:65536/",
    "https://rp.example:-1/", "https://rp.example:443x/", "https://rp.example:４４３/",
    # loopback, by every way of writing it
    "https://127.0.0.1/", "https://127.8.8.8/", "https://localhost/", "https://localhost./", "https://LOCALHOST/", "https://a.localhost/",
    "https://127.0.0.1./", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://127.0.0.0x1/", "https://0/", "https://0.0.0.0/", "https://[::1]/", "https://[::]/", "https://[0:0:0:0:0:0:0:1]/",
    "https://１２７.０.０.１/", "https://127。0。0。1/", "https://ⓛocalhost/", "https://[::1%25lo]/", "https://%31%32%37.0.0.1/",
    # private, shared, reserved
    "https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/", "https://100.64.0.1/",
    "https://100.127.255.254/", "https://169.254.10.1/", "https://198.18.0.1/", "https://192.0.0.1/", "https://192.0.2.1/",
    "https://198.51.100.7/", "https://203.0.113.7/", "https://224.0.0.1/", "https://239.1.1.1/", "https://240.0.0.1/",
    "https://255.255.255.255/", "https://192.88.99.1/", "https://[fc00::1]/", "https://[fd12:3456::1]/", "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/", "https://[fec0::1]/", "https://[ff02::1]/", "https://[2001:db8::1]/", "https://[100::1]/",
    # metadata services
    "https://169.254.169.254/", "https://100.100.100.200/", "https://168.63.129.16/", "https://[fd00:ec2::254]/", "https://0xa9fea9fe/",
    "https://[::ffff:169.254.169.254]/",
    # IPv4 inside IPv6
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::ffff:93.184.216.34]/", "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/", "https://[64:ff9b::5db8:d822]/", "https://[64:ff9b:1::a00:1]/", "https://[2002:7f00:1::]/",
    "https://[2002:5db8:d822::1]/", "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    # what a parser reads differently
    "https://rp.example\\@127.0.0.1/", "https:\\\\rp.example/", " https://rp.example/", "https://rp.example/ x", "https://rp.example/\tx",
    "https://rp.example/\r\nHost: x", "https://rp\x00.example/", "https://rp.example\u200b/", "https://rp .example/", "https://日本.example/",
    "https://[::1/", "https://]/", "https://rp..example/", "https://.rp.example/", "https://rp.example:443:443/", "https://rp,x.example/",
    "https://rp.example%00.evil/", "https://rp.example/\x7f", "https://[rp.example]/", "https://*.example/",
]  # fmt: skip
ACCEPTED = [
    "https://rp.example/backchannel", "https://rp.example:443/x", "https://rp.example:8443/x?y=1", "https://RP.Example/x", "https://rp.example./x",
    "https://93.184.216.34/", "https://[2606:2800:220:1::1]/", "https://xn--wgv71a.example/", "https://rp_1.example/", "HTTPS://rp.example/",
]  # fmt: skip


def test_WB_20_corpus_of_forms() -> None:
    """More than sixty ways to write a place we do not go to, each refused by its form alone, without the network."""
    assert len(REFUSED) >= 60
    let_through = []
    for url in REFUSED:
        try:
            HttpOutbound(PUBLIC, TLS).check(url)
        except Refused:
            continue
        let_through.append(url)
    assert not let_through
    for url in ACCEPTED:
        HttpOutbound(PUBLIC, TLS).check(url)


LOOPBACK_FORMS = [
    "http://127.0.0.1:5001/x", "http://localhost:5001/x", "http://[::1]:5001/x", "https://localhost:9443/x", "http://points.localhost:5001/x",
]  # fmt: skip


@pytest.mark.parametrize("url", LOOPBACK_FORMS)
def test_WB_20_loopback_and_http_only_while_the_issuer_is_loopback(url: str) -> None:
    """The demo may call itself; an https issuer may not, and there is no other switch."""
    HttpOutbound(DEMO, TLS).check(url)
    with pytest.raises(Refused):
        HttpOutbound(PUBLIC, TLS).check(url)


def test_WB_20_a_loopback_issuer_opens_nothing_else() -> None:
    """http elsewhere, private networks, metadata and wrapped addresses stay refused."""
    for url in ("http://rp.example/", "http://10.0.0.1/", "https://10.0.0.1/", "http://169.254.169.254/", "https://[::ffff:127.0.0.1]/",
                "http://0.0.0.0/", "http://2130706433/", "http://localhost.rp.example/", "http://user@localhost/", "https://rp.example:22/"):  # fmt: skip
        with pytest.raises(Refused):
            HttpOutbound(DEMO, TLS).check(url)


def test_WB_20_rules_come_from_the_issuer_and_the_allow_list() -> None:
    """An https issuer has no loopback; the allow-list opens its networks, never loopback, metadata or wrapped forms."""
    base = {
        "environment": "development",
        "root_key": "x",
        "pepper_file": None,
        "outbound_private_allow": "10.20.0.0/16, fd12::/16, 169.254.0.0/16, 127.0.0.0/8",
    }
    rules = Rules.from_settings(Settings(issuer="https://login.example.jp", **base))
    assert not rules.loopback
    assert rules.ports == {443, 8443}
    for url in ("https://10.20.1.1/", "https://[fd12::5]/"):
        rules.judge_url(url)
    for url in ("https://10.21.1.1/", "https://169.254.169.254/", "https://127.0.0.1/", "https://[::ffff:10.20.1.1]/"):
        with pytest.raises(Refused):
            rules.judge_url(url)
    assert Rules.from_settings(Settings(issuer="http://localhost:8000", **base)).loopback


# --- names ---------------------------------------------------------------------------------------------------------


@dataclass
class Resolver:
    """Answers names with addresses of the test, in turn; numeric hosts go to the system. asked: every name; dialled: every
    address that was connected to."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    system: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Stands in for the one of `socket`."""
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.answers:
            ipaddress.ip_address(name)  # a name we do not know is a fault of the test
            return list(self.system(host, port, *args, **kwargs))
        turns = self.answers[name]
        addresses = turns[min(self.asked.count(name), len(turns) - 1)]
        self.asked.append(name)
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(families[ipaddress.ip_address(a).version], socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    def create_connection(self, address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        """Stands in for the one of `socket`; nothing but loopback is really dialled."""
        self.dialled.append(address)
        if not ipaddress.ip_address(address[0]).is_loopback:
            raise ConnectionRefusedError
        return _dial(address, *args, **kwargs)


_dial = socket.create_connection


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """In the place of the standard library's, for one test."""
    made = Resolver({})
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", made.create_connection)
    return made


BAD_ADDRESSES = ["127.0.0.1", "10.0.0.7", "169.254.169.254", "100.64.3.4", "192.168.0.1", "::1", "fe80::1", "fd00:ec2::254", "::ffff:10.0.0.1",
                 "64:ff9b::a00:1", "2002:a00:1::", "0.0.0.0", "224.0.0.1", "168.63.129.16"]  # fmt: skip


def test_WB_20_a_public_name_with_an_inner_address(resolver: Resolver) -> None:
    """The form of a name says nothing; its address is judged, and one bad address among good ones spoils the name."""
    for address in BAD_ADDRESSES:
        for answer in ([address], [PUBLIC_ADDRESS, address], [address, PUBLIC_ADDRESS]):
            resolver.answers["evil.example"] = [answer]
            with pytest.raises(Refused):
                HttpOutbound(PUBLIC, TLS).post("https://evil.example/x", b"", headers={})
    assert resolver.dialled == [], "somebody was connected to"


def test_WB_20_rebinding_name_server(resolver: Resolver) -> None:
    """Public at the first question, loopback at the second: there is no second question, and what was judged is dialled."""
    resolver.answers["evil.example"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
    with pytest.raises(Unreachable) as found:
        HttpOutbound(PUBLIC, TLS).post("https://evil.example/x", b"", headers={})
    assert found.value.kind == "network"
    assert resolver.asked == ["evil.example"]
    assert resolver.dialled == [(PUBLIC_ADDRESS, 443)]
    with pytest.raises(Refused):  # the next attempt asks anew, is told the truth, and goes nowhere
        HttpOutbound(PUBLIC, TLS).post("https://evil.example/x", b"", headers={})
    assert len(resolver.dialled) == 1


def test_WB_20_the_judged_address_gets_the_name_as_host(resolver: Resolver) -> None:
    """Connected to the address, asked for the name: a peer behind a shared address still finds itself."""
    with Peer(rp.ok) as peer:
        resolver.answers["points.localhost"] = [["127.0.0.1"], ["10.0.0.1"]]
        answer = HttpOutbound(DEMO, TLS).post(
            f"http://points.localhost:{peer.port}/x?y=1", b"a=b", headers={"Content-Type": "text/plain"}
        )
        assert answer.status == 200
        call = peer.calls[0]
        assert (call.method, call.path, call.body) == ("POST", "/x?y=1", b"a=b")
        assert call.headers["host"] == f"points.localhost:{peer.port}"
        assert set(call.headers) == {"host", "content-type", "content-length"}, "nothing else is said about us"


def test_LO_08_a_dead_first_address_does_not_cost_the_second_its_chance(resolver: Resolver) -> None:
    """One of two addresses answers: it is found. Of a hundred, four are tried."""
    with Peer(rp.ok) as peer:
        resolver.answers["a.localhost"] = [["::1", "127.0.0.1"]]
        assert HttpOutbound(DEMO, TLS).post(f"http://a.localhost:{peer.port}/", b"", headers={}).status == 200
    resolver.dialled.clear()
    resolver.answers["many.example"] = [[f"93.184.216.{n}" for n in range(1, 101)]]
    with pytest.raises(Unreachable):
        HttpOutbound(PUBLIC, TLS).post("https://many.example/", b"", headers={})
    assert len(resolver.dialled) == MAX_ADDRESSES


def test_LO_08_names_that_do_not_resolve(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such name, a label that is too long, no address, a name server that never answers: no answer, in time, and by name."""
    never = threading.Event()

    def ask(host: str, *_: Any, **__: Any) -> list[Any]:
        if host == "silent.example":
            never.wait(20)
        if host == "empty.example":
            return []
        if len(host) > 80:
            raise UnicodeError("label empty or too long")
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    started = time.monotonic()
    for host in ("nowhere.example", f"{'a' * 80}.example", "empty.example", "silent.example"):
        with pytest.raises(Unreachable) as found:
            HttpOutbound(PUBLIC, TLS, total_s=0.4).post(f"https://{host}/", b"", headers={})
        assert found.value.kind == "dns"
    took = time.monotonic() - started
    never.set()
    assert took < 15, "it waited for the resolver, which would have taken 20 s"


# --- hostile answers -----------------------------------------------------------------------------------------------


def test_LO_08_redirects_are_answers_and_not_followed() -> None:
    """A 302 to a place inside, or to itself, is a status like any other; nobody is called."""
    with Peer(rp.ok) as inside, Peer(rp.redirect_to("/")) as peer:
        for location in (inside.url, "/login", "//127.0.0.1/"):
            for code in (301, 302, 303, 307, 308):
                peer.behaviour = rp.status(code, Location=location)
                assert HttpOutbound(DEMO, TLS).post(peer.url, b"logout_token=x", headers={}).status == code
        assert inside.calls == []
        assert {call.method for call in peer.calls} == {"POST"}
        assert len(peer.calls) == 15


def test_LO_08_slow_peers_meet_one_deadline() -> None:
    """A peer that never answers, one that answers byte by byte so that no read is ever slow, one that drips for a while and
    then stops, one that sends headers without end: all cost the same time, and none of them twice that."""

    def drip_and_stop(handler: rp.Handler, _call: rp.Received) -> None:
        for byte in b"HTTP/1.1 2":
            handler.connection.sendall(bytes([byte]))
            handler.peer.closing.wait(0.17)
        handler.peer.closing.wait(20)

    results: dict[rp.Behaviour, tuple[float, str]] = {}

    def call(behaviour: rp.Behaviour) -> None:
        with Peer(behaviour) as peer:
            started = time.monotonic()
            try:
                HttpOutbound(DEMO, TLS, total_s=2).post(peer.url, b"x", headers={})
            except Unreachable as error:
                results[behaviour] = (time.monotonic() - started, error.kind)

    behaviours = [rp.hang, rp.drip(0.05), drip_and_stop, rp.flood_of_headers]
    threads = [threading.Thread(target=call, args=(behaviour,)) for behaviour in behaviours]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.keys() == set(behaviours)
    for behaviour, (elapsed, kind) in results.items():
        assert elapsed < 3.2, behaviour  # drip_and_stop under two timeouts instead of one deadline: 3.7
        assert kind in ({"protocol", "timeout"} if behaviour is rp.flood_of_headers else {"timeout"})


def test_LO_08_the_limits_of_the_product() -> None:
    """What ships: 10 s for everything, 64 KiB of an answer."""
    assert HttpOutbound(PUBLIC, TLS).total_s == 10.0
    assert MAX_BODY == 64 * 1024


def test_LO_08_size_cap() -> None:
    """64 KiB are read, one byte more is no answer, with and without a length announced."""

    def unannounced(handler: rp.Handler, _call: rp.Received) -> None:
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY + 1))

    with Peer(rp.status(200, b"x" * MAX_BODY)) as peer:
        assert len(HttpOutbound(DEMO, TLS).post(peer.url, b"", headers={}).body) == MAX_BODY
        for behaviour in (rp.status(200, b"x" * (MAX_BODY + 1)), rp.big(), unannounced):
            peer.behaviour = behaviour
            with pytest.raises(Unreachable) as found:
                HttpOutbound(DEMO, TLS).post(peer.url, b"", headers={})
            assert found.value.kind == "too_large"


def test_LO_08_broken_peers_are_named() -> None:
    """Nobody listens, a connection cut, something that is no HTTP: no answer, each under its own word."""
    with Peer(rp.no_http) as peer:
        for behaviour, kind in ((rp.no_http, {"protocol"}), (rp.hang_up, {"protocol", "network"})):
            peer.behaviour = behaviour
            with pytest.raises(Unreachable) as found:
                HttpOutbound(DEMO, TLS).post(peer.url, b"", headers={})
            assert found.value.kind in kind
    with pytest.raises(Unreachable) as found:
        HttpOutbound(DEMO, TLS).post(f"http://127.0.0.1:{rp.closed_port()}/", b"", headers={})
    assert found.value.kind == "network"


def test_WB_20_no_proxy_and_no_cookies_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment sees nothing; a cookie that a peer sets never comes back."""
    with Peer(rp.ok) as proxy, Peer(rp.status(200, Set_Cookie="a=b")) as peer:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        client = HttpOutbound(DEMO, TLS)
        for _ in range(2):
            assert client.post(peer.url, b"", headers={}).status == 200
        assert proxy.calls == []
        assert all("cookie" not in call.headers for call in peer.calls)


# --- TLS -----------------------------------------------------------------------------------------------------------


class _Ok(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Quiet(HTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A refused handshake is what these tests are about."""


@contextmanager
def serve(
    authority: Authority, name: str, *, days: int = 1, issued: bool = True
) -> Iterator[tuple[int, list[str | None]]]:
    """An https server for a name; yields its port and the names that clients asked for. days, issued: of its certificate."""
    context, asked = authority.server(name, days=days, issued=issued), list[str | None]()
    context.sni_callback = lambda _socket, wanted, _context: asked.append(wanted)
    server = _Quiet(("127.0.0.1", 0), _Ok)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_WB_20_tls_keeps_the_name(tmp_path: Path, resolver: Resolver) -> None:
    """Connected to an address, but SNI and certificate are those of the name."""
    authority = Authority.make(tmp_path)
    resolver.answers["rp.localhost"] = [["127.0.0.1"], ["10.0.0.1"]]
    with serve(authority, "rp.localhost") as (port, asked):
        answer = HttpOutbound(DEMO, authority.client()).post(f"https://rp.localhost:{port}/x", b"a", headers={})
    assert answer.status == 204
    assert asked == ["rp.localhost"]
    assert resolver.dialled == [("127.0.0.1", port)]


@pytest.mark.parametrize(
    ("name", "days", "issued", "word"),
    [
        ("other.localhost", 1, True, "Hostname mismatch"),
        ("rp.localhost", -1, True, "certificate has expired"),
        ("rp.localhost", 1, False, "self-signed certificate"),
    ],
)
def test_LO_08_tls_failures_are_named(
    tmp_path: Path, resolver: Resolver, name: str, days: int, issued: bool, word: str
) -> None:
    """A certificate of another name, an expired one, one of nobody: no answer, and the receipt's word is `tls`."""
    authority = Authority.make(tmp_path)
    resolver.answers["rp.localhost"] = [["127.0.0.1"]]
    with serve(authority, name, days=days, issued=issued) as (port, _), pytest.raises(Unreachable) as found:
        HttpOutbound(DEMO, authority.client()).post(f"https://rp.localhost:{port}/x", b"secret", headers={})
    assert found.value.kind == "tls"
    assert word in str(found.value)


def test_LO_08_https_to_a_plain_server() -> None:
    """A server that speaks no TLS gets not a byte of the request."""
    with Peer(rp.ok) as peer, pytest.raises(Unreachable) as found:
        HttpOutbound(DEMO, TLS, total_s=2).post(f"https://127.0.0.1:{peer.port}/", b"logout_token=x", headers={})
    assert found.value.kind in {"tls", "timeout"}
    assert peer.calls == []
