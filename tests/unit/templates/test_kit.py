"""The front-end kit: what ux.md 7 and style.md 11 promise of every page, checked on the style guide and the error pages."""

import re
from html.parser import HTMLParser

import jinja2
import pytest
from rendering import NONCE, STATIC, TEMPLATES, base_variables, environment, styleguide_variables

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
SVG_SHAPES = frozenset(["path", "rect", "circle", "line"])  # written <path …/>
ERROR_PAGES = {
    "403.html": "X02",
    "404.html": "X03",
    "400_form_expired.html": "X06",
    "429.html": "X07",
    "500.html": "X08",
    "error.html": "X00",
}
CUT_STATES = ["queued", "cutting", "confirmed", "acknowledged", "nothing", "expiring", "manual", "failed", "unknown"]
GRADES = ["verified", "recorded", "acknowledged", "attested", "none"]


class Element:
    def __init__(self, tag: str, attrs: dict[str, str | None], parent: "Element | None") -> None:
        self.tag, self.attrs, self.parent = tag, attrs, parent
        self.children: list[Element | str] = []

    def walk(self):
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.walk()

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else c.text for c in self.children).split())

    def find(self, tag: str | None = None, **attrs: str | None) -> list["Element"]:
        """Descendants of that tag that carry these attributes; None as value: any."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attrs.items()}
        return [
            e
            for e in self.walk()
            if (tag is None or e.tag == tag)
            and all(k in e.attrs and v in (None, e.attrs[k]) for k, v in wanted.items())
        ]


class Tree(HTMLParser):
    """A strict reader: every element is closed, in order, and no attribute comes twice."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.here = Element("#root", {}, None)
        self.feed(html)
        self.close()
        assert self.here is self.root, f"<{self.here.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs), self.here)
        self.here.children.append(element)
        if tag not in VOID and tag not in SVG_SHAPES:
            self.here = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.here.children.append(Element(tag, dict(attrs), self.here))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        self.here.children.append(data)


def parse(html: str) -> Element:
    return Tree(html).root


def sign_in_page(**over: object) -> str:
    source = (
        '{% extends "base_sign_in.html" %}{% import "macros/ui.html" as ui %}{% block page_id %}L04{% endblock %}'
        "{% block h1 %}{{ _('ログイン') }}{% endblock %}"
        "{% block main %}{{ ui.error_summary(form) }}{% call ui.form('/login', csrf_token()) %}{{ ui.field(form.name) }}{{ ui.btn('つぎへ') }}{% endcall %}{% endblock %}"
    )
    form = styleguide_variables()["clean"]
    return (
        environment()
        .from_string(source)
        .render(**base_variables(viewer=None, nav_items=[], notices=[], form=form) | over)
    )


def error_page(name: str, **over: object) -> str:
    values = {
        "request_id": "8F3K-21",
        "csp_nonce": NONCE,
        "retry_after_s": 30,
        "title": "ほかの人が先に変えました",
        "text": "見なおしてください。",
    }
    return environment().get_template(f"errors/{name}").render(**values | over)


@pytest.fixture(scope="module")
def styleguide() -> Element:
    return parse(environment().get_template("styleguide.html").render(**styleguide_variables()))


PAGES = {
    "styleguide": lambda: environment().get_template("styleguide.html").render(**styleguide_variables()),
    "sign_in": sign_in_page,
    **{name: (lambda name=name: error_page(name)) for name in ERROR_PAGES},
}


@pytest.fixture(params=PAGES, scope="module")
def page(request: pytest.FixtureRequest) -> Element:
    return parse(PAGES[request.param]())


# --- every page ---


def test_page_carries_the_hooks(page: Element) -> None:
    (html,), (body,) = page.find("html"), page.find("body")
    assert html.attrs["lang"] == "ja"
    assert body.attrs["data-page"]
    assert len(page.find("h1")) == 1
    assert [main.attrs["id"] for main in page.find("main")] == ["main"]
    assert page.find("title")[0].text.endswith("関所 Sekisho")


