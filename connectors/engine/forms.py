"""Forms of a server-made page: which elements a person could see, which one a selector means, what a submit would send."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from selectolax.lexbor import LexborHTMLParser, LexborNode

from connectors.engine.failures import Failed
from connectors.recipes import urls
from connectors.recipes.checks import Page
from connectors.recipes.glance import folded
from connectors.recipes.model import By, Step

_FIELDS: Final = "input, textarea, select"
_BUTTONS: Final = "button, input[type=submit], input[type=button], input[type=image], [role=button]"
_UNSEEN_STYLES: Final = (
    "display:none",
    "visibility:hidden",
    "opacity:0",
    "left:-",
    "top:-",
    "text-indent:-",
    "width:0",
    "height:0",
)
_NOT_SENT: Final = frozenset({"submit", "button", "image", "reset", "file"})
HUMAN_CHECKS: Final = (
    ".g-recaptcha", ".h-captcha", ".cf-turnstile", "iframe[src*=captcha]", "iframe[src*=turnstile]", "script[src*=captcha]",
    "img[src*=captcha]", "input[name*=captcha]",
)  # fmt: skip
CODE_FIELDS: Final = (
    "input[autocomplete=one-time-code]",
    "input[name=otp]",
    "input[name=totp]",
    "input[name=one_time_password]",
)


def is_visible(node: LexborNode) -> bool:
    """Whether a person could see and use an element: honeypots are hidden inputs that only programs fill."""
    if node.tag == "input" and (node.attributes.get("type") or "text").lower() == "hidden":
        return False
    if "disabled" in node.attributes or node.attributes.get("tabindex") == "-1":
        return False
    at: LexborNode | None = node
    while at is not None and at.tag not in {"html", "-undef"}:
        attributes = at.attributes
        style = "".join((attributes.get("style") or "").lower().split())
        hidden = "hidden" in attributes or attributes.get("aria-hidden") == "true"
        if hidden or at.tag in {"template", "noscript"} or any(f";{word}" in f";{style}" for word in _UNSEEN_STYLES):
            return False
        if at.tag == "fieldset" and "disabled" in attributes:
            return False
        at = at.parent
    return True


def find(page: Page, step: Step, *, submitted: bool) -> LexborNode:
    """The element of a step: the first alternative with exactly one match wins, two matches stop everything.

    Raises Failed `ambiguous_field` or `recipe_drift`.
    """
    for by in step.by:
        unique = {node.mem_id: node for node in _matches(page.tree, by, step) if is_visible(node)}
        if len(unique) == 1:
            return next(iter(unique.values()))
        if unique:
            raise Failed("ambiguous_field", submitted=submitted, line=step.line)
    raise Failed("recipe_drift", submitted=submitted, line=step.line)


def _matches(tree: LexborHTMLParser, by: By, step: Step) -> list[LexborNode]:
    kinds = _BUTTONS if step.kind == "submit" else _FIELDS
    nodes = tree.css(kinds)
    if by.kind == "css":
        return tree.css(by.value)
    if by.kind == "role":
        wanted = folded(by.name or "")
        within = nodes if by.value == "button" else tree.css(f"[role={by.value}]" if by.value.isalpha() else "x-none")
        return [node for node in within if folded(_spoken(node)) == wanted]
    if by.kind == "label":
        wanted = _label_text(by.value)
        return [node for node in nodes if wanted in {_label_text(text) for text in _labels(tree, node)}]
    value = by.value.casefold()
    return [node for node in nodes if (node.attributes.get(by.kind) or "").casefold() == value]


def _spoken(node: LexborNode) -> str:
    attributes = node.attributes
    if label := attributes.get("aria-label"):
        return label
    if node.tag == "input":
        return attributes.get("value") or attributes.get("alt") or attributes.get("title") or ""
    return node.text()


def _label_text(text: str) -> str:
    return folded(text).strip(":*")


def _labels(tree: LexborHTMLParser, node: LexborNode) -> list[str]:
    found = [node.attributes.get("aria-label") or ""]
    identifier = node.attributes.get("id")
    for label in tree.css("label"):
        if identifier and label.attributes.get("for") == identifier:
            found.append(label.text())
    for other in (node.attributes.get("aria-labelledby") or "").split():
        found += [labelling.text() for labelling in tree.css("[id]") if labelling.attributes.get("id") == other]
    at = node.parent
    while at is not None and at.tag not in {"form", "body", "html"}:
        if at.tag == "label":
            found.append(at.text())
        at = at.parent
    return [text for text in found if text]


def form_of(page: Page, node: LexborNode) -> LexborNode | None:
    """The form that an element belongs to."""
    if owner := node.attributes.get("form"):
        return next((form for form in page.tree.css("form") if form.attributes.get("id") == owner), None)
    at: LexborNode | None = node
    while at is not None and at.tag != "form":
        at = at.parent
    return at


@dataclass(slots=True)
class Filled:
    """What the steps have put into the page so far: by element. checked: boxes to tick."""

    texts: dict[int, str] = field(default_factory=dict)
    secret: set[int] = field(default_factory=set)
    checked: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submit would send. holds_secret: whether a secret value is among the pairs."""

    method: str
    url: str
    pairs: tuple[tuple[str, str], ...]
    holds_secret: bool
    multipart: bool

    def encoded(self, charset: str) -> bytes:
        """As application/x-www-form-urlencoded; what the charset lacks becomes `&#…;`, as browsers do."""
        return urlencode(
            [(name, value.encode(charset, "xmlcharrefreplace")) for name, value in self.pairs], encoding=charset
        ).encode()


