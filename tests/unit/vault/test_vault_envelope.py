"""VA-02, VA-03, VA-05: the bytes. Negative cases first of all; vectors pin what releases must go on reading."""

from __future__ import annotations

import hashlib
import hmac
import os
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from gcm_two_keys import ciphertext_for_two_keys
from hypothesis import given
from hypothesis import strategies as st
from vault_fakes import make_context

from vault.context import Context, Purpose
from vault.envelope import (
    SKS1,
    SKW1,
    Format,
    open_payload,
    parse_payload,
    parse_wrapped_key,
    seal_payload,
    unwrap_key,
    wrap_key,
)
from vault.errors import Damaged, UnknownSuite, VaultError

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
KEY_ID, DEK_ID = UUID(int=7).bytes, UUID(int=8).bytes
DEK = bytes(range(64, 96))
RECORD = make_context()
FIELD = RECORD.for_field("password")


def _unwrap(data: bytes, *, key: bytes = KEY, context: Context = RECORD) -> bytes:
    return unwrap_key(key, parse_wrapped_key(data), context)


def _open(data: bytes, *, key: bytes = DEK, context: Context = FIELD) -> bytes:
    return open_payload(key, parse_payload(data), context)


WRAPPED = wrap_key(KEY, KEY_ID, DEK, DEK_ID, RECORD)
SEALED = seal_payload(DEK, DEK_ID, b"correct horse", FIELD)


