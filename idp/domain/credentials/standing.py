"""How a tool account stands: may people enter, what a cut of it needs, what a person has to do. Facts from rows, no promise.

`connectors/cutclass.py` decides the class; here its inputs are read, for many accounts in three statements.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from connectors import cutclass
from connectors.cutclass import Certification as CertificationState
from connectors.cutclass import CutClass, EndsSessions, Knowledge, Lane
from connectors.recipes.hosts import Ground
from connectors.recipes.model import Recipe
from idp.domain.credentials.models import SealedCredential
from idp.domain.tools.models import Certification, KillCapability, RecipeText, Tool, ToolAccount
from idp.domain.tools.recipes import for_account

#: older than this, a measurement reads as untested (VA-40)
MEASURED_FOR = timedelta(days=180)
#: HQ is told this long before a certification ends
EXPIRY_NOTICE = timedelta(days=14)


@dataclass(frozen=True)
class Standing:
    """One tool account, now. certified_until: of the newest certification of its recipe, whatever became of it.

    withdrawn_code: why that one is withdrawn; ends_after_s: how long old sessions live on after a change, where measured.
    """

    account: ToolAccount
    lane: Lane
    recipe: Recipe
    recipe_id: uuid.UUID
    certification: CertificationState
    certified_until: datetime | None
    withdrawn_code: str | None
    terms_hold: bool
    deposited: bool
    locked: bool
    knowledge: Knowledge
    change_ends_sessions: EndsSessions
    ends_after_s: int | None
    change_by: str

    @property
    def machine_can_change(self) -> bool:
        """Whether the recipe knows the tool's form for a new password."""
        return self.recipe.password is not None and self.recipe.password.change is not None

    @property
    def cut_class(self) -> CutClass:
        """The class of a cut, the worst that applies."""
        return cutclass.effective(self.lane, self.certification, self.knowledge, "none")

    @property
    def refusal(self) -> str | None:
        """Why nobody may enter now, as a code: terms_forbid, not_deposited, vault_integrity, tool_degraded, not_certified,
        no_lane; None when people may."""
        reasons = (
            (not self.terms_hold, "terms_forbid"),
            (not self.deposited, "not_deposited"),
            (self.locked, "vault_integrity"),
            (self.account.state != "active", "tool_degraded"),
            (self.lane == "none", "no_lane"),
            (self.certification != "valid", "not_certified"),
        )
        return next((code for holds, code in reasons if holds), None)


def standing(
    session: Session, tool_account_ids: Iterable[uuid.UUID], on: Ground, *, now: datetime
) -> Mapping[uuid.UUID, Standing]:
    """The standing of each account that is there. on: the rules of this installation (`recipes.ground`)."""
    wanted = list(tool_account_ids)
    rows = session.execute(
        select(ToolAccount, Tool, RecipeText, KillCapability, SealedCredential)
        .join(Tool, Tool.application_id == ToolAccount.application_id)
        .join(RecipeText, RecipeText.id == Tool.recipe_id)
        .outerjoin(KillCapability, KillCapability.application_id == ToolAccount.application_id)
        .outerjoin(SealedCredential, SealedCredential.tool_account_id == ToolAccount.id)
        .where(ToolAccount.id.in_(wanted))
    ).all()
    newest = _newest_runs(session, wanted)
    return {
        account.id: _one(
            account, tool, text, newest.get((account.id, text.digest)), capability, credential, on, now=now
        )
        for account, tool, text, capability, credential in rows
    }


def _newest_runs(session: Session, wanted: Collection[uuid.UUID]) -> Mapping[tuple[uuid.UUID, str], Certification]:
    """(account, digest of the recipe) → its newest certification: the last word counts, also when it is a refusal."""
    runs = select(Certification).where(Certification.tool_account_id.in_(wanted))
    ordered = session.scalars(runs.order_by(Certification.run_at, Certification.id))
    return {(found.tool_account_id, found.recipe_digest): found for found in ordered}


def _one(
    account: ToolAccount, tool: Tool, text: RecipeText, certified: Certification | None, capability: KillCapability | None,
    credential: SealedCredential | None, on: Ground, *, now: datetime,
) -> Standing:  # fmt: skip
    recipe = for_account(text, account, on)
    known = credential is None or credential.known_to_people
    ends, after = _measured(capability, now=now)
    return Standing(
        account=account,
        lane=tool.lane,  # type: ignore[arg-type]  # a closed list of the table
        recipe=recipe,
        recipe_id=text.id,
        certification=_certification(certified, now=now),
        certified_until=certified.expires_at if certified else None,
        withdrawn_code=_withdrawn_code(certified),
        terms_hold=not recipe.terms.forbid or tool.terms_attested_at is not None,
        deposited=credential is not None and credential.current_version is not None,
        locked=credential is not None and credential.locked_reason is not None,
        knowledge=Knowledge(known_to_people=known, recovery_owner=account.recovery_owner),  # type: ignore[arg-type]
        change_ends_sessions=ends,
        ends_after_s=after,
        change_by=capability.change_by if capability else "none",
    )


def _certification(found: Certification | None, *, now: datetime) -> CertificationState:
    if found is None:
        return "missing"
    if found.withdrawn_at is not None or found.result != "passed":  # the newest run holds, not the newest that passed
        return "withdrawn"
    return "valid" if found.expires_at > now else "expired"


def _withdrawn_code(found: Certification | None) -> str | None:
    if found is None:
        return None
    return found.withdrawn_code or ("checks_failed" if found.result != "passed" else None)


def _measured(found: KillCapability | None, *, now: datetime) -> tuple[EndsSessions, int | None]:
    if found is None or found.measured_at is None or now - found.measured_at > MEASURED_FOR:
        return "untested", None
    return found.change_ends_sessions, found.change_ends_after_s  # type: ignore[return-value]  # a closed list of the table


def cut_lines(
    session: Session, tool_account_ids: Iterable[uuid.UUID], *, now: datetime
) -> Mapping[uuid.UUID, tuple[CutClass, ...]]:
    """The classes of all lines that a cut of each account needs, the main one first. From rows alone: a cut reads no recipe,
    because one that cannot be read under today's rules must not stop it."""
    wanted = list(tool_account_ids)
    rows = session.execute(
        select(
            ToolAccount.id,
            ToolAccount.recovery_owner,
            Tool.lane,
            RecipeText.digest,
            KillCapability,
            SealedCredential.known_to_people,
        )
        .join(Tool, Tool.application_id == ToolAccount.application_id)
        .join(RecipeText, RecipeText.id == Tool.recipe_id)
        .outerjoin(KillCapability, KillCapability.application_id == ToolAccount.application_id)
        .outerjoin(SealedCredential, SealedCredential.tool_account_id == ToolAccount.id)
        .where(ToolAccount.id.in_(wanted))
    ).all()
    newest = _newest_runs(session, wanted)
    lines = {}
    for account_id, owner, lane, digest, capability, known in rows:
        knowledge = Knowledge(known_to_people=known is not False, recovery_owner=owner)  # type: ignore[arg-type]  # a closed list of the table
        ends, _ = _measured(capability, now=now)
        certified = _certification(newest.get((account_id, digest)), now=now)
        lines[account_id] = cutclass.lines(
            lane,  # type: ignore[arg-type]  # a closed list of the table
            certified,
            knowledge,
            "none",
            change_ends_sessions=ends,
        )
    return lines
