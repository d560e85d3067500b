"""What the tests know of a service provider: its addresses, what it showed a person, how it is registered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2

from tests.saml import pair

#: what a product's page shows, in the order of the lines
SHOWN = ("preferred_username", "name", "stores", "functions")


@dataclass(frozen=True)
class Place:
    """One service provider. page: shows who is logged in; denied: needs a function that nobody has, None without such a page.

    soap: it can be told without a browser. posts: asks for a login by POST. sealed: gets encrypted assertions. says_it_signs: its
    metadata does; without it, we are told to insist.
    """

    slug: str
    origin: str
    page: str
    logout: str
    bye: str
    metadata_url: str
    soap: bool
    sealed: bool
    denied: str | None = None
    posts: bool = False
    says_it_signs: bool = True

    def metadata(self) -> bytes:
        """Its own metadata, as it publishes it."""
        answer = httpx2.get(self.metadata_url, timeout=20)
        assert answer.status_code == 200, answer.text[:2000]
        return answer.content

    @property
    def options(self) -> list[str]:
        """How it is registered: encryption is what we decide here, in both ways; its metadata offers it."""
        signs = [] if self.says_it_signs else ["--require-signed-requests"]
        return ["--encrypt" if self.sealed else "--no-encrypt", *signs]


class Server(Protocol):
    """A running program with one or more service providers in it."""

    places: list[Place]

    def start(self, metadata: bytes) -> None:
        """Write the configuration and start. metadata: ours."""

    def ready(self) -> None:
        """Wait until it answers."""

    def close(self) -> None:
        """Stop it and take its files away."""

    def log(self) -> str:
        """What it wrote."""


def write_keys(folder: Path, name: str = "sp") -> None:
    """`sp.key` and `sp.crt`, as the page says to make them."""
    made = pair("interop-sp")
    (folder / f"{name}.key").write_bytes(made.private_pem)
    (folder / f"{name}.crt").write_bytes(made.pem)


def seen(page: httpx2.Response) -> dict[str, list[str]]:
    """What the application was told about the person: lines of NAME=VALUE;VALUE."""
    assert page.status_code == 200, f"{page.url} {page.status_code}\n{page.text[:3000]}"
    lines = [line.strip().split("=", 1) for line in page.text.splitlines() if line.strip()]
    assert {len(line) for line in lines} == {2}, f"{page.url}\n{page.text[:3000]}"
    return {name: value.split(";") for name, value in lines}
