"""Coming and going: the code flow with the provider, third-party-initiated login, RP-initiated logout."""

import logging
import re
from functools import partial
from urllib.parse import urlsplit

from flask import Blueprint, redirect, render_template, request
from werkzeug import Response

from connectors.demo.console.claims import InvalidClaims, Person, person_from
from connectors.demo.console.entropy import new_secret, now
from connectors.demo.console.gate import (
    LoginRequired,
    Refused,
    console,
    find_session,
    is_logout_state,
    new_logout_state,
    require_session,
)
from connectors.demo.console.provider import LoginRefused, ProviderUnavailable, Tokens
from connectors.demo.console.seed import seed_stores
from connectors.demo.console.sessions import (
    AlreadyEnded,
    PendingLogin,
    claim_login,
    end_session,
    open_session,
    start_login,
)
from connectors.demo.console.tokens import Expected, InvalidToken, verify_id_token
from connectors.demo.console.words import word

log = logging.getLogger(__name__)
blueprint = Blueprint("entry", __name__)

OUR_PATH = re.compile(r"/(members/[0-9]{1,20})?")
OAUTH_CODE = re.compile(r"[a-z_]{1,40}")


@blueprint.get("/login")
def login() -> Response:
    """Start a login, by our own redirect or because the provider's portal asks for it (OIDC Core §4).

    `iss` of another issuer is refused (mix-up), and so is a `target_link_uri` that is no page of ours (open redirect).
    A login always goes through the provider, even with a live session: at a shared terminal the person may be another.
    """
    config, provider, moment = console().config, console().provider, now()
    if request.args.get("iss", config.issuer) != config.issuer:
        raise Refused("refused.issuer")
    target = _own_path(request.args.get("target_link_uri", "/"))
    browser = request.cookies.get(_login_cookie()) or new_secret()
    provider.metadata(now=moment)
    with console().database.writing() as db:
        state, pending = start_login(db, browser=browser, target=target, now=moment)
    login_hint = request.args.get("login_hint", "")[:200]
    answer = redirect(provider.authorization_url(state, pending, login_hint=login_hint, now=moment), 303)
    _set_cookie(answer, _login_cookie(), browser)
    return answer


@blueprint.get("/callback")
def callback() -> Response:
    """Finish a login: state, `iss`, code, ID token, userinfo, session - in this order, and nothing before its turn.

    Source: OIDC Core §3.1.2.7 and §3.1.3, RFC 9207 §2.4, RFC 9700 §4.7.
    """
    config, provider, database, moment = console().config, console().provider, console().database, now()
    browser = request.cookies.get(_login_cookie(), "")
    if any(len(request.args.getlist(name)) > 1 for name in ("state", "iss", "code", "error")):
        raise Refused("refused.login")
    with database.writing() as db:
        pending = claim_login(db, state=request.args.get("state", ""), browser=browser, now=moment)
        former = find_session(db, now=moment)
        # Whatever the answer is: at a shared terminal nothing of the former person stays (requirements.md AC-45).
        if pending is not None and former is not None:
            end_session(db, former.digest, now=moment)
    if pending is None:
        raise Refused("refused.login")
    issuer = request.args.get("iss")
    if issuer != config.issuer and (issuer is not None or provider.metadata(now=moment).sends_iss):
        raise Refused("refused.issuer")
    if "error" in request.args:
        raise LoginRefused(request.args["error"])
    if not request.args.get("code"):
        raise Refused("refused.login")
    tokens = provider.exchange(request.args["code"], pending, now=moment)
    person, issued_at = _verify(tokens, pending)
    session_id = _open(person, tokens=tokens, issued_at=issued_at, pending=pending)
    answer = redirect(pending.target, 303)
    _set_cookie(answer, config.cookie, session_id)
    return answer


