"""The one error family. Each error has two texts: `public` for the person or peer, `private` for the log.

Edges translate with one table each (OAuth code, page, exit status); nothing else of an exception reaches the outside
(WB-22). `field` names the input that was wrong, `row` its line in a file, so that a form can point at it.
"""

from __future__ import annotations

from collections.abc import Mapping


class SekishoError(Exception):
    """Base. public: text for people, Japanese msgid; private: ids and reasons for the log, never a secret; values: what
    stands in the public text as `%(name)s`, put in after translation."""

    status = 500

    def __init__(
        self,
        public: str,
        private: str = "",
        *,
        field: str | None = None,
        row: int | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(private or public)
        self.public = public
        self.private = private
        self.field = field
        self.row = row
        self.values = values or {}


class NotFound(SekishoError):
    """Does not exist, or is not this viewer's to see: the two answer alike (WB-07)."""

    status = 404


class Conflict(SekishoError):
    """Somebody else changed it first, or it exists already."""

    status = 409


class Invalid(SekishoError):
    """The input cannot be used; `field` says which part."""

    status = 400


class Denied(SekishoError):
    """Known, and not allowed."""

    status = 403


class Throttled(SekishoError):
    """Too many tries. retry_after_s: seconds until the next try may succeed."""

    status = 429

    def __init__(self, public: str, private: str = "", *, retry_after_s: int) -> None:
        super().__init__(public, private)
        self.retry_after_s = retry_after_s


class Busy(Throttled):
    """Nobody did anything wrong: there is more work than the machine can do right now (RE-46)."""


class Stale(SekishoError):
    """The form or link is older than what it refers to; start again."""

    status = 400


class Unavailable(SekishoError):
    """Something we depend on is away; refused, not guessed (D8)."""

    status = 503
