"""The twelve kinds of a loop's history, with the original's field names, order and ranges. Pure."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias, final

import msgspec

from eventstore._event_types import EventTypes
from eventstore._events import Event

__all__ = [
    "LOOP_EVENTS",
    "U32",
    "EventPublished",
    "IterationCompleted",
    "IterationStarted",
    "LoopCompleted",
    "LoopDiscarded",
    "LoopEvent",
    "LoopResumed",
    "LoopStarted",
    "LoopTerminated",
    "MergeCompleted",
    "MergeFailed",
    "MergeQueued",
    "MergeStarted",
]

U32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""An unsigned 32-bit number, the original's integer type."""


@final
class LoopStarted(Event):
    """A run of the loop began."""

    prompt: str


@final
class IterationStarted(Event):
    """An iteration began."""

    iteration: U32


@final
class EventPublished(Event):
    """The agent published something for others."""

    topic: str
    payload: str


@final
class IterationCompleted(Event):
    """An iteration ended."""

    iteration: U32
    success: bool


@final
class LoopCompleted(Event):
    """The run ended by itself; only the reason `completion_promise` is a success."""

    reason: str


@final
class LoopResumed(Event):
    """The run went on after an interruption, from this iteration."""

    from_iteration: U32


@final
class LoopTerminated(Event):
    """The run was ended from outside."""

    signal: str


@final
class MergeQueued(Event):
    """The loop's work waits to be merged."""


@final
class MergeStarted(Event):
    """A merger took the loop's work."""

    pid: U32


@final
class MergeCompleted(Event):
    """The loop's work was merged."""

    commit: str


@final
class MergeFailed(Event):
    """The merge failed and needs review."""

    reason: str


@final
class LoopDiscarded(Event):
    """The loop's work was thrown away."""

    reason: str


LoopEvent: TypeAlias = (
    LoopStarted
    | IterationStarted
    | EventPublished
    | IterationCompleted
    | LoopCompleted
    | LoopResumed
    | LoopTerminated
    | MergeQueued
    | MergeStarted
    | MergeCompleted
    | MergeFailed
    | LoopDiscarded
)
"""One event of a loop's history."""

LOOP_EVENTS: Final = EventTypes[LoopEvent](
    LoopStarted,
    IterationStarted,
    EventPublished,
    IterationCompleted,
    LoopCompleted,
    LoopResumed,
    LoopTerminated,
    MergeQueued,
    MergeStarted,
    MergeCompleted,
    MergeFailed,
    LoopDiscarded,
)
"""The twelve kinds, which a store knows unless it is told otherwise."""
