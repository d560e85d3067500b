"""`python -m connectors.demo.tools shift-note|order-desk`: serve one tool until SIGTERM or SIGINT.

TOOL_PASSWORD is the first password of its one account; without it the tool does not start, because a default one would be a
password that everybody knows. TOOL_STATE: a file that keeps a changed one over a restart.
"""

import argparse
import os
import sys
from pathlib import Path

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
    names = {"login_id": "shibuya"}
    account = Account(names, password)
    if state := os.environ.get("TOOL_STATE"):
        account.password, account.keep = _kept(Path(state), password), lambda new: _keep(Path(state), new)
    if given.tool == "shift-note":
        names["corp_cd"] = "SAKURA"
        return serve(create_shift_note(account), "shift-note", 8021 if given.port is None else given.port)
    app = create_order_desk(account)
    return serve(app, "order-desk", 8022 if given.port is None else given.port)


def _kept(state: Path, first: str) -> str:
    return state.read_text(encoding="ascii") if state.exists() else first


def _keep(state: Path, password: str) -> None:
    """Write beside it and move: a tool that forgets its password half-way would lock the shop out."""
    beside = state.with_suffix(".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(password)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(state)


if __name__ == "__main__":
    sys.exit(main())
