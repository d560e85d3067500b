"""The work of the person at the counter: members of the own stores, points, coupons."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date

from flask import Blueprint, redirect, render_template, request
from werkzeug import Response

from connectors.demo.console import members
from connectors.demo.console.claims import Person
from connectors.demo.console.entropy import new_secret, now, today
from connectors.demo.console.gate import (
    LoginRequired,
    Refused,
    console,
    find_session,
    is_logout_state,
    require_function,
    require_session,
)
from connectors.demo.console.words import word

blueprint = Blueprint("desk", __name__)

MAX_REASON = 60
MAX_TITLE = 40
DIGITS = re.compile(r"[0-9]{1,9}")
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing to correct: the id of its field and the sentence for it."""

    field: str
    text: str


@blueprint.get("/")
def home() -> Response | str | tuple[str, int]:
    """The members and coupons of the person's own stores. Also where a provider may send a finished logout."""
    with console().database.reading() as db:
        logged_in = find_session(db, now=now()) is not None
    if not logged_in:
        if is_logout_state(request.args.get("state", "")):
            return redirect(f"/logged-out?state={request.args['state']}", 303)
        raise LoginRequired
    return _home()


@blueprint.get("/members/<member_id>")
def member(member_id: str) -> str | tuple[str, int]:
    """One member with the history of changes; another store's member is 404."""
    return _member(member_id)


@blueprint.post("/members/<member_id>/points")
def change_points(member_id: str) -> Response | str | tuple[str, int]:
    """Add or subtract points, with a reason (`points.adjust`). 303 back to the member, or the page with its errors."""
    form, moment = request.form, now()
    amount, reason = _whole(form.get("amount", "")), form.get("reason", "").strip()
    errors = []
    if form.get("direction") not in ("add", "subtract"):
        errors.append(FieldError("direction-add", word("form.direction")))
    if not 1 <= amount <= members.MAX_POINTS:
        errors.append(FieldError("amount", word("form.amount")))
    if not 1 <= len(reason) <= MAX_REASON:
        errors.append(FieldError("reason", word("form.reason")))
    with console().database.writing() as db:
        session = require_session(db, now=moment)
        require_function(session, "points.adjust")
        found = members.get_member(db, session.person, member_id)
        if not errors:
            delta = amount if form["direction"] == "add" else -amount
            try:
                members.change_points(
                    db, session.person, member_id, delta=delta, reason=reason, request_id=_request_id(), now=moment
                )
            except members.TooFewPoints:
                errors.append(FieldError("amount", word("form.too_few", points=f"{found.points:,}")))
    return _member(member_id, errors) if errors else redirect(f"/members/{found.id}?done=points", 303)


@blueprint.post("/coupons")
def publish_coupon() -> Response | str | tuple[str, int]:
    """Publish a coupon in one of the own stores (`coupon.publish`). 303 to the list, or the page with its errors."""
    form, moment = request.form, now()
    title, discount, ends_on = form.get("title", "").strip(), _whole(form.get("discount", "")), _day("ends_on")
    errors = []
    if not 1 <= len(title) <= MAX_TITLE:
        errors.append(FieldError("title", word("form.title")))
    if not 1 <= discount <= members.MAX_POINTS:
        errors.append(FieldError("discount", word("form.discount")))
    if ends_on is None or ends_on < today(moment):
        errors.append(FieldError("ends_on", word("form.ends")))
    with console().database.writing() as db:
        session = require_session(db, now=moment)
        require_function(session, "coupon.publish")
        if not errors and ends_on is not None:
            coupon = members.Coupon(
                store_code=form.get("store", ""),
                title=title,
                discount_yen=discount,
                ends_on=ends_on.isoformat(),
                by_name=session.person.name,
            )
            members.publish_coupon(db, session.person, coupon, request_id=_request_id(), now=moment)
    return _home(errors) if errors else redirect("/?done=coupon#coupons", 303)


def _home(errors: list[FieldError] | None = None) -> str | tuple[str, int]:
    text, store_code = request.args.get("q", "")[:60], request.args.get("store", "")[:60]
    page = max(1, _whole(request.args.get("page", "1")))
    with console().database.reading() as db:
        session = require_session(db, now=now())
        person = session.person
        found = (
            members.search(db, person, text=text, store_code=store_code, page=page)
            if person.may("points.view")
            else members.MemberPage([], 0)
        )
        coupons = members.coupons(db, person)
    html = render_template(
        "home.html",
        session=session,
        found=found,
        coupons=coupons,
        store_names=_store_names(person),
        text=text,
        store_code=store_code,
        page_number=page,
        last_page=max(1, -(-found.total // members.PAGE_SIZE)),
        errors=errors or [],
        request_id=new_secret(),
        today=today(now()).isoformat(),
        done=word("coupon.done") if request.args.get("done") == "coupon" else "",
    )
    return (html, 400) if errors else html


def _member(member_id: str, errors: list[FieldError] | None = None) -> str | tuple[str, int]:
    with console().database.reading() as db:
        session = require_session(db, now=now())
        require_function(session, "points.view")
        found = members.get_member(db, session.person, member_id)
        changes = members.history(db, found)
    html = render_template(
        "member.html",
        session=session,
        member=found,
        changes=changes,
        store_names=_store_names(session.person),
        errors=errors or [],
        request_id=new_secret(),
        done=word("points.done") if request.args.get("done") == "points" else "",
    )
    return (html, 400) if errors else html


def _store_names(person: Person) -> dict[str, str]:
    return {store.code: store.name for store in person.stores}


def _whole(text: str) -> int:
    """A whole number as a clerk types it, full width or with commas; 0 when it is none."""
    plain = unicodedata.normalize("NFKC", text).strip().replace(",", "")
    return int(plain) if DIGITS.fullmatch(plain) else 0


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(request.form.get(name, ""))
    except ValueError:
        return None


def _request_id() -> str:
    request_id = request.form.get("request_id", "")
    if not REQUEST_ID.fullmatch(request_id):
        raise Refused("refused.csrf")
    return request_id
