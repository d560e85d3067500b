"""The console as a hostile peer, for tests of the provider's logout delivery (requirements.md LO-07, RE-05).

This is the only place where the console does wrong on purpose. It is OFF unless `CONSOLE_MISBEHAVE` (or
`--misbehave`) names one of the values below, it touches `/backchannel-logout` and nothing else, and `create_console`
warns in the log when it is on. Never set it outside a test or a demonstration of what a receipt must say.
"""

from collections.abc import Callable
from enum import Enum

from flask import Response, make_response

SLOW_S = 20.0
"""Longer than the 10 s that a provider waits in all (LO-08)."""


class Misbehaviour(Enum):
    """How the back-channel receiver fails. The values are those of `CONSOLE_MISBEHAVE`."""

    NONE = ""
    SLOW = "slow"
    """Sleeps 20 s, then does its work honestly: the outcome is unknown to a peer that gave up."""
    LYING = "lying"
    """Answers 200 and keeps the session: why a receipt says acknowledged and never verified."""
    REDIRECT = "redirect"
    """302 to the home page: a peer that follows it would read a login page as success."""
    DOWN = "down"
    """503 with Retry-After."""


def answer_instead(misbehaviour: Misbehaviour, pause: Callable[[float], object]) -> Response | None:
    """What the receiver answers in place of doing its work, or None when the work is still to be done.

    pause: called with seconds; `time.sleep` outside of tests.
    """
    match misbehaviour:
        case Misbehaviour.LYING:
            return make_response("", 200)
        case Misbehaviour.REDIRECT:
            return make_response("", 302, {"Location": "/"})
        case Misbehaviour.DOWN:
            return make_response("", 503, {"Retry-After": "1"})
        case Misbehaviour.SLOW:
            pause(SLOW_S)
    return None
