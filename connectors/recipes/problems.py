"""What can be wrong with a recipe: the closed list of codes, and its sentences in Japanese and English.

A recipe is written by people who are not programmers, so every problem says where it stands (line, column, path) and
what to do. Nobody guesses at the second mistake: the loader collects all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

#: code → (Japanese, English); `{…}` are filled from `Problem.about`
SENTENCES: Final[dict[str, tuple[str, str]]] = {
    "not_yaml": ("YAMLとして読めません({why})。", "This is not YAML ({why})."),
    "too_big": ("大きすぎます({limit}まで)。", "Too big (at most {limit})."),
    "yaml_feature": (
        "{feature}は使えません。値をそのまま書いてください。",
        "{feature} cannot be used here; write the value itself.",
    ),
    "unknown_key": (
        "「{key}」という項目はありません。{near}使えるのは:{allowed}",
        "There is no key “{key}”. {near_en}Allowed: {allowed}",
    ),
    "missing_key": ("「{key}」がありません。書き足してください。", "“{key}” is missing; add it."),
    "wrong_type": ("ここには{expected}を書いてください。", "Write {expected_en} here."),
    "unsupported_version": ("recipe は 1 だけが使えます。", "Only `recipe: 1` is supported."),
    "script_found": ("スクリプトは書けません。", "A recipe holds no script."),
    "not_https": ("https ではありません:{url}", "Not https: {url}"),
    "host_not_declared": (
        "{host} は hosts の primary と also にありません(宣言済み:{declared})。",
        "{host} is not in hosts.primary or hosts.also (declared: {declared}).",
    ),
    "host_forbidden": ("{host} は使えません({reason})。", "{host} cannot be used ({reason_en})."),
    "host_placeholder": (
        "{{{field}}} は、秘密でない項目の名前で、ホスト名の1区切りでなければなりません。",
        "{{{field}}} must name a field that is not secret and be one label of a host name.",
    ),
    "no_secret_field": ("secret: true の項目がありません。", "No field has `secret: true`."),
    "unknown_field": ("「{field}」は fields にありません。", "“{field}” is not in `fields`."),
    "unused_field": ("「{field}」はどの手順でも使われていません。", "No step uses the field “{field}”."),
    "secret_in_recipe": (
        "値をレシピに書かないでください。項目(field)を使ってください。",
        "A recipe holds no value; use a `field`.",
    ),
    "selector_empty": ("by に目印を1つ以上書いてください。", "`by` needs at least one selector."),
    "selector_kind": (
        "目印は label・name・autocomplete・type・css・role のどれか1つです。",
        "A selector is one of label, name, autocomplete, type, css, role.",
    ),
    "css_invalid": ("CSSセレクターとして読めません:{css}", "Not a CSS selector: {css}"),
    "driver_cannot": (
        "手順 {step} の {kind} は driver: browser でだけ使えます。",
        "Step {step}: `{kind}` needs `driver: browser`.",
    ),
    "check_missing": ("checks.{check} に条件がありません。", "checks.{check} has no condition."),
    "check_same": (
        "logged_in と logged_out が同じ画面で成り立ちます。",
        "logged_in and logged_out hold on one and the same page.",
    ),
    "probe_denied": ("checks.probe が禁止(deny)の画面です。", "checks.probe is a denied route."),
    "deny_kind_missing": (
        "routes.deny に「{kind}」がありません。画面の場所か absent を書いてください。",
        "routes.deny lacks “{kind}”; give its routes or `absent`.",
    ),
    "glob_invalid": ("書き方が違います:{glob}({why})", "Not a route: {glob} ({why})"),
    "glob_too_wide": ("広すぎます:{glob}", "Too wide: {glob}"),
    "single_needs_shared": (
        "single: true のときは sharing: shared にしてください。",
        "`single: true` needs `sharing: shared`.",
    ),
    "mirror_is_session": (
        "「{cookie}」はログイン状態を持つクッキーなので、端末に渡せません。",
        "“{cookie}” carries a login and cannot be handed to the device.",
    ),
    "attempts_unsafe": (
        "attempts.max は{limit}回まで、window_minutes は1以上です(ツールに締め出されないため)。",
        "attempts.max is at most {limit} and window_minutes at least 1, or the tool locks the account.",
    ),
    "rules_invalid": ("パスワードの規則の{position}文字目:{why}", "Password rules, character {position}: {why_en}"),
    "rules_empty": ("この規則を満たすパスワードがありません。", "No password can satisfy these rules."),
    "rules_weak": (
        "作れるパスワードが弱すぎます({bits}ビット。60以上が目安です)。",
        "Passwords under these rules are weak ({bits} bits; 60 is the aim).",
    ),
    "not_in_this_stage": ("{key} はまだ使えません。none にしてください。", "{key} is not available yet; use `none`."),
    "terms_missing": (
        "terms がありません。利用規約を読んだ日と結果を書いてください。",
        "`terms` is missing; say when the terms of use were read and what they say.",
    ),
    "terms_stale": (
        "利用規約を読んだ日({date})から1年以上たっています。読み直してください。",
        "The terms were read on {date}, over a year ago; read them again.",
    ),
    "terms_forbid": (
        "利用規約が禁じています。書面の許可を本部の管理者が登録するまで使い始められません。",
        "The terms of use forbid this; it stays off until an HQ administrator attests a written permission.",
    ),
}

WARNINGS: Final = frozenset({"terms_stale", "terms_forbid", "rules_weak"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to repair. path: keys from the top, as `login.steps[2].fill`; line and column count from 1."""

    code: str
    path: str
    line: int
    column: int
    about: dict[str, str] = field(default_factory=dict)

    @property
    def is_warning(self) -> bool:
        """Whether the recipe loads all the same."""
        return self.code in WARNINGS

    @property
    def ja(self) -> str:
        """Place and sentence in Japanese."""
        return f"{self._place_ja()}{self.what_ja}"

    @property
    def en(self) -> str:
        """Place and sentence in English."""
        return f"Line {self.line}, {self.path or 'top'}: {self.what_en}"

    @property
    def what_ja(self) -> str:
        """The sentence alone, for a table that has the place in columns of its own."""
        return SENTENCES[self.code][0].format(**self.about)

    @property
    def what_en(self) -> str:
        """The same in English."""
        return SENTENCES[self.code][1].format(**self.about)

    def _place_ja(self) -> str:
        return f"{self.line}行目 {self.path or '(先頭)'}:"


class RecipeError(ValueError):
    """The recipe cannot be used. `problems` holds every error, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.column)))
        super().__init__("\n".join(problem.en for problem in self.problems))
