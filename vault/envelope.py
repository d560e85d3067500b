"""The two byte formats of the vault: `SKW1`, a key wrapped by another key, and `SKS1`, one sealed field.

Owns bytes and primitives only; which key, who may and what is recorded is decided in `sealing` and `keyring`.
Each reader has two steps, parse and open, because the audit row is written between them.

    SKW1   magic 4 · suite 1 · wrapping key id 16 · own key id 16 · nonce 12 · ciphertext 32+16
    SKS1   magic 4 · suite 1 · data key id 16 · salt 32 · commitment 32 · nonce 12 · ciphertext+16

The associated data is every byte before the nonce, then the context. Formats are for ever: a release that changes
one adds a suite or a magic and goes on reading the old. Source: vault-and-gateway.md §2.2; VA-02, VA-03, VA-05.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vault.errors import Damaged, UnknownSuite

KEY_BYTES: Final = 32
ID_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SALT_BYTES: Final = 32
_COMMITMENT_BYTES: Final = 32
_START_BYTES: Final = 5  # magic and suite


class Bound(Protocol):
    """What a ciphertext is bound to: a `Context` or a `KeyContext`."""

    def encode(self, format_name: str, suite: int, /) -> bytes: ...


class Aead(Protocol):
    """An AEAD under one key. Raises InvalidTag."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Format:
    """A magic and its suites. Data may name one of `suites`; `written` is ours alone to choose (VA-05)."""

    name: str
    suites: Mapping[int, Callable[[bytes], Aead]]
    written: int

    def start(self) -> bytes:
        """Magic and suite of what is written now."""
        return self.name.encode("ascii") + bytes([self.written])

    def suite_of(self, data: bytes) -> int:
        """The suite that `data` names. Raises Damaged (other magic, too short), UnknownSuite."""
        if len(data) < _START_BYTES or data[:4] != self.name.encode("ascii"):
            raise Damaged(f"not a {self.name} record")
        if data[4] not in self.suites:
            raise UnknownSuite(f"{self.name} suite 0x{data[4]:02x} is not on the list")
        return data[4]


#: A company key wraps for years and nothing counts all its nonces across hosts: GCM-SIV survives a repeated nonce
#: (RFC 8452 §1), where GCM would give away its authentication key.
SKW1: Final = Format("SKW1", {0x11: AESGCMSIV}, written=0x11)

#: Plain GCM is safe here because each field has a key of its own (salt), used for one message.
SKS1: Final = Format("SKS1", {0x01: AESGCM}, written=0x01)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A parsed SKW1 record; nothing in it is believed yet. Ids are 16 raw bytes."""

    suite: int
    wrapping_key_id: bytes
    key_id: bytes
    header: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed SKS1 record; nothing in it is believed yet. data_key_id: 16 raw bytes."""

    suite: int
    data_key_id: bytes
    salt: bytes = field(repr=False)
    commitment: bytes = field(repr=False)
    header: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def wrap_key(
    wrapping_key: bytes, wrapping_key_id: bytes, key: bytes, key_id: bytes, context: Bound, *, fmt: Format = SKW1
) -> bytes:
    """Wrap a 32-byte key under another one. Ids are 16 bytes. Returns an SKW1 record, 97 bytes."""
    header = fmt.start() + _id(wrapping_key_id) + _id(key_id)
    nonce = os.urandom(_NONCE_BYTES)
    aead = fmt.suites[fmt.written](_key(wrapping_key))
    return header + nonce + aead.encrypt(nonce, _key(key), header + context.encode(fmt.name, fmt.written))


def parse_wrapped_key(data: bytes, *, fmt: Format = SKW1) -> WrappedKey:
    """Take an SKW1 record apart without any key. Raises Damaged, UnknownSuite."""
    suite = fmt.suite_of(data)
    header_end = _START_BYTES + 2 * ID_BYTES
    if len(data) != header_end + _NONCE_BYTES + KEY_BYTES + _TAG_BYTES:
        raise Damaged("an SKW1 record has one length")
    return WrappedKey(
        suite=suite,
        wrapping_key_id=data[_START_BYTES : _START_BYTES + ID_BYTES],
        key_id=data[_START_BYTES + ID_BYTES : header_end],
        header=data[:header_end],
        nonce=data[header_end : header_end + _NONCE_BYTES],
        ciphertext=data[header_end + _NONCE_BYTES :],
    )


