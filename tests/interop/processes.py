"""Processes of a test: ports, waiting, asking by lines, stopping without leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

STOP_S, ANSWER_S = 15.0, 60.0
T = TypeVar("T")


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on at this moment, below those that the system gives to outgoing connections.

    None is given twice: a server that starts later would find its port taken, and its test would talk to another.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def wait_for(what: str, ask: Callable[[], T | None], *, within_s: float, failed: Callable[[], str] = str) -> T:
    """Ask until there is an answer that is not None or False. Fails with `what` and the text of `failed`."""
    deadline = time.monotonic() + within_s
    while True:
        if (found := ask()) is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s\n{failed()}"
        time.sleep(0.05)


def stop(process: subprocess.Popen[Any]) -> None:
    """Ask a process of ours to end; after STOP_S its whole session is killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived it; it leads a session of its own


class Lines:
    """A process that reads one JSON value per line and answers each with one."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], errors: IO[bytes] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            start_new_session=True,
        )

    def ask(self, question: object) -> Any:
        """Ask and wait for the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question).encode() + b"\n")
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_S)
        assert ready, f"no answer within {ANSWER_S} s: {question}"
        line = process.stdout.readline()
        assert line, f"the process ended with {process.wait(STOP_S)}: {question}"
        return json.loads(line)

    def close(self) -> None:
        """Stop it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        stop(self._process)
