"""Forms on their way: fields inside a multipart body, and forms that take their time (VA-50, VA-54).

Both were found with an application that nobody here wrote: its forms are multipart, and its routes tell actions apart by a field.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from connectors.gateway.multipart import MAX_HEAD, Fields, Odd, fields_of
from tests.fakes.device import Device, Got, in_loop, staged, until

KIND = {"Content-Type": "multipart/form-data; boundary=x"}
FILM = b"A" * 200_000


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body. parts: what stands after `form-data; `, and a content."""
    made = b"".join(b"--x\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + value + b"\r\n" for head, value in parts)  # fmt: skip
    return made + b"--x--\r\n"


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


@in_loop
async def test_VA_54_a_multipart_form_passes_where_a_route_looks_at_fields_and_its_fields_count() -> None:
    async with staged(replace={"/index.php?act=plan": "/upload?act=plan"}) as stage:
        device = stage.person()
        good = form(('name="act"', b"home"), ('name="film"; filename="plan"', FILM), ('name="note"', b"act=plan"))
        answer = await device.post("/upload", data=in_pieces(good, 70_000), headers=KIND)
        assert answer.status == 200
        assert stage.site.uploads == [good], "byte for byte"
        for bad in (
            form(('name="film"; filename="f"', FILM), ('name="act"', b"plan")),
            form(
                ('name="ACT"', b" Plan \r\n"),
            ),
            form(('name="act"; filename="x"', b"plan")),
            form(('name="act"', b"home"), ('name="act"', b"plan")),
        ):
            for size in (len(bad), 7000):
                stopped = await device.post("/upload", data=in_pieces(bad, size), headers=KIND)
                assert (stopped.status, stopped.page) == (403, "route_denied"), bad[:200]
        for odd in (
            form(("name=act", b"plan")),
            form(('name="a\\"; name="act"', b"plan")),
            form(("name*=utf-8''act", b"plan")),
            form(('name="act"\r\nContent-Transfer-Encoding: base64', b"cGxhbg==")),
            b"preamble\r\n" + form(('name="act"', b"plan")),
            form(('name="film"', b"1"))[:-4],
            form(('name="film"', b"1")) + b"--x\r\nmore",
        ):
            assert (await device.post("/upload", data=in_pieces(odd, 7000), headers=KIND)).status == 400, odd
        for kind in ("multipart/form-data", "multipart/form-data; boundary=x; boundary=y", "multipart/mixed; boundary=x", "text/plain"):  # fmt: skip
            refused = await device.post("/upload", data=good, headers={"Content-Type": kind})
            assert refused.page == "route_denied", kind
        assert stage.site.uploads == [good], "the tool never got a whole form of these"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1000])
def test_fields_are_found_at_every_border(size: int) -> None:
    body = form(('name="a"', b"1"), ('name="empty"', b""), ('name="f"; filename="f"', b"\r\n--y\r\n\r\n"), ('name="b"', "店".encode()))  # fmt: skip
    reader = fields_of('multipart/form-data; boundary="x"', "utf-8")
    assert reader is not None
    found = [pair for start in range(0, len(body), size) for pair in reader.feed(body[start : start + size])]
    assert found == [("a", "1"), ("empty", ""), ("f", "--y"), ("b", "店")]
    assert reader.ended


def test_a_head_without_end_costs_no_memory() -> None:
    reader = Fields(b"x", "utf-8")
    with pytest.raises(Odd):
        reader.feed(b"--x\r\nContent-Type: " + b"a" * MAX_HEAD)


@in_loop
async def test_VA_50_a_form_begun_before_the_cut_and_finished_after_it() -> None:
    """The body of a form can be held back by its sender for an hour; what is sent then must not reach the tool."""
    async with staged(sweep_s=60) as stage:
        device = stage.person()
        assert (await device.get("/home")).status == 200
        before, finish = len(stage.site.hits), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"a=1&"
            await finish.wait()
            yield b"b=2"

        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        asking = asyncio.create_task(device.post("/form", data=slowly(), headers=kind))
        questions = stage.house.questions
        await until(lambda: stage.house.questions > questions)
        stage.house.cut("gs-1", ring=False)
        finish.set()
        assert (await asking).page == "ended"
        assert len(stage.site.hits) == before


@in_loop
async def test_VA_50_the_sweep_ends_a_form_that_is_still_on_its_way() -> None:
    async with staged() as stage:
        device = stage.person()
        never = asyncio.Event()

        async def forever() -> AsyncIterator[bytes]:
            yield b"a=1&"
            await never.wait()

        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        asking = asyncio.create_task(_quietly(device, forever(), kind))
        questions = stage.house.questions
        await until(lambda: stage.house.questions > questions)
        stage.house.cut("gs-1")
        answer = await asking
        never.set()
        assert answer is None or answer.page == "ended"
        assert stage.site.hits == []


async def _quietly(device: Device, body: AsyncIterator[bytes], kind: dict[str, str]) -> Got | None:
    try:
        return await device.post("/form", data=body, headers=kind)
    except aiohttp.ClientError:
        return None  # the connection was broken while this side was still writing
