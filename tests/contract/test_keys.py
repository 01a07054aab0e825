"""Idempotency keys: the same append twice is recorded once."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

import eventstore as es
from tests._files import Call, FaultyFiles, GatedFiles, RecordingFiles
from tests.contract._backends import ACTIVE, Backend

pytestmark = pytest.mark.anyio

ONE = es.IterationStarted(iteration=1)
TWO = es.IterationStarted(iteration=2)
THREE = es.IterationStarted(iteration=3)


async def test_the_same_key_returns_the_first_result(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """The second append records nothing and is told where the first one stands."""
    first = await store.append("otter", [ONE, TWO], expected_version=es.NO_STREAM, key="it-1")
    await store.append("otter", [THREE], expected_version=2)
    before = backend.raw()
    again = await store.append("otter", [ONE, TWO], expected_version=es.ANY, key="it-1")
    assert again == first == es.Appended(version=2, position=2)
    assert backend.raw() == before


@pytest.mark.parametrize("expected", [es.NO_STREAM, 7, es.STREAM_EXISTS, es.ANY])
async def test_a_known_key_answers_whatever_is_expected(
    store: es.LogStore[es.LoopEvent], expected: es.ExpectedVersion
) -> None:
    """A retry need not know that its first try moved the stream on."""
    first = await store.append("otter", [ONE], expected_version=es.NO_STREAM, key="it-1")
    assert await store.append("otter", [ONE], expected_version=expected, key="it-1") == first


@pytest.mark.parametrize(
    "others",
    [
        [TWO],
        [ONE, TWO],
        [es.HistoryEvent(ONE, data={"cost": 1})],
        [es.IterationCompleted(iteration=1, success=True)],
    ],
    ids=["another event", "one more event", "other data", "another kind"],
)
async def test_a_key_with_other_events_is_refused(
    backend: Backend,
    store: es.LogStore[es.LoopEvent],
    others: list[es.LoopEvent | es.HistoryEvent[es.LoopEvent]],
) -> None:
    """The error names key and stream; nothing is recorded."""
    await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
    before = backend.raw()
    with pytest.raises(es.EventRefusedError, match=r"key 'it-1' .* stream 'otter' .* other events"):
        await store.append("otter", others, expected_version=es.ANY, key="it-1")
    assert backend.raw() == before


async def test_a_part_of_a_keyed_append_is_not_the_append(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Fewer events under a known key are other events."""
    await store.append("otter", [ONE, TWO], expected_version=es.ANY, key="both")
    with pytest.raises(es.EventRefusedError):
        await store.append("otter", [ONE], expected_version=es.ANY, key="both")


