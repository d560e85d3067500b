"""Search folding: what a clerk types at a counter finds the member, whichever way the name is written. Pure."""

import unicodedata

SAME_NAME = str.maketrans("髙﨑𠮷邊邉齋齊斎濵濱德", "高崎吉辺辺斉斉斉浜浜徳")
"""Letters that a person may have in their name and that the keyboard offers only in the other form."""


def fold(text: str) -> str:
    """Full width to half, hiragana to katakana, capitals and accents off, name variants to one form, no spaces.

    Katakana keeps its voiced marks: ハ and バ are different letters, é and e are not.
    """
    letters = []
    for char in unicodedata.normalize("NFKC", text).translate(SAME_NAME).casefold():
        if char.isspace():
            continue
        base = unicodedata.normalize("NFD", char)[0]
        plain = base if base.isascii() else char
        letters.append(chr(ord(plain) + 0x60) if "ぁ" <= plain <= "ゖ" else plain)
    return "".join(letters)
