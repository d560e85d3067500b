"""The pages that the gateway itself shows, Japanese first and English beside it; no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Final

from aiohttp import web

#: code → (status, Japanese title, Japanese text, English text)
PAGES: Final[dict[str, tuple[int, str, str, str]]] = {
    "ended": (403, "利用は終わりました", "もう一度使うときは、Sekisho から開いてください。この端末で別の人がログインしたときも、前の人の利用は終わります。", "Your use of this tool has ended. Open it again from Sekisho. It also ends when somebody else signs in on this device."),
    "route_denied": (403, "この画面は本部だけが使えます", "必要なときは店長に相談してください。", "Only head office may use this page. Ask your manager."),
    "cross_site": (403, "ほかのサイトからは開けません", "Sekisho から開いてください。", "This cannot be opened from another site. Open it from Sekisho."),
    "worker_refused": (403, "使えない機能です", "このツールの、画面を端末に保存する機能は使えません。ほかの機能は使えます。", "Service workers are refused here; everything else works."),
    "socket_denied": (403, "使えない接続です", "この接続はレシピにありません。", "This socket is not declared in the recipe."),
    "ticket_invalid": (403, "開けませんでした", "Sekisho に戻って、もう一度開いてください。", "This link was used, is too old, or belongs to another browser. Open the tool again from Sekisho."),
    "opening": (200, "開いています", "ログインしています。数秒お待ちください。", "Logging in. This takes a few seconds."),
    "entered": (200, "開いています", "次の画面に進みます。", "Moving on."),
    "needs_human": (503, "いまは開けません", "本部の確認が必要です。店長に知らせてください。", "Head office has to look at this tool first. Tell your manager."),
    "resend": (409, "入力は送られていません", "前の画面に戻って、もう一度送ってください。", "Your input was not sent. Go back and send it again."),
    "stop": (502, "このツールの外に出ようとしました", "本部に知らせてください。", "The tool leads to a place outside its declared hosts."),
    "secret_in_answer": (502, "この画面は止めました", "ログイン情報が含まれていたため表示しません。本部に知らせました。", "This page held login data and was stopped. Head office has been told."),
    "tool_away": (502, "ツールにつながりません", "しばらくしてから、もう一度試してください。", "The tool does not answer. Try again later."),
    "tool_slow": (504, "ツールの返事がありません", "しばらくしてから、もう一度試してください。", "The tool is too slow. Try again later."),
    "unavailable": (503, "いまは使えません", "しばらくしてから、もう一度試してください。", "Sekisho cannot check this request right now. Try again shortly."),
    "bad_request": (400, "この要求は受け付けられません", "Sekisho から開き直してください。", "The request is malformed. Open the tool again from Sekisho."),
    "method": (405, "この操作は使えません", "Sekisho に戻って、もう一度開いてください。", "This method is not allowed. Open the tool again from Sekisho."),
    "misdirected": (421, "この宛先は使えません", "Sekisho から開き直してください。", "Unknown host. Open the tool from Sekisho."),
    "too_big": (413, "ファイルが大きすぎます", "小さくしてから送ってください。", "The upload is too big for this tool."),
    "headers": (431, "この要求は受け付けられません", "ブラウザーを開き直してください。", "Too many or too large headers. Close the browser and open it again."),
}  # fmt: skip

_STYLE: Final = (
    "body{font-family:system-ui,sans-serif;margin:0;background:#f4f6f8;color:#1a1f26;line-height:1.7}"
    "main{max-width:34rem;margin:12vh auto;padding:1.5rem 1.75rem;background:#fff;border-top:6px solid #1d3f72}"
    "h1{font-size:1.4rem;margin:0 0 .5rem}p{margin:.5rem 0}.en{color:#4a5361}a{color:#1d3f72;display:inline-block;padding:.25rem 0}"
    ".code{font-size:.8rem;color:#4a5361}"
    "@media(prefers-color-scheme:dark){body{background:#12161c;color:#e8ebef}main{background:#1b212a}"
    ".en,.code{color:#b3bcc8}a{color:#9cc0ff}}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(
    code: str, *, portal: str, detail: str = "", status: int | None = None, go: str | None = None, after_s: int = 0
) -> web.Response:
    """One of the pages above.

    portal: where the way back leads; detail: shown under the text, escaped (a host, a machine code); go: an address to
    move on to by itself after `after_s` seconds.
    """
    number, title, ja, en = PAGES[code]
    move = f'<meta http-equiv="refresh" content="{after_s};url={html.escape(go)}">' if go is not None else ""
    link = html.escape(go or portal)
    text = (
        f'<!doctype html><html lang="ja"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"{move}<title>{title} · Sekisho</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{title}</h1><p>{ja}</p><p class="en" lang="en">{en}</p>'
        + (f'<p class="code">{html.escape(detail)}</p>' if detail else "")
        + f'<p><a href="{link}">{"進む / Continue" if go is not None else "Sekisho に戻る / Back to Sekisho"}</a></p>'
        "</main></body></html>"
    )
    answer = web.Response(status=status or number, text=text, content_type="text/html")
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["X-Sekisho-Page"] = code
    guard(answer)
    return answer


def guard(answer: web.StreamResponse) -> None:
    """Headers of every answer of ours."""
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["X-Robots-Tag"] = "noindex, nofollow"
    answer.headers["Referrer-Policy"] = "same-origin"
