"""VA-01, VA-04, VA-30, VA-32: seal and open as callers see them, and what somebody with the database can try."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vault_fakes import FragileProvider, MemoryKeyStore, Trail, make_context, make_keyring, make_provider, revealed

import vault as vault_package
from vault import (
    ClassRefused,
    Context,
    Damaged,
    IntegrityFailure,
    KeyClass,
    Keyring,
    KeyShredded,
    NotRecorded,
    Purpose,
    Sealed,
    SealedRoot,
    Sealer,
    Secret,
    UnknownSuite,
    Vault,
    VaultError,
    WrongContext,
    WrongKey,
)

LOGIN = {"login_id": Secret("sato"), "password": Secret("hunter2")}


def _context_of(purpose: Purpose) -> Context:
    return make_context(purpose=purpose)


# What works.


@pytest.mark.parametrize("purpose", Purpose)
def test_VA_01_what_was_sealed_opens(vault: Vault, trail: Trail, purpose: Purpose) -> None:
    sealed = vault.seal(LOGIN, _context_of(purpose))
    opened = vault.open(sealed, _context_of(purpose), record=trail)
    assert revealed(opened) == {"login_id": "sato", "password": "hunter2"}


def test_a_totp_seed_in_one_column(vault: Vault, trail: Trail) -> None:
    context = make_context(store="", tool="", purpose=Purpose.TOTP_SEED)
    column = vault.seal({"seed": Secret(b"\x00\xff seed")}, context).to_bytes()
    opened = vault.open(Sealed.from_bytes(column), context, record=trail)
    assert opened["seed"].reveal_bytes() == b"\x00\xff seed"


def test_VA_01_every_seal_has_a_data_key_of_its_own(vault: Vault, trail: Trail) -> None:
    for _ in range(20):
        vault.open(vault.seal(LOGIN, make_context()), make_context(), record=trail)
    assert len({event.data_key_id for event in trail.events}) == 20
    assert len({event.key_id for event in trail.events}) == 1


def test_VA_33_nothing_of_a_value_is_in_the_sealed_bytes(vault: Vault) -> None:
    sealed = vault.seal(LOGIN, make_context())
    for canary in (b"hunter2", b"sato"):
        assert canary not in sealed.to_bytes()
    assert "hunter2" not in repr(sealed)


# VA-04: rows moved about.


@pytest.mark.parametrize(
    "over",
    [
        {"record": "credential-8"},
        {"version": 2},
        {"company": "kaede"},
        {"store": "store-13"},
        {"tool": "other"},
    ],
    ids=lambda over: next(iter(over)),
)
def test_VA_04_swapped_rows_do_not_open(vault: Vault, trail: Trail, over: dict[str, object]) -> None:
    mine, theirs = make_context(), make_context(**over)
    sealed_mine, sealed_theirs = vault.seal(LOGIN, mine), vault.seal(LOGIN, theirs)
    for sealed, context in ((sealed_mine, theirs), (sealed_theirs, mine)):
        with pytest.raises(IntegrityFailure):
            vault.open(sealed, context, record=trail)


def test_VA_04_another_company_is_refused_before_its_key_is_unwrapped(
    vault: Vault, keyring: Keyring, trail: Trail, provider: FragileProvider
) -> None:
    sealed = vault.seal(LOGIN, make_context(company="kaede"))
    keyring.forget()
    provider.calls.clear()
    with pytest.raises(WrongContext):
        vault.open(sealed, make_context(), record=trail)
    assert provider.calls == []


def test_VA_04_swapped_columns_do_not_open(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    names = dict(zip(("login_id", "password"), reversed(list(sealed.fields.values())), strict=True))
    with pytest.raises(IntegrityFailure):
        vault.open(Sealed(sealed.wrapped_dek, names), make_context(), record=trail)


def test_VA_04_a_renamed_field_does_not_open(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal({"password": Secret("x")}, make_context())
    for name in ("Password", "password ", "passwort", ""):
        with pytest.raises(IntegrityFailure):
            vault.open(Sealed(sealed.wrapped_dek, {name: sealed.fields["password"]}), make_context(), record=trail)


def test_VA_04_a_payload_of_the_version_before_does_not_open(vault: Vault, trail: Trail) -> None:
    old, new = vault.seal(LOGIN, make_context()), vault.seal(LOGIN, make_context(version=2))
    mixed = Sealed(new.wrapped_dek, {**new.fields, "password": old.fields["password"]})
    with pytest.raises(Damaged):
        vault.open(mixed, make_context(version=2), record=trail)


def test_VA_04_a_payload_of_another_write_of_the_same_version_does_not_open(vault: Vault, trail: Trail) -> None:
    first, second = vault.seal(LOGIN, make_context()), vault.seal(LOGIN, make_context())
    with pytest.raises(Damaged, match="another data key"):
        vault.open(Sealed(first.wrapped_dek, second.fields), make_context(), record=trail)
    # And with the ids made to agree, which are not secret:
    forged = {name: data[:5] + first.fields[name][5:21] + data[21:] for name, data in second.fields.items()}
    with pytest.raises(Damaged):
        vault.open(Sealed(first.wrapped_dek, forged), make_context(), record=trail)


def test_VA_04_one_bad_field_opens_none(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    bent = sealed.fields["password"][:-1] + bytes([sealed.fields["password"][-1] ^ 1])
    with pytest.raises(Damaged):
        vault.open(Sealed(sealed.wrapped_dek, {**sealed.fields, "password": bent}), make_context(), record=trail)


def test_VA_04_a_record_without_fields_is_no_empty_success(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    with pytest.raises(Damaged):
        vault.open(Sealed(sealed.wrapped_dek, {}), make_context(), record=trail)
    assert trail.events == []


def test_VA_04_a_header_that_names_an_unknown_key_does_not_open(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    with pytest.raises(Damaged):
        vault.open(_under(sealed, UUID(int=424242)), make_context(), record=trail)


def test_VA_04_a_header_that_names_a_sibling_key_does_not_open(vault: Vault, keyring: Keyring, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    sibling = keyring.new_version("sakura", KeyClass.CREDENTIAL)
    with pytest.raises(Damaged):
        vault.open(_under(sealed, sibling.id), make_context(), record=trail)


def _under(sealed: Sealed, key_id: UUID) -> Sealed:
    return Sealed(sealed.wrapped_dek[:5] + key_id.bytes + sealed.wrapped_dek[21:], sealed.fields)


def test_VA_04_the_class_of_a_key_cannot_be_changed_in_its_row(
    vault: Vault, keyring: Keyring, store: MemoryKeyStore, trail: Trail
) -> None:
    """An intruder in the gateway, with the database, relabels a password's company key as one for jars."""
    sealed = vault.seal(LOGIN, make_context())
    store.change(sealed.key_id, key_class=KeyClass.SESSION)
    keyring.forget()
    with pytest.raises(IntegrityFailure):
        vault.open(sealed, make_context(purpose=Purpose.TOOL_JAR), record=trail)


