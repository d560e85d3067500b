"""GET and POST /oidc/logout: RP-Initiated Logout 1.0.

The cookie decides *whose* login session ends; the hint only names the client and spares the question. If the hint decided,
anybody who holds an ID token of a colleague could log them out, and a forced logout would be a weapon (LO-03, RV-30).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import make_response, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from idp.core.db import reading, transaction
from idp.core.errors import Invalid, Stale
from idp.domain.applications.models import Application, RelyingParty
from idp.domain.sessions import chain, live
from idp.domain.tokens import ends
from idp.edges import browser
from idp.edges.browser import Answer, Looking
from idp.edges.oidc import bp, claims
from idp.edges.oidc.client import repeated
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record

MAX_LENGTH = 16384  # an id_token_hint is a whole token


@bp.route("/oidc/logout", methods=["GET", "POST"], endpoint="end_session")
def end_session() -> Answer:
    """A relying party asks for a logout. A POST is stored and answered with 303 to GET: it came without our cookie."""
    values: MultiDict[str, str] = request.form if request.method == "POST" else request.args
    too_long = sum(len(v) for v in values.values()) > MAX_LENGTH
    if (
        too_long
        or repeated(values)
        or (request.method == "POST" and request.args)
        or any("\0" in v for v in values.values())
    ):
        raise Invalid("アプリからの要求が正しくありません。", "repeated, mixed or unstorable parameters at logout")
    if request.method == "POST":
        with transaction() as session:
            handle = live.put_request(session, protocol="logout", parameters=values.to_dict(), now=browser.now())
        return redirect(f"/oidc/logout?request={handle}", 303)
    params, looking = _stored(values), browser.look()
    hint = _hint(params)
    if params.get("id_token_hint") and hint is None:
        raise Invalid("ログアウトの要求が正しくありません。", "bad id_token_hint", field="id_token_hint")
    target = _post_logout(params, hint)
    if looking is None:
        return _gone(params, target)
    if hint is not None and hint.get("sub") == looking.login.subject and _same_session(hint, looking):
        return log_out(looking, params, target)
    return _ask(params, target)


@bp.post("/logout/confirm", endpoint="confirm")
def confirm() -> Answer:
    """The person said yes on the page that `end_session` showed."""
    params = _stored(request.form)
    looking = browser.look()
    target = _post_logout(params, _hint(params))
    return _gone(params, target) if looking is None else log_out(looking, params, target)


def log_out(looking: Looking, params: dict[str, str], target: str | None) -> Answer:
    """End this browser's login session, queue the logouts, and go where the relying party wishes, if it may wish it."""
    now, login = browser.now(), looking.login
    with transaction() as session:
        told = ends.log_out(session, login.id, reason="logout", now=now) or []
        ends.tell(session, login.account_id, told, give_up_after=browser.services().settings.give_up_after, now=now)
        record(
            session, Tag.LOGOUT_REQUESTED, actor=looking.viewer.actor, now=now, company_id=login.company_id, subject_id=login.account_id,
            login_session_id=login.id, told=len(told),
        )  # fmt: skip
        names = _names(session, told)
        state = (
            f"{'&' if '?' in target else '?'}{urlencode({'state': params['state']})}"
            if target and params.get("state")
            else ""
        )
        onward = chain.open_chain(
            session, [login.id], now=now, told=names, target=f"{target}{state}" if target else None
        )
    answer = _target_answer(params, target) or render_template("oidc/logged_out.html", told=names)
    if onward:  # service providers that only the browser can reach are asked first, on a page of the SAML edge (SA-23)
        answer = redirect(f"/saml/slo/chain?request={onward}", 303)
    full = make_response(answer)
    browser.delete_cookie(full, browser.LOGIN_COOKIE)
    full.headers["Clear-Site-Data"] = (
        '"cache"'  # never "cookies": it would wipe the device cookie and a terminal's key (LO-12)
    )
    return full


def _names(session: Session, told: Any) -> list[str]:
    ids = {entry.application_id for entry in told}
    return list(session.scalars(select(Application.name).where(Application.id.in_(ids)).order_by(Application.name)))


def _gone(params: dict[str, str], target: str | None) -> Answer:
    return _target_answer(params, target) or render_template("oidc/logged_out.html", told=[])


def _target_answer(params: dict[str, str], target: str | None) -> Answer | None:
    if target is None:
        return None
    state = params.get("state")
    joined = f"{target}{'&' if '?' in target else '?'}{urlencode({'state': state})}" if state else target
    return redirect(joined, 303)


def _ask(params: dict[str, str], target: str | None) -> Answer:
    if target is not None:
        browser.allow_form_target(target)
    with transaction() as session:
        handle = live.put_request(session, protocol="logout", parameters=params, now=browser.now())
    return render_template("oidc/confirm_logout.html", handle=handle)


def _stored(values: MultiDict[str, str]) -> dict[str, str]:
    if set(values) - {"csrf_token"} != {"request"}:
        return values.to_dict()
    with reading() as session:
        row = live.find_request(session, values["request"], protocol="logout", now=browser.now())
    if row is None:
        raise Stale("この画面は古くなりました。アプリからもう一度開いてください。", "logout request is gone")
    return dict(row.parameters)


def _hint(params: dict[str, str]) -> dict[str, Any] | None:
    """Claims of a genuine ID token of ours, expired or not; access and logout tokens have another `typ` (LO-03, trap F18)."""
    token = params.get("id_token_hint")
    if not token:
        return None
    services = browser.services()
    verified = services.signer.verify(token, typ=claims.ID_TOKEN, retired=True)
    if verified is None or verified[1].get("iss") != services.settings.issuer:
        return None
    client_id = params.get("client_id")
    return verified[1] if client_id in {None, "", verified[1].get("aud")} else None


def _same_session(hint: dict[str, Any], looking: Looking) -> bool:
    """The hint's `sid` belongs to the login session of this browser; otherwise the person is asked."""
    with reading() as session:
        return live.is_sid_of(session, str(hint.get("sid", "")), looking.login.id)


def _post_logout(params: dict[str, str], hint: dict[str, Any] | None) -> str | None:
    """The exact registered address, or an error here: never a redirect to anything else (LO-03)."""
    wanted = params.get("post_logout_redirect_uri")
    if not wanted:
        return None
    client_id = str(hint["aud"]) if hint else params.get("client_id", "")
    with reading() as session:
        registered = session.scalar(
            select(RelyingParty.post_logout_redirect_uris).where(RelyingParty.client_id == client_id)
        )
    if registered is None or wanted not in registered:
        raise Invalid("ログアウトのあとに開く先が登録されていません。", f"post_logout_redirect_uri of {client_id[:64]}")
    return wanted
