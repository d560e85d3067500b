"""Small applications built with a SAML library, as the page prints them: python3-saml and node-saml, one process each."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import httpx2

from tests.interop import openid_client
from tests.interop.processes import free_port, stop, wait_for
from tests.interop.saml.documented import fitted
from tests.interop.saml.places import Place, write_keys


class Toolkit:
    """One application in one process: the plain one, or the one that gets encrypted assertions."""

    file = ""

    def __init__(self, issuer: str, slug: str, *, sealed: bool, posts: bool = False) -> None:
        self._issuer = issuer
        self.slug = slug
        self.folder = Path(tempfile.mkdtemp(prefix="sekisho-saml-"))
        self.port = free_port()
        self.origin = f"http://localhost:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.places = [
            Place(
                slug, self.origin, page=f"{self.origin}/", logout=f"{self.origin}/logout", bye=f"{self.origin}/bye",
                metadata_url=f"{self.origin}/saml/metadata", soap=False, sealed=sealed, posts=posts,
            )
        ]  # fmt: skip

    def source(self) -> str:
        """The program."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """How it is started, in its folder."""
        raise NotImplementedError

    def start(self, metadata: bytes) -> None:
        """As the page says."""
        write_keys(self.folder)
        (self.folder / "sekisho.xml").write_bytes(metadata)
        (self.folder / self.file).write_text(self.source(), encoding="utf-8")
        with (self.folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until it answers."""
        wait_for(self.slug, self._is_up, within_s=30, failed=self.log)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return httpx2.get(f"{self.origin}/bye", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def close(self) -> None:
        """Stop it and take its folder away."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What it wrote."""
        file = self.folder / "out.log"
        return file.read_text(errors="replace")[-6000:] if file.exists() else ""


class PythonSaml(Toolkit):
    """Flask and python3-saml."""

    file = "saml_app.py"

    def source(self) -> str:
        sealed = self.places[0].sealed
        return fitted(self.file, {
            "https://app.example.jp": self.origin, "/etc/saml": str(self.folder), "SECRET-KEY": secrets.token_hex(16),
            '"members"': f'"{self.slug}"',
            '"wantAssertionsEncrypted": True': f'"wantAssertionsEncrypted": {sealed}',
        })  # fmt: skip

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "flask", "--app", self.file, "run", "--port", str(self.port)]


class NodeSaml(Toolkit):
    """Node's own web server and node-saml."""

    file = "saml_app.mjs"

    def source(self) -> str:
        instead = {
            "https://app.example.jp": self.origin, "https://id.example.jp": self._issuer, "/etc/saml": str(self.folder),
            "8080": str(self.port), "members=": f"{self.slug}=",
        }  # fmt: skip
        if self.places[0].posts:
            line = '    return redirect(await saml.getAuthorizeUrlAsync("", undefined, {}));\n'
            instead[line] = fitted("by_post.mjs", {})
        return fitted(self.file, instead)

    def command(self) -> Sequence[str]:
        (self.folder / "node_modules").symlink_to(openid_client.FOLDER / "node_modules")
        return ["node", self.file]


def python_why_not() -> str | None:
    """The reason to skip, or None."""
    return None if find_spec("onelogin") else "no python3-saml found (it is in requirements-dev.lock)"
