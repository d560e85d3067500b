"""Files that leave for an auditor's desk: CSV for spreadsheets and JSON lines, streamed in constant memory, marked at both ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from flask import Response, stream_with_context

from idp.core.spreadsheet import Encoding, Sheet
from idp.edges import browser, language
from idp.edges.browser import Looking

#: the forms a file can have, and the encoding of each
FORMATS: dict[str, Encoding] = {"csv": "utf-8", "csv-cp932": "cp932", "jsonl": "utf-8"}


def download(
    looking: Looking, name: str, kind: str, chunks: Iterator[list[dict[str, Any]]], *, question: dict[str, Any],
    columns: tuple[str, ...],
) -> Response:  # fmt: skip
    """A streamed file. First and last line say who took it, when, what was asked, and how many rows it holds: without the last
    line it was cut off."""
    now = browser.now()
    who = {
        "by": f"{looking.viewer.company_code}/{looking.viewer.login_name}",
        "name": looking.viewer.name,
        "at": language.iso(now),
    }
    mark = {"export": f"sekisho-{name}-1", **who, "asked": question}
    make = _jsonl if kind == "jsonl" else _csv
    body = make(mark, chunks, columns, kind)
    answer = Response(stream_with_context(body), mimetype="application/x-ndjson" if kind == "jsonl" else "text/csv")
    if kind != "jsonl":
        answer.headers["Content-Type"] = f"text/csv; charset={Sheet(FORMATS[kind]).charset}; header=present"
    suffix = "jsonl" if kind == "jsonl" else "csv"
    stamp = now.astimezone(language.JST).strftime("%Y%m%d-%H%M%S")
    login = looking.viewer.login_name
    answer.headers["Content-Disposition"] = f'attachment; filename="sekisho-{name}-{stamp}-{login}.{suffix}"'
    return answer


def _jsonl(
    mark: dict[str, Any], chunks: Iterator[list[dict[str, Any]]], columns: tuple[str, ...], kind: str
) -> Iterator[bytes]:
    del kind
    count = 0
    yield _json(mark) + b"\n"
    for rows in chunks:
        count += len(rows)
        yield b"".join(_json({name: row[name] for name in columns}) + b"\n" for row in rows)
    yield _json({"end": mark["export"], "rows": count, "by": mark["by"], "at": mark["at"]}) + b"\n"


def _csv(
    mark: dict[str, Any], chunks: Iterator[list[dict[str, Any]]], columns: tuple[str, ...], kind: str
) -> Iterator[bytes]:
    sheet, count = Sheet(FORMATS[kind]), 0
    asked = " ".join(f"{name}={_cell(value)}" for name, value in mark["asked"].items())
    yield sheet.start + sheet.line(columns)
    yield sheet.line([mark["at"], mark["export"], f"by {mark['by']} {mark['name']}", asked])
    for rows in chunks:
        count += len(rows)
        yield b"".join(sheet.line(_cell(row[name]) for name in columns) for row in rows)
    end = [mark["at"], f"end of {mark['export']}", f"by {mark['by']} {mark['name']}", f"rows={count}"]
    if sheet.replaced:
        end.append(f"{sheet.replaced} characters do not exist in CP932 and stand as 〓")
    yield sheet.line(end)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return language.iso(value)
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return str(value)


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, default=_plain).encode("utf-8", "replace")


def _plain(value: Any) -> str:
    return language.iso(value) if isinstance(value, datetime) else str(value)
