"""Passwords: rules, Argon2id with a pepper behind it, and a gate that bounds how many are hashed at once.

A stored verifier reads `sk1$pepper-version$memory,time,lanes$salt$mac`, where mac = HMAC-SHA-256(pepper, Argon2id(…)).
The pepper lives outside the database, so that a dump alone verifies nothing (AC-04); its version lets it rotate.
No transaction is open while hashing (RE-20).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from argon2.low_level import Type, hash_secret_raw

from idp.core import ids
from idp.core.errors import Busy, Invalid

MIN_ALONE = 15
MIN_WITH_SECOND_FACTOR = 8
MAX_BYTES = 256
FORMAT = "sk1"
#: what a shop's people think of first, in the scripts they type (AC-02); no general list of English passwords has it
SHOP_WORDS = (
    "sekisho", "tencho", "tenchou", "tenpo", "omise", "honbu", "staff", "sutaffu", "baito", "arubaito", "konbini", "tanmatsu", "kanri",
    "kanrisha", "kaisha", "pasuwado", "login", "関所", "店長", "店舗", "本部", "端末", "管理者", "会社", "スタッフ", "アルバイト", "バイト", "パスワード",
)  # fmt: skip


def normalise(password: str) -> bytes:
    """NFKC, then UTF-8: what an IME typed in full width is the same password (AC-01). Raises Invalid over 256 bytes."""
    if len(password) > MAX_BYTES:  # before normalising: 10 MB must cost nothing
        raise Invalid("パスワードが長すぎます。", field="password")
    data = unicodedata.normalize("NFKC", password).encode()
    if len(data) > MAX_BYTES or b"\x00" in data:
        raise Invalid("パスワードが長すぎるか、使えない文字があります。", field="password")
    return data


def check_new(password: str, *, second_factor: bool, context: Iterable[str]) -> None:
    """Refuse a weak new password. second_factor: a second one is mandatory for this account, so 8 characters do (C7).

    context: words an attacker would try first (company, stores, names, login name; AC-02). Raises Invalid on `password`.
    """
    normalise(password)
    text = unicodedata.normalize("NFKC", password)
    shortest = MIN_WITH_SECOND_FACTOR if second_factor else MIN_ALONE
    if len(text) < shortest:
        raise Invalid(
            "%(shortest)s文字以上にしてください。文をそのまま使うと覚えやすくなります。",
            field="password",
            values={"shortest": shortest},
        )
    words = [*SHOP_WORDS, *(w for part in context for w in part.lower().split() if len(w) >= 3)]
    bare = text  # what is left without the words that everybody here knows: they add nothing
    for word in sorted(words, key=len, reverse=True):
        bare = re.sub(re.escape(word), "", bare, flags=re.IGNORECASE)
    # zxcvbn refuses more than 72 characters; the estimate needs no more
    enough = 7.5 if second_factor else 10  # powers of ten; eight random characters are 8
    from zxcvbn import zxcvbn  # noqa: PLC0415 - its lists take 12 MiB, and few processes ever see a new password

    if len(set(bare)) < 4 or zxcvbn(bare[:72], user_inputs=words)["guesses_log10"] < enough:
        raise Invalid(
            "このパスワードは推測されやすいため使えません。店や自分の名前、よくある並びは避けてください。",
            field="password",
        )


@dataclass(frozen=True)
class Cost:
    """Argon2id parameters. memory_kib: KiB; time: passes; one lane."""

    memory_kib: int
    time: int

    def text(self) -> str:
        """`m,t,p` as stored."""
        return f"{self.memory_kib},{self.time},1"


class Hasher:
    """Makes and checks verifiers, at most `slots` at a time; `queue` more may wait, the rest are told to come back.

    Without the bound, 500 parallel logins would hold 10 GB; without the limit on waiting they would hold every web
    thread, and a revocation would wait behind them (AC-03, RE-46).
    """

    def __init__(self, peppers: Mapping[str, bytes], current: str, cost: Cost, *, slots: int, queue: int) -> None:
        self._peppers = dict(peppers)
        self._current = current
        self._cost = cost
        self._slots = threading.Semaphore(slots)
        self._places = threading.Semaphore(slots + queue)
        # checking costs the same whatever the mac is, and nobody knows a password for this one
        self._dummy = self._verifier(ids.new_bytes(16), ids.new_bytes(32))

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Busy("いま混み合っています。少し待ってください。", "hash queue is full", retry_after_s=2)
        try:
            with self._slots:
                yield
        finally:
            self._places.release()

    def make(self, password: str) -> str:
        """A verifier for a new password. Raises Busy when too many are waiting."""
        with self._slot():
            return self._make(normalise(password))

    def _make(self, password: bytes) -> str:
        salt = ids.new_bytes(16)
        return self._verifier(salt, self._mac(self._current, self._argon(password, salt, self._cost)))

    def _verifier(self, salt: bytes, mac: bytes) -> str:
        return "$".join([FORMAT, self._current, self._cost.text(), _b64(salt), _b64(mac)])

    def check(self, password: str, verifier: str | None) -> bool:
        """True when the password fits. verifier None: no such account; the same work is done and False returned (AC-06).

        Raises Busy when too many are waiting.
        """
        try:
            data = normalise(password)
        except Invalid:
            data, verifier = b"", None
        with self._slot():
            good = self._matches(data, verifier or self._dummy)
        return good and verifier is not None

    def _matches(self, password: bytes, verifier: str) -> bool:
        form, version, cost, salt, mac = verifier.split("$")
        memory, passes, _ = (int(part) for part in cost.split(","))
        if form != FORMAT or version not in self._peppers:
            return False
        raw = self._argon(password, base64.b64decode(salt), Cost(memory, passes))
        return hmac.compare_digest(self._mac(version, raw), base64.b64decode(mac))

    def is_outdated(self, verifier: str) -> bool:
        """True when the verifier was made with another pepper or cost than today's and should be made anew at login."""
        _, version, cost, _, _ = verifier.split("$")
        return version != self._current or cost != self._cost.text()

    def _argon(self, password: bytes, salt: bytes, cost: Cost) -> bytes:
        return hash_secret_raw(password, salt, cost.time, cost.memory_kib, 1, 32, Type.ID)

    def _mac(self, version: str, raw: bytes) -> bytes:
        return hmac.new(self._peppers[version], raw, hashlib.sha256).digest()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
