"""The forms of all pages. Field ids and names never change: password managers and scripts rely on them (D16)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wtforms import (
    BooleanField,
    DateField,
    DateTimeLocalField,
    HiddenField,
    IntegerField,
    PasswordField,
    RadioField,
    SelectField,
    StringField,
    TextAreaField,
)
from wtforms.validators import EqualTo, NumberRange, Optional

from connectors.recipes.model import Recipe
from idp.edges import language
from idp.edges.web.fields import AtMost, Form, Required, choices, lazy


class LoginForm(Form):
    """L04 and L05 in one: login id and password."""

    login_id = StringField(lazy("ログインID"), [Required(), AtMost(200)])
    password = PasswordField(lazy("パスワード"), [Required()])
    request = HiddenField()
    next = HiddenField()


class CodeForm(Form):
    """One code: TOTP, recovery, activation."""

    code = StringField(lazy("確認コード"), [Required(), AtMost(200)])
    request = HiddenField()
    next = HiddenField()


class StepUpForm(Form):
    """A fresh proof: the password, and the second factor's code where there is one."""

    password = PasswordField(lazy("パスワード"))
    code = StringField(lazy("確認コード"), [AtMost(200)])
    request = HiddenField()
    next = HiddenField()


class ActivationForm(Form):
    """L08: the code that somebody handed over."""

    code = StringField(lazy("渡されたコード"), [Required(), AtMost(100)])


class NewPasswordForm(Form):
    """The owner's own choice, typed twice."""

    code = HiddenField()
    password = PasswordField(lazy("新しいパスワード"), [Required()])
    again = PasswordField(lazy("もう一度"), [Required(), EqualTo("password", lazy("2つのパスワードが違います。"))])


class ChangePasswordForm(Form):
    """The old one proves who asks."""

    current = PasswordField(lazy("いまのパスワード"), [Required()])
    password = PasswordField(lazy("新しいパスワード"), [Required()])
    again = PasswordField(lazy("もう一度"), [Required(), EqualTo("password", lazy("2つのパスワードが違います。"))])


class TotpForm(Form):
    """The seed travels sealed inside the form, never in clear in a URL or a log."""

    sealed = HiddenField()
    authenticator_id = HiddenField()
    code = StringField(lazy("アプリに出た6桁の数字"), [Required(), AtMost(20)])


class HireForm(Form):
    """S02: two required fields, the rest optional (AT-M1). Without a number of its own the company's next hire gets one of ours."""

    name = StringField(lazy("氏名"), [Required(), AtMost(200)])
    kana = StringField(lazy("フリガナ"), [Required(), AtMost(200)])
    login_name = StringField(lazy("スタッフ番号"), [Optional(), AtMost(64)])
    role = SelectField(lazy("役割"), default="staff")  # never more than somebody meant to give
    locale = SelectField(
        lazy("ことば"), choices=choices([("ja", "日本語"), ("ja-easy", "やさしい日本語"), ("en", "English")])
    )
    ends_on = DateField(lazy("最終日"), [Optional()])


class PersonForm(HireForm):
    """The same for head office, which also says where."""

    store = StringField(lazy("店舗コード(本部の人は空のまま)"), [Optional(), AtMost(32)])


class StopForm(Form):
    """S05: nothing to type; the reason is preset."""

    reason = RadioField(
        lazy("理由"),
        choices=choices(
            [
                ("left", lazy("退職")),
                ("moved", lazy("異動")),
                ("lost_device", lazy("端末をなくした")),
                ("misuse", lazy("不正な利用のおそれ")),
                ("other", lazy("そのほか")),
            ]
        ),
        default="left",
    )
    when = RadioField(
        lazy("いつ"),
        choices=choices(
            [("now", lazy("いますぐ")), ("today", lazy("きょうの閉店後(24:00)")), ("date", lazy("日にちを決める"))]
        ),
        default="now",
    )
    on = DateField(lazy("最後に使う日"), [Optional()])
    left_on = DateField(lazy("退職日(人事の記録。分かるときだけ)"), [Optional()])
    once = HiddenField()


class ReasonForm(Form):
    """A reason in words, for what must be explained later."""

    note = TextAreaField(lazy("理由"), [Required(), AtMost(2000)])


class CloseLineForm(Form):
    """R02: what was done by hand, or why it cannot be."""

    outcome = RadioField(
        lazy("結果"),
        choices=choices([("done", lazy("手作業で終わらせた")), ("impossible", lazy("切れないものとして閉じる"))]),
        default="done",
    )
    note = TextAreaField(lazy("したこと、または理由"), [Required(), AtMost(2000)])


