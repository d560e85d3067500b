"""`python -m connectors.demo.coupons`: serve the coupon console of the environment until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpcore2
from werkzeug.serving import WSGIRequestHandler, make_server

from connectors.demo.coupons.app import Config, create_coupons


class Handler(WSGIRequestHandler):
    """Logs no request: nothing that a browser sends here belongs into a log."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing, see above."""


def fetch(url: str) -> bytes:
    """The identity provider's metadata."""
    timeouts = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}
    with httpcore2.ConnectionPool() as pool:
        return pool.request("GET", url, extensions={"timeout": timeouts}).content


def main() -> int:
    """Returns the exit status: 0 after a clean shutdown, 2 without a usable environment."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        config = Config(os.environ["COUPONS_URL"], os.environ["COUPONS_IDP"], Path(os.environ["COUPONS_FOLDER"]))
        port = urlsplit(config.url).port or 80
    except (KeyError, ValueError) as error:
        sys.stderr.write(f"coupons: {error}\n")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = make_server("127.0.0.1", port, create_coupons(config, fetch=fetch), threaded=True, request_handler=Handler)
    serving = threading.Thread(target=server.serve_forever, name="coupons")
    serving.start()
    stop.wait()
    server.shutdown()
    serving.join()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
