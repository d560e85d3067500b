"""VA-04: one place, one byte string; two places, two byte strings."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vault_fakes import make_context

from vault import Context, KeyClass, KeyContext, Purpose
from vault.context import canonical

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


def test_VA_04_the_encoding_is_what_the_design_says() -> None:
    context = Context(
        company="c1", store="s", tool="t", record="r", version=12, field="パス", purpose=Purpose.TOOL_LOGIN
    )
    assert context.encode("SKS1", 0x01) == (
        b"\x00\x09"
        b"\x00\x04SKS1" + b"\x00\x040x01" + b"\x00\x02c1" + b"\x00\x01s" + b"\x00\x01t" + b"\x00\x01r" + b"\x00\x0212"
        b"\x00\x06" + "パス".encode() + b"\x00\x0atool_login"
    )


@given(st.lists(TEXT, max_size=6), st.lists(TEXT, max_size=6))
def test_VA_04_two_lists_of_parts_never_encode_alike(left: list[str], right: list[str]) -> None:
    assert (canonical(*left) == canonical(*right)) == (left == right)


def test_VA_04_moving_a_letter_over_a_border_changes_the_encoding() -> None:
    left = make_context(store="1", tool="23").encode("SKS1", 1)
    right = make_context(store="12", tool="3").encode("SKS1", 1)
    assert left != right


@pytest.mark.parametrize(
    "over",
    [
        {"company": "kaede"},
        {"store": "store-13"},
        {"tool": "other"},
        {"record": "credential-8"},
        {"version": 2},
        {"field": "password"},
        {"purpose": Purpose.TOOL_JAR},
        {"company": "Sakura"},
        {"company": "ｓakura"},
    ],
)
def test_VA_04_every_part_counts(over: dict[str, object]) -> None:
    assert make_context(**over).encode("SKS1", 1) != make_context().encode("SKS1", 1)


def test_VA_04_format_and_suite_count() -> None:
    encodings = {make_context().encode(fmt, suite) for fmt in ("SKS1", "SKW1") for suite in (0x01, 0x11)}
    assert len(encodings) == 4


@pytest.mark.parametrize("purpose", Purpose)
def test_VA_01_a_purpose_belongs_to_one_class(purpose: Purpose) -> None:
    expected = {
        "tool_login": "credential",
        "tool_jar": "session",
        "tool_device": "session",
        "totp_seed": "account",
        "client_credential": "outbound",
        "signing_key": "signing",
        "refresh_key": "signing",
        "log_key": "signing",
        "use_ticket_key": "ticket",
    }
    assert purpose.key_class.value == expected[purpose.value]


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("missing", [{"store": ""}, {"tool": ""}, {"store": "", "tool": ""}])
def test_VA_04_store_and_tool_are_empty_only_where_there_are_none(purpose: Purpose, missing: dict[str, str]) -> None:
    if purpose.key_class in {KeyClass.ACCOUNT, KeyClass.OUTBOUND, KeyClass.SIGNING, KeyClass.TICKET}:
        make_context(purpose=purpose, **missing)
    else:
        with pytest.raises(ValueError, match="needs a store and a tool"):
            make_context(purpose=purpose, **missing)


@pytest.mark.parametrize(
    "over",
    [
        {"company": ""},
        {"record": ""},
        {"version": 0},
        {"version": -1},
        {"version": True},
        {"version": "1"},
        {"version": 1.0},
        {"record": "x" * 65_536},
        {"record": "\ud800"},
    ],
)
def test_VA_04_a_context_that_names_no_place_does_not_exist(over: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        make_context(**over)


def test_VA_04_a_purpose_is_no_free_text() -> None:
    with pytest.raises(TypeError):
        make_context(purpose="tool_login")


def test_the_longest_part_is_sealed() -> None:
    assert len(make_context(record="x" * 65_535).encode("SKS1", 1)) > 65_535


def test_a_field_has_a_name() -> None:
    assert make_context().for_field("password").field == "password"
    with pytest.raises(ValueError, match="name"):
        make_context().for_field("")


def test_VA_04_a_company_key_and_a_record_never_share_a_place() -> None:
    key = KeyContext(company="sakura", key_class=KeyClass.ACCOUNT, key_id=UUID(int=1), version=1)
    record = make_context(store="", tool="", record=str(UUID(int=1)), purpose=Purpose.TOTP_SEED)
    assert key.encode("SKW1", 0x11) != record.encode("SKW1", 0x11)


def test_a_key_context_as_a_mapping_tells_all_keys_apart() -> None:
    base = {"company": "a", "key_class": KeyClass.ACCOUNT, "key_id": UUID(int=1), "version": 1}
    changes: list[dict[str, object]] = [
        {},
        {"company": "b"},
        {"key_class": KeyClass.SIGNING},
        {"key_id": UUID(int=2)},
        {"version": 2},
    ]
    contexts = [KeyContext(**(base | change)) for change in changes]  # type: ignore[arg-type]
    assert len({tuple(sorted(context.as_mapping().items())) for context in contexts}) == len(changes)
    assert len({context.encode("SKW1", 0x11) for context in contexts}) == len(changes)
