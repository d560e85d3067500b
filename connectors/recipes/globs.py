"""Globs of routes and URLs: `*` inside one segment, `**` across segments, and no regular expressions (VA-58).

    [METHOD ]/path[?name=value]

`/x/**` also covers `/x` itself: who denies a folder does not expect its front page to stay open. Matching is a walk over
two lists and takes at most their product in steps, so no recipe can make a request slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from connectors.recipes import urls

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MAX_CHARS: Final = 200


class GlobError(ValueError):
    """The text is no glob; the message says why, in words that also fit a Japanese sentence."""


@dataclass(frozen=True, slots=True)
class Glob:
    """One route. method: None for any; path: begins with `/`; query: a name and a value, or None."""

    method: str | None
    path: str
    query: tuple[str, str] | None = None

    def __str__(self) -> str:
        method = f"{self.method} " if self.method else ""
        query = f"?{self.query[0]}={self.query[1]}" if self.query else ""
        return f"{method}{self.path}{query}"

    @property
    def covers_everything(self) -> bool:
        """Whether it matches every path of the tool."""
        return self.query is None and set(self.path) <= {"/", "*"} and "**" in self.path

    def matches(self, method: str, path: str, pairs: tuple[tuple[str, str], ...] = ()) -> bool:
        """Whether a request falls under it. path: decoded and normal; pairs: of the query and an urlencoded body."""
        if self.method is not None and method != self.method:
            return False
        if self.query is not None and self.query not in pairs:
            return False
        return path_matches(self.path, path)

    def folded(self) -> Glob:
        """The same without regard to case: for deny routes, because many tools do not regard it either."""
        return _folded(self)


@lru_cache(maxsize=4096)
def _folded(glob: Glob) -> Glob:
    query = (glob.query[0].casefold(), glob.query[1].casefold()) if glob.query else None
    return Glob(glob.method, glob.path.casefold(), query)


def parse(text: str) -> Glob:
    """A route of a recipe. Raises GlobError."""
    if len(text) > MAX_CHARS:
        raise GlobError(f"> {MAX_CHARS}")
    method: str | None = None
    first, space, rest = text.partition(" ")
    if space:
        if first not in METHODS:
            raise GlobError(f"method {first!r}")
        method, text = first, rest
    path, question, query = text.partition("?")
    if not path.startswith("/"):
        raise GlobError("must begin with /")
    _judge_path(path)
    pair: tuple[str, str] | None = None
    if question:
        name, equals, value = query.partition("=")
        if not name or not equals or any(c in query for c in "*&#"):
            raise GlobError("?name=value")
        pair = (name, value)
    return Glob(method, path, pair)


def _judge_path(path: str) -> None:
    if any(ord(c) <= 0x20 or c in "\\%;#?" for c in path):
        raise GlobError("space, \\, %, ; or #: write the path decoded")
    for segment in path.split("/"):
        if "***" in segment or ("**" in segment and segment != "**"):
            raise GlobError("** stands alone between slashes")
        if segment in {".", ".."}:
            raise GlobError(". or ..")
    if "//" in path:
        raise GlobError("//")


@lru_cache(maxsize=4096)
def _split(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")[1:])


def path_matches(pattern: str, path: str) -> bool:
    """Whether a decoded path falls under the path part of a glob."""
    folder = pattern.removesuffix("/**")
    if "*" not in folder:  # most routes: one place, or a folder and what is below it
        return path == folder or (folder != pattern and path.startswith(f"{folder}/"))
    if not path.startswith(folder.partition("*")[0].rstrip("/")):  # what stands before the first star is literal
        return False
    wanted, given = _split(pattern), tuple(path.split("/")[1:])
    if wanted and wanted[-1] == "**" and _segments_match(wanted[:-1], given):
        return True  # `/x/**` covers `/x`
    return _segments_match(wanted, given)


def _segments_match(wanted: tuple[str, ...], given: tuple[str, ...]) -> bool:
    # reachable[i]: the wanted segments so far can consume the first i given ones
    reachable = [True] + [False] * len(given)
    for want in wanted:
        if want == "**":
            first = reachable.index(True) if True in reachable else len(reachable)
            reachable = [i >= first for i in range(len(given) + 1)]
            continue
        following = [False] * (len(given) + 1)
        for i, segment in enumerate(given):
            following[i + 1] = reachable[i] and segment_matches(want, segment)
        reachable = following
    return reachable[-1]


def segment_matches(pattern: str, text: str) -> bool:
    """`*` for any characters; everything else literally."""
    if "*" not in pattern:
        return pattern == text
    first, *middle, last = pattern.split("*")
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


@dataclass(frozen=True, slots=True)
class UrlGlob:
    """A glob over whole URLs, for checks: the origin is literal, the path a glob, the query does not count."""

    scheme: str
    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"

    def matches(self, url: str) -> bool:
        """Whether an absolute URL falls under it."""
        parts = urls.parts(url)
        return (
            parts.scheme == self.scheme
            and parts.netloc.lower() == self.host
            and path_matches(self.path, unquote(parts.path) or "/")
        )


def parse_url(text: str) -> UrlGlob:
    """A URL of a check. Raises GlobError."""
    parts = urls.parts(text)
    if parts.scheme not in {"https", "http"} or not parts.netloc or "*" in parts.netloc or "@" in parts.netloc:
        raise GlobError("https://host/path")
    path = parts.path or "/"
    _judge_path(path)
    if parts.query or parts.fragment:
        raise GlobError("no ? and no #")
    return UrlGlob(parts.scheme, parts.netloc.lower(), path)
