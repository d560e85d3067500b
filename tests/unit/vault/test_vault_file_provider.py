"""VA-09, VA-20, VA-22: a root key file is safe, or it is not read."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vault_fakes import new_id

from vault import KeyClass, RootRefused, SealedRoot
from vault.providers.file import FileProvider


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "roots"


@pytest.fixture
def made(path: Path) -> FileProvider:
    path.parent.mkdir(mode=0o700)
    return FileProvider.create(path, forbidden=[], new_id=new_id)


def _provider(path: Path, *forbidden: Path) -> FileProvider:
    return FileProvider(path, forbidden=forbidden, new_id=new_id)


def test_VA_20_a_new_file_has_mode_0400_and_one_current_key_per_class(path: Path, made: FileProvider) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    for key_class in KeyClass:
        assert made.key_ids(key_class) == (made.current(key_class),)
    assert [entry.name for entry in path.parent.iterdir()] == ["roots"]


def test_VA_20_the_umask_does_not_change_the_mode(path: Path) -> None:
    path.parent.mkdir()
    before = os.umask(0o777)
    try:
        FileProvider.create(path, forbidden=[], new_id=new_id)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_VA_30_a_file_for_one_process_holds_its_classes(path: Path) -> None:
    path.parent.mkdir()
    provider = FileProvider.create(path, forbidden=[], new_id=new_id, classes=[KeyClass.SESSION])
    assert provider.current(KeyClass.SESSION)
    assert provider.key_ids(KeyClass.CREDENTIAL) == ()


def test_VA_20_an_existing_file_is_never_overwritten(path: Path, made: FileProvider) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        FileProvider.create(path, forbidden=[], new_id=new_id)
    assert path.read_bytes() == before


def test_VA_20_a_dangling_symlink_is_not_written_through(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        FileProvider.create(path, forbidden=[], new_id=new_id)
    assert not (tmp_path / "elsewhere").exists()


def test_VA_20_what_a_crash_left_is_not_in_the_way(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    (path.parent / ".roots.new").symlink_to(tmp_path / "elsewhere")
    provider = FileProvider.create(path, forbidden=[], new_id=new_id)
    assert provider.health().ok
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o404, 0o444, 0o640, 0o644, 0o666, 0o500, 0o777, 0o4400, 0o2400])
def test_VA_20_another_mode_is_refused(path: Path, made: FileProvider, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(RootRefused, match="0400"):
        made.current(KeyClass.ACCOUNT)
    assert not made.health().ok
    assert "0400" in made.health().problem


def test_VA_20_a_symlink_is_refused(path: Path, made: FileProvider) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(RootRefused, match="symlink"):
        _provider(link).current(KeyClass.ACCOUNT)


def test_VA_09_a_second_name_is_refused(path: Path, made: FileProvider, tmp_path: Path) -> None:
    (tmp_path / "backup").hardlink_to(path)
    with pytest.raises(RootRefused, match="second name"):
        made.current(KeyClass.ACCOUNT)


def test_VA_20_a_file_of_another_user_is_refused(path: Path, made: FileProvider) -> None:
    status = list(path.stat())
    status[stat.ST_UID] += 1
    with pytest.raises(RootRefused, match="another user"):
        made._refuse_unsafe(os.stat_result(status))


def test_VA_20_a_directory_or_a_pipe_is_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o400)
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o400)
    for odd in (path, directory):
        with pytest.raises(RootRefused, match="no regular file"):
            _provider(odd).current(KeyClass.ACCOUNT)


def test_VA_09_a_place_inside_code_data_or_backup_is_refused(path: Path, made: FileProvider, tmp_path: Path) -> None:
    for forbidden in (path.parent, tmp_path, tmp_path / "keys" / ".." / "keys", Path("/")):
        with pytest.raises(RootRefused, match="may hold no root key"):
            _provider(path, tmp_path / "other", forbidden).current(KeyClass.ACCOUNT)
    assert _provider(path, tmp_path / "key", tmp_path / "keys" / "roots2").health().ok


def test_VA_09_a_place_reached_through_a_symlinked_directory_is_refused(
    path: Path, made: FileProvider, tmp_path: Path
) -> None:
    (tmp_path / "innocent").symlink_to(path.parent)
    with pytest.raises(RootRefused, match="may hold no root key"):
        _provider(tmp_path / "innocent" / "roots", path.parent).current(KeyClass.ACCOUNT)
    with pytest.raises(RootRefused, match="may hold no root key"):
        _provider(path, tmp_path / "innocent").current(KeyClass.ACCOUNT)


def test_VA_09_no_file_is_made_in_a_forbidden_place(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "innocent").symlink_to(tmp_path / "data")
    for directory in (tmp_path / "data", tmp_path / "innocent"):
        with pytest.raises(RootRefused):
            FileProvider.create(directory / "roots", forbidden=[tmp_path / "data"], new_id=new_id)
    assert list((tmp_path / "data").iterdir()) == []


def test_VA_20_an_absent_file_seals_the_vault_and_its_return_opens_it(path: Path, made: FileProvider) -> None:
    root = made.current(KeyClass.ACCOUNT)
    away = path.rename(path.with_name("away"))
    with pytest.raises(SealedRoot, match="cannot be read"):
        made.current(KeyClass.ACCOUNT)
    assert not made.health().ok
    away.rename(path)
    assert made.current(KeyClass.ACCOUNT) == root


def test_VA_22_a_file_that_is_far_too_long_is_refused(path: Path, made: FileProvider) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().ljust(64 * 1024, b"\n"))
    path.chmod(0o400)
    assert made.health().ok
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"\n")
    path.chmod(0o400)
    with pytest.raises(RootRefused, match="not a root key file"):
        made.current(KeyClass.ACCOUNT)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"account"], ids=["empty", "bytes", "word"])
def test_VA_22_a_file_with_something_else_is_refused(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    path.chmod(0o400)
    with pytest.raises(RootRefused):
        _provider(path).current(KeyClass.ACCOUNT)


def test_VA_21_rotate_adds_a_current_key_and_keeps_the_old_one(path: Path, made: FileProvider) -> None:
    old, session = made.current(KeyClass.ACCOUNT), made.current(KeyClass.SESSION)
    check = made.check_value(old)
    running = _provider(path)
    new = made.rotate(old)
    assert running.current(KeyClass.ACCOUNT) == new
    assert running.key_ids(KeyClass.ACCOUNT) == (old, new)
    assert running.check_value(old) == check != running.check_value(new)
    assert running.current(KeyClass.SESSION) == session
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert [entry.name for entry in path.parent.iterdir()] == ["roots"]


def test_VA_21_rotations_at_once_make_one_key(path: Path, made: FileProvider) -> None:
    old = made.current(KeyClass.ACCOUNT)
    gate = threading.Barrier(4)

    def rotate(_: int) -> str:
        gate.wait()
        return _provider(path).rotate(old)

    with ThreadPoolExecutor(4) as pool:
        made_ids = set(pool.map(rotate, range(4)))
    assert len(made_ids) == 1
    assert len(made.key_ids(KeyClass.ACCOUNT)) == 2


def test_VA_20_an_unsafe_file_is_not_rotated(path: Path, made: FileProvider) -> None:
    old = made.current(KeyClass.ACCOUNT)
    path.chmod(0o444)
    before = path.read_bytes()
    with pytest.raises(RootRefused):
        made.rotate(old)
    assert path.read_bytes() == before
