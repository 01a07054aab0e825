"""The registry's state machine, cell by cell, and what it keeps of each loop."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest

import eventstore as es
import projections as pj

START = datetime(2026, 11, 21, tzinfo=UTC)

# SEED.md d.4, word for word. `=` no change; `!` illegal; with the footnote 4: late.
TABLE: Final = """
| event \\ state | absent | running | completed | terminated | queued | merging | needs-review | merged | discarded |
|---|---|---|---|---|---|---|---|---|---|
| loop_started | running | running, run+1 (predecessor crashed)¹ | running, run+1 | running, run+1 | ! | ! | ! | running, run+1² | running, run+1² |
| loop_resumed n | ! | running (after a crash)¹ | running | running | ! | ! | running | ! | ! |
| iteration_started n | ! | = ³ | ! | ! | ! | ! | ! | ! | ! |
| event_published | ! | = | =⁴ | =⁴ | =⁴ | =⁴ | =⁴ | =⁴ | =⁴ |
| iteration_completed n | ! | = ³ | ! | ! | ! | ! | ! | ! | ! |
| loop_completed | ! | completed | ! | ! | ! | ! | ! | ! | ! |
| loop_terminated | ! | terminated | =⁴ | = | ! | ! | ! | ! | ! |
| merge_queued | queued⁵ | ! | queued | queued⁵ | = (refresh) | ! | queued | ! | ! |
| merge_started pid | ! | ! | ! | ! | merging | !, unless stalled or forced | merging | ! | ! |
| merge_completed | ! | ! | ! | ! | ! | merged | ! | = if same commit, else ! | ! |
| merge_failed | ! | ! | ! | ! | ! | needs-review | = | ! | ! |
| loop_discarded | discarded⁵ | !, unless crashed | discarded | discarded | discarded | !, unless stalled | discarded | ! | = |
"""  # noqa: E501 - the rows of a table stay whole

STARTED: Final = es.LoopStarted(prompt="implement auth")
DONE: Final = es.LoopCompleted(reason="completion_promise")

EVENTS: Final[dict[str, es.Event]] = {
    "loop_started": es.LoopStarted(prompt="again"),
    "loop_resumed": es.LoopResumed(from_iteration=1),
    "iteration_started": es.IterationStarted(iteration=1),
    "event_published": es.EventPublished(topic="t", payload="p"),
    "iteration_completed": es.IterationCompleted(iteration=1, success=True),
    "loop_completed": DONE,
    "loop_terminated": es.LoopTerminated(signal="SIGTERM"),
    "merge_queued": es.MergeQueued(),
    "merge_started": es.MergeStarted(pid=7),
    "merge_completed": es.MergeCompleted(commit="abc"),
    "merge_failed": es.MergeFailed(reason="conflict"),
    "loop_discarded": es.LoopDiscarded(reason="superseded"),
}

QUEUED: Final = (STARTED, DONE, es.MergeQueued())
MERGING: Final = (*QUEUED, es.MergeStarted(pid=7))
WAY_TO: Final[dict[str, tuple[es.Event, ...]]] = {
    "absent": (),
    "running": (STARTED,),
    "completed": (STARTED, DONE),
    "terminated": (STARTED, es.LoopTerminated(signal="SIGTERM")),
    "queued": QUEUED,
    "merging": MERGING,
    "needs-review": (*MERGING, es.MergeFailed(reason="conflict")),
    "merged": (*MERGING, es.MergeCompleted(commit="abc")),
    "discarded": (STARTED, DONE, es.LoopDiscarded(reason="superseded")),
}


def cells() -> list[tuple[str, str, str]]:
    """Every (kind, state, cell) of the table."""
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in TABLE.split("\n") if line]
    states = rows[0][1:]
    return [
        (row[0].split()[0], state, cell)
        for row in rows[2:]
        for state, cell in zip(states, row[1:], strict=True)
    ]


def record(*events: es.Event) -> list[es.Recorded[es.Event]]:
    """Give events a place in a log, one second apart."""
    return [
        es.Recorded(event, START + timedelta(seconds=number), number, number + 10, "otter")
        for number, event in enumerate(events, start=1)
    ]


def entry_after(*events: es.Event) -> pj.LoopEntry:
    """Fold a whole stream."""
    return pj.REGISTRY.fold(pj.REGISTRY.initial, record(*events))


def without_anomalies(entry: pj.LoopEntry) -> pj.LoopEntry:
    """Leave out what was noted."""
    return msgspec.structs.replace(entry, anomalies=(), anomaly_count=0)


def step(entry: pj.LoopEntry, event: es.Event) -> pj.LoopEntry:
    """Take one step both ways: they must agree."""
    (recorded,) = record(event)
    after = pj.REGISTRY.evolve(entry, recorded)
    assert pj.REGISTRY.fold(entry, [recorded]) == after
    return after


def test_the_table_has_every_cell() -> None:
    """Twelve kinds by nine states, and each state can be reached without an anomaly."""
    assert len(cells()) == 12 * 9
    assert {kind for kind, _, _ in cells()} == set(es.LOOP_EVENTS.by_kind)
    for state, way in WAY_TO.items():
        entry = entry_after(*way)
        assert (entry.state, entry.anomalies) == (state, ())


@pytest.mark.parametrize(("kind", "state", "cell"), cells())
def test_every_cell_of_the_table_is_kept(kind: str, state: str, cell: str) -> None:
    """Each event leads from each state where the table says, and is noted as the table says."""
    before = entry_after(*WAY_TO[state])
    if kind == "iteration_completed" and state == "running":
        before = step(before, es.IterationStarted(iteration=1))
    after = step(before, EVENTS[kind])
    noted = [anomaly.what for anomaly in after.anomalies]
    if cell.startswith("!"):
        assert noted == ["illegal"]
        assert without_anomalies(after) == before
    elif "⁴" in cell:
        assert noted == ["late"]
        assert without_anomalies(after) == before
    else:
        named = re.match(r"[a-z-]+", cell)
        assert after.state == (state if named is None else named.group())
        assert noted == []
        assert after.run == before.run + (kind == "loop_started")


@pytest.mark.parametrize("state", WAY_TO)
def test_unknown_events_change_nothing_in_any_state(state: str) -> None:
    """A kind nobody registered is neither a step nor an anomaly."""
    before = entry_after(*WAY_TO[state])
    assert step(before, es.Unknown(name="tool_called", fields={"iteration": 1})) is before


def test_another_commit_for_a_merged_loop_is_illegal() -> None:
    """A merged loop stays at the commit it has."""
    after = step(entry_after(*WAY_TO["merged"]), es.MergeCompleted(commit="def"))
    assert (after.commit, [anomaly.what for anomaly in after.anomalies]) == ("abc", ["illegal"])


def test_a_loop_is_described_by_its_newest_run() -> None:
    """A start begins at nothing again, except for the number of the run and the anomalies."""
    first = entry_after(
        STARTED,
        es.IterationStarted(iteration=1),
        es.EventPublished(topic="t", payload="p"),
        es.IterationCompleted(iteration=1, success=False),
        es.IterationStarted(iteration=2),
        es.MergeStarted(pid=7),
    )
    assert without_anomalies(first) == pj.LoopEntry(
        state="running",
        run=1,
        prompt="implement auth",
        started_at=START + timedelta(seconds=1),
        outcome="running",
        open_iteration=2,
        last_iteration=1,
        iterations=1,
        iterations_failed=1,
        events_published=1,
    )
    second = step(first, es.LoopStarted(prompt="again"))
    assert second == pj.LoopEntry(
        state="running",
        run=2,
        prompt="again",
        started_at=START + timedelta(seconds=1),
        outcome="running",
        anomalies=first.anomalies,
        anomaly_count=1,
    )


def test_success_is_the_completion_promise_alone() -> None:
    """Any other end is no success, and before the end nothing is said."""
    running = entry_after(STARTED)
    assert (running.success, running.ended_at, running.outcome) == (None, None, "running")
    done = step(running, DONE)
    assert (done.success, done.outcome, done.ended_at is None) == (True, "succeeded", False)
    limit = step(running, es.LoopCompleted(reason="max_cost"))
    assert (limit.success, limit.outcome) == (False, "limit")
    killed = step(running, es.LoopTerminated(signal="SIGTERM"))
    assert (killed.success, killed.outcome) == (False, "terminated")
    resumed = step(limit, es.LoopResumed(from_iteration=1))
    assert (resumed.success, resumed.ended_at, resumed.outcome) == (None, None, "running")


@pytest.mark.parametrize(
    "retry", [es.MergeQueued(), es.MergeStarted(pid=8), es.LoopResumed(from_iteration=1)]
)
def test_a_retry_clears_the_failure(retry: es.Event) -> None:
    """`failure_reason` is that of a merge waiting for review, not of one tried again."""
    failed = entry_after(*WAY_TO["needs-review"])
    assert failed.failure_reason == "conflict"
    assert step(failed, es.MergeFailed(reason="tests")).failure_reason == "tests"
    assert step(failed, retry).failure_reason is None


def test_merging_keeps_who_and_what() -> None:
    """The merger's pid, the commit, and when it was last queued."""
    queued = entry_after(*QUEUED)
    assert queued.queued_at == START + timedelta(seconds=3)
    refreshed = pj.REGISTRY.evolve(queued, record(*QUEUED, es.MergeQueued())[-1])
    assert refreshed.queued_at == START + timedelta(seconds=4)
    merged = entry_after(*WAY_TO["merged"])
    assert (merged.merge_pid, merged.commit, merged.success) == (7, "abc", True)
    discarded = entry_after(*WAY_TO["discarded"])
    assert (discarded.discard_reason, discarded.outcome) == ("superseded", "discarded")