class ApplicationForm(Form):
    """A04: what a relying party tells us."""

    name = StringField(lazy("アプリの名前"), [Required(), AtMost(200)])
    slug = StringField(lazy("短い名前(英小文字)"), [Required(), AtMost(63)])
    redirect_uris = TextAreaField(lazy("リダイレクトURI(1行に1つ)"), [Required(), AtMost(8000)])
    post_logout_redirect_uris = TextAreaField(lazy("ログアウト後に開くURI(1行に1つ)"), [Optional(), AtMost(8000)])
    backchannel_logout_uri = StringField(lazy("ログアウト通知の宛先(back-channel logout)"), [Optional(), AtMost(2000)])
    backchannel_logout_session_required = BooleanField(lazy("通知に sid が必要"), default=True)
    initiate_login_uri = StringField(lazy("ログインを始めるURI(ポータルのタイルから)"), [Optional(), AtMost(2000)])
    session_life_minutes = StringField(lazy("アプリの中のログインの長さ(分)"), [Optional(), AtMost(9)])
    functions = TextAreaField(lazy("機能(1行に1つ。例:points.adjust)"), [Optional(), AtMost(8000)])
    auth_method = SelectField(
        lazy("クライアントの認証"),
        choices=choices(
            [
                ("client_secret_basic", "client_secret_basic"),
                ("client_secret_post", "client_secret_post"),
                ("none", lazy("公開クライアント(none)")),
            ]
        ),
    )
    id_token_alg = SelectField(lazy("IDトークンの署名"), choices=choices([("ES256", "ES256"), ("RS256", "RS256")]))
    needs_aal2 = BooleanField(lazy("2つの要素の確認を必須にする"))
    offline_allowed = BooleanField(lazy("ログアウト後も使えるトークン(offline_access)を許す"))


class SamlForm(Form):
    """A05: a SAML application; its metadata first, our decisions second."""

    metadata = TextAreaField(lazy("メタデータの中身(XML)"), [Optional(), AtMost(200_000)])
    metadata_url = StringField(lazy("メタデータのURL"), [Optional(), AtMost(2000)])
    name = StringField(lazy("アプリの名前"), [Optional(), AtMost(200)])
    slug = StringField(lazy("短い名前(英小文字)"), [Optional(), AtMost(63)])
    name_id = SelectField(
        lazy("利用者ID(NameID)"),
        default="persistent",
        choices=choices(
            [
                ("persistent", lazy("専用の番号(persistent)")), ("transient", lazy("毎回変わる番号(transient)")),
                ("email", lazy("メール形式")), ("mapped", lazy("人ごとに割り当てる")),
            ]
        ),
    )  # fmt: skip
    email_pattern = StringField(lazy("メール形式の利用者ID"), [Optional(), AtMost(200)])
    encrypt = BooleanField(lazy("回答を暗号化する"))
    functions = TextAreaField(lazy("機能(1行に1つ。例:points.adjust)"), [Optional(), AtMost(8000)])
    start_url = StringField(lazy("ログインを始めるURI(ポータルのタイルから)"), [Optional(), AtMost(2000)])
    idp_initiated = BooleanField(lazy("要求なしに、ポータルから開くのを許す"))
    honours_session_index = BooleanField(lazy("ログアウトの要求が指すログインだけを終わらせる"))
    needs_aal2 = BooleanField(lazy("2つの要素の確認を必須にする"))


class MetadataForm(Form):
    """A06: newer metadata of a SAML application."""

    metadata = TextAreaField(lazy("メタデータの中身(XML)"), [Optional(), AtMost(200_000)])


class RecipeForm(Form):
    """A08: a recipe, as a file or pasted."""

    text = TextAreaField(lazy("レシピの中身(YAML)"), [Optional(), AtMost(70_000)])


class ToolForm(Form):
    """A09: a tool from an approved recipe."""

    recipe = SelectField(lazy("レシピ"))
    name = StringField(lazy("ツールの名前"), [Required(), AtMost(200)])
    slug = StringField(lazy("短い名前(英小文字)"), [Required(), AtMost(63)])
    functions = TextAreaField(lazy("機能(1行に1つ。例:points.adjust)"), [Optional(), AtMost(8000)])


class ToolAccountForm(Form):
    """A09: one account inside a tool, and for whom it is."""

    company = StringField(lazy("会社コード"), [Optional(), AtMost(32)])
    label = StringField(lazy("呼び名"), [Required(), AtMost(100)])
    store = StringField(lazy("店舗コード(その店だけのとき)"), [Optional(), AtMost(32)])
    role = SelectField(lazy("役割(その役割だけのとき)"))
    person = StringField(lazy("スタッフ番号(1人だけのとき)"), [Optional(), AtMost(64)])
    recovery_owner = SelectField(
        lazy("パスワード再設定のメールが届く先"),
        default="unknown",
        choices=choices(
            [
                ("company", lazy("会社のメール")), ("store", lazy("店舗のメール")), ("person", lazy("だれか個人のメール")),
                ("unknown", lazy("わからない")),
            ]
        ),
    )  # fmt: skip


class TermsForm(Form):
    """VA-48: where the written permission lies."""

    note = TextAreaField(lazy("許可した人と、書類のある場所"), [Required(), AtMost(200)])


