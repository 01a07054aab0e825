"""The original's LoopHistory, async, on the original's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore as es
import projections as pj

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "history"

STARTED = es.LoopStarted(prompt="implement auth")
DONE = es.LoopCompleted(reason="completion_promise")


@pytest.fixture
async def store() -> AsyncIterator[es.EventStore[es.LoopEvent]]:
    """Open an empty store."""
    async with es.memory_store() as store:
        yield store


async def test_an_empty_history_answers_with_nothing(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """No events, no iteration, no prompt, not completed, an empty summary."""
    history = pj.LoopHistory(store)
    assert await history.read_all() == []
    assert await history.last_iteration() is None
    assert await history.is_completed() is False
    assert await history.get_prompt() is None
    assert await history.summary() == pj.Summary()


async def test_each_record_method_records_its_event(store: es.EventStore[es.LoopEvent]) -> None:
    """Twelve methods, twelve kinds, in the stream `main`; each returns the event's place."""
    history = pj.LoopHistory(store)
    await history.record_started("implement auth")
    await history.record_iteration_started(1)
    await history.record_event_published("build.done", "ok")
    await history.record_iteration_completed(1, success=True)
    await history.record_completed("max_cost")
    await history.record_resumed(2)
    await history.record_terminated("SIGTERM")
    await history.record_merge_queued()
    await history.record_merge_started(7)
    await history.record_merge_completed("abc")
    await history.record_merge_failed("conflict")
    done = await history.record_discarded("superseded")
    assert (done.version, done.position) == (12, 12)
    recorded = await history.read_all()
    assert {event.stream for event in recorded} == {"main"}
    assert [event.event for event in recorded] == [
        STARTED,
        es.IterationStarted(iteration=1),
        es.EventPublished(topic="build.done", payload="ok"),
        es.IterationCompleted(iteration=1, success=True),
        es.LoopCompleted(reason="max_cost"),
        es.LoopResumed(from_iteration=2),
        es.LoopTerminated(signal="SIGTERM"),
        es.MergeQueued(),
        es.MergeStarted(pid=7),
        es.MergeCompleted(commit="abc"),
        es.MergeFailed(reason="conflict"),
        es.LoopDiscarded(reason="superseded"),
    ]


