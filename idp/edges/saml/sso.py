"""/saml/sso: single sign-on by Redirect and POST (SAMLProf §4.1), and /saml/start/<slug>, the opt-in start from our portal.

A message is judged by `guard` with no transaction open. Then one transaction, in the order of RE-20: shared rows, login
session claimed, decision, name and ledger row, build and sign, commit; only then is anything sent. A person who must log in
first leaves a stored wish behind, verified values and no XML, and comes back with its handle (WB-05).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from flask import redirect, render_template, request
from sqlalchemy.orm import Session

from idp.core.db import reading, transaction
from idp.core.errors import Denied, NotFound, Stale
from idp.domain.applications import decide as gate
from idp.domain.applications import saml as providers
from idp.domain.applications.decide import ACR_ORDER, Refused, acr_at_least
from idp.domain.applications.saml import Provider
from idp.domain.directory.roles import ROLES, Power, needs_second_factor
from idp.domain.directory.scope import standings
from idp.domain.sessions import live
from idp.domain.sessions.live import SAML_HANDLE, LiveLogin, Waiting
from idp.domain.tokens import seen
from idp.edges import browser, posting
from idp.edges.browser import Answer
from idp.edges.saml import answer, bp, build, guard, wishes
from idp.edges.saml.guard import Envelope, Message
from idp.edges.saml.metadata import paths
from idp.edges.saml.wishes import Refusal, Step, Wish
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import count_refusal, record

PROTOCOL = "saml"


class _Changed(Exception):
    """The service provider is not, or not known to be, what its message was judged by."""


@bp.route("/saml/sso", methods=["GET", "POST"], endpoint="sso")
def sso() -> Answer:
    """The SingleSignOnService. A POST is judged, kept and answered with 303 to GET: it came without our cookie.

    A message by Redirect is judged first by the service provider that this process remembers, which saves a session and a
    statement (decision 0058). That is believed only where the row under its application's lock says the same; anything else, a refusal too, is
    thrown away and judged again by a row that was read for it.
    """
    if request.method == "GET" and set(request.args) == {"request"}:
        return _resume(request.args["request"])
    if request.method == "GET":
        try:
            return _judged(browser.services().saml_providers.get, remembered=True)
        except (guard.Refused, _Changed):
            pass
    try:
        return _judged(find_provider, remembered=False)
    except guard.Refused as error:
        return refused(error)


def _judged(find: Callable[[str], Provider | None], *, remembered: bool) -> Answer:
    """Raises guard.Refused, and _Changed where what was remembered is not the row; nothing has happened then."""
    message = guard.receive(
        _envelope(), ["AuthnRequest"], find=find, own_url=paths(browser.services().settings.issuer)["sso"], now=browser.now(),
        must_sign=False,
    )  # fmt: skip
    acs = wishes.acs_of(message.provider, message.root)
    answer = _begin(message, acs, remembered=remembered)
    if not remembered:
        browser.services().saml_providers[message.provider.entity_id] = message.provider
    return answer


def _envelope() -> Envelope:
    if request.method == "GET":
        return guard.from_redirect(request.query_string, "SAMLRequest")
    if (
        request.args
        or set(request.form) - {"SAMLRequest", "RelayState"}
        or any(len(v) != 1 for _, v in request.form.lists())
    ):
        raise guard.Refused("repeated_parameter")
    if "SAMLRequest" not in request.form:
        raise guard.Refused("no_message")
    return guard.from_post(request.form["SAMLRequest"], request.form.get("RelayState"))


def find_provider(entity_id: str) -> Provider | None:
    """The registered service provider of this name."""
    if not entity_id or len(entity_id) > 1024:
        return None
    with reading() as session:
        return providers.by_entity_id(session, entity_id)


def refused(error: guard.Refused) -> Answer:
    """Shown here, sent nowhere: no address of the message is proven."""
    count(error)
    raise Denied(
        "このアプリの設定に問題があり、開けません。アプリの管理者に、画面の番号を伝えてください。",
        f"SAML {error.reason} {error.issuer[:200]}",
    )


def count(error: guard.Refused) -> None:
    """Every refusal is in the log, anonymous ones once a minute (AU-01)."""
    key = f"{error.reason}:{error.issuer or browser.address()}"
    with transaction() as session:
        count_refusal(session, Tag.SAML_REFUSED, key[:128], now=browser.now())


def _begin(message: Message, acs: str, *, remembered: bool) -> Answer:
    """Remember the message, read its wishes, and answer or ask the person. Raises _Changed."""
    now = browser.now()
    with transaction() as session:
        if not seen.first_time(session, message.provider.entity_id, message.id, until=now + guard.REMEMBER, now=now):
            count_refusal(session, Tag.SAML_REFUSED, f"replayed:{message.provider.entity_id}"[:128], now=now)
            return _again()
        try:
            wish = wishes.read(message, acs)
        except Refusal as error:
            if remembered:
                raise _Changed(message.provider.entity_id) from None
            bare = Wish(str(message.provider.id), message.id, acs, message.relay_state)
            return _say_no(session, bare, message.provider, error)
        if request.method == "POST":
            return redirect(f"/saml/sso?request={_keep(session, wish)}", 303)
        return _proceed(
            session, wish, requested_at=now, stored=None, judged_by=message.provider if remembered else None
        )


def _again() -> Answer:
    raise Stale("この画面は古くなりました。アプリからもう一度開いてください。", "SAML message was here before")


def _keep(session: Session, wish: Wish) -> str:
    return SAML_HANDLE + live.put_request(session, protocol=PROTOCOL, parameters=wish.to_json(), now=browser.now())


def _resume(handle: str) -> Answer:
    with transaction() as session:
        stored = live.find_request(session, handle.removeprefix(SAML_HANDLE), protocol=PROTOCOL, now=browser.now())
        if stored is None:
            return _again()
        return _proceed(session, Wish.from_json(stored.parameters), requested_at=stored.created_at, stored=stored)


@bp.get("/saml/start/<slug>", endpoint="start")
def start(slug: str) -> Answer:
    """An answer nobody asked for: only to a service provider that a person opted in, with a target from its list (SA-18)."""
    target = request.args.get("target")
    if browser.look() is None:
        return browser.to_login()
    with transaction() as session:
        provider = providers.by_slug(session, slug)
        if (
            provider is None
            or not provider.idp_initiated
            or (target is not None and target not in provider.idp_targets)
        ):
            count_refusal(session, Tag.SAML_REFUSED, f"idp_initiated:{slug}"[:128], now=browser.now())
            raise NotFound(
                "ページが見つかりません。URLが変わったか、見る権限がありません。", f"IdP-initiated {slug[:64]}"
            )
        wish = Wish(str(provider.id), None, wishes.default_acs(provider), target)
        return _proceed(session, wish, requested_at=browser.now(), stored=None)


# --- the transaction -------------------------------------------------------------------------------------------------


def _proceed(
    session: Session, wish: Wish, *, requested_at: datetime, stored: Waiting | None, judged_by: Provider | None = None
) -> Answer:
    """Gate, decision, name, ledger row, signature; or the page that the person must see first.

    judged_by: what this process remembered and its message was judged by. Raises _Changed where the row says otherwise.
    """
    now = browser.now()
    row = answer.load(session, uuid.UUID(wish.provider), browser.read_cookie(browser.LOGIN_COOKIE), now=now)
    if judged_by is not None and judged_by != row.provider:
        raise _Changed(judged_by.entity_id)
    if not row.application.alive or not any(place["url"] == wish.acs for place in row.provider.acs):
        # the address was taken out of the metadata while the person logged in: nothing goes there any more
        raise Denied("このアプリの利用は終わりました。", "service provider or its address is gone")
    step, login = wishes.next_step(wish, row.login, requested_at=requested_at), row.login
    if step == "issue" and login is not None:
        idle_s = None if wish.passive else login.idle_s  # a silent request shows nobody in front of the screen (AC-41)
        if live.claim_login_session(session, login.id, now=now, idle_s=idle_s):
            return _inside(session, wish, row, login, stored=stored)
        step = "login"
    return _interact(session, wish, row.provider, step, stored=stored)


def _interact(session: Session, wish: Wish, provider: Provider, step: Step, *, stored: Waiting | None) -> Answer:
    """Send the person to the page that comes first, or the service provider the status that says why there is none."""
    if step == "no_context":
        return _say_no(session, wish, provider, Refusal("NoAuthnContext"))
    if wish.passive:
        return _say_no(session, wish, provider, Refusal("NoPassive"))
    return _wait(session, wish, stored, page="/login/step-up" if step == "step_up" else "/login")


def _inside(session: Session, wish: Wish, row: answer.Row, login: LiveLogin, *, stored: Waiting | None) -> Answer:
    """The gate is claimed: decide now, and not before (RE-20); then issue."""
    now, provider = browser.now(), row.provider
    facts = gate.load_facts(session, login.account_id, row.application.id, now=now)
    allowed = gate.decide(row.application, facts, acr=login.acr) if facts else Refused("no_assignment")
    if isinstance(allowed, Refused) or facts is None:
        return _blocked(session, wish, row, login, allowed.reason if isinstance(allowed, Refused) else "no_assignment")
    if provider.live_at is None and not _tests(session, login.account_id, now=now):
        return _blocked(session, wish, row, login, "not_entitled")
    if needs_second_factor(allowed.roles) and not acr_at_least(login.acr, ACR_ORDER[1]):
        return _interact(session, wish, provider, "step_up", stored=stored)
    if stored is not None and not live.use_request(session, stored.id, now=now):
        return _again()
    try:
        octets = answer.issue(session, wish, row, login, facts, allowed, now=now)
    except Refusal as error:
        return _say_no(session, wish, provider, error, account_id=login.account_id, company_id=login.company_id)
    return _post(wish, octets)


def _tests(session: Session, account_id: uuid.UUID, *, now: datetime) -> bool:
    """Before a connection is live only those who could change it may use it."""
    return any(Power.MANAGE_APPLICATIONS in ROLES[held.role].may for held in standings(session, account_id, now=now))


def _wait(session: Session, wish: Wish, stored: Waiting | None, *, page: Literal["/login", "/login/step-up"]) -> Answer:
    handle = request.args["request"] if stored is not None else _keep(session, wish)
    return redirect(f"{page}?request={handle}", 303)


def _say_no(
    session: Session, wish: Wish, provider: Provider, error: Refusal, *, account_id: uuid.UUID | None = None,
    company_id: uuid.UUID | None = None,
) -> Answer:  # fmt: skip
    """A signed answer without an assertion, to a proven address."""
    services, now = browser.services(), browser.now()
    if account_id is None:
        count_refusal(session, Tag.SAML_REFUSED, f"{error.second}:{provider.entity_id}"[:128], now=now)
    else:
        record(
            session, Tag.SAML_REFUSED, actor=browser.actor(account_id), now=now, result="refused", company_id=company_id,
            subject_id=account_id, application_id=provider.application_id, reason=error.second,
        )  # fmt: skip
    key = services.saml_keys.signing(now=now, pinned=provider.signing_kid)
    octets = build.failure(
        paths(services.settings.issuer)["entity_id"],
        wish.acs,
        wish.request_id,
        error.code,
        error.second,
        key=key,
        now=now,
    )
    return _post(wish, octets)


def _blocked(session: Session, wish: Wish, row: answer.Row, login: LiveLogin, reason: str) -> Answer:
    """The person is known and may not: say so to them; a silent request gets the status instead (L10)."""
    if wish.passive:
        return _say_no(
            session,
            wish,
            row.provider,
            Refusal("RequestDenied"),
            account_id=login.account_id,
            company_id=login.company_id,
        )
    record(
        session, Tag.SAML_REFUSED, actor=browser.actor(login.account_id), now=browser.now(), result="refused",
        company_id=login.company_id, subject_id=login.account_id, application_id=row.application.id, reason=reason,
    )  # fmt: skip
    back = row.provider.start_url or "/"
    return render_template("oidc/blocked.html", application=row.application_name, reason=reason, back=back), 403


def _post(wish: Wish, octets: bytes) -> Answer:
    """The POST binding: a page whose one form leads to exactly this address (SA-19)."""
    fields = {"SAMLResponse": build.posted(octets)}
    if wish.relay_state is not None:
        fields["RelayState"] = wish.relay_state
    return posting.page(wish.acs, fields)
