"""Tool sessions, gateway sessions and their cookies, tickets, login jobs, the access log, gateway processes."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from idp.core.db import Base

SHARED = text("ended_at IS NULL AND account_id IS NULL")
OF_A_PERSON = text("ended_at IS NULL AND account_id IS NOT NULL")
OPEN = text("done_at IS NULL")


class ToolSession(Base):
    """Our login inside a tool. account_id: of the one person it is for, where the tool does not share (VA-52).

    state: opening, live, renewing, needs_human, ending, ended. generation: which login; jar_version: which jar of it.
    """

    __tablename__ = "tool_session"
    __table_args__ = (
        Index("uq_tool_session_shared", "tool_account_id", unique=True, postgresql_where=SHARED, sqlite_where=SHARED),
        Index(
            "uq_tool_session_person",
            "tool_account_id",
            "account_id",
            unique=True,
            postgresql_where=OF_A_PERSON,
            sqlite_where=OF_A_PERSON,
        ),
    )

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    tool_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_account.id"))
    account_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"), index=True)
    state: Mapped[str] = mapped_column(String(16), default="opening")
    #: why a person is needed, or how the last job failed
    code: Mapped[str | None] = mapped_column(String(40))
    generation: Mapped[int] = mapped_column(default=0)
    jar_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    jar_version: Mapped[int] = mapped_column(default=0)
    device_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    scan_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: the last renewal that the gateway asked for: a second one within a minute needs a person
    renewed_at: Mapped[datetime | None]
    last_ok_at: Mapped[datetime | None]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))


class GatewaySession(Base):
    """One person in one tool from one browser. A row before anything leaves; terminal once ended.

    state: opening, admitted; the end is `ended_at`. lane: gateway or viewer.
    """

    __tablename__ = "gateway_session"
    __table_args__ = (
        Index("ix_gateway_session_account", "account_id"),
        Index("ix_gateway_session_app_session", "app_session_id"),
        Index("ix_gateway_session_tool_session", "tool_session_id"),
    )

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    app_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("app_session.id"))
    application_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("application.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("account.id"))
    #: through which the tool account was theirs; None where the account inside the tool is the person's or the company's
    assignment_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("assignment.id"))
    tool_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_account.id"))
    tool_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_session.id"))
    recipe_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recipe.id"))
    epoch: Mapped[int]
    lane: Mapped[str] = mapped_column(String(16), default="gateway")
    #: 100 random bits, a DNS label; not a secret
    label: Mapped[str] = mapped_column(String(40), unique=True)
    #: gateway host → host of the tool, the primary one first
    hosts: Mapped[dict[str, str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16), default="opening")
    admitted_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime]
    idle_s: Mapped[int]
    idle_until: Mapped[datetime]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    #: signed_out, switched, idle, max_age, cut, tool_lost
    end_reason: Mapped[str | None] = mapped_column(String(40))
    revocation_id: Mapped[uuid.UUID | None]


class GatewayCookie(Base):
    """The cookie of one origin of a gateway session; another origin's is another row (VA-51)."""

    __tablename__ = "gateway_cookie"

    gateway_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("gateway_session.id"), index=True)
    host: Mapped[str] = mapped_column(String(255))
    cookie_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)


class AdmissionTicket(Base):
    """Leads one browser into one origin, once, within 60 seconds. challenge: SHA-256 of that browser's nonce cookie."""

    __tablename__ = "admission_ticket"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    gateway_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("gateway_session.id"), index=True)
    host: Mapped[str] = mapped_column(String(255))
    challenge: Mapped[bytes] = mapped_column(LargeBinary(32))
    ends_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class UseTicket(Base):
    """Permission to open one credential once, for one purpose (VA-30). Signed: a row written into the table is no ticket.

    purpose: login, renew, probe, rotate, end_session. account_id, app_session_id, epoch: of the person for whom, whose
    gate is claimed at use; without a person it is a job of ours, whose lease is.
    """

    __tablename__ = "use_ticket"
    __table_args__ = (Index("ix_use_ticket_account", "account_id"),)

    purpose: Mapped[str] = mapped_column(String(16))
    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    store_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("store.id"))
    tool_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_account.id"), index=True)
    account_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("account.id"))
    app_session_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("app_session.id"))
    epoch: Mapped[int | None]
    #: the login job or the rotation that asks
    job_id: Mapped[uuid.UUID | None]
    jti: Mapped[str] = mapped_column(String(64), unique=True)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    ends_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(40))


class LoginJob(Base):
    """Work for the engine at one tool session: login, renew, logout, probe. One open job per tool session.

    submitted_at is committed before a secret is sent: a job that has it is never run again by a machine (VA-47).
    """

    __tablename__ = "login_job"
    __table_args__ = (
        Index("uq_login_job_open", "tool_session_id", unique=True, postgresql_where=OPEN, sqlite_where=OPEN),
        Index("ix_login_job_waiting", "next_at", postgresql_where=OPEN, sqlite_where=OPEN),
    )

    company_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("company.id"))
    tool_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tool_session.id"))
    generation: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    use_ticket_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("use_ticket.id"))
    next_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    submitted_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
    result: Mapped[str | None] = mapped_column(String(40))


class GatewayAccess(Base):
    """One request of one person at a tool: who did what when, without contents. route: a path, never a query."""

    __tablename__ = "gateway_access"
    __table_args__ = (
        Index("ix_gateway_access_session", "gateway_session_id", "at"),
        Index("ix_gateway_access_at", "at"),
    )

    gateway_session_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("gateway_session.id"))
    at: Mapped[datetime]
    method: Mapped[str] = mapped_column(String(16))
    route: Mapped[str] = mapped_column(String(500))
    #: None: it was about to be sent
    status: Mapped[int | None]
    sent_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    rule: Mapped[str] = mapped_column(String(40), default="")


class GatewayProcess(Base):
    """A gateway process. When its lease has lapsed it has closed every socket itself, so a cut need not wait for it."""

    __tablename__ = "gateway_process"

    started_at: Mapped[datetime]
    #: when the last complete sweep of all its sockets began
    swept_at: Mapped[datetime]
    lease_until: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
