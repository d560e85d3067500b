"""The page that posts a message to an application (SAML POST binding, Form Post Response Mode): SA-19, OA-08.

Everything around the message is the same for everybody, so it is rendered once per language; an answer fills in three places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from flask import current_app, g, render_template
from markupsafe import Markup, escape

from idp.edges import language

FIELD = Markup('<input type="hidden" name="{}" value="{}">')
PLACES = {name: f"@@{name}@@" for name in ("nonce", "action", "fields")}
KEPT = "sekisho-posting"


def page(url: str, fields: Mapping[str, str]) -> str:
    """The page whose one form leads to a peer's proven address.

    `form-action` names a scheme here, and no host: Chromium holds every redirect after the post against it, Firefox none, and
    where an application sends its people after it has read the message is its own affair (decision 0032).
    """
    g.form_action = "http:" if urlsplit(url).scheme == "http" else "https:"
    values = {
        PLACES["nonce"]: g.csp_nonce, PLACES["action"]: escape(url),
        PLACES["fields"]: Markup("").join(FIELD.format(name, value) for name, value in fields.items()),
    }  # fmt: skip
    return "".join(values.get(part, part) for part in _frame(language.current()))


def _frame(lang: str) -> list[str]:
    """The page cut at its places: what is filled in is never looked at again, whatever stands in it."""
    kept = cast("dict[str, list[str]]", current_app.extensions.setdefault(KEPT, {}))
    if lang not in kept:
        whole = render_template(
            "post.html", csp_nonce=PLACES["nonce"], action=PLACES["action"], fields=PLACES["fields"]
        )
        kept[lang] = re.split(f"({'|'.join(PLACES.values())})", whole)
    return kept[lang]
