"""`python -m connectors.demo.tools shift-note|order-desk`: serve one tool until SIGTERM or SIGINT.

TOOL_PASSWORD is the password of its one account; without it the tool does not start, because a default one would be a
password that everybody knows.
"""

import argparse
import os
import sys

from connectors.demo.tools.desk import MIN_PASSWORD, Account, serve
from connectors.demo.tools.order_desk import create_order_desk
from connectors.demo.tools.shift_note import create_shift_note


def main() -> int:
    """Returns the exit status: 0 after a clean shutdown, 2 for a configuration that is not safe."""
    parser = argparse.ArgumentParser(prog="python -m connectors.demo.tools", description=__doc__)
    parser.add_argument("tool", choices=["shift-note", "order-desk"])
    parser.add_argument(
        "--port", type=int, default=None, help="8021 for shift-note, 8022 for order-desk; 0 takes a free one"
    )
    given = parser.parse_args()
    password = os.environ.get("TOOL_PASSWORD", "")
    if len(password) < MIN_PASSWORD:
        sys.stderr.write(f"TOOL_PASSWORD needs at least {MIN_PASSWORD} characters\n")
        return 2
    if given.tool == "shift-note":
        app = create_shift_note(Account({"corp_cd": "SAKURA", "login_id": "shibuya"}, password))
        return serve(app, "shift-note", 8021 if given.port is None else given.port)
    app = create_order_desk(Account({"login_id": "shibuya"}, password))
    return serve(app, "order-desk", 8022 if given.port is None else given.port)


if __name__ == "__main__":
    sys.exit(main())
