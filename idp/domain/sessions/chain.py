"""The front-channel part of a logout: service providers that can only be told through the person's own browser (SA-23).

Our login session is over before the first of them is asked, and nothing here is ever evidence of a cut. The chain is a stored
request like any other that waits for a person: its handle opens it, for some minutes, and each part says what came of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from idp.core.db import change
from idp.domain.applications.models import Application, ServiceProvider
from idp.domain.sessions import live
from idp.domain.sessions.live import Waiting
from idp.domain.sessions.models import AppSession, PendingRequest

CHAIN, PART = "saml-chain", "saml-part"
LIFE = timedelta(minutes=10)


@dataclass(frozen=True)
class Part:
    """One service provider of a chain. state: waiting, confirmed (it said so, signed), refused (it said no)."""

    provider: str
    application: str
    name_id: str
    format: str
    index: str
    state: str = "waiting"


@dataclass(frozen=True)
class Initiator:
    """The service provider whose LogoutRequest began it, and what its answer needs."""

    provider: str
    request_id: str
    relay_state: str | None
    partial: bool


@dataclass(frozen=True)
class Chain:
    """A chain as it stands. told: names of the applications that are told directly; target: where the person goes afterwards."""

    id: uuid.UUID
    parts: tuple[Part, ...]
    told: tuple[str, ...]
    target: str | None
    initiator: Initiator | None


def open_chain(
    session: Session, login_sessions: Sequence[uuid.UUID], *, now: datetime, told: Sequence[str] = (), target: str | None = None,
    initiator: Initiator | None = None, skip: Sequence[uuid.UUID] = (),
) -> str | None:  # fmt: skip
    """Begin a chain over what has just ended in these login sessions; None when nobody has to be asked through the browser.

    skip: app sessions whose service provider knows already. Returns the handle.
    """
    rows = session.execute(
        select(ServiceProvider.id, Application.name, AppSession.sub, AppSession.name_id_format, AppSession.sid)
        .join(ServiceProvider, ServiceProvider.application_id == AppSession.application_id)
        .join(Application, Application.id == AppSession.application_id)
        .where(
            AppSession.login_session_id.in_(login_sessions), AppSession.ended_at == now, AppSession.id.not_in(skip),
            ServiceProvider.soap_logout_url.is_(None), ServiceProvider.front_logout_url.is_not(None),
        )
        .order_by(Application.name, AppSession.id)
    ).all()  # fmt: skip
    if not rows:
        return None
    parts = [asdict(Part(str(row.id), row.name, row.sub, row.name_id_format or "", row.sid)) for row in rows]
    parameters: dict[str, Any] = {
        "parts": parts, "told": list(told), "target": target, "initiator": asdict(initiator) if initiator else None,
    }  # fmt: skip
    return live.put_request(session, protocol=CHAIN, parameters=parameters, now=now, life=LIFE)


def find(session: Session, handle: str, *, now: datetime) -> Chain | None:
    """The chain behind a handle, or None when it is unknown, over or too old."""
    row = live.find_request(session, handle, protocol=CHAIN, now=now)
    return None if row is None else _chain(row)


def _chain(row: Waiting) -> Chain:
    kept = row.parameters
    return Chain(
        row.id, tuple(Part(**part) for part in kept["parts"]), tuple(kept["told"]), kept["target"],
        Initiator(**kept["initiator"]) if kept["initiator"] else None,
    )  # fmt: skip


def ask(session: Session, chain: Chain, number: int, *, now: datetime) -> str:
    """A new message ID for asking one part (again); its answer is found by it."""
    return "_" + live.put_request(
        session, protocol=PART, parameters={"chain": str(chain.id), "number": number, "provider": chain.parts[number].provider}, now=now,
        life=LIFE,
    )  # fmt: skip


def answered(session: Session, message_id: str, provider_id: uuid.UUID, *, good: bool, now: datetime) -> bool:
    """Write what one part answered, once. False: nobody asked this service provider under that ID, or it answered already."""
    row = live.find_request(session, message_id.removeprefix("_"), protocol=PART, now=now)
    if row is None or row.parameters["provider"] != str(provider_id):
        return False
    wanted, number = uuid.UUID(row.parameters["chain"]), int(row.parameters["number"])
    if not live.use_request(session, row.id, now=now):
        return False
    # several frames answer at once: each takes the chain's row before it reads the others' states
    whole = session.scalar(select(PendingRequest).where(PendingRequest.id == wanted).with_for_update(key_share=True))
    if whole is None:
        return False
    parts = [dict(part) for part in whole.parameters["parts"]]
    parts[number]["state"] = "confirmed" if good else "refused"
    change(
        session,
        update(PendingRequest)
        .where(PendingRequest.id == wanted)
        .values(parameters={**whole.parameters, "parts": parts}),
    )
    return True
