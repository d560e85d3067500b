"""What a revocation cuts, as a pure function of what was found. No database, no clock, no network.

The dialog before the cut and the receipt after it list what this function says (ux.md 4).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from connectors.cutclass import CutClass
from idp.lifecycle.revocation.words import CutKind, CutState, Grade, Scope


@dataclass(frozen=True)
class Destination:
    """One application that the person ever entered, and what is known of the login it keeps.

    entered: when we last issued something to it, or None for never within this scope. tell: it has a logout endpoint.
    session_life: how long its own login lives by its own word; None = unknown. access_until: the latest expiry of an
    access token still out, or None. session_until: until when we granted a SAML session there. kind: how it is told.
    shared_name: it knows the person only under a name that colleagues use too, and could not end one of them alone (SA-14).
    """

    application_id: uuid.UUID
    entered_at: datetime
    tell: bool
    session_life: timedelta | None
    access_until: datetime | None
    session_until: datetime | None = None
    kind: CutKind = CutKind.OIDC_LOGOUT
    shared_name: bool = False


@dataclass(frozen=True)
class ToolAccess:
    """One account inside a password-only tool that the person used or may know. entered: they were inside through the gateway.

    classes: of the lines that a cut needs (`connectors.cutclass.lines`), none where the scope is one device only.
    session_life: how long the tool's own login lives by its own word; None = unknown. by_policy: the company has every
    password changed that the person could have used lately, known or not (`change_on_leaving`, §9).
    """

    application_id: uuid.UUID
    tool_account_id: uuid.UUID
    entered: bool
    classes: tuple[CutClass, ...]
    session_life: timedelta | None
    by_policy: bool = False

    @property
    def changes_password(self) -> bool:
        """The cut has a line for the password: somebody may know it, or the company wants it changed."""
        return CutClass.KNOWN_SECRET in self.classes or self.by_policy

    @property
    def keeps_login(self) -> bool:
        """The cut has a line for a login that the tool itself keeps; where nobody but us can hold one there is none."""
        return CutClass.OWN_SESSION in self.classes and (self.entered or CutClass.KNOWN_SECRET in self.classes)


@dataclass(frozen=True)
class ToolUse:
    """A person's use of tools. ended: gateway sessions that the cut ended, by application; ending: tool sessions of this person
    alone, each with its application; entered: tools that they ever entered through the gateway."""

    access: tuple[ToolAccess, ...] = ()
    ended: Mapping[uuid.UUID, int] = field(default_factory=dict)
    ending: Mapping[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    entered: frozenset[uuid.UUID] = frozenset()


@dataclass(frozen=True)
class Snapshot:
    """What ended in the revoking transaction, counted by kind, every destination ever used, and the applications whose
    client secret the person was shown."""

    scope: Scope
    ended: dict[CutKind, int]
    destinations: tuple[Destination, ...]
    secrets_seen: tuple[uuid.UUID, ...] = ()
    tools: ToolUse = ToolUse()


@dataclass(frozen=True)
class PlannedCut:
    """One line of the receipt. leaves: a delivery goes to the outbox."""

    kind: CutKind
    target_ref: str
    state: CutState
    grade: Grade | None = None
    application_id: uuid.UUID | None = None
    count: int = 1
    residual_until: datetime | None = None
    leaves: bool = False


#: local kinds, in the order of the receipt, and the scopes in which their line appears even when nothing was there
LOCAL: tuple[tuple[CutKind, frozenset[Scope]], ...] = (
    (CutKind.ENTITLEMENT, frozenset({Scope.ACCOUNT, Scope.ASSIGNMENT})),
    (CutKind.LOGIN_SESSION, frozenset({Scope.ACCOUNT, Scope.LOGIN_SESSION})),
    (CutKind.AUTHENTICATOR, frozenset({Scope.ACCOUNT})),
    (CutKind.ACTIVATION, frozenset()),
    (CutKind.PENDING, frozenset()),
    (CutKind.APP_SESSION, frozenset(Scope)),
    (CutKind.AUTHORIZATION_CODE, frozenset()),
    (CutKind.TOKEN_FAMILY, frozenset(Scope)),
)


def plan(found: Snapshot, *, now: datetime) -> tuple[PlannedCut, ...]:
    """The cuts, in the order of the receipt.

    Local ones are done at once: we enforce them (`recorded`). An access token that is still out lives until its expiry
    (RV-23). An application with a logout endpoint is told; one without lives as long as it says, and one that does not
    say needs a person, because nobody can know (ux.md `unknown`).
    """
    cuts = [
        PlannedCut(kind, found.scope.value, CutState.DONE, Grade.RECORDED, count=found.ended.get(kind, 0))
        for kind, always in LOCAL
        if found.ended.get(kind, 0) or found.scope in always
    ]
    for place in found.destinations:
        ref, application = str(place.application_id), place.application_id
        if place.shared_name:
            # a logout by that name would hit colleagues, so somebody has to do it at the application (SA-14, SA-21)
            cuts.append(PlannedCut(place.kind, ref, CutState.NEEDS_PERSON, application_id=application))
        elif place.tell:
            cuts.append(PlannedCut(place.kind, ref, CutState.WAITING, application_id=application, leaves=True))
        else:
            cuts.append(_untold(place, now=now))
        if place.access_until is not None and place.access_until > now:
            cuts.append(
                PlannedCut(
                    CutKind.ACCESS_TOKEN,
                    ref,
                    CutState.WAITING,
                    application_id=application,
                    residual_until=place.access_until,
                )
            )
    cuts += _tools(found.tools, now=now)
    cuts += [
        PlannedCut(CutKind.CLIENT_SECRET, str(application), CutState.NEEDS_PERSON, application_id=application)
        for application in found.secrets_seen
    ]
    return tuple(cuts)


def _tools(use: ToolUse, *, now: datetime) -> Iterator[PlannedCut]:
    """Lines of password-only tools (vault-and-gateway.md §9): screens that were open, our logins that were theirs alone,
    passwords that they may know, and logins of their own that nothing ends.

    A gateway session is ended by us and by the cut itself; what is left to do is to see that every process has closed what it
    held. A password is never counted as cut because a message was sent: the line waits for the rotation.
    """
    named = dict.fromkeys([*(one.application_id for one in use.access), *use.ended])
    for application in named:
        count, ref = use.ended.get(application, 0), str(application)
        if count:
            yield PlannedCut(
                CutKind.GATEWAY_SESSION, ref, CutState.WAITING, application_id=application, count=count, leaves=True
            )
        else:
            yield PlannedCut(
                CutKind.GATEWAY_SESSION, ref, CutState.DONE, Grade.RECORDED, application_id=application, count=0
            )
    for tool_session, application in use.ending.items():
        yield PlannedCut(
            CutKind.TOOL_SESSION, str(tool_session), CutState.WAITING, application_id=application, leaves=True
        )
    for one in use.access:
        ref, application = str(one.tool_account_id), one.application_id
        if one.changes_password:
            yield PlannedCut(CutKind.TOOL_PASSWORD, ref, CutState.WAITING, application_id=application, leaves=True)
        if not one.keeps_login:
            continue
        if one.session_life is None:
            yield PlannedCut(CutKind.APPLICATION_LOGIN, ref, CutState.NEEDS_PERSON, application_id=application)
        else:
            until = now + one.session_life
            yield PlannedCut(
                CutKind.APPLICATION_LOGIN, ref, CutState.WAITING, application_id=application, residual_until=until
            )


def _untold(place: Destination, *, now: datetime) -> PlannedCut:
    kind, ref = CutKind.APPLICATION_LOGIN, str(place.application_id)
    if place.session_life is None and place.session_until is None:
        return PlannedCut(kind, ref, CutState.NEEDS_PERSON, application_id=place.application_id)
    # a SAML session was granted until an instant; what the application says of itself may be longer
    said = place.entered_at + place.session_life if place.session_life is not None else None
    until = max(one for one in (said, place.session_until) if one is not None)
    if until <= now:
        return PlannedCut(
            kind, ref, CutState.DONE, Grade.NONE, application_id=place.application_id, residual_until=until
        )
    return PlannedCut(kind, ref, CutState.WAITING, application_id=place.application_id, residual_until=until)
