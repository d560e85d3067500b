"""The gateway's ports over a real database, for `python -m tests.bench.gateway --ports tests.bench.gateway_ports:sqlite` (or `:postgresql`).

Everything that a page needs is there: people, logins, sealed jar, recipe, cookies. The database sits on the load's core.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from connectors.cookies import Jar
from connectors.ports import GatewayPorts
from tests import conftest, postgres
from tests.bench import machine
from tests.bench.gateway import Wanted
from tests.fakes.database_house import DatabaseHouse


async def _nobody_logs_in_again() -> Jar | None:
    return None


def _over(url: str, folder: Path, wanted: Wanted) -> GatewayPorts:
    conftest._pepper(folder)
    settings = conftest.settings_for(url, folder, gateway_domain="bench.localhost")
    conftest._fill(settings)
    house = DatabaseHouse(settings, _nobody_logs_in_again)
    house.furnish(wanted.text, wanted.recipe.digest, Jar.from_json(wanted.jar), wanted.scan)
    for cookie, (session, _, host) in wanted.cookies.items():
        house.open_session(session, {host: wanted.tool_host})
        house.give_cookie(session, host, cookie)
    return house.database.all


def sqlite(wanted: Wanted) -> GatewayPorts:
    """A file that is thrown away."""
    folder = Path(tempfile.mkdtemp(prefix="sekisho-bench-"))
    return _over(f"sqlite:///{folder}/bench.sqlite", folder, wanted)


def postgresql(wanted: Wanted) -> GatewayPorts:
    """A server that is thrown away, without statistics: as it is right after an installation."""
    machine.pin(1)
    server = postgres.PostgresServer()
    machine.pin(0)
    return _over(server.create_template("bench"), Path(tempfile.mkdtemp(prefix="sekisho-bench-")), wanted)
