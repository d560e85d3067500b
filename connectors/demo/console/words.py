"""Every sentence that a person reads, in Japanese and English. Voice: ux.md section 9. Pure, but for the language choice.

An error says what happened, what to do and who can help.
"""

from flask import g, request

LANGUAGES = ("ja", "en")

WORDS: dict[str, tuple[str, str]] = {
    "product": ("ポイント管理コンソール", "Point Console"),
    "skip": ("本文へ移動", "Skip to content"),
    "error": ("エラー", "Error"),
    "language": ("English", "日本語"),
    "logout": ("ログアウト", "Sign out"),
    "login": ("ログインする", "Sign in"),
    "home": ("会員の一覧へ戻る", "Back to members"),
    "home.title": ("会員", "Members"),
    "home.stores": ("担当する店舗", "Your stores"),
    "home.no_stores": (
        "担当する店舗がありません。店長か本部に、店舗の登録を頼んでください。",
        "You have no store. Ask your manager or head office to add one.",
    ),
    "home.no_view": (
        "会員を見る権限がありません。必要なときは、店長に言ってください。",
        "You may not see members. If you need to, ask your manager.",
    ),
    "search.title": ("会員をさがす", "Find a member"),
    "search.text": ("会員番号・氏名・フリガナ", "Number, name or kana"),
    "search.store": ("店舗", "Store"),
    "search.all": ("すべての店舗", "All your stores"),
    "search.button": ("検索する", "Search"),
    "search.count": ("{count}人", "{count} members"),
    "search.none": (
        "あてはまる会員はいません。番号か氏名の一部だけで、もう一度さがしてください。",
        "No member matches. Try a part of the number or name.",
    ),
    "search.previous": ("前の50人", "Previous 50"),
    "search.next": ("次の50人", "Next 50"),
    "member.number": ("会員番号", "Member no."),
    "member.name": ("氏名", "Name"),
    "member.kana": ("フリガナ", "Kana"),
    "member.store": ("店舗", "Store"),
    "member.joined": ("入会日", "Joined"),
    "member.points": ("ポイント", "Points"),
    "points.unit": ("{points}ポイント", "{points} points"),
    "points.title": ("ポイントを変更する", "Change points"),
    "points.direction": ("変更", "Change"),
    "points.add": ("加算する", "Add"),
    "points.subtract": ("減算する", "Subtract"),
    "points.amount": ("ポイント数", "Number of points"),
    "points.amount_hint": ("1〜100,000の整数", "A whole number, 1 to 100,000"),
    "points.reason": ("理由", "Reason"),
    "points.reason_hint": ("例:レジでの付け忘れ(60文字まで)", "For example: not added at the till (up to 60 letters)"),
    "points.button": ("変更を確定する", "Save the change"),
    "points.done": ("ポイントを変更しました。", "The points are changed."),
    "history.title": ("変更の記録", "History"),
    "history.none": ("まだ変更はありません。", "No changes yet."),
    "history.when": ("日時", "When"),
    "history.delta": ("変更", "Change"),
    "history.balance": ("変更後", "After"),
    "history.reason": ("理由", "Reason"),
    "history.who": ("変更した人", "By"),
    "coupon.title": ("配信中のクーポン", "Coupons"),
    "coupon.none": ("配信中のクーポンはありません。", "No coupons."),
    "coupon.name": ("クーポン名", "Coupon name"),
    "coupon.name_hint": ("40文字まで", "Up to 40 letters"),
    "coupon.discount": ("割引額(円)", "Discount (yen)"),
    "coupon.discount_hint": ("1〜100,000の整数", "A whole number, 1 to 100,000"),
    "coupon.ends": ("最終日", "Last day"),
    "coupon.until": ("{day}まで", "until {day}"),
    "coupon.new": ("クーポンを新しく配信する", "Publish a new coupon"),
    "coupon.button": ("配信する", "Publish"),
    "coupon.done": ("クーポンを配信しました。", "The coupon is published."),
    "form.errors": ("入力を直してください", "Please correct these"),
    "form.amount": (
        "ポイント数が1〜100,000の整数ではありません。数字を入れ直してください。",
        "The number of points is not 1 to 100,000. Enter a whole number.",
    ),
    "form.direction": ("加算か減算かを選んでください。", "Choose whether to add or subtract."),
    "form.reason": (
        "理由が空か、60文字をこえています。60文字までで入れてください。",
        "The reason is empty or too long. Enter up to 60 letters.",
    ),
    "form.too_few": (
        "残りは{points}ポイントです。これより多くは減算できません。",
        "There are {points} points left. You cannot subtract more.",
    ),
    "form.title": (
        "クーポン名が空か、40文字をこえています。40文字までで入れてください。",
        "The name is empty or too long. Enter up to 40 letters.",
    ),
    "form.discount": (
        "割引額が1〜100,000の整数ではありません。数字を入れ直してください。",
        "The discount is not 1 to 100,000. Enter a whole number.",
    ),
    "form.ends": ("最終日が今日より前か、空です。今日か先の日を入れてください。", "The last day is empty or past. Enter today or later."),
    "ended.title": ("ログインは終わりました", "You are signed out"),
    "ended.text": ("続けるときは、もう一度ログインしてください。", "To go on, sign in again."),
    "ended.everywhere": (
        "このコンソールと、シングルサインオンの両方からログアウトしました。",
        "You are signed out of this console and of single sign-on.",
    ),
    "logout.title": ("ログアウトしますか", "Sign out?"),
    "logout.text": (
        "このコンソールと、シングルサインオンからログアウトします。",
        "You will be signed out of this console and of single sign-on.",
    ),
    "refused.title": ("この操作はできませんでした", "That did not work"),
    "refused.csrf": (
        "画面が古くなっています。前の画面を開き直して、もう一度操作してください。",
        "The page is out of date. Open it again and retry.",
    ),
    "refused.login": (
        "ログインを続けられませんでした。時間がたったか、別の画面でログインしたためです。もう一度ログインしてください。",
        "We could not finish the sign-in: it took too long or was started elsewhere. Sign in again.",
    ),
    "refused.issuer": (
        "別のシステムからの案内だったため、開きませんでした。いつもの入口から開いてください。",
        "The link came from another system, so we did not open it. Use your usual entrance.",
    ),
    "refused.target": (
        "このリンクの行き先は、このコンソールの画面ではありません。いつもの入口から開いてください。",
        "This link does not lead to a page of this console. Use your usual entrance.",
    ),
    "refused.provider": (
        "ログインの確認で断られました({code})。続くときは、店長に言ってください。",
        "The sign-in was refused ({code}). If it goes on, tell your manager.",
    ),
    "refused.denied": (
        "このコンソールを使う権限がありません。必要なときは、店長に言ってください。",
        "You may not use this console. If you need to, ask your manager.",
    ),
    "refused.token": (
        "ログインの確認ができませんでした。もう一度ログインしてください。続くときは、本部に言ってください。",
        "We could not verify the sign-in. Try again; if it goes on, tell head office.",
    ),
    "forbidden.title": ("この操作の権限がありません", "You may not do this"),
    "forbidden.text": (
        "「{function}」の権限が必要です。必要なときは、店長に言ってください。",
        "It needs the function “{function}”. If you need it, ask your manager.",
    ),
    "404.title": ("ページが見つかりません", "Page not found"),
    "404.text": ("URLが変わったか、見る権限がありません。", "Its address changed, or you may not see it."),
    "503.title": ("シングルサインオンに接続できません", "Single sign-on does not answer"),
    "503.text": ("少し待って、もう一度ログインしてください。続くときは、本部に言ってください。", "Wait a little and sign in again. If it goes on, tell head office."),
    "500.title": ("こちらの不具合です", "Our fault"),
    "500.text": ("少し待って、もう一度試してください。", "Wait a little and try again."),
    "function.points.view": ("会員とポイントの照会", "see members and points"),
    "function.points.adjust": ("ポイントの変更", "change points"),
    "function.coupon.publish": ("クーポンの配信", "publish coupons"),
    "role.staff": ("スタッフ", "staff"),
    "role.manager": ("店長", "manager"),
    "role.deputy": ("副店長", "deputy"),
    "role.supervisor": ("スーパーバイザー", "supervisor"),
}  # fmt: skip


def language() -> str:
    """`ja` or `en`: what `?lang=` says, else the cookie of an earlier choice, else Accept-Language, else Japanese."""
    if "language" not in g:
        asked = request.args.get("lang") or request.cookies.get("console_lang")
        g.language = asked if asked in LANGUAGES else request.accept_languages.best_match(LANGUAGES, "ja")
    return str(g.language)


def word(key: str, **values: object) -> str:
    """The sentence of `key` in the reader's language, its `{names}` filled. Raises KeyError for an unknown key."""
    return WORDS[key][LANGUAGES.index(language())].format(**values)


def role_word(role: str) -> str:
    """A role in the reader's language; one that we do not know is shown as it came."""
    return word(f"role.{role}") if f"role.{role}" in WORDS else role
