"""Does a page show a login, or the lack of one? Used by the engine after a login and by the gateway on every answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser

from connectors.recipes.glance import folded, may_show
from connectors.recipes.model import Check, Condition


@dataclass(slots=True)
class Page:
    """One answer of a tool. url: absolute, of this answer; html: decoded text, empty for what is not HTML.

    location: the target of a redirect, absolute; a redirect to the login page is how most tools say "logged out".
    """

    url: str
    status: int
    html: str = ""
    location: str | None = None
    _tree: LexborHTMLParser | None = field(default=None, repr=False)
    _text: str | None = field(default=None, repr=False)

    @property
    def tree(self) -> LexborHTMLParser:
        """The parsed document; parsed once and only when asked for."""
        if self._tree is None:
            self._tree = LexborHTMLParser(self.html or "<html></html>")
        return self._tree

    @property
    def text(self) -> str:
        """The text that a person reads, folded; scripts and styles are not text."""
        if self._text is None:
            tree = LexborHTMLParser(self.html or "<html></html>")
            tree.strip_tags(["script", "style", "template", "noscript"])
            body = tree.body
            self._text = folded(body.text(separator=" ") if body else "")
        return self._text


def condition_holds(condition: Condition, page: Page) -> bool:
    """One condition on one page."""
    if condition.status is not None:
        return page.status == condition.status
    if condition.url is not None:
        return condition.url.matches(page.location or page.url)
    if condition.text is not None:
        return bool(page.html) and may_show(condition.text, page.html) and folded(condition.text) in page.text
    assert condition.css is not None  # noqa: S101 - the loader makes exactly one of the four
    return bool(page.html) and page.tree.css_first(condition.css) is not None


def holds(check: Check, page: Page) -> bool:
    """A whole check on one page."""
    results = (condition_holds(condition, page) for condition in check.conditions)
    return all(results) if check.mode == "all" else any(results)
