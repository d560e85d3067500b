"""Certification of one tool account with one recipe, before the gateway may carry it (vault-and-gateway.md §7).

    result = await certify(recipe, values, browser=browser, now=now, new_secret=new_secret, loopback=False,
                           before_submit=before_submit)
    result.certified          # may the gateway lane be used?
    result.refused_for        # names of the checks in the way: ("token_in_body",); result.code: why, in one word
    for check in result.checks: check.name, check.outcome, check.code, check.evidence, check.digest
    result.evidence_digest, result.recipe_digest, result.run_at, result.expires_at, result.unguarded, result.submitted

It logs in once, with the engine's own driver, and then stands up a private gateway on loopback with ports in memory: no live
session of a person is touched, and nothing is stored. The caller has opened the fields through the desk (audit row first),
has asked the try budget, and stores the result; `before_submit` counts the try as in any login. A tool that allows one session
per account (`single: true`) ends its live one by this login: the gateway then renews as it always does.

Nothing is raised for a tool's fault: a tool that is away or drifted fails the check `login` with the engine's code. A check that
cannot be tried (the login failed before it) is NOT_RUN, and what was not tried is not certified. Pages are looked at in a
Chromium, so the package wants the extra `browser` (Playwright).
"""

from __future__ import annotations

from connectors.certify.model import NAMES, VALID_S, Certification, Check, Outcome
from connectors.certify.run import certify

__all__ = ["NAMES", "VALID_S", "Certification", "Check", "Outcome", "certify"]
