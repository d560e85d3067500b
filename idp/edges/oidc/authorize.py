"""GET and POST /oidc/authorize: what the request wishes, what the person must still do, and the code.

The order is the order of RE-20 in one transaction: client and shared rows, login session claimed, decision, app session,
code. What a person must still do (`next_step`) is a pure function; a request that has to wait for them is a stored row,
and the pages carry its handle, never a URL to go back to (WB-05).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from authlib.oauth2 import OAuth2Error
from flask import current_app, g, redirect, render_template, request
from sqlalchemy import and_, select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from idp.core import ids
from idp.core.db import transaction
from idp.core.errors import Denied, Invalid, Stale
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import ACR_ORDER, Allowed, Refused, acr_at_least
from idp.domain.authn import second_factor
from idp.domain.directory.models import Account, Company
from idp.domain.directory.roles import Role, needs_second_factor
from idp.domain.directory.scope import account_alive
from idp.domain.sessions import live
from idp.domain.sessions.live import LOGIN_COLUMNS, LiveLogin, login_session_alive
from idp.domain.sessions.models import LoginSession, PendingRequest
from idp.domain.tokens import grants
from idp.domain.tokens.grants import CodeRequest
from idp.edges import browser
from idp.edges.browser import Answer
from idp.edges.oidc import bp, claims
from idp.edges.oidc.client import Client, Request, could_be_client_id, repeated, wrong_resource
from idp.edges.oidc.exchange import Exchange
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal, record

PROMPTS = {"none", "login", "consent", "select_account"}
RESPONSE_MODES = ("query", "form_post")
MAX_LENGTH = 8192


# --- the pure part -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What an authorization request asks of the person's login.

    requested_at: when the request first arrived: a login after it satisfies `prompt=login`. max_age_s: None = no limit.
    must_acr: classes of which one is essential; hint_sub: the subject of a genuine id_token_hint; login_hint pre-fills only.
    """

    requested_at: datetime
    prompt: frozenset[str] = frozenset()
    max_age_s: int | None = None
    must_acr: tuple[str, ...] = ()
    want_acr: tuple[str, ...] = ()
    hint_sub: str | None = None


@dataclass(frozen=True)
class Login:
    """Show the login page."""


@dataclass(frozen=True)
class StepUp:
    """Show the second-factor page. voluntary: only to people who have a second factor; the others go on without."""

    voluntary: bool = False


@dataclass(frozen=True)
class Refuse:
    """Answer the relying party with this error."""

    error: str


@dataclass(frozen=True)
class Issue:
    """Nothing is left to do."""


Step = Login | StepUp | Refuse | Issue


def next_step(wish: Wish, login: LiveLogin | None, *, now: datetime) -> Step:
    """What must happen before a code (OI-01 to OI-06). A login younger than the request satisfies every wish for a fresh one."""
    silent = "none" in wish.prompt
    if login is None:
        return Refuse("login_required") if silent else Login()
    just_now = login.auth_time >= wish.requested_at
    too_old = wish.max_age_s is not None and now - login.auth_time > timedelta(seconds=wish.max_age_s)
    again = wish.prompt & {"login", "select_account"} or too_old
    other = wish.hint_sub is not None and wish.hint_sub != login.subject
    if (again or other) and not just_now:
        return Refuse("login_required") if silent else Login()
    if other:
        return Refuse("login_required")
    return _assurance_step(wish, login, silent=silent)


def _assurance_step(wish: Wish, login: LiveLogin, *, silent: bool) -> Step:
    if wish.must_acr and not any(acr_at_least(login.acr, want) for want in wish.must_acr):
        reachable = any(want in ACR_ORDER[:2] for want in wish.must_acr)
        return StepUp() if reachable and not silent else Refuse("unmet_authentication_requirements")
    if wish.want_acr and not any(acr_at_least(login.acr, want) for want in wish.want_acr) and not silent:
        reachable = any(want in ACR_ORDER[:2] for want in wish.want_acr)
        just_now = login.auth_time >= wish.requested_at
        if reachable and not just_now:  # asked for voluntarily: tried once, then the class reached is reported
            return StepUp(voluntary=True)
    return Issue()


