"""VA-20: one contract for every root key provider. A new provider adds a maker to `MAKERS` and passes."""

from __future__ import annotations

import base64
import os
import stat
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from vault_fakes import MASTER, MemoryKeyStore, Trail, make_context, make_keyring, new_id

from vault import (
    CannotRotate,
    IntegrityFailure,
    KeyClass,
    KeyContext,
    Purpose,
    RootRefused,
    SealedRoot,
    Secret,
    Vault,
    VaultError,
)
from vault.providers import RootKeyProvider
from vault.providers.command import CommandProvider, _refuse_unsafe
from vault.providers.env import EnvProvider
from vault.providers.file import FileProvider
from vault.providers.roots import RootKey, Roots, derive, format_roots, parse_roots


def _key(key_class: KeyClass, *, current: bool = True) -> RootKey:
    return RootKey(key_class, new_id(), os.urandom(32), current=current)


def _file(directory: Path) -> RootKeyProvider:
    return FileProvider.create(directory / "roots", forbidden=[], new_id=new_id)


def _env(_: Path) -> RootKeyProvider:
    return EnvProvider({"SEKISHO_ROOT_KEY": MASTER})


def _command(directory: Path) -> RootKeyProvider:
    # Two classes: the text of all five with old keys would not fit into 1 KiB, and no process needs them all.
    roots = Roots([_key(KeyClass.ACCOUNT), _key(KeyClass.SIGNING), _key(KeyClass.SIGNING, current=False)])
    return CommandProvider([str(script(directory, f"cat <<'END'\n{format_roots(roots)}END\n"))])


def script(directory: Path, body: str) -> Path:
    path = directory / "root-key-command"
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o700)
    return path


MAKERS: dict[str, Callable[[Path], RootKeyProvider]] = {"file": _file, "env": _env, "command": _command}

KEY = bytes(range(32))
CONTEXT = KeyContext(company="sakura", key_class=KeyClass.ACCOUNT, key_id=UUID(int=1), version=1)


@pytest.fixture(params=MAKERS)
def any_provider(request: pytest.FixtureRequest, tmp_path: Path) -> RootKeyProvider:
    return MAKERS[request.param](tmp_path)


@pytest.fixture
def root(any_provider: RootKeyProvider) -> str:
    return any_provider.current(KeyClass.ACCOUNT)


