"""Registering relying parties, granting and ending entitlements, and the list of what a person may open."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import change, claim
from idp.core.errors import Conflict, Invalid, NotFound
from idp.domain.applications import decide as gate
from idp.domain.applications.decide import ApplicationFacts
from idp.domain.applications.models import Application, Entitlement, RelyingParty, ServiceProvider
from idp.domain.applications.registration import SLUG, Registration, check_registration
from idp.domain.directory.models import Account, Company, Region, Store
from idp.domain.directory.people import clean_name
from idp.domain.directory.roles import ROLES, Power, Reach
from idp.domain.directory.scope import Viewer
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

SECRET_OVERLAP = timedelta(days=7)


@dataclass(frozen=True)
class Registered:
    """A new client. secret: shown once, never again; None for a public client."""

    application: Application
    relying_party: RelyingParty
    secret: str | None


def add_relying_party(
    session: Session,
    wish: Registration,
    *,
    slug: str,
    company_id: uuid.UUID | None,
    loopback: bool,
    actor: Actor,
    now: datetime,
) -> Registered:
    """Register an application and its client. company_id None: the platform operator's, for every company (D18).

    Raises Invalid (with the field), Conflict (slug taken).
    """
    name = clean_name(wish.name, "name")
    if not SLUG.fullmatch(slug):
        raise Invalid("短い名前は英小文字・数字・- で入れてください。", field="slug")
    check_registration(wish, loopback=loopback)
    if session.scalar(select(Application.id).where(Application.slug == slug)):
        raise Conflict("この短い名前はもう使われています。", field="slug")
    secret = ids.new_secret() if wish.auth_method != "none" else None
    application = Application(
        id=ids.new_id(now), created_at=now, company_id=company_id, slug=slug, name=name, protocol="oidc",
        functions=list(wish.functions), min_acr=wish.min_acr, session_life_s=wish.session_life_s,
    )  # fmt: skip
    session.add(application)
    session.flush()
    party = RelyingParty(
        id=ids.new_id(now), created_at=now, application_id=application.id, client_id=f"rp_{ids.new_secret()[:22]}",
        secret_digest=ids.digest(secret) if secret else None,
        secret_seen_by=actor.account_id if secret else None, auth_method=wish.auth_method,
        redirect_uris=list(wish.redirect_uris), post_logout_redirect_uris=list(wish.post_logout_redirect_uris),
        backchannel_logout_uri=wish.backchannel_logout_uri,
        backchannel_logout_session_required=wish.backchannel_logout_session_required,
        initiate_login_uri=wish.initiate_login_uri, id_token_alg=wish.id_token_alg, pkce_exempt=wish.pkce_exempt,
        refresh_allowed=wish.refresh_allowed, offline_allowed=wish.offline_allowed,
    )  # fmt: skip
    session.add(party)
    session.flush()
    record(
        session, Tag.APPLICATION_ADDED, actor=actor, now=now, company_id=company_id, application_id=application.id,
        client_id=party.client_id,
    )  # fmt: skip
    return Registered(application, party, secret)


def rotate_secret(session: Session, application_id: uuid.UUID, *, actor: Actor, now: datetime) -> tuple[str, datetime]:
    """A new client secret; the old one works on for 7 days (OA-24). Returns the secret and the old one's end."""
    secret, ends_at = ids.new_secret(), now + SECRET_OVERLAP
    went = change(
        session,
        update(RelyingParty)
        .where(RelyingParty.application_id == application_id, RelyingParty.secret_digest.is_not(None))
        .values(
            old_secret_digest=RelyingParty.secret_digest,
            old_secret_ends_at=ends_at,
            secret_digest=ids.digest(secret),
            secret_seen_by=actor.account_id,
        ),
    )
    if not went:
        raise Invalid("公開クライアントには秘密がありません。", field="client_id")
    owner = _owner(session, application_id)
    record(
        session, Tag.CLIENT_SECRET_ROTATED, actor=actor, now=now, company_id=owner, application_id=application_id
    )  # fmt: skip
    return secret, ends_at