async def test_a_history_is_about_all_streams_of_the_file(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """The original knows no streams: the last event of any decides."""
    history = pj.LoopHistory(store)
    await history.record_started("implement auth")
    await history.record_iteration_completed(1, success=True)
    await store.append(
        "heron", [es.IterationCompleted(iteration=5, success=False)], expected_version=es.ANY
    )
    await store.append("otter", [DONE], expected_version=es.ANY)
    assert await history.last_iteration() == 5
    assert await history.is_completed() is True
    assert await history.get_prompt() == "implement auth"
    assert (await history.summary()).iterations_failed == 1
    assert len(await history.read_all()) == 4


async def test_a_history_records_what_stands_beside_an_event(
    store: es.EventStore[es.LoopEvent],
) -> None:
    """`append` takes the original's record: an event with its data."""
    history = pj.LoopHistory(store)
    await history.append(es.HistoryEvent(es.MergeQueued(), data={"by": "me"}))
    assert [recorded.data for recorded in await history.read_all()] == [{"by": "me"}]


async def test_a_history_whose_file_is_absent_reads_as_empty(tmp_path: Path) -> None:
    """Opening creates what is missing, folders included, and then nothing has happened yet."""
    async with pj.open_history(tmp_path / ".ralph" / "history.jsonl") as history:
        assert await history.read_all() == []
        assert await history.summary() == pj.Summary()


async def test_what_was_recorded_is_there_after_opening_again(tmp_path: Path) -> None:
    """The answers come from the file, not from the object that wrote it."""
    path = tmp_path / "history.jsonl"
    async with pj.open_history(path) as history:
        await history.record_started("implement auth")
        await history.record_iteration_completed(4, success=True)
    async with pj.open_history(path) as history:
        assert await history.get_prompt() == "implement auth"
        assert await history.last_iteration() == 4
        assert await history.is_completed() is False


def golden_names() -> list[str]:
    """Name the histories that the original answered about."""
    return sorted(path.name.removesuffix(".read.json") for path in GOLDEN.glob("*.read.json"))


golden = pytest.mark.skipif(not golden_names(), reason=f"the original's files are not at {GOLDEN}")


@golden
@pytest.mark.parametrize("name", golden_names())
async def test_every_answer_equals_the_originals(name: str, tmp_path: Path) -> None:
    """All queries, timestamps to the microsecond; where the original fails, ours reads."""
    path = tmp_path / "history.jsonl"
    shutil.copy(GOLDEN / f"{name}.jsonl", path)
    expected: dict[str, Any] = json.loads((GOLDEN / f"{name}.read.json").read_text())
    async with pj.open_history(path) as history:
        kinds = [recorded.kind for recorded in await history.read_all()]
        summary = msgspec.structs.asdict(await history.summary())
        if "error" in expected:
            assert kinds
            return
        assert kinds == expected["kinds"]
        assert await history.last_iteration() == expected["last_iteration"]
        assert await history.is_completed() == expected["is_completed"]
        assert await history.get_prompt() == expected["prompt"]
    for moment in ("started_at", "ended_at"):
        if expected["summary"][moment] is not None:
            expected["summary"][moment] = datetime.fromisoformat(expected["summary"][moment])
    assert summary == expected["summary"]


@golden
@pytest.mark.parametrize("name", golden_names())
async def test_recording_after_a_torn_tail_loses_nothing(name: str, tmp_path: Path) -> None:
    """What could be read before is still read, and so is what is recorded now."""
    path = tmp_path / "history.jsonl"
    shutil.copy(GOLDEN / f"{name}.jsonl", path)
    async with pj.open_history(path) as history:
        before = [recorded.event for recorded in await history.read_all()]
        await history.record_event_published("after", "")
    async with pj.open_history(path) as history:
        after = [recorded.event for recorded in await history.read_all()]
    assert after == [*before, es.EventPublished(topic="after", payload="")]


async def test_a_history_that_is_only_asked_writes_nothing(tmp_path: Path) -> None:
    """Read-only it answers the same, creates no file, and cannot record."""
    path = tmp_path / "history.jsonl"
    async with pj.open_history(path, read_only=True) as absent:
        assert await absent.last_iteration() is None
    assert not any(tmp_path.iterdir())
    async with pj.open_history(path) as history:
        await history.record_started("fix it")
        await history.record_iteration_completed(3, success=True)
        expected = await history.summary()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    async with pj.open_history(path, read_only=True) as asked:
        assert not isinstance(asked, pj.LoopHistory)
        assert (await asked.last_iteration(), await asked.get_prompt()) == (3, "fix it")
        assert not await asked.is_completed()
        assert await asked.summary() == expected
        assert len(await asked.read_all()) == 2
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert after == before


async def test_asking_a_large_file_of_the_original_reads_its_ends(tmp_path: Path) -> None:
    """Not the middle: a few hundred kB of 10 MB, and no line is counted."""
    path = tmp_path / "history.jsonl"
    stamp = '{"ts":"2026-11-21T00:00:00.123456789Z","type":'
    line = stamp + '{"kind":"iteration_completed","iteration":7,"success":true}}\n'
    path.write_text(
        stamp + '{"kind":"loop_started","prompt":"fix it"}}\n'
        + 100_000 * line
        + stamp + '{"kind":"loop_completed","reason":"completion_promise"}}\n'
    )  # fmt: skip
    middle = path.stat().st_size // 2
    with path.open("r+b") as file:  # nobody looks here, so nobody notices
        file.seek(middle)
        file.write(2**20 * b"\0")
    async with pj.open_history(path, read_only=True) as history:
        assert await history.last_iteration() == 7
        assert await history.is_completed()
        assert await history.get_prompt() == "fix it"
