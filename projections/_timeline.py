"""When a loop's iterations began and ended. Pure.

Typed over `Event`, with a default case, for the reason that `_loop.py` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from eventstore import Event, IterationCompleted, IterationStarted, LoopStarted, Recorded
from projections._projection import Projection

__all__ = ["TIMELINE", "IterationSpan", "Timeline"]

_SPANS_MAX: Final = 1_000  # evolve copies them at each event: 3 us at this many


class IterationSpan(msgspec.Struct, frozen=True, gc=False):
    """One attempt at one iteration.

    Attributes:
        run: which run of the loop it belongs to, counting starts; 0 before any.
        iteration: its number.
        started_at: when it began; None if only its end is in the log.
        ended_at: when it ended; None while it is open, and for ever if the run broke off.
        success: how it ended; None without an end.
    """

    run: int
    iteration: int
    started_at: datetime | None = None
    ended_at: datetime | None = None
    success: bool | None = None

    @property
    def duration_seconds(self) -> float | None:
        """From start to end, None if one is missing; negative if the clock went back between."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class Timeline(msgspec.Struct, frozen=True, gc=False):
    """The attempts at iterations, in log order.

    An end belongs to the attempt directly before it, if that is open and has the same number and
    run; any other end is an attempt whose start is missing.

    Attributes:
        run: how many runs were started.
        iterations: the last 1,000 attempts, oldest first.
        dropped: how many earlier ones are no longer kept.
    """

    run: int = 0
    iterations: tuple[IterationSpan, ...] = ()
    dropped: int = 0


def _evolve(state: Timeline, recorded: Recorded[Event]) -> Timeline:
    spans = state.iterations
    match recorded.event:
        case LoopStarted():
            return msgspec.structs.replace(state, run=state.run + 1)
        case IterationStarted(iteration=iteration):
            span = IterationSpan(state.run, iteration, recorded.timestamp)
        case IterationCompleted() as event:
            span = _closed(spans[-1] if spans else None, state.run, event, recorded.timestamp)
            if span.started_at is not None:
                spans = spans[:-1]
        case _:
            return state
    excess = len(spans) + 1 - _SPANS_MAX
    if excess <= 0:
        return msgspec.structs.replace(state, iterations=(*spans, span))
    return msgspec.structs.replace(
        state, iterations=(*spans[excess:], span), dropped=state.dropped + excess
    )


def _fold(state: Timeline, events: Sequence[Recorded[Event]]) -> Timeline:
    run = state.run
    spans = list(state.iterations)
    for recorded in events:
        event = recorded.event
        if type(event) is IterationStarted:
            spans.append(IterationSpan(run, event.iteration, recorded.timestamp))
        elif type(event) is IterationCompleted:
            span = _closed(spans[-1] if spans else None, run, event, recorded.timestamp)
            if span.started_at is None:
                spans.append(span)
            else:
                spans[-1] = span
        elif type(event) is LoopStarted:
            run += 1
    excess = max(0, len(spans) - _SPANS_MAX)
    return Timeline(run=run, iterations=tuple(spans[excess:]), dropped=state.dropped + excess)


def _closed(
    before: IterationSpan | None, run: int, event: IterationCompleted, ended_at: datetime
) -> IterationSpan:
    """The attempt that this end belongs to; without a start if it is not the one before."""
    started_at = None
    if (
        before is not None
        and before.ended_at is None
        and before.iteration == event.iteration
        and before.run == run
    ):
        started_at = before.started_at
    return IterationSpan(run, event.iteration, started_at, ended_at, event.success)


TIMELINE: Final = Projection[Timeline, Event](
    name="timeline", initial=Timeline(), evolve=_evolve, fold=_fold, data=False
)
"""When each iteration began and ended, the last 1,000 of them."""
