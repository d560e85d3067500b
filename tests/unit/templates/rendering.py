"""A bare Jinja environment, set up as the app does it, and the values a page needs. No Flask, no database."""

from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from wtforms import (
    BooleanField,
    FileField,
    Form,
    PasswordField,
    RadioField,
    SelectChoice,
    SelectField,
    StringField,
    TextAreaField,
    validators,
)

TEMPLATES = Path(__file__).parents[3] / "templates"
STATIC = TEMPLATES / "static"
NOW = datetime(2026, 11, 21, 0, 14, 3, 212000, tzinfo=UTC)
JST = timezone(timedelta(hours=9))
NONCE = "n0nce-of-this-response"
LANGUAGES = [
    ("ja", "日本語", "?lang=ja", True),
    ("ja-easy", "やさしい日本語", "?lang=ja-easy", False),
    ("en", "English", "?lang=en", False),
]
NAV = [
    {"label": "アプリ", "href": "/", "icon": "app", "current": False},
    {"label": "スタッフ", "href": "/store/00123/staff", "icon": "users", "current": True},
    {"label": "端末", "href": "/store/00123/terminals", "icon": "device", "current": False},
    {"label": "切断の記録", "href": "/store/00123/receipts", "icon": "receipt", "current": False},
    {"label": "セキュリティ", "href": "/me/security", "icon": "shield", "current": False},
]


class Viewer:
    name = "鈴木 <店長>"


class SampleForm(Form):
    name = StringField(
        "氏名",
        [validators.InputRequired("氏名が空です。氏名を入れてください。")],
        description="名簿のとおりに入れます。",
    )
    kana = StringField("フリガナ", [validators.InputRequired("フリガナが空です。フリガナを入れてください。")])
    password = PasswordField("パスワード", [validators.Length(min=12, message="12文字以上にしてください。")])
    role = SelectField("役割", choices=[SelectChoice("part", "アルバイト"), SelectChoice("deputy", "店長の代わり")])
    when = RadioField(
        "いつ",
        [validators.InputRequired("いつ止めるかを選んでください。")],
        choices=[SelectChoice("now", "いますぐ"), SelectChoice("close", "きょうの閉店後")],
    )
    note = TextAreaField("メモ")
    file = FileField("ファイル")
    agree = BooleanField(
        "終わったことを確かめました", [validators.InputRequired("確かめたら、しるしを付けてください。")]
    )


class PinForm(Form):
    pin = StringField("PIN")


def jst(dt: datetime, *, seconds: bool = False) -> str:
    return dt.astimezone(JST).strftime("%Y/%m/%d %H:%M:%S" if seconds else "%Y/%m/%d %H:%M")


def iso(dt: datetime) -> str:
    return dt.astimezone(JST).isoformat()


@lru_cache
def environment(translations: tuple[tuple[str, str], ...] = ()) -> jinja2.Environment:
    """StrictUndefined and autoescape; gettext in the new style, as the app installs it. No translation: the msgid.

    translations: (msgid, text) pairs.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.i18n"],
    )
    words = dict(translations)
    env.install_gettext_callables(
        lambda text: words.get(text, text), lambda one, many, n: one if n == 1 else many, newstyle=True
    )
    env.filters.update(jst=jst, iso=iso)
    env.globals.update(
        url_for=lambda endpoint, filename: f"/{endpoint}/{filename}", csrf_token=lambda: "csrf-token-value"
    )
    return env


def base_variables(**over: Any) -> dict[str, Any]:
    return {
        "lang": "ja",
        "csp_nonce": NONCE,
        "languages": LANGUAGES,
        "viewer": Viewer(),
        "nav_items": NAV,
        "notices": [{"kind": "ok", "title": "保存しました", "text": None}],
    } | over


def styleguide_variables(**over: Any) -> dict[str, Any]:
    faulty = SampleForm(data={"name": "", "role": "part"}, prefix="faulty-")
    faulty.validate()
    return (
        base_variables(
            clean=SampleForm(data={"name": "山本 健"}, prefix="clean-"), faulty=faulty, pin=PinForm().pin, now=NOW
        )
        | over
    )
