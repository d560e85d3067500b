from __future__ import annotations

import pytest
from vault_fakes import Clock, FragileProvider, MemoryKeyStore, Trail, make_keyring, make_provider

from vault import KeyClass, Keyring, Vault


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryKeyStore:
    return MemoryKeyStore()


@pytest.fixture
def provider() -> FragileProvider:
    return FragileProvider(make_provider())


@pytest.fixture
def alarms() -> list[int]:
    return []


@pytest.fixture
def keyring(store: MemoryKeyStore, provider: FragileProvider, clock: Clock, alarms: list[int]) -> Keyring:
    return make_keyring(store, provider, clock=clock, alarms=alarms)


@pytest.fixture
def vault(keyring: Keyring) -> Vault:
    return Vault(keyring, opens=KeyClass)


@pytest.fixture
def trail() -> Trail:
    return Trail()
