"""`worker`."""

from __future__ import annotations

import click

from idp.app import create_app
from idp.core import logs
from idp.core.settings import Settings
from idp.services import WORKER_OPENS
from idp.worker import Worker
from idp.worker import main as run_worker


@click.command()
@click.option("--once", is_flag=True, help="Deliver what is due now, then stop.")
def worker(*, once: bool) -> None:
    """Deliver logouts, close residuals, run end dates."""
    logs.configure()
    app = create_app(Settings.from_env(), opens=WORKER_OPENS)
    if once:
        Worker(app).drain()
        return
    run_worker(app)
