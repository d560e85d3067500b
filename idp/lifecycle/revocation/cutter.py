"""What finishes a cut at another system. Edges implement it, `worker.py` wires the dictionary: a new kind of application is
a new edge, not an `if` in the cascade."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

Result = Literal["verified", "acknowledged", "later", "retry", "refused"]


@dataclass(frozen=True)
class CutOrder:
    """One attempt. delivery_id names all attempts together; application_id, account_id and sids say what to end.

    sids: app sessions that ended and of which the peer has not heard in an earlier attempt; whole_subject: every session
    of the person there. target: what the line names, such as the account inside a tool; revocation_id, t0: of the cut, None
    for a logout that is no revocation; memory: what the attempts before left for this one.
    """

    delivery_id: uuid.UUID
    application_id: uuid.UUID
    account_id: uuid.UUID
    sids: tuple[str, ...]
    whole_subject: bool
    attempt: int
    now: datetime
    target: str = ""
    revocation_id: uuid.UUID | None = None
    t0: datetime | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt. result: verified (we saw that access is refused), acknowledged (the peer said yes, no more than
    that), later (our own work goes on, and nothing went wrong), retry, refused (a person).

    error: short machine word for the log and the receipt. retry_after_s: what the peer asked for. told: how many of the
    order's sids, from the first, need not be told again. evidence: facts such as HTTP status and `jti`, never a body.
    again_at: when to look again; without it a retry backs off as from a peer that fails. memory: what the next attempt should
    know.
    """

    result: Result
    error: str | None = None
    retry_after_s: int | None = None
    told: int = 0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    again_at: datetime | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)


class Cutter(Protocol):
    """Called with no transaction open. Must return within seconds and never raise for a peer's fault."""

    def cut(self, order: CutOrder) -> Outcome:
        """Make one attempt."""
