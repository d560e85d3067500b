"""The configuration that docs/integrate/saml.md prints, made to fit a test: what the page says is what runs here."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from tests.interop.installation import ROOT

PAGE = ROOT / "docs" / "integrate" / "saml.md"
BLOCK = re.compile(r"File `([^`]+)`:\n\n```\w+\n(.*?)```\n", re.DOTALL)


@functools.cache
def _blocks() -> dict[str, str]:
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


def fitted(name: str, instead: Mapping[str, str]) -> str:
    """The block of this file, with other texts instead of some: each must occur, so that none is forgotten when the page changes."""
    text = _blocks()[name]
    for old, new in instead.items():
        assert old in text, f"{PAGE.name}: {name} has no {old!r}"
        text = text.replace(old, new)
    return text
