"""RE-46: few logins are inside, some wait at the door, no further one holds a thread; a revocation finds the others free."""

import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from idp.edges.crowd import Crowd


class Slow:
    """An application in which everybody stays until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.inside = threading.Semaphore(0)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.inside.release()
        assert self.gate.wait(10)
        if environ["PATH_INFO"].endswith("broken"):
            raise RuntimeError
        start_response("200 OK", [])
        return [b"in"]


def call(app: Crowd, path: str) -> tuple[str, dict[str, str], bytes]:
    told: list[Any] = []
    body = b"".join(app({"PATH_INFO": path, "REQUEST_METHOD": "POST"}, lambda *answer: told.extend(answer)))
    return told[0], dict(told[1]), body


@pytest.mark.parametrize("door", ["/login", "/login/totp", "/login/recovery", "/c/AOBA"])
def test_RE_46_who_comes_above_the_places_is_sent_away_at_the_door(door: str) -> None:
    slow = Slow()
    app = Crowd(slow, places=2, queue=0)
    crowd = [threading.Thread(target=call, args=(app, "/login")) for _ in range(2)]
    for one in crowd:
        one.start()
        assert slow.inside.acquire(timeout=10)
    status, headers, body = call(app, door)
    assert status.startswith("503")
    assert int(headers["Retry-After"]) > 0
    assert headers["Cache-Control"] == "no-store"
    assert "もう一度" in body.decode()
    assert "log in again" in body.decode()
    assert int(headers["Content-Length"]) == len(body)
    slow.gate.set()
    for path in ("/store/S1/staff", "/login/step-up", "/receipts", "/loginx"):
        assert call(app, path)[0] == "200 OK"
    for one in crowd:
        one.join(10)
    assert call(app, door)[0] == "200 OK"


def test_RE_46_a_place_is_given_back_when_the_application_fails() -> None:
    slow = Slow()
    slow.gate.set()
    app = Crowd(slow, places=1, queue=0)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            call(app, "/c/broken")
    assert call(app, "/login")[0] == "200 OK"


def test_RE_46_a_rush_waits_at_the_door_and_a_storm_does_not() -> None:
    """One is inside, two wait, the fourth is sent away; then all three are served, and the door is free again."""
    slow = Slow()
    app = Crowd(slow, places=1, queue=2, patience_s=60)
    answers: list[str] = []
    crowd = [threading.Thread(target=lambda: answers.append(call(app, "/login")[0])) for _ in range(3)]
    crowd[0].start()
    assert slow.inside.acquire(timeout=10)
    for one in crowd[1:]:
        one.start()
    until = time.monotonic() + 10
    while app._queue._value and time.monotonic() < until:  # nobody outside can see who waits
        time.sleep(0.001)
    assert call(app, "/login")[0].startswith("503")
    assert not slow.inside.acquire(timeout=0)
    slow.gate.set()
    for one in crowd:
        one.join(10)
    assert answers == ["200 OK"] * 3
    assert call(app, "/login")[0] == "200 OK"


def test_RE_46_patience_at_the_door_ends() -> None:
    slow = Slow()
    app = Crowd(slow, places=1, queue=1, patience_s=0.01)
    inside = threading.Thread(target=call, args=(app, "/login"))
    inside.start()
    assert slow.inside.acquire(timeout=10)
    for _ in range(2):
        assert call(app, "/login")[0].startswith("503")
    slow.gate.set()
    inside.join(10)
