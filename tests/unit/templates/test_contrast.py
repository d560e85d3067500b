"""Contrast of the token pairs of ux.md 7.4, computed from tokens.css in both themes (WCAG 2.2, relative luminance)."""

import re

import pytest
from rendering import STATIC

# Text, its background, the ratio required.
PAIRS = [
    ("text", "surface", 7),
    ("text", "bg", 7),
    ("text", "bg-sub", 7),
    ("text", "info-bg", 7),
    ("text", "ok-bg", 7),
    ("text", "ng-bg", 7),
    ("text", "wait-bg", 7),
    ("text-sub", "surface", 7),
    ("text-sub", "bg", 7),
    ("text-sub", "bg-sub", 7),
    ("text-sub", "ok-bg", 7),
    ("text-sub", "ng-bg", 7),
    ("text-sub", "wait-bg", 7),
    ("link", "surface", 7),
    ("link", "bg", 7),
    ("link", "bg-sub", 7),
    ("link", "info-bg", 7),
    ("on-primary", "primary", 7),
    ("on-primary", "primary-hover", 7),
    ("on-danger", "danger", 7),
    ("on-danger", "danger-hover", 7),
    ("ok", "ok-bg", 7),
    ("ok", "surface", 7),
    ("ng", "ng-bg", 7),
    ("ng", "surface", 7),
    ("wait", "wait-bg", 7),
    ("wait", "surface", 7),
    ("info", "info-bg", 7),
    ("info", "surface", 7),
    ("border-strong", "surface", 3),
    ("border-strong", "bg", 3),
    ("border-strong", "bg-sub", 3),
    ("primary", "bg", 3),
    ("focus", "bg", 3),
    ("focus", "surface", 3),
]


def tokens() -> dict[str, str]:
    source = re.sub(r"/\*.*?\*/", "", (STATIC / "css/tokens.css").read_text(), flags=re.DOTALL)
    return {name: value.strip() for name, value in re.findall(r"--([\w-]+):([^;}]+)", source)}


def resolve(value: str, theme: str, known: dict[str, str]) -> tuple[float, float, float]:
    """The sRGB channels, 0 to 1, that a value has in a theme ('light' | 'dark')."""
    if both := re.fullmatch(r"light-dark\(\s*(.+?)\s*,\s*([^,]+?)\s*\)", value):
        return resolve(both[1 if theme == "light" else 2], theme, known)
    if name := re.fullmatch(r"var\(--([\w-]+)\)", value):
        return resolve(known[name[1]], theme, known)
    digits = re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})", value)
    assert digits, value
    h = digits[1] if len(digits[1]) == 6 else "".join(c * 2 for c in digits[1])
    return int(h[:2], 16) / 255, int(h[2:4], 16) / 255, int(h[4:], 16) / 255


def luminance(rgb: tuple[float, float, float]) -> float:
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(text: str, ground: str, theme: str) -> float:
    known = tokens()
    high, low = sorted((luminance(resolve(known[name], theme, known)) for name in (text, ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground", "required"), PAIRS)
def test_pair_is_readable(text: str, ground: str, required: float, theme: str) -> None:
    assert contrast(text, ground, theme) >= required


def test_the_formula_gives_the_known_ends() -> None:
    assert contrast("focus", "bg", "light") == pytest.approx(21.0)
    assert contrast("text", "surface", "light") == pytest.approx(17.4, abs=0.05)
