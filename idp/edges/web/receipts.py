"""Receipts: list, the live page, a manual line, the signed pack (R01, R02, R05)."""

from __future__ import annotations

import io

from flask import Blueprint, Response, json, redirect, render_template, request

from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Invalid
from idp.domain.directory.roles import Power
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web.forms import CloseLineForm
from idp.edges.web.proving import afresh
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.revocation import evidence, pack, receipt
from idp.lifecycle.revocation import record as cuts
from idp.lifecycle.revocation.words import CutState

bp = Blueprint("receipts", __name__)
PAGE = 50


@bp.get("/receipts")
@require(Power.SEE_RECEIPTS)
def listing(looking: Looking) -> Answer:
    """Receipts in scope, newest first; `?open=1` only those not finished."""
    before, open_only = browser.id_argument("before"), request.args.get("open") == "1"
    with reading() as session:
        rows = receipt.recent(session, looking.viewer, open_only=open_only, before=before, limit=PAGE + 1)
    more = rows[PAGE - 1].revocation.id if len(rows) > PAGE else None
    return render_template("web/receipts.html", rows=rows[:PAGE], open_only=open_only, more=more)


@bp.get("/receipts/<number>")
@require()
def show(looking: Looking, number: str) -> Answer:
    """R01: one page per revocation. `?part=1` answers the live part alone, for polling."""
    with reading() as session:
        found = receipt.load(session, number, looking.viewer)
    page = "web/_receipt_live.html" if request.args.get("part") else "web/receipt.html"
    return render_template(page, receipt=found, verdict=found.verdict, can_close=looking.viewer.can(Power.CLOSE_LINES))


@bp.get("/receipts/<number>.json")
@require()
def export(looking: Looking, number: str) -> Answer:
    """R05: the signed evidence pack, frozen at this moment. Taking it away is an event of its own (AU-12)."""
    services, now = browser.services(), browser.now()
    with reading() as session:
        found = receipt.load(session, number, looking.viewer)
        proofs = receipt.evidence_of(session, found.revocation.id)
    made = pack.build(found, proofs, issuer=services.settings.issuer, now=now)
    signed = pack.sign(made, services.signer, now=now)
    with transaction() as session:
        record(
            session, Tag.RECEIPT_EXPORTED, actor=looking.viewer.actor, now=now, company_id=found.revocation.company_id,
            subject_id=found.account.id, revocation_id=found.revocation.id,
        )  # fmt: skip
    body = json.dumps(signed, ensure_ascii=False, indent=1)
    answer = Response(body, mimetype="application/json; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="{found.revocation.number}.json"'
    return answer


@bp.get("/receipts/<number>.zip")
@require()
def evidence_pack(looking: Looking, number: str) -> Answer:
    """R05: the evidence pack with its proofs and the verifier, for whoever does not want to believe us (AU-20)."""
    services, now = browser.services(), browser.now()
    key, file = services.log_key(), io.BytesIO()
    with reading() as session:
        found = receipt.load(session, number, looking.viewer)
        evidence.write(file, session, found, key, services.settings, now=now)
    with transaction() as session:
        record(
            session, Tag.RECEIPT_EXPORTED, actor=looking.viewer.actor, now=now, company_id=found.revocation.company_id,
            subject_id=found.account.id, revocation_id=found.revocation.id,
        )  # fmt: skip
    answer = Response(file.getvalue(), mimetype="application/zip")
    answer.headers["Content-Disposition"] = f'attachment; filename="{found.revocation.number}.zip"'
    return answer


@bp.route("/receipts/<number>/lines/<int:position>", methods=["GET", "POST"])
@require(Power.CLOSE_LINES)
def line(looking: Looking, number: str, position: int) -> Answer:
    """R02: a person closes a line, after step-up, with a note and their name."""
    form = CloseLineForm()
    with reading() as session:
        found = receipt.load(session, number, looking.viewer)
        cut = receipt.cut_of(session, found, position)
        proofs = receipt.evidence_of(session, found.revocation.id).get(cut.id, [])
    if cut.state == CutState.NEEDS_PERSON.value:
        asked = afresh(looking, "outcome", "note", back=f"/receipts/{number}")
        if asked is not None:
            return asked
    if form.validate_on_submit():
        try:
            with transaction() as session:
                cuts.close_by_person(
                    session, receipt.cut_of(session, found, position), impossible=form.outcome.data == "impossible", note=form.note.data,
                    closed_by=looking.login.account_id, actor=looking.viewer.actor, now=browser.now(),
                )  # fmt: skip
            return redirect(f"/receipts/{number}", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    shown = next(entry for entry in found.lines if entry.cut.position == position)
    page = render_template("web/receipt_line.html", receipt=found, line=shown, proofs=proofs, form=form)
    return page, 400 if form.is_submitted() else 200
