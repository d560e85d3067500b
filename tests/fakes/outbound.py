"""`Outbound` that records, and answers as a test says: a small real class, no mock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from idp.core.outbound import Answer, Unreachable


@dataclass(frozen=True)
class Call:
    """One call that left the process."""

    url: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def form(self) -> dict[str, str]:
        """The body as a form, one value each."""
        return {k: v[0] for k, v in parse_qs(self.body.decode()).items()}


Behaviour = Callable[[Call], Answer]


def ok(_call: Call) -> Answer:
    """200 and nothing else."""
    return Answer(200, {}, b"", 3)


def status(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Always this status. headers: names with _ for -."""
    return lambda _call: Answer(code, {k.replace("_", "-"): v for k, v in headers.items()}, body, 3)


def down(_call: Call) -> Answer:
    """Nobody listens."""
    raise Unreachable("network", "refused")


def slow(_call: Call) -> Answer:
    """No answer within the deadline."""
    raise Unreachable("timeout", "ReadTimeout")


@dataclass
class RecordingOutbound:
    """Every call in order; `behave` sets what an address answers, 200 unless told otherwise."""

    calls: list[Call] = field(default_factory=list)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)

    def behave(self, url: str, behaviour: Behaviour) -> None:
        """From now on this address answers so."""
        self.behaviours[url] = behaviour

    def check(self, url: str) -> None:
        """Every address is fine here; the real rules have tests of their own."""

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> Answer:
        """Record, then behave."""
        call = Call(url, body, headers)
        self.calls.append(call)
        return self.behaviours.get(url, ok)(call)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Record with an empty body, then behave."""
        return self.post(url, b"", headers=headers or {})

    def to(self, url: str) -> list[Call]:
        """The calls to one address."""
        return [call for call in self.calls if call.url == url]