def test_nothing_inline(page: Element) -> None:
    for e in page.walk():
        assert e.tag != "style"
        assert "style" not in e.attrs
        assert not [name for name in e.attrs if name.startswith("on")], e.attrs
        assert not (e.attrs.get("href") or "").lower().startswith("javascript:")
        if e.tag == "script":
            assert e.attrs.get("src")
            assert e.text == ""


def test_nonce_on_every_script_and_link(page: Element) -> None:
    tags = page.find("script") + page.find("link")
    assert tags
    assert {e.attrs.get("nonce") for e in tags} == {NONCE}


def test_nothing_comes_from_elsewhere(page: Element) -> None:
    for e in page.walk():
        for name in ("src", "href", "action", "data-live"):
            if (e.tag, name) != ("a", "href"):
                assert re.match(r"^(/(?!/)|\?|#|data:|$)", e.attrs.get(name) or ""), e.attrs


def test_ids_are_unique_and_references_hit(page: Element) -> None:
    ids = [e.attrs["id"] for e in page.walk() if "id" in e.attrs]
    assert len(ids) == len(set(ids))
    for e in page.walk():
        for name in (
            "for",
            "aria-describedby",
            "aria-labelledby",
            "aria-controls",
            "data-dialog",
            "data-reveal",
            "data-filter",
            "data-kana-for",
        ):
            for target in (e.attrs.get(name) or "").split():
                assert target in ids, (name, target)
        for key in ("href",):
            if (e.attrs.get(key) or "").startswith("#") and e.tag == "a" and "data-dialog" not in e.attrs:
                assert e.attrs[key][1:] in ids, e.attrs[key]


def test_fields_are_labelled_and_never_disabled(page: Element) -> None:
    labels = {e.attrs.get("for") for e in page.find("label")}
    for e in page.walk():
        assert not {"placeholder", "disabled", "readonly"} & e.attrs.keys()
        if e.tag in ("input", "select", "textarea") and e.attrs.get("type") != "hidden":
            ancestors, up = [], e.parent
            while up is not None:
                ancestors.append(up.tag)
                up = up.parent
            assert e.attrs.get("id") in labels or "label" in ancestors, e.attrs


def test_buttons_and_links_have_words(page: Element) -> None:
    for e in page.find("button") + page.find("a") + page.find("summary"):
        assert e.text or e.attrs.get("aria-label"), e.attrs


def test_post_forms_carry_the_token(page: Element) -> None:
    for form in page.find("form"):
        if form.attrs.get("method") == "post":
            assert [e.attrs["value"] for e in form.find("input", name="csrf_token")] == ["csrf-token-value"]


# --- the frame ---


def test_frame_with_a_person(styleguide: Element) -> None:
    assert styleguide.find("a", class_="skip")[0].attrs["href"] == "#main"
    current = styleguide.find("a", aria_current="page", href="/store/00123/staff")
    assert len(current) == 2  # the left navigation, and the menu under 768 px
    assert styleguide.find("form", method="post", action="/logout")
    assert "鈴木 <店長>" in styleguide.find("span", class_="viewer")[0].text
    assert styleguide.find(data_announcer=None)[0].attrs["aria-live"] == "polite"


def test_languages_in_their_own_script(page: Element) -> None:
    for row in page.find("nav", class_="langs"):
        assert [(a.text, a.attrs["lang"], a.attrs["href"]) for a in row.find("a")] == [
            ("日本語", "ja", "?lang=ja"),
            ("やさしい日本語", "ja", "?lang=ja-easy"),
            ("English", "en", "?lang=en"),
        ]
        assert [a.text for a in row.find("a", aria_current="true")] == ["日本語"]


def test_sign_in_needs_five_requests_and_no_navigation() -> None:
    page = parse(sign_in_page())
    fetched = {e.attrs["href"] for e in page.find("link") if not e.attrs["href"].startswith("data:")}
    fetched |= {e.attrs["src"] for e in page.find("script")} | {e.attrs["href"].split("#")[0] for e in page.find("use")}
    assert len(fetched) <= 4  # and the page itself; ux.md 1.2 allows six in all
    assert "narrow" in page.find("body")[0].attrs["class"]
    assert not page.find("details", class_="nav-menu")
    assert not page.find("form", action="/logout")


