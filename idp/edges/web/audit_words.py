"""What each event is called by people: one table from tag to sentence. A tag without words fails a test (tests/house)."""

from __future__ import annotations

from idp.edges.web.fields import lazy
from idp.ledgers.audit.events import Tag

GROUPS = {
    "cli": lazy("導入"),
    "directory": lazy("会社・店舗・人"),
    "authn": lazy("ログイン"),
    "session": lazy("ログイン中の端末"),
    "oidc": lazy("アプリへの入り方(OpenID Connect)"),
    "saml": lazy("アプリへの入り方(SAML)"),
    "application": lazy("アプリの管理"),
    "credential": lazy("預かった秘密"),
    "gateway": lazy("ツールの画面(サーバーを通した利用)"),
    "tool": lazy("ツール(パスワードだけのアプリ)"),
    "revocation": lazy("利用の停止と切断"),
    "logout": lazy("ログアウトの通知"),
    "audit": lazy("記録そのもの"),
    "keys": lazy("鍵"),
}

WORDS = {
    Tag.INSTALLATION_READY: lazy("導入の準備をした"),
    Tag.COMPANY_ADDED: lazy("会社を追加した"),
    Tag.COMPANY_POLICY: lazy("退職のときに変えるパスワードの範囲を選んだ"),
    Tag.REGION_ADDED: lazy("エリアを追加した"),
    Tag.STORE_ADDED: lazy("店舗を追加した"),
    Tag.ACCOUNT_ADDED: lazy("人を追加した"),
    Tag.ACCOUNT_REINSTATED: lazy("もう一度使えるようにした"),
    Tag.ASSIGNMENT_ADDED: lazy("所属を追加した"),
    Tag.FOREIGN_OBJECT: lazy("見る権限のないものを開こうとした"),
    Tag.ACTIVATION_ISSUED: lazy("登録・再設定のコードを出した"),
    Tag.ACTIVATION_USED: lazy("コードでパスワードを決めた"),
    Tag.ACTIVATION_REFUSED: lazy("コードが違った"),
    Tag.LOGIN_SUCCEEDED: lazy("ログインした"),
    Tag.LOGIN_REFUSED: lazy("ログインに失敗した"),
    Tag.SECOND_FACTOR_REFUSED: lazy("確認コードが違った"),
    Tag.STEP_UP: lazy("追加の確認をした"),
    Tag.PASSWORD_CHANGED: lazy("パスワードを変えた"),
    Tag.TOTP_ADDED: lazy("認証アプリを登録した"),
    Tag.TOTP_REMOVED: lazy("認証アプリをはずした"),
    Tag.RECOVERY_CODES_MADE: lazy("予備コードを作った"),
    Tag.RECOVERY_CODE_USED: lazy("予備コードを使った"),
    Tag.SECRET_OPENED: lazy("預かった秘密を開いた"),
    Tag.SECRET_OPEN_ENDED: lazy("預かった秘密を開いた結果"),
    Tag.CREDENTIAL_DEPOSITED: lazy("ツールのパスワードを預けた"),
    Tag.CREDENTIAL_LOCKED: lazy("預かったパスワードに鍵をかけた(中身が預けたときと違う)"),
    Tag.CREDENTIAL_UNLOCKED: lazy("鍵をかけたパスワードを、もう一度使えるようにした"),
    Tag.TOOL_OPENED: lazy("ツールを開いた"),
    Tag.TOOL_ENTERED: lazy("ツールに入った"),
    Tag.TOOL_LEFT: lazy("ツールから出た"),
    Tag.TOOL_REFUSED: lazy("ツールを開けなかった"),
    Tag.TICKET_REUSED: lazy("ツールの入場券が2度使われた"),
    Tag.GATEWAY_ALARM: lazy("ツールの画面を止めた(確認が必要)"),
    Tag.RECIPE_PROPOSED: lazy("レシピを提案した"),
    Tag.RECIPE_APPROVED: lazy("レシピを承認した"),
    Tag.TOOL_CHANGED: lazy("ツールのレシピを替えた"),
    Tag.TERMS_ATTESTED: lazy("利用規約の許可を登録した"),
    Tag.TOOL_ACCOUNT_ADDED: lazy("ツールの中のアカウントを登録した"),
    Tag.TOOL_ACCOUNT_ENDED: lazy("ツールの中のアカウントをはずした"),
    Tag.TOOL_DEGRADED: lazy("ツールに人の確認が必要になった"),
    Tag.TOOL_RESOLVED: lazy("ツールを確かめて、もう一度使えるようにした"),
    Tag.CERTIFICATION_WITHDRAWN: lazy("ツールの確認ずみの印を取り消した"),
    Tag.CERTIFICATION_RUN: lazy("ツールを確認した(認定)"),
    Tag.TOOL_LOGIN: lazy("ツールへのログインの結果"),
    Tag.TOOL_SESSION_ENDED: lazy("ツールの中のログインを終わらせた"),
    Tag.USE_TICKET_REFUSED: lazy("パスワードを使う許可の札を断った"),
    Tag.ROTATION_PLANNED: lazy("ツールのパスワード変更を予定した"),
    Tag.ROTATION_MOVED: lazy("ツールのパスワード変更が進んだ"),
    Tag.LOGIN_SESSION_ENDED: lazy("ログイン中の端末を終わらせた"),
    Tag.APP_SESSION_OPENED: lazy("アプリに入った"),
    Tag.CODE_ISSUED: lazy("アプリに入るコードを出した"),
    Tag.CODE_REDEEMED: lazy("アプリがコードをトークンに替えた"),
    Tag.CODE_REPLAYED: lazy("使い終わったコードがもう一度出された"),
    Tag.TOKEN_REFRESHED: lazy("アプリがトークンを新しくした"),
    Tag.REFRESH_REUSE: lazy("古い更新トークンがもう一度出された"),
    Tag.REQUEST_REFUSED: lazy("アプリからの依頼を断った"),
    Tag.LOGOUT_REQUESTED: lazy("ログアウトした"),
    Tag.ASSERTION_ISSUED: lazy("SAMLのアプリに入る証明を出した"),
    Tag.SAML_REFUSED: lazy("SAMLのメッセージを断った"),
    Tag.METADATA_HELD: lazy("SAMLアプリの変更を、承認まで止めた"),
    Tag.METADATA_APPROVED: lazy("SAMLアプリの変更を承認した"),
    Tag.METADATA_RENEWED: lazy("SAMLアプリの情報を新しくした"),
    Tag.METADATA_FAILED: lazy("SAMLアプリの情報を読めなかった"),
    Tag.ACCOUNT_MAPPED: lazy("人をSAMLアプリのアカウントに結びつけた"),
    Tag.PROVIDER_CHANGED: lazy("SAMLアプリの設定を変えた"),
    Tag.APPLICATION_ADDED: lazy("アプリを追加した"),
    Tag.APPLICATION_REMOVED: lazy("アプリをはずした"),
    Tag.ENTITLEMENT_GRANTED: lazy("アプリを使えるようにした"),
    Tag.ENTITLEMENT_ENDED: lazy("アプリを使えないようにした"),
    Tag.CLIENT_SECRET_ROTATED: lazy("アプリの秘密を作り直した"),
    Tag.REVOKED: lazy("利用を止めた"),
    Tag.REVOCATION_BOOKED: lazy("利用を止める日を決めた"),
    Tag.CUT_ATTEMPTED: lazy("切る手続きを試した"),
    Tag.CUT_CLOSED: lazy("切る手続きの1行が閉じた"),
    Tag.CUT_NEEDS_PERSON: lazy("切る手続きに人の手が必要になった"),
    Tag.CUT_ATTESTED: lazy("手作業で終わらせたと報告した"),
    Tag.CUT_IMPOSSIBLE: lazy("切れないものとして閉じた"),
    Tag.RECEIPT_EXPORTED: lazy("切断レシートを書き出した"),
    Tag.RECEIPT_SEALED: lazy("切断レシートに封をした"),
    Tag.RECEIPT_REOPENED: lazy("切断レシートがもう一度開いた"),
    Tag.LOGOUT_DELIVERED: lazy("アプリがログアウトの通知を受け付けた"),
    Tag.LOGOUT_GIVEN_UP: lazy("ログアウトの通知が届かなかった"),
    Tag.LOG_VIEWED: lazy("記録を見た"),
    Tag.LOG_EXPORTED: lazy("記録を書き出した"),
    Tag.REPORT_VIEWED: lazy("監査の一覧を見た"),
    Tag.REPORT_EXPORTED: lazy("監査の一覧を書き出した"),
    Tag.STREAM_BEHIND: lazy("SIEMへの送信が遅れた"),
    Tag.STREAM_CAUGHT_UP: lazy("SIEMへの送信が追いついた"),
    Tag.ORIGIN_STARTED: lazy("記録の新しい起点を始めた"),
    Tag.AUDIT_EXPORTED: lazy("期間の記録と証明を書き出した"),
    Tag.PERSONAL_ERASED: lazy("個人の情報を消した"),
    Tag.RETENTION_ENDED: lazy("保存の期限が過ぎた記録の中身を消した"),
    Tag.SIGNING_KEY_MADE: lazy("署名の鍵を作った"),
    Tag.SIGNING_KEY_WITHDRAWN: lazy("署名の鍵を取り下げた"),
    Tag.ROOT_KEY_ROTATED: lazy("元の鍵を入れ替えた"),
    Tag.ROOT_KEY_DROPPED: lazy("古い元の鍵を捨てた"),
    Tag.COMPANY_KEY_MADE: lazy("会社の鍵を作った"),
    Tag.COMPANY_KEY_REWRAPPED: lazy("会社の鍵を、新しい元の鍵で包み直した"),
    Tag.COMPANY_KEY_OFF: lazy("古い会社の鍵を使えなくした"),
    Tag.RECORDS_REWRAPPED: lazy("預かった物を、新しい会社の鍵で包み直した"),
}

#: how an actor without an account is called
ACTORS = {
    "person": lazy("人"),
    "system": lazy("Sekisho(自動)"),
    "cli": lazy("サーバーのコマンド"),
    "client": lazy("アプリ"),
    "anonymous": lazy("だれか(ログイン前)"),
    "": lazy("消去済み"),
}


def event(tag: str) -> str:
    """The words for a stored tag; the tag itself for one that this version does not know."""
    try:
        return str(WORDS[Tag(tag)])
    except ValueError:
        return tag


def choices() -> list[tuple[str, str, str]]:
    """(tag, words, group) in the order of the table, for a select field."""
    return [(tag.value, str(words), str(GROUPS[tag.value.partition(":")[0]])) for tag, words in WORDS.items()]


def actor(kind: str) -> str:
    """The words for a kind of actor."""
    return str(ACTORS.get(kind, kind))
