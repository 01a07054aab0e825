"""Which loops exist and what may happen to each next: one state machine per loop. Pure.

Replay is total: an event that does not belong to the state it meets changes nothing and is noted
as an anomaly; it never raises, because a log with one odd event must not hide the others.

A state is decided by events alone, not by who is alive today. So "illegal unless its owner is
dead" is plainly illegal here, and who finds a dead owner records that first: `LoopTerminated`
before discarding a crashed loop, `MergeFailed` before merging again after a dead merger.

Source: SEED.md d.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import msgspec

from eventstore import (
    LOOP_EVENTS,
    Event,
    EventPublished,
    IterationCompleted,
    IterationStarted,
    LoopCompleted,
    LoopDiscarded,
    LoopResumed,
    LoopStarted,
    LoopTerminated,
    MergeCompleted,
    MergeFailed,
    MergeQueued,
    MergeStarted,
    Recorded,
)
from projections._loop import outcome_of
from projections._loop_entry import Anomaly, LoopEntry, LoopState, resume_from
from projections._projection import Projection

__all__ = ["REGISTRY"]

_ANOMALIES_MAX: Final = 100  # the newest tell what is wrong now; the others are counted

_Next: TypeAlias = LoopState | Literal["late"]


def _table(*rows: tuple[type[Event], str, _Next]) -> Mapping[tuple[str, type[Event]], _Next]:
    return MappingProxyType(
        {(state, kind): after for kind, states, after in rows for state in states.split()}
    )


# From which states an event leads where. What is not named is illegal; `late` is legal, noted, and
# changes nothing.
_TABLE: Final = _table(
    (LoopStarted, "absent running completed terminated merged discarded", "running"),
    (LoopResumed, "running completed terminated needs-review", "running"),
    (IterationStarted, "running", "running"),
    (EventPublished, "running", "running"),
    (EventPublished, "completed terminated queued merging needs-review merged discarded", "late"),
    (IterationCompleted, "running", "running"),
    (LoopCompleted, "running", "completed"),
    (LoopTerminated, "running terminated", "terminated"),
    (LoopTerminated, "completed", "late"),
    (MergeQueued, "absent completed terminated queued needs-review", "queued"),
    (MergeStarted, "queued needs-review", "merging"),
    (MergeCompleted, "merging merged", "merged"),  # in merged only the same commit again
    (MergeFailed, "merging needs-review", "needs-review"),
    (LoopDiscarded, "absent completed terminated queued needs-review discarded", "discarded"),
)

_KINDS: Final = frozenset(LOOP_EVENTS.by_kind.values())


def _evolve(entry: LoopEntry, recorded: Recorded[Event]) -> LoopEntry:
    event = recorded.event
    kind = type(event)
    if kind not in _KINDS:  # Unknown, or a kind that is not a loop's
        return entry
    after = _TABLE.get((entry.state, kind))
    if after is None:
        return _noted(entry, entry.state, recorded, "illegal")
    if after == "late":
        return _noted(entry, entry.state, recorded, "late")
    return _applied(entry, recorded, after)


def _applied(entry: LoopEntry, recorded: Recorded[Event], after: LoopState) -> LoopEntry:
    replace = msgspec.structs.replace
    match recorded.event:
        case IterationStarted(iteration=iteration):
            begun = replace(entry, open_iteration=iteration, resumed_from=None)
            if _may_start(entry, iteration):
                return begun
            return _noted(
                begun,
                entry.state,
                recorded,
                "gap",
                iteration=iteration,
                expected=resume_from(entry),
            )
        case EventPublished():
            return replace(entry, events_published=entry.events_published + 1)
        case IterationCompleted(iteration=iteration, success=success):
            ended = replace(
                entry,
                open_iteration=None,
                last_iteration=iteration,
                resumed_from=None,
                iterations=entry.iterations + 1,
                iterations_failed=entry.iterations_failed + (not success),
            )
            if iteration == entry.open_iteration:
                return ended
            return _noted(
                ended,
                entry.state,
                recorded,
                "gap",
                iteration=iteration,
                expected=entry.open_iteration,
            )
        case LoopStarted(prompt=prompt):
            return LoopEntry(
                state=after,
                run=entry.run + 1,
                prompt=prompt,
                started_at=recorded.timestamp,
                outcome="running",
                anomalies=entry.anomalies,
                anomaly_count=entry.anomaly_count,
            )
        case LoopResumed(from_iteration=iteration):
            return replace(
                entry,
                state=after,
                ended_at=None,
                success=None,
                outcome="running",
                resumed_from=iteration,
                failure_reason=None,
            )
        case LoopCompleted(reason=reason):
            outcome = outcome_of(reason)
            return replace(
                entry,
                state=after,
                ended_at=recorded.timestamp,
                success=outcome == "succeeded",
                outcome=outcome,
            )
        case LoopTerminated():
            return replace(
                entry,
                state=after,
                ended_at=recorded.timestamp,
                success=False,
                outcome="terminated",
            )
        case MergeQueued():
            return replace(entry, state=after, queued_at=recorded.timestamp, failure_reason=None)
        case MergeStarted(pid=pid):
            return replace(entry, state=after, merge_pid=pid, failure_reason=None)
        case MergeCompleted(commit=commit):
            if entry.state == after and commit != entry.commit:
                return _noted(entry, entry.state, recorded, "illegal")
            return replace(entry, state=after, commit=commit)
        case MergeFailed(reason=reason):
            return replace(entry, state=after, failure_reason=reason)
        case LoopDiscarded(reason=reason):
            return replace(entry, state=after, discard_reason=reason, outcome="discarded")
        case _:  # the table has no other kinds, but the type of `event` does
            return entry


def _may_start(entry: LoopEntry, iteration: int) -> bool:
    """The next one, if the last one has ended; after a resume also what was open or ended last."""
    if entry.resumed_from is None:
        return entry.open_iteration is None and iteration == resume_from(entry)
    return iteration in (entry.resumed_from, entry.last_iteration, resume_from(entry))


def _noted(
    entry: LoopEntry,
    state: LoopState,
    recorded: Recorded[Event],
    what: Literal["illegal", "late", "gap"],
    *,
    iteration: int | None = None,
    expected: int | None = None,
) -> LoopEntry:
    anomaly = Anomaly(
        what, recorded.kind, state, recorded.version, recorded.position, iteration, expected
    )
    return msgspec.structs.replace(
        entry,
        anomalies=(*entry.anomalies[1 - _ANOMALIES_MAX :], anomaly),
        anomaly_count=entry.anomaly_count + 1,
    )


def _fold(entry: LoopEntry, events: Sequence[Recorded[Event]]) -> LoopEntry:
    remaining = iter(events)
    entry, other = _fold_plain(entry, remaining)
    while other is not None:
        entry, other = _fold_plain(_evolve(entry, other), remaining)
    return entry


def _fold_plain(
    entry: LoopEntry, remaining: Iterator[Recorded[Event]]
) -> tuple[LoopEntry, Recorded[Event] | None]:
    """Fold what a running loop does when nothing is odd, up to the first other event.

    That is nearly everything, and it changes five members only.
    """
    if entry.state != "running" or entry.resumed_from is not None:
        return entry, next(remaining, None)
    other = None
    following = resume_from(entry)
    open_iteration, last_iteration = entry.open_iteration, entry.last_iteration
    iterations, failed, published = 0, 0, 0
    for recorded in remaining:
        event = recorded.event
        if type(event) is EventPublished:
            published += 1
        elif (
            type(event) is IterationStarted
            and open_iteration is None
            and event.iteration == following
        ):
            open_iteration = following
        elif type(event) is IterationCompleted and event.iteration == open_iteration:
            open_iteration, last_iteration = None, event.iteration
            following = event.iteration + 1
            iterations += 1
            failed += not event.success
        elif type(event) in _KINDS:
            other = recorded
            break
    entry = msgspec.structs.replace(
        entry,
        open_iteration=open_iteration,
        last_iteration=last_iteration,
        iterations=entry.iterations + iterations,
        iterations_failed=entry.iterations_failed + failed,
        events_published=entry.events_published + published,
    )
    return entry, other


REGISTRY: Final = Projection[LoopEntry, Event](
    name="registry", initial=LoopEntry(), evolve=_evolve, fold=_fold, data=False
)
"""Which loops exist, and where each stands: one `LoopEntry` per stream."""
