"""The worker reads the metadata of service providers again before it ends (SA-15, trap F12): dates are taken, another address or
key waits for a person, and an address that gives nothing is told on the page, by `doctor` and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import select

from idp.core import clock
from idp.core.db import reading, transaction
from idp.domain.applications import sp_metadata
from idp.domain.applications.models import Application
from idp.domain.applications.models import ServiceProvider as Row
from idp.domain.directory.roles import Role
from idp.ledgers.audit.models import AuditEvent
from idp.ledgers.outbox.models import OutboxRow
from tests.actors import Browser, World
from tests.fakes.outbound import RecordingOutbound, down
from tests.fakes.outbound import status as answers
from tests.saml import SUCCESS, ServiceProvider, pair

URL = "https://coupon.example/metadata"
HOURS = timedelta(hours=1)


@pytest.fixture
def sp(world: World) -> ServiceProvider:
    """One that was registered by its address."""
    return world.service_provider(ServiceProvider("coupon"), metadata_url=URL)


@pytest.fixture
def clockwork(sp: ServiceProvider) -> Iterator[time_machine.Traveller]:
    """Time stands where it registered."""
    with time_machine.travel(clock.now(), tick=False) as traveller:
        yield traveller


def later(world: World, clockwork: time_machine.Traveller, wait: timedelta) -> None:
    """So much later the worker sweeps, and delivers what the sweep found."""
    clockwork.shift(wait)
    world.deliver()
    world.deliver()


def events(world: World) -> list[str]:
    """What the log has of metadata, in order."""
    rows = world.rows(select(AuditEvent.tag).where(AuditEvent.tag.like("saml:metadata:%")).order_by(AuditEvent.id))
    return [row.tag.rpartition(":")[2] for row in rows]


def doctor(world: World) -> list[str]:
    """What `doctor` would say."""
    with world.app.app_context(), reading() as session:
        return [why for _, why in sp_metadata.ending_soon(session, now=clock.now())]


def test_SA_15_F12_dates_are_taken_before_the_document_ends(
    world: World, sp: ServiceProvider, clockwork: time_machine.Traveller, outbound: RecordingOutbound
) -> None:
    """Every six hours, and every half hour when it ends before that; not more often, and not while one is under way."""
    outbound.behave(URL, answers(200, sp.metadata()))
    later(world, clockwork, 5 * HOURS)
    assert outbound.to(URL) == []
    until = clock.now() + timedelta(days=2)
    outbound.behave(URL, answers(200, sp.metadata(valid_until=until)))
    later(world, clockwork, HOURS)
    assert len(outbound.to(URL)) == 1
    assert world.rows(select(Row.metadata_until))[0][0] == until.replace(microsecond=0)
    assert doctor(world) == [], "valid for days only, and watched: nobody has to do anything"
    later(world, clockwork, HOURS)
    assert len(outbound.to(URL)) == 1
    outbound.behave(URL, answers(200, sp.metadata(valid_until=clock.now() + 9 * HOURS)))
    later(world, clockwork, 5 * HOURS)
    assert len(outbound.to(URL)) == 2
    for reads in (3, 4, 5):
        later(world, clockwork, HOURS)  # it ends within six hours, so it is read more often
        assert len(outbound.to(URL)) == reads
    later(world, clockwork, timedelta(minutes=20))
    assert len(outbound.to(URL)) == 5
    assert events(world) == ["renewed", "renewed"]


def test_SA_15_another_address_or_key_waits_for_a_person(
    world: World, browser: Browser, sp: ServiceProvider, clockwork: time_machine.Traveller, outbound: RecordingOutbound
) -> None:
    """Held once, however often it is read and however it is signed; the old one works on; what goes back to the old is over."""
    browser.log_in(world.person())
    evil = ServiceProvider("coupon", acs=("https://evil.example/acs",), pair=pair("evil"))
    outbound.behave(URL, answers(200, evil.metadata()))
    later(world, clockwork, 6 * HOURS)
    held_at = world.rows(select(Row.held_at))[0][0]
    outbound.behave(URL, answers(200, evil.metadata(valid_until=clock.now() + 48 * HOURS)))
    later(world, clockwork, 6 * HOURS)
    assert (events(world), world.rows(select(Row.held_at))[0][0]) == (["held"], held_at)
    assert any("waits" in why for why in doctor(world))
    browser.log_in(world.person("0002"))
    assert sp.sign_on(browser).status == SUCCESS
    assert browser.get(evil.redirect_url()).status_code == 403
    outbound.behave(URL, answers(200, sp.metadata()))
    later(world, clockwork, 6 * HOURS)
    assert world.rows(select(Row.held, Row.metadata_error)) == [(None, None)]


def test_SA_15_an_address_that_gives_nothing_is_told(
    world: World, browser: Browser, sp: ServiceProvider, clockwork: time_machine.Traveller, outbound: RecordingOutbound
) -> None:
    """Down, an error page, half a file, somebody else's: one row of the log for each reason, the page and `doctor` say it, logins
    go on; it is tried again with pauses, rests after six hours, and the first good answer ends it."""
    for behaviour, word in (
        (down, "network"), (answers(503), "http_503"), (answers(200, b"<html>"), "not_xml"),
        (answers(200, ServiceProvider("other").metadata()), "refused"),
    ):  # fmt: skip
        outbound.behave(URL, behaviour)
        later(world, clockwork, 6 * HOURS)
        assert word in world.rows(select(Row.metadata_error))[0][0]
        assert any(word in why for why in doctor(world))
    assert events(world) == ["failed"] * 4
    asked = len(outbound.to(URL))
    for _ in range(20):
        later(world, clockwork, timedelta(minutes=20))
    assert asked < len(outbound.to(URL)) < asked + 30
    assert events(world) == ["failed"] * 4
    with Browser(world.app) as admin:
        admin.log_in(world.person("op", company="SEKISHO", role=Role.OPERATOR))
        page = admin.get("/hq/apps/coupon/saml").text
        assert "メタデータを読めていません" in page
    browser.log_in(world.person())
    assert sp.sign_on(browser).status == SUCCESS
    outbound.behave(URL, answers(200, sp.metadata()))
    later(world, clockwork, 12 * HOURS)
    assert world.rows(select(Row.metadata_error)) == [(None,)]
    assert doctor(world) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_SA_15_nobody_asks_for_what_is_over(
    world: World, sp: ServiceProvider, clockwork: time_machine.Traveller, outbound: RecordingOutbound
) -> None:
    """An application that ended between sweep and delivery; one that was given as a file."""
    world.service_provider(ServiceProvider("file"))
    clockwork.shift(6 * HOURS)
    world.deliver()
    assert [row.state for row in world.rows(select(OutboxRow.state))] == ["waiting"]
    with world.app.app_context(), transaction() as session:
        session.query(Application).update({"ended_at": clock.now()})
    world.deliver()
    assert outbound.calls == []
    assert [row.outcome for row in world.rows(select(OutboxRow.outcome))] == ["not_wanted"]
