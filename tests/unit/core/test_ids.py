"""Ids, secrets, typed codes."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from idp.core import ids


def test_row_ids_are_uuid7_in_order() -> None:
    """RFC 9562 §5.7: version, variant, milliseconds in front: a later moment sorts after an earlier one, the same one never collides."""
    start = datetime(2026, 7, 1, 12, tzinfo=UTC)
    made = [ids.new_id(start + timedelta(milliseconds=n)) for n in range(50)]
    assert made == sorted(made)
    for n, found in enumerate(made):
        assert found.version == 7
        assert found.variant == uuid.RFC_4122
        assert found.int >> 80 == int(start.timestamp() * 1000) + n
    assert len({ids.new_id(start) for _ in range(2000)}) == 2000


def test_secrets_have_256_bits_and_typed_codes_130() -> None:
    """OA-18, AC-08: 43 URL-safe characters; 26 of an alphabet without I, L, O and U; never twice."""
    secrets = {ids.new_secret() for _ in range(500)}
    assert len(secrets) == 500
    assert all(len(s) == 43 and s.replace("-", "").replace("_", "").isalnum() for s in secrets)
    codes = {ids.new_typed_code() for _ in range(500)}
    assert len(codes) == 500
    assert {len(c) for c in codes} == {26}
    assert set("".join(codes)) == set(ids.TYPED_ALPHABET)
    assert not set("ILOU") & set(ids.TYPED_ALPHABET)
    assert len(ids.new_bytes(32)) == 32


@given(
    st.text(alphabet=ids.TYPED_ALPHABET, min_size=26, max_size=26),
    st.lists(st.integers(0, 7), min_size=26, max_size=26),
)
def test_a_code_survives_how_it_is_typed(code: str, habits: list[int]) -> None:
    """AC-08: full width, lower case, spaces, hyphens, O for 0, I and l for 1: the same code."""
    assert ids.fold_typed_code(code) == code
    typed = ""
    for char, habit in zip(code, habits, strict=True):
        wide = chr(ord(char) + 0xFEE0)
        shapes = [
            char,
            char.lower(),
            wide,
            wide.lower(),
            f"-{char}",
            f" {char}\u3000",
            f"{char}\u2013",
            {"0": "o", "1": "l"}.get(char, char),
        ]
        typed += shapes[habit]
    assert ids.fold_typed_code(typed) == code


def test_digests_and_comparison() -> None:
    """OA-18: 32 bytes of SHA-256; comparison of bytes and texts, also outside ASCII, without an error."""
    assert ids.digest("x") == hashlib.sha256(b"x").digest()
    assert ids.same("あ", "あ")
    assert ids.same(b"a", "a")
    assert not ids.same("a", "b")
    assert not ids.same("", "a")
