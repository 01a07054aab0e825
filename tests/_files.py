"""Ways to watch, stop and break what the log asks of the operating system.

Each wraps any `Files` (memory, disk, or another wrapper) and passes every call on. A wrapper is
given to the engine in place of the files; nothing in the engine knows of it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

import anyio.to_thread

from eventstore._log._files import Files, FileStat, OpenMode

__all__ = ["Call", "FaultyFiles", "FilesAround", "GatedFiles", "RecordingFiles"]

T = TypeVar("T")

_STUCK_SECONDS: Final = 5.0  # a gate that nobody opens fails the test; it never hangs it
_SOON_SECONDS: Final = 0.3


class Call(NamedTuple):
    """One call of the seam: the method, and the name of the file (as it was opened) it is for."""

    method: str
    name: str


class FilesAround:
    """Passes every call on to other files; a subclass looks at it first, and may block or raise.

    Args:
        inner: where the calls go.
    """

    def __init__(self, inner: Files) -> None:
        self.inner = inner
        self.used_after_close: list[Call] = []
        self._opened: dict[int, str] = {}
        self._closed: dict[int, str] = {}

    def before(self, call: Call) -> None:
        """Look at a call before it is passed on."""

    def after(self, call: Call) -> None:
        """Look at a call that succeeded."""

    def ended(self, call: Call) -> None:
        """Look at a call that succeeded or failed."""

    # --- the seam ---

    def path(self, name: str) -> str:
        return self.inner.path(name)

    def open(
        self, name: str, mode: OpenMode, *, create: bool = False, exclusive: bool = False
    ) -> int:
        def opened() -> int:
            handle = self.inner.open(name, mode, create=create, exclusive=exclusive)
            self._opened[handle] = name
            self._closed.pop(handle, None)
            return handle

        return self._pass("open", name, opened)

    def close(self, handle: int) -> None:
        name = self._name(handle)
        self._opened.pop(handle, None)
        self._closed[handle] = name
        self._pass("close", name, lambda: self.inner.close(handle))

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return self._on("write", handle, lambda: self.inner.write(handle, data))

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        return self._on("pwrite", handle, lambda: self.inner.pwrite(handle, data, offset))

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return self._on("pread", handle, lambda: self.inner.pread(handle, size, offset))

    def stat(self, name: str) -> FileStat | None:
        return self._pass("stat", name, lambda: self.inner.stat(name))

    def fstat(self, handle: int) -> FileStat:
        return self._on("fstat", handle, lambda: self.inner.fstat(handle))

    def fdatasync(self, handle: int) -> None:
        self._on("fdatasync", handle, lambda: self.inner.fdatasync(handle))

    def fsync(self, handle: int) -> None:
        self._on("fsync", handle, lambda: self.inner.fsync(handle))

    def fsync_directory(self, name: str) -> None:
        self._pass("fsync_directory", name, lambda: self.inner.fsync_directory(name))

    def drop_cache(self, handle: int) -> None:
        self._on("drop_cache", handle, lambda: self.inner.drop_cache(handle))

    def truncate(self, handle: int, size: int) -> None:
        self._on("truncate", handle, lambda: self.inner.truncate(handle, size))

    def rename(self, old: str, new: str) -> None:
        self._pass("rename", old, lambda: self.inner.rename(old, new))

    def link(self, old: str, new: str) -> None:
        self._pass("link", old, lambda: self.inner.link(old, new))

    def unlink(self, name: str) -> None:
        self._pass("unlink", name, lambda: self.inner.unlink(name))

    def mkdir(self, name: str) -> bool:
        return self._pass("mkdir", name, lambda: self.inner.mkdir(name))

    def listdir(self, name: str) -> list[str]:
        return self._pass("listdir", name, lambda: self.inner.listdir(name))

    def try_lock(self, handle: int, *, exclusive: bool) -> bool:
        return self._on(
            "try_lock", handle, lambda: self.inner.try_lock(handle, exclusive=exclusive)
        )

    def unlock(self, handle: int) -> None:
        self._on("unlock", handle, lambda: self.inner.unlock(handle))

    def lock_holder(self, handle: int) -> int | None:
        return self._on("lock_holder", handle, lambda: self.inner.lock_holder(handle))

    def monotonic(self) -> float:
        return self.inner.monotonic()

    def pause(self, seconds: float) -> None:
        self._pass("pause", "", lambda: self.inner.pause(seconds))

    # --- inside ---

    def _pass(self, method: str, name: str, work: Callable[[], T]) -> T:
        call = Call(method, name)
        try:
            self.before(call)
            result = work()
            self.after(call)
            return result
        finally:
            self.ended(call)

    def _on(self, method: str, handle: int, work: Callable[[], T]) -> T:
        name = self._name(handle)

        def checked() -> T:
            if handle not in self._opened:
                self.used_after_close.append(Call(method, name))
            return work()

        return self._pass(method, name, checked)

    def _name(self, handle: int) -> str:
        return self._opened.get(handle) or self._closed.get(handle, "?")


class RecordingFiles(FilesAround):
    """Keeps a list of the calls that succeeded, in order."""

    def __init__(self, inner: Files) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []

    def after(self, call: Call) -> None:
        self.calls.append(call)

    def count(self, method: str, name: str) -> int:
        """How often a method was called for a file."""
        return self.calls.count(Call(method, name))


class GatedFiles(FilesAround):
    """Stops at one call until the test lets it go on: a commit held in flight, without sleeping.

    Args:
        inner: where the calls go.
        call: the call to stop at; it has not been passed on while it waits.
    """

    def __init__(self, inner: Files, call: Call) -> None:
        super().__init__(inner)
        self._call = call
        self._shut = False
        self._reached = threading.Event()
        self._opened_again = threading.Event()
        self._passed = threading.Event()

    @contextmanager
    def shut(self) -> Generator[None]:
        """Stop the next such call; leaving the block lets it go on, if `let_go` has not."""
        for event in (self._reached, self._opened_again, self._passed):
            event.clear()
        self._shut = True
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Pass on the call that waits, and all later ones."""
        self._shut = False
        self._opened_again.set()

    def let_go_after(self, event: threading.Event) -> None:
        """Let go once this event is set, or soon, where what sets it waits for the gate."""

        def let_go() -> None:
            event.wait(_SOON_SECONDS)
            self.let_go()

        threading.Thread(target=let_go, daemon=True).start()

    async def reached(self) -> None:
        """Wait until a call stands at the gate."""
        await self._wait(self._reached, "reached the gate")

    async def passed(self) -> None:
        """Wait until the call that stood at the gate has ended."""
        await self._wait(self._passed, "passed the gate")

    async def _wait(self, event: threading.Event, what: str) -> None:
        happened = await anyio.to_thread.run_sync(event.wait, _STUCK_SECONDS)
        assert happened, f"no {self._call.method} of {self._call.name!r} ever {what}"

    def ended(self, call: Call) -> None:
        if call == self._call and self._reached.is_set():
            self._passed.set()

    def before(self, call: Call) -> None:
        if self._shut and call == self._call:
            self._reached.set()
            if not self._opened_again.wait(_STUCK_SECONDS):
                message = f"nobody opened the gate before {call.method} of {call.name!r}"
                raise TimeoutError(message)


