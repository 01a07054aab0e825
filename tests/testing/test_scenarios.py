"""Given, when, then."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_type

import pytest

import eventstore as es
import projections as pj
from projections.testing import Given, Scenario, When

STARTED = es.LoopStarted(prompt="auth")
REGISTRY = Scenario(pj.REGISTRY)
SUMMARY = Scenario(pj.SUMMARY)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def begin(loop: pj.LoopEntry) -> list[es.LoopEvent]:
    """Start a loop, resume it, or refuse."""
    if loop.state == "absent":
        return [STARTED]
    if loop.state == "running":
        return [es.LoopResumed(from_iteration=pj.resume_from(loop))]
    if loop.state == "discarded":
        msg = f"the loop is {loop.state}"
        raise PermissionError(msg)
    return []


def test_a_decision_is_told_as_a_sentence() -> None:
    """From what happened to what is decided, through the projection's state."""
    REGISTRY.given().when(begin).then(STARTED)
    REGISTRY.given(STARTED).when(begin).then(es.LoopResumed(from_iteration=1))
    REGISTRY.given(STARTED, es.LoopTerminated(signal="TERM")).when(begin).then_nothing()
    REGISTRY.given(es.LoopDiscarded(reason="old")).when(begin).then_raises(
        PermissionError, match="is discarded"
    )


def test_the_state_afterwards_can_be_told_too() -> None:
    """The decided events are folded behind the given ones, with times that are always the same."""
    summary = pj.Summary(prompt="auth", started_at=datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC))
    (SUMMARY.given(es.MergeQueued()).when(lambda _: [STARTED]).then(STARTED).then_state(summary))


def test_data_and_timestamps_can_be_given_and_expected() -> None:
    """A `HistoryEvent` on either side; one without anything beside it equals the bare event."""
    at_noon = es.HistoryEvent[es.Event](STARTED, timestamp=NOON)
    asked = SUMMARY.given(at_noon)
    assert asked.state.started_at == NOON
    costly = es.HistoryEvent[es.Event](es.MergeQueued(), data={"cost": 1})
    asked.when(lambda _: [costly]).then(costly)
    asked.when(lambda _: [es.HistoryEvent(es.MergeQueued())]).then(es.MergeQueued())
    with pytest.raises(AssertionError):
        asked.when(lambda _: [costly]).then(es.MergeQueued())


def test_what_differs_is_named() -> None:
    """The message shows both lists, and where they differ."""
    with pytest.raises(AssertionError) as raised:
        REGISTRY.given(STARTED).when(begin).then(es.LoopResumed(from_iteration=2))
    assert str(raised.value).splitlines() == [
        "decided:",
        "  LoopResumed(from_iteration=1)",
        "expected:",
        "  LoopResumed(from_iteration=2)",
        "difference (expected -> found):",
        "  [0].from_iteration: 2 -> 1",
    ]
    with pytest.raises(AssertionError, match=r"\.prompt: None -> 'auth'"):
        SUMMARY.given(STARTED).when(lambda _: []).then_state(pj.Summary())
    with pytest.raises(AssertionError, match=r"\[0\]: nothing -> LoopStarted"):
        REGISTRY.given().when(begin).then_nothing()


def test_an_error_that_does_not_come_or_says_something_else_is_a_failure() -> None:
    """And one that nobody expected passes through."""
    discarded = REGISTRY.given(es.LoopDiscarded(reason="old")).when(begin)
    with pytest.raises(AssertionError, match="LookupError was not raised; decided"):
        REGISTRY.given().when(begin).then_raises(LookupError)
    with pytest.raises(AssertionError, match=r"does not match 'is merged'"):
        discarded.then_raises(PermissionError, match="is merged")
    with pytest.raises(PermissionError):
        discarded.then_nothing()
    with pytest.raises(PermissionError):
        discarded.then_raises(LookupError)


def test_a_decision_that_depends_on_more_than_the_state_is_found() -> None:
    """`transact` may ask again after a conflict, so two answers to one state are a mistake."""
    asked: list[int] = []

    def count(_: object) -> list[es.Event]:
        asked.append(1)
        return [es.IterationStarted(iteration=len(asked))]

    with pytest.raises(AssertionError, match="not pure"):
        REGISTRY.given().when(count).then(es.IterationStarted(iteration=1))


def test_the_types_follow_the_projection() -> None:
    """Both type checkers know the state that `decide` gets."""
    assert_type(Scenario(pj.LAST_ITERATION).given().state, int | None)
    assert_type(REGISTRY.given(STARTED), Given[pj.LoopEntry, es.Event])
    assert_type(REGISTRY.given().when(begin), When[pj.LoopEntry, es.Event])
