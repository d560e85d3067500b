"""The auditor's reports: who could use what on a day, how long a cut takes, who has not logged in (U07, U08, U09)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, render_template, request

from idp.core.db import reading, transaction
from idp.core.errors import Invalid
from idp.domain.directory.roles import Power
from idp.edges import browser, language
from idp.edges.browser import Answer, Looking, require
from idp.edges.web.audit import tabs
from idp.edges.web.audit_files import FORMATS, download
from idp.edges.web.forms import ReportForm
from idp.edges.web.store import role_names
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.oversight import access, events, inactive, speed
from idp.lifecycle.oversight.access import Span, Which

bp = Blueprint("oversight", __name__)
DEFAULT_DAYS = 90
#: people in one chunk of a file
CHUNK = 200


def _form(looking: Looking, *fields: str) -> ReportForm:
    form = ReportForm(formdata=request.args)
    wanted = {"store", *fields} | ({"company"} if events.is_operator(looking.viewer) else set())
    for name in set(form._fields) - wanted:
        del form[name]
    return form


def _which(looking: Looking, form: ReportForm) -> Which | None:
    """The place asked for; None when it has to be named first. Raises Invalid."""
    text = {name: (form[name].data or "") if name in form else "" for name in ("company", "store", "application")}
    with reading() as session:
        return events.which(session, looking.viewer, **text)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=language.JST)


def _looked(looking: Looking, tag: Tag, which: Which, **detail: Any) -> None:
    """Who looked at which report, committed before anything is shown (AU-12)."""
    with transaction() as session:
        record(
            session, tag, actor=looking.viewer.actor, now=browser.now(), company_id=which.company_id or looking.viewer.company_id,
            in_store=which.store.id if which.store else None, in_application=which.application.id if which.application else None, **detail,
        )  # fmt: skip


def _asked(which: Which, **more: Any) -> dict[str, Any]:
    places = {
        "store": which.store.code if which.store else None,
        "application": which.application.slug if which.application else None,
    }
    return {name: value for name, value in {**places, **more}.items() if value is not None}


def _page(template: str, looking: Looking, form: ReportForm, here: str, **values: Any) -> Answer:
    kept = {name: value for name, value in request.args.items() if name not in {"after", "lang", "format"}}
    failed = bool(form.errors or form.form_errors)
    return render_template(
        template, form=form, tabs=tabs(looking, here), exports=f"{here}?{urlencode(kept)}{'&' if kept else ''}format=",
        here=lambda **more: f"{here}?{urlencode({**kept, **more})}", operator=events.is_operator(looking.viewer),
        first=not request.args.get("after"), **values,
    ), 400 if failed else 200  # fmt: skip


def _format() -> str | None:
    """The file that is asked for, or None for the page."""
    kind = request.args.get("format")
    if kind is not None and kind not in FORMATS:
        raise Invalid("書き出す形が違います。もどって、もう一度選んでください。", f"format {kind!r}")
    return kind


# --- U07 -----------------------------------------------------------------------------------------------------------


@bp.get("/audit/access")
@require(Power.SEE_LOG)
def rights(looking: Looking) -> Answer:
    """U07: who was allowed to use what on one day, by company, store, application."""
    form, kind, after = _form(looking, "application", "day"), _format(), browser.id_argument("after")
    which, page, day = None, None, browser.now().astimezone(language.JST).date()
    if form.validate():
        try:
            which, day = _which(looking, form), form.day.data or day
            if which is not None:
                span = _day(day)
                if kind is not None:
                    _looked(looking, Tag.REPORT_EXPORTED, which, report="access", day=str(day), format=kind)
                    asked = _asked(which, day=str(day))
                    return download(
                        looking, "access", kind, _all_rights(looking, which, span), question=asked, columns=RIGHTS
                    )
                with reading() as session:
                    page = access.on_day(session, looking.viewer, which, span, after=after)
                _looked(looking, Tag.REPORT_VIEWED, which, report="access", day=str(day))
        except Invalid as error:
            form.refuse(error)
    form.day.data = day
    grouped: dict[uuid.UUID, list[access.Right]] = {}
    for right in page.rights if page else ():
        grouped.setdefault(right.account_id, []).append(right)
    return _page(
        "web/audit_access.html",
        looking,
        form,
        "/audit/access",
        page=page,
        grouped=grouped,
        which=which,
        day=day,
        roles=role_names(),
    )


def _day(day: date) -> Span:
    try:
        return Span(_midnight(day), _midnight(day + timedelta(days=1)))
    except OverflowError:
        raise Invalid("この日は選べません。", field="day") from None


RIGHTS = ("login", "name", "places", "application", "application_name", "functions", "since", "until")


def _all_rights(looking: Looking, which: Which, span: Span) -> Iterator[list[dict[str, Any]]]:
    after: uuid.UUID | None = None
    while True:
        with reading() as session:
            page = access.on_day(session, looking.viewer, which, span, after=after, limit=CHUNK)
        yield [{name: getattr(right, name) for name in RIGHTS} | {"places": _places(right)} for right in page.rights]
        if page.after is None:
            return
        after = page.after


def _places(right: access.Right) -> str:
    return " ".join(place if isinstance(place, str) else f"{place.code}:{place.role}" for place in right.places)


# --- U08 -----------------------------------------------------------------------------------------------------------


@bp.get("/audit/speed")
@require(Power.SEE_LOG)
def times(looking: Looking) -> Answer:
    """U08: personnel record → request → local cut → all confirmed, per company and store (AU-22)."""
    form, kind = _form(looking, "since", "until"), _format()
    today = browser.now().astimezone(language.JST).date()
    which, report = None, None
    if form.validate():
        try:
            since, until = _period(form, today)
            which = _which(looking, form)
            if which is not None:
                with reading() as session:
                    report = speed.measure(
                        session, looking.viewer, which, since=_midnight(since), until=_day(until).end or browser.now()
                    )
                said = {"report": "speed", "since": str(since), "until": str(until)}
                if kind is not None:
                    _looked(looking, Tag.REPORT_EXPORTED, which, **said, format=kind)
                    asked = _asked(which, since=since, until=until)
                    return download(looking, "speed", kind, iter([_speed_rows(report)]), question=asked, columns=SPEED)
                _looked(looking, Tag.REPORT_VIEWED, which, **said)
        except Invalid as error:
            form.refuse(error)
    return _page(
        "web/audit_speed.html", looking, form, "/audit/speed", report=report, which=which, bars=_bars(report), spans=_spans(report),
        ticks=_ticks(),
    )  # fmt: skip


def _period(form: ReportForm, today: date) -> tuple[date, date]:
    """First and last day; the last 90 unless others are asked for. Raises Invalid."""
    since, until = form.since.data or today - timedelta(days=DEFAULT_DAYS), form.until.data or today
    if since > until:
        raise Invalid("終わりは始まりより後にしてください。", field="until")
    form.since.data, form.until.data = since, until
    return since, until


SPEED = (
    "company",
    "store",
    "name",
    "total",
    "open",
    "oldest_open",
    *(f"{step}_{part}" for step in speed.STEPS for part in ("count", "p50_s", "p95_s", "max_s")),
)


def _speed_rows(report: speed.Report) -> list[dict[str, Any]]:
    rows = []
    for line in (report.whole, *report.stores):
        row: dict[str, Any] = {
            name: getattr(line, name) for name in ("company", "store", "name", "total", "open", "oldest_open")
        }
        if line is report.whole:
            row["name"] = "(all)"
        for step in speed.STEPS:
            found = line.figures(step)
            row |= {
                f"{step}_count": found.count if found else 0, f"{step}_p50_s": found.p50 if found else None,
                f"{step}_p95_s": found.p95 if found else None, f"{step}_max_s": found.longest if found else None,
            }  # fmt: skip
        rows.append(row)
    return rows


def _bars(report: speed.Report | None) -> list[tuple[str, int]]:
    t = language.text
    words = (t("1秒まで"), t("10秒まで"), t("1分まで"), t("5分まで"), t("1時間まで"), t("1日まで"), t("それより長い"))
    return list(zip(words, report.bars(), strict=True)) if report else []


def _spans(report: speed.Report | None, most: int = 20) -> list[tuple[str, float, float, float]]:
    """The slowest stores and where their median, p95 and longest stand on the plot."""
    found = [(line.store, line.figures("cut_to_confirmed")) for line in (report.stores if report else [])]
    return [(store, _x(f.p50), _x(f.p95), _x(f.longest)) for store, f in found if f is not None][:most]


def _ticks() -> list[tuple[str, float]]:
    t = language.text
    return [(t("1秒"), _x(1)), (t("1分"), _x(60)), (t("1時間"), _x(3600)), (t("1日"), _x(86400))]


def _x(seconds: float) -> float:
    """Where a duration stands on a plot of 640: from 1 second to 10 days, logarithmic, because a second and a day meet here."""
    return round(110 + 500 * min(math.log10(max(seconds, 1)) / math.log10(864_000), 1), 1)


# --- U09 -----------------------------------------------------------------------------------------------------------


@bp.get("/audit/inactive")
@require(Power.SEE_LOG)
def asleep(looking: Looking) -> Answer:
    """U09: live accounts without a login for N days, 90 unless another number is asked for (PCI DSS 8.2.6)."""
    form, kind, after = _form(looking, "days"), _format(), browser.id_argument("after")
    which, page = None, None
    if form.validate():
        try:
            form.days.data = days = form.days.data or inactive.DEFAULT_DAYS
            which = _which(looking, form)
            if which is not None:
                if kind is not None:
                    _looked(looking, Tag.REPORT_EXPORTED, which, report="inactive", days=days, format=kind)
                    rows = _all_asleep(looking, which, days)
                    return download(looking, "inactive", kind, rows, question=_asked(which, days=days), columns=ASLEEP)
                with reading() as session:
                    page = inactive.asleep(session, looking.viewer, which, days=days, now=browser.now(), after=after)
                _looked(looking, Tag.REPORT_VIEWED, which, report="inactive", days=days)
        except Invalid as error:
            form.refuse(error)
    return _page("web/audit_inactive.html", looking, form, "/audit/inactive", page=page, which=which)


ASLEEP = ("login", "name", "stores", "created_at", "last_seen_at")


def _all_asleep(looking: Looking, which: Which, days: int) -> Iterator[list[dict[str, Any]]]:
    after, now = None, browser.now()
    while True:
        with reading() as session:
            page = inactive.asleep(session, looking.viewer, which, days=days, now=now, after=after, limit=CHUNK)
        yield [{name: getattr(row, name) for name in ASLEEP} | {"stores": " ".join(row.stores)} for row in page.rows]
        if page.after is None:
            return
        after = page.after
