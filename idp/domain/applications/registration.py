"""What a relying party registers, and the rules for it (OpenID Connect Dynamic Registration §2, RFC 8252; OA-01, OA-03)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from idp.core.errors import Invalid
from idp.domain.applications.decide import ACR_ORDER

FUNCTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
ID_TOKEN_ALGS = ("ES256", "RS256")


@dataclass(frozen=True)
class Registration:
    """What a relying party tells us. URIs are exact strings (OA-01); functions are dotted names such as points.adjust."""

    name: str
    redirect_uris: tuple[str, ...]
    functions: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool = False
    initiate_login_uri: str | None = None
    auth_method: str = "client_secret_basic"
    id_token_alg: str = "ES256"
    session_life_s: int | None = None
    min_acr: str | None = None
    refresh_allowed: bool = True
    offline_allowed: bool = False
    pkce_exempt: bool = False


def check_registration(wish: Registration, *, loopback: bool) -> None:
    """Every rule about URIs and combinations, each naming its field. loopback: the issuer is an http loopback address.

    Raises Invalid. Source: OA-01, OA-03, OA-33, WB-20, ux.md A04.
    """
    if not wish.redirect_uris:
        raise Invalid("リダイレクトURIを1つ以上入れてください。", field="redirect_uris")
    native = wish.auth_method == "none"
    for uri in wish.redirect_uris:
        _check_redirect(uri, loopback=loopback, native=native)
    for uri in wish.post_logout_redirect_uris:
        check_web_uri(uri, "post_logout_redirect_uris", loopback=loopback)
    for field in ("backchannel_logout_uri", "initiate_login_uri"):
        if value := getattr(wish, field):
            check_web_uri(value, field, loopback=loopback)
    for name in wish.functions:
        if not FUNCTION.fullmatch(name):
            raise Invalid("機能の名前は points.adjust のように、英小文字を . でつないでください。", field="functions")
    if wish.auth_method not in AUTH_METHODS:
        raise Invalid("この認証方式は使えません。", field="auth_method")
    if wish.id_token_alg not in ID_TOKEN_ALGS:
        raise Invalid("この署名方式は使えません。", field="id_token_alg")
    if wish.min_acr is not None and wish.min_acr not in ACR_ORDER[:2]:
        raise Invalid("この確認の強さは使えません。", field="min_acr")
    if wish.pkce_exempt and native:
        raise Invalid("公開クライアントはPKCEを省けません。", field="pkce_exempt")
    if wish.session_life_s is not None and not 60 <= wish.session_life_s <= 400 * 86400:
        raise Invalid("アプリのログインの長さは60秒から400日までです。", field="session_life_s")


def _uri_parts(uri: str, field: str) -> tuple[str, str]:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        raise Invalid("URIの形が違います。", field=field) from None
    if len(uri) > 2000 or any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in uri) or "\\" in uri:
        raise Invalid("URIに使えない文字があります。", field=field)
    if "#" in uri:
        raise Invalid("URIに # は使えません。", field=field)
    if "*" in uri:
        raise Invalid("URIに * は使えません。1つずつ登録してください。", field=field)
    if "@" in parts.netloc:
        raise Invalid("URIに利用者名は入れられません。", field=field)
    return parts.scheme, parts.hostname or ""


def check_web_uri(uri: str, field: str, *, loopback: bool) -> None:
    """An https address, or an http one on loopback while the issuer is there too. Raises Invalid."""
    scheme, host = _uri_parts(uri, field)
    if scheme == "https" and host:
        return
    if scheme == "http" and host in {"localhost", "127.0.0.1", "::1"} and loopback:
        return
    raise Invalid("URIは https で始めてください。", field=field)


def _check_redirect(uri: str, *, loopback: bool, native: bool) -> None:
    scheme, host = _uri_parts(uri, "redirect_uris")
    if native and scheme == "http" and host in {"127.0.0.1", "::1"}:
        return
    if native and scheme not in {"http", "https"}:
        if "." not in scheme:
            raise Invalid("アプリ専用の形式は jp.example.app: のように . を含めてください。", field="redirect_uris")
        return
    check_web_uri(uri, "redirect_uris", loopback=loopback)
