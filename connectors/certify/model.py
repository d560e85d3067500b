"""What a certification says: every check by name, how it ended, and a digest over what was seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: how long a certification holds, in seconds
VALID_S: Final = 90 * 86400.0


class Outcome(StrEnum):
    """How one check ended. NOT_RUN: it could not be tried, and what was not tried is not certified."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"
    NOT_RUN = "not_run"


#: in the order in which they are listed; a check that is not reached is NOT_RUN
NAMES: Final = (
    "login",  # the engine's login, and both checks on fresh probes (§7.4)
    "declared",  # no page asked for a host that the recipe does not declare
    "token_in_body",  # no token of a body or a script logs in by itself, without the jar
    "client_cookies",  # mirrored cookies and those of the client alone are logged out
    "host_guard",  # a person sees through the gateway what they see at the tool
    "login_page",  # the tool's login page is never served, with a live jar nor with a dead one
    "deny",  # every deny route is refused, however it is written, and nothing of it reaches the tool
    "logout",  # the tool's logout ends this person's way in and leaves the shared login alone
    "sockets",  # declared WebSockets carry
    "scan",  # a planted secret is blocked
    "leak",  # nothing that the tool itself showed held a secret of the login
    "ended",  # after the tool's own logout it refuses the jar
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. code: why it failed or was not run, a word for programs; evidence: what was seen, as canonical JSON.

    Evidence holds addresses without their queries, statuses and codes; never a value of a field, a cookie or a token.
    """

    name: str
    outcome: Outcome
    code: str | None
    evidence: str

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence, in hex."""
        return hashlib.sha256(self.evidence.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Certification:
    """The result for one tool account and one recipe text.

    recipe_digest: of the recipe that was certified; run_at: seconds since 1970; unguarded: secret fields that are too short
    for the scan, which a page has to say; submitted: whether a try of the tool account was used.
    """

    recipe_digest: str
    run_at: float
    checks: tuple[Check, ...]
    unguarded: tuple[str, ...]
    submitted: bool

    @property
    def certified(self) -> bool:
        """Whether the gateway lane may be used: every check passed or had nothing to look at."""
        return all(check.outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE) for check in self.checks)

    @property
    def refused_for(self) -> tuple[str, ...]:
        """Names of the checks that stand in the way, those that failed before those that were not run."""
        ranks = (Outcome.FAILED, Outcome.NOT_RUN)
        return tuple(check.name for rank in ranks for check in self.checks if check.outcome is rank)

    @property
    def code(self) -> str | None:
        """Why it was refused, in one word: the code of the first check in the way; None when certified."""
        return self.check(self.refused_for[0]).code if self.refused_for else None

    @property
    def expires_at(self) -> float:
        """When it has to be run again."""
        return self.run_at + VALID_S

    @property
    def evidence_digest(self) -> str:
        """SHA-256, in hex, over the recipe's digest and every check with its outcome and evidence."""
        rows = [[check.name, check.outcome.value, check.code, check.digest] for check in self.checks]
        return hashlib.sha256(canonical({"recipe": self.recipe_digest, "checks": rows}).encode()).hexdigest()

    def check(self, name: str) -> Check:
        """One check by its name."""
        return next(check for check in self.checks if check.name == name)


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and without spaces, so that equal evidence has equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
