"""Confirms that a cut has closed every screen of a tool (vault-and-gateway.md §5.2 step 6).

The gateway sessions ended with the commit of the cut, and no request that was checked later passes. What is left to see is that
every gateway process has looked through what it held open: each says so with the time at which its sweep began, and one that
cannot say so within its lease has closed everything by itself.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from idp.core.db import reading
from idp.domain.gateway import processes
from idp.lifecycle.revocation.cutter import CutOrder, Outcome

log = logging.getLogger(__name__)

#: a sweep is due every half second; without one for this long the line says that it is not confirmed
OVERDUE = timedelta(seconds=5)
AGAIN = timedelta(milliseconds=500)


class SweepCutter:
    """GATEWAY_SESSION: nothing is sent, it only looks. Verified needs a sweep of every process that began after the stamp."""

    def cut(self, order: CutOrder) -> Outcome:
        """One look. The stamp is the database's time at the first one, which comes after the commit of the cut."""
        if order.revocation_id is None or order.t0 is None:
            return Outcome("refused", "no_revocation")
        with reading() as session:
            told = order.memory.get("stamp")
            stamp = datetime.fromisoformat(told) if told else processes.database_time(session)
            left = processes.unswept(session, stamp)
            passed = processes.passed(session, order.revocation_id, order.application_id, stamp=stamp)
        memory = {"stamp": stamp.isoformat()}
        if passed.late:
            # by all that is built here this cannot be; a receipt that hid it would lie
            log.error(
                "requests passed after a cut", extra={"revocation": str(order.revocation_id), "count": passed.late}
            )
            return Outcome("refused", "passed_after_cut", evidence={"late": passed.late, **memory})
        if left:
            overdue = order.now - order.t0 >= OVERDUE
            again = order.now + (OVERDUE if overdue else AGAIN)
            return Outcome("retry" if overdue else "later", "sweep_missing" if overdue else None, again_at=again, memory=memory,
                           evidence={"processes": left} if overdue else {})  # fmt: skip
        under_way = [{"at": at.isoformat(), "method": method, "route": route} for at, method, route in passed.under_way]
        return Outcome("verified", evidence={**memory, "dropped": under_way})