class TestContract:
    def test_VA_20_what_was_wrapped_unwraps(self, any_provider: RootKeyProvider, root: str) -> None:
        wrapped = any_provider.wrap(root, CONTEXT, KEY)
        assert any_provider.unwrap(root, CONTEXT, wrapped) == KEY
        assert KEY not in wrapped
        assert len(wrapped) <= 1024

    def test_VA_02_two_wraps_of_one_key_differ(self, any_provider: RootKeyProvider, root: str) -> None:
        assert len({any_provider.wrap(root, CONTEXT, KEY) for _ in range(20)}) == 20

    @pytest.mark.parametrize(
        "over",
        [{"company": "kaede"}, {"key_class": KeyClass.SIGNING}, {"key_id": UUID(int=2)}, {"version": 2}],
        ids=lambda over: next(iter(over)),
    )
    def test_VA_04_another_place_does_not_unwrap(
        self, any_provider: RootKeyProvider, root: str, over: dict[str, object]
    ) -> None:
        wrapped = any_provider.wrap(root, CONTEXT, KEY)
        with pytest.raises(IntegrityFailure):
            any_provider.unwrap(root, replace(CONTEXT, **over), wrapped)  # type: ignore[arg-type]

    def test_VA_04_bent_or_cut_bytes_do_not_unwrap(self, any_provider: RootKeyProvider, root: str) -> None:
        wrapped = any_provider.wrap(root, CONTEXT, KEY)
        for position in range(len(wrapped)):
            bent = wrapped[:position] + bytes([wrapped[position] ^ 0x40]) + wrapped[position + 1 :]
            for data in (bent, wrapped[:position]):
                with pytest.raises(VaultError) as caught:
                    any_provider.unwrap(root, CONTEXT, data)
                assert not isinstance(caught.value, SealedRoot)

    def test_VA_30_a_root_key_of_another_class_does_not_unwrap(self, any_provider: RootKeyProvider, root: str) -> None:
        wrapped = any_provider.wrap(root, CONTEXT, KEY)
        other = any_provider.current(KeyClass.SIGNING)
        assert other != root
        for context in (CONTEXT, replace(CONTEXT, key_class=KeyClass.SIGNING)):
            with pytest.raises(IntegrityFailure):
                any_provider.unwrap(other, context, wrapped)

    def test_VA_30_a_root_key_does_not_wrap_for_another_class(self, any_provider: RootKeyProvider, root: str) -> None:
        with pytest.raises(VaultError):
            any_provider.wrap(root, replace(CONTEXT, key_class=KeyClass.SIGNING), KEY)

    def test_VA_20_a_root_key_that_is_not_held_is_away(self, any_provider: RootKeyProvider, root: str) -> None:
        wrapped = any_provider.wrap(root, CONTEXT, KEY)
        unknown = str(UUID(int=5))
        for call in (
            lambda: any_provider.wrap(unknown, CONTEXT, KEY),
            lambda: any_provider.unwrap(unknown, CONTEXT, wrapped),
            lambda: any_provider.check_value(unknown),
            lambda: any_provider.rotate(unknown),
        ):
            with pytest.raises(SealedRoot):
                call()

    def test_the_current_key_is_one_of_those_held(self, any_provider: RootKeyProvider) -> None:
        for key_class in (KeyClass.ACCOUNT, KeyClass.SIGNING):
            assert any_provider.current(key_class) in any_provider.key_ids(key_class)

    def test_VA_22_check_values_are_stable_and_tell_keys_apart(self, any_provider: RootKeyProvider) -> None:
        ids = [key_id for key_class in KeyClass for key_id in any_provider.key_ids(key_class)]
        values = {key_id: any_provider.check_value(key_id) for key_id in ids}
        assert len(set(values.values())) == len(ids)
        assert values == {key_id: any_provider.check_value(key_id) for key_id in ids}
        assert {len(value) for value in values.values()} == {32}

    def test_VA_21_rotate_adds_a_key_or_says_that_it_cannot(self, any_provider: RootKeyProvider, root: str) -> None:
        wrapped = any_provider.wrap(root, CONTEXT, KEY)
        try:
            new = any_provider.rotate(root)
        except CannotRotate:
            new = root
        else:
            assert new != root
            assert any_provider.rotate(root) == new  # again: nothing more is made
        assert any_provider.current(KeyClass.ACCOUNT) == new
        assert any_provider.unwrap(root, CONTEXT, wrapped) == KEY

    def test_health_is_well(self, any_provider: RootKeyProvider) -> None:
        assert any_provider.health().ok
        assert any_provider.health().problem == ""

    def test_VA_01_a_vault_works_on_it(self, any_provider: RootKeyProvider) -> None:
        context = make_context(store="", tool="", purpose=Purpose.TOTP_SEED)
        vault = Vault(make_keyring(MemoryKeyStore(), any_provider), opens=[KeyClass.ACCOUNT])
        sealed = vault.seal({"seed": Secret("x")}, context)
        assert vault.open(sealed, context, record=Trail())["seed"].reveal() == "x"

    def test_only_the_environment_is_for_development(self, any_provider: RootKeyProvider) -> None:
        assert any_provider.development_only is isinstance(any_provider, EnvProvider)


# The text of root keys.


def test_VA_20_the_text_form_comes_back() -> None:
    roots = Roots([_key(KeyClass.ACCOUNT), _key(KeyClass.ACCOUNT, current=False), _key(KeyClass.SESSION)])
    again = parse_roots("# our keys\n\n" + format_roots(roots))
    assert again.keys == roots.keys


LINE = f"account {UUID(int=1)} {MASTER} current"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        LINE.replace(" current", ""),
        LINE.replace("current", "Current"),
        LINE.replace("current", "current current"),
        LINE.replace("account", "accounts"),
        LINE.replace("account", ""),
        LINE.replace(str(UUID(int=1)), "1"),
        LINE.replace(MASTER, MASTER[:-4]),
        LINE.replace(MASTER, MASTER + MASTER),
        LINE.replace(MASTER, MASTER[:-1]),
        LINE.replace(MASTER, MASTER[:-2] + "9="),  # a second spelling of the same bytes
        LINE.replace(MASTER, base64.b64encode(bytes(32)).decode()),
        LINE.replace(MASTER, base64.b64encode(b"changeme" * 4).decode()),
        f"{LINE}\n{LINE}",
        f"{LINE}\nsession {UUID(int=2)} {MASTER} current",
        f"{LINE}\nsession {UUID(int=1)} {base64.b64encode(bytes(range(1, 33))).decode()} current",
        f"{LINE}\naccount {UUID(int=2)} {base64.b64encode(bytes(range(1, 33))).decode()} current",
        f"{LINE}\nさくら",
    ],
)
def test_VA_22_a_text_that_is_not_clear_holds_no_root_keys(text: str) -> None:
    with pytest.raises(RootRefused) as caught:
        parse_roots(text)
    assert MASTER[:12] not in str(caught.value)


