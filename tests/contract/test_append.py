"""Appending: all or nothing, in order, numbered by counting."""

from __future__ import annotations

import anyio
import pytest

import eventstore as es
from tests._files import Call, GatedFiles
from tests.contract._backends import ACTIVE, NAMES, Backend
from tests.contract._lines import check_lines

pytestmark = pytest.mark.anyio

STARTED = es.LoopStarted(prompt="fix the tests")


def iterations(first: int, last: int) -> list[es.LoopEvent]:
    """Some events that can be told apart."""
    return [es.IterationStarted(iteration=number) for number in range(first, last + 1)]


async def test_an_append_returns_the_numbers_of_its_last_event(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Version and position are those after the last of its events."""
    await store.append("heron", [STARTED], expected_version=es.ANY)
    appended = await store.append("otter", iterations(1, 3), expected_version=es.ANY)
    assert appended == es.Appended(version=3, position=4)


async def test_versions_count_a_stream_and_positions_count_the_log(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """A stream's versions are 1, 2, 3 whatever stands between them; so are the log's positions."""
    for stream in ("otter", "heron", "otter", "main", "heron", "otter"):
        await store.append(stream, [STARTED], expected_version=es.ANY)
    found = [(r.stream, r.version, r.position) async for r in store.read_all()]
    assert found == [
        ("otter", 1, 1),
        ("heron", 1, 2),
        ("otter", 2, 3),
        ("main", 1, 4),
        ("heron", 2, 5),
        ("otter", 3, 6),
    ]


async def test_what_was_appended_is_read_back_equal(store: es.LogStore[es.LoopEvent]) -> None:
    """Every one of the twelve kinds comes back as it went in."""
    events: list[es.LoopEvent] = [
        STARTED,
        es.IterationStarted(iteration=0),
        es.EventPublished(topic="review", payload='{"a": "\N{SNOWMAN}\u2028\\n"}'),
        es.IterationCompleted(iteration=2**32 - 1, success=False),
        es.LoopCompleted(reason="completion_promise"),
        es.LoopResumed(from_iteration=7),
        es.LoopTerminated(signal="SIGTERM"),
        es.MergeQueued(),
        es.MergeStarted(pid=4_711),
        es.MergeCompleted(commit="5d1e07a"),
        es.MergeFailed(reason=""),
        es.LoopDiscarded(reason="\x00\x7f\N{PILE OF POO}"),
    ]
    await store.append("otter", events, expected_version=es.NO_STREAM)
    assert [r.event async for r in store.read("otter")] == events


async def test_the_events_of_one_append_stand_side_by_side(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """However many tasks append to one stream, nothing comes between the events of one append."""

    async def append(first: int) -> None:
        await store.append("otter", iterations(first, first + 2), expected_version=es.ANY)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(append, 3 * number)
    found = [r.event async for r in store.read("otter")]
    groups = [found[start : start + 3] for start in range(0, 150, 3)]
    assert all(
        group == iterations(group[0].iteration, group[0].iteration + 2)
        for group in groups
        if isinstance(group[0], es.IterationStarted)
    )
    assert len(groups) == 50


async def test_every_task_is_told_where_its_event_stands(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Of 200 tasks at once each gets the numbers of its own event; none is used twice."""
    told: dict[int, es.LoopEvent] = {}

    async def append(number: int) -> None:
        event = es.IterationStarted(iteration=number)
        stream = f"loop-{number % 7}"
        appended = await store.append(stream, [event], expected_version=es.ANY)
        told[appended.position] = event

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(append, number)
    found = [r async for r in store.read_all()]
    assert {r.position: r.event for r in found} == told
    assert [r.position for r in found] == list(range(1, 201))


async def test_appends_that_wait_become_one_commit(backend: Backend) -> None:
    """While one commit is being synced, what arrives is collected; one sync makes it durable."""
    files = GatedFiles(backend.files, Call("fdatasync", ACTIVE))
    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:
        with files.shut():
            for number in range(6):
                tasks.start_soon(_append_one, store, number)
                if not number:
                    await files.reached()
            await anyio.wait_all_tasks_blocked()
    async with backend.open_reader() as reader:
        commits = [r.commit async for r in reader.read_all()]
    assert commits == [es.Commit(1, 1)] + [es.Commit(2, 6)] * 5


async def _append_one(store: es.LogStore[es.LoopEvent], number: int) -> None:
    event = es.IterationStarted(iteration=number)
    await store.append("otter", [event], expected_version=es.ANY)


async def test_one_refused_event_refuses_the_whole_append(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """Nothing of it is recorded, not even the events before the refused one."""
    events: list[es.LoopEvent] = [STARTED, es.IterationStarted(iteration=-1), STARTED]
    with pytest.raises(es.EventRefusedError, match="event 2 of 3"):
        await store.append("otter", events, expected_version=es.ANY)
    assert backend.raw() == b""
    assert await store.version("otter") == 0


async def test_the_position_is_known_without_asking_the_disk(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """After an append, `position` is at least the one that the append returned."""
    assert store.position == 0
    appended = await store.append("otter", iterations(1, 5), expected_version=es.ANY)
    assert store.position == appended.position == 5


async def test_numbers_go_on_after_reopening(backend: Backend) -> None:
    """A reopened log continues its versions and positions."""
    for number in range(1, 12):
        async with backend.open() as store:
            assert store.position == number - 1
            appended = await store.append("otter", [STARTED], expected_version=number - 1)
            assert appended == es.Appended(version=number, position=number)


async def test_two_stores_append_to_one_log(backend: Backend) -> None:
    """Two stores of one process are like two processes: one numbering, nothing lost."""
    async with backend.open() as one, backend.open() as two:
        for number in range(1, 21):
            store = one if number % 2 else two
            events = iterations(number, number)
            appended = await store.append("otter", events, expected_version=number - 1)
            assert appended == es.Appended(version=number, position=number)
        assert [r.event async for r in one.read("otter")] == iterations(1, 20)
        assert [r.event async for r in two.read("otter")] == iterations(1, 20)


async def test_two_stores_append_at_the_same_time(backend: Backend) -> None:
    """Tasks of two stores at once: every event is there once, at the place its task was told."""
    told: dict[int, int] = {}

    async def append(store: es.LogStore[es.LoopEvent], number: int) -> None:
        event = es.IterationStarted(iteration=number)
        appended = await store.append("otter", [event], expected_version=es.ANY)
        told[appended.position] = number

    async with backend.open() as one, backend.open() as two:
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(append, one if number % 2 else two, number)
        found = {r.position: r.event async for r in one.read_all()}
    assert found == {
        position: es.IterationStarted(iteration=number) for position, number in told.items()
    }
    assert sorted(found) == list(range(1, 61))


async def test_a_deleted_lock_file_is_made_again(backend: Backend) -> None:
    """Somebody tidied up: the next append locks a new one, so that all exclude each other again."""
    async with backend.open() as one, backend.open() as two:
        for number in range(6):
            backend.files.unlink(NAMES.lock)
            store = one if number % 2 else two
            await store.append("otter", [STARTED], expected_version=number)
            assert backend.files.stat(NAMES.lock) is not None
        assert await one.version("otter") == await two.version("otter") == 6


async def test_a_closed_store_takes_no_append(backend: Backend) -> None:
    """After leaving `open_store` an append raises; nothing is recorded."""
    async with backend.open() as store:
        pass
    with pytest.raises(es.StoreClosedError):
        await store.append("otter", [STARTED], expected_version=es.ANY)
    with pytest.raises(es.StoreClosedError):
        await store.version("otter")
    assert backend.raw() == b""


async def test_an_append_may_be_larger_than_what_may_wait(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """An append larger than the bound on waiting bytes goes alone, and whole."""
    text = "x" * 900_000
    events = [es.EventPublished(topic=str(number), payload=text) for number in range(20)]
    appended = await store.append("otter", events, expected_version=es.ANY)
    assert appended == es.Appended(version=20, position=20)
    assert [r.event async for r in store.read("otter")] == events


async def test_every_byte_of_the_log_is_as_the_format_says(
    backend: Backend, store: es.LogStore[es.LoopEvent]
) -> None:
    """Numbers, commits and both checksums, by a reading of the bytes that shares no code."""
    for number in range(1, 20):
        stream = f"loop-{number % 3}" if number % 4 else "main"
        event = es.HistoryEvent(es.LoopStarted(prompt="x" * number), data={"\N{SNOWMAN}": [number]})
        await store.append(
            stream,
            [event] * (number % 5 + 1),
            expected_version=es.ANY,
            key=f"k-{number}" if number % 2 else None,
            meta={"actor": "test"} if number % 3 else None,
            durability="written" if number % 2 else "synced",
        )
    lines = check_lines(backend.raw())
    assert len(lines) == store.position
    assert [record["type"]["prompt"] for record in lines if record["position"] == 1] == ["x"]
