"""The resume plan: where a loop was interrupted, read from the end of its stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventstore as es
import projections as pj
from eventstore._log._files import DiskFiles
from projections._resume import _read_tail
from tests._files import RecordingFiles
from tests.contract._backends import NAMES, DiskBackend

LOOP = "bright-otter"
FOREIGN = Path(__file__).parent / "fixtures" / "foreign.jsonl"
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture(params=["memory", "disk", "disk-tiny-segments"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[es.EventStore[es.AgentEvent]]:
    """Open an empty store."""
    if request.param == "memory":
        async with es.memory_store(types=es.AGENT_EVENTS) as opened:
            yield opened
    else:
        size = 2_000 if request.param == "disk-tiny-segments" else 2**20
        async with es.open_store(
            tmp_path / "history.jsonl", types=es.AGENT_EVENTS, segment_bytes_max=size
        ) as opened:
            yield opened


async def append(
    store: es.EventStore[es.AgentEvent], *events: es.AgentEvent, run_id: str | None = None
) -> None:
    """Append to the loop, and something to another."""
    meta = None if run_id is None else {pj.RUN_ID: run_id}
    await store.append(LOOP, events, expected_version=es.ANY, meta=meta)
    await store.append("calm-heron", [es.LoopStarted(prompt="no")], expected_version=es.ANY)


def iteration(number: int) -> tuple[es.AgentEvent, es.AgentEvent]:
    """One whole iteration."""
    return (
        es.IterationStarted(iteration=number),
        es.IterationCompleted(iteration=number, success=True),
    )


@pytest.mark.anyio
async def test_a_loop_killed_in_an_iteration_continues_at_it(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """The open iteration is the one to do again, as its next attempt; what it did is told."""
    await append(store, es.LoopStarted(prompt="implement auth"), *iteration(5), *iteration(6))
    await append(store, es.EventPublished(topic="old", payload="x"))
    await append(store, *iteration(6)[1:])
    await append(store, es.IterationStarted(iteration=7), run_id="run-1")
    await append(store, es.EventPublished(topic="build.done", payload="x"))
    await append(store, es.LoopResumed(from_iteration=7), es.IterationStarted(iteration=7))
    await append(store, es.EventPublished(topic="build.failed", payload="x"))
    plan = await pj.resume_plan(store, LOOP)
    assert (plan.loop, plan.state, plan.outcome) == (LOOP, "running", "running")
    assert (plan.last_iteration, plan.open_iteration) == (6, 7)
    assert (plan.resume_from, plan.attempt) == (7, 3)
    assert [published.topic for published in plan.published] == ["build.done", "build.failed"]
    assert plan.published_count == 2
    assert (plan.prompt, plan.run_id) == ("implement auth", "run-1")
    newest = [r async for r in store.read(LOOP)][-1]
    assert (plan.version, plan.position) == (newest.version, newest.position)
    assert plan.last_event_at == newest.timestamp


@pytest.mark.anyio
async def test_a_loop_killed_between_iterations_continues_with_the_next(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """It never began: the first attempt."""
    await append(store, es.LoopStarted(prompt="p"), *iteration(1), *iteration(2))
    plan = await pj.resume_plan(store, LOOP)
    assert (plan.last_iteration, plan.open_iteration) == (2, None)
    assert (plan.resume_from, plan.attempt, plan.run_id) == (3, 1, None)


@pytest.mark.anyio
async def test_a_stream_that_does_not_exist_has_an_empty_plan(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Nothing was asked, nothing is open, and the first iteration is to come."""
    plan = await pj.resume_plan(store, "nobody")
    assert (plan.state, plan.outcome, plan.prompt) == ("absent", None, None)
    assert (plan.resume_from, plan.attempt, plan.version, plan.last_event_at) == (1, 1, 0, None)


