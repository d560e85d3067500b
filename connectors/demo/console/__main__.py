"""`python -m connectors.demo.console`: serve the console of the environment until SIGTERM or SIGINT."""

import argparse
import logging
import os
import signal
import sys
import threading
from dataclasses import replace

from werkzeug.serving import WSGIRequestHandler, make_server

from connectors.demo.console.app import create_console
from connectors.demo.console.config import Config, ConfigError
from connectors.demo.console.misbehave import Misbehaviour


class Handler(WSGIRequestHandler):
    """Logs no request: the line of `/callback` would hold an authorization code."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing, see above."""


def main() -> int:
    """Returns the exit status: 0 after a clean shutdown, 2 when the configuration refuses to start."""
    parser = argparse.ArgumentParser(prog="python -m connectors.demo.console", description=__doc__)
    parser.add_argument("--misbehave", choices=[value.value for value in Misbehaviour], help="see misbehave.py")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        sys.stderr.write(f"console: {error}\n")
        return 2
    if arguments.misbehave is not None:
        config = replace(config, misbehaviour=Misbehaviour(arguments.misbehave))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = make_server(config.host, config.port, create_console(config), threaded=True, request_handler=Handler)
    # shutdown() waits for serve_forever(), so the two cannot share the thread that receives the signal.
    serving = threading.Thread(target=server.serve_forever, name="console")
    serving.start()
    sys.stdout.write(f"console: http://localhost:{server.port}\n")
    sys.stdout.flush()
    stop.wait()
    server.shutdown()
    serving.join()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
