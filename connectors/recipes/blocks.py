"""One function per block of a recipe: a place in the text → its part of the model. Problems are noted, never raised."""

from __future__ import annotations

import codecs
import re
from datetime import timedelta
from typing import Any, Final, cast

from connectors.recipes import globs, password_rules, urls
from connectors.recipes.hosts import Ground, scheme_allowed, why_forbidden
from connectors.recipes.model import (
    DENY_KINDS,
    Change,
    Check,
    Checks,
    Condition,
    Driver,
    Field,
    Hosts,
    Label,
    Login,
    Password,
    Request,
    Routes,
    Session,
    Terms,
)
from connectors.recipes.reader import At
from connectors.recipes.steps import css_is_valid, steps

TERMS_AGE: Final = timedelta(days=365)
MAX_ALSO: Final = 3
MAX_ATTEMPTS: Final = 3
MEGABYTE: Final = 1024 * 1024
WEAK_BITS: Final = 60
#: charsets whose bytes below 0x80 are ASCII wherever a host name can stand, so that bytes can be rewritten in place
CHARSETS: Final = frozenset({"utf-8", "cp932", "shift_jis", "euc_jp", "iso8859-1", "cp1252", "ascii"})
#: names that carry a login in the frameworks that shops meet; certification proves the rest
SESSION_COOKIES: Final = frozenset(
    {
        "phpsessid", "jsessionid", "asp.net_sessionid", ".aspxauth", "connect.sid", "session", "sessionid", "session_id",
        "laravel_session", "ci_session", "_session_id", "sid", "cakephp", "rack.session", "remember_token", "auth",
        "auth_token", "access_token", "refresh_token", "jwt", "id_token", "cfid", "cftoken",
    }
)  # fmt: skip
_ID: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TERMS_WORDS: Final = ("unknown", "not_mentioned", "allowed", "forbidden")


def identifier(at: At) -> str:
    """The id: it becomes part of a host name."""
    text = at.text("x")
    if not _ID.fullmatch(text) or len(text) > 40:
        at.wrong("小文字・数字・- だけの40文字以内", "lower-case letters, digits and -, at most 40")
    return text


def charset(at: At) -> str:
    """The charset of the tool's pages, as Python names it; UTF-8 unless said."""
    if not at.present:
        return "utf-8"
    try:
        name = codecs.lookup(at.text("utf-8")).name
    except LookupError:
        name = ""
    if name not in CHARSETS:
        at.wrong(f"{'・'.join(sorted(CHARSETS))} のどれか", f"one of {', '.join(sorted(CHARSETS))}")
        return "utf-8"
    return name


def terms(at: At, ground: Ground) -> Terms:
    """The terms of use (VA-48)."""
    if not at.present:
        return Terms("", ground.today, "unknown", "unknown")
    keys = at.keys(("url", "read_on", "shared_account", "automation"))
    read_on = keys["read_on"].day()
    shared = keys["shared_account"].choice(_TERMS_WORDS, "unknown")
    automation = keys["automation"].choice(_TERMS_WORDS, "unknown")
    if read_on < ground.today - TERMS_AGE:
        keys["read_on"].note("terms_stale", date=read_on.isoformat())
    result = Terms(web_url(keys["url"], ground), read_on, shared, automation)
    if result.forbid:
        at.note("terms_forbid")
    return result


def hosts(at: At, ground: Ground) -> Hosts:
    """The hosts, each of which gets an origin of its own."""
    keys = at.keys(("primary",), ("also", "public"))
    also = [host(item, ground) for item in keys["also"].items()]
    if len(also) > MAX_ALSO:
        keys["also"].wrong(f"{MAX_ALSO}つまで", f"at most {MAX_ALSO}")
    public = [host(item, ground) for item in keys["public"].items()]
    return Hosts(host(keys["primary"], ground), tuple(also), tuple(public))


def host(at: At, ground: Ground) -> str:
    """One host name, judged."""
    if not at.present:
        return ""
    name = at.text().lower()
    if reason := why_forbidden(name, ground) if name else None:
        at.note("host_forbidden", host=name, reason=reason[0], reason_en=reason[1])
    return name


