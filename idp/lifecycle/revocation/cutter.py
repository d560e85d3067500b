"""What finishes a cut at another system. Edges implement it, `worker.py` wires the dictionary: a new kind of application is
a new edge, not an `if` in the cascade."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

Result = Literal["acknowledged", "retry", "refused"]


@dataclass(frozen=True)
class CutOrder:
    """One attempt. delivery_id names all attempts together; application_id, account_id and sids say what to end.

    sids: app sessions that ended and of which the peer has not heard in an earlier attempt; whole_subject: every session
    of the person there.
    """

    delivery_id: uuid.UUID
    application_id: uuid.UUID
    account_id: uuid.UUID
    sids: tuple[str, ...]
    whole_subject: bool
    attempt: int
    now: datetime


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt. result: acknowledged (the peer said yes, no more than that), retry, refused (a person).

    error: short machine word for the log and the receipt. retry_after_s: what the peer asked for. told: how many of the
    order's sids, from the first, need not be told again. evidence: facts such as HTTP status and `jti`, never a body.
    """

    result: Result
    error: str | None = None
    retry_after_s: int | None = None
    told: int = 0
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Cutter(Protocol):
    """Called with no transaction open. Must return within seconds and never raise for a peer's fault."""

    def cut(self, order: CutOrder) -> Outcome:
        """Make one attempt."""
