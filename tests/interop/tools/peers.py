"""JupyterLab, Calibre-Web and Roundup, unmodified, each from a hash-locked environment of its own, on loopback.

Environments are made once by the `uv` of run.py and kept below `var/`; a lock file that changed makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx2

import run
from tests.interop.processes import free_port, stop, wait_for

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
START_S, COMMAND_S = 240.0, 240.0  # a machine that runs other things as well


def installed(name: str) -> Path:
    """The environment of one application. Raises run.Stop when it cannot be made."""
    lock = FOLDER / f"{name}.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    place = ROOT / "var" / "interop" / f"{name}-{digest}"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another pytest worker may be installing
        if not (place / "complete").exists():
            uv = run.find_uv()
            run.run_uv([uv, "venv", "--quiet", "--clear", "--no-project", str(place)])
            python = str(place / "bin" / "python")
            sync = [uv, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", "--build-constraints", str(FOLDER / "build.lock")]  # fmt: skip
            run.run_uv([*sync, "--python", python, str(lock)])
            (place / "complete").touch()
    return place


class Peer:
    """One running application. account: field name → value, as a shop would have it.

    port: where it listens; front: the port of its address, on which a test puts a `Tap`.
    """

    name: str
    slug: str

    def __init__(self) -> None:
        self.port, self.front = free_port(), free_port()
        self.host = f"localhost:{self.front}"
        self.origin = f"http://{self.host}"
        self.folder = Path(tempfile.mkdtemp(prefix="sekisho-tool-", dir="/tmp"))
        self.place = installed(self.slug)
        self.account = {"password": f"Aa1!{secrets.token_urlsafe(18)}"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            command, environment = self.prepare()
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, cwd=self.folder, env=self._environment(environment), stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, start_new_session=True,
                )  # fmt: skip
            wait_for(self.name, self._is_up, within_s=START_S, failed=self.logs)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and forget what it wrote."""
        if self._process is not None:
            stop(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Settings and data; the command that serves, and its environment."""
        raise NotImplementedError

    def recipe(self) -> bytes:
        """The recipe, on the port of this run."""
        text = (FOLDER / f"{self.slug}.yaml").read_text(encoding="utf-8")
        assert "localhost:9999" in text
        return text.replace("localhost:9999", self.host).encode()

    def logs(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended with {self._process.returncode}\n{self.logs()}"
        try:
            return httpx2.get(f"http://localhost:{self.port}", timeout=2).status_code < 500
        except httpx2.TransportError:
            return False

    def command(self, *arguments: str, **environment: str) -> None:
        """A command of the application itself."""
        done = subprocess.run(
            arguments, cwd=self.folder, env=self._environment(environment), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"

    def program(self, name: str) -> str:
        """A program of its environment."""
        return str(self.place / "bin" / name)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        return {**kept, "PATH": f"{self.place / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder), **more}


class Jupyter(Peer):
    """JupyterLab with a password; `with_token`, as it starts by itself, with a login token instead."""

    name, slug = "JupyterLab", "jupyterlab"

    def __init__(self, *, with_token: bool = False) -> None:
        super().__init__()
        self.with_token = with_token
        self.work = self.folder / "work"

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """One user, one folder, no browser."""
        self.work.mkdir()
        options = [
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            f"--port={self.port}",
            "--ServerApp.port_retries=0",
        ]
        options += [f"--ServerApp.root_dir={self.work}", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
        if self.with_token:
            options.append(f"--IdentityProvider.token={self.account['password']}")
        else:
            salt = secrets.token_hex(6)
            digest = hashlib.sha256((self.account["password"] + salt).encode()).hexdigest()
            options.append(f"--PasswordIdentityProvider.hashed_password=sha256:{salt}:{digest}")
        return [self.program("jupyter-lab"), *options], {"SHELL": "/bin/sh"}


class CalibreWeb(Peer):
    """Calibre-Web over an empty library, with a user of a shop beside the administrator."""

    name, slug = "Calibre-Web", "calibreweb"

    def __init__(self) -> None:
        super().__init__()
        self.account = {"login_id": "shibuya", **self.account}
        self.library = self.folder / "library"

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Calibre's own schema, as far as it is read, and the settings of a first start."""
        self.library.mkdir()
        with sqlite3.connect(self.library / "metadata.db") as library:
            library.executescript((FOLDER / "calibre.sql").read_text(encoding="utf-8"))
        library.close()
        environment = {"CALIBRE_DBPATH": str(self.folder), "CALIBRE_PORT": str(self.port), "CACHE_DIRECTORY": str(self.folder / "cache")}  # fmt: skip
        self.command(self.program("cps"), "-s", f"admin:{self.account['password']}", **environment)
        with sqlite3.connect(self.folder / "app.db") as settings:
            settings.execute("UPDATE settings SET config_calibre_dir = ?, config_uploading = 1", [str(self.library)])
            settings.execute(
                "INSERT INTO user (name, email, role, password, sidebar_view, locale, default_language, view_settings, kindle_mail,"
                " denied_tags, allowed_tags, denied_column_value, allowed_column_value, kobo_only_shelves_sync)"
                " SELECT ?, ?, ?, password, sidebar_view, locale, default_language, view_settings, '', '', '', '', '', 0"
                " FROM user WHERE name = 'admin'",
                [self.account["login_id"], "shibuya@shop.example", 2 | 4 | 8 | 64 | 256],  # download, upload, edit, shelves, view
            )  # fmt: skip
        settings.close()
        return [self.program("cps"), "-i", "127.0.0.1"], environment


class Roundup(Peer):
    """Roundup's classic tracker on SQLite, with a user of a shop."""

    name, slug = "Roundup", "roundup"

    def __init__(self) -> None:
        super().__init__()
        self.account = {"login_id": "shibuya", **self.account}

    def prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """As its manual says: install, initialise, add a user."""
        home = str(self.folder / "tracker")
        settings = f"tracker_web={self.origin}/desk/,mail_domain=shop.example,mail_host=localhost,mail_debug={self.folder / 'mail'}"
        admin = [self.program("roundup-admin"), "-i", home]
        self.command(*admin, "install", "classic", "sqlite", settings)
        self.command(*admin, "initialise", secrets.token_urlsafe(18))
        self.command(
            *admin, "create", "user", f"username={self.account['login_id']}", f"password={self.account['password']}",
            "address=shibuya@shop.example", "roles=User",
        )  # fmt: skip
        root = ["-u", "0"] if os.getuid() == 0 else []  # it wants to be told so
        return [self.program("roundup-server"), *root, "-n", "127.0.0.1", "-p", str(self.port), f"desk={home}"], {}


if __name__ == "__main__":  # to look at one by hand: python -m tests.interop.tools.peers Roundup
    with globals()[sys.argv[1]]() as peer:
        print(peer.origin, peer.account, flush=True)  # noqa: T201
        input()
