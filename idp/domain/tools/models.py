"""Recipes, tools, accounts inside tools, certifications, and what was measured about cutting them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base


class RecipeText(Base):
    """One version of a recipe, as it was approved. Never changed: another text is another row (VA-58).

    Without a company it is built in or signed. source: builtin, signed, local; a local one is usable once somebody other
    than its proposer approved it.
    """

    __tablename__ = "recipe"
    __table_args__ = (
        Index("uq_recipe_company_digest", "company_id", "digest", unique=True),
        Index(
            "uq_recipe_digest",
            "digest",
            unique=True,
            postgresql_where=text("company_id IS NULL"),
            sqlite_where=text("company_id IS NULL"),
        ),
    )

    company_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("company.id"))
    #: `id` and `version` inside the text
    slug: Mapped[str] = mapped_column(String(64), index=True)
    version: Mapped[int]
    #: SHA-256 of the text, hexadecimal
    digest: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(16))
    proposed_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    approved_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    approved_at: Mapped[datetime | None]


class Tool(Base):
    """The password side of an application, beside `RelyingParty` and `ServiceProvider`."""

    __tablename__ = "tool"

    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"), unique=True)
    #: pins the text: another one means a new approval and certification
    recipe_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recipe.id"))
    #: gateway, viewer, none
    lane: Mapped[str] = mapped_column(String(16), default="gateway")
    #: the terms forbid automation or sharing, and somebody holds a written permission (VA-48)
    terms_attested_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    terms_attested_at: Mapped[datetime | None]


class ToolAccount(Base):
    """One account inside a tool: of a company, a store, a role in it, or one person. The narrowest that fits is used.

    tries: submits in the current window, against the tool's own lock-out; degraded: a person has to look first.
    """

    __tablename__ = "tool_account"
    __table_args__ = (
        Index("ix_tool_account_application", "application_id", "company_id"),
        Index("ix_tool_account_store", "store_id"),
    )

    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    store_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("store.id"))
    role: Mapped[str | None] = mapped_column(String(32))
    account_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"), index=True)
    label: Mapped[str] = mapped_column(String(100))
    #: fields that stand in a host name, such as {"subdomain": "kaede"}; never secret, frozen
    host_fields: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    #: company, store, person, unknown: whose mailbox a password reset reaches
    recovery_owner: Mapped[str] = mapped_column(String(16), default="unknown")
    tries: Mapped[int] = mapped_column(default=0)
    tries_since: Mapped[datetime | None]
    blocked_until: Mapped[datetime | None]
    #: a certification works here alone until then; jobs and rotations hold rows of their own
    held_until: Mapped[datetime | None]
    hold_fence: Mapped[int] = mapped_column(default=0, server_default="0")
    #: active, degraded, disabled
    state: Mapped[str] = mapped_column(String(16), default="active")
    #: why it is degraded: a code of the engine or the gateway
    code: Mapped[str | None] = mapped_column(String(40))
    ended_at: Mapped[datetime | None]


class Certification(Base):
    """The checks of a recipe against the real tool. Without a valid one nobody is let through the gateway."""

    __tablename__ = "certification"
    __table_args__ = (Index("ix_certification_account", "tool_account_id", "run_at"),)

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    tool_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_account.id"))
    recipe_digest: Mapped[str] = mapped_column(String(64))
    #: passed, failed
    result: Mapped[str] = mapped_column(String(16))
    #: [{"check", "outcome", "detail"}], never a value of a field
    checks: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    evidence_digest: Mapped[str] = mapped_column(String(64))
    run_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_code: Mapped[str | None] = mapped_column(String(40))


class KillCapability(Base):
    """What a change of password and a sign-out do in this tool: measured, never assumed (VA-40)."""

    __tablename__ = "kill_capability"

    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"), unique=True)
    #: api, admin, form, reset, none
    change_by: Mapped[str] = mapped_column(String(16), default="none")
    #: at_once, after, never, untested
    change_ends_sessions: Mapped[str] = mapped_column(String(16), default="untested")
    #: seconds, where `after`
    change_ends_after_s: Mapped[int | None]
    sign_out_everywhere: Mapped[bool] = mapped_column(default=False)
    other_keys: Mapped[bool] = mapped_column(default=False)
    mails_old_user: Mapped[bool] = mapped_column(default=False)
    tool_version: Mapped[str] = mapped_column(String(100), default="")
    measured_at: Mapped[datetime | None]
    proof_digest: Mapped[str | None] = mapped_column(String(64))