def unwrap_key(wrapping_key: bytes, wrapped: WrappedKey, context: Bound, *, fmt: Format = SKW1) -> bytes:
    """The 32-byte key inside. Raises Damaged: bent, another context or another wrapping key, which look the same."""
    aead = fmt.suites[wrapped.suite](_key(wrapping_key))
    return _decrypt(aead, wrapped.nonce, wrapped.ciphertext, wrapped.header + context.encode(fmt.name, wrapped.suite))


def seal_payload(data_key: bytes, data_key_id: bytes, plaintext: bytes, context: Bound, *, fmt: Format = SKS1) -> bytes:
    """Seal one field under a key of its own. Returns an SKS1 record, 113 bytes longer than the plaintext."""
    salt = os.urandom(_SALT_BYTES)
    bound = context.encode(fmt.name, fmt.written)
    enc_key, commitment = _derive(data_key, salt, fmt.start() + bound)
    header = fmt.start() + _id(data_key_id) + salt + commitment
    nonce = os.urandom(_NONCE_BYTES)
    return header + nonce + fmt.suites[fmt.written](enc_key).encrypt(nonce, plaintext, header + bound)


def parse_payload(data: bytes, *, fmt: Format = SKS1) -> Payload:
    """Take an SKS1 record apart without any key. Raises Damaged, UnknownSuite."""
    suite = fmt.suite_of(data)
    salt_at = _START_BYTES + ID_BYTES
    commitment_at = salt_at + _SALT_BYTES
    header_end = commitment_at + _COMMITMENT_BYTES
    if len(data) < header_end + _NONCE_BYTES + _TAG_BYTES:
        raise Damaged("an SKS1 record is cut short")
    return Payload(
        suite=suite,
        data_key_id=data[_START_BYTES:salt_at],
        salt=data[salt_at:commitment_at],
        commitment=data[commitment_at:header_end],
        header=data[:header_end],
        nonce=data[header_end : header_end + _NONCE_BYTES],
        ciphertext=data[header_end + _NONCE_BYTES :],
    )


def open_payload(data_key: bytes, payload: Payload, context: Bound, *, fmt: Format = SKS1) -> bytes:
    """The plaintext. Raises Damaged for a wrong key, another context, or bent bytes."""
    bound = context.encode(fmt.name, payload.suite)
    enc_key, commitment = _derive(data_key, payload.salt, payload.header[:_START_BYTES] + bound)
    # Before decrypting: GCM does not commit to its key, so one ciphertext can be made that is valid under two keys.
    # Whoever may write rows would use it to show two openers two different values, or to test keys in bulk.
    if not hmac.compare_digest(commitment, payload.commitment):
        raise Damaged("the payload was sealed under another key or for another place")
    return _decrypt(fmt.suites[payload.suite](enc_key), payload.nonce, payload.ciphertext, payload.header + bound)


def _derive(data_key: bytes, salt: bytes, info: bytes) -> tuple[bytes, bytes]:
    okm = HKDF(SHA512(), KEY_BYTES + _COMMITMENT_BYTES, salt, info).derive(_key(data_key))
    return okm[:KEY_BYTES], okm[KEY_BYTES:]


def _decrypt(aead: Aead, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
    try:
        return aead.decrypt(nonce, ciphertext, associated_data)
    except InvalidTag:
        raise Damaged("the record does not open with this key in this place") from None


def _key(key: bytes) -> bytes:
    # The AES classes would take 16 bytes as well and quietly run AES-128.
    if len(key) != KEY_BYTES:
        raise ValueError("a key has 32 bytes")
    return key


def _id(key_id: bytes) -> bytes:
    if len(key_id) != ID_BYTES:
        raise ValueError("a key id has 16 bytes")
    return key_id