def test_a_late_event_is_not_counted() -> None:
    """What is published after the end is noted, and the run's count stays."""
    after = entry_after(STARTED, DONE, EVENTS["event_published"])
    assert after.events_published == 0
    assert str(after.anomalies[0]) == (
        "position 13, version 3: event_published while completed: late, changes nothing"
    )


def numbers(*events: es.Event) -> list[tuple[str, int | None, int | None]]:
    """List the anomalies of a started loop."""
    entry = entry_after(STARTED, *events)
    return [(anomaly.what, anomaly.iteration, anomaly.expected) for anomaly in entry.anomalies]


def start(iteration: int) -> es.Event:
    """Begin an iteration."""
    return es.IterationStarted(iteration=iteration)


def end(iteration: int) -> es.Event:
    """End an iteration."""
    return es.IterationCompleted(iteration=iteration, success=True)


def test_iterations_in_order_leave_no_gap() -> None:
    """They begin at 1, each is closed before the next, and the next is one more."""
    assert numbers(start(1), end(1), start(2), end(2), start(3)) == []


def test_an_iteration_out_of_order_is_applied_and_noted() -> None:
    """A skipped, repeated or unclosed iteration is a gap, and the entry follows the log."""
    assert numbers(start(2)) == [("gap", 2, 1)]
    assert numbers(start(1), end(1), start(3), end(3), start(4)) == [("gap", 3, 2)]
    assert numbers(start(1), end(1), start(1)) == [("gap", 1, 2)]
    assert numbers(start(1), start(1)) == [("gap", 1, 1)]
    assert numbers(start(1), end(2)) == [("gap", 2, 1)]
    assert numbers(end(1)) == [("gap", 1, None)]
    entry = entry_after(STARTED, start(1), end(4))
    assert (entry.open_iteration, entry.last_iteration, entry.iterations) == (None, 4, 1)
    assert str(entry.anomalies[0]) == (
        "position 13, version 3: iteration_completed 4, expected iteration 1: applied"
    )
    assert str(entry_after(STARTED, end(1)).anomalies[0]).endswith(
        "expected no open iteration: applied"
    )


