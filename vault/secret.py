"""A value that must not be shown: the type that carries passwords, seeds and jars through the program (VA-33).

It stops accidents: a log line, an f-string, a JSON body, a pickle on its way to a cache, a set, a comparison that
leaks by time. It does not stop code that wants the value, and CPython cannot promise to erase it from memory.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, NoReturn, final

_SHOWN: Final = "<Secret, not shown>"


@final
class Secret:
    """One secret value, text or bytes, kept as bytes.

    `reveal()` and `reveal_bytes()` are the only ways out and their call sites are a reviewed list
    (vault-and-gateway.md §2.3). Raises TypeError for anything but str and bytes, ValueError for text that UTF-8
    cannot carry; neither message contains the value.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str | bytes) -> None:
        if not isinstance(value, (str, bytes)):
            raise TypeError("a secret is text or bytes")
        self.__value: Final = _utf8(value) if isinstance(value, str) else value

    def reveal(self) -> str:
        """The value as text. Raises ValueError when it is bytes that are not UTF-8."""
        text = _text(self.__value)
        if text is None:
            raise ValueError("the secret is not text; reveal_bytes() returns it")
        return text

    def reveal_bytes(self) -> bytes:
        """The value as bytes; of a text, its UTF-8 form."""
        return self.__value

    def same_as(self, other: Secret) -> bool:
        """Whether two secrets hold the same bytes; the time taken tells nothing but their lengths."""
        return hmac.compare_digest(self.__value, other.reveal_bytes())

    def __repr__(self) -> str:
        # A constant and not an error: tracebacks, pytest and structlog call repr() while they report something else.
        return _SHOWN

    def __str__(self) -> NoReturn:
        raise TypeError("a secret has no text form; reveal() is the one way out")

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("a secret cannot be formatted into text")

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret has no bytes form; reveal_bytes() is the one way out")

    def __eq__(self, other: object) -> NoReturn:
        # `==` stops at the first difference and so tells by time how much of a guess was right.
        raise TypeError("secrets are compared with same_as()")

    def __hash__(self) -> NoReturn:
        raise TypeError("a secret is no key of a dictionary or cache")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        # pickle, copy.copy and copy.deepcopy all come through here.
        raise TypeError("a secret is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass  # raised below, outside: this exception carries the whole text in `.object`, and would be chained
    raise ValueError("the text holds a lone surrogate and is not valid UTF-8")


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
