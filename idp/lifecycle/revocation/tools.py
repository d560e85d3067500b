"""What a person can reach, holds open and may know in password-only tools, as the snapshot of a cut sees it.

No secret is opened here, no recipe is read and nobody is called: a cut must go through with the vault sealed (VA-25).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from connectors.cutclass import CutClass
from idp.domain.applications import decide as gate
from idp.domain.applications import registry as applications
from idp.domain.applications.models import Application
from idp.domain.credentials import standing
from idp.domain.directory.models import Company
from idp.domain.gateway import gateway_sessions, tool_sessions
from idp.domain.gateway.models import GatewaySession, ToolSession
from idp.domain.sessions.models import AppSession
from idp.domain.tools import registry
from idp.domain.tools.models import Tool, ToolAccount
from idp.lifecycle.revocation.plan import ToolAccess, ToolUse

#: with the policy `used`, a password that the person could have used within this time is changed (§9)
USED_LATELY = timedelta(days=90)
#: the strongest class: what a person may reach does not depend on how they logged in today
ANY_ACR = gate.ACR_ORDER[-1]


def within_reach(
    session: Session, account_id: uuid.UUID, company_id: uuid.UUID, *, assignment_id: uuid.UUID | None = None,
    application_id: uuid.UUID | None = None, now: datetime,
) -> frozenset[uuid.UUID]:  # fmt: skip
    """Tool accounts that are for this person now: whoever may use one may have been told its password (VA-42).

    Called before the assignments end. assignment_id: only those that are theirs through this assignment.
    """
    of_tools = (
        select(Application)
        .join(Tool, Tool.application_id == Application.id)
        .where(
            Application.ended_at.is_(None), or_(Application.company_id.is_(None), Application.company_id == company_id)
        )
        .order_by(Application.id)
    )
    if application_id is not None:
        of_tools = of_tools.where(Application.id == application_id)
    candidates = session.scalars(of_tools).all()
    if not candidates:
        return frozenset()
    facts = gate.load_facts_of(session, account_id, [application.id for application in candidates], now=now)
    open_to_them = {}
    for application in candidates:
        theirs = facts.get(application.id)
        if theirs is None:
            continue
        said = gate.decide(applications.facts_of(application), theirs, acr=ANY_ACR)
        if not isinstance(said, gate.Refused):
            open_to_them[application.id] = theirs
    return frozenset(
        fit.tool_account.id
        for fits in registry.fitting_in(session, open_to_them).values()
        for fit in fits
        if assignment_id is None or fit.assignment_id == assignment_id
    )


def end_use(
    session: Session, apps: ColumnElement[bool], account_id: uuid.UUID, revocation_id: uuid.UUID, *, reason: str,
    application_id: uuid.UUID | None, whole_person: bool, now: datetime,
) -> tuple[Mapping[uuid.UUID, int], Mapping[uuid.UUID, uuid.UUID]]:  # fmt: skip
    """End the gateway sessions inside these app sessions, and the tool sessions that are this person's alone.

    whole_person: not only one of their devices. Returns how many gateway sessions ended in each application, and the tool
    sessions that are ending, each with its application.
    """
    inside = GatewaySession.app_session_id.in_(select(AppSession.id).where(apps))
    counts: dict[uuid.UUID, int] = {}
    if gateway_sessions.end_sessions(session, inside, reason=reason, now=now, revocation_id=revocation_id):
        rows = session.execute(
            select(GatewaySession.application_id, func.count())
            .where(GatewaySession.account_id == account_id, GatewaySession.revocation_id == revocation_id)
            .group_by(GatewaySession.application_id)
        )
        counts = {row[0]: row[1] for row in rows}
    if not whole_person:
        return counts, {}
    alone = [ToolSession.account_id == account_id]
    if application_id is not None:
        of_it = select(ToolAccount.id).where(ToolAccount.application_id == application_id)
        alone.append(ToolSession.tool_account_id.in_(of_it))
    ending = tool_sessions.end(session, and_(*alone), reason=reason, now=now)
    if not ending:
        return counts, {}
    places = session.execute(
        select(ToolSession.id, ToolAccount.application_id)
        .join(ToolAccount, ToolAccount.id == ToolSession.tool_account_id)
        .where(ToolSession.id.in_(ending))
    )
    return counts, {row[0]: row[1] for row in places}


def use_of(
    session: Session, apps: ColumnElement[bool], reach: Collection[uuid.UUID], ended: Mapping[uuid.UUID, int],
    ending: Mapping[uuid.UUID, uuid.UUID], *, knows: bool, assignment_id: uuid.UUID | None = None, now: datetime,
) -> ToolUse:  # fmt: skip
    """The tools of a cut: those within reach and those ever entered, with the classes of their lines.

    knows: the scope reaches what the person may know; one lost device does not. assignment_id: only what was theirs through
    this assignment; who stays in another store keeps that store's passwords.
    """
    which: list[ColumnElement[bool]] = [GatewaySession.app_session_id.in_(select(AppSession.id).where(apps))]
    if assignment_id is not None:
        which.append(GatewaySession.assignment_id == assignment_id)
    entered = session.execute(
        select(
            GatewaySession.application_id, GatewaySession.tool_account_id, func.max(GatewaySession.last_seen_at).label("last")
        )
        .where(*which)
        .group_by(GatewaySession.application_id, GatewaySession.tool_account_id)
    ).all()  # fmt: skip
    wanted = {row.tool_account_id for row in entered} | set(reach)
    if not wanted:
        return ToolUse((), ended, ending, frozenset())
    classes = standing.cut_lines(session, wanted, now=now) if knows else {}
    used = {row.tool_account_id for row in entered}
    lately = set(reach) | {row.tool_account_id for row in entered if now - row.last <= USED_LATELY}
    rows = session.execute(
        select(ToolAccount.id, ToolAccount.application_id, Application.session_life_s, Company.change_on_leaving)
        .join(Application, Application.id == ToolAccount.application_id)
        .join(Company, Company.id == ToolAccount.company_id)
        .where(ToolAccount.id.in_(wanted))
        .order_by(Application.name, Application.id, ToolAccount.id)
    ).all()
    access = tuple(
        ToolAccess(
            row.application_id, row.id, row.id in used, classes.get(row.id, ()),
            timedelta(seconds=row.session_life_s) if row.session_life_s else None,
            by_policy=knows and row.change_on_leaving == "used" and row.id in lately,
        )
        for row in rows
    )  # fmt: skip
    return ToolUse(access, ended, ending, frozenset(row.application_id for row in entered))


@dataclass(frozen=True)
class ToolChoice:
    """One account inside a tool, in the dialog before a cut: the lines that the receipt will have.

    known: the person may know its password. by_policy: they may not, and the company has it changed all the same, because they
    could have used it lately (`change_on_leaving`). keeps_login: the tool keeps a login of its own, for session_life_s or nobody
    knows how long.
    """

    name: str
    label: str
    known: bool
    by_policy: bool
    keeps_login: bool
    session_life_s: int | None


def choices(
    session: Session,
    account_id: uuid.UUID,
    company_id: uuid.UUID,
    *,
    assignment_id: uuid.UUID | None = None,
    now: datetime,
) -> list[ToolChoice]:
    """What the dialog says of tools before the promise is made (vault-and-gateway.md §9): what the cut will find."""
    apps = AppSession.account_id == account_id
    reach = within_reach(session, account_id, company_id, assignment_id=assignment_id, now=now)
    use = use_of(session, apps, reach, {}, {}, knows=True, assignment_id=assignment_id, now=now)
    rows = session.execute(
        select(ToolAccount.id, ToolAccount.label, Application.name, Application.session_life_s)
        .join(Application, Application.id == ToolAccount.application_id)
        .where(ToolAccount.id.in_([one.tool_account_id for one in use.access]))
    ).all()
    words, found = {row.id: row for row in rows}, []
    for one in use.access:
        row, known = words[one.tool_account_id], CutClass.KNOWN_SECRET in one.classes
        by_policy = one.changes_password and not known
        found.append(ToolChoice(row.name, row.label, known, by_policy, one.keeps_login, row.session_life_s))
    return found
