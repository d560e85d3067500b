"""Looking for secrets in what a device got: every dress of vault-and-gateway.md §17, written without the product's own scan.

The product looks for secrets with `connectors.scanset`. A test that used the same function would share its blind spots.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

#: a piece of base64 that is certain whatever stands beside it
_LEAST = 8


def dresses(value: str) -> dict[str, bytes]:
    """Name of an encoding → the bytes to look for."""
    raw = value.encode()
    percent = {"percent": quote(raw, safe=""), "percent, slashes kept": quote(raw), "form": quote_plus(raw)}
    every = "".join(f"%{byte:02X}" for byte in raw)
    found = {
        "plain": raw,
        "every byte in percent": every.encode(),
        "every byte in percent, lower case": every.lower().encode(),
        "HTML": html.escape(value).encode(),
        "HTML, numbers": html.escape(value).replace("&#x27;", "&#39;").encode(),
        "HTML, quotes kept": html.escape(value, quote=False).encode(),
        "JSON": json.dumps(value)[1:-1].encode(),
        "JSON, slashes escaped": json.dumps(value)[1:-1].replace("/", "\\/").encode(),
        "JSON, UTF-8": json.dumps(value, ensure_ascii=False)[1:-1].encode(),
        "hex": binascii.hexlify(raw),
        "HEX": binascii.hexlify(raw).upper(),
        "UTF-16 LE": value.encode("utf-16-le"),
        "UTF-16 BE": value.encode("utf-16-be"),
    }
    for name, text in percent.items():
        found[name] = text.encode()
        found[f"{name}, lower case"] = re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), text).encode()
    for before in range(3):
        # The first and last characters depend on the neighbours; what lies between them does not.
        whole = base64.b64encode(b"\0" * before + raw)
        inside = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(inside) >= _LEAST:
            found[f"base64 {before}"] = inside
            found[f"base64url {before}"] = inside.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def hits(data: bytes, secrets: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[str]:
    """`name (encoding)` of every secret that stands in the data. Values under 6 characters would be found by chance."""
    pairs = secrets.items() if isinstance(secrets, Mapping) else secrets
    return [
        f"{name} ({dress})"
        for name, value in pairs
        if len(value) >= 6
        for dress, form in dresses(value).items()
        if form in data
    ]
