"""Service providers: registering one, accepting and holding its metadata, the names it knows people by.

What metadata says arrives here as `SpFacts`, parsed by the SAML edge; this module decides what may be accepted and keeps it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from idp.core import ids, x509
from idp.core.db import change, insert_into
from idp.core.errors import Conflict, Invalid, NotFound
from idp.domain.applications.models import Application, SamlSubject, ServiceProvider
from idp.domain.applications.registry import FUNCTION, SLUG, check_web_uri
from idp.domain.directory.models import Account
from idp.domain.directory.people import clean_name
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record

NAME_IDS = ("persistent", "transient", "email", "mapped")
PROFILES = ("saml2int", "enterprise-compat")
SIGNS = ("both", "assertion", "response")
FORMATS = {
    "persistent": "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    "transient": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
    "email": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
    "mapped": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
}
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
#: of every answer: built once, only bound afterwards (performance.md 4.1)
_BY_ENTITY_ID = select(ServiceProvider).where(ServiceProvider.entity_id == bindparam("entity_id"))
_NAME = select(SamlSubject.value).where(
    SamlSubject.application_id == bindparam("application"), SamlSubject.account_id == bindparam("account"),
    SamlSubject.kind == bindparam("kind"),
)  # fmt: skip


@dataclass(frozen=True)
class SpFacts:
    """What a metadata document says, as far as we use it. Certificates are base64 of DER; digest: SHA-256 of the document."""

    entity_id: str
    acs: tuple[dict[str, Any], ...]
    digest: str
    name: str = ""
    soap_logout_url: str | None = None
    front_logout_binding: str | None = None
    front_logout_url: str | None = None
    front_logout_response_url: str | None = None
    signing_certs: tuple[str, ...] = ()
    encryption_certs: tuple[str, ...] = ()
    encryption_method: str | None = "http://www.w3.org/2009/xmlenc11#aes256-gcm"
    requests_signed: bool = False
    wants_assertions_signed: bool = False
    name_id_formats: tuple[str, ...] = ()
    until: datetime | None = None

    def columns(self) -> dict[str, Any]:
        """The columns of `service_provider` that metadata fills."""
        return {
            "entity_id": self.entity_id, "acs": list(self.acs), "soap_logout_url": self.soap_logout_url,
            "front_logout_binding": self.front_logout_binding, "front_logout_url": self.front_logout_url,
            "front_logout_response_url": self.front_logout_response_url, "signing_certs": list(self.signing_certs),
            "encryption_certs": list(self.encryption_certs), "encryption_method": self.encryption_method or "",
            "requests_signed": self.requests_signed, "metadata_digest": self.digest, "metadata_until": self.until,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """For the column `held`."""
        return {**asdict(self), "until": self.until.isoformat() if self.until else None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SpFacts:
        """Back from the column `held`."""
        until = datetime.fromisoformat(value["until"]) if value["until"] else None
        lists = {k: tuple(v) for k, v in value.items() if isinstance(v, list)}
        return cls(**{**value, **lists, "until": until})


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


def check_facts(facts: SpFacts, *, loopback: bool) -> None:
    """Every address and key of a document, before it is accepted. Raises Invalid, naming what to change."""
    if not facts.acs:
        raise Invalid("メタデータに、HTTP-POSTで受け取る宛先(AssertionConsumerService)がありません。", field="metadata")
    urls = [place["url"] for place in facts.acs]
    urls += [u for u in (facts.soap_logout_url, facts.front_logout_url, facts.front_logout_response_url) if u]
    for url in urls:
        check_web_uri(url, "metadata", loopback=loopback)
    if len(facts.entity_id) > 1024 or not facts.entity_id.strip():
        raise Invalid("メタデータのentityIDが使えません。", field="metadata")
    for der in (*facts.signing_certs, *facts.encryption_certs):
        x509.read(der)


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


def can_encrypt(facts: SpFacts) -> bool:
    """True when an assertion can be encrypted for it with AES-GCM and RSA-OAEP."""
    return facts.encryption_method is not None and any(x509.read(der).rsa for der in facts.encryption_certs)


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


def by_entity_id(session: Session, entity_id: str) -> ServiceProvider | None:
    """The service provider of this name, compared octet by octet."""
    return session.scalar(_BY_ENTITY_ID, {"entity_id": entity_id})


def by_slug(session: Session, slug: str) -> ServiceProvider | None:
    """The service provider of a live application, by its short name."""
    return session.scalar(
        select(ServiceProvider)
        .join(Application, Application.id == ServiceProvider.application_id)
        .where(Application.slug == slug, Application.ended_at.is_(None))
    )


# --- metadata that came again ----------------------------------------------------------------------------------------

#: a difference in one of these could send a person's data to somebody else: it waits for a person (SA-15)
GUARDED = (
    "entity_id", "acs", "soap_logout_url", "front_logout_binding", "front_logout_url", "front_logout_response_url", "signing_certs",
    "encryption_certs", "encryption_method", "requests_signed",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One guarded thing that a newer document has otherwise."""

    what: str
    before: Any = field(compare=False)
    after: Any = field(compare=False)


def differences(provider: ServiceProvider, facts: SpFacts) -> list[Difference]:
    """What is different, in the order of GUARDED."""
    new = facts.columns()
    found = [Difference(name, getattr(provider, name), new[name]) for name in GUARDED]
    return [
        one
        for one in found
        if one.before != one.after and not (one.what == "requests_signed" and one.before and not one.after)
    ]