@pytest.mark.parametrize("over", [{"company": "kaede"}, {"version": 2}], ids=lambda over: next(iter(over)))
def test_VA_04_a_company_key_row_cannot_be_given_to_another(
    vault: Vault, keyring: Keyring, store: MemoryKeyStore, trail: Trail, over: dict[str, object]
) -> None:
    sealed = vault.seal(LOGIN, make_context())
    store.change(sealed.key_id, **over)
    keyring.forget()
    with pytest.raises(IntegrityFailure):
        vault.open(sealed, make_context(company=over.get("company", "sakura")), record=trail)


def test_VA_04_wrong_context_damage_and_wrong_key_look_the_same_outside() -> None:
    assert {WrongContext.code, Damaged.code, WrongKey.code} == {"vault_integrity"}
    others = [NotRecorded, SealedRoot, KeyShredded, UnknownSuite, ClassRefused, vault_package.KeyExhausted]
    assert len({error.code for error in others} | {"vault_integrity"}) == len(others) + 1


# VA-32: on record first, or not at all.


def test_VA_32_record_has_no_default(vault: Vault) -> None:
    sealed = vault.seal(LOGIN, make_context())
    with pytest.raises(TypeError, match="record"):
        vault.open(sealed, make_context())  # type: ignore[call-arg]


