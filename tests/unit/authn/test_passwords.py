"""Password rules and the hasher, without a database."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.core.errors import Busy, Invalid
from idp.domain.authn.passwords import Cost, Hasher, check_new, normalise

CHEAP = Cost(64, 1)
SHOP = ("山本 健", "0413", "AOBA", "あおばストア", "渋谷駅前店")


def hasher(
    *, slots: int = 2, queue: int = 2, current: str = "1", cost: Cost = CHEAP, peppers: dict[str, bytes] | None = None
) -> Hasher:
    return Hasher(peppers or {"1": b"p" * 32}, current, cost, slots=slots, queue=queue)


def test_what_is_the_same_password_ac01() -> None:
    """AC-01: NFKC folds what an IME does; nothing else is folded: case, spaces and order count."""
    for left, right in (("ｐａｓｓ１２３", "pass123"), ("カ\u3099", "ガ"), ("ｶﾞ", "ガ"), ("\u3000", " "), ("①", "1")):
        assert normalise(left) == normalise(right)
    for left, right in (("Pass", "pass"), ("a b", "ab"), (" a", "a"), ("か", "カ"), ("🐈", "🐕")):
        assert normalise(left) != normalise(right)


def test_the_cap_is_checked_before_and_after_folding_ac01() -> None:
    """AC-01: 256 bytes; 10 MB cost nothing; one character that folds into eighteen does not slip past; NUL is refused."""
    assert len(normalise("a" * 256)) == 256
    started = time.thread_time()  # what it costs, however busy the machine is
    for bad in ("a" * 257, "絵" * 86, "ﷺ" * 20, "a\0b", "a" * 10_000_000, "\ufdfa" * 3_000_000):
        with pytest.raises(Invalid) as error:
            normalise(bad)
        assert error.value.field == "password"
    assert time.thread_time() - started < 1


def test_new_passwords_ac01_ac02() -> None:
    """AC-01, AC-02: length by factor, no composition rule, no word of the shop, no pattern; the texts say which length."""
    for good in (
        "quiet river under the bridge",
        "しずかな川の橋の下で昼寝をする",
        "alllowercaseyetlong quiet",
        "vF7 trombone lake 2",
    ):
        check_new(good, second_factor=False, context=SHOP)
    check_new("vU9#kq2!", second_factor=True, context=SHOP)
    for bad in (
        "vU9#kq2!vU9#kq", "a" * 40, "abcabcabcabcabcabc", "1234567890123456789", "aoba0413aoba0413", "あおばストアあおばストアあおばストア", "渋谷駅前店渋谷駅前店0413",
        "Password123456789", "qwertyuiopqwertyuiop", "              ", "店長店長店長店長店長店長店長店長", "tencho2026tencho",
    ):  # fmt: skip
        with pytest.raises(Invalid):
            check_new(bad, second_factor=False, context=SHOP)
    for bad in ("Tencho2026!", "Honbu2026!!", "aoba0413!", "p@ssw0rd1", "12345678", "ｔｅｎｃｈｏ１"):
        with pytest.raises(Invalid):
            check_new(bad, second_factor=True, context=SHOP)
    for second_factor, shortest in ((False, 15), (True, 8)):
        with pytest.raises(Invalid) as refused:
            check_new("short", second_factor=second_factor, context=())
        assert refused.value.public % refused.value.values == refused.value.public.replace(
            "%(shortest)s", str(shortest)
        )


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=90))
def test_no_text_breaks_the_rules(text: str) -> None:
    """WB-09: whatever is typed is accepted or refused, never an error of another kind, and quickly."""
    for factor in (True, False):
        try:
            check_new(text, second_factor=factor, context=SHOP)
        except Invalid:
            continue


def test_verifiers_ac03_ac04() -> None:
    """AC-03, AC-04: salted, with pepper and cost named; nothing after byte 72 is cut off; without the pepper of its version a
    verifier fits nothing; another pepper or cost is outdated."""
    made = hasher()
    first, second = made.make("p" * 72 + "a"), made.make("p" * 72 + "a")
    assert first != second
    assert made.check("p" * 72 + "a", first)
    assert not made.check("p" * 72 + "b", first)
    assert not made.check("p" * 72, first)
    assert not made.check("", first)
    assert first.split("$")[:3] == ["sk1", "1", "64,1,1"]
    assert not made.is_outdated(first)

    both = {"1": b"p" * 32, "2": b"q" * 32}
    rotated = hasher(peppers=both, current="2")
    assert rotated.check("p" * 72 + "a", first)
    assert rotated.is_outdated(first)
    assert hasher(cost=Cost(64, 2)).is_outdated(first)
    assert not hasher(peppers={"2": b"q" * 32}, current="2").check("p" * 72 + "a", first)
    assert not hasher(peppers={"1": b"x" * 32}).check("p" * 72 + "a", first)
    assert not made.check("p" * 72 + "a", first.replace("sk1", "sk9"))


def test_nobody_home_costs_the_same_ac06() -> None:
    """AC-06: an account that is not there is False after the same work, also for a password that may not be hashed."""
    slow = hasher(cost=Cost(8 * 1024, 2))
    verifier = slow.make("right")

    def cost_of(password: str, against: str | None) -> float:
        best = 9.0
        for _ in range(5):
            started = time.thread_time()
            assert not slow.check(password, against)
            best = min(best, time.thread_time() - started)
        return best

    reference = cost_of("wrong", verifier)
    for password, against in (("wrong", None), ("a" * 5000, verifier), ("a\0", None)):
        assert 0.4 < cost_of(password, against) / reference < 2.5


def test_a_storm_is_bounded_ac03_re46() -> None:
    """AC-03, RE-46: of 60 threads at one moment at most slots work and queue wait; the rest are told at once to come back; nothing
    is left taken afterwards."""
    bound = hasher(slots=2, queue=3, cost=Cost(8 * 1024, 3))
    verifier, start = bound.make("right"), threading.Barrier(60)
    most, lock = [0], threading.Lock()

    def one(_n: int) -> str:
        start.wait()
        try:
            good = bound.check("right", verifier)
        except Busy:
            return "later"
        with lock:
            most[0] += 1
        return "in" if good else "wrong"

    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(one, range(60)))
    assert "wrong" not in answers
    assert answers.count("in") >= 5
    assert answers.count("later") >= 10
    assert bound.check("right", verifier)
    for _ in range(20):  # an error inside gives its place back
        with pytest.raises(Invalid):
            bound.make("\0")
    assert bound.check("right", verifier)
