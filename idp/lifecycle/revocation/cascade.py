"""`revoke`: the only way somebody's access ends (RV-01).

One transaction, in the lock order: gate rows first, then a snapshot, then the plan, the cuts, the deliveries and the audit
row. Nothing here waits for anybody: what must leave the process is a row in the outbox, and the worker finishes it.

The order is argued. The account's row is updated first, whatever its end date, because it is the gate of a login that has
not committed yet; then the login sessions, the gate of everything issued inside them. An issuer either waits for us and
then decides "no", or it committed before us and its rows are found by the updates that follow. Taking codes or app
sessions first would meet an issuer that holds the session and waits for the code: a deadlock, with the revocation as the
victim (D7).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, false, func, null, select, update
from sqlalchemy.orm import Session

from idp.core import ids
from idp.core.db import add_all, change
from idp.core.errors import Conflict, NotFound
from idp.domain.authn import activation
from idp.domain.authn.models import Authenticator, PendingLogin
from idp.domain.directory.models import Account, Assignment
from idp.domain.sessions.models import AppSession, LoginSession
from idp.domain.tokens import ends
from idp.domain.tokens.models import AuthorizationCode, TokenFamily
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import Actor, record
from idp.ledgers.outbox import queue
from idp.lifecycle.revocation import destinations, facts, tools
from idp.lifecycle.revocation.models import Cut, Evidence, Revocation
from idp.lifecycle.revocation.plan import PlannedCut, Snapshot, plan
from idp.lifecycle.revocation.words import CutKind, CutState, Door, Reason, Scope

TOPIC = "cut"
ENDED = "revoked"


@dataclass(frozen=True)
class Target:
    """What to revoke. id: of the account, assignment or login session; for APPLICATION the account, with application_id."""

    scope: Scope
    id: uuid.UUID
    application_id: uuid.UUID | None = None


@dataclass(frozen=True)
class Order:
    """Why and through which door. idempotency_key: a double click or a resumed list is one revocation (RE-07).

    hr_at: when access should have ended by the personnel record; requested_at: when somebody asked, if not now (AU-22).
    """

    reason: Reason
    door: Door
    idempotency_key: str | None = None
    give_up_after: timedelta = timedelta(hours=24)
    hr_at: datetime | None = None
    requested_at: datetime | None = None


def revoke(session: Session, target: Target, order: Order, *, actor: Actor, now: datetime) -> Revocation:
    """End access and write down what ended, what is being told, and what lives on until when.

    Revoking what has ended already is a new revocation with a receipt of its own: its destinations are told again, and no
    artefact that slipped past the first one survives the second. Raises NotFound for an unknown target, Conflict for an
    idempotency key that was used for another one.
    """
    account_id, store_id = _whose(session, target)
    scope_id = target.application_id or target.id
    if order.idempotency_key and (before := _same(session, order.idempotency_key, account_id, target.scope, scope_id)):
        return before
    ended: dict[CutKind, int] = {}
    revocation_id = ids.new_id(now)

    # 1 the gate rows, account first
    account = _touch_account(session, account_id, ends=target.scope is Scope.ACCOUNT, now=now)
    if target.scope is Scope.LOGIN_SESSION:
        logins: tuple[ColumnElement[bool], ...] = (LoginSession.id == target.id,)
    else:
        logins = (LoginSession.account_id == account_id,)
    if target.scope in {Scope.ACCOUNT, Scope.LOGIN_SESSION}:
        ended[CutKind.LOGIN_SESSION] = ends.end_login_sessions(session, *logins, reason=ENDED, now=now)
    else:
        _touch_login_sessions(session, *logins)
    if target.scope is Scope.ACCOUNT:
        ended |= _end_ways_in(session, account_id, now=now)
    reach = _reach(session, target, account_id, account.company_id, now=now)
    ended[CutKind.ENTITLEMENT] = _end_assignments(session, target, account_id, now=now)

    # 2 what lived inside them, downwards
    apps, codes, families = _inside(target, account_id)
    ended[CutKind.APP_SESSION] = ends.end_app_sessions(session, apps, reason=ENDED, now=now)
    inside, ending = tools.end_use(
        session, apps, account_id, revocation_id, reason=ENDED, application_id=target.application_id,
        whole_person=target.scope is not Scope.LOGIN_SESSION, now=now,
    )  # fmt: skip
    ended[CutKind.AUTHORIZATION_CODE] = ends.end_codes(session, codes, now=now)
    ended[CutKind.TOKEN_FAMILY] = ends.end_families(session, families, reason=ENDED, now=now)

    # 3 every destination ever used, 4 the plan, 5 cuts and deliveries, 6 the log
    knows = target.scope is not Scope.LOGIN_SESSION
    found = Snapshot(
        target.scope, ended, destinations.entered(session, apps, families), destinations.secrets_seen(session, target.scope, account_id),
        tools.use_of(
            session, apps, reach, inside, ending, knows=knows, now=now,
            assignment_id=target.id if target.scope is Scope.ASSIGNMENT else None,
        ),
    )  # fmt: skip
    revocation = Revocation(
        id=revocation_id, created_at=now, number=_number(now), company_id=account.company_id, account_id=account_id, store_id=store_id,
        scope_kind=target.scope.value, scope_id=scope_id, reason=order.reason.value, door=order.door.value, actor_kind=actor.kind,
        requested_by=actor.account_id, idempotency_key=order.idempotency_key, hr_at=order.hr_at,
        requested_at=now if order.door is not Door.SCHEDULE else order.requested_at, t0=now,
    )  # fmt: skip
    session.add(revocation)
    session.flush()
    cuts = plan(found, now=now)
    _store(session, revocation, cuts, epoch=account.epoch, order=order, now=now)
    if all(cut.state is CutState.DONE for cut in cuts):
        revocation.completed_at = now
    session.flush()
    record(
        session, Tag.REVOKED, actor=actor, now=now, company_id=account.company_id, subject_id=account_id, store_id=store_id,
        application_id=target.application_id, revocation_id=revocation.id, scope=target.scope.value, reason=order.reason.value,
        door=order.door.value, epoch=account.epoch, cuts=len(cuts), **facts.stamp(facts.of(session, revocation.id)),
    )  # fmt: skip
    return revocation


def owner_of(session: Session, target: Target) -> uuid.UUID:
    """The account that a target belongs to, so that a caller can compare it with the one in its scope. Raises NotFound."""
    return _whose(session, target)[0]


def _same(session: Session, key: str, account_id: uuid.UUID, scope: Scope, scope_id: uuid.UUID) -> Revocation | None:
    """The revocation that this key stands for already.

    The account's row is taken first: of two clicks at once the second waits here, and then finds what the first one did.
    Not FOR UPDATE, which the foreign keys of an issuer further down would wait for: a deadlock (D7).
    """
    session.scalar(select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
    before = session.scalar(select(Revocation).where(Revocation.idempotency_key == key))
    if before is not None and (before.scope_kind, before.scope_id) != (scope.value, scope_id):
        # answering with the receipt of somebody else would leave this person's access alive (RE-07)
        raise Conflict(
            "ほかの切断で使われた番号です。もどって、もう一度試してください。", "idempotency key of another revocation"
        )
    return before


def _whose(session: Session, target: Target) -> tuple[uuid.UUID, uuid.UUID | None]:
    """The account a target belongs to, and for an assignment its store."""
    match target.scope:
        case Scope.ACCOUNT:
            return target.id, _home(session, target.id)
        case Scope.APPLICATION:
            return target.id, None
        case Scope.ASSIGNMENT:
            row = session.execute(
                select(Assignment.account_id, Assignment.store_id).where(Assignment.id == target.id)
            ).one_or_none()
        case Scope.LOGIN_SESSION:
            row = session.execute(
                select(LoginSession.account_id, null()).where(LoginSession.id == target.id)
            ).one_or_none()
    if row is None:
        raise NotFound("止めるものが見つかりません。", f"{target.scope} {target.id}")
    return row[0], row[1]


def _home(session: Session, account_id: uuid.UUID) -> uuid.UUID | None:
    """The store that a whole person's receipt is counted under (AU-22): of those they work in, the one they came to first."""
    return session.scalar(
        select(Assignment.store_id)
        .where(Assignment.account_id == account_id, Assignment.store_id.is_not(None))
        .order_by(Assignment.ended_at.is_not(None), Assignment.id)
        .limit(1)
    )


