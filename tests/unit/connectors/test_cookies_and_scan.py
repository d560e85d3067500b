"""The jar keeps RFC 6265, and the scan finds a value in every dress (D9, VA-53)."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.cookies import MAX_COOKIES, Cookie, Jar, parse
from connectors.scanset import NO_GUARDS, Patterns, ScanSet, SecretFound, Stream, build, encodings, literals

URL = "https://www.tool.example/app/page"
NOW = 1_800_000_000.0
SECRET = 'p&ss/W0rd"<秘>+x'
KEY = b"k" * 32


def jar_of(*headers: str, url: str = URL) -> Jar:
    jar = Jar()
    for header in headers:
        jar.set_from(header, url=url, now=NOW)
    return jar


def test_cookies_go_where_they_came_from() -> None:
    jar = jar_of("a=1; Path=/", "b=2", "c=3; Domain=tool.example; Path=/", "d=4; Path=/app/deep")
    assert jar.header_for(URL, now=NOW) == "b=2; a=1; c=3"
    assert jar.header_for("https://api.tool.example/", now=NOW) == "c=3"
    assert jar.header_for("https://tool.example.evil/", now=NOW) == ""
    assert jar.header_for("https://www.tool.example/apple", now=NOW) == "a=1; c=3", "/app is not a prefix of /apple"


@pytest.mark.parametrize(
    "header",
    [
        "a=1; Domain=evil.example",
        "a=1; Domain=example",
        "a=1; Domain=x.www.tool.example",
        "no-equals",
        "=x",
        "a=\x01",
        "a=" + "x" * 9000,
    ],
)
def test_cookies_that_are_refused(header: str) -> None:
    assert parse(header, url=URL, now=NOW) is None


def test_expiry_deletes_and_max_age_wins() -> None:
    jar = jar_of("a=1", "b=1; Expires=Wed, 21 Oct 2099 07:28:00 GMT")
    jar.set_from("a=; Expires=Thu, 01-Jan-1970 00:00:01 GMT", url=URL, now=NOW)
    jar.set_from("b=2; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:01 GMT", url=URL, now=NOW)
    assert jar.header_for(URL, now=NOW) == "b=2"
    assert jar.header_for(URL, now=NOW + 11) == ""
    assert parse("c=3; Expires=nonsense", url=URL, now=NOW) == Cookie("c", "3", "www.tool.example", "/app", True, False)


def test_secure_cookies_stay_on_https() -> None:
    jar = jar_of("a=1; Secure; Path=/")
    assert jar.header_for("http://www.tool.example/", now=NOW) == ""


def test_a_jar_is_bounded_and_survives_sealing() -> None:
    jar = jar_of(*(f"c{i}={i}" for i in range(MAX_COOKIES + 5)))
    assert len(jar) == MAX_COOKIES
    jar.authorization = "Basic x"
    copy = Jar.from_json(jar.to_json())
    assert copy.values() == jar.values()
    assert copy.authorization == "Basic x"
    assert not copy.changed


def test_a_conflict_keeps_both_changes() -> None:
    stored = jar_of("a=old", "gone=1")
    ours, theirs = Jar.from_json(stored.to_json()), Jar.from_json(stored.to_json())
    ours.set_from("a=ours", url=URL, now=NOW)
    ours.set_from("gone=; Max-Age=0", url=URL, now=NOW)
    theirs.set_from("b=theirs", url=URL, now=NOW)
    merged = ours.onto(Jar.from_json(theirs.to_json()))
    assert dict(merged.values()) == {"a": "ours", "b": "theirs"}
    assert not Jar.from_json(stored.to_json()).changed


DRESSES = [
    SECRET.encode(), SECRET.encode("cp932"), quote(SECRET, safe="").encode(), quote(SECRET).encode(),
    html.escape(SECRET).encode(), json.dumps(SECRET).encode(), json.dumps(SECRET, ensure_ascii=False).encode(), SECRET.encode().hex().encode(),
    *(base64.b64encode(b"q" * n + SECRET.encode() + b"tail") for n in range(3)),
    *(base64.urlsafe_b64encode(b"q" * n + SECRET.encode() + b"tail") for n in range(3)),
    SECRET.encode("utf-16-le"), SECRET.encode("utf-16-be"),
]  # fmt: skip


@pytest.mark.parametrize("dress", DRESSES, ids=range(len(DRESSES)))
def test_VA_53_every_dress_is_seen_and_the_set_holds_no_value(dress: bytes) -> None:
    scan = build([SECRET], key=KEY, charset="cp932")
    assert Patterns(scan=scan).found_in(b"<p>before " + dress + b" after")
    assert Patterns(literals=(*literals([SECRET]), SECRET.encode("cp932"))).found_in(b"<p>before " + dress + b" after")
    assert SECRET.encode() not in scan.to_json()
    assert ScanSet.from_json(scan.to_json()) == scan
    assert all(len(guard.anchor) == 4 for guard in scan.guards)


def test_short_values_and_other_values_are_not_guarded() -> None:
    assert build(["short"], key=KEY).guards == ()
    assert not Patterns(scan=build([SECRET], key=KEY)).found_in(SECRET[:-1].encode() + b"y" * 100)
    assert not Patterns(scan=NO_GUARDS).found_in(SECRET.encode())


@given(st.integers(0, 40), st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_VA_53_no_piece_of_a_match_leaves_however_it_is_cut(before: int, sizes: list[int]) -> None:
    value = "correct-horse-battery"
    body = b"x" * before + value.encode() + b"y" * 30
    stream = Stream(Patterns(literals=(value.encode(),)))
    pieces, position, sent = [], 0, bytearray()
    for size in (*sizes, len(body)):
        pieces.append(body[position : position + size])
        position += size
    with pytest.raises(SecretFound):
        _feed(stream, pieces, sent)
    assert b"c" not in sent


def _feed(stream: Stream, pieces: list[bytes], sent: bytearray) -> None:
    for piece in pieces:
        sent += stream.feed(piece)


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=10))
def test_a_clean_stream_arrives_whole(body: bytes, sizes: list[int]) -> None:
    stream = Stream(Patterns(literals=(b"\x00never\x00",)))
    sent, position = b"", 0
    for size in (*sizes, len(body)):
        sent += stream.feed(body[position : position + size])
        position += size
    assert sent + stream.finish() == body or b"\x00never\x00" in body


def test_events_leave_at_line_ends() -> None:
    stream = Stream(Patterns(literals=(b"a-very-long-guarded-value",)), lines=True)
    assert stream.feed(b"data: 1\n\ndata: par") == b"data: 1\n\n"


def test_encodings_are_long_enough_to_mean_something() -> None:
    assert all(len(form) >= 8 for form in encodings("abcdefgh"))