def test_VA_20_derived_values_have_labels_of_their_own() -> None:
    values = [derive(KEY, label, info, length=32) for label, info in (("a", b""), ("b", b""), ("a", b"b"), ("ab", b""))]
    assert len(set(values)) == 4


def test_VA_33_a_root_key_does_not_show_itself() -> None:
    assert repr(bytes(range(32))) not in repr(RootKey(KeyClass.ACCOUNT, UUID(int=1), KEY, current=True))


# Environment.


def test_D10_a_missing_variable_is_refused() -> None:
    for environment in ({}, {"SEKISHO_ROOT_KEY": ""}, {"SEKISHO_ROOT_KEY": "  "}, {"OTHER": MASTER}):
        with pytest.raises(RootRefused, match="not set"):
            EnvProvider(environment)


@pytest.mark.parametrize("master", ["x", "changeme", MASTER[:-1], base64.b64encode(bytes(32)).decode(), "ｘ" * 44])
def test_VA_22_a_default_or_broken_master_is_refused(master: str) -> None:
    with pytest.raises(RootRefused):
        EnvProvider({"SEKISHO_ROOT_KEY": f"{MASTER} {master}"})


def test_VA_22_another_master_has_other_ids() -> None:
    other = EnvProvider({"SEKISHO_ROOT_KEY": base64.b64encode(os.urandom(32)).decode()})
    same = EnvProvider({"ROOT": MASTER}, variable="ROOT")
    for key_class in KeyClass:
        mine = EnvProvider({"SEKISHO_ROOT_KEY": MASTER}).current(key_class)
        assert mine == same.current(key_class) != other.current(key_class)


def test_VA_30_a_process_is_given_some_classes() -> None:
    provider = EnvProvider({"SEKISHO_ROOT_KEY": MASTER}, classes=[KeyClass.SESSION])
    assert provider.key_ids(KeyClass.ACCOUNT) == ()
    with pytest.raises(SealedRoot):
        provider.current(KeyClass.ACCOUNT)


# Command.


def _good(directory: Path) -> Path:
    return script(directory, f"echo '{LINE}'\n")


def test_VA_20_a_relative_command_is_refused() -> None:
    for argv in ([], ["cat"], ["./cat"], ["bin/cat", "/etc/roots"], [""]):
        with pytest.raises(RootRefused):
            CommandProvider(argv)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_VA_20_a_command_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = _good(tmp_path)
    path.chmod(mode)
    with pytest.raises(RootRefused, match="writable"):
        CommandProvider([str(path)]).current(KeyClass.ACCOUNT)


def test_VA_20_a_command_behind_a_symlink_is_checked_where_it_is(tmp_path: Path) -> None:
    path, link = _good(tmp_path), tmp_path / "link"
    link.symlink_to(path)
    assert CommandProvider([str(link)]).health().ok
    path.chmod(0o702)
    assert not CommandProvider([str(link)]).health().ok


def test_VA_20_a_command_in_a_directory_that_everybody_writes_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    path = _good(directory)
    directory.chmod(0o777)
    with pytest.raises(RootRefused, match="writable by everybody"):
        CommandProvider([str(path)]).current(KeyClass.ACCOUNT)


def test_VA_20_a_directory_is_no_command(tmp_path: Path) -> None:
    with pytest.raises(RootRefused):
        CommandProvider([str(tmp_path)]).current(KeyClass.ACCOUNT)


@pytest.mark.parametrize(
    "body",
    [
        "exit 1",
        f"echo '{LINE}'; exit 3",
        f"echo '{LINE}'; kill -9 $$",
        "head -c 1025 /dev/zero | tr '\\0' '#'",
        "exec cat /dev/zero",
    ],
    ids=["fails", "fails-after-output", "killed", "too-much", "endless"],
)
def test_VA_20_a_command_that_fails_is_a_provider_away(tmp_path: Path, body: str) -> None:
    provider = CommandProvider([str(script(tmp_path, body + "\n"))])
    with pytest.raises(SealedRoot) as caught:
        provider.current(KeyClass.ACCOUNT)
    assert type(caught.value) is SealedRoot
    assert MASTER not in str(caught.value)
    assert not provider.health().ok