@dataclass(frozen=True)
class _Account:
    company_id: uuid.UUID
    epoch: int


def _touch_account(session: Session, account_id: uuid.UUID, *, ends: bool, now: datetime) -> _Account:
    """Update the account's row, whatever its end date, and raise its epoch; with `ends` it also ends."""
    values: dict[str, object] = {"epoch": Account.epoch + 1}
    if ends:
        values |= {
            "ended_at": func.coalesce(Account.ended_at, now),
            "end_reason": func.coalesce(Account.end_reason, ENDED),
        }
    if not change(session, update(Account).where(Account.id == account_id).values(**values)):
        raise NotFound("止める人が見つかりません。", f"account {account_id}")
    row = session.execute(select(Account.company_id, Account.epoch).where(Account.id == account_id)).one()
    return _Account(row.company_id, row.epoch)


def _touch_login_sessions(session: Session, *which: ColumnElement[bool]) -> None:
    """Take the login sessions' rows without ending them: an issuer inside one waits, or was before us (RE-20)."""
    change(
        session,
        update(LoginSession).where(*which, LoginSession.ended_at.is_(None)).values(end_reason=LoginSession.end_reason),
    )


def _end_ways_in(session: Session, account_id: uuid.UUID, *, now: datetime) -> dict[CutKind, int]:
    """Authenticators, activation codes, half-finished logins: nothing of them revives when the person comes back (RV-29)."""
    authenticators = change(
        session,
        update(Authenticator)
        .where(Authenticator.account_id == account_id, Authenticator.ended_at.is_(None))
        .values(ended_at=now),
    )
    pending = change(
        session,
        update(PendingLogin)
        .where(PendingLogin.account_id == account_id, PendingLogin.used_at.is_(None), PendingLogin.ends_at > now)
        .values(used_at=now),
    )
    return {
        CutKind.AUTHENTICATOR: authenticators,
        CutKind.ACTIVATION: activation.end_all(session, account_id, now=now),
        CutKind.PENDING: pending,
    }


