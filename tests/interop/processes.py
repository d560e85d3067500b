"""Processes of a test: ports, waiting, asking by lines, stopping without leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import httpx2

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


class Server:
    """A web server of somebody else, in a folder of its own on loopback. Its address is known before it starts, because
    somebody is told of it first.

    prefix: how its folder begins (not pytest's folder: as root, Apache's children run as another user and could not reach
    it); bye: a path that it answers with 200 to anybody; within_s: how long it may take to start.
    """

    def __init__(self, prefix: str, *, bye: str = "/bye.html", within_s: float = 60) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.port = free_port()
        self.origin = f"http://localhost:{self.port}"
        self.bye = f"{self.origin}{bye}"
        self._within_s = within_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, command: Sequence[str], **environment: str) -> None:
        """Start it. environment: beside PATH and LANG, which is all that it gets."""
        with (self.folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until it answers."""
        wait_for(type(self).__name__, self._is_up, within_s=self._within_s, failed=self.log)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return httpx2.get(self.bye, timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def close(self) -> None:
        """Stop it and take its folder away."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What it and its modules wrote."""
        return "\n".join(
            f"--- {f.name}\n{f.read_text(errors='replace')[-6000:]}" for f in sorted(self.folder.glob("*.log"))
        )


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
