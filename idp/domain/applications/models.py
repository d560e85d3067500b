"""Applications (the supertype), relying parties (OpenID Connect), service providers (SAML), entitlements."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class Application(Base):
    """Something that people open. Without a company it belongs to the platform operator and serves every company (D18)."""

    __tablename__ = "application"

    company_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("company.id"), index=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    protocol: Mapped[str] = mapped_column(String(16), default="oidc")
    #: every function that an entitlement may name, such as `points.adjust`
    functions: Mapped[list[str]] = mapped_column(JSON, default=list)
    min_acr: Mapped[str | None] = mapped_column(String(64))
    #: how long a login inside the application lives by its own word; None = unknown, and the receipt says so
    session_life_s: Mapped[int | None]
    ended_at: Mapped[datetime | None]


class RelyingParty(Base):
    """The OpenID Connect side of an application. Secrets are digests; two may live at once for rotation (OA-24)."""

    __tablename__ = "relying_party"

    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"), unique=True)
    client_id: Mapped[str] = mapped_column(String(64), unique=True)
    secret_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    old_secret_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    old_secret_ends_at: Mapped[datetime | None]
    #: who was shown the secret: when they leave, somebody has to rotate it (RV-02)
    secret_seen_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    auth_method: Mapped[str] = mapped_column(String(32), default="client_secret_basic")
    redirect_uris: Mapped[list[str]] = mapped_column(JSON, default=list)
    post_logout_redirect_uris: Mapped[list[str]] = mapped_column(JSON, default=list)
    backchannel_logout_uri: Mapped[str | None] = mapped_column(String(2000))
    backchannel_logout_session_required: Mapped[bool] = mapped_column(default=False)
    initiate_login_uri: Mapped[str | None] = mapped_column(String(2000))
    id_token_alg: Mapped[str] = mapped_column(String(16), default="ES256")
    #: D5: a confidential client may be excepted from PKCE; it must then send a nonce
    pkce_exempt: Mapped[bool] = mapped_column(default=False)
    refresh_allowed: Mapped[bool] = mapped_column(default=True)
    #: admin policy of OI-13; a part-timer never gets an offline family all the same
    offline_allowed: Mapped[bool] = mapped_column(default=False)


class ServiceProvider(Base):
    """The SAML side of an application: what its metadata said when a person accepted it, and what we decided about it."""

    __tablename__ = "service_provider"

    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"), unique=True)
    entity_id: Mapped[str] = mapped_column(String(1024), unique=True)
    #: `saml2int` or `enterprise-compat` (C8); the second prints its warnings
    profile: Mapped[str] = mapped_column(String(24), default="saml2int")

    # from its metadata
    #: [{"url", "index", "default"}], all HTTP-POST
    acs: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    soap_logout_url: Mapped[str | None] = mapped_column(String(2000))
    #: redirect or post
    front_logout_binding: Mapped[str | None] = mapped_column(String(16))
    front_logout_url: Mapped[str | None] = mapped_column(String(2000))
    front_logout_response_url: Mapped[str | None] = mapped_column(String(2000))
    #: base64 of DER
    signing_certs: Mapped[list[str]] = mapped_column(JSON, default=list)
    encryption_certs: Mapped[list[str]] = mapped_column(JSON, default=list)
    #: URI of the content encryption, strongest that both sides can
    encryption_method: Mapped[str] = mapped_column(String(80), default="http://www.w3.org/2009/xmlenc11#aes256-gcm")
    requests_signed: Mapped[bool] = mapped_column(default=False)
    metadata_url: Mapped[str | None] = mapped_column(String(2000))
    #: SHA-256 of the document that was accepted, hexadecimal
    metadata_digest: Mapped[str] = mapped_column(String(64))
    metadata_until: Mapped[datetime | None]
    metadata_checked_at: Mapped[datetime | None]
    metadata_error: Mapped[str | None] = mapped_column(String(200))
    #: a newer document with another address or key: it waits for a person (SA-15)
    held: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    held_at: Mapped[datetime | None]

    # our decisions
    #: persistent, transient, email, mapped
    name_id: Mapped[str] = mapped_column(String(16), default="persistent")
    #: such as {login_name}.{company}@staff.example.jp, for `email`
    email_pattern: Mapped[str | None] = mapped_column(String(200))
    #: [{"name", "format", "friendly", "source"}]; empty = the names of D20
    attributes: Mapped[list[dict[str, str]]] = mapped_column(JSON, default=list)
    #: both, assertion or response (D11)
    sign: Mapped[str] = mapped_column(String(16), default="both")
    encrypt: Mapped[bool] = mapped_column(default=False)
    idp_initiated: Mapped[bool] = mapped_column(default=False)
    idp_targets: Mapped[list[str]] = mapped_column(JSON, default=list)
    start_url: Mapped[str | None] = mapped_column(String(2000))
    #: it ends only the sessions named by SessionIndex; without that a shared name cannot be cut by itself (SA-14)
    honours_session_index: Mapped[bool] = mapped_column(default=False)
    #: a key of ours that it pins (SA-16)
    signing_kid: Mapped[str | None] = mapped_column(String(64))
    #: None: only people who manage applications may log in, to test the connection
    live_at: Mapped[datetime | None]


class SamlSubject(Base):
    """The name under which a service provider knows an account. Never deleted and never given to anybody else (SA-14).

    kind `mapped`: several people share one account there, so the value repeats; our log keeps who it was.
    """

    __tablename__ = "saml_subject"
    __table_args__ = (
        Index("uq_saml_subject_account", "application_id", "account_id", "kind", unique=True),
        Index(
            "uq_saml_subject_value",
            "application_id",
            "value",
            unique=True,
            postgresql_where=text("kind <> 'mapped'"),
            sqlite_where=text("kind <> 'mapped'"),
        ),
    )

    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    value: Mapped[str] = mapped_column(String(255))


class Entitlement(Base):
    """Who may use an application, with which functions. subject_id is a company, region, store or account, or None for a role."""

    __tablename__ = "entitlement"
    __table_args__ = (Index("ix_entitlement_application", "application_id"),)

    company_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("company.id"))
    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    subject_kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[uuid.UUID | None]
    role: Mapped[str | None] = mapped_column(String(32))
    functions: Mapped[list[str]] = mapped_column(JSON, default=list)
    ends_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
