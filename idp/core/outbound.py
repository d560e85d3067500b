"""The only HTTP client of `idp`, for every address that a company or partner can influence (WB-20, LO-08).

It resolves a name once, judges every address it got, and connects to exactly that address with SNI and Host kept: a
second look-up by the HTTP library is how DNS rebinding gets in. No redirects, no proxy environment, no cookies; the
whole exchange has a deadline, so a peer that drips one byte a second holds a slot for seconds and not for hours.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpcore2

from idp.core.settings import Settings

CONNECT_S = 5.0
TOTAL_S = 10.0
MAX_BODY = 64 * 1024
#: of a document that is fetched because a person or a schedule asked for it
MAX_DOCUMENT = 256 * 1024
#: of a name with many addresses; its owner decides how many there are
MAX_ADDRESSES = 4

METADATA_HOSTS = {
    ipaddress.ip_address(a) for a in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: not public, whatever `is_global` says: carrier-grade NAT, the retired 6to4 relays, the retired site-local addresses
NOT_PUBLIC = tuple(ipaddress.ip_network(a) for a in ("100.64.0.0/10", "192.88.99.0/24", "fec0::/10"))
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refused(Exception):
    """We will not send there. The text is for the log and the receipt; it names the rule, not what was found inside."""


class Unreachable(Exception):
    """No complete answer: name, connection, TLS, time or size. `kind` is a short machine word."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    """status: HTTP status; headers: lower-case names; body: at most 64 KiB; elapsed_ms: milliseconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: int


