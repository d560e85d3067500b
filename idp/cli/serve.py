"""`serve`. The process that holds the server's children loads the settings and nothing else of the product."""

from __future__ import annotations

import click
from granian import Granian
from granian.constants import Interfaces

from idp.core.settings import Settings


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
def serve(host: str | None, port: int | None) -> None:
    """Serve the web pages and the OpenID Provider."""
    settings = Settings.from_env(**{k: v for k, v in {"host": host, "port": port}.items() if v is not None})
    click.echo(f"Sekisho {settings.issuer} on {settings.host}:{settings.port}", err=True)
    Granian(
        "idp.wsgi:app", address=settings.host, port=settings.port, interface=Interfaces.WSGI, workers=settings.web_processes,
        blocking_threads=settings.web_threads, backlog=1024, websockets=False, workers_kill_timeout=30, respawn_failed_workers=True,
        log_access=False,
    ).serve()  # fmt: skip
