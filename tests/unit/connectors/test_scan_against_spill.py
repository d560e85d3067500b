"""The product's scan finds every dress in which the tests' own search would find a secret (VA-53, §17 claim 1)."""

from __future__ import annotations

import pytest

from connectors.scanset import Patterns, build, literals
from tests.fakes.spill import dresses, hits

SECRETS = [
    "P&ssw0rd/髙<1>x",
    "plain-password-2026",
    "'\"\\ <>&%+=?/ \u3042",
    "adHulaH7nyfqBdX+9IOdnNBVynHlG0krY79rXI5Ky1Y",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_VA_53_every_dress_is_known_to_the_scan(secret: str) -> None:
    scan = Patterns((), build([secret], key=b"k" * 32))
    held = Patterns(literals([secret]))
    for name, form in dresses(secret).items():
        for before, after in ((b"", b""), (b"x" * 50, b"y" * 50), (form, form)):
            page = before + form + after
            assert scan.found_in(page), name
            assert held.found_in(page), name
            assert hits(page, {"it": secret}), name


@pytest.mark.parametrize("secret", SECRETS)
def test_the_search_of_the_tests_finds_nothing_where_nothing_is(secret: str) -> None:
    assert hits(secret[:-1].encode() + b" and " + secret[::-1].encode(), {"it": secret}) == []
