"""The glance at a page's source: it may say yes too often and never no too often, or a logged-out page would be shown (VA-55)."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.recipes.checks import Page, condition_holds
from connectors.recipes.glance import folded, may_show
from connectors.recipes.model import Condition

WORDS = ("ログインしてください", "グ", "パスワード-再入力", "Log in", "セッション", "切れ-", "½", "Ærø", "한국", "hé")
#: what parsers drop, decode, move or split characters by
MARKUP = (
    "<b>", "</b>", "<!-- -->", "<!---->", "<table>", "<tr>", "<td>", "</td>", "</tr>", "</table>", "<script>", "</script>", "<style>",
    "</style>", "<svg>", "</svg>", "<![CDATA[", "]]>", "]", "<pre>", "</pre>", "<select>", "<option>", "</select>", "<template>",
    "</template>", "<textarea>", "</textarea>", "<title>", "</title>", "<frameset>", "<plaintext>", "<a href='ロ'>", "</body>", "</html>",
    "<", "</", "<?x ?>", "<noscript>", "</noscript>", "<foreignObject>", "\0", "\r", "\n", " ", "\u3000", "\f", "\xa0", "&", "&amp;", "&nbsp;",
    "&#12525;", "&#x30ed;", "&#x3099;", "&#39;", "&#0;", "&#", "&Lfr;", "&lscr;", "&half;", "&ndash;", "&hyphen;", "&AElig;", "&copy", "&eacute;",
)  # fmt: skip
LOOK_ALIKE = (
    "\u3099",
    "\u309a",
    "ﾞ",
    "ﾟ",
    "゛",
    "ﾛ",
    "ｸ",
    "ﾊ",
    "ク",
    "ハ",
    "ー",
    "－",
    "‐",
    "Ｌ",
    "①",
    "㌘",
    "1⁄2",
    "e",
    "\u0301",
)


@st.composite
def pages(draw: st.DrawFn) -> tuple[str, str]:
    """A text and a page in which it stands, more or less."""
    word = draw(st.sampled_from(WORDS))
    form = draw(st.sampled_from(("NFC", "NFD", "NFKD")))
    odd = st.lists(st.sampled_from(MARKUP + LOOK_ALIKE), max_size=2).map("".join)
    written = (draw(odd) + character for character in unicodedata.normalize(form, folded(word)))
    return word, draw(odd) + "".join(written) + draw(odd)


@given(pages())
def test_VA_55_what_a_reader_sees_is_never_overlooked(drawn: tuple[str, str]) -> None:
    word, html = drawn
    assert may_show(word, html) or folded(word) not in Page("https://t.example/", 200, html).text


@pytest.mark.parametrize(
    "html",
    [
        "<p>ログ<b>イン</b>してください", "<p>ﾛｸﾞｲﾝしてください", "ロク<table>\u3099インしてください", "<p>&#12525;グインしてください",
        "<p>ログ\nイン&nbsp;して　ください", "<svg><text><![CDATA[ロ]]>グインしてください", "<p>ロ\0グインしてください",
        "<table><tr><td>グインしてください</td></tr>ロ",
    ],
)  # fmt: skip
def test_VA_55_a_text_that_is_written_in_pieces_is_found(html: str) -> None:
    assert condition_holds(Condition(text="ログインしてください"), Page("https://t.example/", 200, html))


@pytest.mark.parametrize(
    "html",
    ["<p>ログアウト &amp; 印刷 &#39;10-15&#039; 髙橋", "<p>（ログイン中）：田中　様…①", "<h1>シフト</h1>" * 1000],
)
def test_an_ordinary_page_is_not_parsed(html: str) -> None:
    assert not may_show("ログインしてください", html)


def test_ascii_kana_and_kanji_do_not_change_when_they_are_normalised() -> None:
    for first, last in ((0, 0x7F), (0x3001, 0x3035), (0x3041, 0x3096), (0x30A1, 0x30FE), (0x4E00, 0x9FFF)):
        assert unicodedata.is_normalized("NFKC", "\n".join(map(chr, range(first, last + 1))))
