"""The seam to the operating system: the only module of the log that touches `os` or `fcntl`.

It is synchronous on purpose: a whole commit is one hop to a thread. Names are paths relative to
the directory that holds the log; a handle is one open file description, so that two handles of
one file exclude each other's locks even inside one process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
import time
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

__all__ = ["DIRECTORY_MODE", "FILE_MODE", "DiskFiles", "FileStat", "Files", "OpenMode"]

OpenMode = Literal["read", "append", "update"]
"""`append` writes at the end only; `update` writes anywhere (the lock record)."""

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
# O_NONBLOCK: opening a planted FIFO must fail the kind check, not hang. O_NOFOLLOW: a planted
# symlink must not lead outside the log's directory.
_OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MODE_FLAGS: Final[dict[OpenMode, int]] = {
    "read": os.O_RDONLY,
    "append": os.O_RDWR | os.O_APPEND,
    "update": os.O_RDWR,
}
_F_FULLFSYNC: Final = 51  # macOS: fsync alone leaves the bytes in the drive's cache
_F_NOCACHE: Final = 48  # macOS: the nearest thing to POSIX_FADV_DONTNEED


class FileStat(msgspec.Struct, frozen=True, gc=False):
    """What the log needs to know of a file."""

    inode: int
    size: int
    kind: Literal["file", "directory", "other"] = "file"
    permissions: int = FILE_MODE
    modified_ns: int = 0  # since 1970, where the system tells


class Files(Protocol):
    """A directory of files, as the log uses it. Errors are `OSError`, as the system raises them."""

    def path(self, name: str) -> str:
        """The name as a person would find it, for messages."""
        ...

    def open(
        self, name: str, mode: OpenMode, *, create: bool = False, exclusive: bool = False
    ) -> int:
        """Open a file (0600 when created); `exclusive` fails if it exists already."""
        ...

    def close(self, handle: int) -> None:
        """Close a handle; its lock is released. Never fails: what counts, the sync reported."""
        ...

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """Write at the end of an `append` handle; may write less than asked."""
        ...

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        """Write at a place of an `update` handle."""
        ...

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        ...

    def stat(self, name: str) -> FileStat | None:
        """The file of that name now (a symlink itself, not its target), or None."""
        ...

    def fstat(self, handle: int) -> FileStat:
        """The file behind a handle, whatever its name is now."""
        ...

    def fdatasync(self, handle: int) -> None:
        """Make a file's bytes and size durable."""
        ...

    def fsync(self, handle: int) -> None:
        """Make a file's bytes and metadata durable."""
        ...

    def fsync_directory(self, name: str) -> None:
        """Make the entries of a directory durable; "" is the log's own."""
        ...

    def drop_cache(self, handle: int) -> None:
        """Ask that the next read comes from the medium."""
        ...

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing what has the new name."""
        ...

    def link(self, old: str, new: str) -> None:
        """Give a file a second name; fails if that exists."""
        ...

    def unlink(self, name: str) -> None:
        """Remove a name."""
        ...

    def mkdir(self, name: str) -> bool:
        """Make a directory (0700), its parents too; False if it was there."""
        ...

    def listdir(self, name: str) -> list[str]:
        """The names in a directory; "" is the log's own."""
        ...

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        """Take the advisory lock if it is free."""
        ...

    def unlock(self, handle: int) -> None:
        """Give the advisory lock back."""
        ...

    def lock_holder(self, handle: int) -> int | None:
        """The pid of a process that holds a lock on the file, if the system tells."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait, in a worker thread, before trying a lock again."""
        ...


class DiskFiles:
    """`Files` on a real directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._prefix = os.path.join(directory, "")  # noqa: PTH118 - joined once, not per call

    def path(self, name: str) -> str:
        return self._prefix + name if name else self._directory

    def open(
        self, name: str, mode: OpenMode, *, create: bool = False, exclusive: bool = False
    ) -> int:
        flags = _OPEN_FLAGS | _MODE_FLAGS[mode]
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_CREAT | os.O_EXCL
        return os.open(self.path(name), flags, FILE_MODE)

    def close(self, handle: int) -> None:
        with contextlib.suppress(OSError):
            os.close(handle)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return os.write(handle, data)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        data = os.pread(handle, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(handle, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def stat(self, name: str) -> FileStat | None:
        try:
            return _file_stat(os.lstat(self.path(name)))
        except FileNotFoundError:
            return None

    def fstat(self, handle: int) -> FileStat:
        return _file_stat(os.fstat(handle))

    # Decided by the platform: an fsync on macOS leaves the bytes in the drive's cache.
    if sys.platform == "darwin":

        def fdatasync(self, handle: int) -> None:
            fcntl.fcntl(handle, _F_FULLFSYNC)

        def fsync(self, handle: int) -> None:
            fcntl.fcntl(handle, _F_FULLFSYNC)

        def drop_cache(self, handle: int) -> None:
            fcntl.fcntl(handle, _F_NOCACHE, 1)
    else:

        def fdatasync(self, handle: int) -> None:
            os.fdatasync(handle)

        def fsync(self, handle: int) -> None:
            os.fsync(handle)

        def drop_cache(self, handle: int) -> None:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def fsync_directory(self, name: str) -> None:
        handle = os.open(self.path(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def rename(self, old: str, new: str) -> None:
        os.rename(self.path(old), self.path(new))  # noqa: PTH104

    def link(self, old: str, new: str) -> None:
        os.link(self.path(old), self.path(new), follow_symlinks=False)

    def unlink(self, name: str) -> None:
        os.unlink(self.path(name))  # noqa: PTH108

    def mkdir(self, name: str) -> bool:
        # Each new directory's entry must be durable before anything in it is relied on.
        missing: list[Path] = []
        directory = Path(self.path(name))
        while not directory.exists():
            missing.append(directory)
            directory = directory.parent
        for new in reversed(missing):
            with contextlib.suppress(FileExistsError):
                new.mkdir(DIRECTORY_MODE)
            self._fsync_parent(new)
        return bool(missing)

    def _fsync_parent(self, directory: Path) -> None:
        handle = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def listdir(self, name: str) -> list[str]:
        return os.listdir(self.path(name))  # noqa: PTH208

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)

    def lock_holder(self, handle: int) -> int | None:
        status = os.fstat(handle)
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        try:
            table = Path("/proc/locks").read_text(encoding="ascii")
        except OSError:
            return None  # not Linux, or no /proc: the message then says "another process"
        for row in table.splitlines():
            fields = row.split()
            if "FLOCK" in fields and "->" not in fields and device in fields:
                return int(fields[4])
        return None

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


def _file_stat(status: os.stat_result) -> FileStat:
    mode = status.st_mode
    kind: Literal["file", "directory", "other"] = "file"
    if not stat.S_ISREG(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "other"
    return FileStat(status.st_ino, status.st_size, kind, stat.S_IMODE(mode), status.st_mtime_ns)
