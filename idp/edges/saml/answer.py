"""One SAML answer inside one transaction: what is read first, the name, the ledger row, the statement, the signature."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import LargeBinary, Uuid, and_, bindparam, select
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import NOW, Query, prepared, run
from idp.core.errors import Invalid
from idp.domain.applications import names
from idp.domain.applications.decide import APPLICATION_COLUMNS, Allowed, ApplicationFacts, Facts, application_facts
from idp.domain.applications.models import Application, SamlSubject, ServiceProvider
from idp.domain.applications.names import FORMATS
from idp.domain.applications.saml import NAME_FORMATS, PROVIDER_COLUMNS, Provider, provider_of
from idp.domain.directory.models import Account, Company
from idp.domain.directory.scope import account_alive
from idp.domain.sessions import live
from idp.domain.sessions.live import LOGIN_COLUMNS, LiveLogin, SamlName, login_session_alive
from idp.domain.sessions.models import LoginSession
from idp.domain.tokens import grants
from idp.edges import browser
from idp.edges.saml import build, wishes
from idp.edges.saml.build import Attribute, Protection, Statement
from idp.edges.saml.metadata import paths
from idp.edges.saml.wishes import Refusal, Wish
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record

#: the names of D20, sent where a service provider has no mapping of its own
DEFAULT: tuple[dict[str, str], ...] = tuple(
    {"name": name, "format": "basic", "source": name}
    for name in (
        "preferred_username",
        "name",
        "locale",
        "company",
        "company_name",
        "stores",
        "store_names",
        "roles",
        "functions",
    )
)


@dataclass(frozen=True)
class Row:
    """What an answer rests on: the service provider with its application, and the login session of this browser.

    name: the person's there, of the kind that it is configured for; None for one that may change, or is not known yet.
    """

    provider: Provider
    application: ApplicationFacts
    application_name: str
    session_life_s: int | None
    login: LiveLogin | None
    name: str | None


@prepared
def _provider_and_login() -> Query:
    """Service provider and login session in one statement, shared rows taken (lock orders 1, 2 and 4)."""
    digest: Any = bindparam("digest", type_=LargeBinary())
    company = (
        select(Company.id)
        .where(Company.id == LoginSession.company_id)
        .with_for_update(read=True)
        .correlate(LoginSession)
        .scalar_subquery()
    )
    return (
        select(
            *PROVIDER_COLUMNS, *APPLICATION_COLUMNS, Application.name.label("application_name"), Application.session_life_s,
            LOGIN_COLUMNS[0].label("login_id"), *LOGIN_COLUMNS[1:], company.label("company_lock"), SamlSubject.value.label("kept_name"),
            grants.shared_stores(select(LoginSession.account_id).where(LoginSession.cookie_digest == digest)),
        )
        .select_from(ServiceProvider)
        .join(Application, Application.id == ServiceProvider.application_id)
        .outerjoin(LoginSession, and_(LoginSession.cookie_digest == digest, *login_session_alive(NOW)))
        .outerjoin(Account, and_(Account.id == LoginSession.account_id, *account_alive(NOW)))
        .outerjoin(Company, and_(Company.id == Account.company_id, Company.ended_at.is_(None)))
        .outerjoin(
            SamlSubject,
            and_(
                SamlSubject.application_id == ServiceProvider.application_id, SamlSubject.account_id == Account.id,
                SamlSubject.kind == ServiceProvider.name_id, SamlSubject.kind.in_(names.KEPT),
            ),
        )
        .where(ServiceProvider.id == bindparam("provider", type_=Uuid()))
        .with_for_update(read=True, of=Application)
    )  # fmt: skip


def load(session: Session, provider_id: uuid.UUID, cookie: str, *, now: datetime) -> Row:
    """Service provider and login session in one statement, shared rows taken (lock orders 1, 2 and 4)."""
    values = {"provider": provider_id, "digest": ids.digest(cookie), "now": now}
    row = run(session, _provider_and_login(), values).one()
    login = None
    if row.login_id is not None and row.company_code is not None:
        login = LiveLogin(
            row.login_id, row.account_id, row.company_id, row.company_code, row.company_name, row.account_name, row.login_name,
            row.subject, row.locale, row.epoch, row.acr, tuple(row.amr), row.auth_time, row.last_seen_at, row.idle_s, row.ends_at,
        )  # fmt: skip
    return Row(provider_of(row), application_facts(row), row.application_name, row.session_life_s, login, row.kept_name)


def issue(
    session: Session, wish: Wish, row: Row, login: LiveLogin, facts: Facts, allowed: Allowed, *, now: datetime
) -> bytes:
    """Name, ledger row and signed Response. Called with the gate claimed and the decision made. Raises Refusal, and then
    nothing was opened."""
    services, provider = browser.services(), row.provider
    context = wishes.context_met(wish, login.acr)
    kind = wishes.name_kind(provider, wish)
    value = _name(session, wish, row, kind, login, now=now)
    if wish.subject is not None and wish.subject != value:
        raise Refusal("UnknownPrincipal")
    ends_at = login.ends_at
    if row.session_life_s is not None:
        ends_at = min(ends_at, now + timedelta(seconds=row.session_life_s))
    how = _protection(provider, now=now)
    opened = live.open_app_session(
        session, login, row.application.id, now=now, name=SamlName(value, FORMATS[kind], ends_at)
    )
    said = Statement(
        issuer=paths(services.settings.issuer)["entity_id"], audience=provider.entity_id, acs=wish.acs, in_response_to=wish.request_id,
        name_id=value, name_id_format=FORMATS[kind], session_index=opened.sid, authn_instant=login.auth_time, authn_context=context,
        session_ends_at=ends_at, attributes=attributes(provider, facts, allowed, name_id=value),
    )  # fmt: skip
    octets, assertion_id = build.response(said, how, now=now)
    record(
        session, Tag.ASSERTION_ISSUED, actor=browser.actor(login.account_id), now=now, company_id=login.company_id,
        subject_id=login.account_id, application_id=row.application.id, app_session_id=opened.id, assertion=assertion_id,
        name_id_kind=kind, name_id=value if kind == "mapped" else None, key=how.key.kid, encrypted=how.certificate is not None,
    )  # fmt: skip
    return octets


def _protection(provider: Provider, *, now: datetime) -> Protection:
    key = browser.services().saml_keys.signing(now=now, pinned=provider.signing_kid)
    certificate = None
    if provider.encrypt:
        if not provider.encryption_certs:
            # never plaintext instead (SA-13): the row says encrypt, so without a certificate nothing is sent at all
            raise Invalid(
                "暗号化の設定が使えないため、開けません。アプリの管理者に伝えてください。", "no encryption certificate"
            )
        certificate = provider.encryption_certs[0]
    return Protection(
        key, assertion=provider.sign in {"both", "assertion"}, response=provider.sign in {"both", "response"}, certificate=certificate,
        method=provider.encryption_method,
    )  # fmt: skip


def _name(session: Session, wish: Wish, row: Row, kind: str, login: LiveLogin, *, now: datetime) -> str:
    """The NameID of this person at this service provider (SA-14). Raises Refusal."""
    provider, application_id = row.provider, row.provider.application_id
    if row.name is not None and kind == provider.name_id:
        return row.name
    if kind == "transient":
        return f"_{ids.new_secret()}"
    if kind == "mapped":
        shared = names.known_name(session, application_id, login.account_id, "mapped")
        if shared is None:
            raise Refusal("UnknownPrincipal")
        return shared
    known = names.known_name(session, application_id, login.account_id, kind)
    if known is not None:
        return known
    if not wish.allow_create:
        raise Refusal("InvalidNameIDPolicy")
    value = ids.new_secret() if kind == "persistent" else _email(provider, login)
    kept = names.keep_name(session, application_id, login.account_id, kind, value, now=now)
    if kept is None:
        raise Refusal("UnknownPrincipal")  # the address was somebody else's before: never a second person's (RV-31)
    return kept


def _email(provider: Provider, login: LiveLogin) -> str:
    return (provider.email_pattern or "").format(
        login_name=login.login_name, company=login.company_code.lower(), subject=login.subject
    )


def attributes(provider: Provider, facts: Facts, allowed: Allowed, *, name_id: str) -> list[Attribute]:
    """The attributes of an answer: the service provider's mapping, or the names of D20. Other applications' functions never."""
    values: dict[str, tuple[str, ...]] = {
        "subject": (facts.subject,), "name_id": (name_id,), "login_name": (facts.login_name,),
        "preferred_username": (f"{facts.company_code}/{facts.login_name}",), "name": (facts.name,), "locale": (facts.locale,),
        "company": (facts.company_code,), "company_name": (facts.company_name,), "stores": tuple(s.code for s in allowed.stores),
        "store_names": tuple(s.name for s in allowed.stores), "roles": tuple(sorted(allowed.roles)), "functions": allowed.functions,
        "email": (name_id,) if provider.name_id == "email" else (),
    }  # fmt: skip
    mapping: Any = provider.attributes or DEFAULT
    return [
        Attribute(
            one["name"], NAME_FORMATS[one.get("format", "basic")],
            (one["source"].removeprefix("const:"),) if one["source"].startswith("const:") else values[one["source"]],
            one.get("friendly"),
        )
        for one in mapping
    ]  # fmt: skip
