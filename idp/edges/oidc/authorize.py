"""GET and POST /oidc/authorize: what the request wishes, what the person must still do, and the code.

What the request wishes of the person is `wishes`. The order is the order of RE-20 in one transaction: client and shared rows, login session claimed, decision, app session,
code. What a person must still do (`next_step`) is a pure function; a request that has to wait for them is a stored row,
and the pages carry its handle, never a URL to go back to (WB-05).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from authlib.oauth2 import OAuth2Error
from flask import current_app, g, redirect, render_template, request
from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from idp.core import ids
from idp.core.db import NOW, Query, prepared, run, transaction
from idp.core.errors import Denied, Invalid, Stale
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import ACR_ORDER, Allowed, Refused, acr_at_least
from idp.domain.authn import second_factor
from idp.domain.directory.models import Account, Company
from idp.domain.directory.roles import Role, needs_second_factor
from idp.domain.directory.scope import account_alive
from idp.domain.sessions import live
from idp.domain.sessions.live import LOGIN_COLUMNS, LiveLogin, Waiting, login_session_alive
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens import grants
from idp.domain.tokens.grants import CodeRequest
from idp.edges import browser, posting
from idp.edges.browser import Answer
from idp.edges.oidc import bp, code_grant
from idp.edges.oidc.client import Client, Request, could_be_client_id, repeated, wrong_resource
from idp.edges.oidc.exchange import Exchange
from idp.edges.oidc.wishes import Login, Redirectable, Refuse, StepUp, Wish, next_step, read_wish
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal, record

RESPONSE_MODES = ("query", "form_post")
MAX_LENGTH = 8192


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


def _handle(session: Session, values: MultiDict[str, str], *, requested_at: datetime, stored: Waiting | None) -> Answer:
    """Validate, then decide and issue. Until redirect_uri is proven, errors stay here and go nowhere (OA-10)."""
    if _malformed(values):
        return _local_error("a parameter was sent twice, the request is too long, or it holds a NUL", values)
    services, now = browser.services(), browser.now()
    front = FrontDoor(services, session, now=now, actor=browser.actor())
    code_grant.register(front)
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
        wish, asked = read_wish(params, client, requested_at=requested_at)
        return _proceed(session, front, params, wish, asked, scope=grant.request.scope, stored=stored)
    except Redirectable as error:
        count_refusal(session, Tag.REQUEST_REFUSED, f"authorize:{client.client_id}:{error.error}", now=now)
        return _to_client(params, {"error": error.error, "error_description": error.description})


@prepared
def _client_and_login() -> Query:
    """Client and login session in one statement, shared rows taken (lock orders 1, 2 and 4)."""
    this = LoginSession.cookie_digest == bindparam("cookie_digest")
    company = (
        select(Company.id)
        .where(Company.id == LoginSession.company_id)
        .with_for_update(read=True)
        .correlate(LoginSession)
        .scalar_subquery()
    )
    return (
        grants.client_query()
        .add_columns(
            LOGIN_COLUMNS[0].label("login_id"), *LOGIN_COLUMNS[1:], company.label("company_lock"),
            grants.shared_stores(select(LoginSession.account_id).where(this)),
        )
        .outerjoin(LoginSession, and_(this, *login_session_alive(NOW)))
        .outerjoin(Account, and_(Account.id == LoginSession.account_id, *account_alive(NOW)))
        .outerjoin(Company, and_(Company.id == Account.company_id, Company.ended_at.is_(None)))
    )  # fmt: skip


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
        values = {"client_id": client_id, "cookie_digest": digest, "now": self.now}
        row = run(self.session, _client_and_login(), values).one_or_none()
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
        raise Redirectable("invalid_target")
    if "request" in params:
        raise Redirectable("request_not_supported")
    if "request_uri" in params:
        raise Redirectable("request_uri_not_supported")
    mode = params.get("response_mode", "query")
    if mode not in RESPONSE_MODES:
        raise Redirectable("invalid_request", "response_mode is query or form_post.")
    if mode == "form_post" and not _web(params["redirect_uri"]):
        raise Redirectable("invalid_request", "form_post needs an https redirect_uri.")
    if "code_challenge" not in params:
        if client.is_public or not client.row.pkce_exempt:
            raise Redirectable("invalid_request", "PKCE is required: send code_challenge with method S256.")
        if not params.get("nonce"):
            raise Redirectable("invalid_request", "A client excepted from PKCE sends a nonce.")
    elif params.get("code_challenge_method") != "S256":
        raise Redirectable("invalid_request", "code_challenge_method must be S256.")
    if len(params.get("nonce", "")) > 1000 or len(params.get("state", "")) > 4000:
        raise Redirectable("invalid_request", "nonce or state is too long.")


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
    stored: Waiting | None,
) -> Answer:
    """Gate, decision, ledger row, code: or the page that the person must see first."""
    now, client, login = browser.now(), front.client, front.login
    step = next_step(wish, login, now=now)
    if isinstance(step, Refuse):
        raise Redirectable(step.error)
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
            raise Redirectable("interaction_required")
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
    raise Redirectable("login_required")


def _scope(scope: str, allowed: Allowed) -> str:
    """A part-timer never holds a grant that outlives the login (OI-13)."""
    names = scope.split()
    if allowed.roles <= {Role.STAFF.value}:
        names = [name for name in names if name != "offline_access"]
    return " ".join(names)


def _wait(
    session: Session,
    params: dict[str, str],
    stored: Waiting | None,
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
        raise Redirectable("access_denied")
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
        return posting.page(params["redirect_uri"], full)
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
        "このアプリの設定に問題があり、開けません。アプリの管理者に番号 %(number)s を伝えてください。",
        private,
        values={"number": g.request_id},
    )
