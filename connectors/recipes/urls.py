"""Taking addresses apart without surprises: `urllib` raises for some texts that a recipe author or a tool may write."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

#: a host that no recipe can declare, for what is no address at all
NOWHERE: Final = "https://invalid.invalid/"


@lru_cache(maxsize=512)  # one request asks for the parts of the same address several times
def parts(url: str) -> SplitResult:
    """The parts of a URL; all empty when it cannot be taken apart."""
    try:
        split = urlsplit(url)
        _ = split.port  # raises late, for a port that is no number
    except ValueError:
        return urlsplit("")
    return split


def joined(base: str, target: str) -> str:
    """A redirect target as an absolute URL; one that cannot be read leads nowhere, which every rule refuses."""
    try:
        url = urljoin(base, target)
        urlsplit(url)
    except ValueError:
        return NOWHERE
    return url
