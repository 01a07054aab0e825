"""What the folds over one loop's history answer: completion, prompt, summary, timeline."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import eventstore as es
import projections as pj

START = datetime(2026, 11, 21, tzinfo=UTC)


def record(*events: es.Event, stream: str = "otter") -> list[es.Recorded[es.Event]]:
    """Give events a place in a log, one second apart."""
    return [
        es.Recorded(event, START + timedelta(seconds=number), number, number, stream)
        for number, event in enumerate(events, start=1)
    ]


def completion(*events: es.Event) -> pj.Completion:
    """Fold COMPLETION."""
    return pj.COMPLETION.fold(pj.COMPLETION.initial, record(*events))


def summary(*events: es.Event) -> pj.Summary:
    """Fold SUMMARY."""
    return pj.SUMMARY.fold(pj.SUMMARY.initial, record(*events))


def timeline(*events: es.Event) -> pj.Timeline:
    """Fold TIMELINE."""
    return pj.TIMELINE.fold(pj.TIMELINE.initial, record(*events))


STARTED = es.LoopStarted(prompt="implement auth")
DONE = es.LoopCompleted(reason="completion_promise")


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("completion_promise", "succeeded"),
        ("max_iterations", "limit"),
        ("max_runtime", "limit"),
        ("max_cost", "limit"),
        ("consecutive_failures", "failed"),
        ("loop_thrashing", "failed"),
        ("loop_stale", "failed"),
        ("validation_failure", "failed"),
        ("workspace_gone", "failed"),
        ("stopped", "cancelled"),
        ("restart_requested", "cancelled"),
        ("cancelled", "cancelled"),
        ("a reason nobody has heard of", "failed"),
    ],
)
def test_each_reason_means_one_outcome(reason: str, outcome: pj.Outcome) -> None:
    """Only `completion_promise` succeeds, and an unknown reason has failed."""
    assert pj.outcome_of(reason) == outcome
    assert completion(STARTED, es.LoopCompleted(reason=reason)) == pj.Completion(
        is_completed=True, outcome=outcome
    )


def test_a_loop_that_was_never_started_has_no_outcome() -> None:
    """Events that neither start nor end a run leave `outcome` None."""
    assert completion(es.MergeQueued(), es.IterationStarted(iteration=1)) == pj.Completion(
        is_completed=False, outcome=None
    )


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (es.LoopTerminated(signal="SIGTERM"), "terminated"),
        (es.LoopDiscarded(reason="superseded"), "discarded"),
    ],
)
def test_a_terminated_or_discarded_loop_is_not_completed(
    end: es.Event, outcome: pj.Outcome
) -> None:
    """The newest end decides, also after a completion."""
    assert completion(STARTED, DONE, end) == pj.Completion(is_completed=False, outcome=outcome)


@pytest.mark.parametrize("again", [STARTED, es.LoopResumed(from_iteration=3)])
def test_a_new_start_runs_again_but_stays_completed_as_in_the_original(again: es.Event) -> None:
    """`outcome` follows the newest run, `is_completed` only its ends."""
    assert completion(STARTED, DONE, again, es.IterationStarted(iteration=3)) == pj.Completion(
        is_completed=True, outcome="running"
    )


def test_a_merge_does_not_change_how_the_loop_ended() -> None:
    """Merging events decide nothing about completion."""
    merging = (es.MergeQueued(), es.MergeStarted(pid=1), es.MergeFailed(reason="conflict"))
    assert completion(STARTED, DONE, *merging).outcome == "succeeded"


def test_the_last_iteration_is_the_newest_completed_one_not_the_highest() -> None:
    """A lower number that completed later wins, and a started one does not count."""
    events = record(
        es.IterationCompleted(iteration=7, success=True),
        es.IterationCompleted(iteration=2, success=False),
        es.IterationStarted(iteration=9),
    )
    assert pj.LAST_ITERATION.fold(None, events) == 2
    assert pj.LAST_ITERATION.fold(None, record(STARTED)) is None


def test_iteration_zero_is_an_answer() -> None:
    """The number 0 is not mistaken for no iteration."""
    events = record(
        es.IterationCompleted(iteration=5, success=True),
        es.IterationCompleted(iteration=0, success=True),
    )
    assert pj.LAST_ITERATION.fold(None, events) == 0


def test_the_prompt_is_that_of_the_first_start() -> None:
    """Later starts do not change it, an empty first prompt included."""
    second = es.LoopStarted(prompt="second")
    assert pj.PROMPT.fold(None, record(es.MergeQueued(), STARTED, second)) == "implement auth"
    assert pj.PROMPT.fold(None, record(es.LoopStarted(prompt=""), second)) == ""
    assert pj.PROMPT.fold(None, record(es.MergeQueued())) is None


def endless(head: list[es.Recorded[es.Event]]) -> Iterator[list[es.Recorded[es.Event]]]:
    """Give one page; to ask for another is a failure."""
    yield head
    pytest.fail("the fold read on")


def test_the_last_iteration_reads_no_further_than_to_the_event_that_decides() -> None:
    """A page older than the newest completed iteration is never asked for."""
    newest = record(es.IterationCompleted(iteration=3, success=True), STARTED)[::-1]
    assert pj.LAST_ITERATION.backwards
    assert pj.LAST_ITERATION.fold_pages(endless(newest)) == 3


def test_completion_reads_no_further_than_to_the_newest_end() -> None:
    """A page older than the newest end of a run is never asked for."""
    newest = record(DONE, STARTED)[::-1]
    assert pj.COMPLETION.backwards
    assert pj.COMPLETION.fold_pages(endless(newest)).outcome == "running"


def test_the_prompt_reads_no_further_than_to_the_first_start() -> None:
    """A page younger than the first start is never asked for."""
    assert not pj.PROMPT.backwards
    assert pj.PROMPT.fold_pages(endless(record(STARTED))) == "implement auth"


def test_the_summary_of_nothing_is_empty() -> None:
    """Thirteen fields: none, false and zero."""
    assert msgspec.structs.asdict(summary()) == {
        "prompt": None,
        "started_at": None,
        "ended_at": None,
        "iterations_completed": 0,
        "iterations_failed": 0,
        "events_published": 0,
        "completed": False,
        "completion_reason": None,
        "terminated": False,
        "termination_signal": None,
        "merge_commit": None,
        "merge_failed": False,
        "merge_failure_reason": None,
    }


def test_the_summary_mixes_runs_as_the_original_does() -> None:
    """Prompt and times are the last ones, ends stay, `iterations_completed` is a number."""
    assert summary(
        STARTED,
        es.IterationCompleted(iteration=4, success=False),
        es.EventPublished(topic="build", payload=""),
        es.LoopTerminated(signal="SIGTERM"),
        es.LoopStarted(prompt="again"),
        es.IterationCompleted(iteration=2, success=False),
        es.LoopCompleted(reason="max_cost"),
        es.EventPublished(topic="late", payload=""),
        es.MergeFailed(reason="conflict"),
        es.MergeCompleted(commit="abc"),
        es.LoopDiscarded(reason="superseded"),
    ) == pj.Summary(
        prompt="again",
        started_at=START + timedelta(seconds=5),
        ended_at=START + timedelta(seconds=7),
        iterations_completed=2,
        iterations_failed=2,
        events_published=2,
        completed=True,
        completion_reason="max_cost",
        terminated=True,
        termination_signal="SIGTERM",
        merge_commit="abc",
        merge_failed=True,
        merge_failure_reason="conflict",
    )


def test_the_timeline_pairs_each_end_with_its_start() -> None:
    """Duration is end minus start; a broken-off attempt stays open, its repetition is another."""
    state = timeline(
        STARTED,
        es.IterationStarted(iteration=1),
        es.EventPublished(topic="t", payload=""),
        es.IterationCompleted(iteration=1, success=True),
        es.IterationStarted(iteration=2),
        es.LoopResumed(from_iteration=2),
        es.IterationStarted(iteration=2),
        es.IterationCompleted(iteration=2, success=False),
    )
    assert [
        (span.run, span.iteration, span.duration_seconds, span.success) for span in state.iterations
    ] == [(1, 1, 2.0, True), (1, 2, None, None), (1, 2, 1.0, False)]


def test_the_timeline_shows_an_end_without_its_start() -> None:
    """An end whose start is missing, or belongs to another run or number, has no duration."""
    state = timeline(
        es.IterationCompleted(iteration=1, success=True),
        STARTED,
        es.IterationStarted(iteration=2),
        es.IterationCompleted(iteration=3, success=True),
        es.IterationStarted(iteration=4),
        STARTED,
        es.IterationCompleted(iteration=4, success=True),
        es.IterationStarted(iteration=5),
        es.IterationCompleted(iteration=5, success=True),
        es.IterationCompleted(iteration=5, success=True),
    )
    assert [(span.run, span.iteration, span.started_at is None) for span in state.iterations] == [
        (0, 1, True),
        (1, 2, False),
        (1, 3, True),
        (1, 4, False),
        (2, 4, True),
        (2, 5, False),
        (2, 5, True),
    ]


def test_a_clock_that_went_back_gives_a_negative_duration() -> None:
    """The timeline shows the timestamps as they are."""
    begun, ended = record(
        es.IterationStarted(iteration=1), es.IterationCompleted(iteration=1, success=True)
    )
    ended = msgspec.structs.replace(ended, timestamp=begun.timestamp - timedelta(seconds=3))
    (span,) = pj.TIMELINE.fold(pj.TIMELINE.initial, [begun, ended]).iterations
    assert span.duration_seconds == -3.0


def test_the_timeline_keeps_the_last_thousand_attempts_and_counts_the_others() -> None:
    """It is bounded, and what was dropped does not depend on where the fold was cut."""
    events = record(
        *(
            event
            for iteration in range(1, 1301)
            for event in (
                es.IterationStarted(iteration=iteration),
                es.IterationCompleted(iteration=iteration, success=True),
            )
        )
    )
    whole = pj.TIMELINE.fold(pj.TIMELINE.initial, events)
    assert (len(whole.iterations), whole.dropped) == (1000, 300)
    assert whole.iterations[0].iteration == 301
    for cut in (1, 1999, 2000, 2001, 2599):
        head = pj.TIMELINE.fold(pj.TIMELINE.initial, events[:cut])
        assert pj.TIMELINE.fold(head, events[cut:]) == whole
    stepwise = pj.TIMELINE.initial
    for event in events:
        stepwise = pj.TIMELINE.evolve(stepwise, event)
    assert stepwise == whole
