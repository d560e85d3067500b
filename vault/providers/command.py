"""Root keys printed by a command: the bridge to an OS keyring, systemd-creds or age, without a library for each.

The command is a fixed argument list, run without a shell, and prints the text form of `vault.providers.roots`. It runs
at first use, and again when a root key is asked for that it did not print, which is how a rotation arrives.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from vault.errors import RootRefused, SealedRoot
from vault.providers.held import HeldRoots
from vault.providers.roots import Roots, parse_roots

DEADLINE_S: Final = 10.0
LARGEST_OUTPUT_BYTES: Final = 1024


class CommandProvider(HeldRoots):
    """Root keys from the standard output of `argv`.

    argv[0]: absolute path of a file that only its owner (we or root) may write. environment: all that the command
    gets; ours is not inherited, since it may hold what the command should not see.
    Each run raises RootRefused for an unsafe command or unusable output, SealedRoot when it fails, prints more than
    1 KiB or takes longer than deadline_s seconds.
    """

    def __init__(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        if not argv or not Path(argv[0]).is_absolute():
            raise RootRefused("the root key command is an absolute path")
        self._argv: Final = tuple(argv)
        self._environment: Final = dict(environment or {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._roots: Roots | None = None

    def reload(self) -> None:
        """Forget the keys; the next use runs the command again."""
        with self._lock:
            self._roots = None

    def _load(self, key_id: str | None = None) -> Roots:
        with self._lock:
            roots = self._roots
        if roots is None or (key_id is not None and all(str(key.id) != key_id for key in roots.keys)):
            # Outside the lock: a slow command must not hold up those whose keys are here. Two runs do no harm.
            roots = self._run()
            with self._lock:
                self._roots = roots
        return roots

    def _run(self) -> Roots:
        executable = _safe_executable(Path(self._argv[0]))
        try:
            # A group of its own, so that a command that hangs is ended with whatever it started.
            process = subprocess.Popen(  # noqa: S603 - a fixed argument list from the operator's configuration
                self._argv,
                executable=executable,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise SealedRoot(f"the root key command does not start: {error.strerror}") from None
        # The output is key material: no message from here on may contain any of it.
        with process:
            try:
                output = _read(process, deadline=time.monotonic() + self._deadline_s)
            except BaseException:
                # Only here: it was not waited for, so its process id cannot belong to somebody else by now.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode != 0:
            raise SealedRoot(f"the root key command ended with status {process.returncode}")
        if not output.isascii():
            raise RootRefused("the root key command prints something else")
        return parse_roots(output.decode("ascii"))


def _read(process: subprocess.Popen[bytes], *, deadline: float) -> bytes:
    """All the output and the end of the process, or SealedRoot: bounded in size and in time."""
    pipe = _stdout(process)
    output = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise SealedRoot("the root key command takes too long")
        chunk = os.read(pipe.fileno(), LARGEST_OUTPUT_BYTES + 1)
        if not chunk:
            break
        output += chunk
        if len(output) > LARGEST_OUTPUT_BYTES:
            raise SealedRoot("the root key command prints more than 1 KiB")
    try:
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise SealedRoot("the root key command takes too long") from None
    return output


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise SealedRoot("the root key command has no output")
    return process.stdout


def _safe_executable(path: Path) -> Path:
    """The file behind `path`, symlinks followed, if nobody but its owner and root decides what it does."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
        ancestors = [(parent, parent.stat()) for parent in resolved.parents]
    except OSError as error:
        raise SealedRoot(f"the root key command is not there: {error.strerror}") from None
    _refuse_unsafe(resolved, status)
    for directory, directory_status in ancestors:
        # Who may write in a directory without the sticky bit may put another file under the same name.
        if directory_status.st_mode & stat.S_IWOTH and not directory_status.st_mode & stat.S_ISVTX:
            raise RootRefused(f"{directory} is writable by everybody")
    return resolved


def _refuse_unsafe(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RootRefused(f"{path} is writable by others or no regular file")
    if status.st_uid not in {0, os.geteuid()}:
        raise RootRefused(f"{path} belongs to another user")