def test_after_a_resume_an_iteration_may_be_repeated_once() -> None:
    """The open one, the last one, the one the resume names, or the next; then order holds again."""
    crashed = (start(1), end(1), start(2))
    resumed = es.LoopResumed(from_iteration=2)
    assert numbers(*crashed, resumed, start(2), end(2), start(3)) == []
    assert numbers(start(1), end(1), es.LoopResumed(from_iteration=1), start(1), end(1)) == []
    assert numbers(start(1), end(1), es.LoopResumed(from_iteration=1), start(2), end(2)) == []
    assert numbers(start(1), end(1), start(2), es.LoopResumed(from_iteration=0), start(0)) == []
    assert numbers(start(1), end(1), es.LoopResumed(from_iteration=2), start(1)) == []
    assert numbers(*crashed, resumed, start(5)) == [("gap", 5, 2)]
    assert numbers(*crashed, resumed, start(2), start(2)) == [("gap", 2, 2)]
    assert numbers(*crashed, resumed, end(2), start(2)) == [("gap", 2, 3)]


def test_a_loop_goes_on_with_its_open_iteration_else_with_the_next() -> None:
    """Also after a second crash, between the resume and the iteration."""
    assert pj.resume_from(pj.LoopEntry()) == 1
    assert pj.resume_from(entry_after(STARTED)) == 1
    assert pj.resume_from(entry_after(STARTED, start(1))) == 1
    assert pj.resume_from(entry_after(STARTED, start(1), end(1))) == 2
    assert pj.resume_from(entry_after(STARTED, start(1), end(1), start(2))) == 2
    assert pj.resume_from(entry_after(STARTED, start(1), end(1), start(9))) == 9
    killed = (STARTED, start(1), end(1), start(2), es.LoopTerminated(signal="SIGTERM"))
    assert pj.resume_from(entry_after(*killed)) == 2
    assert pj.resume_from(entry_after(*killed, es.LoopResumed(from_iteration=2))) == 2


def test_the_newest_hundred_anomalies_are_kept_and_all_are_counted() -> None:
    """An entry stays small whatever the log holds."""
    events = record(STARTED, *[es.MergeFailed(reason="conflict")] * 250)
    whole = pj.REGISTRY.fold(pj.REGISTRY.initial, events)
    assert (len(whole.anomalies), whole.anomaly_count) == (100, 250)
    assert [anomaly.version for anomaly in whole.anomalies] == list(range(152, 252))
    head = pj.REGISTRY.fold(pj.REGISTRY.initial, events[:120])
    assert pj.REGISTRY.fold(head, events[120:]) == whole


def test_legal_merge_steps_end_where_the_originals_queue_ends() -> None:
    """The queue's state is its last event; ours is the same name after every legal step."""
    queue_states = {
        "merge_queued": "queued",
        "merge_started": "merging",
        "merge_completed": "merged",
        "merge_failed": "needs-review",
        "loop_discarded": "discarded",
    }
    reached: set[str] = set()
    unseen = [pj.LoopEntry()]
    while unseen:
        entry = unseen.pop()
        reached.add(entry.state)
        for kind, queue_state in queue_states.items():
            after = step(entry, EVENTS[kind])
            if not after.anomalies:
                assert after.state == queue_state
                if after.state not in reached:
                    unseen.append(after)
    assert reached == {"absent", *queue_states.values()}