@pytest.mark.anyio
async def test_only_the_newest_topics_are_told_and_all_are_counted(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """A plan is bounded, whatever an agent publishes."""
    events = [es.EventPublished(topic=str(number), payload="") for number in range(150)]
    await append(store, es.LoopStarted(prompt="p"), es.IterationStarted(iteration=1), *events)
    plan = await pj.resume_plan(store, LOOP)
    assert plan.published_count == 150
    assert [published.topic for published in plan.published] == [str(n) for n in range(50, 150)]


@pytest.mark.anyio
async def test_tool_calls_of_unknown_outcome_are_in_the_plan(
    store: es.EventStore[es.AgentEvent],
) -> None:
    """Those without an outcome, each by its newest attempt, as the projection tells them."""
    await append(store, es.LoopStarted(prompt="p"), es.IterationStarted(iteration=1))

    async def cancelled() -> None:
        scope.cancel()
        await anyio.sleep_forever()

    async def ok() -> str:
        return "ok"

    ledger = pj.Ledger(store, LOOP)
    for name, retry in (("a", False), ("b", False), ("a", True), ("c", False)):
        with anyio.CancelScope() as scope:
            await ledger.run_tool(name, {}, cancelled, retry=retry)
    await ledger.run_tool("d", {}, ok)
    await ledger.run_tool("c", {}, ok, retry=True)
    plan = await pj.resume_plan(store, LOOP)
    assert [(tool.name, tool.attempt) for tool in plan.open_tools] == [("b", 1), ("a", 2)]
    assert plan.open_tools == (await pj.load(store, pj.OPEN_TOOLS, LOOP)).state.calls


@pytest.mark.anyio
async def test_the_prompt_is_the_first_one_asked(store: es.EventStore[es.AgentEvent]) -> None:
    """As `PROMPT` says it, whichever start lies near the end."""
    await append(store, es.LoopStarted(prompt="first"), *iteration(1))
    await append(store, es.LoopStarted(prompt="second"), *iteration(1))
    for _ in range(2):
        assert (await pj.resume_plan(store, LOOP)).prompt == "first"
        await append(store, es.LoopStarted(prompt="third"))


@pytest.mark.anyio
async def test_a_history_that_only_the_original_wrote_has_a_plan(tmp_path: Path) -> None:
    """Its loop is `main`; numbers that would cost reading all of it are left at 0."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(FOREIGN.read_bytes())
    async with es.open_store(path, read_only=True) as reader:
        plan = await pj.resume_plan(reader, es.MAIN_STREAM)
        entry = (await pj.load(reader, pj.REGISTRY, es.MAIN_STREAM)).state
        prompt = (await pj.load(reader, pj.PROMPT, es.MAIN_STREAM)).state
    assert (plan.state, plan.outcome, plan.resume_from) == (
        entry.state,
        entry.outcome,
        pj.resume_from(entry),
    )
    assert plan.prompt == prompt is not None
    assert (plan.version, plan.position) == (0, 0)


@pytest.mark.anyio
async def test_the_plan_reads_the_end_and_the_beginning_of_a_large_log(tmp_path: Path) -> None:
    """40 MiB of earlier iterations are not read."""
    files = RecordingFiles(DiskFiles(str(tmp_path)))
    backend = DiskBackend(files, tmp_path, segment_bytes_max=2**30)
    async with backend.open() as store:
        await store.append(LOOP, [es.LoopStarted(prompt="p")], expected_version=es.NO_STREAM)
        for number in range(1, 41):
            payload = es.EventPublished(topic="t", payload="x" * 1_000_000)
            events = (es.IterationStarted(iteration=number), payload)
            done = es.IterationCompleted(iteration=number, success=True)
            await store.append(LOOP, [*events, done], expected_version=es.ANY)
        await store.append(LOOP, [es.IterationStarted(iteration=41)], expected_version=es.ANY)
    async with backend.open_over(files) as store:
        files.calls.clear()
        plan = await pj.resume_plan(store, LOOP)
    assert (plan.resume_from, plan.attempt, plan.prompt) == (41, 2, "p")
    assert files.count("pread", NAMES.active) <= 8


# --- the registry's rules ---

_texts = st.sampled_from(["completion_promise", "max_iterations", "stopped"])
_iterations = st.integers(1, 3)
_events = st.one_of(
    st.builds(es.LoopStarted, prompt=_texts),
    st.builds(es.IterationStarted, iteration=_iterations),
    st.builds(es.IterationCompleted, iteration=_iterations, success=st.booleans()),
    st.builds(es.EventPublished, topic=_texts, payload=_texts),
    st.builds(es.LoopCompleted, reason=_texts),
    st.builds(es.LoopResumed, from_iteration=_iterations),
    st.builds(es.LoopTerminated, signal=_texts),
    st.builds(es.MergeQueued),
    st.builds(es.MergeStarted, pid=_iterations),
    st.builds(es.MergeFailed, reason=_texts),
    st.builds(es.LoopDiscarded, reason=_texts),
    st.builds(es.Unknown, name=_texts, fields=st.just(dict[str, Any]())),
)


def _legal(events: Sequence[es.Event]) -> list[es.Recorded[es.Event]]:
    """Those events that the registry takes without a word, in a stream; gaps are allowed."""
    entry = pj.LoopEntry()
    kept: list[es.Recorded[es.Event]] = []
    for event in events:
        version = len(kept) + 1
        recorded = es.Recorded[es.Event](event, NOW, version, 2 * version, LOOP)
        after = pj.REGISTRY.evolve(entry, recorded)
        if after.anomaly_count == entry.anomaly_count or after.anomalies[-1].what == "gap":
            kept.append(recorded)
            entry = after
    return kept


@given(events=st.lists(_events, max_size=40), page=st.integers(1, 5))
def test_the_plan_of_a_legal_history_is_what_the_registry_says(
    events: list[es.Event], page: int
) -> None:
    """The end of a stream tells the same state, outcome and iterations as all of it."""
    history = _legal([es.LoopStarted(prompt="p"), *events])
    entry = pj.REGISTRY.fold(pj.LoopEntry(), history)
    newest_first = history[::-1]
    pages = [newest_first[at : at + page] for at in range(0, len(history), page)]
    tail = _read_tail(iter(pages))
    told = pj.REGISTRY.fold(tail.before, tail.marks)
    for name in ("state", "outcome", "last_iteration", "open_iteration"):
        assert getattr(told, name) == getattr(entry, name), name
    assert pj.resume_from(told) == pj.resume_from(entry)


def test_an_iterations_end_behind_the_loops_end_does_not_count() -> None:
    """The registry ignores it, and so does the plan: one more mark is read to see that."""
    started = [es.LoopStarted(prompt="p"), *iteration(1), es.IterationStarted(iteration=2)]
    events = [*started, es.LoopCompleted(reason="x"), *iteration(2)[1:]]
    history = [es.Recorded[es.Event](e, NOW, n, n, LOOP) for n, e in enumerate(events, 1)]
    tail = _read_tail(iter([history[::-1]]))
    entry = pj.REGISTRY.fold(tail.before, tail.marks)
    assert (entry.state, entry.open_iteration, entry.last_iteration) == ("completed", 2, 1)