class Outbound(Protocol):
    """What the rest of the house sees; tests inject a recording fake."""

    def check(self, url: str) -> None:
        """Refuse a URL by its form, without the network. Raises Refused."""

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> Answer:
        """Send; raises Refused or Unreachable. Any HTTP status is an Answer."""

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Fetch a document of at most 256 KiB, such as metadata; otherwise like `post`."""


@dataclass(frozen=True)
class Rules:
    """Where we may connect. loopback: the issuer itself is an http loopback address."""

    loopback: bool
    ports: frozenset[int]
    private_allow: tuple[Network, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> Rules:
        """Build the rules once."""
        allow = (part.strip() for part in settings.outbound_private_allow.split(","))
        return cls(
            loopback=settings.issuer_is_loopback,
            ports=frozenset(int(port) for port in settings.outbound_ports.split(",")),
            private_allow=tuple(ipaddress.ip_network(part) for part in allow if part),
        )

    def judge_url(self, url: str) -> tuple[str, int]:
        """Host and port of an acceptable URL. Raises Refused."""
        if any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in url) or "\\" in url:
            raise Refused("control character, space, backslash or something beyond ASCII in the URL")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Refused("not a URL") from None
        if not parts.hostname or parts.username is not None or parts.password is not None or parts.fragment:
            raise Refused("needs a host, and no user name, password or fragment")
        plain_loopback = parts.scheme == "http" and self.loopback and _is_loopback_name(parts.hostname)
        if parts.scheme != "https" and not plain_loopback:
            raise Refused("https only")
        if port is None:
            port = 443 if parts.scheme == "https" else 80
        if not (self.loopback and _is_loopback_name(parts.hostname)) and port not in self.ports:
            raise Refused(f"port {port} is not allowed")
        literal = _literal(parts.hostname)
        if literal is not None:
            self.judge_address(literal)
        elif not HOST.fullmatch(parts.hostname):
            raise Refused("not a host name")
        elif _looks_numeric(parts.hostname):
            raise Refused("an address in decimal, octal or hexadecimal form")
        elif _is_loopback_name(parts.hostname) and not self.loopback:
            raise Refused("loopback")
        return parts.hostname, port

    def judge_address(self, address: Address) -> None:
        """Refuse what is not a public unicast address. Raises Refused."""
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
            if address in NAT64:
                inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
            if inner is not None and not (address.ipv4_mapped and self.loopback and inner.is_loopback):
                raise Refused("an IPv4 address wrapped in IPv6")
        if address in METADATA_HOSTS:
            raise Refused("a metadata service")
        if address.is_loopback:
            if self.loopback:
                return
            raise Refused("loopback")
        if any(address in network for network in self.private_allow if network.version == address.version):
            return
        inside = any(address in network for network in NOT_PUBLIC)
        if inside or not address.is_global or address.is_multicast or address.is_reserved:
            raise Refused("a private, link-local, shared or reserved network")


def _literal(host: str) -> Address | None:
    if "%" in host:  # a zone such as fe80::1%eth0 names an interface of ours
        return None
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _looks_numeric(host: str) -> bool:
    """`2130706433`, `0x7f.1`, `0177.0.0.1`: what inet_aton still reads as an address."""
    last = host.rstrip(".").rsplit(".", 1)[-1].lower()
    return last.isdigit() or last.startswith("0x")


def _is_loopback_name(host: str) -> bool:
    literal = _literal(host)
    name = host.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or (literal is not None and literal.is_loopback)


class _PinnedBackend(httpcore2.SyncBackend):
    """Connects to the address that was judged, and to no other; counts every read against one deadline."""

    def __init__(self, rules: Rules, deadline: float) -> None:
        self._rules = rules
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        by = min(self._deadline, time.monotonic() + (CONNECT_S if timeout is None else timeout))
        addresses = _look_up(host, port, by)
        for address in addresses:  # one bad address spoils the name: the peer chooses the order of answers
            self._rules.judge_address(ipaddress.ip_address(address.split("%")[0]))
        failure: Exception = Unreachable("dns", "no address")
        tried = addresses[:MAX_ADDRESSES]
        for position, address in enumerate(tried):
            # each gets its share of the time left: a dead first address must not use up what the second one needs
            share = (by - time.monotonic()) / (len(tried) - position)
            if share <= 0:
                break
            try:
                stream = super().connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure


def _look_up(host: str, port: int, by: float) -> list[str]:
    """The addresses of a name, each once. by: monotonic time at which we stop waiting.

    `getaddrinfo` has no timeout, and the name server of a hostile peer may never answer; the thread left behind ends when
    the system's resolver gives up.
    """
    if _literal(host) is not None:
        return [host]
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            answers.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, by - time.monotonic()))
    except queue.Empty:
        raise Unreachable("dns", "timeout") from None
    if isinstance(answer, Exception):
        raise Unreachable("dns", type(answer).__name__) from answer
    return answer


class _DeadlineStream(httpcore2.NetworkStream):
    """A stream whose every operation gets what is left of the whole exchange's time."""

    def __init__(self, inner: httpcore2.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def _left(self, timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("deadline of the exchange")
        return min(left, timeout) if timeout is not None else left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, self._left(timeout))
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise Unreachable("tls", error.__cause__.verify_message) from error
            if isinstance(error.__cause__, ssl.SSLError):
                raise Unreachable("tls", str(error.__cause__.reason)) from error
            raise
        return _DeadlineStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


@dataclass(frozen=True)
class HttpOutbound:
    """The real one. A connection per call: deliveries to one peer are minutes apart, and a pool would outlive rules.

    total_s: seconds for one whole exchange, from the look-up of the name to the last byte.
    """

    rules: Rules
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    total_s: float = TOTAL_S

    def check(self, url: str) -> None:
        """See `Outbound.check`."""
        self.rules.judge_url(url)

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> Answer:
        """See `Outbound.post`. Redirects are answers like any other and are not followed (LO-08)."""
        return self._exchange("POST", url, body, headers, MAX_BODY)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """See `Outbound.get`."""
        return self._exchange("GET", url, None, headers or {}, MAX_DOCUMENT)

    def _exchange(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], limit: int) -> Answer:
        self.rules.judge_url(url)
        started = time.monotonic()
        deadline = started + self.total_s
        timeouts = {"connect": CONNECT_S, "read": self.total_s, "write": self.total_s, "pool": CONNECT_S}
        try:
            with (
                httpcore2.ConnectionPool(
                    ssl_context=self.tls, network_backend=_PinnedBackend(self.rules, deadline), retries=0
                ) as pool,
                pool.stream(
                    method, url, headers=list(headers.items()), content=body, extensions={"timeout": timeouts}
                ) as response,
            ):
                return Answer(
                    status=response.status,
                    headers={k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers},
                    body=_read_capped(response.iter_stream(), limit),
                    elapsed_ms=int((time.monotonic() - started) * 1000),
                )
        except httpcore2.TimeoutException as error:
            raise Unreachable("timeout", type(error).__name__) from error
        except httpcore2.NetworkError as error:
            raise Unreachable("network", type(error).__name__) from error
        except httpcore2.ProtocolError as error:
            raise Unreachable("protocol", type(error).__name__) from error


def _read_capped(chunks: Iterable[bytes], limit: int = MAX_BODY) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise Unreachable("too_large", f"more than {limit} bytes")
    return bytes(body)
