"""Root keys from the environment, for development: one master, a root key per class derived from it.

An environment is read in /proc, in crash dumps and by `docker inspect`, and every child inherits it. Hence
`development_only`: the application warns at each start, and refuses to start in production (D10).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final
from uuid import UUID

from vault import envelope
from vault.context import KeyClass
from vault.errors import RootRefused
from vault.providers.held import HeldRoots
from vault.providers.roots import RootKey, Roots, decode_key, derive, refuse_placeholder


class EnvProvider(HeldRoots):
    """Root keys derived from a variable of `environment`, a mapping that the edge passes in.

    variable: its value is one or more masters, 32 bytes of base64 each, with white space between; the first is
    current, the others still open (so to rotate is to put a new one in front). classes: those this process is given.
    Raises RootRefused when the variable is missing or is no such list.
    """

    development_only = True

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        variable: str = "SEKISHO_ROOT_KEY",
        classes: Collection[KeyClass] = tuple(KeyClass),
    ) -> None:
        masters = environment.get(variable, "").split()
        if not masters:
            raise RootRefused(f"{variable} is not set")
        self._roots: Final = Roots(_derived([decode_key(master) for master in masters], classes))

    def _load(self, key_id: str | None = None) -> Roots:  # noqa: ARG002 - they are all there
        return self._roots


def _derived(masters: list[bytes], classes: Collection[KeyClass]) -> Iterator[RootKey]:
    for position, master in enumerate(masters):
        refuse_placeholder(master)  # what is derived from zeros looks random
        for key_class in classes:
            name = key_class.value.encode("ascii")
            # The id follows from the master as well: another master shows as an unknown key, not as a wrong one.
            key_id = UUID(bytes=derive(master, "sekisho/env/id", name, length=envelope.ID_BYTES))
            key = derive(master, "sekisho/env/root", name, length=envelope.KEY_BYTES)
            yield RootKey(key_class, key_id, key, current=position == 0)
