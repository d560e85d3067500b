"""A throwaway PostgreSQL for tests: unix socket only, no password, gone when the tests end.

Owns one server process and its folder. Schemas and rows are the caller's. One per test session or xdist worker:

    with PostgresServer() as server:
        migrate(server.create_template("sekisho"))
        url = server.create_database("test_1", template="sekisho")
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

SUPERUSER = "sekisho"


def find_binaries() -> Path | None:
    """The folder with initdb and pg_ctl, of the newest version found; None when PostgreSQL is not installed."""
    candidates = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if candidates:
        return max(candidates, key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def why_not() -> str | None:
    """The reason to skip PostgreSQL tests here, or None when a server can be started."""
    if find_binaries() is None:
        return "no PostgreSQL server found (Debian: postgresql)"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "running as root without setpriv, and PostgreSQL refuses to run as root"
    return None


class PostgresServer:
    """One running server. Starts when made, stops on `stop()`, at the end of a `with`, or when Python exits.

    fsync: False by default, which is right for every test but those that kill the server and look at what is left.
    Raises RuntimeError with PostgreSQL's own words if it does not start; ask `why_not()` first.
    """

    def __init__(self, *, fsync: bool = False, max_connections: int = 200) -> None:
        if (reason := why_not()) is not None:
            raise RuntimeError(reason)
        binaries = find_binaries()
        assert binaries is not None
        self._binaries = binaries
        # Not pytest's tmp_path, but beside it: a socket's path has at most 107 bytes, and the server's user must reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="sekisho-pg-"))
        self._drop = self._give_folder_away() if os.geteuid() == 0 else []
        atexit.register(self.stop)
        try:
            self._initialise(fsync=fsync, max_connections=max_connections)
            self.start()
        except RuntimeError:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server on its folder; also again after `kill()`."""
        self._run("pg_ctl", "-D", "data", "-w", "-t", "60", "-l", "log", "-s", "start")

    def kill(self) -> None:
        """Stop at once, as a crash would: no checkpoint, and the next `start()` recovers from the log."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "-s", "stop")

    def stop(self) -> None:
        """Stop and delete everything. May be called twice."""
        atexit.unregister(self.stop)
        if (self.folder / "data" / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """A SQLAlchemy URL."""
        return f"postgresql+psycopg://{SUPERUSER}@/{database}?host={self.folder}"

    def create_template(self, name: str) -> str:
        """Make an empty database to migrate once and clone often; returns its URL.

        Every connection to it must be closed (dispose the engine) before it is cloned.
        """
        return self.create_database(name, template="template0")

    def create_database(self, name: str, template: str) -> str:
        """Clone template; returns the new database's URL."""
        self._administer("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop it, connections and all; nothing happens if it does not exist."""
        self._administer("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def log(self) -> str:
        """What the server wrote so far."""
        return (self.folder / "log").read_text(errors="replace")

    def _give_folder_away(self) -> list[str]:
        """Chown the folder to nobody, and return the prefix that runs a command as nobody."""
        nobody = pwd.getpwnam("nobody")
        os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]

    def _initialise(self, *, fsync: bool, max_connections: int) -> None:
        self._run(
            "initdb",
            *("-D", "data", "-U", SUPERUSER, "-A", "trust"),
            *("--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8"),
        )
        settings = {
            "listen_addresses": "''",
            "unix_socket_directories": f"'{self.folder}'",
            "max_connections": str(max_connections),
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            # in the folder, which is always taken away; what POSIX keeps in /dev/shm outlives a server that was killed
            "dynamic_shared_memory_type": "mmap",
            "timezone": "'UTC'",
        }
        with (self.folder / "data" / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file, not a pipe: the server inherits it, and a pipe would stay open as long as the server runs.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [*self._drop, str(self._binaries / program), *arguments],
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            words = output.read().decode(errors="replace")
        if done.returncode != 0:
            log = self.log() if (self.folder / "log").exists() else ""
            raise RuntimeError(f"{program} failed:\n{words}{log}")

    def _administer(self, statement: str, *names: str) -> None:
        with psycopg.connect(host=str(self.folder), user=SUPERUSER, dbname="postgres", autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))
