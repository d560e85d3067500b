"""The desk: the only way from a use-ticket to the fields of a tool account (VA-30, VA-32).

    claim gate, lease and ticket, committed → audit row, committed → open → outcome, committed → the fields

A ticket that is refused opens nothing and is a row of the log; one that comes a second time is an alarm, because either a
copy of it was taken or somebody set the row back by hand. The latter this process sees by itself: it remembers what it took.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from connectors.ports import Revealable
from idp.core import clock
from idp.domain.credentials.opening import Use, open_for
from idp.domain.gateway import tickets
from idp.domain.gateway.models import UseTicket
from idp.domain.gateway.tickets import Purpose, Refused
from idp.domain.tools.models import ToolAccount
from idp.edges.tools.means import Means
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import SYSTEM, record

log = logging.getLogger(__name__)


class TicketInvalid(Exception):
    """Nothing was opened. reason: for the log; everybody else sees `ticket_invalid`."""

    code = "ticket_invalid"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.code}: {reason}")
        self.reason = reason


class Taken:
    """The tickets that this process took within their life, so that a row set back in the database is a second use all the same."""

    def __init__(self) -> None:
        self._until: dict[str, datetime] = {}

    def first_time(self, jti: str, *, now: datetime) -> bool:
        """Remember a ticket; False when it was taken before."""
        self._until = {one: until for one, until in self._until.items() if until > now}
        if jti in self._until:
            return False
        self._until[jti] = now + 2 * tickets.LIFE
        return True


class JobDesk:
    """`connectors.ports.Desk` for one leased job: tool account, purpose and lease are those of the job, never of the ticket.

    held: true in the database while the lease holds at an instant; version: of the credential, None for the current one.
    """

    def __init__(
        self,
        means: Means,
        taken: Taken,
        *,
        job_id: uuid.UUID,
        tool_account_id: uuid.UUID,
        purpose: Purpose,
        held: Callable[[datetime], ColumnElement[bool]],
        version: int | None = None,
    ) -> None:
        self._means, self._taken = means, taken
        self._job_id, self._account_id, self._purpose = job_id, tool_account_id, purpose
        self._held, self._version = held, version

    async def open_fields(self, ticket: str) -> Mapping[str, Revealable]:
        """The fields, once. Raises TicketInvalid, and NotOpened when the vault does not open them."""
        ticket_id = uuid.UUID(ticket)
        claimed = await self._means.write(lambda session: self._claim(session, ticket_id))
        if isinstance(claimed, UseTicket) and not self._taken.first_time(claimed.jti, now=clock.now()):
            claimed = Refused("used")
            await self._means.write(lambda session: self._refuse(session, ticket_id, Refused("used"), now=clock.now()))
        if isinstance(claimed, Refused):
            raise TicketInvalid(claimed.reason)
        use = Use(self._purpose.value, ticket_id=ticket_id, job_id=self._job_id, person_id=claimed.account_id)
        means = self._means
        return await means.call(
            lambda: open_for(
                means.vault, means.brake, self._account_id, use, version=self._version, actor=SYSTEM, now=clock.now()
            )
        )

    def _claim(self, session: Session, ticket_id: uuid.UUID) -> UseTicket | Refused:
        now = clock.now()
        found = tickets.claim_use_ticket(
            session, self._means.ticket_key, ticket_id, purpose=self._purpose, tool_account_id=self._account_id,
            job_id=self._job_id, leased=self._held(now), now=now,
        )  # fmt: skip
        if isinstance(found, Refused):
            self._refuse(session, ticket_id, found, now=now)
        return found

    def _refuse(self, session: Session, ticket_id: uuid.UUID, refused: Refused, *, now: datetime) -> None:
        account = session.execute(
            select(ToolAccount.company_id, ToolAccount.store_id, ToolAccount.application_id).where(
                ToolAccount.id == self._account_id
            )
        ).one()
        if refused.is_alarm:
            log.error(
                "a use-ticket was presented that is none", extra={"code": TicketInvalid.code, "why": refused.reason}
            )
        record(
            session, Tag.USE_TICKET_REFUSED, actor=SYSTEM, now=now, result="refused", company_id=account.company_id,
            store_id=account.store_id, application_id=account.application_id, tool_account_id=self._account_id,
            ticket_id=ticket_id, job_id=self._job_id, reason=refused.reason, alarm=refused.is_alarm or None,
        )  # fmt: skip
