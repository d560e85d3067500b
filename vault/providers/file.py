"""Root keys in one file: mode 0400, owned by the user that runs the process, in a place that nothing copies.

The file is read at every use, which is rare (company keys are cached), so that keys do not stay in memory for ever, a
rotation reaches running processes, and taking the file away seals the vault.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

from vault import envelope
from vault.context import KeyClass
from vault.errors import CannotRotate, RootRefused, SealedRoot
from vault.providers.held import HeldRoots
from vault.providers.roots import RootKey, Roots, format_roots, parse_roots

_MODE: Final = 0o400
_LARGEST_BYTES: Final = 64 * 1024


class FileProvider(HeldRoots):
    """Root keys from a file that `create` made.

    path: the file itself, no symlink. forbidden: directories it may not lie in, at any depth: code, data, backup
    (VA-09, VA-20: a backup with the root key in it protects nothing). new_id: ids for `rotate`.
    Each use raises RootRefused for an unsafe file and SealedRoot for an absent one.
    """

    def __init__(self, path: Path, *, forbidden: Iterable[Path], new_id: Callable[[], UUID]) -> None:
        self._path = path
        self._forbidden: Final = tuple(forbidden)
        self._new_id = new_id

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        forbidden: Iterable[Path],
        new_id: Callable[[], UUID],
        classes: Collection[KeyClass] = tuple(KeyClass),
    ) -> FileProvider:
        """Write a new file with one root key per class; all of it appears at once, with mode 0400.

        Raises FileExistsError and changes nothing if there is one: to overwrite root keys is to shred everything.
        """
        provider = cls(path, forbidden=forbidden, new_id=new_id)
        provider._refuse_place(path.parent.resolve(strict=True) / path.name)
        with _alone_in(path.parent) as directory:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "there is a root key file already", str(path))
            _write(
                path, Roots(_new_key(key_class, new_id) for key_class in KeyClass if key_class in classes), directory
            )
        return provider

    def rotate(self, key_id: str) -> str:
        """See `RootKeyProvider.rotate`. The file is replaced as a whole; needs to write in its directory."""
        with _alone_in(self._path.parent) as directory:
            roots = self._load(key_id)
            old = roots.get(key_id)
            if not old.current:
                return roots.current(old.key_class)
            new = _new_key(old.key_class, self._new_id)
            kept = [replace(root, current=False) if root is old else root for root in roots.keys]
            _write(self._path, Roots([*kept, new]), directory)
        return str(new.id)

    def add_class(self, key_class: KeyClass) -> str:
        """The first root key of a class that the file does not hold, such as one that a later release brought. Returns its id.

        Raises CannotRotate when the class has one.
        """
        with _alone_in(self._path.parent) as directory:
            roots = self._load()
            if roots.key_ids(key_class):
                raise CannotRotate(f"class {key_class.value} has a root key")
            new = _new_key(key_class, self._new_id)
            _write(self._path, Roots([*roots.keys, new]), directory)
        return str(new.id)

    def drop_old(self, key_class: KeyClass) -> list[str]:
        """Forget the root keys of a class that are not current; nothing may be under them any more. Returns their ids."""
        with _alone_in(self._path.parent) as directory:
            roots = self._load()
            old = [root for root in roots.keys if root.key_class is key_class and not root.current]
            if old:
                _write(self._path, Roots(root for root in roots.keys if root not in old), directory)
        return [str(root.id) for root in old]

    def _load(self, key_id: str | None = None) -> Roots:  # noqa: ARG002 - all keys are read at every use
        try:
            # NONBLOCK: opening a FIFO put in the file's place would otherwise wait for ever.
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RootRefused(f"{self._path} is a symlink") from None
            raise SealedRoot(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            self._refuse_unsafe(os.fstat(fd))
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(_LARGEST_BYTES + 1)
        finally:
            os.close(fd)
        if len(data) > _LARGEST_BYTES or not data.isascii():
            raise RootRefused(f"{self._path} is not a root key file")
        return parse_roots(data.decode("ascii"))

    def _refuse_unsafe(self, status: os.stat_result) -> None:
        """Checks the opened file, not its name: the name may point elsewhere a moment later."""
        if not stat.S_ISREG(status.st_mode):
            raise RootRefused(f"{self._path} is no regular file")
        if status.st_uid != os.geteuid():
            raise RootRefused(f"{self._path} belongs to another user")
        if stat.S_IMODE(status.st_mode) != _MODE:
            raise RootRefused(f"{self._path} has mode {stat.S_IMODE(status.st_mode):04o}; it must be 0400")
        # A hard link gives the key a second name, perhaps in the very directory that is backed up.
        if status.st_nlink > 1:
            raise RootRefused(f"{self._path} has a second name (hard link)")
        self._refuse_place(self._path.resolve())

    def _refuse_place(self, resolved: Path) -> None:
        for directory in self._forbidden:
            if resolved.is_relative_to(directory.resolve()):
                raise RootRefused(f"{self._path} lies in {directory}, which may hold no root key")


def _new_key(key_class: KeyClass, new_id: Callable[[], UUID]) -> RootKey:
    return RootKey(key_class, new_id(), os.urandom(envelope.KEY_BYTES), current=True)


@contextmanager
def _alone_in(directory: Path) -> Iterator[int]:
    """Hold the directory's lock; yields its descriptor. The kernel drops the lock when the process dies."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _write(path: Path, roots: Roots, directory: int) -> None:
    """Put a whole new file in place: a crash leaves the old one or the new one, on disk, never half of one."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # left by a crash; nobody else writes here while we hold the lock
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, _MODE)  # the umask may have taken even the owner's right to read
        file.write(format_roots(roots).encode("ascii"))
        file.flush()
        os.fsync(fd)
    draft.replace(path)
    os.fsync(directory)