def _hkdf_sha512(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 by hand, so that the test does not believe the library it tests."""
    prk = hmac.digest(salt, key, hashlib.sha512)
    okm, block = b"", b""
    for counter in range(1, 9):
        block = hmac.digest(prk, block + info + bytes([counter]), hashlib.sha512)
        okm += block
    return okm[:length]


def test_a_wrapped_key_has_the_layout_of_the_design() -> None:
    assert len(WRAPPED) == 97
    assert WRAPPED[:5] == b"SKW1\x11"
    assert WRAPPED[5:21] == KEY_ID
    assert WRAPPED[21:37] == DEK_ID
    aad = WRAPPED[:37] + RECORD.encode("SKW1", 0x11)
    assert AESGCMSIV(KEY).decrypt(WRAPPED[37:49], WRAPPED[49:], aad) == DEK


def test_a_payload_has_the_layout_of_the_design() -> None:
    assert len(SEALED) == 113 + len(b"correct horse")
    assert SEALED[:5] == b"SKS1\x01"
    assert SEALED[5:21] == DEK_ID
    salt, commitment, nonce = SEALED[21:53], SEALED[53:85], SEALED[85:97]
    context = FIELD.encode("SKS1", 0x01)
    okm = _hkdf_sha512(DEK, salt, b"SKS1\x01" + context, 64)
    assert commitment == okm[32:]
    assert AESGCM(okm[:32]).decrypt(nonce, SEALED[97:], SEALED[:85] + context) == b"correct horse"


@given(st.binary(max_size=300))
def test_what_was_sealed_opens(plaintext: bytes) -> None:
    assert _open(seal_payload(DEK, DEK_ID, plaintext, FIELD)) == plaintext


@given(st.binary(min_size=32, max_size=32))
def test_what_was_wrapped_unwraps(key: bytes) -> None:
    assert _unwrap(wrap_key(KEY, KEY_ID, key, DEK_ID, RECORD)) == key


# Truncation, extension, bit flips: at every byte.


@pytest.mark.parametrize(("data", "reader"), [(WRAPPED, _unwrap), (SEALED, _open)], ids=["SKW1", "SKS1"])
class TestEveryByte:
    def test_VA_04_cut_short_anywhere_does_not_open(self, data: bytes, reader) -> None:
        for length in range(len(data)):
            with pytest.raises(Damaged):
                reader(data[:length])

    def test_VA_04_cut_at_the_front_does_not_open(self, data: bytes, reader) -> None:
        for start in range(1, len(data)):
            with pytest.raises(Damaged):
                reader(data[start:])

    def test_VA_04_one_bit_changed_anywhere_does_not_open(self, data: bytes, reader) -> None:
        for position in range(len(data)):
            for bit in range(8):
                bent = bytearray(data)
                bent[position] ^= 1 << bit
                with pytest.raises(UnknownSuite if position == 4 else Damaged):
                    reader(bytes(bent))

    def test_VA_04_something_added_does_not_open(self, data: bytes, reader) -> None:
        for extra in (b"\0", b"\0" * 16, data):
            with pytest.raises(Damaged):
                reader(data + extra)

    def test_VA_04_a_part_of_another_record_does_not_open(self, data: bytes, reader) -> None:
        again = wrap_key(KEY, KEY_ID, DEK, DEK_ID, RECORD) if data is WRAPPED else None
        again = again or seal_payload(DEK, DEK_ID, b"correct horse", FIELD)
        spliced = {data[:cut] + again[cut:] for cut in range(38, len(data), 7)}
        # a single byte is the same in one of 256 runs, and then a record is whole
        for bent in spliced - {data, again}:
            with pytest.raises(Damaged):
                reader(bent)


@given(st.binary(max_size=200))
def test_VA_05_any_bytes_are_refused_with_our_own_error(data: bytes) -> None:
    for reader in (_unwrap, _open):
        with pytest.raises(VaultError):
            reader(data)


@given(st.binary(min_size=1, max_size=150))
def test_VA_05_any_bytes_behind_a_good_header_are_refused(tail: bytes) -> None:
    for reader, head in ((_unwrap, WRAPPED[:37]), (_open, SEALED[:21])):
        with pytest.raises(Damaged):
            reader(head + tail)


# Context.


@pytest.mark.parametrize(
    "over",
    [
        {"company": "kaede"},
        {"store": "store-13"},
        {"tool": "other-tool"},
        {"record": "credential-8"},
        {"version": 2},
        {"purpose": Purpose.TOOL_JAR},
    ],
    ids=lambda over: next(iter(over)),
)
def test_VA_04_another_place_does_not_open(over: dict[str, object]) -> None:
    elsewhere = make_context(**over)
    with pytest.raises(Damaged):
        _unwrap(WRAPPED, context=elsewhere)
    with pytest.raises(Damaged):
        _open(SEALED, context=elsewhere.for_field("password"))


def test_VA_04_another_field_does_not_open() -> None:
    with pytest.raises(Damaged):
        _open(SEALED, context=RECORD.for_field("login_id"))
    with pytest.raises(Damaged):
        _open(SEALED, context=RECORD)
    with pytest.raises(Damaged):
        _unwrap(WRAPPED, context=FIELD)


@pytest.mark.parametrize("size", [0, 15, 16, 24, 31, 33, 64])
def test_VA_01_keys_have_256_bits(size: int) -> None:
    short = bytes(size)
    with pytest.raises(ValueError, match="32 bytes"):
        wrap_key(short, KEY_ID, DEK, DEK_ID, RECORD)
    with pytest.raises(ValueError, match="32 bytes"):
        wrap_key(KEY, KEY_ID, short, DEK_ID, RECORD)
    with pytest.raises(ValueError, match="32 bytes"):
        seal_payload(short, DEK_ID, b"x", FIELD)
    with pytest.raises(ValueError, match="32 bytes"):
        _unwrap(WRAPPED, key=short)
    with pytest.raises(ValueError, match="32 bytes"):
        _open(SEALED, key=short)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_ids_have_16_bytes(size: int) -> None:
    for call in (
        lambda: wrap_key(KEY, bytes(size), DEK, DEK_ID, RECORD),
        lambda: wrap_key(KEY, KEY_ID, DEK, bytes(size), RECORD),
        lambda: seal_payload(DEK, bytes(size), b"x", FIELD),
    ):
        with pytest.raises(ValueError, match="16 bytes"):
            call()


# Key commitment.


def test_VA_03_another_key_is_refused() -> None:
    with pytest.raises(Damaged):
        _unwrap(WRAPPED, key=OTHER_KEY)
    with pytest.raises(Damaged):
        _open(SEALED, key=OTHER_KEY)


def test_VA_03_a_ciphertext_valid_under_two_keys_opens_under_the_committed_one_only() -> None:
    """The attack is real (GCM accepts both), and the commitment stops it."""
    salt, nonce = bytes(32), bytes(12)
    context = FIELD.encode("SKS1", 0x01)
    left, right = (_hkdf_sha512(key, salt, b"SKS1\x01" + context, 64) for key in (KEY, OTHER_KEY))
    header = b"SKS1\x01" + DEK_ID + salt + left[32:]
    both = ciphertext_for_two_keys(left[:32], right[:32], nonce, header + context)
    plaintexts = [AESGCM(okm[:32]).decrypt(nonce, both, header + context) for okm in (left, right)]
    assert plaintexts[0] != plaintexts[1]

    record = header + nonce + both
    assert _open(record, key=KEY) == plaintexts[0]
    with pytest.raises(Damaged, match="sealed under another key"):
        _open(record, key=OTHER_KEY)


def test_VA_03_the_commitment_is_checked_before_anything_is_decrypted() -> None:
    decrypted = []

    class Watching:
        def __init__(self, key: bytes) -> None:
            self._inner = AESGCM(key)

        def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
            return self._inner.encrypt(nonce, data, associated_data)

        def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
            decrypted.append(nonce)
            return self._inner.decrypt(nonce, data, associated_data)

    fmt = Format("SKS1", {0x01: Watching}, written=0x01)
    with pytest.raises(Damaged):
        open_payload(OTHER_KEY, parse_payload(SEALED, fmt=fmt), FIELD, fmt=fmt)
    assert decrypted == []
    assert open_payload(DEK, parse_payload(SEALED, fmt=fmt), FIELD, fmt=fmt) == b"correct horse"
    assert len(decrypted) == 1


# Suites.


def test_VA_05_no_other_suite_is_read_from_a_wrapped_key() -> None:
    for suite in set(range(256)) - {0x11}:
        with pytest.raises(UnknownSuite):
            parse_wrapped_key(WRAPPED[:4] + bytes([suite]) + WRAPPED[5:])


def test_VA_05_no_other_suite_is_read_from_a_payload() -> None:
    for suite in set(range(256)) - {0x01}:
        with pytest.raises(UnknownSuite):
            parse_payload(SEALED[:4] + bytes([suite]) + SEALED[5:])


def test_VA_05_a_payload_is_no_wrapped_key_and_back() -> None:
    with pytest.raises(Damaged):
        parse_wrapped_key(SEALED)
    with pytest.raises(Damaged):
        parse_payload(WRAPPED)
    with pytest.raises(Damaged):
        parse_wrapped_key(b"SKS1" + WRAPPED[4:])


def test_VA_05_the_next_release_reads_two_suites_and_writes_the_new_one() -> None:
    payloads = Format("SKS1", {**SKS1.suites, 0x02: AESGCMSIV}, written=0x02)
    keys = Format("SKW1", {**SKW1.suites, 0x12: AESGCM}, written=0x12)
    assert open_payload(DEK, parse_payload(SEALED, fmt=payloads), FIELD, fmt=payloads) == b"correct horse"
    assert unwrap_key(KEY, parse_wrapped_key(WRAPPED, fmt=keys), RECORD, fmt=keys) == DEK

    payload = seal_payload(DEK, DEK_ID, b"new", FIELD, fmt=payloads)
    wrapped = wrap_key(KEY, KEY_ID, DEK, DEK_ID, RECORD, fmt=keys)
    assert (payload[4], wrapped[4]) == (0x02, 0x12)
    assert open_payload(DEK, parse_payload(payload, fmt=payloads), FIELD, fmt=payloads) == b"new"
    assert unwrap_key(KEY, parse_wrapped_key(wrapped, fmt=keys), RECORD, fmt=keys) == DEK
    with pytest.raises(UnknownSuite):
        parse_payload(payload)
    with pytest.raises(UnknownSuite):
        parse_wrapped_key(wrapped)


def test_VA_05_a_record_relabelled_to_another_listed_suite_does_not_open() -> None:
    payloads = Format("SKS1", {0x01: AESGCM, 0x02: AESGCM}, written=0x01)
    keys = Format("SKW1", {0x11: AESGCMSIV, 0x12: AESGCMSIV}, written=0x11)
    with pytest.raises(Damaged):
        open_payload(DEK, parse_payload(SEALED[:4] + b"\x02" + SEALED[5:], fmt=payloads), FIELD, fmt=payloads)
    with pytest.raises(Damaged):
        unwrap_key(KEY, parse_wrapped_key(WRAPPED[:4] + b"\x12" + WRAPPED[5:], fmt=keys), RECORD, fmt=keys)


# Nonces.


def _salt_and_nonce(payload: bytes) -> bytes:
    return payload[21:53] + payload[85:97]


def test_VA_02_no_key_and_nonce_repeat() -> None:
    payloads = {_salt_and_nonce(seal_payload(DEK, DEK_ID, b"", FIELD)) for _ in range(5_000)}
    wraps = {wrap_key(KEY, KEY_ID, DEK, DEK_ID, RECORD)[37:49] for _ in range(5_000)}
    assert len(payloads) == len(wraps) == 5_000
    # Salts alone are different too: each field has a key of its own even if a nonce came twice.
    assert len({payload[:32] for payload in payloads}) == 5_000


def test_VA_02_no_key_and_nonce_repeat_after_fork() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"".join(_salt_and_nonce(seal_payload(DEK, DEK_ID, b"", FIELD)) for _ in range(50)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = b"".join(_salt_and_nonce(seal_payload(DEK, DEK_ID, b"", FIELD)) for _ in range(50))
    pairs = [data[i : i + 44] for data in (ours, theirs) for i in range(0, len(data), 44)]
    assert len(pairs) == len(set(pairs)) == 100


# Vectors: written by the first release, read by every later one.

WRAPPED_VECTOR = bytes.fromhex(
    "534b5731110000000000000000000000000000000700000000000000000000000000000008a46aa54f1aeb1b99b6f74f"
    "dec5e21e58f2f5bb8e43b3e1c098cfd7f445faf04ce74a5ddc454e44ee05a3b8b37313bce95d0d7d84bb0925ec8bd851"
    "6f"
)
SEALED_VECTOR = bytes.fromhex(
    "534b53310100000000000000000000000000000008b1a1e71cb94f5d61a36964a0d259a5b382005c321811760b1be75d"
    "226ad0a00a13cb8befaec96a8fb3419f98af4ed143f72d156780f8363a0274d1bddddbe8bef198911d5cc58ba3066159"
    "838d28d57d1204362ace96f0fde76accb99cfda43419f3f6c82d8b133381"
)


def test_VA_05_the_vectors_of_the_first_release_open() -> None:
    assert _unwrap(WRAPPED_VECTOR) == DEK
    assert _open(SEALED_VECTOR) == b"correct horse"


def test_VA_33_parsed_records_show_no_bytes() -> None:
    for parsed in (parse_wrapped_key(WRAPPED), parse_payload(SEALED)):
        assert repr(parsed.ciphertext) not in repr(parsed)
        assert repr(parsed.nonce) not in repr(parsed)
