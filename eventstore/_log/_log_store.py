"""`open_store` and `memory_store`: the parts wired together, for reading and for appending."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_args, overload

import anyio

from eventstore._claims import Owner, Ownership
from eventstore._codec import LINE_BYTES_MAX, LINE_BYTES_MAX_LIMIT, Codec, check_stream
from eventstore._errors import EventRefusedError, EventStoreError, StoreUnavailableError
from eventstore._event_types import EventTypes
from eventstore._events import Appended, E, Expectation, ExpectedVersion, HistoryEvent
from eventstore._log._claim_files import StreamClaim
from eventstore._log._commit import Committer
from eventstore._log._files import DiskFiles, Files
from eventstore._log._index_keeper import INDEX_BYTES
from eventstore._log._log_reader import LogReader
from eventstore._log._memory_files import MemoryFiles
from eventstore._log._names import LogNames
from eventstore._log._recovery import Recovery
from eventstore._log._request import Request
from eventstore._log._writer import Writer
from eventstore._loop import LOOP_EVENTS, LoopEvent
from eventstore._store import Durability
from eventstore._timestamps import UnixTimeText

__all__ = ["LOCK_TIMEOUT_SECONDS", "SEGMENT_BYTES_MAX", "LogStore", "memory_store", "open_store"]

SEGMENT_BYTES_MAX: Final = 256 * 2**20
LOCK_TIMEOUT_SECONDS: Final = 30.0
_DURABILITIES: Final = get_args(Durability)

T = TypeVar("T")

_stores: Final[weakref.WeakSet[LogStore[Any]]] = weakref.WeakSet()


class LogStore(LogReader[E]):
    """A log opened for appending too."""

    def __init__(
        self,
        files: Files,
        names: LogNames,
        codec: Codec[E],
        committer: Committer,
        *,
        lock_timeout_seconds: float,
        durability: Durability,
        clock: Callable[[], int],
    ) -> None:
        super().__init__(files, names, codec, lock_timeout_seconds=lock_timeout_seconds)
        self._codec = codec
        self._committer = committer
        self._durability: Durability = durability
        self._clock = clock
        self._time_text = UnixTimeText()
        self._writer = Writer(
            committer, path=files.path(names.active), committed=self._wake_subscribers
        )
        self._path = files.path(names.active)

    @property
    def position(self) -> int:
        """The log's position as last known here: how many lines it holds. No I/O."""
        return self._committer.position

    @property
    def recovery(self) -> Recovery:
        """What opening this store (and adopting what others wrote) found and did."""
        return self._committer.recovery

    async def version(self, stream: str) -> int:
        """How many events the stream holds now, those of other processes included."""
        return await self._in_thread(self._committer.version, stream)

    async def append(
        self,
        stream: str,
        events: Sequence[E | HistoryEvent[E]],
        *,
        expected_version: ExpectedVersion,
        key: str | None = None,
        meta: Mapping[str, str] | None = None,
        durability: Durability | None = None,
    ) -> Appended:
        """Record events at the end of a stream, all of them or none; see `EventStore.append`."""
        if durability is None:
            durability = self._durability
        elif durability not in _DURABILITIES:
            raise EventRefusedError(_no_durability(durability))
        if type(expected_version) is not int:
            _check_expected(expected_version)
        if not isinstance(events, list):
            _check_sequence(events)
        now = self._time_text(self._clock())
        bodies, contents, size = self._codec.encode(stream, events, key=key, meta=meta, now=now)
        synced = durability == "synced"
        request = Request(stream, bodies, contents, expected_version, key, synced, size)
        writer = self._writer
        if not writer.has_room(size):
            await writer.wait_for_room(size)
        batch = writer.submit(request)
        try:
            await batch.wait()
        except BaseException:  # cancellation, in whatever form the backend gives it
            writer.withdraw(batch, request)
            raise
        if request.failure is not None:
            raise request.failure()
        assert request.appended is not None
        return request.appended

    @asynccontextmanager
    async def claim(self, stream: str, owner: Owner) -> AsyncGenerator[Ownership | None]:
        """Hold the claim on a stream for the life of a block; see `Claimable.claim`."""
        check_stream(stream)
        self._writer.check_open()
        claim = StreamClaim(self._files, self._names, stream, owner)
        try:
            yield await self._in_thread(claim.take)
            claim.give_back()
        finally:
            claim.let_go()

    def _abandon(self) -> None:
        """In a forked child: the writer's thread is not here, and its lock is the parent's."""
        reason = "the process was forked while the store was open"
        self._writer.abandon(reason)
        self._committer.abandon(reason)
        self._taker.abandon()


