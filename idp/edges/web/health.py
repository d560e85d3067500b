"""Liveness, readiness, status, the style guide (RE-45, X01)."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, Response, json, render_template
from sqlalchemy import func, select

from idp.core.db import db, reading
from idp.core.errors import Unavailable
from idp.core.migrate import is_current
from idp.domain.directory.roles import Power
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web import styleguide
from idp.ledgers.audit import anchors
from idp.ledgers.audit.models import AuditEvent, AuditSealer
from idp.ledgers.outbox.models import OutboxRow
from idp.ledgers.siem import stream

bp = Blueprint("health", __name__)
LATE = timedelta(minutes=5)


@bp.get("/healthz", endpoint="live")
def live() -> Response:
    """Liveness: this process answers. No dependencies."""
    return Response('{"status":"ok"}', mimetype="application/json")


@bp.get("/readyz", endpoint="ready")
def ready() -> Response:
    """Readiness: database at the newest revision, keys usable, deliveries not late."""
    found = _state()
    return Response(json.dumps(found), status=200 if found["ready"] else 503, mimetype="application/json")


def _state() -> dict[str, object]:
    now = browser.now()
    try:
        with reading() as session:
            oldest = session.scalar(
                select(func.min(OutboxRow.created_at)).where(
                    OutboxRow.state != "done", OutboxRow.topic.not_in((anchors.TOPIC, stream.TOPIC))
                )
            )
            unsealed = session.scalar(select(func.min(AuditEvent.created_at)).where(AuditEvent.leaf_index.is_(None)))
            alarm = session.scalar(select(AuditSealer.alarm))
            behind = stream.lag(session, now=now) if browser.services().settings.siem_url else timedelta(0)
            silent = anchors.late(session, browser.services().settings.anchor_places, now=now)
        migrated = is_current(db.engine)
    except Unavailable:
        return {"ready": False, "database": False}
    log_lag = int((now - unsealed).total_seconds()) if unsealed else 0
    lag = int((now - oldest).total_seconds()) if oldest else 0
    keys = bool(json.loads(browser.services().signer.jwks(now=now))["keys"])
    return {
        "ready": migrated and keys,
        "database": True,
        "migrated": migrated,
        "keys": keys,
        "oldest_delivery_s": lag,
        "late": lag > LATE.total_seconds(),
        "log_alarm": alarm is not None,
        "oldest_unsealed_s": log_lag,
        "log_late": log_lag > LATE.total_seconds(),
        "anchors_late": len(silent),
        "siem_behind_s": int(behind.total_seconds()),
    }


@bp.get("/status", endpoint="status")
def status() -> Answer:
    """X01: for everybody, without personal data."""
    return render_template("web/status.html", state=_state())


@bp.get("/status.json", endpoint="status_json")
def status_json() -> Response:
    """The same for machines."""
    return Response(json.dumps(_state()), mimetype="application/json")


@bp.get("/op/styleguide", endpoint="styleguide")
@require(Power.MANAGE_COMPANIES)
def guide(looking: Looking) -> Answer:
    """Every widget in every state, for whoever changes one."""
    del looking
    return render_template("styleguide.html", **styleguide.context(browser.now()))