async def test_equal_data_under_a_known_key_is_the_same_append(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Events and data are compared; the time of the retry is not."""
    events = [es.HistoryEvent(ONE, data={"cost": 0.31}), es.HistoryEvent(TWO, data=[1, None])]
    first = await store.append("otter", events, expected_version=es.ANY, key="it-1")
    assert await store.append("otter", events, expected_version=es.ANY, key="it-1") == first


async def test_a_key_belongs_to_its_stream(store: es.LogStore[es.LoopEvent]) -> None:
    """The same key in another stream is another key."""
    await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
    appended = await store.append("heron", [TWO], expected_version=es.ANY, key="it-1")
    assert appended == es.Appended(version=1, position=2)


async def test_a_key_is_known_after_reopening(backend: Backend) -> None:
    """Keys are found in the log, in sealed segments too."""
    async with backend.open() as store:
        first = await store.append("otter", [ONE, TWO], expected_version=es.ANY, key="it-1")
        for _ in range(30):
            await store.append("otter", [THREE], expected_version=es.ANY)
    async with backend.open() as store:
        again = await store.append("otter", [ONE, TWO], expected_version=es.ANY, key="it-1")
        assert again == first
        with pytest.raises(es.EventRefusedError):
            await store.append("otter", [TWO], expected_version=es.ANY, key="it-1")
        assert await store.version("otter") == 32


async def test_a_key_used_by_another_store_is_known(backend: Backend) -> None:
    """A key is looked up under the lock, among what all writers recorded."""
    async with backend.open() as one, backend.open() as two:
        first = await one.append("otter", [ONE], expected_version=es.ANY, key="it-1")
        assert await two.append("otter", [ONE], expected_version=es.ANY, key="it-1") == first
        assert await one.version("otter") == 1


async def test_the_same_key_from_many_tasks_is_one_event(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """All of them get the same result, in whatever commits they land."""
    results: list[es.Appended] = []

    async def append() -> None:
        results.append(await store.append("otter", [ONE], expected_version=es.ANY, key="it-1"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(append)
    assert results == [es.Appended(version=1, position=1)] * 20


async def test_a_key_twice_in_one_commit_is_one_event(backend: Backend) -> None:
    """Twins that wait together share a result; one with other events is refused alone."""
    files = GatedFiles(backend.files, Call("fdatasync", ACTIVE))
    outcomes: list[es.Appended | str] = []

    async def append(event: es.LoopEvent, key: str | None) -> None:
        try:
            outcomes.append(await store.append("otter", [event], expected_version=es.ANY, key=key))
        except es.EventRefusedError:
            outcomes.append("refused")

    async with backend.open_over(files) as store:
        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(append, ONE, None)
                await files.reached()
                for event in (TWO, TWO, THREE, TWO):
                    tasks.start_soon(append, event, "k")
                    await anyio.wait_all_tasks_blocked()
        assert outcomes.count("refused") == 1
        assert outcomes.count(es.Appended(version=2, position=2)) == 3
        assert [r.event async for r in store.read("otter")] == [ONE, TWO]


async def test_a_rejected_append_leaves_its_key_unused(store: es.LogStore[es.LoopEvent]) -> None:
    """After a conflict the same key records, with the right belief."""
    with pytest.raises(es.VersionConflictError):
        await store.append("otter", [ONE], expected_version=5, key="it-1")
    appended = await store.append("otter", [TWO], expected_version=0, key="it-1")
    assert appended.version == 1


async def test_a_key_rejected_in_a_commit_is_unused_in_that_commit(backend: Backend) -> None:
    """Of two appends that wait together, the one with the wrong belief does not take the key."""
    files = GatedFiles(backend.files, Call("fdatasync", ACTIVE))
    outcomes: list[es.Appended | str] = []

    async def append(expected: int) -> None:
        try:
            outcomes.append(
                await store.append("otter", [TWO], expected_version=expected, key="it-2")
            )
        except es.VersionConflictError:
            outcomes.append("conflict")

    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:
        with files.shut():
            tasks.start_soon(partial(store.append, "otter", [ONE], expected_version=es.ANY))
            await files.reached()
            for expected in (7, 1):
                tasks.start_soon(append, expected)
                await anyio.wait_all_tasks_blocked()
    assert "conflict" in outcomes
    assert es.Appended(version=2, position=2) in outcomes


async def test_the_key_is_read_back_on_every_event(store: es.LogStore[es.LoopEvent]) -> None:
    """An event tells by which append it came."""
    await store.append("otter", [ONE, TWO], expected_version=es.ANY, key="it-\N{SNOWMAN}")
    await store.append("otter", [THREE], expected_version=es.ANY)
    assert [r.key async for r in store.read("otter")] == ["it-\N{SNOWMAN}", "it-\N{SNOWMAN}", None]


async def test_large_keyed_appends_are_compared_whole(store: es.LogStore[es.LoopEvent]) -> None:
    """A difference in the last byte of the last of many events is a difference."""
    events = [es.EventPublished(topic=str(n), payload="x" * 100_000) for n in range(15)]
    first = await store.append("otter", events, expected_version=es.ANY, key="big")
    assert await store.append("otter", events, expected_version=es.ANY, key="big") == first
    events[-1] = es.EventPublished(topic="14", payload="x" * 99_999 + "y")
    with pytest.raises(es.EventRefusedError):
        await store.append("otter", events, expected_version=es.ANY, key="big")


async def test_a_retry_gets_the_durability_it_asks_for(backend: Backend) -> None:
    """A key that was only `written` is synced before a synced retry is acknowledged."""
    files = RecordingFiles(backend.files)
    async with backend.open_over(files) as store:
        await store.append(
            "otter", [ONE], expected_version=es.ANY, key="it-1", durability="written"
        )
        await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
        assert files.count("fdatasync", ACTIVE) == 1


async def test_a_retry_after_an_unknown_outcome_is_recorded_once(backend: Backend) -> None:
    """The sync failed, so nobody knows; the same key in a reopened store settles it."""
    files = FaultyFiles(backend.files)
    async with backend.open_over(files) as store:
        files.fail(Call("fdatasync", ACTIVE))
        with pytest.raises(es.CommitUnknownError):
            await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
    async with backend.open() as store:
        appended = await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
        assert appended == es.Appended(version=1, position=1)
        assert [r.event async for r in store.read("otter")] == [ONE]


async def test_a_damaged_line_under_a_key_is_an_error_of_ours(backend: Backend) -> None:
    """A keyed append whose first line can no longer be read is not acknowledged by a guess."""
    async with backend.open() as store:
        await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
        await store.append("otter", [TWO], expected_version=es.ANY)
        backend.flip_bit(0)
        with pytest.raises(es.EventStoreError):
            await store.append("otter", [ONE], expected_version=es.ANY, key="it-1")
