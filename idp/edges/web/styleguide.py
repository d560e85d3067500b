"""Sample data for the style guide page: every widget in every state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wtforms import (
    BooleanField,
    FileField,
    Form,
    PasswordField,
    RadioField,
    SelectField,
    StringField,
    TextAreaField,
    validators,
)

from idp.edges.web.fields import choices


class SampleForm(Form):  # type: ignore[misc]
    """One field of each kind."""

    name = StringField("氏名", [validators.InputRequired("氏名が空です。氏名を入れてください。")])
    kana = StringField("フリガナ", [validators.InputRequired("フリガナが空です。フリガナを入れてください。")])
    password = PasswordField("パスワード", [validators.Length(min=12, message="12文字以上にしてください。")])
    role = SelectField("役割", choices=choices([("part", "アルバイト"), ("deputy", "店長の代わり")]))
    when = RadioField(
        "いつ",
        [validators.InputRequired("いつ止めるかを選んでください。")],
        choices=choices([("now", "いますぐ"), ("close", "きょうの閉店後")]),
    )
    note = TextAreaField("メモ")
    file = FileField("ファイル")
    agree = BooleanField(
        "終わったことを確かめました", [validators.InputRequired("確かめたら、しるしを付けてください。")]
    )


class PinForm(Form):  # type: ignore[misc]
    """A masked field."""

    pin = StringField("PIN")


def context(now: datetime) -> dict[str, Any]:
    """What `styleguide.html` expects."""
    faulty = SampleForm(data={"name": "", "role": "part"}, prefix="faulty-")
    faulty.validate()
    return {
        "clean": SampleForm(data={"name": "山本 健"}, prefix="clean-"),
        "faulty": faulty,
        "pin": PinForm().pin,
        "now": now,
        "notices": [{"kind": "ok", "title": "保存しました", "text": None}],
    }
