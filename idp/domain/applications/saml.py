"""Service providers: registering one, finding it, and what we decide about it. `sp_metadata` has what it says of itself."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from idp.core import ids, x509
from idp.core.db import Query, change, prepared, run
from idp.core.errors import Conflict, Invalid, NotFound
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.applications.names import FORMATS
from idp.domain.applications.registration import FUNCTION, SLUG, check_web_uri
from idp.domain.applications.sp_metadata import SpFacts, can_encrypt, check_facts
from idp.domain.directory.people import clean_name
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

NAME_IDS = tuple(FORMATS)
PROFILES = ("saml2int", "enterprise-compat")
SIGNS = ("both", "assertion", "response")
NAME_FORMATS = {
    "uri": "urn:oasis:names:tc:SAML:2.0:attrname-format:uri",
    "basic": "urn:oasis:names:tc:SAML:2.0:attrname-format:basic",
    "unspecified": "urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified",
}
#: what an attribute may be made of (D20); `const:` is followed by the value itself
SOURCES = (
    "subject", "name_id", "login_name", "preferred_username", "name", "locale", "company", "company_name", "stores", "store_names",
    "roles", "functions", "email",
)  # fmt: skip
EMAIL = re.compile(r"[A-Za-z0-9._%+{}-]{1,64}@[A-Za-z0-9{}-]+(\.[A-Za-z0-9{}-]+)+")
PLACEHOLDER = re.compile(r"\{([a-z_]*)\}")
MOST_ATTRIBUTES = 50


@dataclass(frozen=True)
class SpRegistration:
    """What a person decides about a service provider, beside its metadata."""

    name: str
    functions: tuple[str, ...] = ()
    profile: str = "saml2int"
    name_id: str = "persistent"
    email_pattern: str | None = None
    attributes: tuple[dict[str, str], ...] = ()
    sign: str = "both"
    encrypt: bool = False
    must_sign_requests: bool = False
    idp_initiated: bool = False
    idp_targets: tuple[str, ...] = ()
    start_url: str | None = None
    honours_session_index: bool = False
    metadata_url: str | None = None
    session_life_s: int | None = None
    min_acr: str | None = None
    live: bool = True


def check_registration(wish: SpRegistration, facts: SpFacts) -> None:
    """Every rule about our own decisions and how they fit the metadata. Raises Invalid, naming the field."""
    if wish.profile not in PROFILES:
        raise Invalid("この接続の型は使えません。", field="profile")
    if wish.name_id not in NAME_IDS:
        raise Invalid("この利用者IDの種類は使えません。", field="name_id")
    if wish.sign not in SIGNS:
        raise Invalid("この署名のしかたは使えません。", field="sign")
    if wish.encrypt and not can_encrypt(facts):
        # never plaintext instead (SA-13)
        raise Invalid(
            "暗号化する設定ですが、メタデータにRSAの暗号化証明書がないか、AES-GCMを受け取れないと書かれています。",
            field="encrypt",
        )
    if (wish.name_id == "email") != bool(wish.email_pattern):
        raise Invalid(
            "メール形式の利用者IDには {login_name}.{company}@example.jp のような形が要ります。", field="email_pattern"
        )
    if wish.email_pattern:
        _check_pattern(wish.email_pattern)
    if wish.must_sign_requests and not facts.signing_certs:
        raise Invalid("要求への署名を求めるには、メタデータに署名の証明書が要ります。", field="must_sign_requests")
    if wish.idp_targets and not wish.idp_initiated:
        raise Invalid("行き先は、ポータルから開くのを許すときだけ指定できます。", field="idp_targets")
    for target in wish.idp_targets:
        if len(target.encode()) > 80 or not target.isprintable():
            raise Invalid("行き先(RelayState)は80バイトまでです。", field="idp_targets")
    for name in wish.functions:
        if not FUNCTION.fullmatch(name):
            raise Invalid("機能の名前は points.adjust のように、英小文字を . でつないでください。", field="functions")
    check_attributes(wish.attributes)


def _check_pattern(pattern: str) -> None:
    names = set(PLACEHOLDER.findall(pattern))
    if (
        not EMAIL.fullmatch(pattern)
        or not names <= {"login_name", "company", "subject"}
        or not names & {"login_name", "subject"}
    ):
        raise Invalid(
            "メール形式には {login_name} か {subject} を入れてください。{company} も使えます。", field="email_pattern"
        )
    if "login_name" in names and "company" not in names and "subject" not in names:
        # two companies may both have a 0413 (D19)
        raise Invalid("従業員番号は会社ごとなので、{company} も入れてください。", field="email_pattern")


def check_attributes(attributes: Sequence[dict[str, str]]) -> None:
    """A mapping of attributes: names, formats of the standard, sources we have. Raises Invalid."""
    if len(attributes) > MOST_ATTRIBUTES:
        raise Invalid("属性は50個までです。", field="attributes")
    for one in attributes:
        source = one.get("source", "")
        known = source in SOURCES or (source.startswith("const:") and len(source) > len("const:"))
        if not one.get("name", "").strip() or not known:
            raise Invalid(
                "属性は 名前=元の値 の形で、元の値は一覧のものを使ってください。",
                f"attribute {source}",
                field="attributes",
            )
        if one.get("format", "basic") not in NAME_FORMATS:
            raise Invalid("属性名の形式は uri・basic・unspecified のどれかです。", field="attributes")


def warnings(wish: SpRegistration | ServiceProvider, facts: SpFacts | None = None) -> list[str]:
    """What somebody should know before going live: printed by the command and on the page, in words of the log (C8)."""
    soap = facts.soap_logout_url if facts else getattr(wish, "soap_logout_url", None)
    found = []
    if wish.name_id == "email":
        found.append("email_name_id")
    if wish.name_id == "mapped":
        found.append("shared_account" if wish.honours_session_index else "shared_account_without_session_index")
    if wish.sign != "both":
        found.append("one_signature")
    if not wish.encrypt:
        found.append("not_encrypted")
    if wish.idp_initiated:
        found.append("idp_initiated")
    if soap is None:
        found.append("no_soap_logout")
    return found


def add_service_provider(
    session: Session, wish: SpRegistration, facts: SpFacts, *, slug: str, company_id: uuid.UUID | None, loopback: bool, actor: Actor,
    now: datetime,
) -> tuple[Application, ServiceProvider]:  # fmt: skip
    """Register an application and its service provider. company_id None: the operator's, for every company (D18).

    Raises Invalid (with the field), Conflict (slug or entityID taken).
    """
    name = clean_name(wish.name, "name")
    if not SLUG.fullmatch(slug):
        raise Invalid("短い名前は英小文字・数字・- で入れてください。", field="slug")
    check_facts(facts, loopback=loopback)
    check_registration(wish, facts)
    if wish.start_url:
        check_web_uri(wish.start_url, "start_url", loopback=loopback)
    if session.scalar(select(Application.id).where(Application.slug == slug)):
        raise Conflict("この短い名前はもう使われています。", field="slug")
    if session.scalar(select(ServiceProvider.id).where(ServiceProvider.entity_id == facts.entity_id)):
        raise Conflict("このentityIDのアプリはもう登録されています。", field="metadata")
    application = Application(
        id=ids.new_id(now), created_at=now, company_id=company_id, slug=slug, name=name, protocol="saml", functions=list(wish.functions),
        min_acr=wish.min_acr, session_life_s=wish.session_life_s,
    )  # fmt: skip
    session.add(application)
    session.flush()
    provider = ServiceProvider(
        id=ids.new_id(now), created_at=now, application_id=application.id, profile=wish.profile, metadata_url=wish.metadata_url,
        metadata_checked_at=now, name_id=wish.name_id, email_pattern=wish.email_pattern, attributes=list(wish.attributes), sign=wish.sign,
        encrypt=wish.encrypt, idp_initiated=wish.idp_initiated, idp_targets=list(wish.idp_targets), start_url=wish.start_url,
        honours_session_index=wish.honours_session_index, live_at=now if wish.live else None,
        **{**facts.columns(), "requests_signed": facts.requests_signed or wish.must_sign_requests},
    )  # fmt: skip
    session.add(provider)
    session.flush()
    record(
        session, Tag.APPLICATION_ADDED, actor=actor, now=now, company_id=company_id, application_id=application.id,
        entity_id=facts.entity_id, metadata=facts.digest, warnings=warnings(wish, facts),
    )  # fmt: skip
    return application, provider


def get_provider(session: Session, application_id: uuid.UUID) -> ServiceProvider:
    """The SAML side of an application. Raises NotFound."""
    row = session.scalar(select(ServiceProvider).where(ServiceProvider.application_id == application_id))
    if row is None:
        raise NotFound("SAMLのアプリではありません。", f"application {application_id}")
    return row


@dataclass(frozen=True)
class Provider:
    """A service provider as its messages are judged and answered: columns of `ServiceProvider`, as a plain row."""

    id: uuid.UUID
    application_id: uuid.UUID
    entity_id: str
    acs: list[dict[str, Any]]
    soap_logout_url: str | None
    front_logout_binding: str | None
    front_logout_url: str | None
    front_logout_response_url: str | None
    signing_certs: list[str]
    encryption_certs: list[str]
    encryption_method: str
    requests_signed: bool
    name_id: str
    email_pattern: str | None
    attributes: list[dict[str, str]]
    sign: str
    encrypt: bool
    idp_initiated: bool
    idp_targets: list[str]
    start_url: str | None
    honours_session_index: bool
    signing_kid: str | None
    live_at: datetime | None


PROVIDER_COLUMNS: tuple[Any, ...] = tuple(
    getattr(ServiceProvider, column.name).label(f"provider_{column.name}") for column in fields(Provider)
)


def provider_of(row: Any) -> Provider:
    """The service provider in a row that begins with `PROVIDER_COLUMNS`."""
    return Provider(*row[: len(PROVIDER_COLUMNS)])


@prepared
def _by(name: str) -> Query:
    return select(*PROVIDER_COLUMNS).where(getattr(ServiceProvider, name) == bindparam("value"))


@prepared
def _by_slug() -> Query:
    return (
        select(*PROVIDER_COLUMNS)
        .join(Application, Application.id == ServiceProvider.application_id)
        .where(Application.slug == bindparam("value"), Application.ended_at.is_(None))
    )


def _read(session: Session, query: Query, value: object) -> Provider | None:
    row = run(session, query, {"value": value}).one_or_none()
    return None if row is None else provider_of(row)


def by_entity_id(session: Session, entity_id: str) -> Provider | None:
    """The service provider of this name, compared octet by octet."""
    return _read(session, _by("entity_id"), entity_id)


def by_application(session: Session, application_id: uuid.UUID) -> Provider | None:
    """The service provider of an application."""
    return _read(session, _by("application_id"), application_id)


def by_slug(session: Session, slug: str) -> Provider | None:
    """The service provider of a live application, by its short name."""
    return _read(session, _by_slug(), slug)


def of_id(session: Session, provider_id: uuid.UUID) -> Provider:
    """The service provider with this id. None is ever deleted, so an id that was kept has one."""
    return provider_of(run(session, _by("id"), {"value": provider_id}).one())


def change_decisions(
    session: Session, provider: ServiceProvider, given: dict[str, Any], *, actor: Actor, now: datetime
) -> list[str]:
    """Change what we decided: live, encrypt, sign, idp_initiated, pin_key; None leaves one alone. Returns what changed.

    Raises Invalid when the metadata does not allow it.
    """
    values: dict[str, Any] = {k: given[k] for k in ("encrypt", "sign", "idp_initiated") if given.get(k) is not None}
    if values.get("encrypt") and not (
        provider.encryption_method and any(x509.read(c).rsa for c in provider.encryption_certs)
    ):
        raise Invalid(
            "暗号化する設定ですが、メタデータにRSAの暗号化証明書がないか、AES-GCMを受け取れないと書かれています。",
            field="encrypt",
        )
    if given.get("live") is not None:
        values["live_at"] = (provider.live_at or now) if given["live"] else None
    if given.get("pin_key"):
        values["signing_kid"] = None if given["pin_key"] == "none" else given["pin_key"]
    if values:
        change(session, update(ServiceProvider).where(ServiceProvider.id == provider.id).values(**values))
        record(
            session, Tag.PROVIDER_CHANGED, actor=actor, now=now, application_id=provider.application_id, changed=sorted(values),
        )  # fmt: skip
    return sorted(values)
