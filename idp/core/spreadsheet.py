"""Lines of a CSV file that Excel and LibreOffice open as what they are: text, never a formula (WB-08, ASVS 1.2.10).

Every cell is quoted (RFC 4180); one that begins with what a spreadsheet reads as the start of a formula gets an
apostrophe, in half and full width: a name typed as ＝cmd must not run on the auditor's desk. CP932 is what Japanese
Excel expects without a byte-order mark; what it cannot hold becomes 〓 and is counted, never dropped.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Literal

Encoding = Literal["utf-8", "cp932"]
STARTS_A_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
#: what Unicode has twice and CP932 once, under the other code point
TWINS = str.maketrans("〜−—‖¢£¬", "～－―∥￠￡￢")
GETA = "〓"


def _geta(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return GETA * (error.end - error.start), error.end


codecs.register_error("sekisho-geta", _geta)


def cell(value: object) -> str:
    """One quoted cell. None is empty."""
    text = "" if value is None else str(value)
    if text.startswith(STARTS_A_FORMULA):
        text = f"'{text}"
    return '"' + text.replace("\0", "").replace('"', '""') + '"'


class Sheet:
    """Encodes lines, and counts the characters that the encoding could not hold."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.replaced = 0
        #: goes before the first line: Excel takes UTF-8 for CP932 without it
        self.start = codecs.BOM_UTF8 if encoding == "utf-8" else b""

    def line(self, values: Iterable[object]) -> bytes:
        """One line, encoded, with CRLF."""
        text = ",".join(cell(value) for value in values) + "\r\n"
        if self.encoding == "utf-8":
            return text.encode("utf-8", "replace")
        text = text.translate(TWINS)
        done = text.encode("cp932", "sekisho-geta")
        self.replaced += done.decode("cp932").count(GETA) - text.count(GETA)
        return done

    @property
    def charset(self) -> str:
        """The name for a Content-Type header."""
        return "utf-8" if self.encoding == "utf-8" else "Shift_JIS"
