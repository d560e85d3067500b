"""The suites of the gateway run over the house in memory, and those about people's rights over the product's own ports as well."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Template, settings_for
from tests.fakes import device
from tests.fakes.database_house import DatabaseHouse
from tests.fakes.house import House

#: those that a port could fail: who is let in, what a cut stops, who logs in anew. The rest is the library's own
OVER_THE_DATABASE = {
    "test_VA_51_a_launch_from_start_to_the_first_page", "test_VA_51_a_stolen_ticket_opens_nothing",
    "test_a_ticket_of_another_origin_or_after_the_cut_is_refused", "test_a_second_host_is_admitted_in_the_same_walk",
    "test_VA_51_a_cookie_counts_at_its_own_origin_only", "test_VA_50_nothing_goes_upstream_after_the_cut",
    "test_VA_50_the_release_is_checked_also_when_no_sweep_ran", "test_a_websocket_is_closed_on_both_sides_within_a_second",
    "test_an_upload_stops_within_a_second", "test_a_lost_lease_closes_everything_at_once",
    "test_many_waiting_requests_cause_one_login", "test_a_tool_that_logs_out_at_once_again_is_left_to_a_person",
    "test_a_cut_during_the_renewal_wins", "test_cookies_of_the_old_login_do_not_reach_the_new_jar",
    "test_what_changes_something_is_on_record_before_it_is_sent",
    "test_VA_50_random_schedules_of_requests_and_a_cut",
    "test_VA_50_a_form_begun_before_the_cut_and_finished_after_it", "test_VA_50_the_sweep_ends_a_form_that_is_still_on_its_way",
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test over the house in memory; those of the list over the ports on both databases too."""
    over = ["sqlite", "postgresql"] if metafunc.function.__name__ in OVER_THE_DATABASE else []
    metafunc.parametrize("house", ["memory", *over], indirect=True)


@pytest.fixture(autouse=True)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """What `staged` builds its house with."""
    kind, server, name = request.param, None, ""
    if kind == "memory":
        yield
        return
    if kind == "sqlite":
        template: Template = request.getfixturevalue("sqlite_template")
        shutil.copy(template.folder / "template.sqlite", tmp_path / "test.sqlite")
        url = f"sqlite:///{tmp_path}/test.sqlite"
    else:
        template = request.getfixturevalue("postgres_template")
        server = template.server
        assert server is not None
        name = f"g{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**12}"
        url = server.create_database(name, "template_sekisho")
    settings = settings_for(url, template.folder, gateway_domain="gw.localhost")
    device.HOUSES.append(functools.partial(DatabaseHouse, settings))
    yield
    device.HOUSES.pop()
    assert [House] == device.HOUSES
    if server is not None:
        server.drop_database(name)
