"""Headers, bodies, routes and sockets: the tables of vault-and-gateway.md §8, over a real connection (VA-41, VA-52 to VA-57)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import socket as sockets
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import WSMsgType, encode_basic_auth

from connectors.gateway.rules import BadPath, normal_path
from tests.fakes.device import IDP, PASSWORD, in_loop, staged, until
from tests.fakes.spill import hits
from tests.fakes.tools.site import CSRF, SESSION, Site


@in_loop
async def test_VA_41_a_whole_day_at_the_tool_and_no_secret_on_the_device() -> None:
    async with staged() as stage:
        device = stage.person()
        session, token = next(iter(stage.site.sessions.items()))
        await device.get("/home")
        await device.post("/form", data={"a": "1"}, headers={"X-CSRF": device.cookies[CSRF]})
        for path in ("/leak", "/leak-json", "/leak-header", "/headers", "/list.csv", f"/set?c={quote('late=' + 'v' * 20)}", "/nothing", "/login",
                     "/go?to=/home", "/account/password"):  # fmt: skip
            await device.get(path)
        with pytest.raises(aiohttp.ClientError):
            await device.get("/leak-stream")
        async with device.socket("/live") as socket:
            await socket.send_str("leak")
            message = await socket.receive()
            device.seen += str(message.data).encode()
        assert (
            hits(bytes(device.seen), {"password": PASSWORD, "session": session, "a cookie set later": "v" * 20}) == []
        )
        assert device.cookies[CSRF] == token, "the one exception, on the recipe's list"
        assert SESSION not in device.cookies
        await until(lambda: len(stage.house.alarms) == 5)
        assert {code for code, _ in stage.house.alarms} == {"secret_in_answer"}, "page, JSON, header, stream, socket"


@in_loop
async def test_VA_41_the_byte_scan_can_fail() -> None:
    """Positive control: with the scan set off, the same tool does hand out its password."""
    async with staged(scan=False) as stage:
        device = stage.person()
        for path, dress in (("/leak-json", "password (JSON)"), ("/leak", "password (HTML)")):
            device.seen.clear()
            await device.get(path)
            assert dress in hits(bytes(device.seen), {"password": PASSWORD})


@in_loop
async def test_VA_52_cookies_stay_and_only_the_mirror_goes_on() -> None:
    async with staged() as stage:
        device = stage.person()
        device.cookies["theme"] = '"a\\073 tool_sess=planted"'
        await device.get("/home")
        assert "planted" not in stage.site.hits[-1].headers["Cookie"], "a semicolon in octal"
        device.cookies |= {SESSION: "planted", "theme": "dark", "other": "1"}
        device.cookies.pop(CSRF)
        home = await device.get("/home", headers={"Authorization": "Bearer x", "Proxy-Authorization": "y"})
        sent = stage.site.hits[-1].headers
        session = next(iter(stage.site.sessions))
        assert f"{SESSION}={session}" in sent["Cookie"]
        assert "planted" not in sent["Cookie"]
        assert "theme=dark" in sent["Cookie"]
        assert "other" not in sent["Cookie"]
        assert "__Host-sekisho" not in sent["Cookie"]
        assert "Authorization" not in sent
        assert [line.partition("=")[0] for line in home.all("Set-Cookie")] == [CSRF]
        assert "HttpOnly" not in home.all("Set-Cookie")[0]
        assert (await device.get("/home")).all("Set-Cookie") == [], "not sent again while the browser has it"


@in_loop
async def test_a_changed_cookie_is_stored_before_the_answer_leaves_and_others_see_it() -> None:
    async with staged() as stage:
        device, colleague = stage.person("gs-1"), stage.person("gs-2")
        stage.house.conflicts = 1
        await device.get(f"/set?c={quote('cart=42; Path=/')}")
        await colleague.get("/home")
        line = stage.site.hits[-1].headers["Cookie"]
        assert "cart=42" in line
        assert "other1=theirs" in line, "a conflict was merged"
        stage.house.conflicts = 9
        assert (await device.get(f"/set?c={quote('cart=43; Path=/')}")).page == "unavailable"


@in_loop
async def test_request_headers_to_the_tool() -> None:
    async with staged() as stage:
        device = stage.person()
        given = {
            "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=x", "Via": "x", "X-Real-IP": "x", "X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/staff/new",
            "Sec-CH-UA": "x", "Connection": "keep-alive, X-Secret-Hop", "X-Secret-Hop": "1", "If-None-Match": '"1"', "Accept": "text/html", "X-CSRF": "t",
            "Referer": f"{device.origin}/home?x=1", "Accept-Encoding": "br, zstd",
        }  # fmt: skip
        await device.get("/headers", headers=given)
        seen = {k.lower(): v for k, v in stage.site.hits[-1].headers.items()}
        for name in (
            "x-forwarded-for",
            "forwarded",
            "via",
            "x-real-ip",
            "x-http-method-override",
            "x-original-url",
            "sec-ch-ua",
            "x-secret-hop",
            "if-none-match",
        ):
            assert name not in seen, name
        assert seen["host"] == stage.site.host
        assert seen["user-agent"] == "Engine/1", "a session tied to the browser that logged in"
        assert seen["referer"] == f"http://{stage.site.host}/home?x=1"
        assert seen["accept-encoding"] == "gzip, deflate"
        assert (seen["accept"], seen["x-csrf"]) == ("text/html", "t")


@in_loop
async def test_response_headers_to_the_browser() -> None:
    async with staged() as stage:
        device = stage.person()
        home = await device.get("/home")
        for name in ("Strict-Transport-Security", "ETag"):
            assert home.header(name) is None, name
        theirs, ours = home.all("Content-Security-Policy")
        assert theirs == f"default-src 'self' http://{device.host}"
        assert "frame-ancestors 'none'" in ours
        assert home.header("Server") == "sekisho"
        assert home.header("Cache-Control") == "no-store"
        assert home.header("Referrer-Policy") == "same-origin"
        assert (await device.get("/static/a.css")).header("Cache-Control") == "private, max-age=3600"


@in_loop
async def test_VA_14_basic_auth_is_injected_and_never_asked_of_the_browser() -> None:
    site = Site({"login_id": "store-7", "password": PASSWORD}, basic=True)
    async with staged(site) as stage:
        device = stage.person()
        tool = stage.house.tool_sessions["ts-1"]
        jar = (await stage.house.load("ts-1")).jar
        jar.authorization = encode_basic_auth("store-7", PASSWORD)
        tool.jar, tool.version = jar.to_json(), 2
        assert (await device.get("/home", headers={"Authorization": "Basic bad"})).status == 200
        assert stage.site.hits[-1].headers["Authorization"] == jar.authorization
        jar.authorization = None
        tool.jar, tool.version = jar.to_json(), 3
        missing = await device.get("/home")
        assert missing.header("WWW-Authenticate") is None
        assert missing.page == "needs_human", "401 is a sign of a lost login"


@in_loop
async def test_addresses_are_rewritten_as_bytes_in_the_charset_of_the_page() -> None:
    async with staged(
        Site({"login_id": "a", "password": PASSWORD}, charset="cp932", other_host="127.0.0.1:9")
    ) as stage:
        device = stage.person()
        home = await device.get("/home")
        text = home.body.decode("cp932")
        assert "髙橋①" in text
        assert f'href="http://{device.host}/form"' in text
        assert f"http:\\/\\/{device.host}\\/api" in text
        assert f"http%3A%2F%2F{device.host}%2Fhome" in text
        assert f'href="http://{device.host.replace("gs-1", "gs-1-2")}/home"' in text, (
            "the second host is an origin of the same session"
        )
        assert f"http://{stage.site.host}.evil.example/" in text, "a longer name is another name"
        assert stage.site.host not in text.replace(f"{stage.site.host}.evil", "")


@in_loop
async def test_forms_are_mapped_back() -> None:
    async with staged() as stage:
        device = stage.person()
        await device.get("/home")
        await device.post(
            "/form?u=1", data={"next": f"http://{device.host}/home"}, headers={"X-CSRF": device.cookies[CSRF]}
        )
        hit = stage.site.hits[-1]
        assert hit.headers["Origin"] == f"http://{stage.site.host}"
        assert quote(f"http://{stage.site.host}/home", safe="").encode() in hit.body
        assert hit.headers["Content-Length"] == str(len(hit.body))


@in_loop
async def test_downloads_and_uploads_arrive_byte_for_byte() -> None:
    async with staged() as stage:
        device = stage.person()
        csv = await device.get("/list.csv")
        assert csv.body == "店舗,氏名\r\n渋谷,髙橋①\r\n".encode("cp932")
        assert csv.header("Content-Disposition") == "attachment; filename=list.csv"
        data = bytes(range(256)) * 4000
        answer = await device.post(
            "/upload", data=io.BytesIO(data), headers={"Content-Type": "application/octet-stream"}
        )
        assert f'"length": "{len(data)}"' in answer.text, "old tools refuse a chunked body"
        assert hashlib.sha256(stage.site.uploads[0]).digest() == hashlib.sha256(data).digest()


@in_loop
async def test_an_upload_above_the_limit_is_refused_with_and_without_a_length() -> None:
    async with staged() as stage:
        device = stage.person()
        data = b"x" * (2 * 1024 * 1024 + 1)

        async def pieces() -> object:
            for start in range(0, len(data), 65536):
                yield data[start : start + 65536]

        kind = {"Content-Type": "application/octet-stream"}
        assert (await device.post("/upload", data=io.BytesIO(data), headers=kind)).status == 413
        assert (await device.post("/upload", data=pieces(), headers=kind)).status == 413
        assert stage.site.uploads == []


@in_loop
async def test_redirects_stay_inside_or_name_where_they_lead() -> None:
    async with staged() as stage:
        device = stage.person()
        inside = await device.get(f"/go?to={quote(f'http://{stage.site.host}/home?x=/y', safe='')}")
        assert inside.header("Location") == f"http://{device.host}/home?x=/y"
        assert (await device.get("/go?to=/home")).header("Location") == f"http://{device.host}/home"
        for target in (
            "https://evil.example/x",
            "//evil.example/x",
            "javascript:alert(1)",
            "http://10.0.0.1/",
            "http://[x/",
            "https://a:b/",
            f"http://{stage.site.host}@evil.example/",
        ):
            stopped = await device.get(f"/go?to={quote(target, safe='')}")
            assert (stopped.status, stopped.page) == (502, "stop"), target
            assert stopped.header("Location") is None
        assert "evil.example" in (await device.get("/go?to=https://evil.example/x")).text
        assert all(hit.headers["Host"] == stage.site.host for hit in stage.site.hits), "VA-56"


DENIED = [
    "/account/password", "/account/password/", "/ACCOUNT/Password", "/account/%70assword", "/account//password", "/account/./password",
    "/account/x/../password", "/account/password;v=1", "/account;a=b/password/x", "/account/%2e/password", "/x/%2e%2e/account/password",
    "/index.php?act=plan", "/index.php?x=1&ACT=PLAN", "/index.php?act=home&act=plan", "/index.php?a=1;act=plan", "/index.php?act=%70lan",
]  # fmt: skip
MALFORMED = ["/account%2570assword", "/account/%255cpassword", "/account%5cpassword", "/a%00b", "/a%0d%0ab"]


@in_loop
async def test_VA_54_deny_routes_hold_however_they_are_written() -> None:
    async with staged() as stage:
        device = stage.person()
        for path in DENIED:
            answer = await device.get(path)
            assert (answer.status, answer.page) == (403, "route_denied"), path
        for path in MALFORMED:
            assert (await device.get(path)).status == 400, path
        for headers, data in (
            ({"Content-Type": "application/x-www-form-urlencoded"}, b"act=plan"),
            (
                {"Content-Type": "multipart/form-data; boundary=x"},
                b'--x\r\nContent-Disposition: form-data; name="act"\r\n\r\nplan\r\n--x--',
            ),
        ):
            assert (await device.post("/index.php", data=data, headers=headers)).page == "route_denied"
        assert (await device.post("/staff/new", data=b"")).page == "route_denied"
        assert (
            await device.ask(
                "PUT",
                "/staff/new",
                data=b"_method=POST",
                headers={"Origin": device.origin, "Content-Type": "application/x-www-form-urlencoded"},
            )
        ).page == "route_denied"
        assert (await device.ask("HEAD", "/account/password")).status == 403
        assert stage.site.hits == []
        await asyncio.sleep(0.7)
        ended = [row for row in stage.house.rows if row.status is not None]
        assert {row.rule for row in ended} == {"deny"}
        assert [row.route for row in stage.house.rows if row.rule == "allow"] == ["/index.php"], (
            "the upload that was stopped"
        )


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/a/../../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/%E6%97%A5", "/日"),
        ("//a", "/a"),
        ("/a;x/b", "/a/b"),
        ("/%83%65", "/テ"),
        ("/a-b_c~1.html", "/a-b_c~1.html"),
        ("/a/.b/...", "/a/.b/..."),
        ("/a/./b/", "/a/b/"),
        ("/a/b//", "/a/b/"),
        ("/日", "/日"),
    ],
)
def test_paths_are_read_as_tools_read_them(raw: str, path: str) -> None:
    assert normal_path(raw, "cp932") == path


@pytest.mark.parametrize("raw", ["http://x/", "", "*", "/%2525", "/\\a", "/%5c"])
def test_paths_with_two_readings_are_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        normal_path(raw, "utf-8")


@in_loop
async def test_other_sites_and_other_tools_cannot_use_the_cookie() -> None:
    """WB: cross-site requests, and pages of another tool on the same gateway domain."""
    async with staged() as stage:
        device = stage.person()
        refused = [
            ("GET", {"Sec-Fetch-Site": "cross-site"}),
            ("POST", {"Origin": "https://evil.example"}),
            ("POST", {"Origin": "null"}),
            ("POST", {"Origin": "http://other-tool.gw.localhost"}),
            ("POST", {}),
            ("POST", {"Sec-Fetch-Site": "same-site"}),
            ("GET", {"Origin": "http://other-tool.gw.localhost"}),
            ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}),
            ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Referer": "http://other-tool.gw.localhost/"}),
        ]  # fmt: skip
        for method, headers in refused:
            answer = await device.ask(method, "/home", headers=headers)
            assert (answer.status, answer.page) == (403, "cross_site"), headers
        assert (await device.get("/sw.js", headers={"Service-Worker": "script"})).page == "worker_refused"
        assert stage.site.hits == []
        assert (
            await device.get("/home", headers={"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"})
        ).status == 200


@in_loop
async def test_VA_55_the_tools_login_page_is_never_served_and_logout_ends_only_this_person() -> None:
    async with staged() as stage:
        device, colleague = stage.person("gs-1"), stage.person("gs-2")
        to_landing = await device.get("/login?next=/x")
        assert (to_landing.status, to_landing.header("Location")) == (303, f"{device.origin}/home")
        assert (await device.post("/login", data=b"x")).status == 403
        left = await device.get("/logout")
        assert (left.status, left.header("Location")) == (303, f"{IDP}/tools")
        assert stage.house.ended("gs-1") == "signed_out"
        assert "GET /logout" not in stage.site.paths(), "the shared login of the tool lives on"
        assert (await colleague.get("/home")).status == 200


@in_loop
async def test_sockets_only_where_the_recipe_says_and_from_the_own_origin() -> None:
    async with staged() as stage:
        device = stage.person()
        for path, origin in (("/home", device.origin), ("/live", "http://evil.example"), ("/live", "null")):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with device.socket(path, Origin=origin):
                    pass
            assert refused.value.status == 403
        async with device.socket("/live") as socket:
            assert socket.protocol == "v1"
            await socket.send_bytes(b"\x00\x01")
            assert (await socket.receive()).data == b"\x00\x01"
            await socket.send_bytes(b"x" * (1024 * 1024 + 1))
            message = await socket.receive()
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
            assert socket.close_code == 1009
        hit = stage.site.hits[-1].headers
        assert hit["Origin"] == f"http://{stage.site.host}"


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, family=sockets.AF_INET)
    writer.write(data)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(200), 3)
    writer.close()
    return answer


@in_loop
async def test_VA_57_framing_that_two_servers_could_read_in_two_ways() -> None:
    async with staged() as stage:
        device = stage.person()
        cookie = "; ".join(f"{k}={v}" for k, v in device.cookies.items())
        head = f"Host: {device.host}\r\nCookie: {cookie}\r\nOrigin: {device.origin}\r\n"
        smuggling = [
            f"POST /form HTTP/1.1\r\n{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            f"POST /form HTTP/1.1\r\n{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            f"POST /form HTTP/1.1\r\n{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            f"POST /form HTTP/1.1\r\n{head}Content-Length : 5\r\n\r\nhello",
            f"POST /form HTTP/1.1\r\n{head}Content-Length: +5\r\n\r\nhello",
            f"GET /home HTTP/1.1\r\n{head}Host: other.gw.localhost\r\n\r\n",
            f"GET http://evil.example/home HTTP/1.1\r\n{head}\r\n",
        ]
        for text in smuggling:
            first = (await raw(stage.port, text.encode())).split(b"\r\n")[0]
            assert first.split(b" ")[1] in {b"400", b"421"}, (text, first)
        many = "".join(f"X-{i}: 1\r\n" for i in range(70))
        assert b" 431 " in await raw(stage.port, f"GET /home HTTP/1.1\r\n{head}{many}\r\n".encode())
        assert b" 405 " in await raw(stage.port, f"PROPFIND /home HTTP/1.1\r\n{head}\r\n".encode())
        assert stage.site.hits == []


@in_loop
async def test_an_answer_that_cannot_be_scanned_is_not_shown() -> None:
    async with staged() as stage:
        assert (await stage.person().get("/brotli")).page == "tool_away"
        assert (await stage.person().get("/part", headers={"Range": "bytes=0-9"})).page == "tool_away"


@in_loop
async def test_a_tool_that_is_away_and_one_that_is_slow() -> None:
    async with staged(upstream_s=0.2) as stage:
        device = stage.person()
        assert (await device.get("/slow")).page == "tool_slow"
        assert (await device.get("/half")).page == "tool_slow", "its head came in time, its body did not"
        away = stage.person("gs-3")
        closed = sockets.socket()
        closed.bind(("127.0.0.1", 0))
        stage.house.sessions["gs-3"].hosts = {away.host: stage.site.host}
        closed.close()
        stage.site.down = True
        assert (await away.get("/home")).status == 500, "the tool's own error is the tool's own page"
