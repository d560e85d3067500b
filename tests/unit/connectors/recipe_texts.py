"""One complete recipe, and how tests change it: a replaced piece of text, so that line numbers are those of a file."""

from __future__ import annotations

from datetime import date

from connectors.recipes.hosts import Ground
from connectors.recipes.load import load
from connectors.recipes.problems import RecipeError

TODAY = date(2026, 11, 22)
GROUND = Ground(today=TODAY, own_domains=("sekisho-shop.jp",))

COMPLETE = """\
recipe: 1
id: shift-note
version: 3
title: {ja: シフトノート, en: Shift Note}
terms: {url: "https://www.shift-note.example/terms", read_on: 2026-11-01, shared_account: unknown, automation: not_mentioned}
hosts:
  primary: www.shift-note.example
  also: [api.shift-note.example]
  public: [cdn.shift-note.example]
charset: cp932
fields:
  company_code: {label: 企業コード, secret: false, form: halfwidth}
  login_id: {label: ログインID, secret: false}
  password: {label: パスワード, secret: true}
login:
  driver: http
  url: https://www.shift-note.example/login
  steps:
    - fill: {field: company_code, by: [{label: 企業コード}, {name: corp_cd}]}
    - fill: {field: login_id, by: [{autocomplete: username}, {label: ログインID}]}
    - fill: {field: password, by: [{autocomplete: current-password}, {type: password}]}
    - submit: {by: [{role: button, name: ログイン}, {css: "form#login [type=submit]"}]}
  basic_auth: none
  code: none
  timeout_s: 15
  attempts: {max: 2, window_minutes: 30}
checks:
  probe: https://www.shift-note.example/home
  logged_in: {all: [{url: "https://www.shift-note.example/home*"}, {css: "[data-staff-name]"}]}
  logged_out: {any: [{url: "https://www.shift-note.example/login*"}, {text: ログインしてください}, {status: 401}]}
session:
  sharing: shared
  single: false
  limits: {idle_minutes: 30, max_hours: 12}
  logout: {method: POST, url: "https://www.shift-note.example/logout"}
  user_agent: engine
  cookies: {mirror: [csrf_token], from_client: [theme], device: []}
routes:
  landing: /home
  logout: ["/logout"]
  deny: {password: ["/account/password/**"], email: ["/account/mail/**"], users: ["/staff/new", "POST /staff/**"],
         keys: absent, billing: ["/plan/**", "/index.php?act=plan"]}
  cacheable: ["/static/**"]
  websocket: ["/live"]
  upload_max_mb: 20
password:
  rules: "minlength: 8; maxlength: 16; required: lower; required: upper; required: digit; allowed: [-_.];"
  history: 3
  change:
    url: https://www.shift-note.example/account/password
    steps:
      - fill: {field: password, by: [{name: old_pw}]}
      - fill: {field: password.new, by: [{name: new_pw}]}
      - fill: {field: password.new, by: [{name: new_pw2}]}
      - submit: {by: [{role: button, name: 変更する}]}
    success: {any: [{text: パスワードを変更しました}]}
"""


def changed(old: str, new: str) -> bytes:
    """The complete recipe with one piece of text replaced; it must be there."""
    assert COMPLETE.count(old) >= 1, old
    return COMPLETE.replace(old, new, 1).encode()


def codes(data: bytes, ground: Ground = GROUND) -> list[str]:
    """The codes of everything found, errors or warnings."""
    try:
        return [problem.code for problem in load(data, ground).warnings]
    except RecipeError as error:
        return [problem.code for problem in error.problems]
