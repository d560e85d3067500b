"""Applications (the supertype), relying parties (its OpenID Connect side), entitlements."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String
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
