"""Can a text stand in a page at all? Told from the source in a tenth of the time that parsing it takes.

Says no only where parsing would find nothing either; whatever it does not understand is a yes, and the page is parsed. A no rests on
this: a parser hands the characters of a page on in their order, and only `<`, `&`, `]` (the end of CDATA), NUL and the end of the
page can bring two of them together that do not stand side by side.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from html.entities import html5
from typing import Final

#: characters that tools and recipe authors write alike (vault-and-gateway.md §6)
DASHES: Final = "ー－−‐–—―ｰ"
_DASH: Final = re.compile(f"[{DASHES}]")  # no table for `translate`: that takes a call per character
#: what NFKC may change: neither ASCII nor the kana and kanji that pages are written in
_OTHERS: Final = re.compile(r"[^\x00-\x7f\u3001-\u3035\u3041-\u3096\u30a1-\u30fe\u4e00-\u9fff]+")
#: the marks of voiced kana, which make one character of two
_VOICE: Final = "\u3099\u309a"
#: `" & ' < >` and the space that does not break, as every framework writes them; none of them is looked for
_NUMBERS: Final = r"#(?!(?:0*(?:34|38|39|60|62|160)|[xX]0*(?:22|26|27|3[cC]|3[eE]|[aA]0));)"
_NEVER: Final = frozenset("\"&'<>]\0\ufffd")
_MOST: Final = 24


def folded(text: str) -> str:
    """NFKC, without white space, with every kind of dash alike: how labels and texts are compared."""
    return "".join(_DASH.sub("-", unicodedata.normalize("NFKC", text)).split())


def may_show(text: str, html: str) -> bool:
    """Whether the text may stand, folded, in the folded text of the page. False is certain, True is not."""
    looks = _looks(text)
    if looks is None:
        return True
    start, unsure, voiced = looks
    if not unicodedata.is_normalized("NFKC", html):  # normalising a whole page takes longer than parsing it
        html = _OTHERS.sub(lambda run: unicodedata.normalize("NFKC", run[0]), html)
    if voiced and any(mark in html for mark in _VOICE):
        return True
    return start.search(html) is not None or unsure.search(html) is not None


@lru_cache(maxsize=1024)
def _looks(text: str) -> tuple[re.Pattern[str], re.Pattern[str], bool] | None:
    """What to look for: the beginning of the text, what may be written for it; or None for a text that is not for this."""
    wanted = folded(text)[:_MOST]
    parts = [unicodedata.normalize("NFD", character) for character in wanted]
    marks = {mark for part in parts for mark in part[1:]}
    if not wanted or _NEVER & set(wanted) or not marks <= set(_VOICE):
        return None
    if any(unicodedata.category(character).startswith("M") for character in wanted):
        return None
    rest = ""
    for character in reversed(wanted[1:]):
        rest = rf"\s*(?:[<&\]\0]|\Z|{_class(character)}{rest})"
    names = [name for name, value in html5.items() if ({wanted[0]} | marks) & set(folded(value))]
    unsure = "|".join([_NUMBERS, *map(re.escape, names)])
    return re.compile(_class(wanted[0]) + rest), re.compile(f"&(?:{unsure})"), bool(marks)


def _class(character: str) -> str:
    return f"[-{DASHES}]" if character == "-" else re.escape(character)