# --- reading the request -------------------------------------------------------------------------------------------


class _Redirectable(Exception):
    """An error that may go to the relying party: its redirect_uri is proven."""

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.description = description


def _wish(params: dict[str, str], client: Client, *, requested_at: datetime) -> tuple[Wish, dict[str, Any]]:
    """Parse the OIDC parameters. Returns the wish and the claims asked for. Raises _Redirectable."""
    prompt = frozenset(params.get("prompt", "").split())
    if not prompt <= PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise _Redirectable("invalid_request", "prompt has an unknown or contradictory value.")
    asked = _claims_parameter(params.get("claims"))
    wishes = asked.get("id_token_request", {})
    essential, classes = bool(wishes.get("acr", {}).get("essential")), _values(wishes.get("acr", {}))
    subjects = {_hint(params.get("id_token_hint"), client), *_values(wishes.get("sub", {}))} - {None}
    if len(subjects) > 1:
        raise _Redirectable("login_required")  # nobody is two people at once
    wish = Wish(
        requested_at=requested_at,
        prompt=prompt,
        max_age_s=_max_age(params.get("max_age")),
        must_acr=_at_least(client.row.min_acr, classes if essential else ()),
        want_acr=(*params.get("acr_values", "").split(), *(() if essential else classes)),
        hint_sub=subjects.pop() if subjects else None,
    )
    return wish, {"id_token": sorted(asked.get("id_token", ())), "userinfo": sorted(asked.get("userinfo", ()))}


