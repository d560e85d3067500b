"""RE-46: logins may fill a quarter of the server's threads and not one more; a revocation finds the others free."""

import threading
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
    app = Crowd(slow, 2)
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
    app = Crowd(slow, 1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            call(app, "/c/broken")
    assert call(app, "/login")[0] == "200 OK"
