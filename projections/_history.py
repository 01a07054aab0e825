"""The original's `LoopHistory`, over a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeVar, overload

from eventstore import (
    ANY,
    MAIN_STREAM,
    Appended,
    Event,
    EventPublished,
    EventReader,
    EventStore,
    HistoryEvent,
    IterationCompleted,
    IterationStarted,
    LoopCompleted,
    LoopDiscarded,
    LoopEvent,
    LoopResumed,
    LoopStarted,
    LoopTerminated,
    MergeCompleted,
    MergeFailed,
    MergeQueued,
    MergeStarted,
    Recorded,
    open_store,
)
from projections._loop import COMPLETION, LAST_ITERATION, PROMPT, SUMMARY, Summary
from projections._projection import Projection

__all__ = ["HistoryReader", "LoopHistory", "open_history"]

S = TypeVar("S")


@overload
def open_history(
    path: str | os.PathLike[str], *, read_only: Literal[False] = False
) -> AbstractAsyncContextManager[LoopHistory]: ...
@overload
def open_history(
    path: str | os.PathLike[str], *, read_only: Literal[True]
) -> AbstractAsyncContextManager[HistoryReader]: ...
def open_history(
    path: str | os.PathLike[str], *, read_only: bool = False
) -> AbstractAsyncContextManager[Any]:
    """Open a loop's history, such as `.ralph/history.jsonl`, alone or beside ralph's processes.

    The file stays one file (it is never sealed), because the original knows no other.

    Args:
        path: the file; created if absent.
        read_only: yields a `HistoryReader`, and writes or creates nothing. It opens and answers
            `last_iteration`, `is_completed` and `get_prompt` as fast on a large file as on a small
            one; opening for recording reads what no index covers, so all that only ralph wrote.

    Yields:
        The history, ready to record and to ask. It is closed, and all it accepted is durable,
        when the block ends.

    Raises:
        StoreUnavailableError: the file cannot be used here.
        CorruptLogError: acknowledged data is damaged; it can be opened read-only.

    Cancellation: a half-finished open undoes itself.
    """
    return _read_history(path) if read_only else _keep_history(path)


@contextlib.asynccontextmanager
async def _keep_history(path: str | os.PathLike[str]) -> AsyncGenerator[LoopHistory]:
    async with open_store(path, segment_bytes_max=None) as store:
        yield LoopHistory(store)


@contextlib.asynccontextmanager
async def _read_history(path: str | os.PathLike[str]) -> AsyncGenerator[HistoryReader]:
    async with open_store(path, read_only=True) as reader:
        yield HistoryReader(reader)


class HistoryReader:
    """One loop's history to ask, with the original's methods.

    Every question is about all events of the file, whatever their stream, exactly as the original
    sees it. Questions may be cancelled at any time.
    """

    def __init__(self, reader: EventReader[LoopEvent]) -> None:
        self._reader = reader

    async def read_all(self) -> list[Recorded[LoopEvent]]:
        """Read every event of the file, oldest first."""
        return await self._reader.scan(
            lambda pages: [recorded for page in pages for recorded in page]
        )

    async def last_iteration(self) -> int | None:
        """Say which iteration was completed last; None if none was."""
        return await self._ask(LAST_ITERATION)

    async def is_completed(self) -> bool:
        """Say whether the newest end of a run is a completion, whatever was started since."""
        return (await self._ask(COMPLETION)).is_completed

    async def get_prompt(self) -> str | None:
        """Say what the first run was asked; None if none was started."""
        return await self._ask(PROMPT)

    async def summary(self) -> Summary:
        """Sum up the file: the original's thirteen fields."""
        return await self._ask(SUMMARY)

    async def _ask(self, projection: Projection[S, Event]) -> S:
        return await self._reader.scan(
            projection.fold_pages,
            backwards=projection.backwards,
            data=projection.data,
            numbers=False,
        )


class LoopHistory(HistoryReader):
    """One loop's history, with the original's methods.

    It writes the stream `main` without an expectation.

    Each `record_…` returns when its event is durable. All of them raise what `EventStore.append`
    raises, and are cancelled as it is: while queued nothing is recorded, once the commit began it
    finishes. Questions may be cancelled at any time.
    """

    def __init__(self, store: EventStore[LoopEvent]) -> None:
        super().__init__(store)
        self._store = store

    async def append(self, event: LoopEvent | HistoryEvent[LoopEvent]) -> Appended:
        """Record any event; a `HistoryEvent` carries `data` or a timestamp beside it."""
        return await self._store.append(MAIN_STREAM, [event], expected_version=ANY)

    async def record_started(self, prompt: str) -> Appended:
        """Record that a run of the loop began."""
        return await self.append(LoopStarted(prompt=prompt))

    async def record_iteration_started(self, iteration: int) -> Appended:
        """Record that an iteration began."""
        return await self.append(IterationStarted(iteration=iteration))

    async def record_event_published(self, topic: str, payload: str) -> Appended:
        """Record that the agent published something."""
        return await self.append(EventPublished(topic=topic, payload=payload))

    async def record_iteration_completed(
        self,
        iteration: int,
        success: bool,  # noqa: FBT001 - the original's signature
    ) -> Appended:
        """Record that an iteration ended."""
        return await self.append(IterationCompleted(iteration=iteration, success=success))

    async def record_completed(self, reason: str) -> Appended:
        """Record that the run ended by itself."""
        return await self.append(LoopCompleted(reason=reason))

    async def record_resumed(self, from_iteration: int) -> Appended:
        """Record that the run goes on after an interruption."""
        return await self.append(LoopResumed(from_iteration=from_iteration))

    async def record_terminated(self, signal: str) -> Appended:
        """Record that the run was ended from outside."""
        return await self.append(LoopTerminated(signal=signal))

    async def record_merge_queued(self) -> Appended:
        """Record that the loop's work waits to be merged."""
        return await self.append(MergeQueued())

    async def record_merge_started(self, pid: int) -> Appended:
        """Record that a merger took the loop's work."""
        return await self.append(MergeStarted(pid=pid))

    async def record_merge_completed(self, commit: str) -> Appended:
        """Record that the loop's work was merged."""
        return await self.append(MergeCompleted(commit=commit))

    async def record_merge_failed(self, reason: str) -> Appended:
        """Record that the merge failed and needs review."""
        return await self.append(MergeFailed(reason=reason))

    async def record_discarded(self, reason: str) -> Appended:
        """Record that the loop's work was thrown away."""
        return await self.append(LoopDiscarded(reason=reason))