def web_url(at: At, ground: Ground) -> str:
    """An absolute URL of an allowed scheme."""
    if not at.present:
        return ""
    text = at.text()
    parts = urls.parts(text)
    if "@" in parts.netloc or parts.fragment or any(c.isspace() for c in text) or "\\" in text:
        at.wrong("https:// で始まるURL", "a URL without user name, fragment and spaces")
    elif text and not scheme_allowed(text, ground):
        at.note("not_https", url=text)
    return text


def fields(at: At) -> dict[str, Field]:
    """The fields of a tool account."""
    found: dict[str, Field] = {}
    for name, item in at.free_keys().items():
        if not _FIELD.fullmatch(name):
            item.wrong("小文字・数字・_ の名前", "a name of lower-case letters, digits and _")
        keys = item.keys(("label", "secret"), ("form",))
        form = keys["form"].choice(("any", "halfwidth"), "any")
        found[name] = Field(name, _label(keys["label"]), keys["secret"].flag(default=True), form == "halfwidth")
    return found


def _label(at: At) -> Label:
    """One word for everybody, or one for each language of the pages."""
    if not isinstance(at.node.value, dict):
        return Label(at.text())
    words = at.keys(("ja", "en"))
    return Label(words["ja"].text(), words["en"].text())


def login(at: At, ground: Ground) -> Login:
    """How to log in."""
    keys = at.keys(("driver", "url", "steps", "attempts"), ("basic_auth", "code", "timeout_s"))
    driver = cast("Driver", keys["driver"].choice(("http", "browser"), "http"))
    if keys["code"].present and keys["code"].node.value != "none":
        keys["code"].note("not_in_this_stage", key="login.code")
    attempts = keys["attempts"].keys(("max", "window_minutes"))
    most = attempts["max"].number(1, 100, 1)
    window = attempts["window_minutes"].number(0, 24 * 60, 1)
    if most > MAX_ATTEMPTS or window < 1:
        keys["attempts"].note("attempts_unsafe", limit=str(MAX_ATTEMPTS))
    basic: tuple[str, str] | None = None
    if keys["basic_auth"].present and keys["basic_auth"].node.value != "none":
        parts = keys["basic_auth"].keys(("user", "password"))
        basic = (parts["user"].text(), parts["password"].text())
    return Login(
        driver=driver,
        url=web_url(keys["url"], ground),
        steps=steps(keys["steps"], driver, ground),
        basic_auth=basic,
        timeout_s=keys["timeout_s"].number(1, 60, 15) if keys["timeout_s"].present else 15,
        attempts_max=most,
        attempts_window_minutes=window,
    )


def checks(at: At, ground: Ground) -> Checks:
    """The probe and its two readings."""
    keys = at.keys(("probe",), ("logged_in", "logged_out"))
    return Checks(web_url(keys["probe"], ground), check(keys["logged_in"], ground), check(keys["logged_out"], ground))


def check(at: At, ground: Ground) -> Check:
    """`{all: […]}` or `{any: […]}`."""
    name = at.path.rpartition(".")[2]
    if not at.present:
        at.note("check_missing", check=name)
        return Check("all", ())
    found = at.only_key(("all", "any"))
    if found is None:
        return Check("all", ())
    mode, inner = found
    conditions = tuple(c for item in inner.items() if (c := condition(item, ground)) is not None)
    if not conditions:
        at.note("check_missing", check=name)
    return Check("all" if mode == "all" else "any", conditions)


def condition(at: At, ground: Ground) -> Condition | None:
    """One test of a page."""
    found = at.only_key(("url", "css", "text", "status"))
    if found is None:
        return None
    kind, value = found
    if kind == "status":
        return Condition(status=value.number(100, 599, 401))
    text = value.text("*" if kind == "css" else "x")
    if kind == "css":
        if not css_is_valid(text):
            value.note("css_invalid", css=text)
            return None
        return Condition(css=text)
    if kind == "text":
        return Condition(text=text)
    try:
        pattern = globs.parse_url(text)
    except globs.GlobError as error:
        value.note("glob_invalid", glob=text, why=str(error))
        return None
    if not scheme_allowed(f"{pattern.scheme}://{pattern.host}/", ground):
        value.note("not_https", url=text)
    return Condition(url=pattern)