def _values(wish: dict[str, Any]) -> tuple[str, ...]:
    """`value` or `values` of one claim of the `claims` parameter (OIDC Core §5.5.1). Raises _Redirectable."""
    values = wish.get("values", [wish["value"]] if "value" in wish else [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Redirectable("invalid_request", "claims has a value that is not a text, or values that are no list.")
    return tuple(values)


def _at_least(floor: str | None, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The essential classes, none below what the application itself demands."""
    if floor is None:
        return classes
    return tuple(floor if acr_at_least(floor, name) else name for name in classes) or (floor,)


def _max_age(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _Redirectable("invalid_request", "max_age is not a number of seconds.")
    return int(text)


def _claims_parameter(text: str | None) -> dict[str, Any]:
    """The `claims` parameter (OIDC Core §5.5): names wished for per place, and the request for the ID token as it stands."""
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or any(not isinstance(parsed.get(k) or {}, dict) for k in ("id_token", "userinfo")):
        raise _Redirectable("invalid_request", "claims is not a JSON object of objects.")
    wanted = {place: set(parsed.get(place) or {}) & set(claims.CLAIMS) for place in ("id_token", "userinfo")}
    wishes = {k: v for k, v in (parsed.get("id_token") or {}).items() if isinstance(v, dict)}
    return {**wanted, "id_token_request": wishes}


def _hint(token: str | None, client: Client) -> str | None:
    """The subject of an id_token_hint that is a genuine ID token of ours for this client, expired or not (OI-04)."""
    if not token:
        return None
    services = browser.services()
    verified = services.signer.verify(token, typ=claims.ID_TOKEN, retired=True)
    if (
        verified is None
        or verified[1].get("iss") != services.settings.issuer
        or verified[1].get("aud") != client.client_id
    ):
        raise _Redirectable("invalid_request", "id_token_hint is not an ID token for this client.")
    return str(verified[1]["sub"])


# --- the endpoint --------------------------------------------------------------------------------------------------


@bp.route("/oidc/authorize", methods=["GET", "POST"], endpoint="authorize")
def authorize() -> Answer:
    """Authorization endpoint (OIDC Core §3.1.2). A POST is stored and answered with 303 to GET, without any effect."""
    now = browser.now()
    if request.method == "POST":
        return _keep_post()
    values, stored = request.args, None
    if set(values) == {"request"} and not repeated(values):
        with transaction() as session:
            stored = live.find_request(session, values["request"], protocol="oidc", now=now)
            if stored is None:
                raise Stale("この画面は古くなりました。アプリからもう一度開いてください。", "pending request is gone")
            return _handle(session, MultiDict(stored.parameters), requested_at=stored.created_at, stored=stored)
    with transaction() as session:
        return _handle(session, values, requested_at=now, stored=None)


def _keep_post() -> Answer:
    """A cross-site POST comes without our cookie: keep the request, and let a GET of ours find cookie and request together."""
    values = request.form
    if request.args or _malformed(values) or len(values.getlist("resource")) > 1:
        raise Invalid("アプリからの要求が正しくありません。", "repeated, mixed or oversized POST parameters")
    with transaction() as session:
        handle = live.put_request(session, protocol="oidc", parameters=values.to_dict(), now=browser.now())
    return redirect(f"/oidc/authorize?request={handle}", 303)


def _malformed(values: MultiDict[str, str]) -> bool:
    """Sent twice, longer than any request, or with a NUL, which PostgreSQL cannot store (OA-02)."""
    texts = [text for pair in values.items(multi=True) for text in pair]
    return repeated(values) is not None or sum(map(len, texts)) > MAX_LENGTH or any("\0" in text for text in texts)


def _handle(
    session: Session, values: MultiDict[str, str], *, requested_at: datetime, stored: PendingRequest | None
) -> Answer:
    """Validate, then decide and issue. Until redirect_uri is proven, errors stay here and go nowhere (OA-10)."""
    if _malformed(values):
        return _local_error("a parameter was sent twice, the request is too long, or it holds a NUL", values)
    services, now = browser.services(), browser.now()
    front = FrontDoor(services, session, now=now, actor=browser.actor())
    if values.get("response_type") != "code":
        client = front.query_client(values.get("client_id", ""))
        if client is None or not client.check_redirect_uri(values.get("redirect_uri", "")):
            return _local_error("unknown client or redirect_uri", values)
        wrong = "unsupported_response_type" if values.get("response_type") else "invalid_request"
        return _to_client(values, {"error": wrong, "error_description": "Use response_type=code."})
    try:
        grant = front.get_consent_grant(
            Request("GET", f"{services.settings.issuer}/oidc/authorize", values, request.headers)
        )
    except OAuth2Error as error:
        if error.redirect_uri is None or front.client is None:
            return _local_error(f"{error.error}: {error.description}", values)
        return _to_client(values, {"error": error.error, "error_description": error.description or ""})
    client = front.client
    if client is None or not client.application.alive:
        return _local_error("the application has ended", values)
    params = values.to_dict()
    try:
        _check_unsupported(params, client, values)
        wish, asked = _wish(params, client, requested_at=requested_at)
        return _proceed(session, front, params, wish, asked, scope=grant.request.scope, stored=stored)
    except _Redirectable as error:
        count_refusal(session, Tag.REQUEST_REFUSED, f"authorize:{client.client_id}:{error.error}", now=now)
        return _to_client(params, {"error": error.error, "error_description": error.description})


class FrontDoor(Exchange):
    """The authorization endpoint's view of a client: read together with the login session of this browser."""

    login: LiveLogin | None = None

    def query_client(self, client_id: str) -> Client | None:
        """Client and login session in one statement, shared rows taken (lock orders 1, 2 and 4)."""
        if self.client is not None:
            return self.client if self.client.client_id == client_id else None
        if not could_be_client_id(client_id):
            return None
        digest = ids.digest(browser.read_cookie(browser.LOGIN_COOKIE))
        company = (
            select(Company.id)
            .where(Company.id == LoginSession.company_id)
            .with_for_update(read=True)
            .correlate(LoginSession)
            .scalar_subquery()
        )
        query = (
            grants.client_query(client_id)
            .add_columns(
                LOGIN_COLUMNS[0].label("login_id"), *LOGIN_COLUMNS[1:], company.label("company_lock"),
                grants.shared_stores(select(LoginSession.account_id).where(LoginSession.cookie_digest == digest)),
            )
            .outerjoin(LoginSession, and_(LoginSession.cookie_digest == digest, *login_session_alive(self.now)))
            .outerjoin(Account, and_(Account.id == LoginSession.account_id, *account_alive(self.now)))
            .outerjoin(Company, and_(Company.id == Account.company_id, Company.ended_at.is_(None)))
        )  # fmt: skip
        row = self.session.execute(query).one_or_none()
        if row is None:
            return None
        self.client = Client(row, self.now)
        if row.login_id is not None and row.company_code is not None:
            self.login = LiveLogin(
                row.login_id, row.account_id, row.company_id, row.company_code, row.company_name, row.account_name, row.login_name,
                row.subject, row.locale, row.epoch, row.acr, tuple(row.amr), row.auth_time, row.last_seen_at, row.idle_s, row.ends_at,
            )  # fmt: skip
        return self.client

    def create_oauth2_request(self, request: Request) -> Request:
        """Ours is one already, and carries no code to redeem."""
        return request


def _check_unsupported(params: dict[str, str], client: Client, values: MultiDict[str, str]) -> None:
    """What we do not do is refused, not ignored (OI-16, OA-08); and PKCE is demanded of everybody but the excepted (D5)."""
    if wrong_resource(values, browser.services().settings.issuer):
        raise _Redirectable("invalid_target")
    if "request" in params:
        raise _Redirectable("request_not_supported")
    if "request_uri" in params:
        raise _Redirectable("request_uri_not_supported")
    mode = params.get("response_mode", "query")
    if mode not in RESPONSE_MODES:
        raise _Redirectable("invalid_request", "response_mode is query or form_post.")
    if mode == "form_post" and not _web(params["redirect_uri"]):
        raise _Redirectable("invalid_request", "form_post needs an https redirect_uri.")
    if "code_challenge" not in params:
        if client.is_public or not client.row.pkce_exempt:
            raise _Redirectable("invalid_request", "PKCE is required: send code_challenge with method S256.")
        if not params.get("nonce"):
            raise _Redirectable("invalid_request", "A client excepted from PKCE sends a nonce.")
    elif params.get("code_challenge_method") != "S256":
        raise _Redirectable("invalid_request", "code_challenge_method must be S256.")
    if len(params.get("nonce", "")) > 1000 or len(params.get("state", "")) > 4000:
        raise _Redirectable("invalid_request", "nonce or state is too long.")


def _web(uri: str) -> bool:
    return uri.startswith("https://") or (browser.services().settings.issuer_is_loopback and uri.startswith("http://"))


def _proceed(
    session: Session,
    front: FrontDoor,
    params: dict[str, str],
    wish: Wish,
    asked: dict[str, Any],
    *,
    scope: str,
    stored: PendingRequest | None,
) -> Answer:
    """Gate, decision, ledger row, code: or the page that the person must see first."""
    now, client, login = browser.now(), front.client, front.login
    step = next_step(wish, login, now=now)
    if isinstance(step, Refuse):
        raise _Redirectable(step.error)
    if isinstance(step, Login) or client is None or login is None:
        return _wait(session, params, stored, page="/login")
    if isinstance(step, StepUp) and not (step.voluntary and second_factor.seed_of(session, login.account_id) is None):
        return _wait(session, params, stored, page="/login/step-up")

    # a silent request is a script's: it shows nobody in front of the screen, so the idle limit stays (AC-41)
    idle_s = None if "none" in wish.prompt else login.idle_s
    if not live.claim_login_session(session, login.id, now=now, idle_s=idle_s):
        return _wait(session, params, stored, page="/login") if "none" not in wish.prompt else _refuse_login()
    facts = gate.load_facts(session, login.account_id, client.application.id, now=now)
    allowed = gate.decide(client.application, facts, acr=login.acr) if facts else Refused("no_assignment")
    if isinstance(allowed, Refused) or facts is None:
        return _blocked(
            session, params, wish, login, client, allowed.reason if isinstance(allowed, Refused) else "no_assignment"
        )
    if needs_second_factor(allowed.roles) and not acr_at_least(login.acr, ACR_ORDER[1]):
        if "none" in wish.prompt:
            raise _Redirectable("interaction_required")
        return _wait(session, params, stored, page="/login/step-up")
    if stored is not None and not live.use_request(session, stored.id, now=now):
        raise Stale("この画面は古くなりました。アプリからもう一度開いてください。", "pending request was used")

    opened = live.open_app_session(session, login, client.application.id, now=now)
    granted = _scope(scope, allowed)
    code = grants.issue_code(
        session, opened.id, client.application.id, login.account_id,
        CodeRequest(params["redirect_uri"], params.get("code_challenge"), params.get("nonce"), granted, asked),
        epoch=facts.epoch, life=timedelta(seconds=browser.services().settings.code_s), now=now,
    )  # fmt: skip
    record(
        session, Tag.CODE_ISSUED, actor=browser.actor(login.account_id), now=now, company_id=login.company_id, subject_id=login.account_id,
        application_id=client.application.id, app_session_id=opened.id, scope=granted,
    )  # fmt: skip
    return _to_client(params, {"code": code})


def _refuse_login() -> Answer:
    raise _Redirectable("login_required")


def _scope(scope: str, allowed: Allowed) -> str:
    """A part-timer never holds a grant that outlives the login (OI-13)."""
    names = scope.split()
    if allowed.roles <= {Role.STAFF.value}:
        names = [name for name in names if name != "offline_access"]
    return " ".join(names)


def _wait(
    session: Session,
    params: dict[str, str],
    stored: PendingRequest | None,
    *,
    page: Literal["/login", "/login/step-up"],
) -> Answer:
    """Keep the request and send the person to a page that carries its handle."""
    if stored is not None and (again := request.args.get("request")):
        handle = again
    else:
        handle = live.put_request(session, protocol="oidc", parameters=params, now=browser.now())
    return redirect(f"{page}?request={handle}", 303)


def _blocked(
    session: Session, params: dict[str, str], wish: Wish, login: LiveLogin, client: Client, reason: str
) -> Answer:
    """The person is known and may not: say so to them, with the way back; a silent request gets the error (L10)."""
    record(
        session, Tag.REQUEST_REFUSED, actor=browser.actor(login.account_id), now=browser.now(), result="refused", company_id=login.company_id,
        subject_id=login.account_id, application_id=client.application.id, reason=reason,
    )  # fmt: skip
    if "none" in wish.prompt:
        raise _Redirectable("access_denied")
    back = _location(params, _answer_params(params, {"error": "access_denied"}))
    return render_template("oidc/blocked.html", application=client.row.application_name, reason=reason, back=back), 403


# --- answering -----------------------------------------------------------------------------------------------------


def _answer_params(params: Any, answer: dict[str, str]) -> dict[str, str]:
    """The answer with state and `iss`, on success and error alike (OA-04, RFC 9207)."""
    full = {k: v for k, v in answer.items() if v}
    if state := params.get("state"):
        full["state"] = state
    return {**full, "iss": browser.services().settings.issuer}


def _location(params: Any, answer: dict[str, str]) -> str:
    uri = str(params["redirect_uri"])
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(answer)}"


def _to_client(params: Any, answer: dict[str, str]) -> Answer:
    """Send the answer to a proven redirect_uri, by 303 or by a form that the browser posts (OA-09, Form Post 1.0)."""
    full = _answer_params(params, answer)
    if params.get("response_mode") == "form_post" and _web(params["redirect_uri"]):
        browser.allow_form_target(params["redirect_uri"])
        return render_template("oidc/form_post.html", action=params["redirect_uri"], fields=full)
    return redirect(_location(params, full), 303)


def _local_error(private: str, values: MultiDict[str, str]) -> Answer:
    """Shown here, never redirected: the address is not proven to be the client's (OA-01, OA-10)."""
    current_app.logger.warning(
        "authorization request refused",
        extra={
            "why": private,
            "client_id": values.get("client_id", "")[:64],
            "redirect_uri": values.get("redirect_uri", "")[:300],
        },
    )
    raise Denied(
        f"このアプリの設定に問題があり、開けません。アプリの管理者に番号 {g.request_id} を伝えてください。", private
    )
