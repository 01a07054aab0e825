"""`Workspace` in memory: for tests of orchestrators, and for runs that leave nothing behind."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from eventstore._runs._workspace import Clock, EntryStat, Workspace, temporary_name

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["MemoryWorkspace"]

T = TypeVar("T")


class _File:
    def __init__(self, clock: Clock) -> None:
        self.content = bytearray()
        self.modified_unix_ns = clock()
        self.lock = threading.Lock()


class MemoryWorkspace(Workspace):
    """`Workspace` in memory, shared by whoever is given the same object.

    Args:
        root: what paths begin with; nothing on disk is looked at.
        clock: nanoseconds since 1970, for modification times.
    """

    def __init__(
        self, root: str | os.PathLike[str] = "/memory", *, clock: Clock = time.time_ns
    ) -> None:
        self._root = Path(root).absolute()
        self._clock = clock
        self._guard = threading.RLock()
        self._files: dict[str, _File] = {}
        self._directories: dict[str, int] = {"": clock()}  # name -> modified
        self._locked: set[str] = set()
        self._tokens = itertools.count()

    @property
    def root(self) -> Path:
        """The workspace itself; names are relative to it."""
        return self._root

    def make_root(self) -> None:
        pass

    def mkdir(self, name: str) -> None:
        with self._guard:
            self._touch_parent(name)
            if name in self._files or name in self._directories:
                raise _os_error(errno.EEXIST, self._root / name)
            self._directories[name] = self._clock()

    def sync_directory(self, name: str) -> None:
        self._check_directory(name)

    def stat(self, name: str) -> EntryStat | None:
        with self._guard:
            file = self._files.get(name)
            if file is not None:
                return EntryStat("file", len(file.content), file.modified_unix_ns)
            modified = self._directories.get(name)
            return None if modified is None else EntryStat("directory", 0, modified)

    def listdir(self, name: str) -> list[str]:
        with self._guard:
            self._check_directory(name)
            entries = map(PurePosixPath, itertools.chain(self._files, self._directories))
            directory = PurePosixPath(name)
            return [entry.name for entry in entries if entry.parent == directory and entry.name]

    def open_append(self, name: str, *, lock_timeout_seconds: float | None = None) -> io.RawIOBase:
        with self._guard:
            if name not in self._files:
                self._touch_parent(name)
                self._check_not_directory(name)
                self._files[name] = _File(self._clock)
            file = self._files[name]
        if lock_timeout_seconds is None:
            return _Append(file, self._clock, locked=False)
        if not file.lock.acquire(timeout=lock_timeout_seconds):
            raise _os_error(errno.EAGAIN, self._root / name)
        return _Append(file, self._clock, locked=True)

    def open_read(self, name: str) -> io.BufferedIOBase:
        with self._guard:
            self._check_not_directory(name)
            file = self._files.get(name)
            if file is None:
                raise _os_error(errno.ENOENT, self._root / name)
            return io.BytesIO(bytes(file.content))

    @contextlib.contextmanager
    def replacing(self, name: str) -> Generator[io.BufferedIOBase]:
        temporary = temporary_name(name, f"{next(self._tokens):016x}")
        with self._guard:
            self._touch_parent(name)
            self._check_not_directory(name)
            file = self._files[temporary] = _File(self._clock)
        buffer = io.BytesIO()
        try:
            yield buffer
            file.content[:] = buffer.getvalue()
        except BaseException:  # raised again: nothing half written stays, as on the disk
            with self._guard:
                self._files.pop(temporary, None)
            raise
        self.rename(temporary, name)

    def rename(self, old: str, new: str) -> None:
        with self._guard:
            if old in self._files:
                self._files[new] = self._files.pop(old)
            elif old not in self._directories:
                raise _os_error(errno.ENOENT, self._root / old)
            elif new in self._directories:
                raise _os_error(errno.ENOTEMPTY, self._root / new)
            else:
                _move(self._files, old, new)
                _move(self._directories, old, new)

    def remove_file(self, name: str) -> None:
        with self._guard:
            if self._files.pop(name, None) is None:
                raise _os_error(errno.ENOENT, self._root / name)

    def remove_tree(self, name: str) -> None:
        with self._guard:
            self._check_directory(name)
            for entries in (self._files, self._directories):
                for entry in [entry for entry in entries if _is_within(entry, name)]:
                    del entries[entry]

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Generator[None]:
        with self._guard:
            self._check_directory(name)
            if name in self._locked:
                raise _os_error(errno.EAGAIN, self._root / name)
            self._locked.add(name)
        try:
            yield
        finally:
            with self._guard:
                self._locked.discard(name)

    def _touch_parent(self, name: str) -> None:
        parent = name.rpartition("/")[0]
        self._check_directory(parent)
        self._directories[parent] = self._clock()

    def _check_directory(self, name: str) -> None:
        if name not in self._directories:
            number = errno.ENOTDIR if name in self._files else errno.ENOENT
            raise _os_error(number, self._root / name)

    def _check_not_directory(self, name: str) -> None:
        if name in self._directories:
            raise _os_error(errno.EISDIR, self._root / name)


class _Append(io.RawIOBase):
    """A file opened like the disk's: read anywhere, write at the end."""

    def __init__(self, file: _File, clock: Clock, *, locked: bool) -> None:
        self._file = file
        self._clock = clock
        self._locked = locked
        self._offset = len(file.content)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: len(self._file.content)}
        self._offset = base[whence] + offset
        return self._offset

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._file.content[self._offset : self._offset + len(view)]
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def write(self, data: ReadableBuffer, /) -> int:
        self._file.content += memoryview(data)
        self._file.modified_unix_ns = self._clock()
        self._offset = len(self._file.content)
        return memoryview(data).nbytes

    def close(self) -> None:
        if self._locked and not self.closed:
            self._file.lock.release()
        super().close()


def _os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _is_within(entry: str, directory: str) -> bool:
    return entry == directory or entry.startswith(f"{directory}/")


def _move(entries: dict[str, T], old: str, new: str) -> None:
    for entry in [entry for entry in entries if _is_within(entry, old)]:
        entries[new + entry[len(old) :]] = entries.pop(entry)
