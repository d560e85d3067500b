"""The words of an evidence pack, Japanese and English beside each other: whoever opens the pack years later has no catalogue.

遮断済 and "cut" stand at LOCAL_DEAD and VERIFIED alone (AU-20, requirements 13.1).
"""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """One thing in both languages."""

    ja: str
    en: str


CONTRACT = {
    "LOCAL_DEAD": Word("遮断済(Sekishoが自分で終わらせた)", "cut (Sekisho enforces it)"),
    "VERIFIED": Word("遮断済(使えないことを確かめた)", "cut (checked: access is refused)"),
    "ACKED": Word("先方が受付(確かめてはいない)", "acknowledged by the application, not checked"),
    "ATTESTED": Word("人が終わったと報告", "a person reported it as done"),
    "RESIDUAL": Word("期限まで生きる", "lives until its expiry"),
    "UNCONFIRMED": Word("確認できていない", "NOT CONFIRMED"),
    "MANUAL": Word("人の手が必要", "needs a person"),
    "IMPOSSIBLE": Word("止められないものとして閉じた", "closed as impossible to end"),
    "NO_PATH": Word("対象なし", "nothing was there"),
}
#: what may be called cut, or needs no cut
GONE = frozenset({"LOCAL_DEAD", "VERIFIED", "NO_PATH"})

KIND = {
    "ENTITLEMENT": Word("所属と権限", "assignments and rights"),
    "LOGIN_SESSION": Word("Sekishoのログイン", "logins at Sekisho"),
    "AUTHENTICATOR": Word("パスワード・認証アプリ・予備コード", "password, authenticator app, recovery codes"),
    "ACTIVATION": Word("登録コード", "activation codes"),
    "PENDING": Word("ログインの途中", "logins under way"),
    "APP_SESSION": Word("アプリのセッション(Sekishoの記録)", "application sessions (our record)"),
    "AUTHORIZATION_CODE": Word("認可コード", "authorization codes"),
    "TOKEN_FAMILY": Word("更新できるトークン", "refresh tokens"),
    "ACCESS_TOKEN": Word("アクセストークン", "access token"),
    "OIDC_LOGOUT": Word("アプリの中のログイン(ログアウト通知)", "login inside the application (logout notice)"),
    "SAML_LOGOUT": Word("アプリの中のログイン(SAMLログアウト)", "login inside the application (SAML logout)"),
    "CLIENT_SECRET": Word("本人が見たアプリの秘密", "client secret that the person saw"),
    "APPLICATION_LOGIN": Word(
        "アプリの中のログイン(知らせる方法なし)", "login inside the application (no way to tell it)"
    ),
    "GATEWAY_SESSION": Word(
        "ツールの画面(Sekishoのサーバーを通した利用)", "screens of the tool (through the gateway of Sekisho)"
    ),
    "TOOL_SESSION": Word("ツールの中の、この人だけのログイン", "login inside the tool that is this person's alone"),
    "TOOL_PASSWORD": Word("ツールのパスワード", "password of the tool"),
}
REASON = {
    "left": Word("退職", "left"), "moved": Word("異動", "moved"), "lost_device": Word("端末の紛失", "lost device"),
    "misuse": Word("不正な利用", "misuse"), "end_date": Word("終了日になった", "end date reached"), "other": Word("その他", "other"),
}  # fmt: skip
SCOPE = {
    "account": Word("すべて", "everything"), "assignment": Word("1つの所属", "one assignment"),
    "application": Word("1つのアプリ", "one application"), "login_session": Word("1つのログイン", "one login"),
}  # fmt: skip


def of(table: dict[str, Word], key: str) -> Word:
    """The word, or the machine word itself where a newer pack has one that we do not know."""
    return table.get(key, Word(key, key))