def submission(page: Page, button: LexborNode, filled: Filled, *, submitted: bool, line: int) -> Submission:
    """The form data set of a button's form (HTML §4.10.21.4).

    Raises Failed: `unexpected_field` when the form shows a password field that no step filled, for a page that asks for one
    more secret than it did is not the page that was certified.
    """
    form = form_of(page, button)
    if form is None:
        raise Failed("recipe_drift", submitted=submitted, line=line)
    pairs: list[tuple[str, str]] = []
    secret = False
    members = [node for node in page.tree.css(_FIELDS) if _belongs(page, node, form)]
    for node in members:
        attributes, kind = node.attributes, (node.attributes.get("type") or "text").lower()
        if node.tag == "input" and kind == "password" and is_visible(node) and node.mem_id not in filled.texts:
            raise Failed("unexpected_field", submitted=submitted, line=line)
        name = attributes.get("name")
        if not name or "disabled" in attributes or (node.tag == "input" and kind in _NOT_SENT):
            continue
        if kind in {"checkbox", "radio"} and node.tag == "input":
            if "checked" in attributes or node.mem_id in filled.checked:
                pairs.append((name, attributes.get("value") or "on"))
        elif node.tag == "select":
            pairs += [(name, value) for value in _selected(node, filled)]
        else:
            pairs.append((name, filled.texts.get(node.mem_id, _value(node))))
            secret = secret or node.mem_id in filled.secret
    if (name := button.attributes.get("name")) and button.tag in {"button", "input"}:
        pairs.append((name, button.attributes.get("value") or ""))
    action = button.attributes.get("formaction") or form.attributes.get("action") or page.url
    method = (button.attributes.get("formmethod") or form.attributes.get("method") or "get").upper()
    multipart = (form.attributes.get("enctype") or "").lower() == "multipart/form-data"
    return Submission(method, urls.joined(page.url, action), tuple(pairs), secret, multipart)


def _belongs(page: Page, node: LexborNode, form: LexborNode) -> bool:
    owner = form_of(page, node)
    return owner is not None and owner.mem_id == form.mem_id


def _value(node: LexborNode) -> str:
    return node.text() if node.tag == "textarea" else node.attributes.get("value") or ""


def _selected(node: LexborNode, filled: Filled) -> list[str]:
    options = node.css("option")
    if node.mem_id in filled.texts:
        return [filled.texts[node.mem_id]]
    chosen = [option for option in options if "selected" in option.attributes] or options[:1]
    return [_option_value(option) for option in chosen]


def _option_value(option: LexborNode) -> str:
    value = option.attributes.get("value")
    return option.text().strip() if value is None else value


def option_named(node: LexborNode, wanted: str, *, submitted: bool, line: int) -> str:
    """The value of the option that says or is `wanted`. Raises Failed `recipe_drift`."""
    for option in node.css("option"):
        if _option_value(option) == wanted or folded(option.text()) == folded(wanted):
            return _option_value(option)
    raise Failed("recipe_drift", submitted=submitted, line=line)
