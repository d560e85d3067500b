"""What a login gives, and how the page after a submit is read when it is not the one hoped for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from connectors.cookies import Jar
from connectors.engine.forms import CODE_FIELDS, HUMAN_CHECKS, is_visible
from connectors.ports import NewSecret, Revealable
from connectors.recipes.checks import Page, holds
from connectors.recipes.model import Recipe
from connectors.scanset import ScanSet, build

Standing = Literal["logged_in", "logged_out", "unclear"]
_LOCKED: Final = ("ロックされ", "ロックしました", "accountislocked", "accounthasbeenlocked", "temporarilylocked")
_AGREE: Final = ("利用規約に同意", "同意する", "agreetotheterms", "acceptterms")


@dataclass(frozen=True, slots=True)
class LoginResult:
    """Cookies only, session and device parts apart, and what the gateway needs to find a leak (§7.6, §7.7)."""

    jar: Jar
    device: Jar
    scan: ScanSet
    unguarded: tuple[str, ...]


def result(recipe: Recipe, jar: Jar, values: Mapping[str, Revealable], new_secret: NewSecret) -> LoginResult:
    """Put a proven jar into its parts. unguarded: secret fields too short for the scan; certification says so."""
    secrets = {name: values[name].reveal() for name in recipe.secret_fields if name in values}
    scan = build(secrets.values(), key=hashlib.sha256(new_secret().encode()).digest(), charset=recipe.charset)
    short = tuple(name for name, value in secrets.items() if len(value) < 8)
    devices = recipe.session.device
    return LoginResult(jar.without(devices), jar.only(devices), scan, short)


def standing(recipe: Recipe, page: Page) -> Standing:
    """What the checks of a recipe say about a page. Both or neither is unclear, and unclear is never taken for a yes."""
    inside, outside = holds(recipe.checks.logged_in, page), holds(recipe.checks.logged_out, page)
    if inside == outside:
        return "unclear"
    return "logged_in" if inside else "logged_out"


def asks_for_human(page: Page) -> bool:
    """Whether a page wants to be sure that a person sits there."""
    return any(page.tree.css_first(selector) is not None for selector in HUMAN_CHECKS)


def why_not(recipe: Recipe, page: Page) -> str:
    """The failure code for the page on which a login got stuck."""
    if page.status >= 500:
        return "tool_away"
    if asks_for_human(page):
        return "human_check"
    if any(is_visible(node) for selector in CODE_FIELDS for node in page.tree.css(selector)):
        return "code_asked"
    text = page.text.casefold()
    if any(word in text for word in _LOCKED):
        return "locked"
    if any(word in text for word in _AGREE) and page.tree.css_first("input[type=checkbox]") is not None:
        return "terms_page"
    password = [node for node in page.tree.css("input[type=password]") if is_visible(node)]
    if password or holds(recipe.checks.logged_out, page):
        return "refused"
    return "recipe_drift"
