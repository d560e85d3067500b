"""Where a sealed value belongs. The context is bound into every ciphertext, so that a value moved to another row,
version, company, store, tool, field or use does not open (VA-04).

Two kinds: `Context` names a record of ours and its fields, `KeyContext` names a company key under its root key. The
encoding is canonical: a count, then each part as length and UTF-8. Without the lengths, store "1" with tool "23"
would read like store "12" with tool "3".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID


class KeyClass(StrEnum):
    """Who opens it. One process taken over opens one kind of thing (vault-and-gateway.md §2.1)."""

    CREDENTIAL = "credential"  # fields of a tool account: engine
    SESSION = "session"  # jars, device cookies, scan sets: engine and gateway
    ACCOUNT = "account"  # TOTP seeds of our own accounts: serve
    OUTBOUND = "outbound"  # client credentials with which we call a peer: worker
    SIGNING = "signing"  # our own OIDC, SAML and log keys: serve and worker
    TICKET = "ticket"  # the key of use-tickets: serve, worker and engine


class Purpose(StrEnum):
    """What a sealed value is for. Each purpose belongs to exactly one class."""

    TOOL_LOGIN = "tool_login"
    TOOL_JAR = "tool_jar"
    TOOL_DEVICE = "tool_device"
    TOTP_SEED = "totp_seed"
    CLIENT_CREDENTIAL = "client_credential"
    SIGNING_KEY = "signing_key"
    REFRESH_KEY = "refresh_key"
    LOG_KEY = "log_key"
    USE_TICKET_KEY = "use_ticket_key"

    @property
    def key_class(self) -> KeyClass:
        """The one class whose company key protects this purpose."""
        return _CLASS_OF[self]


_CLASS_OF: Final[Mapping[Purpose, KeyClass]] = {
    Purpose.TOOL_LOGIN: KeyClass.CREDENTIAL,
    Purpose.TOOL_JAR: KeyClass.SESSION,
    Purpose.TOOL_DEVICE: KeyClass.SESSION,
    Purpose.TOTP_SEED: KeyClass.ACCOUNT,
    Purpose.CLIENT_CREDENTIAL: KeyClass.OUTBOUND,
    Purpose.SIGNING_KEY: KeyClass.SIGNING,
    Purpose.REFRESH_KEY: KeyClass.SIGNING,
    Purpose.LOG_KEY: KeyClass.SIGNING,
    Purpose.USE_TICKET_KEY: KeyClass.TICKET,
}

#: What these classes protect belongs to a company and to no store or tool of it.
_WITHOUT_STORE_AND_TOOL: Final = frozenset({KeyClass.ACCOUNT, KeyClass.OUTBOUND, KeyClass.SIGNING, KeyClass.TICKET})

_LONGEST_PART: Final = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The place of one record, or of one field of it.

    company, store, tool, record: ids as text, compared byte for byte (no normalisation: two spellings are two
    places). version: 1 or more. field: empty for the record as a whole and its data key, else the field's name.
    Only store and tool may be empty besides, and only in the classes account, outbound, signing and ticket.
    Raises ValueError (TypeError for another type of purpose) for a context that names no place or could name two.
    """

    company: str
    store: str = ""
    tool: str = ""
    record: str
    version: int
    field: str = ""
    purpose: Purpose

    def __post_init__(self) -> None:
        if not isinstance(self.purpose, Purpose):
            raise TypeError("purpose is one of vault.Purpose")
        # bool is an int in Python: version=True would be sealed as "True" or as "1", depending on who formats it.
        if type(self.version) is not int or self.version < 1:
            raise ValueError("version is a number from 1")
        for name in ("company", "record"):
            if not getattr(self, name):
                raise ValueError(f"{name} may not be empty")
        if self.key_class not in _WITHOUT_STORE_AND_TOOL and not (self.store and self.tool):
            raise ValueError(f"class {self.key_class.value} needs a store and a tool")
        canonical(*self._parts())  # finds what cannot be encoded now, not at the first seal

    @property
    def key_class(self) -> KeyClass:
        """The key class of the purpose."""
        return self.purpose.key_class

    def for_field(self, name: str) -> Context:
        """The place of one field of this record. Raises ValueError for an empty name."""
        if not name:
            raise ValueError("a field has a name")
        return replace(self, field=name)

    def encode(self, format_name: str, suite: int) -> bytes:
        """The canonical bytes (vault-and-gateway.md §2.2) for one format and suite."""
        return canonical(format_name, _suite_text(suite), *self._parts())

    def _parts(self) -> tuple[str, ...]:
        return self.company, self.store, self.tool, self.record, str(self.version), self.field, self.purpose.value


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContext:
    """The place of a company key under its root key: what a root key provider binds as associated data."""

    company: str
    key_class: KeyClass
    key_id: UUID
    version: int

    def encode(self, format_name: str, suite: int) -> bytes:
        """Canonical bytes, for providers that bind bytes. No Purpose contains "/", so no data context equals it."""
        purpose = f"company_key/{self.key_class.value}"
        parts = (self.company, "", "", str(self.key_id), str(self.version), "", purpose)
        return canonical(format_name, _suite_text(suite), *parts)

    def as_mapping(self) -> dict[str, str]:
        """The same as names and texts, for providers that bind a mapping (an AWS EncryptionContext)."""
        return {
            "company": self.company,
            "class": self.key_class.value,
            "key": str(self.key_id),
            "version": str(self.version),
        }


def canonical(*parts: str) -> bytes:
    """u16 count, then for each part u16 length ‖ UTF-8, big-endian: one byte string for one list of texts.

    Raises ValueError for a part over 65,535 bytes or with a lone surrogate.
    """
    encoded = [part.encode() for part in parts]
    if any(len(part) > _LONGEST_PART for part in encoded):
        raise ValueError("a part of a context is at most 65,535 bytes")
    return len(encoded).to_bytes(2) + b"".join(len(part).to_bytes(2) + part for part in encoded)


def _suite_text(suite: int) -> str:
    return f"0x{suite:02x}"