def grant(
    session: Session, application: Application, *, subject_kind: str, subject_id: uuid.UUID | None, role: str | None,
    functions: Sequence[str], company_id: uuid.UUID | None, actor: Actor, now: datetime,
) -> Entitlement:  # fmt: skip
    """Say who may use an application, with which functions. Widening only, so it takes no exclusive lock.

    Raises Invalid when a function is not the application's, or the subject does not fit its kind.
    """
    if unknown := set(functions) - set(application.functions):
        raise Invalid(
            "このアプリにない機能です:%(names)s", field="functions", values={"names": ", ".join(sorted(unknown))}
        )
    if subject_kind not in {"role", "company", "region", "store", "account"}:
        raise Invalid("だれに、の種類が違います。", field="subject_kind")
    if (subject_kind == "role") != (subject_id is None) or (subject_kind == "role" and role is None):
        raise Invalid("だれに、の指定が足りません。", field="subject")
    entitlement = Entitlement(
        id=ids.new_id(now), created_at=now, company_id=company_id, application_id=application.id, subject_kind=subject_kind,
        subject_id=subject_id, role=role, functions=sorted(functions),
    )  # fmt: skip
    session.add(entitlement)
    session.flush()
    record(
        session, Tag.ENTITLEMENT_GRANTED, actor=actor, now=now, company_id=company_id, application_id=application.id,
        entitlement_id=entitlement.id, subject_kind=subject_kind, subject=subject_id, role=role,
    )  # fmt: skip
    return entitlement


def lock_application(session: Session, application_id: uuid.UUID) -> Application:
    """Take the application's shared row exclusively: whoever narrows it waits for issuers and stops new ones (RE-20)."""
    row = session.scalar(select(Application).where(Application.id == application_id).with_for_update(key_share=True))
    if row is None:
        raise NotFound("アプリが見つかりません。", f"application {application_id}")
    return row


def end_entitlement(session: Session, entitlement_id: uuid.UUID, *, actor: Actor, now: datetime) -> bool:
    """End one entitlement; the caller holds the application's row and ends the affected app sessions afterwards."""
    went = claim(
        session,
        update(Entitlement)
        .where(Entitlement.id == entitlement_id, Entitlement.ended_at.is_(None))
        .values(ended_at=now),
    )
    if went:
        ended = session.execute(
            select(Entitlement.company_id, Entitlement.application_id).where(Entitlement.id == entitlement_id)
        ).one()
        record(
            session, Tag.ENTITLEMENT_ENDED, actor=actor, now=now, company_id=ended.company_id, application_id=ended.application_id,
            entitlement_id=entitlement_id,
        )  # fmt: skip
    return went


def end_application(session: Session, application_id: uuid.UUID, *, actor: Actor, now: datetime) -> bool:
    """End an application; the caller holds its row and ends its app sessions afterwards. The rows stay (RV-26)."""
    went = claim(
        session,
        update(Application)
        .where(Application.id == application_id, Application.ended_at.is_(None))
        .values(ended_at=now),
    )
    if went:
        owner = _owner(session, application_id)
        record(session, Tag.APPLICATION_REMOVED, actor=actor, now=now, company_id=owner, application_id=application_id)
    return went


def _owner(session: Session, application_id: uuid.UUID) -> uuid.UUID | None:
    """The company whose log an application's event belongs to; None for the operator's own."""
    return session.scalar(select(Application.company_id).where(Application.id == application_id))


def party_of(session: Session, application_id: uuid.UUID) -> RelyingParty | None:
    """The OpenID Connect side of an application; None for a SAML one."""
    return session.scalar(select(RelyingParty).where(RelyingParty.application_id == application_id))


def list_all(session: Session, viewer: Viewer | None) -> Sequence[tuple[Application, str | None]]:
    """Applications of both protocols that a viewer administers, each with the address that is told of a cut."""
    told = func.coalesce(RelyingParty.backchannel_logout_uri, ServiceProvider.soap_logout_url)
    query = (
        select(Application, told)
        .outerjoin(RelyingParty)
        .outerjoin(ServiceProvider)
        .order_by(Application.name, Application.id)
        .limit(500)
    )
    if viewer is not None and not _is_operator(viewer):
        query = query.where(or_(Application.company_id == viewer.company_id, Application.company_id.is_(None)))
    return [(row[0], row[1]) for row in session.execute(query)]


def list_applications(session: Session, viewer: Viewer | None) -> Sequence[tuple[Application, RelyingParty]]:
    """OpenID Connect applications that a viewer administers: their company's own; all of them for the operator and the command line."""
    query = select(Application, RelyingParty).join(RelyingParty).order_by(Application.name, Application.id).limit(500)
    if viewer is not None and not _is_operator(viewer):
        query = query.where(or_(Application.company_id == viewer.company_id, Application.company_id.is_(None)))
    return [(row[0], row[1]) for row in session.execute(query)]