def test_errors_are_in_the_title_summary_and_field() -> None:
    page = parse(sign_in_page(form=styleguide_variables()["faulty"]))
    assert page.find("title")[0].text.startswith("エラー: ログイン")
    (summary,) = page.find("section", class_="errors")
    assert summary.attrs["role"] == "alert"
    assert "data-focus" in summary.attrs
    (link,) = summary.find("a", href="#faulty-name")
    (shown,) = page.find("p", id="faulty-name-error")
    (field,) = page.find("input", id="faulty-name")
    assert link.text in shown.text
    assert field.attrs["aria-invalid"] == "true"
    assert "faulty-name-error" in (field.attrs["aria-describedby"] or "")


def test_error_summary_leads_to_the_first_choice(styleguide: Element) -> None:
    assert styleguide.find("a", href="#faulty-when-0")
    assert styleguide.find("input", id="faulty-when-0", type="radio", aria_invalid="true")


def test_hint_stands_between_label_and_field(styleguide: Element) -> None:
    (field,) = styleguide.find("input", id="clean-name")
    box = field.parent.parent
    order = [c.tag + "." + (c.attrs.get("class") or "") for c in box.children if isinstance(c, Element)]
    assert order == ["label.field-label", "p.field-hint", "div.field-box"]
    assert field.attrs["aria-describedby"] == "clean-name-hint"
    assert "aria-invalid" not in field.attrs


def test_pin_is_no_password_field(styleguide: Element) -> None:
    (pin,) = styleguide.find("input", id="pin")
    assert pin.attrs["type"] == "text"
    assert pin.attrs["inputmode"] == "numeric"
    assert pin.attrs["autocomplete"] == "off"


# --- states ---


def test_every_chip_has_state_shape_and_word(styleguide: Element) -> None:
    chips = styleguide.find(data_state=None, data_kind=None)
    assert set(CUT_STATES) <= {c.attrs["data-state"] for c in chips}
    for chip in chips:
        assert len(chip.find("use")) == 1
        assert chip.text
        assert chip.attrs["data-kind"] in {"ok", "ng", "wait", "info", "ack", "off"}


def test_the_nine_cut_states_differ_without_colour(styleguide: Element) -> None:
    shapes = {}
    for state in CUT_STATES:
        chip = styleguide.find("span", class_="chip", data_state=state)[0]
        shapes[state] = (chip.find("use")[0].attrs["href"] or "").partition("#")[2]
    assert len(set(shapes.values())) == 9, shapes


def test_open_cut_states_are_never_green(styleguide: Element) -> None:
    kinds = {c.attrs["data-state"]: c.attrs["data-kind"] for c in styleguide.find("span", class_="chip")}
    assert [state for state in CUT_STATES if kinds[state] == "ok"] == ["confirmed"]


def test_receipt_hooks(styleguide: Element) -> None:
    lines = styleguide.find("tr", data_line=None)
    assert [line.attrs["data-line"] for line in lines] == ["1", "2", "3", "4", "5"]
    for line in lines:
        assert line.attrs["data-open"] in ("true", "false")
        assert line.find(class_="chip")[0].attrs["data-state"] == line.attrs["data-state"]
        assert ("data-grade" in line.attrs) == (line.attrs["data-open"] == "false")
    verdicts = {e.attrs["data-verdict"]: e for e in styleguide.find(data_verdict=None)}
    assert {v: e.attrs["data-kind"] for v, e in verdicts.items()} == {"action": "ng", "waiting": "wait", "done": "ok"}
    assert verdicts["done"].attrs["data-weakest"] == "recorded"


def test_grades_are_bars_and_words(styleguide: Element) -> None:
    shown = {e.attrs["data-grade"]: e for e in styleguide.find("span", class_="grade")}
    assert set(shown) == set(GRADES)
    bars = [len(shown[g].find("rect", class_="on")) for g in GRADES]
    assert bars == [4, 3, 2, 1, 0]
    assert all(e.text for e in shown.values())


