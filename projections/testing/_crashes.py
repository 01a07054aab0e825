"""Crashing a program between any two changes to its log, and starting it again."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeVar, overload

from eventstore import LOOP_EVENTS, Event, EventTypes, LogStore, LoopEvent, MemoryFiles
from projections.testing._logs import TmpLog

__all__ = ["CrashFiles", "survive_crashes"]

E = TypeVar("E", bound=Event)

_CRASHES_MAX: Final = 10_000
_GONE: Final = "the process has crashed"


class CrashFiles(MemoryFiles):
    """Memory files under a process that dies: from some call on, nothing works any more.

    Every call that changes a file or makes one durable counts. The one that crashes fails with an
    OSError, a write with half of its bytes done; all after it fail too, until `restart`. What was
    written before stays, as it does when a process is killed. (That a power cut may also lose what
    was not synced is the engine's own concern, and tested there.)

    Attributes:
        calls: how many changing calls there were since the last restart.
        crashed: whether the crash has happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.crashed = False
        self._calls_max: int | None = None
        self._counting = threading.Lock()

    def crash_after(self, calls: int) -> None:
        """Crash once this many more changing calls have been done."""
        with self._counting:
            self._calls_max = self.calls + calls

    def restart(self) -> None:
        """Work again, with what the crash left; nothing more is going to crash."""
        with self._counting:
            self.calls = 0
            self.crashed = False
            self._calls_max = None

    def open(
        self,
        name: str,
        mode: Literal["read", "append", "update"],
        *,
        create: bool = False,
        exclusive: bool = False,
    ) -> int:
        if create or exclusive:
            self._change()
        elif self.crashed:
            raise OSError(errno.EIO, _GONE)
        return super().open(name, mode, create=create, exclusive=exclusive)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        try:
            self._change()
        except _CrashError:
            super().write(handle, data[: len(data) // 2])
            raise
        return super().write(handle, data)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        self._change()
        return super().pwrite(handle, data, offset)

    def fdatasync(self, handle: int) -> None:
        self._change()
        super().fdatasync(handle)

    def fsync(self, handle: int) -> None:
        self._change()
        super().fsync(handle)

    def fsync_directory(self, name: str) -> None:
        self._change()
        super().fsync_directory(name)

    def truncate(self, handle: int, size: int) -> None:
        self._change()
        super().truncate(handle, size)

    def rename(self, old: str, new: str) -> None:
        self._change()
        super().rename(old, new)

    def link(self, old: str, new: str) -> None:
        self._change()
        super().link(old, new)

    def unlink(self, name: str) -> None:
        self._change()
        super().unlink(name)

    def mkdir(self, name: str) -> bool:
        self._change()
        return super().mkdir(name)

    def _change(self) -> None:
        with self._counting:
            if self.crashed:
                raise OSError(errno.EIO, _GONE)
            if self.calls == self._calls_max:
                self.crashed = True
                raise _CrashError(errno.EIO, _GONE)
            self.calls += 1


class _CrashError(OSError):
    """The first call that fails."""


@overload
async def survive_crashes(
    program: Callable[[LogStore[LoopEvent]], Awaitable[object]],
    judge: Callable[[LogStore[LoopEvent]], Awaitable[object]] = ...,
) -> int: ...
@overload
async def survive_crashes(
    program: Callable[[LogStore[E]], Awaitable[object]],
    judge: Callable[[LogStore[E]], Awaitable[object]] = ...,
    *,
    types: EventTypes[E],
) -> int: ...
async def survive_crashes(
    program: Callable[[LogStore[Any]], Awaitable[object]],
    judge: Callable[[LogStore[Any]], Awaitable[object]] | None = None,
    *,
    types: EventTypes[Any] = LOOP_EVENTS,
) -> int:
    """Crash a program at every change it makes to its log, and let it go on each time.

    Round by round, over a new log: the program runs until the crash, one change later than in the
    round before; the log is opened again, and the program runs to its end; then `judge` looks. The
    last round is the one without a crash.

    Args:
        program: whatever uses the store. It ends by itself, and has to cope with any log it finds.
            In the crash it gets errors of the store; it may not try for ever.
        judge: asserts what the log must hold when the program has come to its end.
        types: the kinds of events the store knows.

    Returns:
        How many crashes it survived.

    Raises:
        Exception: what the program raised without a crash or after one, or `judge` did; a note
            says at which call the crash was.

    Cancellation: safe at any await.
    """
    for crash in itertools.count():
        assert crash < _CRASHES_MAX, "a program that never ends cannot be crashed everywhere"
        files = CrashFiles()
        log = TmpLog(files=files)
        files.crash_after(crash)
        try:
            async with log.open(types=types) as store:
                await program(store)
        except Exception:
            if not files.crashed:
                raise
        survived = not files.crashed
        files.restart()
        try:
            async with log.open(types=types) as store:
                if not survived:
                    await program(store)
                if judge is not None:
                    await judge(store)
        except Exception as error:
            error.add_note(f"after a crash at call {crash + 1} that changes the log's files")
            raise
        if survived:
            return crash
    raise AssertionError  # the count has no end