class SheetForm(Form):
    """V05: a table of accounts."""

    company = StringField(lazy("会社コード"), [Optional(), AtMost(32)])
    rotate = BooleanField(lazy("預けたら、すぐ新しいパスワードに変える"), default=True)


def deposit_form(recipe: Recipe, names: Iterable[str]) -> Any:
    """V03: one input for each field of the recipe, in its own words; the secret ones masked. No input ever holds a value."""

    class DepositForm(Form):
        """The fields of one account."""

    for name in names:
        field = recipe.fields[name]
        kind = PasswordField if field.secret else StringField
        # what is missing is said by the domain, with the field's own name: the summary above lists several
        setattr(DepositForm, f"field_{name}", kind(language.word(field.label)))
    if recipe.password is not None and recipe.password.change is not None:
        DepositForm.rotate = BooleanField(lazy("預けたら、すぐ新しいパスワードに変える"), default=True)
    else:
        DepositForm.rotate = HiddenField()
    return DepositForm()


class GrantForm(Form):
    """Who may use it: a role, a store, a region or one person, and with which functions."""

    subject_kind = SelectField(
        lazy("だれに"),
        choices=choices(
            [
                ("role", lazy("役割")),
                ("company", lazy("会社の全員")),
                ("region", lazy("エリア")),
                ("store", lazy("店舗")),
                ("account", lazy("1人")),
            ]
        ),
    )
    subject = StringField(lazy("コード(エリア・店舗・スタッフ番号)"), [Optional(), AtMost(64)])
    role = SelectField(lazy("役割"))
    functions = TextAreaField(lazy("使える機能(1行に1つ)"), [Optional(), AtMost(4000)])


class SetupForm(Form):
    """Z01: the first administrator of an empty installation."""

    setup_code = StringField(lazy("サーバーの画面に出たコード"), [Required(), AtMost(100)])
    login_name = StringField(lazy("管理者のログインID"), [Required(), AtMost(64)], default="admin")
    name = StringField(lazy("氏名"), [Required(), AtMost(200)])
    password = PasswordField(lazy("パスワード"), [Required()])
    again = PasswordField(lazy("もう一度"), [Required(), EqualTo("password", lazy("2つのパスワードが違います。"))])


class CompanyForm(Form):
    """A partner company and the person who will look after it."""

    code = StringField(lazy("会社コード"), [Required(), AtMost(32)])
    name = StringField(lazy("会社名"), [Required(), AtMost(200)])


class StoreForm(Form):
    """A shop."""

    code = StringField(lazy("店舗コード"), [Required(), AtMost(32)])
    name = StringField(lazy("店舗名"), [Required(), AtMost(200)])
    region = StringField(lazy("エリアコード(なければ空)"), [Optional(), AtMost(32)])


class EmptyForm(Form):
    """A button: nothing but the CSRF token."""


class IdForm(Form):
    """A button on one row."""

    id = HiddenField()


class AuditForm(Form):
    """U01: the filters of a search in the log, all of them in the URL. Times are Japanese."""

    class Meta(Form.Meta):
        csrf = False  # a search changes nothing, and its URL is kept and shared

    person = StringField(lazy("だれについて(番号・氏名・フリガナ)"), [Optional(), AtMost(200)])
    actor = StringField(lazy("だれがしたか(番号・氏名・フリガナ)"), [Optional(), AtMost(200)])
    company = StringField(lazy("会社コード"), [Optional(), AtMost(32)])
    store = StringField(lazy("店舗コード"), [Optional(), AtMost(32)])
    application = StringField(lazy("アプリの短い名前"), [Optional(), AtMost(63)])
    event = SelectField(lazy("出来事"), default="", validate_choice=False)
    result = SelectField(
        lazy("結果"),
        default="",
        choices=choices([("", lazy("すべて")), ("ok", lazy("できた")), ("refused", lazy("断った・失敗"))]),
    )
    since = DateTimeLocalField(lazy("いつから(日本時間)"), [Optional()], tz=language.JST)
    until = DateTimeLocalField(lazy("いつまで(日本時間)"), [Optional()], tz=language.JST)


class ReportForm(Form):
    """U07 to U09: place, application and time of a report, in the URL."""

    class Meta(Form.Meta):
        csrf = False

    company = StringField(lazy("会社コード"), [Optional(), AtMost(32)])
    store = StringField(lazy("店舗コード"), [Optional(), AtMost(32)])
    application = StringField(lazy("アプリの短い名前"), [Optional(), AtMost(63)])
    day = DateField(lazy("いつの日か"), [Optional()])
    since = DateField(lazy("いつから"), [Optional()])
    until = DateField(lazy("いつまで"), [Optional()])
    days = IntegerField(lazy("何日使っていないか"), [Optional(), NumberRange(min=1, max=3650)])


def lines(text: str | None) -> tuple[str, ...]:
    """The non-empty lines of a text field, trimmed."""
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())
