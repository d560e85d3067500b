"""The log: search, one event, exports (U01, U02, U03). Looking is itself an event, committed before anything is shown (AU-12)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, render_template, request

from idp.core.db import reading, transaction
from idp.core.errors import Invalid, NotFound
from idp.domain.directory.roles import Power
from idp.edges import browser, language
from idp.edges.browser import Answer, Looking, require
from idp.edges.web import audit_words
from idp.edges.web.audit_files import FORMATS, download
from idp.edges.web.forms import AuditForm
from idp.ledgers.audit import search
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.oversight import events, proof
from idp.lifecycle.oversight.events import Asked, Names, Question

bp = Blueprint("audit", __name__)
PAGE = 50


@dataclass(frozen=True)
class Shown:
    """One row as a page and an export show it. Empty texts where there is nothing, or nothing any more."""

    id: uuid.UUID
    at: datetime
    tag: str
    words: str
    result: str
    actor: str
    actor_name: str
    actor_id: uuid.UUID | None
    subject: str
    subject_name: str
    subject_id: uuid.UUID | None
    company: str
    store: str
    store_name: str
    application: str
    application_name: str
    address: str
    request_id: str
    detail: dict[str, Any]
    leaf_index: int | None


@bp.get("/audit")
@require(Power.SEE_LOG)
def find(looking: Looking) -> Answer:
    """U01: filters, newest first, 50 at a time."""
    form, before = _form(looking), browser.id_argument("before")
    asked, rows, found = None, [], None
    if form.validate():
        try:
            with reading() as session:
                asked = events.ask(session, looking.viewer, _question(form))
                if asked.answerable:
                    found = search.find(session, asked.wanted, before=before, limit=PAGE)
                    rows = _shown(looking, found.rows, events.names(session, looking.viewer, found.rows))
        except Invalid as error:
            form.refuse(error)
    failed = bool(form.errors or form.form_errors)
    if found is not None and asked is not None and not failed:
        _looked(looking, Tag.LOG_VIEWED, asked, page="search", before=before)
    with reading() as session:
        stores = [] if events.is_wide(looking.viewer) else events.own_stores(session, looking.viewer)
    kept = {name: value for name, value in request.args.items() if name not in {"before", "lang"}}
    return render_template(
        "web/audit.html", form=form, asked=asked, rows=rows, found=found, stores=stores, operator=events.is_operator(looking.viewer),
        wide=events.is_wide(looking.viewer), here=lambda **more: f"/audit?{urlencode({**kept, **more})}", tabs=tabs(looking, "/audit"),
        exports=f"/audit/export?{urlencode(kept)}{'&' if kept else ''}format=", first=before is None,
    ), 400 if failed else 200  # fmt: skip


def tabs(looking: Looking, here: str) -> list[dict[str, Any]]:
    """The pages of this family, for the row of tabs above each."""
    t = language.text
    del looking
    pages = [
        ("/audit", t("記録をさがす")), ("/audit/access", t("使えた人")), ("/audit/speed", t("止めるまでの時間")),
        ("/audit/inactive", t("使っていない人")), (f"/audit?event={Tag.LOG_VIEWED.value}", t("記録を見た人")),
    ]  # fmt: skip
    chosen = f"/audit?event={Tag.LOG_VIEWED.value}" if request.args.get("event") == Tag.LOG_VIEWED.value else here
    return [{"href": href, "label": label, "current": href == chosen} for href, label in pages]


def _form(looking: Looking) -> AuditForm:
    form = AuditForm(formdata=request.args)
    grouped: dict[str, list[tuple[str, str]]] = {"": [("", language.text("すべて"))]}
    for tag, words, group in audit_words.choices():
        grouped.setdefault(group, []).append((tag, words))
    form.event.choices = grouped
    if "since" not in request.args and "until" not in request.args:
        form.since.data = browser.now() - events.DEFAULT_SPAN
        form.since.raw_data = None
    if not events.is_operator(looking.viewer):
        del form.company
    return form


def _question(form: AuditForm) -> Question:
    text = {name: (form[name].data or "").strip() for name in ("person", "actor", "store", "application", "result")}
    company = (form.company.data or "").strip() if "company" in form else ""
    return Question(**text, company=company, tag=form.event.data or "", since=form.since.data, until=form.until.data)


def _looked(looking: Looking, tag: Tag, asked: Asked, **more: Any) -> None:
    """Write down who looked at what. It commits before the page is sent: what nobody can write down, nobody sees."""
    with transaction() as session:
        record(
            session, tag, actor=looking.viewer.actor, now=browser.now(), company_id=asked.wanted.company_id or looking.viewer.company_id,
            **asked.as_detail(), **more,
        )  # fmt: skip


def _shown(looking: Looking, rows: Any, names: Names) -> list[Shown]:
    return [_show(row, names, addresses=events.is_wide(looking.viewer)) for row in rows]


def _show(row: AuditEvent, names: Names, *, addresses: bool) -> Shown:
    actor = names.people.get(row.actor_id) if row.actor_id else None
    subject = names.people.get(row.subject_id) if row.subject_id else None
    store = names.stores.get(row.store_id, ("", "")) if row.store_id else ("", "")
    application = names.applications.get(row.application_id, ("", "")) if row.application_id else ("", "")
    return Shown(
        id=row.id, at=row.created_at, tag=row.tag, words=audit_words.event(row.tag), result=row.result,
        actor=actor.login if actor else audit_words.actor(row.actor_kind), actor_name=actor.name if actor else "", actor_id=row.actor_id,
        subject=subject.login if subject else "", subject_name=subject.name if subject else "", subject_id=row.subject_id,
        company=names.companies.get(row.company_id, "") if row.company_id else "", store=store[0], store_name=store[1],
        application=application[0], application_name=application[1],
        # where staff were when they logged in is head office's and the auditor's business, not their manager's
        address=str((row.personal or {}).get("address", "")) if addresses else "", request_id=row.request_id, detail=row.detail,
        leaf_index=row.leaf_index,
    )  # fmt: skip


@bp.get("/audit/events/<uuid:event_id>")
@require(Power.SEE_LOG)
def event(looking: Looking, event_id: uuid.UUID) -> Answer:
    """U02: one event, with its place in the sealed log."""
    with reading() as session:
        row = events.get(session, looking.viewer, event_id)
        shown = _shown(looking, [row], events.names(session, looking.viewer, [row]))[0]
        number = events.receipt_of(session, row)
        proven = proof.of(session, row)
    _looked_at(looking, row, page="event")
    facts = [
        (name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)
        for name, value in row.detail.items()
    ]
    return render_template(
        "web/audit_event.html", event=shown, row=row, facts=facts, receipt=number, wide=events.is_wide(looking.viewer), proof=proven,
    )  # fmt: skip


@bp.get("/audit/events/<uuid:event_id>/proof.json")
@require(Power.SEE_LOG)
def event_proof(looking: Looking, event_id: uuid.UUID) -> Answer:
    """The leaf of one event, its path and the newest checkpoint: what verify.py needs, and nothing of the database."""
    with reading() as session:
        row = events.get(session, looking.viewer, event_id)
        found = proof.of(session, row)
    if found is None:
        raise NotFound(events.MISSING, f"event {event_id} is not sealed yet")
    _looked_at(looking, row, page="proof")
    answer = Response(json.dumps(found, ensure_ascii=False, indent=1), mimetype="application/json")
    answer.headers["Content-Disposition"] = f'attachment; filename="sekisho-event-{event_id}.json"'
    return answer


def _looked_at(looking: Looking, row: AuditEvent, **more: Any) -> None:
    with transaction() as session:
        record(
            session, Tag.LOG_VIEWED, actor=looking.viewer.actor, now=browser.now(),
            company_id=row.company_id or looking.viewer.company_id, event_id=row.id, **more,
        )  # fmt: skip


# --- exports -------------------------------------------------------------------------------------------------------


@bp.get("/audit/export")
@require(Power.SEE_LOG)
def export(looking: Looking) -> Answer:
    """U03: the whole search as a file, in constant memory, with a mark of who took it and when at both ends."""
    form, kind = _form(looking), request.args.get("format", "")
    if kind not in FORMATS or not form.validate():
        raise Invalid(
            "書き出す形か条件が違います。もどって、もう一度選んでください。", f"format {kind!r} {form.errors}"
        )
    now = browser.now()
    with reading() as session:
        asked = events.ask(session, looking.viewer, _question(form))
    if not asked.answerable:
        raise Invalid("書き出す人か店舗を1つに決めてください。", "the question is not answerable")
    # what is written from now on, this export's own row included, is not part of it
    asked = replace(asked, wanted=replace(asked.wanted, until=min(asked.wanted.until or now, now)))
    _looked(looking, Tag.LOG_EXPORTED, asked, format=kind)
    return download(looking, "audit", kind, _chunks(looking, asked), question=asked.as_detail(), columns=COLUMNS)


COLUMNS = (
    "at", "tag", "words", "result", "actor", "actor_name", "subject", "subject_name", "company", "store", "store_name", "application",
    "application_name", "address", "request_id", "detail", "leaf_index", "id",
)  # fmt: skip


def _chunks(looking: Looking, asked: Asked) -> Iterator[list[dict[str, Any]]]:
    """Rows in chunks. Each chunk is a short transaction of its own: a slow reader holds no connection (house.md 5)."""
    wanted, before = asked.wanted, None
    while True:
        with reading() as session:
            found = search.find(session, wanted, before=before, limit=1000)
            rows = _shown(looking, found.rows, events.names(session, looking.viewer, found.rows))
        yield [asdict(row) for row in rows]
        if found.after is None:
            return
        before = found.after
