"""Another shared account of a service provider for a person: what was entered under the old one ends first (SA-14, RV-01)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from idp.domain.applications import names
from idp.domain.applications.models import Application
from idp.domain.directory.models import Account
from idp.ledgers.audit.log import Actor
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.models import Revocation
from idp.lifecycle.revocation.words import Scope


def remap(
    session: Session, application: Application, account: Account, value: str, order: Order, *, actor: Actor, now: datetime
) -> Revocation | None:  # fmt: skip
    """Say under which shared name a person works from now on. Returns the cut of the old one; None when there was none.

    The cut comes first: it takes the login sessions, so that an answer under way either is among what ends, or waits and then
    reads the new name. Raises Invalid for a name that cannot be used.
    """
    before = names.known_name(session, application.id, account.id, "mapped")
    made = None
    if before is not None and before != value.strip():
        target = Target(Scope.APPLICATION, account.id, application.id)
        made = cascade.revoke(session, target, order, actor=actor, now=now)
    names.map_account(session, application, account, value, actor=actor, now=now)
    return made
