"""SAML applications in the console: the connection wizard, and the page of one connection (A05, A06).

Drop the metadata, see what was understood, decide, test with one's own login, go live. What metadata says is read by the
SAML edge, which hands its reader over at start (`app.py`): edges do not import one another.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from flask import Blueprint, current_app, redirect, render_template, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from idp.core import x509
from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.core.outbound import Refused, Unreachable
from idp.domain.applications import registry, saml, sp_metadata
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.applications.saml import SpRegistration
from idp.domain.applications.sp_metadata import SpFacts
from idp.domain.authn import login as authn
from idp.domain.directory.roles import Power
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web.apps import owner_of
from idp.edges.web.forms import EmptyForm, MetadataForm, SamlForm, lines
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent

bp = Blueprint("saml_apps", __name__)

READER = "sekisho-saml-reader"


def read_metadata(document: bytes, *, now: datetime) -> SpFacts:
    """What a document says. Raises Invalid."""
    reader = cast("Callable[..., SpFacts]", current_app.extensions[READER])
    return reader(document, now=now)


@bp.route("/hq/apps/saml/new", methods=["GET", "POST"])
@require(Power.MANAGE_APPLICATIONS)
def new(looking: Looking) -> Answer:
    """A05: first what the metadata says, then what we decide; registered as a test connection, not live."""
    form, facts = SamlForm(), None
    if form.validate_on_submit():
        try:
            document, url = _document(form.metadata.data, form.metadata_url.data)
            facts = read_metadata(document, now=browser.now())
            form.metadata.data = document.decode("utf-8", "replace")
            if request.form.get("act") == "register":
                return _register(looking, form, facts, url)
            form.name.data = form.name.data or facts.name
            form.encrypt.data = sp_metadata.can_encrypt(facts)
        except (Invalid, Conflict) as error:
            form.refuse(error)
            facts = facts if error.field != "metadata" else None
    status = 400 if form.is_submitted() and (form.errors or form.form_errors) else 200
    certificates = [x509.read(der) for der in facts.signing_certs] if facts else []
    return render_template("web/saml_new.html", form=form, facts=facts, certificates=certificates), status


def _document(text: str | None, url: str | None) -> tuple[bytes, str | None]:
    """The dropped file, the pasted text, or what the address answers. Raises Invalid."""
    file = request.files.get("file")
    dropped = file.read() if file is not None else b""
    if dropped or (text or "").strip():
        return dropped or (text or "").strip().encode(), (url or "").strip() or None
    if not (url or "").strip():
        raise Invalid("メタデータのファイルか、中身か、URLを入れてください。", field="metadata")
    return fetch((url or "").strip()), (url or "").strip()


def fetch(url: str) -> bytes:
    """A document from its address, through the one guarded client. Raises Invalid."""
    try:
        answer = browser.services().outbound.get(url)
    except (Refused, Unreachable) as error:
        raise Invalid(
            "メタデータを取りにいけません。URLを確かめるか、ファイルで渡してください。",
            str(error),
            field="metadata_url",
        ) from error
    if answer.status != 200:
        raise Invalid(
            "メタデータのURLが、エラーを返しました。URLを確かめるか、ファイルで渡してください。", str(answer.status), field="metadata_url"
        )  # fmt: skip
    return answer.body


def _register(looking: Looking, form: SamlForm, facts: SpFacts, url: str | None) -> Answer:
    wish = SpRegistration(
        name=form.name.data, functions=lines(form.functions.data), name_id=form.name_id.data,
        profile="saml2int" if form.encrypt.data else "enterprise-compat",
        email_pattern=(form.email_pattern.data or "").strip() or None, encrypt=form.encrypt.data, idp_initiated=form.idp_initiated.data,
        start_url=(form.start_url.data or "").strip() or None, honours_session_index=form.honours_session_index.data, metadata_url=url,
        min_acr=authn.AAL2 if form.needs_aal2.data else None, live=False,
    )  # fmt: skip
    with transaction() as session:
        application, _ = saml.add_service_provider(
            session, wish, facts, slug=form.slug.data.strip(), company_id=owner_of(looking),
            loopback=browser.services().settings.issuer_is_loopback, actor=looking.viewer.actor, now=browser.now(),
        )  # fmt: skip
        slug = application.slug
    return redirect(f"/hq/apps/{slug}/saml", 303)


@bp.get("/hq/apps/<slug>/saml")
@require(Power.MANAGE_APPLICATIONS)
def show(looking: Looking, slug: str) -> Answer:
    """A06: the connection, what its tests said, what waits for a decision."""
    return _page(looking, slug, MetadataForm())


def _page(looking: Looking, slug: str, form: MetadataForm, status: int = 200) -> Answer:
    with reading() as session:
        application, provider = _mine(session, looking, slug)
        held = SpFacts.from_json(provider.held) if provider.held else None
        events = session.execute(
            select(AuditEvent.created_at, AuditEvent.result, AuditEvent.detail)
            .where(
                AuditEvent.application_id == application.id,
                AuditEvent.tag.in_([Tag.ASSERTION_ISSUED.value, Tag.SAML_REFUSED.value]),
            )
            .order_by(AuditEvent.id.desc())
            .limit(5)
        ).all()
    issuer = browser.services().settings.issuer
    certificates = [x509.read(der) for der in provider.signing_certs]
    page = render_template(
        "web/saml_app.html", application=application, provider=provider, form=form, button=EmptyForm(), events=events,
        differences=sp_metadata.differences(provider, held) if held else [], held=held, warnings=saml.warnings(provider),
        certificates=certificates, issuer=issuer, may_change=registry.may_change(looking.viewer, application), soon=browser.now(),
    )  # fmt: skip
    return page, status


def _mine(session: Session, looking: Looking, slug: str) -> tuple[Application, ServiceProvider]:
    application = registry.find_application(session, slug, looking.viewer)
    if application.protocol != "saml":
        raise NotFound(
            "ページが見つかりません。URLが変わったか、見る権限がありません。", f"no SAML application {slug[:64]}"
        )
    return application, saml.get_provider(session, application.id)


def _changeable(session: Session, looking: Looking, slug: str) -> ServiceProvider:
    application, provider = _mine(session, looking, slug)
    if not registry.may_change(looking.viewer, application):
        raise Denied("このアプリは運用者だけが変えられます。", f"application {slug[:64]}")
    return provider


@bp.post("/hq/apps/<slug>/saml/metadata")
@require(Power.MANAGE_APPLICATIONS)
def metadata(looking: Looking, slug: str) -> Answer:
    """Newer metadata: dates are taken, a changed address or key is held (SA-15)."""
    form = MetadataForm()
    with reading() as session:
        known = _changeable(session, looking, slug).metadata_url
    try:
        document, _ = _document(form.metadata.data, known)
        facts = read_metadata(document, now=browser.now())
        with transaction() as session:
            provider = sp_metadata.take(session, _changeable(session, looking, slug).id)
            sp_metadata.receive(
                session, provider, facts, loopback=browser.services().settings.issuer_is_loopback,
                actor=looking.viewer.actor, now=browser.now(),
            )  # fmt: skip
    except Invalid as error:
        form.refuse(error)
        return _page(looking, slug, form, 400)
    return redirect(f"/hq/apps/{slug}/saml", 303)


@bp.post("/hq/apps/<slug>/saml/approve")
@require(Power.MANAGE_APPLICATIONS)
def approve(looking: Looking, slug: str) -> Answer:
    """Accept what is held: exactly the document whose differences the page showed."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/apps/{slug}/saml", 303)
    with transaction() as session:
        sp_metadata.approve(
            session, _changeable(session, looking, slug), digest=request.form.get("digest", ""), actor=looking.viewer.actor, now=browser.now()
        )  # fmt: skip
    return redirect(f"/hq/apps/{slug}/saml", 303)


@bp.post("/hq/apps/<slug>/saml/live")
@require(Power.MANAGE_APPLICATIONS)
def go_live(looking: Looking, slug: str) -> Answer:
    """Open the connection for everybody who may use the application, or close it again for its test."""
    wanted: dict[str, Any] = {"live": request.form.get("live") == "yes"}
    with transaction() as session:
        saml.change_decisions(
            session, _changeable(session, looking, slug), wanted, actor=looking.viewer.actor, now=browser.now()
        )
    return redirect(f"/hq/apps/{slug}/saml", 303)
