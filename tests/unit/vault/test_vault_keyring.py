"""VA-01, VA-02, VA-20, VA-21, VA-22: company keys, their cache, their count and their rotation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from vault_fakes import (
    MASTER,
    OTHER_MASTER,
    Clock,
    FragileProvider,
    MemoryKeyStore,
    Trail,
    make_context,
    make_keyring,
    make_provider,
    revealed,
)

from vault import (
    CACHE_LIFETIME,
    CompanyKey,
    Damaged,
    KeyClass,
    KeyExhausted,
    Keyring,
    KeyShredded,
    KeyState,
    Purpose,
    Sealed,
    SealedRoot,
    Secret,
    Vault,
    WrongContext,
    WrongKey,
)
from vault.keyring import WRAPS_ALARM, WRAPS_BLOCK, WRAPS_LIMIT
from vault.providers.env import EnvProvider

SEED = {"seed": Secret("JBSWY3DP")}
ACCOUNT = make_context(store="", tool="", purpose=Purpose.TOTP_SEED)


def _open(vault: Vault, sealed: Sealed) -> str:
    return revealed(vault.open(sealed, ACCOUNT, record=Trail()))["seed"]


# First use.


def test_VA_01_a_company_key_is_made_at_first_use_one_per_company_and_class(
    vault: Vault, store: MemoryKeyStore
) -> None:
    for context in (ACCOUNT, ACCOUNT, make_context(), make_context(company="kaede")):
        vault.seal(SEED, context)
    made = sorted((row.company, row.key_class.value, row.version, row.state.value) for row in store.rows.values())
    assert made == [
        ("kaede", "credential", 1, "active"),
        ("sakura", "account", 1, "active"),
        ("sakura", "credential", 1, "active"),
    ]


def test_VA_01_rows_hold_no_key_in_clear(vault: Vault, keyring: Keyring, store: MemoryKeyStore) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    key = keyring.for_opening(sealed.key_id, company="sakura", key_class=KeyClass.ACCOUNT)
    row = store.rows[sealed.key_id]
    assert key not in row.wrapped + row.check_value
    assert repr(row.wrapped) not in repr(row)
    assert repr(key) not in repr(keyring.for_sealing("sakura", KeyClass.ACCOUNT))


def test_VA_01_two_processes_at_first_use_share_one_key(provider: FragileProvider) -> None:
    class Late(MemoryKeyStore):
        """Another process commits its key between our look and our insert."""

        def add(self, key: CompanyKey) -> bool:
            if not self.rows:
                rival = MemoryKeyStore()
                rival.rows = self.rows
                make_keyring(rival, provider).new_version("sakura", KeyClass.ACCOUNT)
            return super().add(key)

    store = Late()
    vault = Vault(make_keyring(store, provider), opens=KeyClass)
    sealed = vault.seal(SEED, ACCOUNT)
    assert list(store.rows) == [sealed.key_id]
    assert _open(vault, sealed) == "JBSWY3DP"


def test_a_store_that_refuses_and_has_nothing_is_not_believed(provider: FragileProvider) -> None:
    class Refusing(MemoryKeyStore):
        def add(self, key: CompanyKey) -> bool:
            return False

    with pytest.raises(Damaged):
        Vault(make_keyring(Refusing(), provider), opens=KeyClass).seal(SEED, ACCOUNT)


def test_many_threads_make_one_key_and_all_seals_open(vault: Vault, store: MemoryKeyStore) -> None:
    gate = threading.Barrier(8)

    def work(_: int) -> list[Sealed]:
        gate.wait()
        return [vault.seal(SEED, ACCOUNT) for _ in range(40)]

    with ThreadPoolExecutor(8) as pool:
        sealed = [one for many in pool.map(work, range(8)) for one in many]
    assert len(store.rows) == 1
    assert {_open(vault, one) for one in sealed} == {"JBSWY3DP"}
    assert next(iter(store.rows.values())).wraps >= len(sealed)


# The cache.


def test_VA_20_cached_keys_live_out_five_minutes_without_the_provider(
    vault: Vault, provider: FragileProvider, clock: Clock
) -> None:
    assert timedelta(minutes=5) == CACHE_LIFETIME
    sealed = vault.seal(SEED, ACCOUNT)
    provider.away = True
    clock.move(minutes=4, seconds=59)
    assert _open(vault, sealed) == "JBSWY3DP"
    assert vault.seal(SEED, ACCOUNT).key_id == sealed.key_id
    clock.move(seconds=1)
    with pytest.raises(SealedRoot):
        _open(vault, sealed)


def test_VA_20_use_does_not_make_a_cached_key_live_longer(
    vault: Vault, provider: FragileProvider, clock: Clock
) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    provider.away = True
    for _ in range(4):
        clock.move(minutes=1)
        assert _open(vault, sealed)
    clock.move(minutes=1)
    with pytest.raises(SealedRoot):
        _open(vault, sealed)


def test_VA_20_a_clock_that_steps_back_does_not_make_a_cached_key_live_longer(
    vault: Vault, provider: FragileProvider, clock: Clock
) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    provider.away = True
    clock.move(days=-1)
    with pytest.raises(SealedRoot):
        _open(vault, sealed)
    clock.move(days=1)
    with pytest.raises(SealedRoot):
        _open(vault, sealed)


def test_the_provider_is_asked_once_in_five_minutes(vault: Vault, provider: FragileProvider, clock: Clock) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    for _ in range(10):
        _open(vault, sealed)
    assert provider.calls.count("unwrap") == 1
    clock.move(minutes=5)
    _open(vault, sealed)
    assert provider.calls.count("unwrap") == 2


def test_forget_empties_the_cache(vault: Vault, keyring: Keyring, provider: FragileProvider) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    keyring.forget()
    provider.away = True
    with pytest.raises(SealedRoot):
        _open(vault, sealed)


# Counting wraps.


def test_VA_02_wraps_are_counted_before_they_are_made_and_never_too_few(vault: Vault, store: MemoryKeyStore) -> None:
    for made in range(1, 2 * WRAPS_BLOCK + 2):
        sealed = vault.seal(SEED, ACCOUNT)
        assert store.rows[sealed.key_id].wraps >= made
    assert store.reservations == 3
    assert store.rows[sealed.key_id].wraps == 3 * WRAPS_BLOCK


def test_VA_02_a_crash_counts_too_many(store: MemoryKeyStore, provider: FragileProvider) -> None:
    for _ in range(3):  # three processes, each dies after one seal
        sealed = Vault(make_keyring(store, provider), opens=KeyClass).seal(SEED, ACCOUNT)
    assert store.rows[sealed.key_id].wraps == 3 * WRAPS_BLOCK


def test_VA_02_a_forked_process_does_not_spend_its_parents_block(
    vault: Vault, store: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.seal(SEED, ACCOUNT)
    monkeypatch.setattr("os.getpid", lambda: -1)
    vault.seal(SEED, ACCOUNT)
    assert store.reservations == 2


def test_VA_02_alarm_at_2_to_the_28(vault: Vault, store: MemoryKeyStore, alarms: list[int]) -> None:
    assert WRAPS_ALARM == 268_435_456
    sealed = vault.seal(SEED, ACCOUNT)
    store.change(sealed.key_id, wraps=WRAPS_ALARM - 2 * WRAPS_BLOCK)
    _spend(vault, WRAPS_BLOCK)
    assert alarms == []
    _spend(vault, 1 + WRAPS_BLOCK - 1)
    assert alarms == [WRAPS_ALARM]
    _spend(vault, WRAPS_BLOCK)
    assert alarms == [WRAPS_ALARM, WRAPS_ALARM + WRAPS_BLOCK]


def _spend(vault: Vault, count: int) -> None:
    for _ in range(count):
        vault.seal(SEED, ACCOUNT)


def test_VA_02_no_wrap_beyond_2_to_the_32(store: MemoryKeyStore, provider: FragileProvider) -> None:
    assert WRAPS_LIMIT == 4_294_967_296
    first = Vault(make_keyring(store, provider), opens=KeyClass)
    sealed = first.seal(SEED, ACCOUNT)
    store.change(sealed.key_id, wraps=WRAPS_LIMIT - WRAPS_BLOCK)
    last = Vault(make_keyring(store, provider), opens=KeyClass)
    _spend(last, WRAPS_BLOCK)
    for _ in range(2):
        with pytest.raises(KeyExhausted):
            last.seal(SEED, ACCOUNT)
    assert _open(last, sealed) == "JBSWY3DP"
    make_keyring(store, provider).new_version("sakura", KeyClass.ACCOUNT)
    assert last.seal(SEED, ACCOUNT).key_id != sealed.key_id


# VA-22: the wrong root key.


def test_VA_22_a_wrong_root_key_is_found_at_start(store: MemoryKeyStore, vault: Vault) -> None:
    vault.seal(SEED, ACCOUNT)
    make_keyring(store, make_provider()).check_roots()
    with pytest.raises(SealedRoot):
        make_keyring(store, make_provider(OTHER_MASTER)).check_roots()


def test_VA_22_another_key_under_a_known_id_is_found_at_start(store: MemoryKeyStore, vault: Vault) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    store.change(sealed.key_id, check_value=bytes(32))
    with pytest.raises(WrongKey):
        make_keyring(store, make_provider()).check_roots()


def test_VA_22_a_wrong_root_key_is_found_before_anything_is_written(store: MemoryKeyStore, vault: Vault) -> None:
    vault.seal(SEED, ACCOUNT)
    rows = dict(store.rows)
    wrong = make_keyring(store, make_provider(OTHER_MASTER))
    with pytest.raises(SealedRoot):
        Vault(wrong, opens=KeyClass).seal(SEED, make_context(company="kaede"))
    with pytest.raises(SealedRoot):
        wrong.new_version("sakura", KeyClass.ACCOUNT)
    with pytest.raises(SealedRoot):
        list(wrong.rewrap_company_keys(make_provider(OTHER_MASTER).current(KeyClass.ACCOUNT)))
    assert store.rows == rows


def test_VA_22_rotate_root_finds_a_wrong_root_key_before_it_moves_anything(store: MemoryKeyStore) -> None:
    _, (_, second) = _companies(Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass), 2)
    store.change(second.key_id, check_value=bytes(32))
    rows = dict(store.rows)
    both = make_provider(OTHER_MASTER, MASTER)
    with pytest.raises(WrongKey):
        list(make_keyring(store, both).rewrap_company_keys(both.current(KeyClass.ACCOUNT)))
    assert store.rows == rows


def test_VA_22_a_class_of_another_process_is_not_ours_to_check(store: MemoryKeyStore, vault: Vault) -> None:
    vault.seal(SEED, ACCOUNT)
    only_session = EnvProvider({"SEKISHO_ROOT_KEY": MASTER}, classes=[KeyClass.SESSION])
    keyring = make_keyring(store, only_session)
    keyring.check_roots()
    with pytest.raises(SealedRoot):
        Vault(keyring, opens=KeyClass).seal(SEED, make_context())
    Vault(keyring, opens=KeyClass).seal(SEED, make_context(purpose=Purpose.TOOL_JAR))


def test_VA_22_an_empty_store_has_nothing_to_check(keyring: Keyring) -> None:
    keyring.check_roots()


def test_a_shredded_key_is_not_checked(vault: Vault, keyring: Keyring, store: MemoryKeyStore) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    store.change(sealed.key_id, check_value=bytes(32))
    store.shred(sealed.key_id)
    keyring.check_roots()


def test_VA_04_a_company_key_of_another_length_is_damaged(
    vault: Vault, keyring: Keyring, provider: FragileProvider
) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    keyring.forget()
    provider.unwrap = lambda _id, _context, _data: bytes(16)  # type: ignore[method-assign]
    with pytest.raises(Damaged):
        _open(vault, sealed)


# VA-21: rotating a company key.


def test_VA_21_new_version_seals_and_the_old_one_still_opens(
    vault: Vault, keyring: Keyring, store: MemoryKeyStore
) -> None:
    old = vault.seal(SEED, ACCOUNT)
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    assert (row.version, row.state) == (2, KeyState.ACTIVE)
    assert store.rows[old.key_id].state is KeyState.RETIRING
    new = vault.seal(SEED, ACCOUNT)
    assert new.key_id == row.id
    assert _open(vault, old) == _open(vault, new) == "JBSWY3DP"


def test_VA_21_a_rotation_by_another_process_holds_from_its_commit(
    vault: Vault, store: MemoryKeyStore, provider: FragileProvider
) -> None:
    vault.seal(SEED, ACCOUNT)
    row = make_keyring(store, provider).new_version("sakura", KeyClass.ACCOUNT)
    assert vault.seal(SEED, ACCOUNT).key_id == row.id


def test_VA_21_a_company_without_keys_gets_its_first_by_rotation(keyring: Keyring) -> None:
    assert keyring.new_version("sakura", KeyClass.ACCOUNT).version == 1


def test_VA_08_a_shredded_company_is_not_rotated_back(keyring: Keyring, store: MemoryKeyStore) -> None:
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    store.shred(row.id)
    with pytest.raises(KeyShredded):
        keyring.new_version("sakura", KeyClass.ACCOUNT)
    assert len(store.rows) == 1


def test_VA_21_two_rotations_at_once_make_one_version(provider: FragileProvider) -> None:
    store = MemoryKeyStore()
    keyring = make_keyring(store, provider)
    keyring.new_version("sakura", KeyClass.ACCOUNT)
    seen = store.newest("sakura", KeyClass.ACCOUNT)
    winner = keyring.new_version("sakura", KeyClass.ACCOUNT)

    class Stale(MemoryKeyStore):
        """Shows the version before the other rotation, once."""

        def newest(self, company: str, key_class: KeyClass) -> CompanyKey | None:
            self.newest = super().newest  # type: ignore[method-assign]
            return seen

    stale = Stale()
    stale.rows = store.rows
    assert make_keyring(stale, provider).new_version("sakura", KeyClass.ACCOUNT).id == winner.id
    assert len(store.rows) == 2


def test_sealing_moves_on_when_no_key_is_active(vault: Vault, keyring: Keyring, store: MemoryKeyStore) -> None:
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    store.change(row.id, state=KeyState.RETIRING)
    sealed = vault.seal(SEED, ACCOUNT)
    assert sealed.key_id != row.id
    assert store.rows[sealed.key_id].version == 2


# VA-21: rewrapping data keys.


def test_VA_21_rewrap_changes_the_wrap_and_not_the_payload(vault: Vault, keyring: Keyring) -> None:
    old = vault.seal(SEED, ACCOUNT)
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    moved = vault.rewrap(old, ACCOUNT, to=row.id)
    assert moved.key_id == row.id
    assert dict(moved.fields) == dict(old.fields)
    assert moved.wrapped_dek != old.wrapped_dek
    assert _open(vault, moved) == "JBSWY3DP"


def test_VA_21_rewrap_again_changes_nothing(vault: Vault, keyring: Keyring, store: MemoryKeyStore) -> None:
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    sealed = vault.seal(SEED, ACCOUNT)
    reservations = store.reservations
    assert vault.rewrap(sealed, ACCOUNT, to=row.id) is sealed
    assert store.reservations == reservations


def test_VA_21_after_the_rewrap_the_old_key_can_go(vault: Vault, keyring: Keyring, store: MemoryKeyStore) -> None:
    old = vault.seal(SEED, ACCOUNT)
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    moved = vault.rewrap(old, ACCOUNT, to=row.id)
    store.shred(old.key_id)
    assert _open(vault, moved) == "JBSWY3DP"
    with pytest.raises(KeyShredded):
        _open(vault, old)


def test_VA_21_rewrap_counts_a_wrap(vault: Vault, keyring: Keyring, store: MemoryKeyStore) -> None:
    old = vault.seal(SEED, ACCOUNT)
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    vault.rewrap(old, ACCOUNT, to=row.id)
    assert store.rows[row.id].wraps == WRAPS_BLOCK


def test_VA_04_rewrap_refuses_another_place(vault: Vault, keyring: Keyring) -> None:
    old = vault.seal(SEED, ACCOUNT)
    row = keyring.new_version("sakura", KeyClass.ACCOUNT)
    with pytest.raises(Damaged):
        vault.rewrap(old, make_context(store="", tool="", purpose=Purpose.TOTP_SEED, record="other"), to=row.id)


def test_VA_04_rewrap_refuses_the_key_of_another_company_or_class(vault: Vault, keyring: Keyring) -> None:
    sealed = vault.seal(SEED, ACCOUNT)
    for company, key_class in (("kaede", KeyClass.ACCOUNT), ("sakura", KeyClass.SESSION)):
        with pytest.raises(WrongContext):
            vault.rewrap(sealed, ACCOUNT, to=keyring.new_version(company, key_class).id)


def test_VA_21_rewrap_does_not_go_back_to_an_old_key(vault: Vault, keyring: Keyring) -> None:
    first = keyring.new_version("sakura", KeyClass.ACCOUNT)
    keyring.new_version("sakura", KeyClass.ACCOUNT)
    with pytest.raises(WrongContext, match="retiring"):
        vault.rewrap(vault.seal(SEED, ACCOUNT), ACCOUNT, to=first.id)


def test_VA_21_rewrap_to_no_key_is_refused(vault: Vault) -> None:
    with pytest.raises(Damaged):
        vault.rewrap(vault.seal(SEED, ACCOUNT), ACCOUNT, to=UUID(int=99))


# VA-21: rotating a root key.


def _companies(vault: Vault, count: int) -> list[tuple[str, Sealed]]:
    names = [f"company-{number}" for number in range(count)]
    return [(name, vault.seal(SEED, _account_of(name))) for name in names]


def _account_of(company: str):
    return make_context(company=company, store="", tool="", purpose=Purpose.TOTP_SEED)


def test_VA_21_rotate_root_moves_company_keys_and_no_data(store: MemoryKeyStore) -> None:
    before = Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass)
    sealed = _companies(before, 5)
    jar = before.seal(SEED, make_context(purpose=Purpose.TOOL_JAR))
    both = make_provider(OTHER_MASTER, MASTER)
    new_root = both.current(KeyClass.ACCOUNT)

    moved = list(make_keyring(store, both).rewrap_company_keys(new_root))
    assert {one.key_id for one in moved} == {one.key_id for _, one in sealed}
    assert all(one.problem is None for one in moved)
    assert store.rows[jar.key_id].root_key_id != new_root  # a class of its own, rotated on its own

    jars_too = make_keyring(store, both)
    assert len(list(jars_too.rewrap_company_keys(both.current(KeyClass.SESSION)))) == 1
    only_new = Vault(make_keyring(store, make_provider(OTHER_MASTER)), opens=KeyClass)
    for company, one in sealed:
        assert only_new.open(one, _account_of(company), record=Trail())["seed"].reveal() == "JBSWY3DP"


def test_VA_21_rotate_root_resumes_where_it_was_killed(store: MemoryKeyStore) -> None:
    sealed = _companies(Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass), 7)
    both = make_provider(OTHER_MASTER, MASTER)
    new_root = both.current(KeyClass.ACCOUNT)
    killed = make_keyring(store, both).rewrap_company_keys(new_root)
    first = {next(killed).key_id for _ in range(3)}
    killed.close()
    # In the middle, readers with both root keys open everything.
    reader = Vault(make_keyring(store, both), opens=KeyClass)
    for company, one in sealed:
        reader.open(one, _account_of(company), record=Trail())
    rest = {one.key_id for one in make_keyring(store, both).rewrap_company_keys(new_root)}
    assert not first & rest
    assert len(first | rest) == 7
    assert list(make_keyring(store, both).rewrap_company_keys(new_root)) == []


def test_VA_21_rotate_root_goes_over_batches(store: MemoryKeyStore) -> None:
    _companies(Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass), 205)
    both = make_provider(OTHER_MASTER, MASTER)
    new_root = both.current(KeyClass.ACCOUNT)
    assert len(list(make_keyring(store, both).rewrap_company_keys(new_root))) == 205
    assert {row.root_key_id for row in store.rows.values()} == {new_root}


def test_VA_21_a_damaged_company_key_is_reported_and_does_not_hold_up_the_others(store: MemoryKeyStore) -> None:
    sealed = _companies(Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass), 3)
    broken, unreadable = sealed[0][1].key_id, sealed[1][1].key_id
    wrapped = store.rows[broken].wrapped
    store.change(broken, wrapped=wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
    store.change(unreadable, wrapped=wrapped[:4] + b"\x7f" + wrapped[5:])
    both = make_provider(OTHER_MASTER, MASTER)
    result = {
        one.key_id: one.problem for one in make_keyring(store, both).rewrap_company_keys(both.current(KeyClass.ACCOUNT))
    }
    assert isinstance(result[broken], Damaged)
    assert result[unreadable] is not None
    assert result[sealed[2][1].key_id] is None


def test_VA_08_rotate_root_does_not_bring_back_a_key_shredded_meanwhile(store: MemoryKeyStore) -> None:
    ((_, sealed),) = _companies(Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass), 1)

    class Shredding(FragileProvider):
        def wrap(self, key_id, context, data):
            store.shred(sealed.key_id)
            return super().wrap(key_id, context, data)

    both = Shredding(make_provider(OTHER_MASTER, MASTER))
    assert list(make_keyring(store, both).rewrap_company_keys(both.current(KeyClass.ACCOUNT))) == []
    assert store.rows[sealed.key_id].wrapped == b""


def test_VA_21_rotate_to_a_root_key_that_is_not_held_is_refused(keyring: Keyring) -> None:
    with pytest.raises(SealedRoot, match="not held"):
        list(keyring.rewrap_company_keys("nowhere"))


def test_VA_20_rotate_root_stops_when_the_provider_goes_away(store: MemoryKeyStore) -> None:
    _companies(Vault(make_keyring(store, make_provider(MASTER)), opens=KeyClass), 3)
    both = FragileProvider(make_provider(OTHER_MASTER, MASTER))
    run = make_keyring(store, both).rewrap_company_keys(both.current(KeyClass.ACCOUNT))
    next(run)
    both.away = True
    with pytest.raises(SealedRoot):
        list(run)
