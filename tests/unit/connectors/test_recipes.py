"""Recipes are read whole or not at all, and every mistake is named at once (vault-and-gateway.md §6, §14; VA-58)."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.recipes.hosts import Ground, why_forbidden
from connectors.recipes.load import load
from connectors.recipes.problems import SENTENCES, RecipeError
from tests.unit.connectors.recipe_texts import COMPLETE, GROUND, TODAY, changed, codes

WRONG = [
    ("not_yaml", "recipe: 1", "recipe: [1"),
    ("not_yaml", "recipe: 1", "recipe: \x00"),
    ("yaml_feature", "id: shift-note", "id: &x shift-note"),
    ("yaml_feature", "id: shift-note", "id: !!python/name:os.system x"),
    ("yaml_feature", "version: 3", "version: 3\nversion: 4"),
    ("yaml_feature", "charset: cp932", "charset: cp932\n<<: {a: b}"),
    ("too_big", "charset: cp932", "charset: " + "[" * 9 + "]" * 9),
    ("unsupported_version", "recipe: 1", "recipe: 2"),
    ("unknown_key", "timeout_s", "timeout"),
    ("missing_key", "  probe: https://www.shift-note.example/home\n", ""),
    ("missing_key", "{label: ログインID, secret", "{label: {ja: ログインID}, secret"),
    ("unknown_key", "{label: ログインID, secret", "{label: {ja: ログインID, en: Login ID, fr: x}, secret"),
    ("wrong_type", "{label: ログインID, secret", "{label: {ja: ログインID, en: 1}, secret"),
    ("wrong_type", "{label: ログインID, secret", "{label: [ログインID], secret"),
    ("wrong_type", "version: 3", "version: three"),
    ("wrong_type", "version: 3", "version: true"),
    ("wrong_type", "secret: true", "secret: yes"),
    ("wrong_type", "charset: cp932", "charset: utf-16"),
    ("wrong_type", "id: shift-note", "id: Shift_Note"),
    ("wrong_type", "read_on: 2026-11-01", "read_on: 2026-02-30"),
    ("script_found", "{name: corp_cd}", "{css: '[onclick]'}"),
    ("script_found", "landing: /home", "landing: /home<script"),
    ("not_https", "url: https://www.shift-note.example/login", "url: http://www.shift-note.example/login"),
    ("host_not_declared", "probe: https://www.", "probe: https://evil."),
    ("host_not_declared", "probe: https://www.", "probe: https://cdn."),
    ("host_forbidden", "also: [api.shift-note.example]", "also: [10.0.0.1]"),
    ("host_forbidden", "also: [api.shift-note.example]", "also: [intranet]"),
    ("host_forbidden", "also: [api.shift-note.example]", "also: [login.sekisho-shop.jp]"),
    ("host_placeholder", "also: [api.shift-note.example]", "also: ['{password}.shift-note.example']"),
    ("host_placeholder", "also: [api.shift-note.example]", "also: ['{nothing}.shift-note.example']"),
    ("no_secret_field", "{label: パスワード, secret: true}", "{label: パスワード, secret: false}"),
    ("unknown_field", "fill: {field: login_id", "fill: {field: user"),
    ("unused_field", "charset: cp932\nfields:", "charset: cp932\nfields:\n  spare: {label: 予備, secret: false}"),
    ("secret_in_recipe", "fill: {field: company_code,", "fill: {field: company_code, value: A-100,"),
    ("secret_in_recipe", "{name: corp_cd}", "{name: 9fK2mQx7Lp0ZtR4vB8nWc1Ye}"),
    ("secret_in_recipe", "{name: corp_cd}", "{name: d41d8cd98f00b204e9800998ecf8427e}"),
    ("selector_empty", "by: [{label: 企業コード}, {name: corp_cd}]", "by: []"),
    ("selector_kind", "{name: corp_cd}", "{xpath: //input}"),
    ("css_invalid", "form#login [type=submit]", "form:::x"),
    ("driver_cannot", "    - submit: {by: [{role: button, name: ログイン}", "    - click: {by: [{role: button, name: ログイン}"),
    ("check_missing", "  logged_out: {any: [", "  logged_oot: {any: ["),
    ("check_same", "logged_in: {all: [{url: \"https://www.shift-note.example/home*\"}, {css: \"[data-staff-name]\"}]}",
     "logged_in: {any: [{status: 401}]}"),
    ("probe_denied", "probe: https://www.shift-note.example/home", "probe: https://www.shift-note.example/PLAN/x"),
    ("deny_kind_missing", "keys: absent, ", ""),
    ("glob_invalid", "\"/plan/**\"", "\"plan\""),
    ("glob_invalid", "\"/plan/**\"", "\"FETCH /plan\""),
    ("glob_invalid", "\"/plan/**\"", "\"/plan/%2e\""),
    ("glob_too_wide", "\"/plan/**\"", "\"/**\""),
    ("glob_too_wide", "cacheable: [\"/static/**\"]", "cacheable: [\"/**\"]"),
    ("single_needs_shared", "sharing: shared\n  single: false", "sharing: per-person\n  single: true"),
    ("mirror_is_session", "mirror: [csrf_token]", "mirror: [__Host-PHPSESSID]"),
    ("mirror_is_session", "from_client: [theme]", "from_client: [JSESSIONID]"),
    ("attempts_unsafe", "max: 2", "max: 9"),
    ("attempts_unsafe", "window_minutes: 30", "window_minutes: 0"),
    ("rules_invalid", "minlength: 8", "minlenght: 8"),
    ("rules_invalid", "maxlength: 16", "maxlength: 4"),
    ("rules_weak", "maxlength: 16", "maxlength: 8"),
    ("not_in_this_stage", "code: none", "code: totp"),
    ("not_in_this_stage", "  upload_max_mb: 20", "  confirm: [\"/x\"]"),
    ("terms_missing", "terms: {url", "#terms: {url"),
    ("terms_stale", "read_on: 2026-11-01", "read_on: 2025-11-01"),
    ("terms_forbid", "automation: not_mentioned", "automation: forbidden"),
]  # fmt: skip


def test_the_complete_recipe_is_read_whole() -> None:
    loaded = load(COMPLETE.encode(), GROUND)
    recipe = loaded.recipe
    assert loaded.warnings == ()
    assert recipe.secret_fields == ("password",)
    assert recipe.hosts.declared == ("www.shift-note.example", "api.shift-note.example")
    assert [step.kind for step in recipe.login.steps] == ["fill", "fill", "fill", "submit"]
    assert recipe.login.steps[0].line == 19, "a drift message names the line"
    assert recipe.routes.deny["keys"] is None
    assert recipe.routes.upload_max_bytes == 20 * 1024 * 1024
    assert recipe.password is not None
    assert recipe.password.rules.length == 16
    assert len(recipe.digest) == 64


def test_a_label_is_one_word_or_one_for_each_language() -> None:
    text = COMPLETE.replace("{label: ログインID, secret", "{label: {ja: ログインID, en: Login ID}, secret")
    fields = load(text.encode(), GROUND).recipe.fields
    assert (fields["login_id"].label, fields["login_id"].label.en) == ("ログインID", "Login ID")
    assert (fields["password"].label, fields["password"].label.en) == ("パスワード", "パスワード")


@pytest.mark.parametrize(("code", "old", "new"), WRONG, ids=[f"{i}-{row[0]}" for i, row in enumerate(WRONG)])
def test_VA_58_each_mistake_has_its_code(code: str, old: str, new: str) -> None:
    assert code in codes(changed(old, new))


def test_every_code_of_the_list_is_shown_above() -> None:
    shown = {code for code, _, _ in WRONG}
    assert set(SENTENCES) - shown == {"rules_empty"}, "rules_empty has a test of its own below"


def test_rules_that_nothing_satisfies() -> None:
    old = "minlength: 8; maxlength: 16; required: lower; required: upper; required: digit; allowed: [-_.];"
    assert "rules_empty" in codes(changed(old, "maxlength: 2; required: lower; required: upper; required: digit;"))


def test_all_mistakes_at_once_in_the_order_of_the_file_in_two_languages() -> None:
    data = (
        changed("version: 3", "version: none")
        .replace(b"attempts: {max: 2", b"attempts: {max: 8")
        .replace(b"/plan/**", b"plan")
    )
    with pytest.raises(RecipeError) as caught:
        load(data, GROUND)
    assert [p.code for p in caught.value.problems] == ["wrong_type", "attempts_unsafe", "glob_invalid"]
    problem = caught.value.problems[1]
    assert (problem.path, problem.line) == ("login.attempts", 26)
    assert problem.ja.startswith("26行目 login.attempts:attempts.max は3回まで")
    assert problem.en.startswith("Line 26, login.attempts: attempts.max is at most 3")


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(RecipeError) as caught:
        load(changed("timeout_s", "timeout"), GROUND)
    assert "timeout_s" in caught.value.problems[0].ja
    assert "Did you mean “timeout_s”?" in caught.value.problems[0].en


def test_a_wrong_value_is_never_repeated() -> None:
    with pytest.raises(RecipeError) as caught:
        load(changed("fill: {field: company_code,", "fill: {field: company_code, value: hunter2-S3cret,"), GROUND)
    assert "hunter2" not in "".join(p.ja + p.en for p in caught.value.problems)


def test_VA_58_only_the_text_decides_the_digest() -> None:
    first = load(COMPLETE.encode(), GROUND).recipe.digest
    assert first == load(COMPLETE.encode(), Ground(today=date(2026, 11, 23))).recipe.digest
    assert first != load(COMPLETE.encode() + b"\n", GROUND).recipe.digest


def test_a_placeholder_is_one_label_of_a_host() -> None:
    host = "{company_code}.shift-note.example"
    text = COMPLETE.replace("www.shift-note.example", host).replace(f"primary: {host}", f'primary: "{host}"')
    text = re.sub(r"(url|probe): (https://\S+)$", r'\1: "\2"', text, flags=re.MULTILINE).encode()
    bound = load(text, Ground(today=TODAY, values={"company_code": "Tanaka-1"})).recipe
    assert bound.hosts.primary == "tanaka-1.shift-note.example"
    assert bound.login.url == "https://tanaka-1.shift-note.example/login"
    assert bound.digest == load(text, GROUND).recipe.digest
    for value in ("a.evil", "x/../y", "", "evil.example#", "ａ"):
        assert "host_placeholder" in codes(text, Ground(today=TODAY, values={"company_code": value}))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost", "printer.local", "a.internal", "co.jp", "example", "a_b.example",
     "www.smbc.co.jp", "mufg.jp", "x.bank", "shop.example:8443", "sub.sekisho-shop.jp", "169.254.169.254", "a..example"],
)  # fmt: skip
def test_VA_56_hosts_that_no_recipe_may_name(host: str) -> None:
    assert why_forbidden(host, GROUND) is not None


def test_loopback_only_while_the_issuer_is_loopback() -> None:
    """WB-20: plain http and this machine itself, in the demo and in tests."""
    text = COMPLETE.replace("https://www.shift-note.example", "http://localhost:8020").replace(
        "www.shift-note.example", "localhost:8020"
    )
    assert codes(text.encode(), Ground(today=TODAY, loopback=True)) == []
    assert {"host_forbidden", "not_https"} <= set(codes(text.encode()))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(RecipeError):
        load(data, GROUND)


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0, max_value=len(COMPLETE) - 1), st.sampled_from("{}[]:,-\"'&*!|>%@`\t\n #0a"))
def test_one_changed_character_never_breaks_the_loader(position: int, char: str) -> None:
    text = COMPLETE[:position] + char + COMPLETE[position + 1 :]
    assert isinstance(codes(text.encode()), list)


def test_too_big_and_wrong_encoding_are_named() -> None:
    assert codes(b"#" * (64 * 1024 + 1)) == ["too_big"]
    assert codes(COMPLETE.encode("cp932")) == ["not_yaml"]
