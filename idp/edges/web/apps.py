"""Applications: list, register, show, who may use it, secret, removal (A01, A03, A04)."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from flask import Blueprint, redirect, render_template
from sqlalchemy.orm import Session

from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Denied, Invalid, NotFound
from idp.core.outbound import Refused
from idp.domain.applications import registry
from idp.domain.applications.models import Application
from idp.domain.applications.registration import Registration
from idp.domain.authn import login as authn
from idp.domain.directory import people
from idp.domain.directory.roles import ROLES, Power, Reach
from idp.domain.tokens import ends
from idp.edges import browser
from idp.edges.browser import Answer, Looking, require
from idp.edges.web.fields import choices
from idp.edges.web.forms import ApplicationForm, EmptyForm, GrantForm, IdForm, lines
from idp.edges.web.store import role_names

bp = Blueprint("apps", __name__)


@bp.get("/hq/apps")
@require(Power.MANAGE_APPLICATIONS)
def listing(looking: Looking) -> Answer:
    """A01: the applications of this company and of the platform."""
    with reading() as session:
        rows = registry.list_all(session, looking.viewer)
    return render_template("web/apps.html", rows=rows, may_change=lambda a: registry.may_change(looking.viewer, a))


@bp.route("/hq/apps/new", methods=["GET", "POST"])
@require(Power.MANAGE_APPLICATIONS)
def new(looking: Looking) -> Answer:
    """A04: register a relying party; the secret is shown once."""
    form, settings = ApplicationForm(), browser.services().settings
    if form.validate_on_submit():
        try:
            _check_reachable(form.backchannel_logout_uri.data)
            with transaction() as session:
                made = registry.add_relying_party(
                    session, _registration(form), slug=form.slug.data.strip(), company_id=owner_of(looking),
                    loopback=settings.issuer_is_loopback, actor=looking.viewer.actor, now=browser.now(),
                )  # fmt: skip
            return render_template("web/app_secret.html", made=made, issuer=settings.issuer)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    return render_template("web/app_new.html", form=form), 400 if form.is_submitted() else 200


def _check_reachable(uri: str | None) -> None:
    """An address that our outbound client would always refuse is refused now, not at the first cut (WB-20)."""
    try:
        if uri and uri.strip():
            browser.services().outbound.check(uri.strip())
    except Refused as error:
        raise Invalid(
            "この宛先には送れません。公開されたhttpsのURLにしてください。", str(error), field="backchannel_logout_uri"
        ) from error


def owner_of(looking: Looking) -> uuid.UUID | None:
    """The operator's applications serve every company (D18)."""
    wide = any(ROLES[s.role].reach is Reach.PLATFORM for s in looking.viewer.standings_with(Power.MANAGE_APPLICATIONS))
    return None if wide else looking.viewer.company_id


def _registration(form: ApplicationForm) -> Registration:
    minutes = (form.session_life_minutes.data or "").strip()
    if minutes and not (minutes.isascii() and minutes.isdigit()):
        raise Invalid("数字で入れてください。わからないときは空のままにします。", field="session_life_minutes")
    return Registration(
        name=form.name.data, redirect_uris=lines(form.redirect_uris.data), functions=lines(form.functions.data),
        post_logout_redirect_uris=lines(form.post_logout_redirect_uris.data),
        backchannel_logout_uri=(form.backchannel_logout_uri.data or "").strip() or None,
        backchannel_logout_session_required=form.backchannel_logout_session_required.data,
        initiate_login_uri=(form.initiate_login_uri.data or "").strip() or None, auth_method=form.auth_method.data,
        id_token_alg=form.id_token_alg.data, session_life_s=int(minutes) * 60 if minutes else None,
        min_acr=authn.AAL2 if form.needs_aal2.data else None, offline_allowed=form.offline_allowed.data,
    )  # fmt: skip


@bp.get("/hq/apps/<slug>")
@require(Power.MANAGE_APPLICATIONS)
def show(looking: Looking, slug: str) -> Answer:
    """A03: what we know of it, who may use it, how it can be cut."""
    return _page(looking, slug, _grant_form())


def _page(looking: Looking, slug: str, form: GrantForm, status: int = 200) -> Answer:
    with reading() as session:
        application = registry.find_application(session, slug, looking.viewer)
        party = registry.party_of(session, application.id)
        company_id = (
            None
            if registry.may_change(looking.viewer, application) and application.company_id is None
            else looking.viewer.company_id
        )
        grants = [
            (e, registry.subject_name(session, e))
            for e in registry.entitlements_of(session, application.id, company_id)
        ]
    return render_template(
        "web/app.html", application=application, party=party, grants=grants, form=form, id_form=IdForm(), button=EmptyForm(),
        may_change=registry.may_change(looking.viewer, application), issuer=browser.services().settings.issuer, roles=role_names(),
    ), status  # fmt: skip


