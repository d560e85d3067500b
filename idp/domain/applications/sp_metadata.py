"""What a service provider's metadata says, and what happens when it says something else: accepted, held for a person, watched.

The SAML edge parses documents and hands them over as `SpFacts`; this module decides what may be accepted and keeps it (SA-15).
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import Session

from idp.core import x509
from idp.core.db import change
from idp.core.errors import Conflict, Invalid
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.applications.registration import check_web_uri
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.models import OutboxRow


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


def can_encrypt(facts: SpFacts) -> bool:
    """True when an assertion can be encrypted for it with AES-GCM and RSA-OAEP."""
    return facts.encryption_method is not None and any(x509.read(der).rsa for der in facts.encryption_certs)


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


def receive(
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
    # who looks at what is held must not find it replaced by the same, signed anew, each time it is read
    held_already = bool(found) and provider.held is not None and _same(SpFacts.from_json(provider.held), facts)
    if not found:
        values |= {"metadata_until": facts.until, "metadata_digest": facts.digest, "held": None, "held_at": None}
    elif not held_already:
        values |= {"held": facts.to_json(), "held_at": now}
    change(session, update(ServiceProvider).where(ServiceProvider.id == provider.id).values(**values))
    if found and not held_already:
        record(
            session, Tag.METADATA_HELD, actor=actor, now=now, application_id=provider.application_id, metadata=facts.digest,
            differs=[one.what for one in found],
        )  # fmt: skip
    elif not found and (facts.digest, facts.until) != (provider.metadata_digest, provider.metadata_until):
        record(
            session, Tag.METADATA_RENEWED, actor=actor, now=now, application_id=provider.application_id, metadata=facts.digest,
            until=facts.until,
        )  # fmt: skip
    return found


def _same(one: SpFacts, other: SpFacts) -> bool:
    return replace(one, digest="", until=None) == replace(other, digest="", until=None)


# --- watching --------------------------------------------------------------------------------------------------------

TOPIC = "metadata"
#: how often a document with an address is read again, and how often when it ends before that (SA-15)
EVERY, HURRY = timedelta(hours=6), timedelta(minutes=30)
#: after that a failing address rests until it is due again
GIVE_UP = timedelta(hours=6)


def put_due(session: Session, *, now: datetime) -> int:
    """One delivery to ourselves for each document that has to be read again. Returns how many are due."""
    under_way = exists().where(
        OutboxRow.topic == TOPIC, OutboxRow.ref == ServiceProvider.id, OutboxRow.state.in_(("waiting", "leased"))
    )
    rows = session.execute(
        select(ServiceProvider.id, ServiceProvider.metadata_url)
        .join(Application, Application.id == ServiceProvider.application_id)
        .where(
            Application.ended_at.is_(None), ServiceProvider.metadata_url.is_not(None), ~under_way,
            or_(
                ServiceProvider.metadata_checked_at.is_(None), ServiceProvider.metadata_checked_at <= now - EVERY,
                and_(ServiceProvider.metadata_until <= now + EVERY, ServiceProvider.metadata_checked_at <= now - HURRY),
            ),
        )
        .order_by(ServiceProvider.id)
    ).all()  # fmt: skip
    period = int(now.timestamp() // HURRY.total_seconds())
    queue.put_all(
        session,
        [
            queue.delivery(
                topic=TOPIC, ref=row.id, destination=row.metadata_url, dedup_key=f"metadata:{row.id}:{period}", now=now,
                give_up_after=GIVE_UP,
            )
            for row in rows
        ],
    )  # fmt: skip
    return len(rows)


def addresses(session: Session) -> list[tuple[str, str]]:
    """Short name and address of every live service provider whose metadata has one."""
    rows = session.execute(
        select(Application.slug, ServiceProvider.metadata_url)
        .join(ServiceProvider, ServiceProvider.application_id == Application.id)
        .where(Application.ended_at.is_(None), ServiceProvider.metadata_url.is_not(None))
        .order_by(Application.slug)
    )
    return [(row.slug, str(row.metadata_url)) for row in rows]


def take(session: Session, provider_id: uuid.UUID) -> ServiceProvider:
    """A service provider whose metadata is about to change: until the end of the transaction nobody else changes it."""
    return session.execute(
        select(ServiceProvider).where(ServiceProvider.id == provider_id).with_for_update(key_share=True)
    ).scalar_one()


def failed(session: Session, provider: ServiceProvider, word: str, *, actor: Actor, now: datetime) -> None:
    """The address gave nothing that can be used: kept for the page and `doctor`, and in the log once per reason."""
    if provider.metadata_error == word[:200]:
        return
    change(session, update(ServiceProvider).where(ServiceProvider.id == provider.id).values(metadata_error=word[:200]))
    record(
        session, Tag.METADATA_FAILED, actor=actor, now=now, result="refused", application_id=provider.application_id, reason=word[:200],
    )  # fmt: skip


def approve(session: Session, provider: ServiceProvider, *, digest: str, actor: Actor, now: datetime) -> None:
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
        if provider.metadata_error is not None:
            read = f"{provider.metadata_checked_at:%Y-%m-%d %H:%M}" if provider.metadata_checked_at else "never"
            found.append((slug, f"its metadata cannot be read ({provider.metadata_error}); last read: {read}"))
        # one that is read again by itself may be valid for days only
        watched = provider.metadata_url is not None and provider.metadata_error is None
        if provider.metadata_until is not None and provider.metadata_until - now < (EVERY if watched else SOON):
            found.append(
                (slug, f"its metadata is valid until {provider.metadata_until:%Y-%m-%d}: `sekisho saml refresh`")
            )
        ends = min((x509.read(der).ends_at for der in provider.signing_certs), default=None)
        if ends is not None and ends - now < SOON:
            found.append((slug, f"a certificate of its metadata ends {ends:%Y-%m-%d}: ask for newer metadata"))
    return found
