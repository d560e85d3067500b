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

#: one address in one dress: (pattern for the scheme, the two slashes, pattern for the colon of a port)
_DRESSES: Final = (
    (rb"(?:(https?|wss?):)?", b"//", b":"),
    (rb"(?:(https?|wss?):)?", rb"\/\/", b":"),
    (rb"(?:(https?|wss?)%3[Aa])?", b"%2F%2F", b"%3A"),
    (rb"(?:(https?|wss?)%3[Aa])?", b"%2f%2f", b"%3a"),
)


class Rewriter:
    """Replaces some hosts by others. scheme: what http and https become (ws and wss likewise)."""

    def __init__(self, hosts: Mapping[str, str], *, scheme: str) -> None:
        """hosts: host[:port] → host[:port], lower case."""
        self._hosts = {source.encode(): target.encode() for source, target in hosts.items()}
        self._scheme = scheme.encode()
        self._patterns = [self._pattern(*dress) for dress in _DRESSES] if hosts else []

    def _pattern(self, scheme: bytes, slashes: bytes, colon: bytes) -> tuple[re.Pattern[bytes], bytes, bytes]:
        names = b"|".join(re.escape(host.replace(b":", colon)) for host in sorted(self._hosts, key=len, reverse=True))
        # The next byte must end the name: no letter, digit, dot or hyphen, and no port that was not declared.
        end = rb"(?![A-Za-z0-9._-]|(?::|%3[Aa])\d)"
        return re.compile(scheme + re.escape(slashes) + b"(" + names + b")" + end, re.IGNORECASE), slashes, colon

    def apply(self, data: bytes) -> bytes:
        """The data with every declared address replaced."""
        for pattern, slashes, colon in self._patterns:
            if slashes in data:
                data = pattern.sub(lambda m, s=slashes, c=colon: self._one(m, s, c), data)  # type: ignore[misc]
        return data

    def _one(self, match: re.Match[bytes], slashes: bytes, colon: bytes) -> bytes:
        scheme, host = match.group(1), match.group(2).lower()
        target = self._hosts[host.replace(colon.lower(), b":")].replace(b":", colon)
        if scheme is None:
            return slashes + target
        kept = self._scheme if scheme.lower().startswith(b"http") else self._scheme.replace(b"http", b"ws")
        return kept + colon + slashes + target

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
