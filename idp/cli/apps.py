"""`app`: register relying parties, say who may use them, take them away."""

from __future__ import annotations

import uuid
from typing import Any

import click
from sqlalchemy.orm import Session

from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.core.errors import NotFound
from idp.domain.applications import registration, registry
from idp.domain.applications.registration import Registration
from idp.domain.authn.login import AAL2
from idp.domain.directory import people
from idp.domain.directory.roles import Power, Role
from idp.domain.tokens import ends


@click.group()
def app() -> None:
    """Applications."""


@app.command("add-oidc")
@click.argument("slug")
@click.argument("name")
@click.option("--redirect-uri", "redirect_uris", multiple=True, required=True, help="Exact; repeat for several.")
@click.option("--post-logout-redirect-uri", "post_logout", multiple=True)
@click.option("--backchannel-logout-uri", help="Without one, receipts can only say how long its logins live.")
@click.option(
    "--backchannel-logout-session-required/--no-backchannel-logout-session-required",
    default=True,
    show_default=True,
    help="Also name each session by its sid: some clients find none without it and answer 200 all the same.",
)
@click.option("--initiate-login-uri", help="Where the portal tile leads.")
@click.option(
    "--session-life-minutes", type=click.IntRange(1, 576000), help="How long a login inside the application lives."
)
@click.option("--function", "functions", multiple=True, help="Such as points.adjust; repeat for several.")
@click.option(
    "--auth-method", type=click.Choice(registration.AUTH_METHODS), default="client_secret_basic", show_default=True
)
@click.option("--id-token-alg", type=click.Choice(registration.ID_TOKEN_ALGS), default="ES256", show_default=True)
@click.option("--company", "company_code", help="Owner; without it the application serves every company.")
@click.option("--require-second-factor", is_flag=True)
@click.option("--offline/--no-offline", default=False, help="May hold tokens that outlive the login.")
@click.option("--pkce-exempt", is_flag=True, help="For an old confidential client; it must then send a nonce (D5).")
@json_option
def add_oidc(slug: str, name: str, *, as_json: bool, **given: Any) -> None:
    """Register an OpenID Connect relying party; the secret is printed once."""
    minutes = given["session_life_minutes"]
    wish = Registration(
        name=name, redirect_uris=given["redirect_uris"], functions=given["functions"], post_logout_redirect_uris=given["post_logout"],
        backchannel_logout_uri=given["backchannel_logout_uri"],
        backchannel_logout_session_required=given["backchannel_logout_session_required"],
        initiate_login_uri=given["initiate_login_uri"], auth_method=given["auth_method"], id_token_alg=given["id_token_alg"],
        session_life_s=minutes * 60 if minutes else None, min_acr=AAL2 if given["require_second_factor"] else None,
        offline_allowed=given["offline"], pkce_exempt=given["pkce_exempt"],
    )  # fmt: skip
    with product() as flask:
        settings = flask.extensions["sekisho"].settings
        with transaction() as session:
            owner = people.get_company(session, given["company_code"]).id if given["company_code"] else None
            made = registry.add_relying_party(
                session,
                wish,
                slug=slug,
                company_id=owner,
                loopback=settings.issuer_is_loopback,
                actor=actor(),
                now=clock.now(),
            )
        show(
            {
                "slug": slug,
                "issuer": settings.issuer,
                "client_id": made.relying_party.client_id,
                "client_secret": made.secret,
            },
            as_json=as_json,
        )


@app.command("list")
@json_option
def list_apps(*, as_json: bool) -> None:
    """List applications."""
    with product(), reading() as session:
        rows = [
            {
                "slug": a.slug,
                "name": a.name,
                "protocol": a.protocol,
                "client_id": getattr(registry.party_of(session, a.id), "client_id", None),
                "told_of_logout": told is not None,
                "ended_at": a.ended_at,
            }
            for a, told in registry.list_all(session, None)
        ]
        show(rows, as_json=as_json)


