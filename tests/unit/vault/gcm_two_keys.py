"""Builds one AES-GCM ciphertext that is valid under two keys, the attack that key commitment stops.

GHASH is a polynomial in its key H, so with one free ciphertext block the two tags become a linear equation in
GF(2^128). Source: NIST SP 800-38D §6.3, §6.4; Dodis et al., Fast Message Franking (CRYPTO 2018) §3.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

_R = 0xE1 << 120


def _multiply(x: int, y: int) -> int:
    z = 0
    for bit in range(127, -1, -1):
        if (x >> bit) & 1:
            z ^= y
        y = (y >> 1) ^ _R if y & 1 else y >> 1
    return z


def _invert(x: int) -> int:
    """x^(2^128 - 2)"""
    result, power = 1 << 127, x
    for bit in range(128):
        if bit:
            result = _multiply(result, power)
        power = _multiply(power, power)
    return result


def _block(key: bytes, data: bytes) -> int:
    return int.from_bytes(Cipher(AES(key), ECB()).encryptor().update(data))


def _blocks(data: bytes) -> list[int]:
    padded = data + bytes(-len(data) % 16)
    return [int.from_bytes(padded[i : i + 16]) for i in range(0, len(padded), 16)]


def _ghash(h: int, blocks: list[int]) -> int:
    y = 0
    for block in blocks:
        y = _multiply(y ^ block, h)
    return y


def ciphertext_for_two_keys(left: bytes, right: bytes, nonce: bytes, aad: bytes) -> bytes:
    """One block of ciphertext and its tag (32 bytes), accepted by AES-GCM under both keys with this nonce and AAD."""
    lengths = (len(aad) * 8) << 64 | 128
    tags, factors = [], []
    for key in (left, right):
        h = _block(key, bytes(16))
        # The tag for a zero block; the real block adds block * h^2 (itself, then the length block, are multiplied).
        tags.append(_ghash(h, [*_blocks(aad), 0, lengths]) ^ _block(key, nonce + (1).to_bytes(4)))
        factors.append(_multiply(h, h))
    block = _multiply(tags[0] ^ tags[1], _invert(factors[0] ^ factors[1]))
    return block.to_bytes(16) + (tags[0] ^ _multiply(block, factors[0])).to_bytes(16)