@blueprint.route("/logout", methods=["GET", "POST"])
def logout() -> Response | str:
    """GET asks; POST ends the own session first and then sends the browser to log out at the provider.

    Our session is over even when the provider cannot be reached. Source: RP-Initiated Logout 1.0 §2.
    """
    moment = now()
    if request.method == "GET":
        with console().database.reading() as db:
            session = require_session(db, now=moment)
        return render_template("logout.html", session=session)
    with console().database.writing() as db:
        session = require_session(db, now=moment)
        end_session(db, session.digest, now=moment)
    try:
        target = console().provider.logout_url(session.id_token, state=new_logout_state(), now=moment)
    except ProviderUnavailable as error:
        log.warning("logged out here only: %s", error)
        target = "/logged-out"
    answer = redirect(target, 303)
    answer.delete_cookie(console().config.cookie, path="/", secure=console().config.secure, httponly=True)
    return answer


@blueprint.get("/logged-out")
def logged_out() -> str:
    """Where the provider sends the browser after a logout. Without our `state` the page claims less."""
    everywhere = is_logout_state(request.args.get("state", ""))
    return render_template(
        "message.html",
        page="C04",
        title=word("ended.title"),
        text=word("ended.everywhere") if everywhere else word("ended.text"),
        login=True,
    )


@blueprint.app_errorhandler(LoginRequired)
def login_required(_error: LoginRequired) -> Response | tuple[str, int]:
    """A page view goes to log in and comes back to the page; a form cannot, so it gets 401 and neutral words."""
    if request.method == "GET":
        target = request.path if OUR_PATH.fullmatch(request.path) else "/"
        return redirect("/login" if target == "/" else f"/login?target_link_uri={target}", 303)
    text = word("ended.text")
    return render_template("message.html", page="C04", title=word("ended.title"), text=text, login=True), 401


@blueprint.app_errorhandler(LoginRefused)
def login_refused(error: LoginRefused) -> tuple[str, int]:
    """The provider said no. Only a well-formed code is repeated, and never its free text: anybody can write that."""
    code = str(error) if OAUTH_CODE.fullmatch(str(error)) else "invalid_request"
    log.warning("the provider refused a login: %s", code)
    text = word("refused.denied") if code == "access_denied" else word("refused.provider", code=code)
    return render_template("message.html", page="C09", title=word("refused.title"), text=text, login=True), 400


@blueprint.app_errorhandler(InvalidToken)
@blueprint.app_errorhandler(InvalidClaims)
def login_unproved(error: Exception) -> tuple[str, int]:
    """A token or claim that proves nothing: the reason goes to the log, the person is told what to do."""
    log.warning("refused a login: %s", error)
    text = word("refused.token")
    return render_template("message.html", page="C09", title=word("refused.title"), text=text, login=True), 400


def _verify(tokens: Tokens, pending: PendingLogin) -> tuple[Person, float]:
    services, moment = console(), now()

    keys = partial(services.provider.keys, now=moment)
    expected = Expected(issuer=services.config.issuer, client_id=services.config.client_id)
    claims = verify_id_token(
        tokens.id_token, keys, expected, nonce=pending.nonce, access_token=tokens.access_token, now=moment
    )
    userinfo = services.provider.userinfo(tokens, sub=str(claims["sub"]), now=moment)
    # sid is the ID token's alone: userinfo is per subject, and a logout names the sid that this login was given.
    person = person_from({**claims, **userinfo, "sid": claims.get("sid")})
    return person, float(str(claims["iat"]))


def _open(person: Person, *, tokens: Tokens, issued_at: float, pending: PendingLogin) -> str:
    moment = now()
    with console().database.writing() as db:
        try:
            session_id = open_session(
                db,
                person,
                id_token=tokens.id_token,
                issued_at=issued_at,
                login_started_at=pending.created_at,
                now=moment,
            )
        except AlreadyEnded as error:
            raise Refused("ended.text") from error
        seed_stores(db, person, now=moment)
    return session_id


def _own_path(uri: str) -> str:
    path = urlsplit(uri).path or "/"
    if uri not in (path, f"{console().config.origin}{path}", console().config.origin):
        raise Refused("refused.target")
    if not OUR_PATH.fullmatch(path):
        raise Refused("refused.target")
    return path


def _login_cookie() -> str:
    return f"{console().config.cookie}_login"


def _set_cookie(answer: Response, name: str, value: str) -> None:
    answer.set_cookie(name, value, path="/", httponly=True, samesite="Lax", secure=console().config.secure)