def _is_operator(viewer: Viewer) -> bool:
    powers = viewer.standings_with(Power.MANAGE_APPLICATIONS)
    return any(ROLES[s.role].reach is Reach.PLATFORM for s in powers)


def may_change(viewer: Viewer, application: Application) -> bool:
    """Platform-wide applications are changed by the operator only (D18)."""
    if _is_operator(viewer):
        return True
    return viewer.can(Power.MANAGE_APPLICATIONS) and application.company_id == viewer.company_id


def find_application(session: Session, slug: str, viewer: Viewer | None) -> Application:
    """One application of either protocol by slug, inside the viewer's scope. Raises NotFound."""
    query = select(Application).where(Application.slug == slug)
    if viewer is not None and not _is_operator(viewer):
        query = query.where(or_(Application.company_id == viewer.company_id, Application.company_id.is_(None)))
    found = session.scalar(query)
    if found is None:
        raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"application {slug[:64]}")
    return found


def get_application(session: Session, slug: str, viewer: Viewer | None) -> tuple[Application, RelyingParty]:
    """One application by slug, inside the viewer's scope. Raises NotFound."""
    for application, party in list_applications(session, viewer):
        if application.slug == slug:
            return application, party
    raise NotFound("ページが見つかりません。URLが変わったか、見る権限がありません。", f"application {slug}")


def entitlements_of(
    session: Session, application_id: uuid.UUID, company_id: uuid.UUID | None = None
) -> Sequence[Entitlement]:
    """The live entitlements of an application, oldest first; with company_id only those that concern this company."""
    query = select(Entitlement).where(Entitlement.application_id == application_id, Entitlement.ended_at.is_(None))
    if company_id is not None:
        query = query.where(or_(Entitlement.company_id.is_(None), Entitlement.company_id == company_id))
    return session.scalars(query.order_by(Entitlement.id)).all()


def facts_of(application: Application) -> ApplicationFacts:
    """The application's part of a decision."""
    return ApplicationFacts(
        application.id,
        application.company_id,
        tuple(application.functions),
        application.min_acr,
        application.ended_at is None,
    )


@dataclass(frozen=True)
class Tile:
    """One application that a person may open from the portal."""

    application: Application
    initiate_login_uri: str | None
    functions: tuple[str, ...]


def tiles(session: Session, account_id: uuid.UUID, company_id: uuid.UUID, *, now: datetime) -> list[Tile]:
    """What this person may open, decided by the same gate as an issuance. Assurance is asked for when opening."""
    rows = session.execute(
        select(
            Application,
            func.coalesce(RelyingParty.initiate_login_uri, ServiceProvider.start_url),
            ServiceProvider.idp_initiated,
        )
        .outerjoin(RelyingParty)
        .outerjoin(ServiceProvider)
        .where(
            Application.ended_at.is_(None), or_(Application.company_id.is_(None), Application.company_id == company_id)
        )
        .order_by(Application.name)
        .limit(200)
    ).all()
    known = gate.load_facts_of(session, account_id, [row[0].id for row in rows], now=now)
    found = []
    for application, uri, idp_initiated in rows:
        facts = known.get(application.id)
        if facts is None:
            continue
        verdict = gate.decide(facts_of(application), facts, acr=gate.ACR_ORDER[-1])
        if isinstance(verdict, gate.Allowed):
            start = f"/saml/start/{application.slug}" if idp_initiated and not uri else uri
            if application.protocol == "tool":
                start = f"/tools/{application.slug}/start"
            found.append(Tile(application, start, verdict.functions))
    return found


def subject_name(session: Session, entitlement: Entitlement) -> str:
    """The subject of an entitlement as people know it: a code and a name; empty for a role."""
    subject_id = entitlement.subject_id
    if subject_id is None:
        return ""
    if entitlement.subject_kind == "account":
        person = session.get(Account, subject_id)
        return f"{person.login_name} {person.name}" if person else ""
    place: Company | Region | Store | None = None
    match entitlement.subject_kind:
        case "company":
            place = session.get(Company, subject_id)
        case "region":
            place = session.get(Region, subject_id)
        case "store":
            place = session.get(Store, subject_id)
    return f"{place.code} {place.name}" if place else ""
