"""Metadata of service providers, read again from its address before it ends (SA-15, trap F12).

The worker's sweep puts a delivery to ourselves for each document that is due; nothing is open while its address is asked. What
was read, or why nothing was, is written together with the end of the delivery, under its lease.
"""

from __future__ import annotations

from datetime import datetime

from idp.core.db import reading, transaction
from idp.core.errors import Conflict, Invalid
from idp.core.outbound import Outbound, Refused, Unreachable
from idp.domain.applications import sp_metadata
from idp.domain.applications.models import Application, ServiceProvider
from idp.edges.saml import metadata
from idp.ledgers.audit.log import SYSTEM
from idp.ledgers.outbox import queue
from idp.ledgers.outbox.queue import Order
from idp.services import Services


def fetch(outbound: Outbound, url: str) -> bytes:
    """A document from its address, through the one guarded client. Raises Invalid; its private text is a short word."""
    try:
        answer = outbound.get(url)
    except (Refused, Unreachable) as error:
        raise Invalid(
            "メタデータを取りにいけません。URLを確かめるか、ファイルで渡してください。", str(error), field="metadata"
        ) from error
    if answer.status != 200:
        raise Invalid(
            "メタデータのURLが、エラーを返しました。URLを確かめるか、ファイルで渡してください。",
            f"http_{answer.status}",
            field="metadata",
        )
    return answer.body


def go_on(order: Order, services: Services, *, now: datetime) -> None:
    """One attempt: the document is taken, held or refused, and the delivery is done; or it is tried again later."""
    if order.ref is None:
        raise RuntimeError("metadata of nobody")
    with reading() as session:
        provider = session.get_one(ServiceProvider, order.ref)
        alive = session.get_one(Application, provider.application_id).ended_at is None
    url = provider.metadata_url
    if url is None or not alive:
        with transaction(reserved=True) as session:
            queue.done(session, order, outcome="not_wanted", now=now)
        return
    try:
        facts = metadata.read(fetch(services.outbound, url), now=now)
        with transaction(reserved=True) as session:
            if not queue.done(session, order, outcome="read", now=now):
                return  # another worker had it meanwhile
            sp_metadata.receive(
                session, sp_metadata.take(session, order.ref), facts, loopback=services.settings.issuer_is_loopback, actor=SYSTEM, now=now
            )  # fmt: skip
    except (Invalid, Conflict) as error:
        _failed(order, error.private or "refused", now=now)


def _failed(order: Order, word: str, *, now: datetime) -> None:
    """The row keeps the word; the delivery is tried again, or over until the document is due again."""
    with transaction(reserved=True) as session:
        if now >= order.give_up_at:
            mine = queue.done(session, order, outcome="gave_up", now=now)
        else:
            mine = queue.retry_later(session, order, at=queue.next_try_at(order, now=now), outcome="unreadable")
        if mine and order.ref is not None:
            sp_metadata.failed(session, sp_metadata.take(session, order.ref), word, actor=SYSTEM, now=now)
