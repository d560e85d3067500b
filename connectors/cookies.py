"""The server-side cookie jar of one tool session: RFC 6265 on the tool's names, plain data, no network (D9).

Engine and gateway share it: the one fills it by logging in, the other keeps it and hands none of it to a browser.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

MAX_COOKIES: Final = 300
MAX_COOKIE_BYTES: Final = 8 * 1024

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie. domain: without a leading dot; host_only: no Domain attribute; expires: seconds since 1970, or None."""

    name: str
    value: str
    domain: str
    path: str
    host_only: bool
    secure: bool
    expires: float | None = None

    @property
    def key(self) -> Key:
        """What makes it the same cookie (RFC 6265 §5.3 step 11)."""
        return (self.name, self.domain, self.path)


class Jar:
    """Cookies of one tool session, and the changes since it was loaded.

    authorization: the value of an `Authorization` header for tools with HTTP Basic; the engine makes it, and it is sealed
    with the jar. user_agent: what the login was made with; some tools tie a session to it.
    """

    def __init__(
        self, cookies: Iterable[Cookie] = (), *, authorization: str | None = None, user_agent: str | None = None
    ) -> None:
        self._cookies: dict[Key, Cookie] = {cookie.key: cookie for cookie in cookies}
        self.authorization = authorization
        self.user_agent = user_agent
        self._changes: dict[Key, Cookie | None] = {}

    def __iter__(self) -> Iterator[Cookie]:
        return iter(tuple(self._cookies.values()))

    def __len__(self) -> int:
        return len(self._cookies)

    @property
    def changed(self) -> bool:
        """Whether anything differs from what was loaded."""
        return bool(self._changes)

    def set_from(self, header: str, *, url: str, now: float) -> Cookie | None:
        """Take one Set-Cookie header of an answer from `url`. Returns the cookie, or None when it was refused.

        A Domain that the answering host is not part of is refused, and so is one of a single label: a tool must not
        plant cookies for its neighbours.
        """
        cookie = parse(header, url=url, now=now)
        if cookie is None:
            return None
        if cookie.expires is not None and cookie.expires <= now:
            if self._cookies.pop(cookie.key, None) is not None:
                self._changes[cookie.key] = None
            return cookie
        if cookie.key not in self._cookies and len(self._cookies) >= MAX_COOKIES:
            return None
        if self._cookies.get(cookie.key) != cookie:
            self._cookies[cookie.key] = cookie
            self._changes[cookie.key] = cookie
        return cookie

    def header_for(self, url: str, *, now: float) -> str:
        """The Cookie header for a request, or an empty text; longer paths first (RFC 6265 §5.4)."""
        parts = urlsplit(url)
        host, path = (parts.hostname or "").lower(), parts.path or "/"
        secure = parts.scheme == "https" or host == "localhost" or host.endswith(".localhost") or host == "127.0.0.1"
        fitting = [
            cookie
            for cookie in self._cookies.values()
            if (host == cookie.domain or (not cookie.host_only and host.endswith("." + cookie.domain)))
            and _path_fits(cookie.path, path)
            and (secure or not cookie.secure)
            and (cookie.expires is None or cookie.expires > now)
        ]
        fitting.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in fitting)

    def onto(self, newer: Jar) -> Jar:
        """Our changes applied to what another process has stored meanwhile."""
        merged = Jar(newer._cookies.values(), authorization=newer.authorization, user_agent=newer.user_agent)
        for key, cookie in self._changes.items():
            if cookie is None:
                merged._cookies.pop(key, None)
            else:
                merged._cookies[key] = cookie
        merged._changes = dict(self._changes)
        return merged

    def take_changes(self) -> dict[Key, Cookie | None]:
        """Hand over the changes and forget that they are unsaved; `put_back` undoes it."""
        taken, self._changes = self._changes, {}
        return taken

    def put_back(self, changes: Mapping[Key, Cookie | None]) -> None:
        """The save failed: these are unsaved again, unless changed once more meanwhile."""
        self._changes = {**changes, **self._changes}

    def only(self, names: frozenset[str]) -> Jar:
        """A jar of the named cookies alone: the device part of a login."""
        return Jar((c for c in self._cookies.values() if c.name in names), user_agent=self.user_agent)

    def without(self, names: frozenset[str]) -> Jar:
        """The jar without the named cookies."""
        kept = (c for c in self._cookies.values() if c.name not in names)
        return Jar(kept, authorization=self.authorization, user_agent=self.user_agent)

    def values(self) -> tuple[tuple[str, str], ...]:
        """Names and values of all cookies."""
        return tuple((cookie.name, cookie.value) for cookie in self._cookies.values())

    def to_json(self) -> bytes:
        """For sealing."""
        cookies = [asdict(cookie) for cookie in self._cookies.values()]
        return json.dumps(
            {"cookies": cookies, "authorization": self.authorization, "user_agent": self.user_agent}
        ).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Jar:
        """The inverse of `to_json`."""
        read = json.loads(data)
        cookies = (Cookie(**cookie) for cookie in read["cookies"])
        return cls(cookies, authorization=read["authorization"], user_agent=read["user_agent"])


def parse(header: str, *, url: str, now: float) -> Cookie | None:
    """One Set-Cookie header (RFC 6265 §5.2, §5.3), or None when it must be ignored."""
    if len(header) > MAX_COOKIE_BYTES or any(ord(c) < 0x20 and c != "\t" for c in header):
        return None
    pair, *attributes = header.split(";")
    name, equals, value = pair.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name:
        return None
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    cookie = Cookie(name, value, host, _default_path(parts.path), host_only=True, secure=False)
    max_age: float | None = None
    for attribute in attributes:
        key, _, given = attribute.partition("=")
        key, given = key.strip().lower(), given.strip()
        if key == "domain" and given.lstrip("."):
            domain = given.lstrip(".").lower()
            if domain == host:
                cookie = replace(cookie, host_only=False)
            elif "." in domain and host.endswith("." + domain):
                cookie = replace(cookie, domain=domain, host_only=False)
            else:
                return None
        elif key == "path":
            cookie = replace(cookie, path=given if given.startswith("/") else _default_path(parts.path))
        elif key == "secure":
            cookie = replace(cookie, secure=True)
        elif key == "max-age" and given.removeprefix("-").isdigit():
            max_age = now + min(int(given), 400 * 86400) if int(given) > 0 else 0.0
        elif key == "expires":
            cookie = replace(cookie, expires=_instant(given))
    return cookie if max_age is None else replace(cookie, expires=max_age)


def _instant(text: str) -> float | None:
    """An Expires date; None, a session cookie, when it cannot be read (RFC 6265 §5.2.1)."""
    try:
        moment = parsedate_to_datetime(text.replace("-", " "))
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _default_path(path: str) -> str:
    folder = path.rpartition("/")[0]
    return folder if folder.startswith("/") else "/"


def _path_fits(cookie_path: str, path: str) -> bool:
    return path == cookie_path or path.startswith(cookie_path if cookie_path.endswith("/") else cookie_path + "/")
