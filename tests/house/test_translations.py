"""Catalogues (ux.md 9.5, ADR 0010): every sentence has its English, and every sentence of store staff its やさしい日本語.

The sentences come out of the templates and the code themselves, so a page cannot grow one that nobody translated, and a
catalogue cannot keep one that nobody says any more. Catalogues are files: no database, no installation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from flask import Flask, g, render_template_string
from jinja2 import Environment

from idp.core import errors
from idp.domain.authn.passwords import SHOP_WORDS
from idp.edges import language

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "templates"
LOCALE = TEMPLATES / "locale"

JAPANESE = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")
KANJI = re.compile(r"[\u3400-\u9fff々〆]")
PLACEHOLDER = re.compile(r"%\((\w+)\)s")

#: What store staff and store managers never see, by file or file:function or file:class. All else is theirs: a new page
#: is asked for やさしい日本語 until somebody says here that it is not for them.
ADMIN = (
    "templates/styleguide.html",
    *(f"templates/web/{page}.html" for page in (
        "app", "app_new", "app_rotated", "app_secret", "apps", "companies", "hq_home", "hq_person", "new_person", "open_cuts",
        "people", "receipt_line", "saml_app", "saml_new", "tools", "tool", "tool_new", "recipe", "recipe_new", "vault", "vault_entry", "vault_deposit", "vault_import", "setup", "stores", "audit", "audit_event", "audit_access", "audit_speed", "audit_inactive",
    )),
    "idp/cli/*",
    "idp/core/saml_keys.py:*",
    "idp/core/x509.py:*",
    "idp/ledgers/audit/bundle.py:line",
    "idp/ledgers/audit/bundle.py:span",
    "idp/ledgers/audit/empty.py:*",
    "idp/ledgers/audit/origin.py:*",
    "idp/ledgers/audit/store.py:*",
    "idp/domain/applications/registry.py:*",
    "idp/domain/applications/registration.py:*",
    "idp/domain/applications/names.py:*",
    "idp/domain/applications/saml.py:*",
    "idp/domain/applications/sp_metadata.py:*",
    "idp/domain/credentials/deposits.py:*",
    "idp/domain/credentials/service.py:*",
    "idp/domain/tools/*",
    "idp/domain/directory/people.py:add_company",
    "idp/domain/directory/people.py:add_region",
    "idp/domain/directory/people.py:add_store",
    "idp/domain/directory/people.py:clean_code",
    "idp/domain/directory/people.py:clean_note",
    "templates/macros/audit.html",
    "templates/macros/tools.html",
    "idp/edges/saml/metadata.py:*",
    "idp/edges/saml/refresh.py:*",
    "idp/edges/web/apps.py:*",
    "idp/edges/web/audit.py:*",
    "idp/edges/web/audit_words.py:*",
    "idp/edges/web/oversight.py:*",
    "idp/lifecycle/oversight/*",
    "idp/lifecycle/rewrap/*",
    "idp/edges/web/hq.py:*",
    "idp/edges/web/saml_apps.py:*",
    "idp/edges/web/setup.py:*",
    "idp/edges/web/tools.py:*",
    "idp/edges/web/vault.py:*",
    *(f"idp/edges/web/forms.py:{form}" for form in (
        "PersonForm", "ReasonForm", "CloseLineForm", "ApplicationForm", "SamlForm", "MetadataForm", "GrantForm", "SetupForm", "CompanyForm", "StoreForm",
        "AuditForm", "ReportForm", "RecipeForm", "ToolForm", "ToolAccountForm", "TermsForm", "SheetForm", "deposit_form",
    )),
    "idp/lifecycle/revocation/record.py:*",
    "idp/lifecycle/revocation/reinstate.py:*",
)  # fmt: skip

#: Japanese that is data, not a sentence: people and shops of the demonstration, names in their own script, patterns.
NO_SENTENCE_FILES = {
    "idp/cli/demo.py",
    "idp/cli/seed.py",
    "idp/cli/seed_tools.py",
    "idp/edges/web/styleguide.py",
    # answered in front of Flask, before a language is known: one page in both
    "idp/edges/crowd.py",
    # they travel with an export or a mail and speak both languages by themselves
    "idp/ledgers/audit/anchors.py",
    "idp/ledgers/audit/verify.py",
    "idp/lifecycle/revocation/labels.py",
}
NO_SENTENCE = {
    ("idp/cli/database.py", "プラットフォーム運用"),
    ("idp/cli/database.py", "管理者"),
    *(("idp/domain/authn/passwords.py", word) for word in SHOP_WORDS if JAPANESE.search(word)),
    ("idp/domain/directory/people.py", "ァ"),
    ("idp/domain/directory/people.py", "ヶ"),
    ("idp/edges/language.py", "日本語"),
    ("idp/edges/language.py", "やさしい日本語"),
    ("idp/edges/language.py", language.READING.pattern),
    ("idp/edges/web/forms.py", "日本語"),
    ("idp/edges/web/forms.py", "やさしい日本語"),
}
TRANSLATES = {"text", "t", "lazy"}
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


# --- taking the sentences out ------------------------------------------------------------------------------------


def in_templates() -> Iterator[tuple[str, str]]:
    """(sentence, file) of every `_()` in the templates."""
    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    for path in sorted(TEMPLATES.rglob("*.html")):
        for _line, _function, message in environment.extract_translations(path.read_text(), ("_",)):  # type: ignore[attr-defined]
            yield message if isinstance(message, str) else message[0], str(path.relative_to(ROOT))


class Code(ast.NodeVisitor):
    """Sentences of one module, and what looks like a sentence but reaches no translation."""

    def __init__(self, where: str) -> None:
        self.where, self.top = where, ""
        self.said: list[tuple[str, str]] = []
        self.unseen: list[tuple[str, str]] = []
        self.composed: list[tuple[str, str]] = []

    def visit_Module(self, node: ast.Module) -> None:
        for part in node.body:
            self.top = getattr(part, "name", "")
            if isinstance(part, ast.Assign) and _japanese(part.value):  # FAILED = "…"
                self._say(part.value)
            else:
                self.visit(part)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        rest = [node.func, *node.args, *(k.value for k in node.keywords)]
        if name in TRANSLATES | ERRORS and node.args:
            first = node.args[0]
            branches = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            for branch in filter(_japanese, branches):
                self._say(branch)
                rest = [part for part in rest if part not in (first, branch)]
        for part in rest:
            self.visit(part)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.composed += [(self.where, part.value) for part in filter(_japanese, node.values)]  # type: ignore[attr-defined]
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part)

    def visit_Constant(self, node: ast.Constant) -> None:
        if _japanese(node):
            self.unseen.append((self.where, node.value))  # type: ignore[arg-type]

    def _say(self, node: ast.expr) -> None:
        self.said.append((node.value, f"{self.where}:{self.top}"))  # type: ignore[attr-defined]


def _japanese(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(JAPANESE.search(node.value))


def read_code(source: str, where: str) -> Code:
    found = Code(where)
    found.visit(ast.parse(source))
    return found


@cache
def code() -> tuple[Code, ...]:
    paths = [(p, str(p.relative_to(ROOT))) for p in sorted((ROOT / "idp").rglob("*.py"))]
    return tuple(read_code(p.read_text(), where) for p, where in paths if where not in NO_SENTENCE_FILES)


@cache
def sentences() -> dict[str, frozenset[str]]:
    """Every sentence, with all places that say it."""
    found: dict[str, set[str]] = {}
    for message, where in [*in_templates(), *(said for module in code() for said in module.said)]:
        found.setdefault(message, set()).add(where)
    return {message: frozenset(places) for message, places in found.items()}


def for_staff(places: frozenset[str]) -> bool:
    """True when somebody in a store can see it."""
    return not all(any(fnmatch(place, pattern) for pattern in ADMIN) for place in places)


# --- looking at a catalogue --------------------------------------------------------------------------------------


def catalogue(text: str) -> Catalog:
    return read_po(text.splitlines(keepends=True), locale="en")


def faults(text: str, *, wanted: set[str], easy: bool = False) -> list[str]:
    """What is wrong with one catalogue that has to hold exactly `wanted`."""
    found = {str(message.id): message for message in catalogue(text) if message.id}
    wrong = [f"missing: {message}" for message in sorted(wanted - found.keys())]
    wrong += [f"nobody says: {message}" for message in sorted(found.keys() - wanted)]
    if len(re.findall(r'(?m)^msgid "', text)) - 1 != len(found) or re.search(r"(?m)^(#~|msgid_plural|msgctxt)", text):
        wrong.append("a sentence stands twice, is obsolete or has a plural")
    for message_id, message in found.items():
        done = str(message.string)
        if message.fuzzy or not done.strip():
            wrong.append(f"fuzzy or empty: {message_id}")
        if sorted(PLACEHOLDER.findall(message_id)) != sorted(PLACEHOLDER.findall(done)) or "%" in PLACEHOLDER.sub(
            "", done
        ):
            wrong.append(f"placeholders differ: {message_id}: {done}")
        if easy and KANJI.search(language.READING.sub("", done)):
            wrong.append(f"a kanji without its reading: {done}")
        if not easy and KANJI.search(done):
            wrong.append(f"not translated: {message_id}: {done}")
        claims = "切(き)りました" in done if easy else re.search(r"(?i)\b(is|are|was|were|been|access) cut\b", done)
        if claims and "切断しました" not in message_id:
            wrong.append(f"says that something is cut: {done}")
    return wrong


def po(language_code: str, name: str) -> str:
    return (LOCALE / language_code / f"{name}.po").read_text()


STAFF = cache(lambda: {m for m, places in sentences().items() if for_staff(places)})


# --- tests -------------------------------------------------------------------------------------------------------


def test_every_sentence_has_its_english() -> None:
    """ux.md 9.5: `en` for everything, in the catalogue of who sees it; none is missing, obsolete, fuzzy, empty or twice."""
    assert faults(po("en", "staff"), wanted=STAFF()) == []
    assert faults(po("en", "admin"), wanted=sentences().keys() - STAFF()) == []


def test_every_sentence_of_a_store_is_easy_japanese_with_readings() -> None:
    """ux.md 9: every page that staff and store managers see, and a reading behind every kanji."""
    assert faults(po("ja_easy", "staff"), wanted=STAFF(), easy=True) == []


def test_no_japanese_in_the_code_goes_untranslated() -> None:
    """Each Japanese string is a sentence that reaches gettext, or named above as data. None is composed with f-strings."""
    assert {s for module in code() for s in module.unseen} == NO_SENTENCE
    assert [s for module in code() for s in module.composed] == []


def test_the_extraction_sees_what_is_planted() -> None:
    """Without this a rule that finds nothing would pass for a tree without faults."""
    found = read_code(
        'FAILED = "だめ"\n'
        "def page():\n"
        '    """説明"""\n'
        '    raise Invalid("一" if x else "二", "private", field="f")\n'
        'def form():\n    lazy("三"); language.text("四", n=1); t("五"); other("六")\n    raise Denied(f"七{x}")\n',
        "idp/x.py",
    )
    assert [m for m, _ in found.said] == ["だめ", "一", "二", "三", "四", "五"]
    assert found.said[1] == ("一", "idp/x.py:page")
    assert (found.unseen, found.composed) == ([("idp/x.py", "六")], [("idp/x.py", "七")])
    assert for_staff(frozenset({"templates/web/stores.html", "templates/web/stop.html"}))
    assert not for_staff(frozenset({"templates/web/stores.html", "idp/edges/web/forms.py:StoreForm"}))
    assert for_staff(frozenset({"templates/web/of_tomorrow.html"}))


HEAD = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'


@pytest.mark.parametrize(
    ("entry", "easy", "fault"),
    [
        ('msgid "B"\nmsgstr "b"\n', False, "missing: %(n)s人"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s"\n\nmsgid "C"\nmsgstr "c"\n', False, "nobody says: C"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s"\n\nmsgid "%(n)s人"\nmsgstr "%(n)s"\n', False, "a sentence stands twice"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s"\n\n#~ msgid "D"\n#~ msgstr "d"\n', False, "a sentence stands twice"),
        ('#, fuzzy\nmsgid "%(n)s人"\nmsgstr "%(n)s"\n', False, "fuzzy or empty"),
        ('msgid "%(n)s人"\nmsgstr ""\n', False, "fuzzy or empty"),
        ('msgid "%(n)s人"\nmsgstr "%(m)s people"\n', False, "placeholders differ"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s, 100% of them"\n', False, "placeholders differ"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s人"\n', False, "not translated"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s, access is cut"\n', False, "says that something is cut"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s人(にん) 終わり"\n', True, "a kanji without its reading"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s人(ニン)"\n', True, "a kanji without its reading"),
        ('msgid "%(n)s人"\nmsgstr "%(n)s人(にん)を 切(き)りました"\n', True, "says that something is cut"),
    ],
)  # fmt: skip
def test_a_fault_in_a_catalogue_is_seen(entry: str, easy: bool, fault: str) -> None:
    """Each guard of `faults` by the entry it is there for."""
    wanted = {"%(n)s人"}
    assert any(wrong.startswith(fault) for wrong in faults(HEAD + entry, wanted=wanted, easy=easy))
    good = HEAD + f'msgid "%(n)s人"\nmsgstr "{"%(n)s人(にん)" if easy else "%(n)s people"}"\n'
    assert faults(good, wanted=wanted, easy=easy) == []


@pytest.fixture(scope="module")
def app() -> Flask:
    made = Flask("idp", template_folder=str(TEMPLATES))
    language.install(made, LOCALE)
    return made


def said(app: Flask, code: str, source: str, **values: object) -> str:
    with app.test_request_context("/"):
        g.language = code
        return render_template_string(source, **values)


def test_readings_become_ruby_and_values_stay_text(app: Flask) -> None:
    """A reading is <ruby> in a page and brackets in an attribute; a name is escaped, and never read as a reading."""
    ask = "{{ _('%(name)sさんですか。', name=name) }}"
    hostile = "<b>山(やま)"
    assert said(app, "ja-easy", ask, name=hostile) == "あなたは &lt;b&gt;山(やま)さん ですか。"
    assert said(app, "en", ask, name=hostile) == "Are you &lt;b&gt;山(やま)?"
    assert said(app, "ja", ask, name=hostile) == "&lt;b&gt;山(やま)さんですか。"
    stop = said(app, "ja-easy", "{{ _('いますぐ止める') }}")
    assert stop == "いま <ruby>止<rp>(</rp><rt>と</rt><rp>)</rp></ruby>める"
    plain = '{% import "macros/ui.html" as ui %}<i aria-label="{{ ui.plain(_("いますぐ止める")) }}">'
    assert said(app, "ja-easy", plain) == '<i aria-label="いま 止(と)める">'
    assert said(app, "ja-easy", "{{ _('%(n)s件', n=2) }}") == "2<ruby>件<rp>(</rp><rt>けん</rt><rp>)</rp></ruby>"


def test_an_administrators_page_in_easy_japanese_is_japanese(app: Flask) -> None:
    """No catalogue of administrators' sentences: they fall back to Japanese, where brackets are brackets."""
    for message, places in sentences().items():
        if not for_staff(places):
            assert language.READING.sub("", message) == message
    assert said(app, "ja-easy", "{{ _('店舗コード(本部の人は空のまま)') }}") == "店舗コード(本部の人は空のまま)"