def test_VA_32_the_event_says_what_is_opened_and_holds_no_value(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    vault.open(sealed, make_context(), record=trail)
    (event,) = trail.events
    assert event.context == make_context()
    assert event.key_id == sealed.key_id
    assert event.fields == ("login_id", "password")
    assert "hunter2" not in repr(event)


@pytest.mark.parametrize("failure", [RuntimeError("database away"), OSError("disk full"), NotRecorded("no")])
def test_VA_32_a_record_that_fails_opens_nothing(
    vault: Vault, keyring: Keyring, provider: FragileProvider, failure: Exception
) -> None:
    sealed = vault.seal(LOGIN, make_context())
    keyring.forget()
    provider.calls.clear()
    with pytest.raises(NotRecorded) as caught:
        vault.open(sealed, make_context(), record=Trail(failure))
    assert caught.value.__cause__ is failure
    assert provider.calls == []  # not even the company key was unwrapped


def test_VA_32_a_record_that_is_interrupted_opens_nothing(vault: Vault, provider: FragileProvider) -> None:
    sealed = vault.seal(LOGIN, make_context())
    with pytest.raises(KeyboardInterrupt):
        vault.open(sealed, make_context(), record=Trail(KeyboardInterrupt()))


def test_VA_32_a_coroutine_as_record_opens_nothing(vault: Vault) -> None:
    recorded = []

    async def record(event: object) -> None:
        recorded.append(event)

    sealed = vault.seal(LOGIN, make_context())
    with pytest.raises(NotRecorded, match="coroutine"):
        vault.open(sealed, make_context(), record=record)
    assert recorded == []


def test_VA_32_a_future_as_record_opens_nothing(vault: Vault) -> None:
    sealed = vault.seal(LOGIN, make_context())
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(NotRecorded):
            vault.open(sealed, make_context(), record=lambda _event: loop.create_future())
    finally:
        loop.close()


def test_VA_32_a_failed_open_is_on_record_too(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    with pytest.raises(IntegrityFailure):
        vault.open(sealed, make_context(record="credential-8"), record=trail)
    assert len(trail.events) == 1


def test_VA_05_what_cannot_be_read_is_refused_before_it_is_recorded(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    wrong_suite = sealed.wrapped_dek[:4] + b"\x7f" + sealed.wrapped_dek[5:]
    with pytest.raises(UnknownSuite):
        vault.open(Sealed(wrong_suite, sealed.fields), make_context(), record=trail)
    payload = sealed.fields["password"]
    fields = {"password": payload[:4] + b"\x7f" + payload[5:]}
    with pytest.raises(UnknownSuite):
        vault.open(Sealed(sealed.wrapped_dek, fields), make_context(), record=trail)
    with pytest.raises(Damaged):
        vault.open(Sealed(b"", sealed.fields), make_context(), record=trail)
    assert trail.events == []


# VA-30: one process, its classes.


@pytest.mark.parametrize("purpose", Purpose)
def test_VA_30_a_process_does_not_open_another_class(keyring: Keyring, trail: Trail, purpose: Purpose) -> None:
    context = _context_of(purpose)
    others = Vault(keyring, opens=set(KeyClass) - {context.key_class})
    sealed = others.seal(LOGIN, context)
    with pytest.raises(ClassRefused):
        others.open(sealed, context, record=trail)
    with pytest.raises(ClassRefused):
        others.rewrap(sealed, context, to=sealed.key_id)
    assert trail.events == []
    owner = Vault(keyring, opens={context.key_class})
    assert revealed(owner.open(sealed, context, record=trail))["password"] == "hunter2"


def test_VA_30_another_class_ciphertext_under_ones_own_purpose_does_not_open(keyring: Keyring, trail: Trail) -> None:
    sealed = Sealer(keyring).seal(LOGIN, make_context())
    gateway = Vault(keyring, opens={KeyClass.SESSION})
    with pytest.raises(WrongContext):
        gateway.open(sealed, make_context(purpose=Purpose.TOOL_JAR), record=trail)


def test_VA_30_a_sealer_has_no_way_to_open() -> None:
    assert [name for name in dir(Sealer) if not name.startswith("_")] == ["seal"]


def test_VA_30_the_classes_of_a_vault_are_fixed_when_it_is_made(keyring: Keyring, trail: Trail) -> None:
    classes = {KeyClass.SESSION}
    gateway = Vault(keyring, opens=classes)
    classes.add(KeyClass.CREDENTIAL)
    with pytest.raises(ClassRefused):
        gateway.open(gateway.seal(LOGIN, make_context()), make_context(), record=trail)


# What cannot be sealed.


def test_VA_33_clear_values_are_not_sealed(vault: Vault) -> None:
    for value in ("hunter2", b"hunter2", None):
        with pytest.raises(TypeError) as caught:
            vault.seal({"password": value}, make_context())  # type: ignore[dict-item]
        assert "hunter2" not in str(caught.value)
    with pytest.raises(TypeError):
        vault.seal({"login_id": Secret("sato"), "password": "hunter2"}, make_context())  # type: ignore[dict-item]


def test_nothing_is_not_sealed(vault: Vault, store: MemoryKeyStore) -> None:
    with pytest.raises(ValueError, match="nothing"):
        vault.seal({}, make_context())
    with pytest.raises(ValueError, match="name"):
        vault.seal({"": Secret("x")}, make_context())
    assert all(row.wraps <= 256 for row in store.rows.values())


def test_VA_04_a_context_of_one_field_names_no_record(vault: Vault, trail: Trail) -> None:
    sealed = vault.seal(LOGIN, make_context())
    field = make_context(field="password")
    for call in (
        lambda: vault.seal(LOGIN, field),
        lambda: vault.open(sealed, field, record=trail),
        lambda: vault.rewrap(sealed, field, to=sealed.key_id),
    ):
        with pytest.raises(ValueError, match="names the record"):
            call()


# The provider away.


def test_VA_20_provider_away_opens_fail_closed(
    vault: Vault, keyring: Keyring, provider: FragileProvider, trail: Trail
) -> None:
    sealed = vault.seal(LOGIN, make_context())
    keyring.forget()
    provider.away = True
    with pytest.raises(SealedRoot):
        vault.open(sealed, make_context(), record=trail)
    with pytest.raises(SealedRoot):
        vault.seal(LOGIN, make_context())
    provider.away = False
    assert revealed(vault.open(sealed, make_context(), record=trail))["login_id"] == "sato"


def test_VA_08_a_shredded_company_does_not_open_and_does_not_come_back(
    vault: Vault, store: MemoryKeyStore, trail: Trail
) -> None:
    sealed = vault.seal(LOGIN, make_context())
    store.shred(sealed.key_id)
    with pytest.raises(KeyShredded):
        vault.open(sealed, make_context(), record=trail)  # though the key was in the cache
    with pytest.raises(KeyShredded):
        vault.seal(LOGIN, make_context())
    with pytest.raises(KeyShredded):
        vault.rewrap(sealed, make_context(), to=UUID(int=5))


def test_VA_22_a_wrong_root_key_opens_nothing(store: MemoryKeyStore, trail: Trail) -> None:
    good, bad = FragileProvider(make_provider()), FragileProvider(make_provider())
    sealed = Vault(make_keyring(store, good), opens=KeyClass).seal(LOGIN, make_context())
    bad.check_value = lambda _key_id: bytes(32)  # type: ignore[method-assign]
    with pytest.raises(WrongKey):
        Vault(make_keyring(store, bad), opens=KeyClass).open(sealed, make_context(), record=trail)


# Sealed as bytes.


@pytest.fixture
def column(vault: Vault) -> bytes:
    return vault.seal(LOGIN, make_context()).to_bytes()


def test_sealed_comes_back_from_bytes(vault: Vault) -> None:
    sealed = vault.seal(LOGIN, make_context())
    again = Sealed.from_bytes(sealed.to_bytes())
    assert (again.wrapped_dek, dict(again.fields), again.key_id) == (
        sealed.wrapped_dek,
        dict(sealed.fields),
        sealed.key_id,
    )


def test_the_order_of_fields_does_not_change_the_bytes() -> None:
    assert Sealed(b"k", {"a": b"1", "b": b"2"}).to_bytes() == Sealed(b"k", {"b": b"2", "a": b"1"}).to_bytes()


def test_VA_04_sealed_cut_short_anywhere_is_damaged(column: bytes) -> None:
    for length in range(len(column)):
        with pytest.raises(Damaged):
            Sealed.from_bytes(column[:length])


def test_VA_04_sealed_with_one_bit_changed_anywhere_does_not_open(vault: Vault, trail: Trail, column: bytes) -> None:
    for position in range(len(column)):
        bent = bytearray(column)
        bent[position] ^= 1 << (position % 8)
        with pytest.raises((IntegrityFailure, UnknownSuite)):
            vault.open(Sealed.from_bytes(bytes(bent)), make_context(), record=trail)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SKS1",
        b"SKB1",
        b"SKB1\xff\xff\xff\xff",
        b"SKB1" + b"\0\0\0\1k" + b"\0\0" + b"!",
        b"SKB1" + b"\0\0\0\1k" + b"\0\2" + b"\0\1b\0\0\0\0" + b"\0\1a\0\0\0\0",
        b"SKB1" + b"\0\0\0\1k" + b"\0\2" + b"\0\1a\0\0\0\0" + b"\0\1a\0\0\0\0",
        b"SKB1" + b"\0\0\0\1k" + b"\0\1" + b"\0\1\xff\0\0\0\0",
    ],
    ids=["empty", "magic", "bare", "huge", "trailing", "unordered", "twice", "name"],
)
def test_VA_04_other_bytes_are_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        Sealed.from_bytes(data)


@given(st.binary(max_size=300))
def test_VA_05_any_bytes_are_damaged(data: bytes) -> None:
    for candidate in (data, b"SKB1" + data):
        try:
            sealed = Sealed.from_bytes(candidate)
        except Damaged:
            continue
        assert sealed.to_bytes() == candidate


@given(st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8), st.binary(max_size=40)))
def test_sealed_comes_back_from_bytes_whatever_it_holds(fields: dict[str, bytes]) -> None:
    assert dict(Sealed.from_bytes(Sealed(b"wrapped", fields).to_bytes()).fields) == fields