def test_VA_20_a_command_may_print_1_kib(tmp_path: Path) -> None:
    filler = 1024 - len(LINE) - 1
    body = f"echo '{LINE}'; head -c {filler} /dev/zero | tr '\\0' '#'\n"
    assert CommandProvider([str(script(tmp_path, body))]).health().ok


def test_VA_20_a_command_of_another_user_is_refused(tmp_path: Path) -> None:
    path = _good(tmp_path)
    status = list(path.stat())
    for uid, refused in ((0, False), (os.geteuid(), False), (os.geteuid() + 1, True)):
        status[stat.ST_UID] = uid
        with pytest.raises(RootRefused, match="another user") if refused else nullcontext():
            _refuse_unsafe(path, os.stat_result(status))


@pytest.mark.parametrize(
    "body", ["true", "echo さくら", f"echo '{LINE} x'"], ids=["nothing", "not-ascii", "not-a-line"]
)
def test_VA_20_a_command_that_prints_something_else_is_refused(tmp_path: Path, body: str) -> None:
    with pytest.raises(RootRefused) as caught:
        CommandProvider([str(script(tmp_path, body + "\n"))]).current(KeyClass.ACCOUNT)
    assert MASTER not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    ["exec sleep 30", "sleep 30 & wait", "exec >&-; sleep 30"],
    ids=["hangs", "child-hangs", "closes-and-hangs"],
)
def test_VA_20_a_command_that_hangs_is_ended_at_the_deadline(tmp_path: Path, body: str) -> None:
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid\n{body}\n")
    with pytest.raises(SealedRoot, match="too long"):
        CommandProvider([str(path)], deadline_s=0.3).current(KeyClass.ACCOUNT)
    assert _running(group=int((tmp_path / "pid").read_text())) == []


def _running(*, group: int) -> list[str]:
    """Processes of a process group; those that are dead and only not waited for (by init) do not count."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _parent, process_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                found.append(status.parent.name)
    return found


def test_VA_20_a_command_that_is_not_there_or_no_program_is_a_provider_away(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with pytest.raises(SealedRoot):
        CommandProvider([str(nothing)]).current(KeyClass.ACCOUNT)
    nothing.write_bytes(b"\x7fELF, not really")
    nothing.chmod(0o700)
    with pytest.raises(SealedRoot, match="does not start"):
        CommandProvider([str(nothing)]).current(KeyClass.ACCOUNT)


def test_VA_20_arguments_reach_the_command_and_no_shell(tmp_path: Path) -> None:
    roots = tmp_path / "a file; touch $(echo owned)"
    roots.write_text(LINE)
    path = script(tmp_path, 'test "$#" = 1 && cat "$1"\n')
    assert CommandProvider([str(path), str(roots)]).health().ok


def test_VA_20_the_command_does_not_get_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_CANARY", "canary")
    path = script(tmp_path, f'test -z "$SEKISHO_CANARY" && test "$WANTED" = yes && echo "{LINE}"\n')
    assert CommandProvider([str(path)], environment={"PATH": "/usr/bin:/bin", "WANTED": "yes"}).health().ok
    assert not CommandProvider([str(path)]).health().ok


def test_VA_21_a_rotation_arrives_by_running_the_command_again(tmp_path: Path) -> None:
    old, new = _key(KeyClass.ACCOUNT), _key(KeyClass.ACCOUNT)
    roots = tmp_path / "roots"
    roots.write_text(format_roots(Roots([old])))
    provider = CommandProvider([str(script(tmp_path, f"echo run >> {tmp_path}/runs\ncat {roots}\n"))])
    wrapped = provider.wrap(str(old.id), CONTEXT, KEY)

    roots.write_text(format_roots(Roots([replace(old, current=False), new])))
    assert provider.current(KeyClass.ACCOUNT) == str(old.id)
    provider.check_value(str(new.id))  # a row names it: another process has rotated
    assert provider.current(KeyClass.ACCOUNT) == str(new.id)
    assert provider.unwrap(str(old.id), CONTEXT, wrapped) == KEY
    assert (tmp_path / "runs").read_text() == "run\nrun\n"
    assert provider.rotate(str(old.id)) == str(new.id)  # it was rotated already
    provider.reload()
    assert provider.health().ok
    assert (tmp_path / "runs").read_text() == "run\nrun\nrun\n"


def test_the_python_of_this_test_is_a_command_too(tmp_path: Path) -> None:
    assert CommandProvider([sys.executable, "-c", f"print('{LINE}')"]).current(KeyClass.ACCOUNT) == str(UUID(int=1))
