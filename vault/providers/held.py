"""What the providers have in common whose root keys are bytes in our hands: everything but where these come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from vault.context import KeyClass, KeyContext
from vault.errors import CannotRotate, VaultError
from vault.providers import Health
from vault.providers.roots import Roots


class HeldRoots(ABC):
    """A `RootKeyProvider` over a set of `Roots` that a subclass loads."""

    development_only: bool = False

    @abstractmethod
    def _load(self, key_id: str | None = None) -> Roots:
        """The root keys now; key_id: the one that is asked for. Raises SealedRoot."""

    def key_ids(self, key_class: KeyClass) -> Sequence[str]:
        return self._load().key_ids(key_class)

    def current(self, key_class: KeyClass) -> str:
        return self._load().current(key_class)

    def check_value(self, key_id: str) -> bytes:
        return self._load(key_id).check_value(key_id)

    def wrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        return self._load(key_id).wrap(key_id, context, data)

    def unwrap(self, key_id: str, context: KeyContext, data: bytes) -> bytes:
        return self._load(key_id).unwrap(key_id, context, data)

    def rotate(self, key_id: str) -> str:
        root = self._load(key_id).get(key_id)
        if not root.current:
            return self.current(root.key_class)
        raise CannotRotate("this provider only reads root keys: add a new current one where they come from")

    def health(self) -> Health:
        try:
            self._load()
        except VaultError as error:
            return Health(ok=False, problem=str(error))
        return Health(ok=True)
