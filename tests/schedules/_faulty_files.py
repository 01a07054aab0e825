"""Memory files of which one call fails, or writes less than it was given."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import Final, NamedTuple

from eventstore._log._files import FileStat, OpenMode
from eventstore._log._memory_files import MemoryFiles

__all__ = ["Fault", "FaultyFiles", "ViolationError"]

_CALLS: Final = ("write", "write", "fdatasync", "fdatasync", "fsync", "pwrite", "pread")
_SELDOM: Final = ("try_lock", "open", "rename", "stat")


class ViolationError(Exception):
    """A promise was broken."""


class Fault(NamedTuple):
    """What goes wrong.

    Attributes:
        call: the call of the seam.
        left: how many of them succeed before.
        code: the error.
        is_short: a part is written. Then the call fails, or, if there is no error, says how much.
    """

    call: str
    left: int
    code: int | None
    is_short: bool

    @classmethod
    def of(cls, rng: random.Random) -> Fault:
        """Choose one."""
        call = rng.choice((*_CALLS, *_SELDOM))
        is_short = call == "write" and rng.random() < 0.6
        codes = (errno.EIO, errno.ENOSPC, *((None, None) if is_short else ()))
        return cls(call, rng.randrange(6), rng.choice(codes), is_short)


class FaultyFiles(MemoryFiles):
    """Memory files with at most one fault, and which count their open handles."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault | None = None
        self.is_armed = True
        self.has_failed = False

    def arm(self) -> None:
        self.is_armed = True

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    def _is_due(self, call: str) -> Fault | None:
        """The fault, if this call is where it happens."""
        fault = self.fault
        if not self.is_armed or fault is None or fault.call != call:
            return None
        if fault.left:
            self.fault = fault._replace(left=fault.left - 1)
            return None
        self.fault = None
        return fault

    def _maybe_fail(self, call: str) -> None:
        fault = self._is_due(call)
        if fault is not None:
            self._fail(fault)

    def _fail(self, fault: Fault) -> None:
        if fault.code is not None:
            self.has_failed = True
            raise OSError(fault.code, os.strerror(fault.code))

    def open(
        self, name: str, mode: OpenMode, *, create: bool = False, exclusive: bool = False
    ) -> int:
        self._maybe_fail("open")
        return super().open(name, mode, create=create, exclusive=exclusive)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        fault = self._is_due("write")
        if fault is None:
            return super().write(handle, data)
        written = super().write(handle, data[: len(data) // 2]) if fault.is_short else 0
        self._fail(fault)
        return written

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        self._maybe_fail("pwrite")
        return super().pwrite(handle, data, offset)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        self._maybe_fail("pread")
        return super().pread(handle, size, offset)

    def stat(self, name: str) -> FileStat | None:
        self._maybe_fail("stat")
        return super().stat(name)

    def fdatasync(self, handle: int) -> None:
        self._maybe_fail("fdatasync")
        super().fdatasync(handle)

    def fsync(self, handle: int) -> None:
        self._maybe_fail("fsync")
        super().fsync(handle)

    def rename(self, old: str, new: str) -> None:
        self._maybe_fail("rename")
        super().rename(old, new)

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        self._maybe_fail("try_lock")
        return super().try_lock(handle, exclusive=exclusive)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def pause(self, seconds: float) -> None:
        # Work runs whole here, so a lock that is not free was never given back.
        msg = f"somebody kept the lock; asked to wait {seconds} s"
        raise ViolationError(msg)
