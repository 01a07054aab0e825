"""`Workspace` on a real directory: the only module of run contexts that touches `os` or `fcntl`.

Every name is walked from the root by directory descriptors that refuse symlinks, so that nothing
planted in between, before or during a call, leads outside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final, Literal, TypeAlias

from eventstore._errors import RunContextError
from eventstore._runs._workspace import EntryStat, Workspace, temporary_name

__all__ = ["DiskWorkspace", "Root", "workspace_of"]

Root: TypeAlias = str | os.PathLike[str] | Workspace
"""Where runs live: a directory's path, or a workspace."""

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a planted FIFO must fail the kind check, not hang.
_OPEN_FILE: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_LOCK_PAUSE_SECONDS: Final = 0.002  # a holder writes one line
_F_FULLFSYNC: Final = 51  # macOS: fsync alone leaves the bytes in the drive's cache


class DiskWorkspace(Workspace):
    """`Workspace` on a directory; holds no descriptor between two calls.

    Args:
        root: the workspace; the working directory of this moment completes it. Symlinks on the
            way to it are the caller's choice and are followed.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).absolute()

    @property
    def root(self) -> Path:
        """The workspace itself; names are relative to it."""
        return self._root

    def make_root(self) -> None:
        missing = [self._root]
        while not missing[-1].is_dir():
            missing.append(missing[-1].parent)
        # Parents first; each new directory's entry is durable before anything in it is relied on.
        for new in reversed(missing[:-1]):
            with contextlib.suppress(FileExistsError):
                new.mkdir(_DIRECTORY_MODE)
            with _opened(os.open(new.parent, _OPEN_DIRECTORY)) as parent:
                _sync(parent)

    def mkdir(self, name: str) -> None:
        with self._parent(name) as (parent, leaf):
            os.mkdir(leaf, _DIRECTORY_MODE, dir_fd=parent)

    def sync_directory(self, name: str) -> None:
        with self._directory(name) as directory:
            _sync(directory)

    def stat(self, name: str) -> EntryStat | None:
        if not name:
            return _entry_stat(self._root.stat())
        try:
            with self._parent(name) as (parent, leaf):
                return _entry_stat(os.stat(leaf, dir_fd=parent, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def listdir(self, name: str) -> list[str]:
        with self._directory(name) as directory:
            return os.listdir(directory)  # noqa: PTH208 - pathlib knows no descriptors

    def open_append(self, name: str, *, lock_timeout_seconds: float | None = None) -> io.RawIOBase:
        with self._parent(name) as (parent, leaf):
            flags = _OPEN_FILE | os.O_RDWR | os.O_APPEND | os.O_CREAT
            descriptor = self._open_leaf(name, leaf, flags, parent=parent)
            try:
                self._check_writable(name, os.fstat(descriptor))
                if lock_timeout_seconds is not None:
                    _lock(descriptor, timeout_seconds=lock_timeout_seconds)
                return io.FileIO(descriptor, "a+")
            except BaseException:  # raised again: no descriptor stays open, whatever ends it
                os.close(descriptor)
                raise

    def open_read(self, name: str) -> io.BufferedIOBase:
        with self._parent(name) as (parent, leaf):
            descriptor = self._open_leaf(name, leaf, _OPEN_FILE | os.O_RDONLY, parent=parent)
            try:
                self._check_regular(name, os.fstat(descriptor))
                return io.BufferedReader(io.FileIO(descriptor))
            except BaseException:  # raised again: no descriptor stays open, whatever ends it
                os.close(descriptor)
                raise

    @contextlib.contextmanager
    def replacing(self, name: str) -> Generator[io.BufferedIOBase]:
        with self._parent(name) as (parent, leaf):
            temporary = temporary_name(leaf, secrets.token_hex(8))
            flags = _OPEN_FILE | os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, _FILE_MODE, dir_fd=parent)
            try:
                with io.BufferedWriter(io.FileIO(descriptor, "w")) as file:
                    yield file
                    file.flush()
                    _sync(descriptor)
                os.rename(temporary, leaf, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:  # raised again: nothing half written stays, whatever ends it
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise
            _sync(parent)

    def rename(self, old: str, new: str) -> None:
        with self._parent(old) as (parent, leaf):
            os.rename(leaf, new.rpartition("/")[2], src_dir_fd=parent, dst_dir_fd=parent)

    def remove_file(self, name: str) -> None:
        with self._parent(name) as (parent, leaf):
            os.unlink(leaf, dir_fd=parent)

    def remove_tree(self, name: str) -> None:
        with self._directory(name):
            pass  # it is one: rmtree would open a planted FIFO, and wait for ever
        with self._parent(name) as (parent, leaf):
            assert shutil.rmtree.avoids_symlink_attacks
            shutil.rmtree(leaf, dir_fd=parent)

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Generator[None]:
        with self._directory(name) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever removed the directory held the lock; the name may be gone or another's now.
            with self._directory(name) as same:
                if not os.path.samestat(os.fstat(directory), os.fstat(same)):
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            yield

    @contextlib.contextmanager
    def _parent(self, name: str) -> Generator[tuple[int, str]]:
        """The directory of a name, and the name in it."""
        directory, _, leaf = name.rpartition("/")
        assert leaf not in {"", ".", ".."}, name
        with self._directory(directory) as parent, self._named(name):
            yield parent, leaf

    @contextlib.contextmanager
    def _directory(self, name: str) -> Generator[int]:
        with self._named(name), contextlib.ExitStack() as stack:
            directory = stack.enter_context(_opened(os.open(self._root, _OPEN_DIRECTORY)))
            for part in name.split("/") if name else ():
                assert part not in {"", ".", ".."}, name
                directory = stack.enter_context(_opened(self._enter(name, part, parent=directory)))
            yield directory

    def _enter(self, name: str, part: str, *, parent: int) -> int:
        try:
            directory = os.open(part, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._refused(
                    name, f"has {part!r} in it, which is not a directory"
                ) from error
            raise
        if os.fstat(directory).st_mode & stat.S_IWOTH:
            os.close(directory)
            raise self._refused(name, f"has {part!r} in it, which everybody can write")
        return directory

    def _open_leaf(self, name: str, leaf: str, flags: int, *, parent: int) -> int:
        try:
            return os.open(leaf, flags, _FILE_MODE, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._refused(name, "is a symlink") from error
            raise

    def _check_regular(self, name: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise self._refused(name, "is not a regular file")

    def _check_writable(self, name: str, status: os.stat_result) -> None:
        self._check_regular(name, status)
        if status.st_nlink != 1:
            raise self._refused(name, "has a second name, a hard link")
        if status.st_mode & stat.S_IWOTH:
            raise self._refused(name, "can be written by everybody")
        if os.geteuid() not in (0, status.st_uid):
            raise self._refused(name, "belongs to somebody else")

    def _refused(self, name: str, reason: str) -> RunContextError:
        return RunContextError(f"{self._root / name} {reason}; nothing outside was touched")

    @contextlib.contextmanager
    def _named(self, name: str) -> Generator[None]:
        """Give the system's errors the whole path: a descriptor's errors have a part or nothing."""
        try:
            yield
        except OSError as error:
            if isinstance(error.filename, str) and Path(error.filename).is_absolute():
                raise
            raise OSError(error.errno, error.strerror, str(self._root / name)) from error


def workspace_of(root: Root) -> Workspace:
    """The workspace itself, or the one on disk at this path."""
    return DiskWorkspace(root) if isinstance(root, (str, os.PathLike)) else root


@contextlib.contextmanager
def _opened(descriptor: int) -> Generator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":  # its fsync leaves the bytes in the drive's cache
        fcntl.fcntl(descriptor, _F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _entry_stat(status: os.stat_result) -> EntryStat:
    kind: Literal["file", "directory", "other"] = "other"
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISDIR(status.st_mode):
        kind = "directory"
    return EntryStat(kind=kind, size=status.st_size, modified_unix_ns=status.st_mtime_ns)
