"""POST /oidc/token and /oidc/userinfo."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, json, request
from werkzeug.datastructures import MultiDict

from idp.core.db import reading, transaction
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import Allowed
from idp.domain.tokens import grants
from idp.edges import browser
from idp.edges.oidc import bp, claims, code_grant, refresh_grant
from idp.edges.oidc.client import Request, repeated, wrong_resource
from idp.edges.oidc.exchange import GRANT_TYPES, Exchange
from idp.ledgers.audit.log import Actor


@bp.post("/oidc/token", endpoint="token", provide_automatic_options=False)
def token() -> Response:
    """Redeem a code or refresh (RFC 6749 §4.1.3, §6). One transaction; a refusal commits what it has to remember."""
    values: MultiDict[str, str] = request.form
    if request.args:
        return _error("invalid_request", "Parameters belong in the body.")
    if name := repeated(values):
        return _error(
            "invalid_request",
            f"The parameter {name[:40]} was sent twice."
            if name.isidentifier() and name.isascii()
            else "A parameter was sent twice.",
        )
    if not values.get("grant_type"):
        return _error("invalid_request", "grant_type is missing.")
    if values["grant_type"] not in GRANT_TYPES:
        return _error("unsupported_grant_type", "Use authorization_code or refresh_token.")
    if request.headers.get("Authorization") and "client_secret" in values:
        return _error("invalid_request", "Authenticate the client in one way, not two.")
    services = browser.services()
    if wrong_resource(values, services.settings.issuer):
        return _error("invalid_target", "Access tokens are for the userinfo endpoint alone.")
    call = Request(request.method, f"{services.settings.issuer}/oidc/token", values, request.headers)
    with transaction() as session:
        actor = Actor("client", None, *_where())
        exchange = Exchange(services, session, now=browser.now(), actor=actor)
        code_grant.register(exchange)
        refresh_grant.register(exchange)
        answer: Response = exchange.create_token_response(call)
    return _cross_origin(answer)


def _where() -> tuple[str, str]:
    found = browser.actor()
    return found.request_id, found.address


@bp.route("/oidc/token", methods=["OPTIONS"], endpoint="token_preflight")
@bp.route("/oidc/userinfo", methods=["OPTIONS"], endpoint="userinfo_preflight")
def preflight() -> Response:
    """What a browser asks before it sends an Authorization header to another origin (OA-34)."""
    answer = _cross_origin(Response(status=204))
    if "Access-Control-Allow-Origin" in answer.headers:
        answer.headers["Access-Control-Allow-Methods"] = "GET, POST"
        answer.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
    return answer


@bp.route("/oidc/userinfo", methods=["GET", "POST"], endpoint="userinfo", provide_automatic_options=False)
def userinfo() -> Response:
    """Claims about the person behind an access token: a live check each time (OIDC Core §5.3, OI-11). One statement."""
    services, now = browser.services(), browser.now()
    if repeated(request.form) or ("Authorization" in request.headers and "access_token" in request.form):
        return _error("invalid_request", "Send the access token once.")
    presented = _bearer()
    if presented is None:
        return _challenge("")
    verified = services.signer.verify(presented, typ=claims.ACCESS_TOKEN)
    if verified is None or not _meant_for_us(verified[1], services.settings.issuer, int(now.timestamp())):
        return _challenge("invalid_token")
    kid, token_claims = verified
    with reading() as session:
        live = grants.live_grant(session, token_claims["gid"], kid, now=now)
    if live is None:
        return _challenge("invalid_token")
    allowed = gate.decide(live.application, live.facts, acr=live.acr)
    if not isinstance(allowed, Allowed):
        return _challenge("invalid_token")
    body = claims.about(
        live.facts, allowed, scope=token_claims["scope"], asked=frozenset(token_claims.get("asked", ()))
    )
    return _cross_origin(Response(json.dumps(body), mimetype="application/json"))


def _meant_for_us(token_claims: dict[str, Any], issuer: str, now_s: int) -> bool:
    return (
        token_claims.get("iss") == issuer
        and token_claims.get("aud") == f"{issuer}/oidc/userinfo"
        and isinstance(token_claims.get("exp"), int)
        and token_claims["exp"] > now_s
        and isinstance(token_claims.get("gid"), str)
    )


def _bearer() -> str | None:
    """The token from the header, or from the body of a POST; never from the query (RFC 6750 §2, RFC 9700 §4.3.2)."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    return request.form.get("access_token") if request.method == "POST" else None


def _challenge(error: str) -> Response:
    detail = f', error="{error}"' if error else ""
    answer = Response(json.dumps({"error": error or "invalid_request"}), status=401, mimetype="application/json")
    answer.headers["WWW-Authenticate"] = f'Bearer realm="sekisho"{detail}'
    return _cross_origin(answer)


def machine_error(status: int, *, retry_after_s: int | None = None) -> Response:
    """An error of the house as a program expects it: JSON with an OAuth code, never a page."""
    code = {429: "slow_down", 503: "temporarily_unavailable"}.get(
        status, "server_error" if status >= 500 else "invalid_request"
    )
    answer = Response(json.dumps({"error": code}), status=status, mimetype="application/json")
    if status in {429, 503}:
        answer.headers["Retry-After"] = str(retry_after_s or 5)
    return answer


def _error(code: str, description: str) -> Response:
    return _cross_origin(
        Response(json.dumps({"error": code, "error_description": description}), status=400, mimetype="application/json")
    )


def _cross_origin(answer: Response) -> Response:
    """Browser apps of registered origins may call these endpoints; without cookies, so no credentials mode (OA-34)."""
    origin = request.headers.get("Origin", "")
    if origin and origin in current_app.extensions["sekisho-origins"]():
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers.add("Vary", "Origin")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Pragma"] = "no-cache"
    return answer
