"""Expected versions: the writer's belief is checked under the same lock as the write."""

from __future__ import annotations

import anyio
import pytest

import eventstore as es
from tests._files import Call, GatedFiles
from tests.contract._backends import ACTIVE, Backend

pytestmark = pytest.mark.anyio

EVENT = es.MergeQueued()


async def fill(store: es.LogStore[es.LoopEvent], stream: str, count: int) -> None:
    """Bring a new stream to a version."""
    if count:
        await store.append(stream, [EVENT] * count, expected_version=es.NO_STREAM)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (0, es.NO_STREAM),
        (0, es.ANY),
        (3, 3),
        (3, es.ANY),
        (1, es.STREAM_EXISTS),
        (3, es.STREAM_EXISTS),
    ],
)
async def test_a_true_belief_is_recorded(
    store: es.LogStore[es.LoopEvent], actual: int, expected: es.ExpectedVersion
) -> None:
    """The append goes behind the version that was expected."""
    await fill(store, "otter", actual)
    appended = await store.append("otter", [EVENT], expected_version=expected)
    assert appended.version == actual + 1


@pytest.mark.parametrize(
    ("actual", "expected", "text"),
    [
        (0, 1, "1"),
        (0, es.STREAM_EXISTS, "at least one event"),
        (3, es.NO_STREAM, "0"),
        (3, 2, "2"),
        (3, 4, "4"),
        (3, -1, "-1"),
    ],
)
async def test_a_wrong_belief_records_nothing(
    backend: Backend,
    store: es.LogStore[es.LoopEvent],
    actual: int,
    expected: es.ExpectedVersion,
    text: str,
) -> None:
    """The error tells stream, belief and truth, as attributes and as a sentence."""
    await fill(store, "otter", actual)
    before = backend.raw()
    with pytest.raises(es.VersionConflictError) as caught:
        await store.append("otter", [EVENT, EVENT], expected_version=expected)
    error = caught.value
    assert (error.stream, error.expected, error.actual) == ("otter", text, actual)
    assert str(error) == (
        f"stream 'otter' is at version {actual}, expected {text}; nothing was recorded"
    )
    assert backend.raw() == before


async def test_the_versions_of_other_streams_do_not_count(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """A stream is new however full the log is."""
    await fill(store, "heron", 4)
    appended = await store.append("otter", [EVENT], expected_version=es.NO_STREAM)
    assert appended == es.Appended(version=1, position=5)


async def test_of_two_tasks_with_one_belief_one_is_recorded(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Both may land in the same commit; they are checked against each other too."""
    outcomes: list[str] = []

    async def append() -> None:
        try:
            await store.append("otter", [EVENT], expected_version=es.NO_STREAM)
            outcomes.append("recorded")
        except es.VersionConflictError as error:
            outcomes.append(f"conflict at {error.actual}")

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(append)
    assert sorted(outcomes) == ["conflict at 1"] * 4 + ["recorded"]
    assert await store.version("otter") == 1


async def test_a_conflict_leaves_the_rest_of_its_commit_alone(backend: Backend) -> None:
    """Appends that wait together succeed and fail each for itself, and leave no gap."""
    files = GatedFiles(backend.files, Call("fdatasync", ACTIVE))
    conflicts: list[str] = []

    async def append(stream: str, expected: es.ExpectedVersion) -> None:
        try:
            await store.append(stream, [EVENT], expected_version=expected)
        except es.VersionConflictError as error:
            conflicts.append(error.stream)

    async with backend.open_over(files) as store:
        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(append, "first", es.ANY)
                await files.reached()
                for stream, expected in (("a", 0), ("b", 9), ("a", 1), ("c", 0), ("c", 0)):
                    tasks.start_soon(append, stream, expected)
                    await anyio.wait_all_tasks_blocked()
        found = [
            (r.stream, r.version, r.position, r.commit.first, r.commit.last)
            async for r in store.read_all()
        ]
    assert sorted(conflicts) == ["b", "c"]  # trio wakes its tasks in any order
    assert found == [
        ("first", 1, 1, 1, 1),
        ("a", 1, 2, 2, 4),
        ("a", 2, 3, 2, 4),
        ("c", 1, 4, 2, 4),
    ]


async def test_a_belief_is_checked_against_other_stores(backend: Backend) -> None:
    """What another store appended a moment ago is seen by the check."""
    async with backend.open() as one, backend.open() as two:
        await one.append("otter", [EVENT], expected_version=es.NO_STREAM)
        with pytest.raises(es.VersionConflictError, match="is at version 1, expected 0"):
            await two.append("otter", [EVENT], expected_version=es.NO_STREAM)
        await two.append("otter", [EVENT], expected_version=1)
        assert await one.version("otter") == 2


async def test_a_counter_loses_no_update(backend: Backend) -> None:
    """Eight tasks over two stores increment by compare-and-append: every number appears once."""

    async def increment(store: es.LogStore[es.LoopEvent]) -> None:
        for _ in range(5):
            while True:
                version = await store.version("counter")
                event = es.IterationStarted(iteration=version + 1)
                try:
                    await store.append("counter", [event], expected_version=version)
                    break
                except es.VersionConflictError:
                    continue

    async with backend.open() as one, backend.open() as two:
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(increment, one if number % 2 else two)
        found = [r.event async for r in one.read("counter")]
    assert found == [es.IterationStarted(iteration=number) for number in range(1, 41)]


async def test_a_belief_is_checked_after_reopening(backend: Backend) -> None:
    """Versions are counted from the log, not remembered beside it."""
    async with backend.open() as store:
        await fill(store, "otter", 12)
    async with backend.open() as store:
        with pytest.raises(es.VersionConflictError, match="is at version 12, expected 11"):
            await store.append("otter", [EVENT], expected_version=11)
        assert (await store.append("otter", [EVENT], expected_version=12)).version == 13


async def test_the_stream_named_main_is_the_default_one(store: es.LogStore[es.LoopEvent]) -> None:
    """`main` has versions like every other stream."""
    await store.append(es.MAIN_STREAM, [EVENT], expected_version=es.NO_STREAM)
    await store.append("main", [EVENT], expected_version=1)
    with pytest.raises(es.VersionConflictError):
        await store.append("main", [EVENT], expected_version=1)
    assert await store.version("main") == 2
