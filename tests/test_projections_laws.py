"""The laws every fold keeps, over histories that nobody would write down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventstore as es
import projections as pj
from projections.testing import check_projection

START = datetime(2026, 11, 21, tzinfo=UTC)


class Paid(es.Event):
    """A kind of a user's own."""

    amount: int


def newest_topic(recorded: es.Recorded[es.Event]) -> str | None:
    """Pick the topic of a published event."""
    event = recorded.event
    return event.topic if isinstance(event, es.EventPublished) else None


def paid_sum(total: int, recorded: es.Recorded[es.Event]) -> int:
    """Add what was paid."""
    match recorded.event:
        case Paid(amount=amount):
            return total + amount
        case _:
            return total


PROJECTIONS: list[pj.Projection[Any, es.Event]] = [
    pj.LAST_ITERATION,
    pj.COMPLETION,
    pj.PROMPT,
    pj.SUMMARY,
    pj.TIMELINE,
    pj.REGISTRY,
    pj.OPEN_TOOLS,
    pj.latest("newest_topic", newest_topic),
    pj.first("oldest_topic", newest_topic),
    pj.Projection(name="paid", initial=0, evolve=paid_sum),
]

every_projection = pytest.mark.parametrize("projection", PROJECTIONS, ids=repr)

# Few iteration numbers and texts, so that they meet each other.
iterations = st.integers(0, 4)
texts = st.sampled_from(["", "a", "b", "completion_promise"])
events = st.one_of(
    st.builds(es.LoopStarted, prompt=texts),
    st.builds(es.IterationStarted, iteration=iterations),
    st.builds(es.EventPublished, topic=texts, payload=texts),
    st.builds(es.IterationCompleted, iteration=iterations, success=st.booleans()),
    st.builds(es.LoopCompleted, reason=texts),
    st.builds(es.LoopResumed, from_iteration=iterations),
    st.builds(es.LoopTerminated, signal=texts),
    st.builds(es.MergeQueued),
    st.builds(es.MergeStarted, pid=iterations),
    st.builds(es.MergeCompleted, commit=texts),
    st.builds(es.MergeFailed, reason=texts),
    st.builds(es.LoopDiscarded, reason=texts),
    st.builds(es.Unknown, name=texts, fields=st.just(dict[str, Any]())),
    st.builds(Paid, amount=iterations),
    st.builds(
        es.ToolRequested,
        call=st.sampled_from(["c", "d"]),
        name=texts,
        arguments=st.just(dict[str, Any]()),
        token=texts,
        attempt=st.integers(1, 2),
    ),
    st.builds(es.ToolSucceeded, call=st.sampled_from(["c", "d"]), attempt=st.integers(1, 2)),
    st.builds(es.ToolFailed, call=st.just("c"), reason=texts, attempt=st.integers(1, 2)),
)


def record(number: int, event: es.Event, seconds: int) -> es.Recorded[es.Event]:
    """Give an event a place in a log in which other streams lie between."""
    return es.Recorded(event, START + timedelta(seconds=seconds), number, 2 * number, "otter")


@st.composite
def histories(draw: st.DrawFn) -> list[es.Recorded[es.Event]]:
    """A stream with a clock that goes either way."""
    happened = draw(st.lists(st.tuples(events, st.integers(-9, 9)), max_size=40))
    return [record(number, *what) for number, what in enumerate(happened, start=1)]


# A loop that is plain, then odd in the middle of an iteration, then plain again.
PLAIN = [
    record(number, event, number)
    for number, event in enumerate(
        [
            es.LoopStarted(prompt="a"),
            es.IterationStarted(iteration=1),
            es.EventPublished(topic="a", payload=""),
            es.MergeFailed(reason="a"),
            es.EventPublished(topic="b", payload=""),
            es.IterationCompleted(iteration=1, success=False),
            es.IterationStarted(iteration=2),
            es.LoopResumed(from_iteration=2),
            es.IterationStarted(iteration=2),
            es.IterationCompleted(iteration=2, success=True),
            es.LoopCompleted(reason="completion_promise"),
            es.EventPublished(topic="a", payload=""),
        ],
        start=1,
    )
]


@every_projection
@settings(deadline=None)
@given(history=histories())
@example(history=PLAIN)
def test_a_projection_keeps_the_laws(
    projection: pj.Projection[Any, es.Event], history: list[es.Recorded[es.Event]]
) -> None:
    """Total, pure, the same in pieces, in pages, from either end, and from a saved state."""
    check_projection(projection, history)


@every_projection
@given(history=histories())
def test_other_peoples_kinds_change_no_built_in(
    projection: pj.Projection[Any, es.Event], history: list[es.Recorded[es.Event]]
) -> None:
    """Without `Unknown` and kinds that are not a loop's, the built-in states are the same."""
    if projection.name == "paid":
        return
    known = [r for r in history if not isinstance(r.event, es.Unknown | Paid)]
    assert projection.fold(projection.initial, known) == projection.fold(
        projection.initial, history
    )