def test_live_box_follows_the_polling_contract(styleguide: Element) -> None:
    (box,) = styleguide.find(data_live=None)
    assert box.attrs["id"]
    assert box.attrs["data-live"].endswith("?part=1")
    assert box.attrs["data-every"] == "1000"
    assert box.attrs["data-done"] == "true"
    assert box.attrs["data-say"]


def test_times_are_iso_with_the_offset(styleguide: Element) -> None:
    times = styleguide.find("time")
    assert times
    for e in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+09:00", e.attrs["datetime"])
        assert re.fullmatch(r"\d{4}/\d\d/\d\d \d\d:\d\d(:\d\d)?", e.text)


def test_cells_name_themselves_for_cards(styleguide: Element) -> None:
    for table in styleguide.find("table"):
        for row in table.find("tbody")[0].find("tr"):
            cells = [c for c in row.children if isinstance(c, Element)]
            assert cells[0].tag == "th"
            assert cells[0].attrs["scope"] == "row"
            assert all(c.attrs.get("data-l") or c.attrs.get("class") == "act" for c in cells[1:])


def test_dialog_has_a_page_behind_it(styleguide: Element) -> None:
    openers = styleguide.find(data_dialog=None)
    assert openers
    assert all(e.tag == "a" and e.attrs["href"] for e in openers)


def test_script_only_controls_hide_without_scripts(styleguide: Element) -> None:
    for e in styleguide.find("button", data_copy=None) + styleguide.find("button", data_reveal=None):
        assert "js-only" in (e.attrs["class"] or "")


def test_every_macro_is_shown() -> None:
    source = (TEMPLATES / "macros/ui.html").read_text()
    shown = (TEMPLATES / "styleguide.html").read_text() + source + (TEMPLATES / "base.html").read_text()
    macros = set(re.findall(r"{%-? macro (\w+)\(", source))
    parts = {"plain", "required_mark", "hint_line", "error_line"}
    guide = (TEMPLATES / "styleguide.html").read_text()
    assert {m for m in macros - parts if f"ui.{m}(" not in guide} == set()
    assert {m for m in parts if f"{m}(" not in shown} == set()


def test_values_are_escaped() -> None:
    polyglot = "\"'><script>alert(1)</script><b>&amp;"
    source = """{% import "macros/ui.html" as ui %}
    {{ ui.btn(x, href=x, attrs={'data-x': x}) }}{{ ui.banner('ng', x, x) }}{{ ui.chip(x, x) }}{{ ui.copy(x, x) }}{{ ui.kv([(x, x)]) }}
    {{ ui.tile({'name': x, 'href': x, 'note': x, 'find': x, 'menu': [(x, x)]}) }}{{ ui.tile_person(x, x, x, x, x) }}{{ ui.progress(1, 2, x) }}
    {{ ui.steps(1, 1, [x]) }}{{ ui.pager(x) }}{{ ui.stat(1, x, x, 'ok', x) }}{{ ui.verdict('done', x, x, x, x) }}{{ ui.search(x, x, target=x) }}
    {% call ui.live('l', x, say=x) %}{{ x }}{% endcall %}{% call ui.table([x], caption=x) %}<tr>{{ ui.row_head(x, x) }}{{ ui.td(x, x) }}</tr>{% endcall %}"""
    page = parse(environment().from_string(source).render(x=polyglot))
    assert not page.find("script")
    assert not [e for e in page.find("b") if not e.attrs and e.text not in ("1/2", "1")]


def test_ruby_stays_in_text_and_leaves_attributes() -> None:
    ruby = "<ruby>処理<rp>(</rp><rt>しょり</rt><rp>)</rp></ruby>中"
    env = environment((("処理中…", ruby), ("ログアウト", ruby), ("部品の見本", ruby)))
    page = parse(env.get_template("styleguide.html").render(**styleguide_variables(lang="ja-easy")))
    assert page.find("html")[0].attrs["lang"] == "ja-easy"
    assert page.find("form", action="/logout")[0].find("ruby")
    assert page.find("button", data_busy="処理(しょり)中")
    assert not page.find("title")[0].find("ruby")
    assert page.find("title")[0].text.startswith("処理(しょり)中")