def _abandon_after_fork() -> None:
    for store in list(_stores):
        store._abandon()  # noqa: SLF001 - the fork hook belongs to this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_after_fork)


@overload
def open_store(
    path: str | os.PathLike[str],
    *,
    read_only: Literal[False] = False,
    durability: Durability = ...,
    segment_bytes_max: int | None = ...,
    line_bytes_max: int = ...,
    lock_timeout_seconds: float = ...,
    clock: Callable[[], int] = ...,
) -> AbstractAsyncContextManager[LogStore[LoopEvent]]: ...
@overload
def open_store(
    path: str | os.PathLike[str],
    *,
    read_only: Literal[True],
    lock_timeout_seconds: float = ...,
) -> AbstractAsyncContextManager[LogReader[LoopEvent]]: ...
@overload
def open_store(
    path: str | os.PathLike[str],
    *,
    types: EventTypes[E],
    read_only: Literal[False] = False,
    durability: Durability = ...,
    segment_bytes_max: int | None = ...,
    line_bytes_max: int = ...,
    lock_timeout_seconds: float = ...,
    clock: Callable[[], int] = ...,
) -> AbstractAsyncContextManager[LogStore[E]]: ...
@overload
def open_store(
    path: str | os.PathLike[str],
    *,
    types: EventTypes[E],
    read_only: Literal[True],
    lock_timeout_seconds: float = ...,
) -> AbstractAsyncContextManager[LogReader[E]]: ...
def open_store(
    path: str | os.PathLike[str],
    *,
    types: EventTypes[Any] = LOOP_EVENTS,
    read_only: bool = False,
    durability: Durability = "synced",
    segment_bytes_max: int | None = SEGMENT_BYTES_MAX,
    line_bytes_max: int = LINE_BYTES_MAX,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    clock: Callable[[], int] = time.time_ns,
) -> AbstractAsyncContextManager[Any]:
    """Open the log whose active segment is the file at `path`.

    For appending, the file and its directory are created if absent (0600, 0700), and what a dead
    writer left is recovered before anything else. Any number of stores, in this process or in
    others, may be open on one log.

    Args:
        path: the active `.jsonl` file.
        types: the kinds of events the store knows.
        read_only: yields an `EventReader`: nothing is written or created, no lock is held.
        durability: what `append` waits for unless it says otherwise.
        segment_bytes_max: seal the active file once it has this many bytes; None for never.
        line_bytes_max: refuse longer events; 16 MiB at most.
        lock_timeout_seconds: how long a commit may wait for the lock.
        clock: nanoseconds since 1970, for timestamps.

    Yields:
        The store, ready for use.

    Raises:
        CorruptLogError: acknowledged data is damaged; open it with `read_only=True`.
        StoreBusyError: another process held the lock until the deadline.
        StoreUnavailableError: the path is not a file, or cannot be used.
        EventTypesError: `types` and its union differ.
        ValueError: there is no such durability.

    Cancellation: leaving waits until everything accepted is recorded, also when cancelled.
    """
    if durability not in _DURABILITIES:
        raise ValueError(_no_durability(durability))
    types.check_union()
    full: str = os.path.abspath(os.fspath(path))  # noqa: PTH100 - no symlink may be resolved
    directory, name = os.path.split(full)
    names = _checked_names(full, name)
    if read_only:
        return _open_reader(
            DiskFiles(directory), names, types, lock_timeout_seconds=lock_timeout_seconds
        )
    return _open_log(
        DiskFiles(directory),
        names,
        types,
        durability=durability,
        segment_bytes_max=segment_bytes_max,
        line_bytes_max=line_bytes_max,
        lock_timeout_seconds=lock_timeout_seconds,
        clock=clock,
    )