def receive_metadata(
    session: Session, provider: ServiceProvider, facts: SpFacts, *, loopback: bool, actor: Actor, now: datetime
) -> list[Difference]:
    """Newer metadata of a service provider: what only moves dates is taken, anything else is held for a person (SA-15).

    Returns what is held. Raises Invalid for another entityID or a document that could never be accepted.
    """
    if facts.entity_id != provider.entity_id:
        raise Invalid("このメタデータは、別のアプリのものです(entityIDが違います)。", field="metadata")
    check_facts(facts, loopback=loopback)
    found = differences(provider, facts)
    values: dict[str, Any] = {"metadata_checked_at": now, "metadata_error": None}
    if found:
        values |= {"held": facts.to_json(), "held_at": now}
    else:
        values |= {"metadata_until": facts.until, "metadata_digest": facts.digest, "held": None, "held_at": None}
    change(session, update(ServiceProvider).where(ServiceProvider.id == provider.id).values(**values))
    if found:
        record(
            session, Tag.METADATA_HELD, actor=actor, now=now, application_id=provider.application_id, metadata=facts.digest,
            differs=[one.what for one in found],
        )  # fmt: skip
    return found


def approve_metadata(session: Session, provider: ServiceProvider, *, digest: str, actor: Actor, now: datetime) -> None:
    """A person looked at what is held and accepts exactly that document. Raises Conflict when it is another one by now."""
    held = provider.held
    if held is None or held["digest"] != digest:
        raise Conflict("確認していた内容が変わりました。もう一度確かめてください。", "held metadata differs")
    facts = SpFacts.from_json(held)
    if provider.encrypt and not can_encrypt(facts):
        raise Invalid(
            "このアプリは暗号化する設定です。新しいメタデータには使える暗号化証明書がありません。", field="metadata"
        )
    columns = facts.columns() | {"requests_signed": facts.requests_signed or provider.requests_signed}
    went = change(
        session,
        update(ServiceProvider)
        .where(ServiceProvider.id == provider.id, ServiceProvider.held_at == provider.held_at)
        .values(**columns, held=None, held_at=None),
    )
    if not went:
        raise Conflict("確認していた内容が変わりました。もう一度確かめてください。", "held metadata changed meanwhile")
    record(
        session,
        Tag.METADATA_APPROVED,
        actor=actor,
        now=now,
        application_id=provider.application_id,
        metadata=facts.digest,
    )


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


SOON = timedelta(days=30)


def ending_soon(session: Session, *, now: datetime) -> list[tuple[str, str]]:
    """Service providers that somebody has to look at: slug, and why. An end date printed around a key stops nothing by itself
    (MetaIOP §2.6.1); it is told before the other side is surprised by it."""
    found = []
    rows = session.execute(
        select(Application.slug, ServiceProvider)
        .join(ServiceProvider, ServiceProvider.application_id == Application.id)
        .where(Application.ended_at.is_(None))
        .order_by(Application.slug)
    )
    for slug, provider in rows:
        if provider.held_at is not None:
            found.append((slug, "newer metadata waits: `sekisho saml show` and `saml approve`"))
        if provider.metadata_until is not None and provider.metadata_until - now < SOON:
            found.append(
                (slug, f"its metadata is valid until {provider.metadata_until:%Y-%m-%d}: `sekisho saml refresh`")
            )
        ends = min((x509.read(der).ends_at for der in provider.signing_certs), default=None)
        if ends is not None and ends - now < SOON:
            found.append((slug, f"a certificate of its metadata ends {ends:%Y-%m-%d}: ask for newer metadata"))
    return found


# --- names -----------------------------------------------------------------------------------------------------------


def known_name(session: Session, application_id: uuid.UUID, account_id: uuid.UUID, kind: str) -> str | None:
    """The name under which a service provider knows this account already."""
    return session.scalar(_NAME, {"application": application_id, "account": account_id, "kind": kind})


def keep_name(
    session: Session, application_id: uuid.UUID, account_id: uuid.UUID, kind: str, value: str, *, now: datetime
) -> str | None:
    """Give an account this name at a service provider, or find the one that it has. None: the value is somebody else's, and
    a name is never used for a second person (SA-14)."""
    row = {
        "id": ids.new_id(now), "created_at": now, "application_id": application_id, "account_id": account_id, "kind": kind,
        "value": value,
    }  # fmt: skip
    session.execute(insert_into(session, SamlSubject).values(row).on_conflict_do_nothing())
    return known_name(session, application_id, account_id, kind)


def map_account(
    session: Session, application: Application, account: Account, value: str, *, actor: Actor, now: datetime
) -> None:
    """Say under which shared name of the service provider a person works; our log keeps who it was. Raises Invalid."""
    value = value.strip()
    if not value or len(value) > 255 or not value.isprintable():
        raise Invalid("アプリ側の利用者IDは1〜255文字で入れてください。", field="name_id")
    row = {
        "id": ids.new_id(now), "created_at": now, "application_id": application.id, "account_id": account.id, "kind": "mapped",
        "value": value,
    }  # fmt: skip
    statement = insert_into(session, SamlSubject).values(row)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["application_id", "account_id", "kind"], set_={"value": value, "created_at": now}
        )
    )
    record(
        session, Tag.ACCOUNT_MAPPED, actor=actor, now=now, company_id=account.company_id, subject_id=account.id,
        application_id=application.id, name_id=value,
    )  # fmt: skip
