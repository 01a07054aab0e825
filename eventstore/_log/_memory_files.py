"""The seam in memory: one directory of files, for tests and for trying things out."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time

from eventstore._log._files import DIRECTORY_MODE, FileStat, OpenMode

__all__ = ["MemoryFiles"]


class _MemoryFile:
    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.content = bytearray()
        self.exclusive: int | None = None
        self.shared: set[int] = set()


class MemoryFiles:
    """`Files` in memory: one directory, shared by every store that is given the same object."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._names: dict[str, _MemoryFile] = {}
        self._directories: set[str] = {""}
        self._handles: dict[int, _MemoryFile] = {}
        self._numbers = iter(range(1, sys.maxsize))

    def path(self, name: str) -> str:
        return f"memory:{name}"

    def open(
        self, name: str, mode: OpenMode, *, create: bool = False, exclusive: bool = False
    ) -> int:
        del mode
        with self._guard:
            file = self._names.get(name)
            if file is not None and exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            if file is None:
                if not (create or exclusive) or os.path.dirname(name) not in self._directories:  # noqa: PTH120
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
                file = self._names[name] = _MemoryFile(next(self._numbers))
            handle = next(self._numbers)
            self._handles[handle] = file
            return handle

    def close(self, handle: int) -> None:
        with self._guard:
            self._release(handle)
            del self._handles[handle]

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self._handles[handle].content.extend(data)
        return len(data)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        self._handles[handle].content[offset : offset + len(data)] = data
        return len(data)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return bytes(self._handles[handle].content[offset : offset + size])

    def stat(self, name: str) -> FileStat | None:
        if name in self._directories:
            return FileStat(inode=0, size=0, kind="directory", permissions=DIRECTORY_MODE)
        file = self._names.get(name)
        return None if file is None else FileStat(inode=file.inode, size=len(file.content))

    def fstat(self, handle: int) -> FileStat:
        file = self._handles[handle]
        return FileStat(inode=file.inode, size=len(file.content))

    def fdatasync(self, handle: int) -> None:
        del handle  # memory is as durable as it gets

    fsync = fdatasync
    drop_cache = fdatasync

    def fsync_directory(self, name: str) -> None:
        del name

    def truncate(self, handle: int, size: int) -> None:
        del self._handles[handle].content[size:]

    def rename(self, old: str, new: str) -> None:
        with self._guard:
            self._names[new] = self._names.pop(old)

    def link(self, old: str, new: str) -> None:
        with self._guard:
            if new in self._names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
            self._names[new] = self._names[old]

    def unlink(self, name: str) -> None:
        with self._guard:
            if self._names.pop(name, None) is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def mkdir(self, name: str) -> bool:
        with self._guard:
            if name in self._directories:
                return False
            parts = name.split("/")
            self._directories.update("/".join(parts[: n + 1]) for n in range(len(parts)))
            return True

    def listdir(self, name: str) -> list[str]:
        prefix = f"{name}/" if name else ""
        everything = [*self._names, *(entry for entry in self._directories if entry)]
        return sorted(
            {
                entry[len(prefix) :].split("/", 1)[0]
                for entry in everything
                if entry.startswith(prefix)
            }
        )

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        with self._guard:
            file = self._handles[handle]
            others = file.shared - {handle}
            if file.exclusive not in (None, handle) or (exclusive and others):
                return False
            self._release(handle)
            if exclusive:
                file.exclusive = handle
            else:
                file.shared.add(handle)
            return True

    def unlock(self, handle: int) -> None:
        with self._guard:
            self._release(handle)

    def _release(self, handle: int) -> None:
        file = self._handles[handle]
        file.shared.discard(handle)
        if file.exclusive == handle:
            file.exclusive = None

    def lock_holder(self, handle: int) -> int | None:
        held = self._handles[handle].exclusive is not None or self._handles[handle].shared
        return os.getpid() if held else None

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
