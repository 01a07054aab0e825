"""What the promises of a backend are shown with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final, TypeAlias, cast

from eventstore import (
    EventStore,
    HistoryEvent,
    IterationCompleted,
    IterationStarted,
    LoopEvent,
    Recorded,
)

__all__ = [
    "EACH",
    "HERON",
    "OTTER",
    "TASKS",
    "OpenLog",
    "closing",
    "completed",
    "fill",
    "iterations_of",
    "raises",
    "read_stream",
    "sliced",
    "slices",
]

OpenLog: TypeAlias = Callable[[], AbstractAsyncContextManager[EventStore[LoopEvent]]]
"""Opens one and the same log each time, with the twelve kinds; it is empty at first."""

OTTER: Final = "bright-otter"
HERON: Final = "calm-heron"
TASKS: Final = 16
EACH: Final = 8
"""How many appends each of the tasks makes."""


def completed(*iterations: int) -> list[LoopEvent]:
    """Iterations that went well."""
    return [IterationCompleted(iteration=iteration, success=True) for iteration in iterations]


async def fill(store: EventStore[LoopEvent]) -> None:
    """Two streams of five events that alternate, with data beside them."""
    for number in range(1, 6):
        for stream in (OTTER, HERON):
            event = HistoryEvent[LoopEvent](IterationStarted(iteration=number), data={"n": number})
            await store.append(stream, [event], expected_version=number - 1)


async def read_stream(
    store: EventStore[LoopEvent], stream: str = OTTER
) -> list[Recorded[LoopEvent]]:
    """What a stream holds now."""
    return [recorded async for recorded in store.read(stream)]


def iterations_of(events: Sequence[Recorded[LoopEvent]]) -> list[int]:
    """Which iterations were completed, by events that say nothing else."""
    return [cast("IterationCompleted", recorded.event).iteration for recorded in events]


def slices(count: int) -> Iterator[tuple[int, bool, int | None]]:
    """What may be asked for: after how many, backwards or not, how many."""
    for after in (0, 1, count - 1, count, count + 3):
        for backwards in (False, True):
            for limit in (None, 0, 1, 3, count + 3):
                yield min(after, count), backwards, limit


def sliced(
    everything: Sequence[Recorded[LoopEvent]], after: int, limit: int | None, *, backwards: bool
) -> Sequence[Recorded[LoopEvent]]:
    """What must be given for that."""
    wanted = everything[after:]
    return (wanted[::-1] if backwards else wanted)[:limit]


@asynccontextmanager
async def closing(
    events: AsyncIterator[Recorded[LoopEvent]],
) -> AsyncGenerator[AsyncIterator[Recorded[LoopEvent]]]:
    """End an iteration here and now, which trio wants to be done."""
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


@contextmanager
def raises(error: type[Exception]) -> Generator[list[Exception]]:
    """Expect an error, as pytest does; the error is handed out."""
    raised: list[Exception] = []
    try:
        yield raised
    except error as expected:
        raised.append(expected)
        return
    msg = f"{error.__name__} was not raised"
    raise AssertionError(msg)
