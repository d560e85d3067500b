"""Signed notes and checkpoints: C2SP signed-note and tlog-checkpoint, Ed25519. Checking them is `verify.py`'s, on purpose:
the product trusts what an auditor runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

ED25519 = b"\x01"
Sign = Callable[[bytes], bytes]


def key_hash(name: str, public: bytes) -> bytes:
    """The four bytes that a signature line begins with."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def vkey(name: str, public: bytes) -> str:
    """The verifier key as text: name+hash+base64(algorithm, key)."""
    return f"{name}+{key_hash(name, public).hex()}+{base64.b64encode(ED25519 + public).decode()}"


def signed(text: str, name: str, public: bytes, sign: Sign) -> str:
    """A signed note. text: ends in a newline, holds no empty line."""
    signature = base64.b64encode(key_hash(name, public) + sign(text.encode())).decode()
    return f"{text}\n\N{EM DASH} {name} {signature}\n"


def checkpoint(origin: str, size: int, root: bytes) -> str:
    """The text of a checkpoint, before signing."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
