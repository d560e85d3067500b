"""JupyterLab, Calibre-Web and Roundup, unmodified: login by recipe, a day's work through the gateway, and the cut (§17, claims 1 and 2)."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import random
import re
import struct
import uuid
import zipfile
from typing import Any

import aiohttp
import pytest

from connectors.cookies import Jar
from tests.fakes.device import Device, Got, in_loop_for
from tests.interop.tools.behind import Behind, Work, behind, cut_in_the_middle, driver
from tests.interop.tools.conftest import Peers

BLOB = random.Random(20261122).randbytes(1_500_000)


def csrf_of(page: Got, name: str) -> str:
    """The token of a form, as a browser would send it."""
    found = re.search(rf'name="{re.escape(name)}"[^>]*value="([^"]+)"', page.text)
    assert found, page.text[:2000]
    return found[1]


async def byte_for_byte(device: Device, path: str, data: bytes) -> None:
    """A download, whole and in part."""
    device.headers["Referer"] = f"{device.origin}/lab"  # as a browser does; JupyterLab refuses a download without it
    got = await device.get(path)
    assert got.status == 200, got.text[:300]
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(data).digest()
    part = await device.get(path, headers={"Range": "bytes=100-299"})
    assert (part.status, part.body) in ((206, data[100:300]), (200, data)), "a part, or a tool that knows no parts"


async def proven(tool: Behind) -> None:
    """Logged in with the jar of the login, logged out with an empty one (§7.4)."""
    engine = driver(tool.engine, tool.recipe, tool.peer.account)
    assert await engine.probe(tool.result.jar) == "logged_in"
    assert await engine.probe(Jar(user_agent=tool.result.jar.user_agent)) == "logged_out"
    assert tool.result.unguarded == ()


@in_loop_for(240)
async def test_VA_41_VA_50_roundup(peers: Peers) -> None:
    """One-time form tokens, multipart uploads, absolute redirects, a login form on every page."""
    async with behind(peers["roundup"]) as tool:
        await proven(tool)
        device = tool.person("gs-1")
        await device.get("/desk/issue")
        form = await device.get("/desk/issue?@template=item")
        fields = aiohttp.FormData(quote_fields=False)
        for name, value in {"title": "レジが開かない", "priority": "1", "@action": "new", "@template": "item"}.items():
            fields.add_field(name, value)
        fields.add_field("@csrf", csrf_of(form, "@csrf"))
        fields.add_field("@file", io.BytesIO(BLOB), filename="写真.bin", content_type="application/octet-stream")
        made = await device.post("/desk/issue", data=fields)
        assert made.status in (302, 303), made.text[:500]
        location = made.header("Location") or ""
        created = re.match(re.escape(device.origin) + r"(/desk/issue\d+)\?", location)  # another test may have made one
        assert created, location
        issue = created[1]
        shown = await device.get(location.removeprefix(device.origin))
        assert "レジが開かない" in shown.text
        assert tool.peer.host not in shown.text
        await byte_for_byte(device, "/desk/file1/", BLOB)
        replayed = await device.post(issue, data={"title": "x", "@action": "edit", "@csrf": csrf_of(form, "@csrf")})
        assert "レジが開かない" in (await device.get(issue)).text, replayed.text[:300]
        for path in ("/desk/user3", "/desk/user?@template=item", "/desk/rest/data/user", "/desk/USER3"):
            assert (await device.get(path)).page == "route_denied", path
        slow = b'--x\r\nContent-Disposition: form-data; name="@file"; filename="slow.bin"\r\n\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        await cut_in_the_middle(tool, Work("/desk/issue", "/desk/issue?slow=1", kind, slow, 10_000_000))
        left = tool.person("gs-3")
        assert (await left.get("/desk/?@action=logout")).status == 303
        assert tool.stage.house.sessions["gs-3"].ended == "signed_out"
        await proven(tool)
        await tool.assert_nothing_spilt()


@in_loop_for(240)
async def test_VA_41_VA_50_calibre_web(peers: Peers) -> None:
    """Session cookies that change with every answer, a CSRF field, an upload that makes a book, downloads in parts."""
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as made:
        made.writestr("mimetype", "application/epub+zip")
        made.writestr("META-INF/container.xml", '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles><rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>')  # fmt: skip
        made.writestr("c.opf", '<package xmlns="http://www.idpf.org/2007/opf" version="2.0" unique-identifier="i"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>店の手引き</dc:title><dc:creator>渋谷店</dc:creator><dc:identifier id="i">x</dc:identifier><dc:language>ja</dc:language></metadata><manifest/><spine/></package>')  # fmt: skip
        made.writestr("blob", BLOB)
    async with behind(peers["calibreweb"]) as tool:
        await proven(tool)
        device = tool.person("gs-1")
        home = await device.get("/")
        assert device.cookies.keys() == {"__Host-sekisho-gw"}
        fields = aiohttp.FormData(quote_fields=False)
        fields.add_field("csrf_token", csrf_of(home, "csrf_token"))
        fields.add_field(
            "btn-upload", io.BytesIO(book.getvalue()), filename="店の手引き.epub", content_type="application/epub+zip"
        )
        added = await device.post("/upload", data=fields)
        assert added.status == 200, added.text[:500]
        assert "店の手引き" in (await device.get("/book/1")).text
        await byte_for_byte(device, "/download/1/epub/tebiki.epub", book.getvalue())
        refused = await device.post("/ajax/toggleread/1", data={})
        assert refused.status == 400, "the tool's own CSRF check is still there"
        read = await device.post("/ajax/toggleread/1", data={"csrf_token": csrf_of(home, "csrf_token")})
        assert read.status == 200
        for path in ("/me", "/admin/user/3", "/verify/x", "/opds"):
            assert (await device.get(path)).page == "route_denied", path
        slow = b'--x\r\nContent-Disposition: form-data; name="btn-upload"; filename="slow.epub"\r\n\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        await cut_in_the_middle(tool, Work("/", "/upload?slow=1", kind, slow, 10_000_000))
        await proven(tool)
        await tool.assert_nothing_spilt()


V1 = "v1.kernel.websocket.jupyter.org"


def kernel_message(kind: str, content: dict[str, Any]) -> bytes:
    """A message on the shell channel in the binary form of the sub-protocol v1."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "session": "s", "username": "", "version": "5.3"}
    parts = [b"shell", *(json.dumps(part).encode() for part in (header, {}, {}, content))]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<Q{len(offsets)}Q", len(offsets), *offsets) + b"".join(parts)


