"""`python -m tests.bench.profiling userinfo`: where an operation spends its time, in one process, through the WSGI app.

The same installation and the same operations as the benchmark, without servers between: first the CPU µs of one operation
without a profiler, then the functions that cost most.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import re
import sys
import time
from typing import Any
from urllib.parse import urlencode

from flask import Flask

from tests.bench import bench, drive
from tests.bench.install import Installation


class InProcess(drive.Http):
    """The application called as a server would call it."""

    def __init__(self, app: Flask, host: str) -> None:
        super().__init__(0, host)
        self._app = app

    def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> drive.Answer:
        """One request."""
        body = urlencode(form).encode() if form is not None else b""
        target, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "PATH_INFO": target, "QUERY_STRING": query, "SERVER_NAME": "localhost", "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": self._host, "REMOTE_ADDR": "127.0.0.1", "SCRIPT_NAME": "",
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
            "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False, "CONTENT_LENGTH": str(len(body)),
        }  # fmt: skip
        if form is not None:
            environ["CONTENT_TYPE"] = drive.FORM
        environ |= {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in (headers or {}).items()}
        told: list[Any] = []
        chunks = self._app(environ, lambda status, found, *_: told.extend((status, found)))
        data = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        head = "\r\n".join(f"{k}: {v}" for k, v in told[1]).encode("latin-1")
        return drive.Answer(int(told[0].split(" ")[0]), b"HTTP/1.1\r\n" + head, data)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profiling", description=__doc__)
    parser.add_argument("operation", nargs="+")
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--lines", type=int, default=45)
    parser.add_argument("--destinations", type=int, default=12)
    parser.add_argument("--sort", choices=["tottime", "cumtime"], default="cumtime")
    options = parser.parse_args()
    place = Installation(options.engine, destinations=options.destinations, victims=20, crowd=1, drivers=1)
    try:
        actor = drive.Actor(place.plan, place.plan["actors"][0])
        actor.http = InProcess(place.app, place.plan["host"])
        actor.login()
        actor.code_flow("web")
        actor.code_flow("native")
        for name in options.operation:
            _measure(actor, name, options)
    finally:
        place.close()


def _measure(actor: drive.Actor, name: str, options: argparse.Namespace) -> None:
    act = getattr(actor, name)
    for _ in range(30):
        act()
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(options.number // 5):
            act()
        rounds.append((time.process_time() - began) / (options.number // 5) * 1e6)
    bench.say(f"{name}: {min(rounds):.0f} µs of CPU, best of five rounds ({', '.join(f'{r:.0f}' for r in rounds)})")
    if not options.lines:
        return
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(options.number):
        act()
    profile.disable()
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats(options.sort).print_stats(options.lines)
    bench.say(re.sub(r"\S*/site-packages/", "", out.getvalue()))


if __name__ == "__main__":
    main()