def _reach(
    session: Session, target: Target, account_id: uuid.UUID, company_id: uuid.UUID, *, now: datetime
) -> frozenset[uuid.UUID]:
    """Accounts inside tools that the person may know the password of, as far as this scope takes them away. Before it does."""
    if target.scope is Scope.LOGIN_SESSION:
        return frozenset()
    through = target.id if target.scope is Scope.ASSIGNMENT else None
    return tools.within_reach(
        session, account_id, company_id, assignment_id=through, application_id=target.application_id, now=now
    )


def _end_assignments(session: Session, target: Target, account_id: uuid.UUID, *, now: datetime) -> int:
    if target.scope is Scope.ACCOUNT:
        which: ColumnElement[bool] = Assignment.account_id == account_id
    elif target.scope is Scope.ASSIGNMENT:
        which = Assignment.id == target.id
    else:
        return 0
    return change(
        session,
        update(Assignment)
        .where(which, Assignment.ended_at.is_(None))
        .values(ended_at=now, end_reason=ENDED, epoch=Assignment.epoch + 1),
    )


def _inside(
    target: Target, account_id: uuid.UUID
) -> tuple[ColumnElement[bool], ColumnElement[bool], ColumnElement[bool]]:
    """Conditions on app sessions, codes and families. An assignment ends all of the account's: claims list all stores (RV-27)."""
    match target.scope:
        case Scope.ACCOUNT | Scope.ASSIGNMENT:
            return (
                AppSession.account_id == account_id,
                AuthorizationCode.account_id == account_id,
                TokenFamily.account_id == account_id,
            )
        case Scope.APPLICATION:
            return (
                (AppSession.account_id == account_id) & (AppSession.application_id == target.application_id),
                (AuthorizationCode.account_id == account_id)
                & (AuthorizationCode.application_id == target.application_id),
                (TokenFamily.account_id == account_id) & (TokenFamily.application_id == target.application_id),
            )
        case Scope.LOGIN_SESSION:
            mine = select(AppSession.id).where(AppSession.login_session_id == target.id)
            return (
                AppSession.login_session_id == target.id,
                AuthorizationCode.app_session_id.in_(mine),
                TokenFamily.app_session_id.in_(mine),
            )
    return false(), false(), false()


def _store(
    session: Session, revocation: Revocation, cuts: Sequence[PlannedCut], *, epoch: int, order: Order, now: datetime
) -> None:
    """Cuts, their evidence and their deliveries: three statements, however many there are."""
    rows, proofs, deliveries = [], [], []
    alone = revocation.scope_kind == Scope.LOGIN_SESSION.value
    for position, planned in enumerate(cuts):
        done, cut_id = planned.state is CutState.DONE, ids.new_id(now)
        rows.append(
            {
                "id": cut_id, "created_at": now, "revocation_id": revocation.id, "position": position, "kind": planned.kind.value,
                "target_ref": planned.target_ref, "application_id": planned.application_id, "count": planned.count,
                "state": planned.state.value, "grade": planned.grade.value if planned.grade else None,
                "residual_until": planned.residual_until, "attempts": 0, "deadline_at": now + order.give_up_after,
                "done_at": now if done else None,
            }
        )  # fmt: skip
        if done and planned.grade is not None:
            proofs.append(
                {
                    "id": ids.new_id(now), "created_at": now, "cut_id": cut_id, "kind": "ended_in_revocation",
                    "grade": planned.grade.value, "detail": {"count": planned.count},
                }
            )  # fmt: skip
        if planned.leaves:
            deliveries.append(
                queue.delivery(
                    topic=TOPIC, ref=cut_id, destination=_destination(planned), dedup_key=f"cut:{cut_id}", now=now,
                    give_up_after=order.give_up_after, subject_epoch=epoch, kind=planned.kind.value, application_id=str(planned.application_id),
                    account_id=str(revocation.account_id), whole_subject=not alone, revocation_id=str(revocation.id),
                    t0=revocation.t0.isoformat(), target=planned.target_ref, login_session_id=str(revocation.scope_id) if alone else None,
                )
            )  # fmt: skip
    add_all(session, Cut, rows)
    add_all(session, Evidence, proofs)
    queue.put_all(session, deliveries)


def _destination(planned: PlannedCut) -> str:
    """Whose slots a delivery takes: a peer's, or our own gateway's, which no hanging peer may hold up."""
    return "gateway" if planned.kind is CutKind.GATEWAY_SESSION else str(planned.application_id)


def _number(now: datetime) -> str:
    """R-2026-1121-0Q7K3M: the day and 30 random bits, because a serial number would be a lock that every cut waits for."""
    return f"R-{now:%Y-%m%d}-{ids.new_typed_code()[:6]}"
