"""Logs for one test: in memory or in a directory, with a clock that ticks."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload

from eventstore import (
    LOOP_EVENTS,
    Event,
    EventTypes,
    LogStore,
    LoopEvent,
    MemoryFiles,
    memory_store,
    open_store,
)
from projections.testing._places import START

__all__ = ["TmpLog", "tmp_store"]

E = TypeVar("E", bound=Event)

_TICK_NANOSECONDS: Final = 1_000_000
_START_NANOSECONDS: Final = int(START.timestamp()) * 1_000_000_000


class TmpLog:
    """A log for one test. Every `open` opens the same one, so a test can reopen it.

    Its clock begins at 2026-01-01 and ticks a millisecond per append, so timestamps are the same
    in every run.

    Args:
        directory: where to keep it; None for memory.
        files: the memory files, if they are not to be plain ones (`CrashFiles`).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        files: MemoryFiles | None = None,
    ) -> None:
        self.path: Final = None if directory is None else Path(directory) / "history.jsonl"
        self._files = files or MemoryFiles()
        self._ticks = itertools.count(_START_NANOSECONDS, _TICK_NANOSECONDS)

    @overload
    def open(self) -> AbstractAsyncContextManager[LogStore[LoopEvent]]: ...
    @overload
    def open(self, *, types: EventTypes[E]) -> AbstractAsyncContextManager[LogStore[E]]: ...
    def open(
        self, *, types: EventTypes[Any] = LOOP_EVENTS
    ) -> AbstractAsyncContextManager[LogStore[Any]]:
        """Open the log; as `eventstore.open_store` and `memory_store`."""
        clock = self._ticks.__next__
        if self.path is None:
            return memory_store(types=types, files=self._files, clock=clock)
        return open_store(self.path, types=types, clock=clock)


@overload
def tmp_store(
    *, on: Literal["memory", "disk"] = ...
) -> AbstractAsyncContextManager[LogStore[LoopEvent]]: ...
@overload
def tmp_store(
    *, types: EventTypes[E], on: Literal["memory", "disk"] = ...
) -> AbstractAsyncContextManager[LogStore[E]]: ...
@asynccontextmanager
async def tmp_store(
    *, types: EventTypes[Any] = LOOP_EVENTS, on: Literal["memory", "disk"] = "memory"
) -> AsyncGenerator[LogStore[Any]]:
    """Open a log that is gone when the block ends.

    Args:
        types: the kinds of events the store knows.
        on: memory, or a temporary directory.

    Yields:
        The store, empty.

    Cancellation: as `eventstore.open_store`; the directory is removed.
    """
    if on == "memory":
        async with TmpLog().open(types=types) as store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="loopledger-") as directory:
        async with TmpLog(directory).open(types=types) as store:
            yield store