def test_misspelt_variable_fails() -> None:
    with pytest.raises(jinja2.UndefinedError):
        environment().get_template("styleguide.html").render(
            **{k: v for k, v in base_variables().items() if k != "lang"}
        )


# --- error pages ---


@pytest.mark.parametrize(("name", "page_id"), ERROR_PAGES.items())
def test_error_page_speaks_two_languages_and_has_the_number(name: str, page_id: str) -> None:
    page = parse(error_page(name))
    assert page.find("body")[0].attrs["data-page"] == page_id
    assert page.find("span", data_testid="request-id")[0].text == "8F3K-21"
    assert any(len(e.text) > 20 for e in page.find(lang="en"))
    assert re.search("[ぁ-ん]", page.find("main")[0].text)


def test_error_page_in_english_says_it_once() -> None:
    page = parse(error_page("404.html", lang="en"))
    assert not page.find("div", lang="en")


@pytest.mark.parametrize(("seconds", "said"), [(42, "42秒"), (60, "60秒"), (61, "2分"), (300, "5分")])
def test_how_long_to_wait_is_said_as_people_count(seconds: int, said: str) -> None:
    page = parse(error_page("429.html", retry_after_s=seconds))
    assert f"{said}待ってください。" in page.find("main")[0].text
    assert page.find("a", data_testid="primary")


def test_expired_form_keeps_the_input() -> None:
    page = parse(error_page("400_form_expired.html", action="/store/00123/staff/new", kept=[("name", "山本 <健>")]))
    (form,) = page.find("form", action="/store/00123/staff/new")
    assert form.find("input", name="name")[0].attrs["value"] == "山本 <健>"
    assert [b.text for b in form.find("button", data_testid="primary")] == ["もう一度送る"]


def test_500_needs_nothing() -> None:
    bare = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = parse(bare.get_template("errors/500.html").render())
    assert page.find("body")[0].attrs["data-page"] == "X08"


# --- files ---


def test_sizes() -> None:
    assert sum(p.stat().st_size for p in (STATIC / "css").glob("*.css")) <= 30 * 1024
    assert (STATIC / "js/app.js").stat().st_size <= 12 * 1024


def test_every_icon_exists_and_is_shown() -> None:
    symbols = set(re.findall(r'<symbol id="([\w-]+)"', (STATIC / "icons.svg").read_text()))
    text = "".join(p.read_text() for p in (TEMPLATES / "styleguide.html", TEMPLATES / "macros/ui.html"))
    used = set(re.findall(r"icon\('([\w-]+)'", text)) | {
        icon for _, icon in re.findall(r"\('(ok|ng|wait|info|ack|off)', '([a-z-]+)'\)", text)
    }
    assert used <= symbols
    guide = parse(environment().get_template("styleguide.html").render(**styleguide_variables()))
    assert {(e.attrs["href"] or "").partition("#")[2] for e in guide.find("use")} == symbols


def test_scripts_name_one_policy_and_no_sink_beside_it() -> None:
    source = (STATIC / "js/app.js").read_text()
    assert re.findall(r"createPolicy\(\"(\w+)\"", source) == ["sekisho"]
    assert source.count("innerHTML") == 1
    assert not re.search(r"\beval\b|new Function|insertAdjacentHTML|outerHTML|document\.write|https?://", source)


def test_colours_are_literals_in_tokens_only() -> None:
    for name in ("base.css", "components.css"):
        source = re.sub(r"/\*.*?\*/", "", (STATIC / "css" / name).read_text(), flags=re.DOTALL)
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(|\bhsl", source), name


def test_every_token_used_is_defined() -> None:
    css = {p.name: p.read_text() for p in (STATIC / "css").glob("*.css")}
    defined = set(re.findall(r"(--[\w-]+)\s*:", "".join(css.values())))
    used = set(re.findall(r"var\((--[\w-]+)", "".join(css.values())))
    assert used <= defined


def test_each_sheet_is_in_its_layer() -> None:
    assert (STATIC / "css/tokens.css").read_text().count("@layer tokens, base, components, print;") == 1
    for name in ("tokens", "base", "components", "print"):
        assert f"@layer {name} {{" in (STATIC / "css" / f"{name}.css").read_text()
