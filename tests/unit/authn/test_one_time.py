"""Six digits, login ids, and the keys of counters: the pure parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyotp
import pytest

from idp.domain.authn import throttle
from idp.domain.authn.login import split_login_id
from idp.domain.authn.second_factor import matching_step

SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # RFC 6238, appendix B


@pytest.mark.parametrize(
    ("at", "code"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (2000000000, "279037"), (20000000000, "353130")],
)
def test_vectors_of_rfc_6238(at: int, code: str) -> None:
    """RFC 6238 appendix B (SHA-1, the last six digits): ours are everybody's codes."""
    now = datetime.fromtimestamp(at, UTC)
    assert matching_step(SEED, code, now=now) == at // 30


def test_the_window_is_one_step_wide_ac25() -> None:
    """AC-25: the step before and after fit and are named exactly; two away do not; what is no six digits never does."""
    now = datetime(2026, 7, 1, 12, 0, 7, tzinfo=UTC)
    step = int(now.timestamp()) // 30
    for offset in range(-3, 4):
        code = pyotp.TOTP(SEED).at(now + timedelta(seconds=30 * offset))
        assert matching_step(SEED, code, now=now) == (step + offset if abs(offset) <= 1 else None)
    code = pyotp.TOTP(SEED).at(now)
    for typed in (
        f" {code} ",
        f"{code[:3]} {code[3:]}",
        code.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789"}),
    ):
        assert matching_step(SEED, typed, now=now) == step
    for typed in (
        "",
        code[:5],
        code + "0",
        "abcdef",
        "-" + code[1:],
        code.translate({ord(c): ord(c) + 0x630 for c in "0123456789"}),
        "1" * 5000,
        "\0",
    ):
        assert matching_step(SEED, typed, now=now) is None


@pytest.mark.parametrize(
    ("typed", "page", "found"),
    [
        ("AOBA/0413", None, ("AOBA", "0413")), ("aoba/0413", None, ("AOBA", "0413")), ("ＡＯＢＡ／０４１３", None, ("AOBA", "0413")), ("0413", "aoba", ("AOBA", "0413")),
        ("HOSHI/0413", "aoba", ("HOSHI", "0413")), (" AOBA / 0413 ", None, ("AOBA", "0413")), ("0413", None, ("", "0413")), ("", None, ("", "")),
        ("/", None, ("", "")), ("a/b/c", None, ("A/B", "c")), ("/0413", "aoba", ("AOBA", "0413")),
    ],
)  # fmt: skip
def test_login_ids_d19(typed: str, page: str | None, found: tuple[str, str]) -> None:
    """D19: what people type, with and without a company of the page; the number keeps its case."""
    assert split_login_id(typed, page) == found


def test_counters_hold_no_words_ac05() -> None:
    """AC-05, AC-06: a counter's key tells neither login id nor address, parts do not run together, and it fits its column."""
    made = throttle.key("login", "AOBA", "my-password-by-mistake", "192.0.2.7")
    assert made.startswith("login:")
    assert "password" not in made
    assert "192" not in made
    assert len(throttle.key("activation", "x" * 9000)) <= 128
    assert throttle.key("a", "bc", "d") != throttle.key("a", "b", "cd")
    assert throttle.key("login", "x") != throttle.key("device", "x")