def test_sealed_does_not_change_after_it_was_made() -> None:
    fields = {"a": b"1"}
    sealed = Sealed(b"k", fields)
    fields["b"] = b"2"
    assert dict(sealed.fields) == {"a": b"1"}
    with pytest.raises(TypeError):
        sealed.fields["b"] = b"2"  # type: ignore[index]
    with pytest.raises(AttributeError):
        sealed.wrapped_dek = b"other"  # type: ignore[misc]
    assert replace(sealed, wrapped_dek=b"l").fields == sealed.fields


def test_VA_04_the_key_id_of_damaged_bytes_is_damaged() -> None:
    with pytest.raises(Damaged):
        _ = Sealed(b"", {}).key_id


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    fields=st.dictionaries(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.binary(max_size=100),
        min_size=1,
        max_size=4,
    ),
    wrong=st.fixed_dictionaries({"record": st.text(alphabet="abc0", min_size=1), "version": st.integers(1, 5)}),
)
def test_VA_04_open_gives_back_what_was_sealed_there_and_nothing_elsewhere(
    vault: Vault, fields: dict[str, bytes], wrong: dict[str, object]
) -> None:
    sealed = vault.seal({name: Secret(value) for name, value in fields.items()}, make_context())
    opened = vault.open(sealed, make_context(), record=Trail())
    assert {name: value.reveal_bytes() for name, value in opened.items()} == fields
    with pytest.raises(VaultError):
        vault.open(sealed, make_context(**wrong), record=Trail())


def test_the_public_surface_is_what_is_exported() -> None:
    assert all(hasattr(vault_package, name) for name in vault_package.__all__)
