"""What the stories share: short steps of people, and ways to look at pages and rows."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
from sqlalchemy import func, select

from idp.core import clock
from idp.core.db import Base, transaction
from idp.domain.authn import activation
from idp.domain.authn.passwords import Hasher
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.models import AuditEvent
from idp.lifecycle.revocation import cascade
from idp.lifecycle.revocation.cascade import Order, Target
from idp.lifecycle.revocation.words import Door, Reason, Scope
from tests.actors import CLI, Browser, Person, World

JST = ZoneInfo("Asia/Tokyo")
#: what differs between two answers that tell the same thing: nonces, form tokens, request numbers, keys of forms
NOISE = re.compile(
    r'nonce="[^"]*"|name="csrf_token"[^>]*value="[^"]*"|data-testid="request-id">[^<]*<|name="(?:once|sealed)"[^>]*value="[^"]*"'
)
QUIET_HEADERS = {"x-request-id", "content-length", "date"}


def told(page: httpx2.Response, *echoed: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer without what differs each time. echoed: what the person typed."""
    text = NOISE.sub("", page.text)
    for word in echoed:
        text = text.replace(word, "~")
    headers = {k: v for k, v in page.headers.items() if k not in QUIET_HEADERS}
    headers["content-security-policy"] = re.sub(r"'nonce-[^']*'", "", headers.get("content-security-policy", ""))
    cookies = [re.sub(r"=[^;]*", "", value) for value in page.headers.get_list("set-cookie")]
    return page.status_code, text, {**headers, "set-cookie": ",".join(sorted(cookies))}


def page_id(page: httpx2.Response) -> str:
    """The screen's id of ux.md 3."""
    found = re.search(r'data-page="([^"]*)"', page.text)
    return found.group(1) if found else ""


def shown_code(page: httpx2.Response) -> str:
    """The one-time code on a manager's screen."""
    found = re.search(r'data-testid="code">([0-9A-Z-]+)<', page.text)
    assert found is not None, page.text[:1500]
    return found.group(1)


def token_on(page: httpx2.Response) -> str:
    """The form token of a page."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert found is not None, page.text[:1500]
    return found.group(1)


def type_code(browser: Browser, code: str) -> httpx2.Response:
    """Open the page for codes and type one."""
    browser.get("/e")
    return browser.submit(code=code)


def choose(browser: Browser, code: str, password: str) -> httpx2.Response:
    """Type a code and choose a password: the owner's part of every first login."""
    assert page_id(type_code(browser, code)) == "L08", browser.page
    return browser.submit(password=password, again=password)


def recovery_codes(page: httpx2.Response) -> list[str]:
    """The ten codes that a page shows once."""
    found = re.findall(r"\b[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){3}\b", page.text)
    assert len(found) == 10, page.text
    return found


def issue(world: World, person: Person, *, purpose: str = "reset", life: timedelta = timedelta(minutes=15)) -> str:
    """A one-time code as a manager's page makes it."""
    with world.app.app_context(), transaction() as session:
        code = activation.issue(session, person.id, purpose=purpose, life=life, actor=CLI, now=clock.now())  # type: ignore[arg-type]
    assert code is not None
    return code


def cut(world: World, person: Person, *, scope: Scope = Scope.ACCOUNT, target: uuid.UUID | None = None) -> str:
    """Revoke, where the story is about something else. Returns the receipt's number."""
    with world.app.app_context(), transaction(reserved=True) as session:
        order = Order(Reason.LEFT, Door.CLI)
        return cascade.revoke(session, Target(scope, target or person.id), order, actor=CLI, now=clock.now()).number


def change_row(world: World, row: type[Base], row_id: uuid.UUID, **values: Any) -> None:
    """Change what no page changes yet, such as a company that has ended."""
    with world.app.app_context(), transaction() as session:
        for name, value in values.items():
            setattr(session.get_one(row, row_id), name, value)


def count(world: World, tag: Tag, **where: Any) -> int:
    """How many audit rows of a kind there are."""
    query = select(func.count()).select_from(AuditEvent).where(AuditEvent.tag == tag.value)
    for name, value in where.items():
        query = query.where(getattr(AuditEvent, name) == value)
    return int(world.rows(query)[0][0])


def dump(world: World) -> bytes:
    """Everything the database holds, as whoever stole a copy would search it."""
    found = []
    for table in Base.metadata.sorted_tables:
        for row in world.rows(select(table)):
            found += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(found)


def japanese_day(days: int, hour: int, minute: int = 0) -> datetime:
    """An instant some days from now, at an hour in Japan."""
    day = clock.now().astimezone(JST).date() + timedelta(days=days)
    return datetime.combine(day, time(hour, minute), tzinfo=JST)


@contextmanager
def busy(hasher: Hasher, *, queue_too: bool = False) -> Iterator[None]:
    """Hold every slot of the hasher, as so many slow logins would; with queue_too its waiting places as well."""
    with ExitStack() as held:
        while hasher._slots.acquire(blocking=False):
            held.callback(hasher._slots.release)
        while queue_too and hasher._places.acquire(blocking=False):
            held.callback(hasher._places.release)
        yield
