"""Is there a login that travels in a body? Candidates are found in the traffic of a browser, and each is tried alone.

CSRF headers and tokens in addresses are normal; so a candidate counts only when the tool takes it for a login without any cookie
(§7). Such a tool gives its login to every script of its pages, and so to every device: the gateway cannot keep it back.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode

import aiohttp
from yarl import URL

from connectors.certify.look import Traffic
from connectors.egress import judge_url
from connectors.engine.http_driver import MAX_PAGE, USER_AGENT
from connectors.engine.outcome import standing
from connectors.recipes import urls
from connectors.recipes.checks import Page
from connectors.recipes.model import Recipe

MOST: Final = 24
MIN_CHARS: Final = 20
MIN_BITS: Final = 3.0
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
_RUN: Final = re.compile(r"[A-Za-z0-9_\-.~+/=:|]{20,2048}")
_OUT: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may be a login. place: `header Name` or `query name`, for evidence; seen_at: a GET that it went with."""

    place: str
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    seen_at: str | None = None


def candidates(traffic: Traffic, recipe: Recipe) -> list[Candidate]:
    """What to try, the likeliest first."""
    told = "\n".join([*traffic.bodies, *traffic.stored])
    first: dict[Candidate, None] = {}
    second: dict[Candidate, None] = {}
    for sent in traffic.sent:
        parts = urls.parts(sent.url)
        if parts.netloc.lower() not in recipe.hosts.declared:
            continue
        seen_at = sent.url if sent.method == "GET" else None
        for name, value in sent.headers.items():
            low = name.lower()
            if low == "authorization":
                first[Candidate("header Authorization", (("Authorization", value),), seen_at=seen_at)] = None
            elif low.startswith("x-") and _is_token(value) and value in told:
                second[Candidate(f"header {low}", ((name, value),), seen_at=seen_at)] = None
        for name, value in parse_qsl(parts.query):
            if _is_token(value):
                second[Candidate(f"query {name}", query=((name, value),))] = None
    for jwt in _JWT.findall(told):
        first[_bearer("body", jwt)] = None
    for wire in traffic.wires:
        for name, value in parse_qsl(urls.parts(wire.url).query):
            if _is_token(value):
                second[Candidate(f"query {name}", query=((name, value),))] = None
        for run in (run for said in wire.said for run in _RUN.findall(said)):
            if _is_token(run) and run in told:
                second[_bearer("socket", run)] = None
    return [*first, *(one for one in second if one not in first)][:MOST]


def _bearer(place: str, value: str) -> Candidate:
    return Candidate(place, (("Authorization", f"Bearer {value}"),))


def _is_token(value: str) -> bool:
    if len(value) < MIN_CHARS or not _RUN.fullmatch(value):
        return False
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
    return bits >= MIN_BITS


async def logs_in(client: aiohttp.ClientSession, recipe: Recipe, candidate: Candidate, *, loopback: bool) -> bool:
    """Whether the tool takes a candidate alone, without the jar, for a login: on the probe, or where it was seen."""
    query = urlencode(candidate.query)
    probe = recipe.checks.probe
    if query:
        probe += ("&" if "?" in probe else "?") + query
    page = await fetch(client, recipe, probe, dict(candidate.headers), loopback=loopback)
    if standing(recipe, page) == "logged_in":
        return True
    if not candidate.headers or candidate.seen_at is None:
        return False
    alone = await fetch(client, recipe, candidate.seen_at, dict(candidate.headers), loopback=loopback)
    without = await fetch(client, recipe, candidate.seen_at, {}, loopback=loopback)
    return alone.status < 300 and without.status in _OUT


async def fetch(
    client: aiohttp.ClientSession, recipe: Recipe, url: str, headers: dict[str, str], *, loopback: bool
) -> Page:
    """One GET without a cookie. Raises what aiohttp raises, and Refused for a host that is not declared."""
    judge_url(url, recipe.hosts.declared, loopback=loopback)
    given = {"User-Agent": USER_AGENT, "Accept": "text/html,*/*;q=0.5", "Accept-Language": "ja,en;q=0.5", **headers}
    async with client.get(URL(url, encoded=True), headers=given, allow_redirects=False) as answer:
        html = ""
        if answer.content_type.endswith(("html", "xml")):
            html = (await answer.content.read(MAX_PAGE)).decode(answer.charset or recipe.charset, "replace")
        location = answer.headers.get("Location") if 300 <= answer.status < 400 else None
        return Page(url, answer.status, html, urls.joined(url, location) if location else None)