def parts_of(data: bytes) -> list[bytes]:
    """The parts of such a message."""
    (count,) = struct.unpack_from("<Q", data)
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    return [data[a:b] for a, b in itertools.pairwise(offsets)]


async def runs(device: Device, socket: aiohttp.ClientWebSocketResponse, code: str = "1+1") -> str:
    """Have a kernel work something out."""
    await socket.send_bytes(kernel_message("execute_request", {"code": code, "silent": False}))
    async for message in socket:
        assert isinstance(message.data, bytes), message
        device.seen += message.data
        parts = parts_of(message.data)
        if json.loads(parts[1])["msg_type"] == "execute_result":
            return str(json.loads(parts[4])["data"]["text/plain"])
    pytest.fail(f"the socket was closed: {socket.close_code}")


async def two(device: Device, socket: aiohttp.ClientWebSocketResponse) -> None:
    assert await runs(device, socket) == "2"


@in_loop_for(240)
async def test_VA_41_VA_50_jupyterlab(peers: Peers) -> None:
    """A mirrored `_xsrf`, JSON uploads above the size that is rewritten, kernels and terminals over WebSockets, big scripts."""
    async with behind(peers["jupyterlab"]) as tool:
        await proven(tool)
        device = tool.person("gs-1")
        lab = await device.get("/lab")
        assert '"token": ""' in lab.text
        script = re.search(r'src="(/static/lab/main[^"]+)"', lab.text)
        assert script, lab.text[:2000]
        assert (await device.get(script[1])).header("Cache-Control") == "private, max-age=3600"

        document = {"type": "file", "format": "base64", "content": base64.b64encode(BLOB).decode()}
        data, kind = json.dumps(document).encode(), {"Content-Type": "application/json", "Origin": device.origin}
        refused = await device.ask("PUT", "/api/contents/blob.bin", data=io.BytesIO(data), headers=kind)
        assert (refused.status, refused.page) == (403, None), "the tool's own XSRF check is still there"
        kind["X-XSRFToken"] = device.cookies["_xsrf"]
        assert (await device.ask("PUT", "/api/contents/blob.bin", data=io.BytesIO(data), headers=kind)).status == 201
        await byte_for_byte(device, "/files/blob.bin", BLOB)

        started = await device.ask("POST", "/api/kernels", data=b"{}", headers=kind)
        kernel = json.loads(started.body)["id"]
        terminal = json.loads((await device.ask("POST", "/api/terminals", data=b"{}", headers=kind)).body)["name"]
        async with device.socket(f"/terminals/websocket/{terminal}", protocols=()) as socket:
            await socket.send_str(json.dumps(["stdin", "echo sum-$((40+2))\r"]))
            said = ""
            async for message in socket:
                device.seen += message.data.encode()
                said += str(json.loads(message.data)[1]) if message.data.startswith('["stdout"') else ""
                if "sum-42" in said:
                    break

        async def channel(device: Device) -> aiohttp.ClientWebSocketResponse:
            path = f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4()}"
            opened: aiohttp.ClientWebSocketResponse = await device.socket(path, protocols=(V1,))
            assert opened.protocol == V1
            return opened

        socket = await channel(device)
        assert await runs(device, socket, "'a' * 200_000") == repr("a" * 200_000)
        await socket.close()
        begins = b'{"type": "file", "format": "base64", "content": "'
        work = Work(
            "/lab", "/api/contents/slow.bin", kind, begins, 10_000_000, method="PUT", socket=channel, carries=two
        )
        kind.pop("Origin")
        await cut_in_the_middle(tool, work)
        await proven(tool)
        await tool.assert_nothing_spilt()


@in_loop_for(240)
async def test_VA_53_a_jupyterlab_that_hands_its_token_out_is_stopped(peers: Peers) -> None:
    """Started without a password, JupyterLab writes its login token into its page: the scan finds it where no recipe says so."""
    async with behind(peers["token"]) as tool:
        device = tool.person("gs-1")
        assert (await device.get("/lab")).page == "secret_in_answer"
        assert (await device.get("/api/status")).status == 200
        assert [code for code, _ in tool.stage.house.alarms] == ["secret_in_answer"]
        await tool.assert_nothing_spilt()
    async with behind(peers["token"], scan=False) as tool:
        device = tool.person("gs-1")
        assert (await device.get("/lab")).status == 200
        with pytest.raises(AssertionError, match="password"):
            await tool.assert_nothing_spilt()
