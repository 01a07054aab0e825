"""What one loop's history says: last iteration, completion, prompt, summary. Pure.

The built-in folds are typed over `Event`, so that they also fold the wider union of a user who
adds kinds of their own. That is why, unlike a fold over a closed union, each has a default case:
`Unknown` and other people's kinds change nothing here.

Source: SEED.md a.6, the queries of the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import msgspec

from eventstore import (
    Event,
    EventPublished,
    IterationCompleted,
    LoopCompleted,
    LoopDiscarded,
    LoopResumed,
    LoopStarted,
    LoopTerminated,
    MergeCompleted,
    MergeFailed,
    Recorded,
)
from projections._projection import Projection, first, latest

__all__ = [
    "COMPLETION",
    "LAST_ITERATION",
    "PROMPT",
    "SUMMARY",
    "Completion",
    "Outcome",
    "Summary",
    "outcome_of",
]

Outcome: TypeAlias = Literal[
    "running", "succeeded", "limit", "failed", "cancelled", "terminated", "discarded"
]
"""How a loop stands. Whether a running one is still alive is not in the log."""

_OUTCOME_OF_REASON: Final[Mapping[str, Outcome]] = MappingProxyType(
    {
        "completion_promise": "succeeded",
        "max_iterations": "limit",
        "max_runtime": "limit",
        "max_cost": "limit",
        "consecutive_failures": "failed",
        "loop_thrashing": "failed",
        "loop_stale": "failed",
        "validation_failure": "failed",
        "workspace_gone": "failed",
        "stopped": "cancelled",
        "restart_requested": "cancelled",
        "cancelled": "cancelled",
    }
)


def outcome_of(reason: str) -> Outcome:
    """Say what a `LoopCompleted.reason` means.

    `completion_promise` is the only success; a limit that was set beforehand (`max_…`) is a
    `limit`; somebody's wish (`stopped`, `restart_requested`, `cancelled`) is `cancelled`. All
    others are `failed`, and so is a reason nobody has heard of: an end that cannot be shown to be
    a success must not look like one.
    """
    return _OUTCOME_OF_REASON.get(reason, "failed")


class Completion(msgspec.Struct, frozen=True, gc=False):
    """Whether a loop came to its end, and to which.

    Attributes:
        is_completed: as the original says it: the newest of completed (true), terminated and
            discarded (both false) decides; a later start or resume does not change it.
        outcome: how the newest run stands: `running` from its start or resume on, until an event
            ends it. None if nothing was started or ended.
    """

    is_completed: bool = False
    outcome: Outcome | None = None


class Summary(msgspec.Struct, frozen=True, gc=False):
    """The original's summary: its thirteen names, and the same values on the same bytes.

    Attributes:
        prompt: of the last start.
        started_at: when that was.
        ended_at: when the last completion or termination was.
        iterations_completed: the number of the last completed iteration, not a count.
        iterations_failed: how many completed without success.
        events_published: how many were published.
        completed: whether any run completed; never cleared, like all below.
        completion_reason: of the last completion.
        terminated: whether any run was terminated.
        termination_signal: of the last termination.
        merge_commit: of the last merge.
        merge_failed: whether any merge failed.
        merge_failure_reason: of the last failed merge.
    """

    prompt: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    iterations_completed: int = 0
    iterations_failed: int = 0
    events_published: int = 0
    completed: bool = False
    completion_reason: str | None = None
    terminated: bool = False
    termination_signal: str | None = None
    merge_commit: str | None = None
    merge_failed: bool = False
    merge_failure_reason: str | None = None


def _last_iteration(recorded: Recorded[Event]) -> int | None:
    event = recorded.event
    return event.iteration if isinstance(event, IterationCompleted) else None


def _prompt(recorded: Recorded[Event]) -> str | None:
    event = recorded.event
    return event.prompt if isinstance(event, LoopStarted) else None


def _evolve_completion(state: Completion, recorded: Recorded[Event]) -> Completion:
    match recorded.event:
        case LoopStarted() | LoopResumed():
            return Completion(is_completed=state.is_completed, outcome="running")
        case LoopCompleted(reason=reason):
            return Completion(is_completed=True, outcome=outcome_of(reason))
        case LoopTerminated():
            return Completion(is_completed=False, outcome="terminated")
        case LoopDiscarded():
            return Completion(is_completed=False, outcome="discarded")
        case _:
            return state


_STARTS: Final[frozenset[type[Event]]] = frozenset({LoopStarted, LoopResumed})
_ENDS: Final[frozenset[type[Event]]] = frozenset({LoopCompleted, LoopTerminated, LoopDiscarded})


def _completion_newest_first(state: Completion, events: Iterable[Recorded[Event]]) -> Completion:
    """The newest end decides everything, except that a later start makes it run again."""
    runs_again = False
    for recorded in events:
        kind = type(recorded.event)
        if kind in _ENDS:
            state = _evolve_completion(state, recorded)
            break
        runs_again = runs_again or kind in _STARTS
    return Completion(is_completed=state.is_completed, outcome="running") if runs_again else state


def _evolve_summary(state: Summary, recorded: Recorded[Event]) -> Summary:
    replace = msgspec.structs.replace
    match recorded.event:
        case IterationCompleted(iteration=iteration, success=success):
            failed = state.iterations_failed + (not success)
            return replace(state, iterations_completed=iteration, iterations_failed=failed)
        case EventPublished():
            return replace(state, events_published=state.events_published + 1)
        case LoopStarted(prompt=prompt):
            return replace(state, prompt=prompt, started_at=recorded.timestamp)
        case LoopCompleted(reason=reason):
            return replace(
                state, completed=True, completion_reason=reason, ended_at=recorded.timestamp
            )
        case LoopTerminated(signal=signal):
            return replace(
                state, terminated=True, termination_signal=signal, ended_at=recorded.timestamp
            )
        case MergeCompleted(commit=commit):
            return replace(state, merge_commit=commit)
        case MergeFailed(reason=reason):
            return replace(state, merge_failed=True, merge_failure_reason=reason)
        case _:
            return state


_RARE_IN_SUMMARY: Final[frozenset[type[Event]]] = frozenset(
    {LoopStarted, LoopCompleted, LoopTerminated, MergeCompleted, MergeFailed}
)


def _fold_summary(state: Summary, events: Sequence[Recorded[Event]]) -> Summary:
    """Nearly all events change only the three numbers; the others leave the numbers alone."""
    completed = state.iterations_completed
    failed = state.iterations_failed
    published = state.events_published
    for recorded in events:
        event = recorded.event
        if type(event) is EventPublished:
            published += 1
        elif type(event) is IterationCompleted:
            completed = event.iteration
            if not event.success:
                failed += 1
        elif type(event) in _RARE_IN_SUMMARY:
            state = _evolve_summary(state, recorded)
    return msgspec.structs.replace(
        state,
        iterations_completed=completed,
        iterations_failed=failed,
        events_published=published,
    )


LAST_ITERATION: Final = latest("last_iteration", _last_iteration, data=False, state_type=int | None)
"""The number of the last completed iteration, or None. Read from the end of the log."""

COMPLETION: Final = Projection[Completion, Event](
    name="completion",
    initial=Completion(),
    evolve=_evolve_completion,
    data=False,
    newest_first=_completion_newest_first,
)
"""Whether and how the loop ended. Read from the end of the log."""

PROMPT: Final = first("prompt", _prompt, data=False, state_type=str | None)
"""What the loop was asked at its first start, or None. Read from the beginning of the log."""

SUMMARY: Final = Projection[Summary, Event](
    name="summary", initial=Summary(), evolve=_evolve_summary, fold=_fold_summary, data=False
)
"""The original's summary."""
