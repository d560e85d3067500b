"""Routes that programs call: the back-channel logout receiver, `/whoami` and `/healthz`. JSON only, no CSRF, no pages."""

from functools import partial

from flask import Blueprint, Response, jsonify, request

from connectors.demo.console.entropy import now
from connectors.demo.console.gate import console, find_session
from connectors.demo.console.misbehave import answer_instead
from connectors.demo.console.provider import ProviderUnavailable
from connectors.demo.console.sessions import Replayed, end_by_notice
from connectors.demo.console.tokens import Expected, InvalidToken, verify_logout_token

blueprint = Blueprint("machine", __name__)


@blueprint.post("/backchannel-logout")
def backchannel_logout() -> Response:
    """End what a logout token names, before answering.

    200 with an empty body when it is over, also when there was nothing to end; 400 with a JSON error when the token is
    refused; 503 when its keys cannot be fetched, so that the provider tries again.
    Source: Back-Channel Logout 1.0 §2.5, §2.6, §2.8.
    """
    services, moment = console(), now()
    instead = answer_instead(services.config.misbehaviour, services.pause)
    if instead is not None:
        return instead
    tokens = request.form.getlist("logout_token")
    if request.mimetype != "application/x-www-form-urlencoded" or len(tokens) != 1:
        return _refuse("exactly one form parameter logout_token is needed")

    keys = partial(services.provider.keys, now=moment)
    expected = Expected(issuer=services.config.issuer, client_id=services.config.client_id)
    try:
        notice = verify_logout_token(tokens[0], keys, expected, now=moment)
        with services.database.writing() as db:
            end_by_notice(db, notice, now=now())
    except InvalidToken as error:
        return _refuse(str(error))
    except Replayed:
        return _refuse("jti was already used")
    except ProviderUnavailable:
        answer = jsonify(error="temporarily_unavailable")
        answer.status_code, answer.headers["Retry-After"] = 503, "5"
        return answer
    return Response(status=200)


@blueprint.get("/whoami")
def whoami() -> Response:
    """Who this browser is logged in as, for scripts: the claims as they came in, or 401."""
    with console().database.reading() as db:
        session = find_session(db, now=now())
    if session is None:
        answer = jsonify(error="login_required")
        answer.status_code = 401
        return answer
    person = session.person
    return jsonify(
        sub=person.sub,
        sid=person.sid,
        name=person.name,
        company={"code": person.company_code, "name": person.company_name},
        stores=[{"code": store.code, "name": store.name, "role": store.role} for store in person.stores],
        functions=list(person.functions),
    )


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 while the database answers; says nothing of the provider, whose outage ends no session of ours."""
    with console().database.reading() as db:
        db.execute("SELECT 1")
    return jsonify(status="ok")


def _refuse(description: str) -> Response:
    answer = jsonify(error="invalid_request", error_description=description)
    answer.status_code = 400
    return answer
