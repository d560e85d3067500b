"""Languages: Japanese is the text in the code, English and やさしい日本語 are catalogues (ux.md 9.5).

Catalogues are `.po` files read at start-up: no compiled file can be older than its source. `ja-easy` falls back to Japanese
and writes its readings as 漢字(かんじ), which become <ruby> where they reach a page.
"""

from __future__ import annotations

import gettext as stdlib_gettext
import io
import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from flask import Flask, current_app, g, has_request_context, request
from markupsafe import Markup, escape

from connectors.recipes.model import Label
from idp.edges import browser

LANGUAGES = (("ja", "日本語"), ("ja-easy", "やさしい日本語"), ("en", "English"))
CODES = {code for code, _ in LANGUAGES}
JST = ZoneInfo("Asia/Tokyo")
#: kanji followed by its reading in half-width brackets
READING = re.compile(r"([\u3400-\u9fff々〆ヶ]+)\(([ぁ-ゖー]+)\)")


@lru_cache(maxsize=4)
def load(folder: Path) -> dict[str, stdlib_gettext.NullTranslations]:
    """Read every catalogue below `folder/<language>/*.po` into one translation per language."""
    found: dict[str, stdlib_gettext.NullTranslations] = {}
    for code in CODES:
        merged = Catalog(locale=code.split("-")[0])
        for path in sorted((folder / code.replace("-", "_")).glob("*.po")):
            with path.open("rb") as file:
                for message in read_po(file, locale=code.split("-")[0]):
                    if message.id and message.string and not message.fuzzy:
                        merged[message.id] = message
        buffer = io.BytesIO()
        write_mo(buffer, merged)
        buffer.seek(0)
        found[code] = stdlib_gettext.GNUTranslations(buffer)
    return found


def current() -> str:
    """The language of this request: chosen by link or cookie, else the person's, else the browser's, else Japanese."""
    if not has_request_context():
        return "ja"
    if "language" not in g:
        g.language = _choose()
    return str(g.language)


def _choose() -> str:
    for wanted in (request.args.get("lang"), request.cookies.get(browser.cookie_name(browser.LANGUAGE_COOKIE))):
        if wanted in CODES:
            return str(wanted)
    if "looking" in g and g.looking is not None and g.looking.login.locale in CODES:
        return str(g.looking.login.locale)
    return "en" if request.accept_languages.best_match(["ja", "en"], default="ja") == "en" else "ja"


def install(app: Flask, folder: Path) -> None:
    """Give templates `_`, `ngettext`, the filters `jst`, `iso` and `word`, and what `base.html` needs to know of languages."""
    catalogues = load(folder)

    def translate(text: str) -> str:
        return catalogues[current()].gettext(text)

    def translate_many(one: str, many: str, count: int) -> str:
        return catalogues[current()].ngettext(one, many, count)

    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]
        partial(_readable, translate), translate_many, newstyle=True
    )
    app.jinja_env.filters["jst"] = jst
    app.jinja_env.filters["iso"] = iso
    app.jinja_env.filters["word"] = word
    app.extensions["sekisho-translate"] = translate
    app.after_request(_keep_choice)


def _readable(translate: Callable[[str], str], text: str) -> str:
    """A translated text; in やさしい日本語 its readings become <ruby>. Escaped first: only our own tags are added."""
    done = translate(text)
    if current() != "ja-easy":
        return done
    return Markup(READING.sub(r"<ruby>\1<rp>(</rp><rt>\2</rt><rp>)</rp></ruby>", str(escape(done))))  # noqa: S704


def text(message: str, **values: Any) -> str:
    """Translate outside a template: errors and notices. Values are named `%(name)s`."""
    translate: Callable[[str], str] = current_app.extensions["sekisho-translate"]
    done = _readable(translate, message)
    return done % {name: word(value) for name, value in values.items()} if values else done


def word(value: Any) -> Any:
    """The label of a recipe's field in the language of the reader; everything else as it is."""
    return value.en if isinstance(value, Label) and current() == "en" else value


def english(message: str, **values: Any) -> str:
    """The same in English, for a page on which both stand because the reader's language may be unknown."""
    done = load(Path(str(current_app.template_folder)) / "locale")["en"].gettext(message)
    return done % values if values else done


def jst(value: datetime, *, seconds: bool = False) -> str:
    """`2026/11/21 09:14`, in Japanese time (ux.md 7.2)."""
    return value.astimezone(JST).strftime("%Y/%m/%d %H:%M:%S" if seconds else "%Y/%m/%d %H:%M")


def iso(value: datetime) -> str:
    """ISO 8601 with +09:00, for `<time datetime>` and the machine-readable pack."""
    return value.astimezone(JST).isoformat(timespec="milliseconds")


def choices() -> list[tuple[str, str, str, bool]]:
    """The language row: (code, name in its own script, link to this page in it, is it this one)."""
    if not has_request_context():
        return []
    kept = {k: v for k, v in request.args.items() if k != "lang"}
    return [
        (code, name, f"{request.path}?{urlencode({**kept, 'lang': code})}", code == current())
        for code, name in LANGUAGES
    ]


def _keep_choice(answer: Any) -> Any:
    if request.args.get("lang") in CODES:
        answer.set_cookie(
            browser.cookie_name(browser.LANGUAGE_COOKIE), request.args["lang"], max_age=365 * 86400, httponly=True, samesite="Lax",
            secure=not browser.services().settings.issuer_is_loopback, path="/",
        )  # fmt: skip
    return answer
