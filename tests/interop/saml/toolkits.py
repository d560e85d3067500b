"""Small applications built with a SAML library, as the page prints them: python3-saml and node-saml, one process each."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from tests.interop import npm
from tests.interop.processes import Server
from tests.interop.saml.documented import fitted
from tests.interop.saml.places import Place, write_keys


class Toolkit(Server):
    """One application in one process: the plain one, or the one that gets encrypted assertions."""

    file = ""

    def __init__(self, issuer: str, slug: str, *, sealed: bool, posts: bool = False) -> None:
        super().__init__("sekisho-saml-", bye="/bye", within_s=30)
        self._issuer = issuer
        self.slug = slug
        self.places = [
            Place(
                slug, self.origin, page=f"{self.origin}/", logout=f"{self.origin}/logout", bye=self.bye,
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
        self.run(self.command())


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
        (self.folder / "node_modules").symlink_to(npm.FOLDER / "node_modules")
        return ["node", self.file]


def python_why_not() -> str | None:
    """The reason to skip, or None."""
    return None if find_spec("onelogin") else "no python3-saml found (it is in requirements-dev.lock)"
