"""The backends that keep the contract, behind one way to open them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

import anyio
import anyio.lowlevel
import msgspec

import eventstore as es
from eventstore._events import E
from eventstore._log._files import DiskFiles, Files, FileStat
from eventstore._log._index_keeper import INDEX_BYTES
from eventstore._log._log_store import _open_log, _open_reader
from eventstore._log._names import LogNames

__all__ = [
    "ACTIVE",
    "NAMES",
    "Backend",
    "DiskBackend",
    "MemoryBackend",
    "following",
    "line",
    "take",
    "until",
]

T = TypeVar("T")

NAMES: Final = LogNames("history.jsonl")
ACTIVE: Final = NAMES.active
_STUCK_SECONDS: Final = 5.0


class Backend:
    """One log, and the ways to open it. Everything opened from one backend is the same log.

    Args:
        files: the seam under the log.
        segment_bytes_max: for every store opened here; small segments get small index files.
    """

    def __init__(self, files: Files, *, segment_bytes_max: int) -> None:
        self.files = files
        self.segment_bytes_max = segment_bytes_max
        self.index_bytes = min(INDEX_BYTES, segment_bytes_max // 4)

    def open(
        self,
        *,
        durability: es.Durability = "synced",
        line_bytes_max: int = 2**20,
        clock: Callable[[], int] = time.time_ns,
    ) -> AbstractAsyncContextManager[es.LogStore[es.LoopEvent]]:
        """Open the log for the twelve kinds."""
        return self.open_as(
            es.LOOP_EVENTS, durability=durability, line_bytes_max=line_bytes_max, clock=clock
        )

    def open_as(
        self,
        types: es.EventTypes[E],
        *,
        durability: es.Durability = "synced",
        line_bytes_max: int = 2**20,
        clock: Callable[[], int] = time.time_ns,
    ) -> AbstractAsyncContextManager[es.LogStore[E]]:
        """Open the log for other kinds."""
        raise NotImplementedError

    def open_reader(self) -> AbstractAsyncContextManager[es.LogReader[es.LoopEvent]]:
        """Open the log read-only."""
        raise NotImplementedError

    def open_over(
        self, files: Files, *, durability: es.Durability = "synced"
    ) -> AbstractAsyncContextManager[es.LogStore[es.LoopEvent]]:
        """Open the log through a wrapper around `self.files`."""
        return _open_log(
            files,
            NAMES,
            es.LOOP_EVENTS,
            durability=durability,
            segment_bytes_max=self.segment_bytes_max,
            index_bytes=self.index_bytes,
        )

    def open_handles(self) -> int:
        """How many handles of the log's files this process holds."""
        raise NotImplementedError

    def raw(self) -> bytes:
        """All bytes of the log in order, as `cat history-*.jsonl history.jsonl` gives them."""
        segments = NAMES.sealed_positions(self.files.listdir(""))
        names = [NAMES.sealed(first_position) for first_position in segments]
        return b"".join(self._content(name) for name in (*names, ACTIVE))

    def append_raw(self, data: bytes) -> None:
        """Write bytes behind the active segment, as a foreign or a dying writer does."""
        handle = self.files.open(ACTIVE, "append", create=True)
        try:
            assert self.files.write(handle, data) == len(data)
        finally:
            self.files.close(handle)

    def flip_bit(self, offset: int) -> None:
        """Change one bit of the active segment, as a bad disk does."""
        handle = self.files.open(ACTIVE, "update")
        try:
            (byte,) = self.files.pread(handle, 1, offset)
            self.files.pwrite(handle, bytes([byte ^ 1]), offset)
        finally:
            self.files.close(handle)

    def look(self) -> dict[str, FileStat | None]:
        """What files there are, and how large."""
        return {name: self.files.stat(name) for name in self.files.listdir("")}

    def _content(self, name: str) -> bytes:
        status = self.files.stat(name)
        if status is None:
            return b""
        handle = self.files.open(name, "read")
        try:
            return self.files.pread(handle, status.size, 0)
        finally:
            self.files.close(handle)


class DiskBackend(Backend):
    """A log in a directory."""

    def __init__(self, files: Files, directory: Path, *, segment_bytes_max: int) -> None:
        super().__init__(files, segment_bytes_max=segment_bytes_max)
        self.path = directory / ACTIVE

    def open_as(
        self,
        types: es.EventTypes[E],
        *,
        durability: es.Durability = "synced",
        line_bytes_max: int = 2**20,
        clock: Callable[[], int] = time.time_ns,
    ) -> AbstractAsyncContextManager[es.LogStore[E]]:
        types.check_union()
        return _open_log(
            DiskFiles(str(self.path.parent)),
            NAMES,
            types,
            durability=durability,
            segment_bytes_max=self.segment_bytes_max,
            line_bytes_max=line_bytes_max,
            index_bytes=self.index_bytes,
            clock=clock,
        )

    def open_reader(self) -> AbstractAsyncContextManager[es.LogReader[es.LoopEvent]]:
        return es.open_store(self.path, read_only=True)

    def open_handles(self) -> int:
        directory = f"{self.path.parent}/"
        count = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                path = str(descriptor.readlink())
            except FileNotFoundError:
                continue  # the descriptor of this very listing
            # The index is written after the callers were woken: when is nobody's business.
            count += path.startswith(directory) and f"/{NAMES.directory}" not in path
        return count


class MemoryBackend(Backend):
    """A log in memory files."""

    def __init__(self, files: es.MemoryFiles, *, segment_bytes_max: int) -> None:
        super().__init__(files, segment_bytes_max=segment_bytes_max)
        self._memory = files

    def open_as(
        self,
        types: es.EventTypes[E],
        *,
        durability: es.Durability = "synced",
        line_bytes_max: int = 2**20,
        clock: Callable[[], int] = time.time_ns,
    ) -> AbstractAsyncContextManager[es.LogStore[E]]:
        if durability == "synced" and line_bytes_max == 2**20:
            return es.memory_store(
                types=types,
                files=self._memory,
                segment_bytes_max=self.segment_bytes_max,
                clock=clock,
            )
        types.check_union()
        return _open_log(
            self._memory,
            NAMES,
            types,
            durability=durability,
            segment_bytes_max=self.segment_bytes_max,
            line_bytes_max=line_bytes_max,
            clock=clock,
        )

    def open_reader(self) -> AbstractAsyncContextManager[es.LogReader[es.LoopEvent]]:
        return _open_reader(self._memory, NAMES, es.LOOP_EVENTS, lock_timeout_seconds=30.0)

    def open_handles(self) -> int:
        return len(self._memory._handles)


async def take(events: AsyncIterator[T], count: int) -> list[T]:
    """The next events of an iterator that may go on."""
    with anyio.fail_after(_STUCK_SECONDS):
        return [await anext(events) for _ in range(count)]


@asynccontextmanager
async def following(
    store: es.EventReader[E], *, after_position: int = 0
) -> AsyncGenerator[AsyncIterator[es.Recorded[E]]]:
    """Subscribe, and end the subscription when the block is left."""
    events = store.subscribe(after_position=after_position)
    try:
        yield events
    finally:
        await cast("AsyncGenerator[es.Recorded[E], None]", events).aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    with anyio.fail_after(_STUCK_SECONDS):
        while not condition():
            await anyio.lowlevel.checkpoint()


def line(raw: bytes, position: int) -> dict[str, object]:
    """The line of a log at a position, decoded."""
    return msgspec.json.decode(raw.split(b"\n")[position - 1], type=dict[str, object])