class _Fault(NamedTuple):
    error: int
    first: int
    last: int


class FaultyFiles(FilesAround):
    """Fails the calls it is told to fail, as a disk or a full file system does."""

    def __init__(self, inner: Files) -> None:
        super().__init__(inner)
        self._faults: dict[Call, _Fault] = {}
        self._counts: dict[Call, int] = {}
        self._write_sizes: list[int] = []

    def fail(self, call: Call, error: int = errno.EIO, *, nth: int = 1, times: int = 1) -> None:
        """Make a call fail, counted from now on.

        Args:
            call: which one.
            error: the errno.
            nth: the first call that fails; 1 is the next one.
            times: how many fail, from then on.
        """
        self._counts[call] = 0
        self._faults[call] = _Fault(error, nth, nth + times - 1)

    def write_only(self, *sizes: int) -> None:
        """Let the next writes of any file take this many bytes each; the system may do that."""
        self._write_sizes.extend(sizes)

    def before(self, call: Call) -> None:
        fault = self._faults.get(call)
        if fault is None:
            return
        self._counts[call] += 1
        if fault.first <= self._counts[call] <= fault.last:
            raise OSError(fault.error, os.strerror(fault.error), self.path(call.name))

    def write(self, handle: int, data: bytes | memoryview) -> int:
        if self._write_sizes:
            data = data[: self._write_sizes.pop(0)]
        return super().write(handle, data)