def session(at: At, ground: Ground) -> Session:
    """The tool's own session."""
    keys = at.keys(("sharing", "limits"), ("single", "logout", "user_agent", "cookies"))
    limits = keys["limits"].keys(("idle_minutes", "max_hours"))
    cookies = keys["cookies"].keys((), ("mirror", "from_client", "device")) if keys["cookies"].present else {}
    logout: Request | None = None
    if keys["logout"].present:
        parts = keys["logout"].keys(("method", "url"))
        logout = Request(parts["method"].choice(("GET", "POST"), "POST"), web_url(parts["url"], ground))
    result = Session(
        shared=keys["sharing"].choice(("shared", "per-person"), "shared") == "shared",
        single=keys["single"].flag(default=False) if keys["single"].present else False,
        idle_minutes=limits["idle_minutes"].number(1, 24 * 60, 30),
        max_hours=limits["max_hours"].number(1, 24 * 7, 12),
        logout=logout,
        engine_user_agent=keys["user_agent"].choice(("engine", "client"), "engine") == "engine"
        if keys["user_agent"].present
        else True,
        mirror=_cookie_names(cookies.get("mirror")),
        from_client=_cookie_names(cookies.get("from_client")),
        device=frozenset(cookies["device"].texts()) if cookies and cookies["device"].present else frozenset(),
    )
    if result.single and not result.shared:
        at.note("single_needs_shared")
    return result


def _cookie_names(at: At | None) -> frozenset[str]:
    if at is None or not at.present:
        return frozenset()
    for item in at.items():
        bare = item.text().lower().removeprefix("__host-").removeprefix("__secure-")
        if bare in SESSION_COOKIES:
            item.note("mirror_is_session", cookie=item.text())
    return frozenset(at.texts())


def routes(at: At) -> Routes:
    """What the gateway does with which path."""
    optional = ("cacheable", "websocket", "upload_max_mb", "confirm")
    keys = at.keys(("landing", "logout", "deny"), optional)
    if keys["confirm"].present and keys["confirm"].node.value not in ((), "none"):
        keys["confirm"].note("not_in_this_stage", key="routes.confirm")
    kinds = keys["deny"].keys((), DENY_KINDS)
    deny: dict[str, tuple[globs.Glob, ...] | None] = {}
    for kind, item in kinds.items():
        if not item.present:
            keys["deny"].note("deny_kind_missing", kind=kind)
        elif item.node.value == "absent":
            deny[kind] = None
        else:
            deny[kind] = route_list(item, narrow=True)
            if item.node.value == ():
                item.note("deny_kind_missing", kind=kind)
    landing = keys["landing"].text("/")
    if not landing.startswith("/") or landing.startswith("//"):
        keys["landing"].wrong("/ で始まる場所", "a path that begins with /")
    return Routes(
        landing=landing,
        logout=route_list(keys["logout"], narrow=True),
        deny=deny,
        cacheable=route_list(keys["cacheable"], narrow=True),
        websocket=route_list(keys["websocket"], narrow=False),
        upload_max_bytes=MEGABYTE
        * (keys["upload_max_mb"].number(1, 1024, 25) if keys["upload_max_mb"].present else 25),
    )


def route_list(at: At, *, narrow: bool) -> tuple[globs.Glob, ...]:
    """Globs; narrow: one that covers the whole tool is a mistake."""
    found = []
    for item in at.items():
        text = item.text("/x")
        try:
            glob = globs.parse(text)
        except globs.GlobError as error:
            item.note("glob_invalid", glob=text, why=str(error))
            continue
        if narrow and glob.covers_everything:
            item.note("glob_too_wide", glob=text)
        found.append(glob)
    return tuple(found)


def password(at: At, ground: Ground) -> Password | None:
    """Rules of a new password and the form that sets it."""
    keys = at.keys(("rules",), ("history", "change"))
    try:
        rules = password_rules.parse(keys["rules"].text("minlength: 8;"))
    except password_rules.RulesError as error:
        keys["rules"].note("rules_invalid", position=str(error.position), why=error.why, why_en=error.why_en)
        return None
    if not rules.can_be_met:
        keys["rules"].note("rules_empty")
    elif rules.bits < WEAK_BITS:
        keys["rules"].note("rules_weak", bits=str(rules.bits))
    change: Change | None = None
    if keys["change"].present:
        parts: Any = keys["change"].keys(("url", "steps", "success"))
        driver = "browser"  # the login's driver is checked against these steps in `across.py`, where both are known
        change = Change(
            web_url(parts["url"], ground), steps(parts["steps"], driver, ground), check(parts["success"], ground)
        )
    return Password(rules, keys["history"].number(0, 100, 0) if keys["history"].present else 0, change)