@app.command("show")
@click.argument("slug")
@json_option
def show_app(slug: str, *, as_json: bool) -> None:
    """Show one application and who may use it."""
    with product(), reading() as session:
        a, p = registry.get_application(session, slug, None)
        grants = [
            {
                "id": str(e.id),
                "subject": e.subject_kind,
                "who": registry.subject_name(session, e) or e.role,
                "functions": e.functions,
            }
            for e in registry.entitlements_of(session, a.id)
        ]
        show(
            {
                "slug": a.slug, "name": a.name, "client_id": p.client_id, "redirect_uris": p.redirect_uris, "auth_method": p.auth_method,
                "backchannel_logout_uri": p.backchannel_logout_uri, "session_life_s": a.session_life_s, "functions": a.functions, "grants": grants,
            },
            as_json=as_json,
        )  # fmt: skip


@app.command("grant")
@click.argument("slug")
@click.option(
    "--role", type=click.Choice([r.value for r in Role]), help="A role, alone or together with one of the others."
)
@click.option("--company", "company_code", help="A whole company, or the company of --store, --region, --person.")
@click.option("--region", "region_code")
@click.option("--store", "store_code")
@click.option("--person", help="A staff number.")
@click.option("--function", "functions", multiple=True)
@json_option
def grant(slug: str, *, as_json: bool, **given: Any) -> None:
    """Say who may use an application, with which functions."""
    with product(), transaction() as session:
        application = registry.find_application(session, slug, None)
        kind, subject_id, company_id = _subject(session, given)
        made = registry.grant(
            session, application, subject_kind=kind, subject_id=subject_id, role=given["role"], functions=given["functions"],
            company_id=company_id, actor=actor(), now=clock.now(),
        )  # fmt: skip
    show({"id": str(made.id), "subject": kind, "functions": made.functions}, as_json=as_json)


def _subject(session: Session, given: dict[str, Any]) -> tuple[str, uuid.UUID | None, uuid.UUID | None]:
    """Kind and id of the subject, and the company whose people alone it concerns."""
    code = given["company_code"]
    company_id = people.get_company(session, code).id if code else None
    narrow = [name for name in ("region_code", "store_code", "person") if given[name]]
    if len(narrow) > 1 or (narrow and company_id is None):
        raise click.UsageError("give one of --region, --store, --person, together with --company")
    if given["region_code"] and company_id:
        return "region", people.get_region(session, company_id, given["region_code"]).id, company_id
    if given["store_code"] and company_id:
        return "store", people.get_store(session, company_id, given["store_code"], None, Power.HIRE).id, company_id
    if given["person"] and company_id:
        return "account", people.get_by_login_name(session, company_id, given["person"]).id, company_id
    if company_id:
        return "company", company_id, company_id
    if given["role"]:
        return "role", None, None
    raise click.UsageError("say who: --role, --company, --region, --store or --person")


@app.command("remove")
@click.argument("slug")
@click.option("--grant-id", help="Only this entitlement; without it the whole application.")
@json_option
def remove(slug: str, grant_id: str | None, *, as_json: bool) -> None:
    """Take away an entitlement or the application; its app sessions end and are told."""
    now = clock.now()
    with product() as flask:
        settings = flask.extensions["sekisho"].settings
        with transaction(reserved=True) as session:
            application = registry.find_application(session, slug, None)
            locked = registry.lock_application(session, application.id)
            if grant_id is None:
                went = registry.end_application(session, locked.id, actor=actor(), now=now)
            else:
                went = registry.end_entitlement(session, _uuid(grant_id), actor=actor(), now=now)
            told = ends.end_application_use(session, locked.id, reason="narrowed", now=now) if went else {}
            for account_id, entries in told.items():
                ends.tell(session, account_id, entries, give_up_after=settings.give_up_after, now=now)
        show({"removed": went, "people_told": len(told)}, as_json=as_json)


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound("この決まりは見つかりません。", f"entitlement {text[:64]}") from None
