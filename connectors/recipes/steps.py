"""The steps of a form, and the selectors by which they find their elements."""

from __future__ import annotations

from typing import Final, cast

from selectolax.lexbor import LexborHTMLParser, SelectolaxError

from connectors.recipes.hosts import Ground, scheme_allowed
from connectors.recipes.model import BROWSER_ONLY, BY_KINDS, STEP_KINDS, By, ByKind, Condition, Step, StepKind
from connectors.recipes.reader import At

_EMPTY: Final = LexborHTMLParser("<html></html>")
_KEYS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "open": (("url",), ()),
    "fill": (("field", "by"), ("value",)),
    "choose": (("by", "value"), ()),
    "check": (("by",), ()),
    "click": (("by",), ()),
    "submit": (("by",), ()),
    "wait_for": ((), ("css", "text")),
}


def css_is_valid(text: str) -> bool:
    """Whether our CSS engine can read a selector."""
    try:
        _EMPTY.css(text)
    except SelectolaxError:
        return False
    return True


def steps(at: At, driver: str, ground: Ground) -> tuple[Step, ...]:
    """The steps in order; `click` and `wait_for` only where a browser runs."""
    found = []
    for number, item in enumerate(at.items(), start=1):
        pair = item.only_key(STEP_KINDS)
        if pair is None:
            continue
        kind, inner = pair
        if kind in BROWSER_ONLY and driver != "browser":
            item.note("driver_cannot", step=str(number), kind=kind)
        found.append(_step(cast("StepKind", kind), inner, ground))
    if at.present and not found:
        at.wrong("1つ以上の手順", "at least one step")
    return tuple(found)


def _step(kind: StepKind, at: At, ground: Ground) -> Step:
    required, optional = _KEYS[kind]
    keys = at.keys(required, optional)
    line = at.node.line
    if kind == "open":
        url = keys["url"].text()
        if keys["url"].present and not scheme_allowed(url, ground):
            keys["url"].note("not_https", url=url)
        return Step(kind, line, url=url)
    if kind == "wait_for":
        if keys["css"].present == keys["text"].present:
            at.wrong("css か text のどちらか1つ", "one of css and text")
        if keys["css"].present and not css_is_valid(keys["css"].text("*")):
            keys["css"].note("css_invalid", css=keys["css"].text("*"))
        css = keys["css"].text("*") if keys["css"].present else None
        return Step(kind, line, until=Condition(css=css, text=None if css else keys["text"].text("x")))
    if kind == "fill" and keys["value"].present:
        # A literal in a fill step is a password that somebody pasted, or will be one day.
        keys["value"].note("secret_in_recipe")
    by = tuple(found for item in keys["by"].items() if (found := _by(item)) is not None)
    if keys["by"].present and not by:
        keys["by"].note("selector_empty")
    return Step(
        kind,
        line,
        by=by,
        field=keys["field"].text() if kind == "fill" else None,
        value=keys["value"].text() if kind == "choose" else None,
    )


def _by(at: At) -> By | None:
    members = at.node.value
    kinds = [key for key in members if key in BY_KINDS] if isinstance(members, dict) else []
    if "role" in kinds:
        kinds = ["role"]
    if len(kinds) != 1:
        at.note("selector_kind")
        return None
    kind = cast("ByKind", kinds[0])
    keys = at.keys((kind, "name") if kind == "role" else (kind,))
    value = keys[kind].text("x")
    if kind == "css" and not css_is_valid(value):
        keys[kind].note("css_invalid", css=value)
        return None
    return By(kind, value, keys["name"].text() if kind == "role" else None)
