"""Why a login or a change ended without success: a closed list, because a person acts on it and the try budget counts it."""

from __future__ import annotations

from typing import Final

#: code → whether a machine may try again by itself, provided that nothing was sent
CODES: Final[dict[str, bool]] = {
    "tool_away": True,  # no answer, 5xx, time-out
    "refused": False,  # the tool says that user name or password are wrong
    "locked": False,  # the tool has locked the account
    "code_asked": False,  # a one-time code is wanted
    "human_check": False,  # CAPTCHA and its like; never solved by us (§18)
    "terms_page": False,  # somebody has to agree to something
    "recipe_drift": False,  # an element is gone, or no check holds
    "ambiguous_field": False,  # two elements fit; nothing was typed
    "unexpected_field": False,  # a password field that the recipe does not know
    "origin_mismatch": False,  # the page, its form or a redirect belongs to another host, or holds a frame
    "secret_in_url": False,  # the form would send the password in an address
    "check_unproven": False,  # the probe looks logged in without any login
    "field_missing": False,  # the account has no value for a field
}


class Failed(Exception):
    """code: of the list above; submitted: whether a secret had been sent; step: line of the recipe, for drift.

    The message holds no value and no text of the tool's page: both may contain a password.
    """

    def __init__(self, code: str, *, submitted: bool = False, line: int | None = None) -> None:
        super().__init__(code if line is None else f"{code} (recipe line {line})")
        self.code, self.submitted, self.line = code, submitted, line

    @property
    def may_repeat(self) -> bool:
        """Whether a machine may try again."""
        return CODES[self.code] and not self.submitted
