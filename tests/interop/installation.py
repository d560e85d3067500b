"""The product as a company runs it: `init`-like preparation, web server and worker as processes, the command line as the door.

Nothing is reached from inside. SQLite only: what is looked at here is what third parties see on the wire, and that is the
same on both databases; the other folders run everything on both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx2

from tests.actors import Browser
from tests.interop.processes import Lines, free_port, stop, wait_for

ROOT = Path(__file__).resolve().parents[2]
START_S, COMMAND_S = 60.0, 60.0
# Prepares the demonstration data, then runs the commands it is given, each as the command line would: starting Python anew
# is most of what a command costs.
SHELL = """
import contextlib, io, json, os, sys
from pathlib import Path
from idp.cli import cli
from idp.cli.demo import prepare
folder, port = Path(sys.argv[1]), int(sys.argv[2])
prepare(folder, port, {k: v for k, v in os.environ.items() if k.startswith("SEKISHO_")})
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = cli.main([*json.loads(line), "--json"], standalone_mode=False)
    print(json.dumps([status or 0, json.loads(out.getvalue() or "null")]), flush=True)
"""


@dataclass(frozen=True)
class Someone:
    """A person of the demonstration data: what they type, and what an application is told about them."""

    login: str
    password: str
    name: str
    store: str


@dataclass(frozen=True)
class RegisteredClient:
    """What `app add-oidc` printed."""

    slug: str
    client_id: str
    secret: str | None


class Installation:
    """One running product in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.issuer = f"http://localhost:{self.port}"
        keep = {k: v for k, v in os.environ.items() if not k.startswith("SEKISHO_")}
        self._environment = {
            **keep,
            "SEKISHO_ENVIRONMENT": "development", "SEKISHO_ISSUER": self.issuer, "SEKISHO_PORT": str(self.port),
            "SEKISHO_DATABASE_URL": f"sqlite:///{folder}/data/sekisho.sqlite", "SEKISHO_ROOT_KEY_FILE": str(folder / "keys" / "root.key"),
            "SEKISHO_PEPPER_FILE": str(folder / "keys" / "pepper"), "SEKISHO_WEB_THREADS": "4",
        }  # fmt: skip
        self._shell: Lines | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._leavers: list[Someone] = []
        self.colleague: Someone

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        with (self.folder / "shell.log").open("ab") as log:
            here = [sys.executable, "-c", SHELL, str(self.folder), str(self.port)]
            self._shell = Lines(here, cwd=ROOT, env=self._environment, errors=log)
        self.command("company", "list")  # once it answers, everything is prepared
        people = json.loads((self.folder / "demo.json").read_text(encoding="utf-8"))["people"]
        staff = [Someone(p["login"], p["password"], p["name"], p["store"]) for p in people if p["role"] == "staff"]
        self.colleague, *self._leavers = staff
        for name, arguments in {"web": ["serve"], "worker": ["worker"]}.items():
            with (self.folder / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "idp.cli", *arguments], cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        wait_for("web server", self._is_up, within_s=START_S, failed=self.logs)

    def _is_up(self) -> bool:
        for name, process in self._processes.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}\n{self.logs()}"
        try:
            return httpx2.get(f"{self.issuer}/healthz", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def close(self) -> None:
        """Stop everything, the worker first, so that it delivers nothing to peers that are gone."""
        for name in ("worker", "web"):
            if process := self._processes.pop(name, None):
                stop(process)
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    def logs(self) -> str:
        """The end of what the processes wrote."""
        return "\n".join(
            f"--- {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in sorted(self.folder.glob("*.log"))
        )

    def command(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> Any:
        """A command of ours: what it printed."""
        assert self._shell is not None
        status, printed = self._shell.ask(arguments)
        assert status in accept, f"{arguments}: {status}\n{printed}\n{self.logs()}"
        return printed

    def leaver(self) -> Someone:
        """A member of staff whom a test may revoke; `colleague` stays for ever."""
        assert self._leavers, "no more people in the demonstration data"
        return self._leavers.pop(0)

    def register(self, wishes: Mapping[str, Sequence[str]]) -> dict[str, RegisteredClient]:
        """Applications that all staff may use, with one of their two functions. wishes: slug → options of `app add-oidc`."""
        functions = ("--function", "points.view", "--function", "points.adjust")
        add = [["app", "add-oidc", slug, named(slug), *functions, *options] for slug, options in wishes.items()]
        grant = [["app", "grant", slug, "--role", "staff", "--function", "points.view"] for slug in wishes]
        made = [self.command(*one) for one in (*add, *grant)][: len(add)]
        assert {one["issuer"] for one in made} == {self.issuer}
        return {one["slug"]: RegisteredClient(one["slug"], one["client_id"], one["client_secret"]) for one in made}

    def add_saml(self, slug: str, metadata: Path, *options: str) -> dict[str, Any]:
        """A service provider that all staff may use, with one of its two functions. Returns what `app add-saml` printed."""
        functions = ("--function", "points.view", "--function", "points.adjust")
        made = self.command("app", "add-saml", slug, named(slug), "--metadata", str(metadata), *functions, *options)
        self.command("app", "grant", slug, "--role", "staff", "--function", "points.view")
        return cast("dict[str, Any]", made)

    def revoke(self, person: Someone) -> str:
        """Stop everything that this person has, as somebody with a shell on the server does. Returns the receipt's number."""
        done = subprocess.run(
            [sys.executable, "-m", "idp.cli", "revoke", person.login, "--json"], cwd=ROOT, env=self._environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        number: str = json.loads(done.stdout)["receipt"]
        return number

    def logout_lines(self, number: str, *kinds: str) -> dict[str, dict[str, Any]]:
        """Slug → the line of a receipt that says what became of the sessions inside that application."""
        receipt = self.command("receipt", "show", number, accept=(0, 3))
        return {line["application"].split()[0]: line for line in receipt["lines"] if line["kind"] in kinds}


def named(slug: str) -> str:
    """The name of an application on our pages."""
    return f"{slug} の窓口"


class Traveller(Browser):
    """A browser that walks between our origin and the relying party's, as redirects lead it."""

    def __init__(self, issuer: str, *others: str) -> None:
        super().__init__(base_url=issuer)
        self._others = others

    def __enter__(self) -> Self:
        return self

    def visit(self, url: str) -> httpx2.Response:
        """Open a page and go wherever it leads, between the known origins."""
        return self._walk(self.get(url))

    def enter(self, person: Someone) -> httpx2.Response:
        """Fill in our login form, which is the current page, and go on to the relying party."""
        assert self.page is not None
        assert self.page.url.path == "/login", f"{self.page.url}\n{self.page.text[:1500]}"
        return self._walk(self.submit(login_id=person.login, password=person.password))

    def _walk(self, answer: httpx2.Response) -> httpx2.Response:
        for _ in range(10):
            location = answer.headers.get("location", "")
            if not answer.has_redirect_location or _origin(location) not in self._others:
                break
            answer = self.get(location)
        return answer


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
