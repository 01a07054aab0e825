"""The laws every fold keeps: total, the same in pieces, the same from either end."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventstore as es
import projections as pj

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


@st.composite
def histories_and_cut(draw: st.DrawFn) -> tuple[list[es.Recorded[es.Event]], int]:
    """A stream and a place in it."""
    history = draw(histories())
    return history, draw(st.integers(0, len(history)))


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
@given(history=histories())
@example(history=PLAIN)
def test_the_page_form_is_evolve_for_many(
    projection: pj.Projection[Any, es.Event], history: list[es.Recorded[es.Event]]
) -> None:
    """Folding a page gives what evolving by each of its events gives; neither ever raises."""
    evolved = functools.reduce(projection.evolve, history, projection.initial)
    assert projection.fold(projection.initial, history) == evolved


@every_projection
@given(history_and_cut=histories_and_cut())
@example(history_and_cut=(PLAIN, 2))
@example(history_and_cut=(PLAIN, 8))
def test_folding_the_rest_from_the_prefix_is_folding_the_whole(
    projection: pj.Projection[Any, es.Event],
    history_and_cut: tuple[list[es.Recorded[es.Event]], int],
) -> None:
    """fold(a + b) == fold(b, from fold(a)), wherever the cut is."""
    history, cut = history_and_cut
    prefix = projection.fold(projection.initial, history[:cut])
    whole = projection.fold(projection.initial, history)
    assert projection.fold(prefix, history[cut:]) == whole


@every_projection
@given(history_and_cut=histories_and_cut())
@example(history_and_cut=(PLAIN, 5))
def test_reading_from_the_deciding_end_gives_the_full_fold(
    projection: pj.Projection[Any, es.Event],
    history_and_cut: tuple[list[es.Recorded[es.Event]], int],
) -> None:
    """Pages of any size, from whichever end the projection reads, give the same state."""
    history, cut = history_and_cut
    pages = [history[:cut], history[cut:]]
    if projection.backwards:
        pages = [page[::-1] for page in reversed(pages)]
    evolved = functools.reduce(projection.evolve, history, projection.initial)
    assert projection.fold_pages(pages) == evolved


@every_projection
@given(history=histories())
@example(history=PLAIN)
def test_a_fold_changes_neither_state_nor_events(
    projection: pj.Projection[Any, es.Event], history: list[es.Recorded[es.Event]]
) -> None:
    """The same fold over the same values gives the same state again."""
    before = msgspec.json.encode(projection.initial)
    once = projection.fold(projection.initial, history)
    assert projection.fold(projection.initial, history) == once
    assert msgspec.json.encode(projection.initial) == before


@every_projection
@given(history=histories())
def test_a_state_survives_being_saved(
    projection: pj.Projection[Any, es.Event], history: list[es.Recorded[es.Event]]
) -> None:
    """Encoded as JSON and decoded as its type, a state is the same state."""
    state: object = projection.fold(projection.initial, history)
    assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state


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
