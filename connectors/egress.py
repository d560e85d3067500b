"""Where engine and gateway may connect: declared hosts only, resolved once, judged, and connected to that address (VA-56).

The same rules as `idp.core.outbound` (WB-20), on aiohttp. aiohttp asks its resolver for every new connection and connects to
what it answered, so judging there leaves no second look-up for DNS rebinding. Literal addresses do not pass the
resolver; a recipe cannot declare one, and `judge_url` refuses what is not declared.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult

from connectors.recipes import urls
from connectors.recipes.hosts import is_loopback

CONNECT_S: Final = 5.0
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[str]]]
Client = aiohttp.ClientSession

_METADATA: Final = frozenset(
    ipaddress.ip_address(a) for a in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
)
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(a) for a in ("100.64.0.0/10", "192.88.99.0/24", "fec0::/10", "64:ff9b::/96")
)


class Refused(OSError):
    """We will not connect there. The text names the rule, not what was found inside."""


def judge_address(address: Address, *, loopback: bool) -> None:
    """Refuse what is not a public unicast address. loopback: whether this machine may be called. Raises Refused."""
    if address.is_loopback:
        if loopback:
            return
        raise Refused("loopback")
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour or address.teredo):
        raise Refused("an IPv4 address wrapped in IPv6")
    inside = any(address in network for network in _NOT_PUBLIC if network.version == address.version)
    if address in _METADATA or inside or not address.is_global or address.is_multicast or address.is_reserved:
        raise Refused("a private, link-local, shared or reserved network")


def judge_url(url: str, declared: Collection[str], *, loopback: bool) -> None:
    """Refuse a URL whose origin a recipe does not declare. Raises Refused."""
    parts = urls.parts(url)
    host = parts.netloc.lower()
    if host not in declared:
        raise Refused("a host that the recipe does not declare")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback and is_loopback(host)):
        raise Refused("https only")
    if is_loopback(host) and not loopback:
        raise Refused("loopback")


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses of a name, by the system's resolver."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3; not every system resolves the sub-names
        return ["127.0.0.1"]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class JudgingResolver(AbstractResolver):
    """Judges every address of a name; one bad address spoils it, because the peer chooses the order of answers."""

    def __init__(self, *, loopback: bool, lookup: Lookup = system_lookup) -> None:
        self._loopback = loopback
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See aiohttp. Raises Refused, which aiohttp reports as a failed connection."""
        loopback = self._loopback and is_loopback(host)
        addresses = [ipaddress.ip_address(text.split("%")[0]) for text in await self._lookup(host, port)]
        for address in addresses:
            judge_address(address, loopback=loopback)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
            if family in (socket.AF_UNSPEC, socket.AF_INET if address.version == 4 else socket.AF_INET6)
        ]

    async def close(self) -> None:
        """Nothing is held."""


def open_client(
    *,
    loopback: bool,
    total_s: float | None,
    lookup: Lookup = system_lookup,
    tls: ssl.SSLContext | None = None,
    own_headers: bool = True,
) -> aiohttp.ClientSession:
    """An HTTP client without cookies, proxies, redirects of its own or a second look-up. The caller closes it.

    total_s: deadline of one whole exchange in seconds; None where streams may stay open. own_headers: False for who passes
    on the headers of somebody else, and whose requests name no content type, browser or taste that these did not.
    """
    connector = aiohttp.TCPConnector(
        resolver=JudgingResolver(loopback=loopback, lookup=lookup),
        use_dns_cache=False,
        limit=0,
        limit_per_host=0,
        ssl=tls or True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=() if own_headers else (hdrs.CONTENT_TYPE, hdrs.USER_AGENT, hdrs.ACCEPT),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S),
        auto_decompress=True,
        max_line_size=16 * 1024,
        max_field_size=16 * 1024,
    )
