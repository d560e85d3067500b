"""Globs and password rules: the two small languages of a recipe, against tables and against random input."""

from __future__ import annotations

import random
import re
import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.gateway.body import Rewriter
from connectors.recipes import globs, password_rules
from connectors.recipes.checks import Page, condition_holds
from connectors.recipes.glance import folded
from connectors.recipes.model import Condition

MATCHING = [
    ("/a", "/a"), ("/a/*", "/a/b"), ("/a/**", "/a"), ("/a/**", "/a/"), ("/a/**", "/a/b/c"), ("/**/x", "/x"), ("/**/x", "/a/b/x"),
    ("/a*z/q", "/abcz/q"), ("/*.php", "/index.php"), ("/a/**/b/*", "/a/1/2/b/c"),
]  # fmt: skip
DIFFERENT = [
    ("/a", "/a/"), ("/a", "/ab"), ("/a/*", "/a"), ("/a/*", "/a/b/c"), ("/a/**", "/ab"), ("/a*z", "/abz/"), ("/*.php", "/x/i.php"),
    ("/**/x", "/x/y"), ("/aa*aa", "/aaa"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path"), MATCHING)
def test_a_glob_that_covers_a_path(pattern: str, path: str) -> None:
    assert globs.parse(pattern).matches("GET", path)


@pytest.mark.parametrize(("pattern", "path"), DIFFERENT)
def test_a_glob_that_does_not(pattern: str, path: str) -> None:
    assert not globs.parse(pattern).matches("GET", path)


def test_method_and_query_narrow_a_glob() -> None:
    glob = globs.parse("POST /index.php?act=plan")
    assert glob.matches("POST", "/index.php", (("x", "1"), ("act", "plan")))
    assert not glob.matches("GET", "/index.php", (("act", "plan"),))
    assert not glob.matches("POST", "/index.php", (("act", "home"),))
    assert str(glob) == "POST /index.php?act=plan"


@given(st.text("ab*/", min_size=1, max_size=12), st.text("ab/", max_size=12))
def test_globs_agree_with_an_independent_reading(pattern: str, path: str) -> None:
    try:
        glob = globs.parse("/" + pattern)
    except globs.GlobError:
        return
    expression = "".join(
        "(/.*)?" if segment == "**" else "/" + re.escape(segment).replace(r"\*", "[^/]*")
        for segment in glob.path.split("/")[1:]
    )
    assert glob.matches("GET", "/" + path) == bool(re.fullmatch(expression, "/" + path))


def test_many_stars_are_not_slow() -> None:
    glob = globs.parse("/" + "**/" * 30 + "x")
    assert not glob.matches("GET", "/a" * 2000)
    assert not globs.parse("/" + "*a" * 90).matches("GET", "/" + "a" * 5000 + "b")


def test_url_globs_take_the_origin_literally() -> None:
    glob = globs.parse_url("https://www.tool.example/login*")
    assert glob.matches("https://WWW.tool.example/login?next=/x")
    for other in ("http://www.tool.example/login", "https://www.tool.example.evil/login", "https://x/login",
                  "https://www.tool.example@evil/login", "https://www.tool.example/a/login"):  # fmt: skip
        assert not glob.matches(other), other


RULES = [
    ("minlength: 8; maxlength: 16; required: lower; required: upper; required: digit; allowed: [-_.];", 16),
    ("minlength: 20; required: lower; required: upper, digit; max-consecutive: 2;", 24),
    ("maxlength: 10; required: [!#$];", 10),
    ("minlength: 30; allowed: ascii-printable;", 30),
    ("allowed: digit; maxlength: 4", 4),
]


@pytest.mark.parametrize(("text", "length"), RULES)
def test_generated_passwords_satisfy_their_rules(text: str, length: int) -> None:
    rules = password_rules.parse(text)
    source = random.Random(7)
    for _ in range(50):
        password = rules.generate(source.randrange)
        assert rules.broken_by(password) == []
        assert len(password) == length


def test_broken_rules_are_named() -> None:
    rules = password_rules.parse(RULES[0][0])
    assert rules.broken_by("Ab1") == ["minlength"]
    assert rules.broken_by("abcdefgh") == ["required"]
    assert rules.broken_by("Abcdefgh1é") == ["allowed"]
    assert rules.broken_by("Abcdefgh1" * 3) == ["maxlength"]
    assert password_rules.parse("max-consecutive: 2; allowed: lower").broken_by("aaab") == ["max-consecutive"]


@pytest.mark.parametrize(
    "text",
    ["minlength 8", "minlength: x", "minlength: 0", "colour: red", "required: uppr", "allowed: [é]", "allowed: [abc",
     "required: upper digit", "required: upper,", "required:", "minlength: 9; maxlength: 8"],
)  # fmt: skip
def test_rules_that_cannot_be_read(text: str) -> None:
    with pytest.raises(password_rules.RulesError):
        password_rules.parse(text)


def test_brackets_hold_semicolons_and_brackets() -> None:
    rules = password_rules.parse("allowed: [;-]]; minlength: 2")
    assert rules.allowed == frozenset(";-]")
    assert rules.min_length == 2


@given(st.text(string.printable, max_size=60))
def test_rubbish_rules_never_crash(text: str) -> None:
    with suppress(password_rules.RulesError):
        assert password_rules.parse(text).allowed


def test_labels_compare_as_people_read_them() -> None:
    assert folded("ユーザー ＩＤ") == folded("ユーザ-ID")


def test_conditions_look_at_what_is_shown() -> None:
    page = Page(
        "https://t.example/home",
        200,
        "<script>'ログインしてください'</script><p>ようこそ <b>田中</b> さん<i hidden></i>",
    )
    assert not condition_holds(Condition(text="ログインしてください"), page)
    assert condition_holds(Condition(text="ようこそ田中"), page)
    assert condition_holds(Condition(css="p > b"), page)
    assert condition_holds(
        Condition(url=globs.parse_url("https://t.example/login")),
        Page("https://t.example/x", 302, location="https://t.example/login?a"),
    )
    assert not condition_holds(Condition(css="html"), Page("https://t.example/x", 200)), (
        "nothing holds on what is not HTML"
    )


WORDS = ["http:", "HTTPS:", "wss:", "//", "\\/\\/", "%2F%2F", "%2f%2f", "tool.example", "TOOL.example", "tool.example:81", "api.tool.example", "\\", "/", '"', "'", ".", ":8", "x", " "]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=14).map("".join))
def test_the_quick_way_to_replace_addresses_says_what_the_slow_one_says(text: str) -> None:
    rewriter = Rewriter({"tool.example": "t-1.gw.test", "api.tool.example": "t-2.gw.test"}, scheme="http")
    data = text.encode()
    assert rewriter.apply(data) == rewriter.one_by_one(data)