def _grant_form() -> GrantForm:
    form = GrantForm()
    form.role.choices = choices([("", "-"), *role_names().items()])
    return form


@bp.post("/hq/apps/<slug>/grants")
@require(Power.MANAGE_APPLICATIONS)
def grant(looking: Looking, slug: str) -> Answer:
    """Let somebody use it. Head office grants inside its company, also platform-wide applications."""
    form = _grant_form()
    if form.validate_on_submit():
        try:
            with transaction() as session:
                application = registry.find_application(session, slug, looking.viewer)
                company_id = owner_of(looking)
                registry.grant(
                    session, application, subject_kind=form.subject_kind.data, subject_id=_subject_id(session, looking, form),
                    role=form.role.data or None, functions=lines(form.functions.data), company_id=company_id, actor=looking.viewer.actor,
                    now=browser.now(),
                )  # fmt: skip
            return redirect(f"/hq/apps/{slug}", 303)
        except (Invalid, Conflict) as error:
            form.refuse(error)
    return _page(looking, slug, form, 400)


def _subject_id(session: Session, looking: Looking, form: GrantForm) -> uuid.UUID | None:
    kind, text, company_id = form.subject_kind.data, (form.subject.data or "").strip(), looking.viewer.company_id
    try:
        match kind:
            case "role":
                return None
            case "company":
                return people.get_company(session, text, looking.viewer).id if text else company_id
            case "region":
                return people.get_region(session, company_id, text).id
            case "store":
                return people.get_store(session, company_id, text, looking.viewer, Power.MANAGE_APPLICATIONS).id
            case _:
                return people.get_by_login_name(session, looking.viewer.company_id, text).id
    except NotFound:
        raise Invalid("このコードは見つかりません。", field="subject") from None


def _narrow(looking: Looking, slug: str, act: Callable[[Session, Application], bool], reason: str) -> None:
    """Narrowing: take the application's row, change it, then end the affected app sessions; people come in anew (RE-20)."""
    now, services = browser.now(), browser.services()
    with transaction(reserved=True) as session:
        application = registry.find_application(session, slug, looking.viewer)
        locked = registry.lock_application(session, application.id)
        if not act(session, locked):
            return
        for account_id, told in ends.end_application_use(session, locked.id, reason=reason, now=now).items():
            ends.tell(session, account_id, told, give_up_after=services.settings.give_up_after, now=now)


@bp.post("/hq/apps/<slug>/grants/end")
@require(Power.MANAGE_APPLICATIONS)
def end_grant(looking: Looking, slug: str) -> Answer:
    """Take an entitlement away."""
    wanted = _uuid(IdForm().id.data)

    def act(session: Session, application: Application) -> bool:
        mine = {e.id: e for e in registry.entitlements_of(session, application.id)}
        entitlement = mine.get(wanted)
        if entitlement is None:
            raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"entitlement {wanted}")
        if owner_of(looking) is not None and entitlement.company_id != looking.viewer.company_id:
            raise Denied("この決まりは運用者だけが変えられます。", f"entitlement {wanted}")
        return registry.end_entitlement(session, wanted, actor=looking.viewer.actor, now=browser.now())

    _narrow(looking, slug, act, "entitlement_ended")
    return redirect(f"/hq/apps/{slug}", 303)


@bp.post("/hq/apps/<slug>/remove")
@require(Power.MANAGE_APPLICATIONS)
def remove(looking: Looking, slug: str) -> Answer:
    """Take the application out of use. Its rows stay, so that receipts still name it (RV-26)."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/apps/{slug}", 303)

    def act(session: Session, application: Application) -> bool:
        _may_change(looking, application)
        return registry.end_application(session, application.id, actor=looking.viewer.actor, now=browser.now())

    _narrow(looking, slug, act, "application_removed")
    return redirect("/hq/apps", 303)


@bp.post("/hq/apps/<slug>/secret")
@require(Power.MANAGE_APPLICATIONS)
def rotate_secret(looking: Looking, slug: str) -> Answer:
    """A new secret; the old one works for seven more days (OA-24)."""
    if not browser.fresh(looking):
        return redirect(f"/login/step-up?next=/hq/apps/{slug}", 303)
    with transaction() as session:
        application, party = registry.get_application(session, slug, looking.viewer)
        _may_change(looking, application)
        secret, old_until = registry.rotate_secret(
            session, application.id, actor=looking.viewer.actor, now=browser.now()
        )
    return render_template(
        "web/app_rotated.html", application=application, party=party, secret=secret, old_until=old_until
    )


def _may_change(looking: Looking, application: Application) -> None:
    if not registry.may_change(looking.viewer, application):
        raise Denied("このアプリは運用者だけが変えられます。", f"application {application.slug}")


def _uuid(text: str | None) -> uuid.UUID:
    try:
        return uuid.UUID(text or "")
    except ValueError:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", "not an id") from None