@overload
def memory_store() -> AbstractAsyncContextManager[LogStore[LoopEvent]]: ...
@overload
def memory_store(
    *,
    types: EventTypes[E],
    files: MemoryFiles | None = ...,
    segment_bytes_max: int | None = ...,
    clock: Callable[[], int] = ...,
) -> AbstractAsyncContextManager[LogStore[E]]: ...
@overload
def memory_store(
    *,
    files: MemoryFiles | None = ...,
    segment_bytes_max: int | None = ...,
    clock: Callable[[], int] = ...,
) -> AbstractAsyncContextManager[LogStore[LoopEvent]]: ...
def memory_store(
    *,
    types: EventTypes[Any] = LOOP_EVENTS,
    files: MemoryFiles | None = None,
    segment_bytes_max: int | None = SEGMENT_BYTES_MAX,
    clock: Callable[[], int] = time.time_ns,
) -> AbstractAsyncContextManager[LogStore[Any]]:
    """Open a log in memory: the same engine over memory files, for tests.

    Args:
        types: the kinds of events the store knows.
        files: give the same object to open the same log again.
        segment_bytes_max: as `open_store`.
        clock: as `open_store`.
    """
    types.check_union()
    return _open_log(
        files or MemoryFiles(),
        LogNames("history.jsonl"),
        types,
        segment_bytes_max=segment_bytes_max,
        clock=clock,
    )


@asynccontextmanager
async def _open_reader(
    files: Files, names: LogNames, types: EventTypes[E], *, lock_timeout_seconds: float
) -> AsyncGenerator[LogReader[E]]:
    reader = LogReader(files, names, Codec(types), lock_timeout_seconds=lock_timeout_seconds)
    try:
        await reader._in_thread(reader._look_at_end)  # noqa: SLF001 - the wiring of this module
        yield reader
    finally:
        reader._taker.close()  # noqa: SLF001


@asynccontextmanager
async def _open_log(
    files: Files,
    names: LogNames,
    types: EventTypes[E],
    *,
    durability: Durability = "synced",
    segment_bytes_max: int | None = SEGMENT_BYTES_MAX,
    line_bytes_max: int = LINE_BYTES_MAX,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    index_bytes: int = INDEX_BYTES,
    clock: Callable[[], int] = time.time_ns,
) -> AsyncGenerator[LogStore[E]]:
    committer = Committer(
        files,
        names,
        lock_timeout_seconds=lock_timeout_seconds,
        segment_bytes_max=segment_bytes_max,
        index_bytes=index_bytes,
    )
    try:
        store = LogStore(
            files,
            names,
            Codec(types, line_bytes_max=min(line_bytes_max, LINE_BYTES_MAX_LIMIT)),
            committer,
            lock_timeout_seconds=lock_timeout_seconds,
            durability=durability,
            clock=clock,
        )
    except OSError as error:  # no descriptors left for the writer's inbox
        raise StoreUnavailableError(
            path=files.path(names.active), reason=error.strerror or str(error)
        ) from error
    failure: BaseException | None = None
    try:
        await store._in_thread(committer.open)  # noqa: SLF001 - the wiring of this module
        _stores.add(store)
        writer_error: list[EventStoreError] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(_run, store._writer, writer_error))  # noqa: SLF001
            try:
                yield store
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - see below
                failure = error  # raised outside the task group, which would wrap it
            finally:
                store._writer.close()  # noqa: SLF001
        if failure is not None:
            raise failure
        if writer_error:
            raise writer_error[0]
    finally:
        _stores.discard(store)
        store._writer.discard()  # noqa: SLF001
        committer.close()
        store._taker.close()  # noqa: SLF001


def _no_durability(durability: object) -> str:
    return f"durability is 'synced' or 'written', not {durability!r:.80}"


def _check_expected(expected: object) -> None:
    if isinstance(expected, bool) or not isinstance(expected, int | Expectation):
        reason = (
            f"expected_version is a number, NO_STREAM, STREAM_EXISTS or ANY, not {expected!r:.80}"
        )
        raise EventRefusedError(reason)


def _check_sequence(events: object) -> None:
    if not isinstance(events, Sequence):
        reason = f"events stand in a list or tuple, not in a {type(events).__name__}"
        raise EventRefusedError(reason)


async def _run(writer: Writer, errors: list[EventStoreError]) -> None:
    try:
        await writer.run()
    except EventStoreError as error:
        errors.append(error)


def _checked_names(full: str, name: str) -> LogNames:
    names = LogNames(name)
    if not name or not name.strip(".") or names.lock in ("", ".", "..", name):
        raise StoreUnavailableError(path=full, reason="is no file name a log can have")
    return names
