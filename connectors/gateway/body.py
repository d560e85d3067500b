"""Bodies: declared addresses become ours on the way out and theirs on the way in, as bytes and nothing else (§8).

No HTML parser and nothing injected: an address is replaced wherever it stands, plain, JSON-escaped or percent-encoded, and
only when the whole host name stands there. `https://www.tool.example.evil` is not `www.tool.example`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from connectors.recipes import urls

MAX_REWRITTEN: Final = 5 * 1024 * 1024
MAX_FORM: Final = 1024 * 1024
REWRITTEN_TYPES: Final = frozenset(
    {
        "text/html", "text/css", "text/javascript", "application/javascript", "application/x-javascript", "application/json",
        "application/xhtml+xml", "text/xml", "application/xml", "application/manifest+json", "application/ld+json",
    }
)  # fmt: skip
HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_URL: Final = re.compile(r"(?:https?|wss?):\\?/\\?/[^\s\"'<>;,]+", re.IGNORECASE)

#: one address in one dress, in lower case: the two slashes, the colon after a scheme and before a port
_DRESSES: Final = ((b"//", b":"), (rb"\/\/", b":"), (b"%2f%2f", b"%3a"))
_SCHEMES: Final = (b"https", b"http", b"wss", b"ws")
#: what goes on after a name: it was a longer name, or a port that was not declared
_LONGER: Final = re.compile(rb"[A-Za-z0-9._-]|(?::|%3[Aa])\d")


#: what follows the host in an address as most pages write it: a path or the end of the attribute, plain and in JSON
_PLAIN: Final = ((b"//", (b"/", b'"')), (rb"\/\/", (b"\\",)))


class Rewriter:
    """Replaces some hosts by others. scheme: what http and https become (ws and wss likewise)."""

    def __init__(self, hosts: Mapping[str, str], *, scheme: str) -> None:
        """hosts: host[:port] → host[:port], lower case. No host on the right may also stand on the left."""
        self._scheme = scheme.encode()
        self._plain = tuple(
            (before + b":" + slashes + source.encode() + end, self._scheme + b":" + slashes + target.encode() + end)
            for source, target in hosts.items()
            for slashes, ends in _PLAIN
            for before in (b"https", b"http")
            for end in ends
        )
        self._needles = {
            (slashes, colon, source.encode().replace(b":", colon)): target.encode()
            for source, target in hosts.items()
            for slashes, colon in _DRESSES
        }

    def apply(self, data: bytes) -> bytes:
        """The data with every declared address replaced.

        Most stand there in the same few words, which C replaces all at once; what is left is looked at one by one.
        """
        for found, written in self._plain:
            data = data.replace(found, written)
        return self.one_by_one(data)

    def one_by_one(self, data: bytes) -> bytes:
        """The same for every way to write an address: slower, and what the words above are compared with."""
        low = data.lower()
        places: list[tuple[int, int, bytes]] = []
        for (slashes, colon, name), target in self._needles.items():
            needle = slashes + name  # a search in C: most pages name few hosts, and a pattern would try every byte
            at = low.find(needle)
            while at >= 0:
                end = at + len(needle)
                if _LONGER.match(data, end) is None:
                    start, scheme = self._scheme_before(low, at, colon)
                    # `%2F` and `%2f` are both written; the colons follow the slashes
                    written = colon.upper() if data[at : at + 3] == b"%2F" else colon
                    head = scheme + written if scheme else b""
                    kept = data[at : at + len(slashes)]
                    places.append((start, end, head + kept + target.replace(b":", written)))
                at = low.find(needle, end)
        if not places:
            return data
        pieces, done = [], 0
        for start, end, new in sorted(places):
            pieces += [data[done:start], new]
            done = end
        return b"".join([*pieces, data[done:]])

    def _scheme_before(self, low: bytes, at: int, colon: bytes) -> tuple[int, bytes]:
        """Where an address begins and the scheme that it gets; nothing for one that begins with its slashes."""
        for scheme in _SCHEMES:
            start = at - len(scheme) - len(colon)
            if start >= 0 and low.startswith(scheme + colon, start):
                return start, self._scheme if scheme.startswith(b"http") else self._scheme.replace(b"http", b"ws")
        return at, b""

    def text(self, value: str) -> str:
        """The same for a header."""
        return self.apply(value.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


class Bridge:
    """Both directions of one gateway session: hosts of the tool and origins of ours."""

    def __init__(self, hosts: Mapping[str, str], *, our_scheme: str, tool_scheme: str) -> None:
        """hosts: gateway host → tool host."""
        self.to_tool_hosts = dict(hosts)
        self.to_our_hosts = {tool: ours for ours, tool in hosts.items()}
        self.our_scheme, self.tool_scheme = our_scheme, tool_scheme
        self.outwards = Rewriter(self.to_our_hosts, scheme=our_scheme)
        self.inwards = Rewriter(self.to_tool_hosts, scheme=tool_scheme)

    def tool_url(self, gateway_host: str, raw_path: str) -> str:
        """The address at the tool behind a request."""
        return f"{self.tool_scheme}://{self.to_tool_hosts[gateway_host]}{raw_path}"

    def location(self, value: str, *, base: str, public: tuple[str, ...]) -> str | None:
        """A redirect target as the browser may see it; None when it leads to a host that is not declared."""
        target = urls.joined(base, value)
        parts = urls.parts(target)
        host = parts.netloc.lower()
        if parts.scheme not in {"http", "https"}:
            return None
        if host.endswith((":443", ":80")):
            host = host.rpartition(":")[0]
        if host in self.to_our_hosts:
            tail = target.partition("://")[2][len(parts.netloc) :]
            return f"{self.our_scheme}://{self.to_our_hosts[host]}{tail if tail.startswith('/') else '/' + tail}"
        return target if host in public else None

    def policy(self, value: str) -> str:
        """A Content-Security-Policy whose sources name our origins; report targets are dropped."""
        directives = []
        for directive in value.split(";"):
            words = directive.split()
            if not words or words[0].lower() in {"report-uri", "report-to"}:
                continue
            directives.append(" ".join([words[0], *(self._source(word) for word in words[1:])]))
        return "; ".join(directives)

    def _source(self, word: str) -> str:
        scheme, separator, rest = word.rpartition("://")
        host, slash, path = rest.partition("/")
        ours = self.to_our_hosts.get(host.lower())
        if ours is None:
            return word
        prefix = self.our_scheme.replace("http", "ws") if scheme.lower() in {"ws", "wss"} else self.our_scheme
        return f"{prefix}{separator}{ours}{slash}{path}" if separator else f"{ours}{slash}{path}"

    def names_others(self, value: str, public: tuple[str, ...]) -> bool:
        """Whether a header value, already mapped, still holds an absolute address of somebody else."""
        known = {*self.to_tool_hosts, *public}
        return any(urls.parts(url.replace("\\", "")).netloc.lower() not in known for url in _URL.findall(value))
