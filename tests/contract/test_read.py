"""Reading: by stream and over all, in either direction, exactly what is there now."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import product
from typing import cast

import anyio
import pytest

import eventstore as es
from tests._files import Call, GatedFiles, RecordingFiles
from tests.contract._backends import ACTIVE, NAMES, Backend, take

pytestmark = pytest.mark.anyio

STREAMS = ("otter", "heron", "main")


async def fill(store: es.LogStore[es.LoopEvent], count: int = 30) -> list[tuple[str, int, int]]:
    """Append to three streams in turn, one to three events at a time; tell what must be there."""
    expected: list[tuple[str, int, int]] = []
    versions = dict.fromkeys(STREAMS, 0)
    for turn in range(count):
        stream = STREAMS[turn % 3]
        size = min((turn // 2) % 3 + 1, count - len(expected))
        if not size:
            break
        await store.append(stream, [es.MergeQueued()] * size, expected_version=versions[stream])
        for _ in range(size):
            versions[stream] += 1
            expected.append((stream, versions[stream], len(expected) + 1))
    return expected


@pytest.mark.parametrize("backwards", [False, True])
async def test_reading_all_gives_the_slice_that_was_asked_for(
    store: es.LogStore[es.LoopEvent], *, backwards: bool
) -> None:
    """`after_position` leaves out the beginning, `backwards` turns round, `limit` cuts, so."""
    places = await fill(store)
    for after, limit in product((0, 1, 7, 29, 30, 31), (None, 0, 1, 4, 99)):
        expected = (places[after:][::-1] if backwards else places[after:])[:limit]
        found = store.read_all(after_position=after, backwards=backwards, limit=limit)
        assert [(r.stream, r.version, r.position) async for r in found] == expected


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("stream", STREAMS)
async def test_reading_a_stream_gives_the_slice_that_was_asked_for(
    store: es.LogStore[es.LoopEvent], stream: str, *, backwards: bool
) -> None:
    """As over all, with versions in place of positions."""
    places = [place for place in await fill(store) if place[0] == stream]
    for after, limit in product((0, 1, 5, 99), (None, 0, 1, 3, 99)):
        expected = (places[after:][::-1] if backwards else places[after:])[:limit]
        found = store.read(stream, after_version=after, backwards=backwards, limit=limit)
        assert [(r.stream, r.version, r.position) async for r in found] == expected


async def test_a_log_without_events_is_empty(store: es.LogStore[es.LoopEvent]) -> None:
    """Reading it ends at once, in both directions."""
    assert [r async for r in store.read_all()] == []
    assert [r async for r in store.read_all(backwards=True)] == []
    assert [r async for r in store.read("otter")] == []
    assert [r async for r in store.read("otter", backwards=True)] == []


async def test_a_stream_that_does_not_exist_is_empty(store: es.LogStore[es.LoopEvent]) -> None:
    """It is read like an empty one and stands at version 0."""
    await fill(store)
    assert [r async for r in store.read("nobody")] == []
    assert await store.version("nobody") == 0


async def test_more_than_a_page_reads_the_same_in_both_directions(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Events of every size, several megabytes of them, none lost where pages meet."""
    sizes = [1, 70_000, 300_000, 5, 999_000, 64_000, 2, 500_000, 3, 800_000, 123_456, 7]
    events = [es.EventPublished(topic="t", payload="x" * size) for size in sizes]
    for event in events:
        await store.append("otter", [event], expected_version=es.ANY)
    assert [r.event async for r in store.read("otter")] == events
    assert [r.event async for r in store.read_all(backwards=True)] == events[::-1]


async def test_a_commit_longer_than_a_page_is_read_whole(store: es.LogStore[es.LoopEvent]) -> None:
    """Its events are shown together or not at all, in both directions."""
    await store.append("heron", [es.MergeQueued()], expected_version=es.ANY)
    events = [es.EventPublished(topic=str(n), payload="x" * 150_000) for n in range(20)]
    await store.append("otter", events, expected_version=es.ANY)
    await store.append("heron", [es.MergeQueued()], expected_version=es.ANY)
    assert [r.event async for r in store.read("otter")] == events
    assert [r.event async for r in store.read("otter", backwards=True)] == events[::-1]


async def test_a_read_shows_what_was_there_when_it_began(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """It ends, although each event it gives causes another append."""
    await fill(store, 5)
    seen = 0
    async for _ in store.read_all():
        seen += 1
        await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
    assert seen == 5
    assert store.position == 10


async def test_a_reading_that_is_closed_early_leaves_nothing_open(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Closing what `read` gave closes all of it; trio would report an iterator left inside."""
    await fill(store)
    for reading in (store.read("otter"), store.read_all(backwards=True)):
        async with aclosing(cast("AsyncGenerator[object]", reading)) as events:
            await anext(events)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio tells of the `break`
async def test_leaving_a_read_early_is_harmless(backend: Backend) -> None:
    """Nothing is held between two events: no handle and no lock outlives a `break`."""
    async with backend.open() as store:
        await fill(store)
        async for _ in store.read_all():
            break
        handles = backend.open_handles()
        for _ in range(5):
            async for _ in store.read("otter", backwards=True):
                break
        assert backend.open_handles() == handles
        await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
    assert backend.open_handles() == 0


async def test_a_reader_sees_what_a_store_appends(backend: Backend) -> None:
    """A read-only store beside a writing one shows every event as soon as it is acknowledged."""
    async with backend.open() as store, backend.open_reader() as reader:
        for number in range(1, 20):
            await store.append("otter", [es.MergeQueued()], expected_version=number - 1)
            assert await reader.version("otter") == number
            newest = [r.position async for r in reader.read_all(backwards=True, limit=1)]
            assert newest == [number]


async def test_a_reader_changes_nothing(backend: Backend) -> None:
    """Opening, reading and closing read-only leaves every file as it is."""
    async with backend.open() as store:
        expected = await fill(store)
        version = await store.version("main")
    before = (backend.look(), backend.raw())
    async with backend.open_reader() as reader:
        assert reader.position == len(expected)
        assert len([r async for r in reader.read_all()]) == len(expected)
        assert await reader.version("main") == version
    assert (backend.look(), backend.raw()) == before


async def test_a_reader_opens_a_log_that_does_not_exist(backend: Backend) -> None:
    """It is empty, is not created, and is read once someone makes it."""
    async with backend.open_reader() as reader:
        assert reader.position == 0
        assert [r async for r in reader.read_all()] == []
        assert backend.look() == {}
        async with backend.open() as store:
            await fill(store)
        assert len([r async for r in reader.read_all()]) == 30


@pytest.mark.parametrize("stream", [*STREAMS, "nobody"])
async def test_a_reader_and_a_store_agree_on_versions(backend: Backend, stream: str) -> None:
    """The one looks into the file, the other into its index."""
    async with backend.open() as store, backend.open_reader() as reader:
        await fill(store)
        assert await reader.version(stream) == await store.version(stream)


async def test_a_version_counts_what_other_stores_appended(backend: Backend) -> None:
    """`version` asks the log, not what this store remembers."""
    async with backend.open() as one, backend.open() as two:
        for number in range(1, 15):
            await one.append("otter", [es.MergeQueued()], expected_version=es.ANY)
            assert await two.version("otter") == number


async def test_a_read_goes_on_while_a_segment_is_sealed(backend: Backend) -> None:
    """Between the rename and the new active file a reader finds all it had begun to read."""
    event = es.EventPublished(topic="t", payload="x" * 900_000)
    files = GatedFiles(backend.files, Call("fsync_directory", ""))
    backend.segment_bytes_max = 2_500_000
    async with backend.open_over(files) as store, backend.open_reader() as reader:
        for _ in range(3):
            await store.append("otter", [event], expected_version=es.ANY)
        events = reader.read_all()
        found = await take(events, 1)
        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(_append, store, event)
                await files.reached()
                assert backend.files.stat(ACTIVE) is None
                found += await take(events, 2)
        assert [r async for r in events] == []
    assert [r.position for r in found] == [1, 2, 3]


async def test_a_reader_that_finds_the_active_file_gone_looks_again(backend: Backend) -> None:
    """It was renamed between two of the reader's steps; the sealed segment has it all."""
    backend.segment_bytes_max = 1
    writing = GatedFiles(backend.files, Call("fsync_directory", ""))
    reading = GatedFiles(backend.files, Call("open", ACTIVE))
    found: list[int] = []

    async with (
        backend.open_over(writing) as store,
        backend.open_over(reading) as reader,
        anyio.create_task_group() as tasks,
    ):

        async def read() -> None:
            found.extend([r.position async for r in reader.read_all()])

        await _append(store, es.MergeQueued())
        with reading.shut():
            tasks.start_soon(read)
            await reading.reached()
            with writing.shut():
                tasks.start_soon(_append, store, es.MergeQueued())
                await writing.reached()
                reading.let_go()
                await anyio.wait_all_tasks_blocked()
    assert found[0] == 1


@pytest.mark.parametrize("backwards", [False, True])
async def test_a_file_that_is_sealed_while_a_reader_opens_it_is_read_to_its_end(
    backend: Backend, *, backwards: bool
) -> None:
    """At the path stands a new file by then; the reader has the old one, or looks for it."""
    event = es.EventPublished(topic="t", payload="x" * 900_000)
    backend.segment_bytes_max = 2_500_000
    files = GatedFiles(backend.files, Call("open", ACTIVE))
    found: list[int] = []
    async with (
        backend.open() as store,
        backend.open_over(files) as reader,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            await _append(store, event)
        events = reader.read_all(backwards=backwards)
        found += [r.position for r in await take(events, 1)]

        async def read_on() -> None:
            found.extend([r.position async for r in events])

        with files.shut():
            tasks.start_soon(read_on)
            await files.reached()
            await _append(store, event)  # seals
    assert found == ([3, 2, 1] if backwards else [1, 2, 3])


async def _append(store: es.LogStore[es.LoopEvent], event: es.LoopEvent) -> None:
    await store.append("otter", [event], expected_version=es.ANY)


async def test_a_commit_at_work_is_not_shown(backend: Backend) -> None:
    """What is written but not yet synced is not read; a reader waits for it or does without."""
    files = GatedFiles(backend.files, Call("fdatasync", ACTIVE))
    async with backend.open_over(files) as store, backend.open_reader() as reader:
        await fill(store, 3)
        is_syncing = True
        too_early: list[es.Recorded[es.LoopEvent]] = []

        async def read() -> None:
            new = [r async for r in reader.read_all(after_position=3)]
            too_early.extend(new if is_syncing else [])

        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(_append, store, es.MergeQueued())
                await files.reached()
                tasks.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                is_syncing = False
    assert too_early == []


async def test_what_is_known_to_be_durable_is_read_without_a_lock(backend: Backend) -> None:
    """A reader of a log at rest takes no lock, so it cannot hold up a writer."""
    async with backend.open() as store:
        await fill(store)
    files = RecordingFiles(backend.files)
    async with backend.open_over(files) as store:
        files.calls.clear()
        assert len([r async for r in store.read_all()]) == 30
        assert not files.count("try_lock", NAMES.lock)


async def test_a_closed_store_cannot_be_read(backend: Backend) -> None:
    """After `open_store` was left reading raises, and opens nothing that stays open."""
    async with backend.open() as store, backend.open_reader() as reader:
        await fill(store)
    for closed in (store, reader):
        with pytest.raises(es.StoreClosedError):
            await take(closed.read_all(), 1)
        with pytest.raises(es.StoreClosedError):
            await take(closed.subscribe(), 1)
        with pytest.raises(es.StoreClosedError):
            await closed.version("otter")
    assert backend.open_handles() == 0


# --- scan: a fold in a worker thread ---


async def test_a_scan_runs_its_work_in_another_thread(store: es.LogStore[es.LoopEvent]) -> None:
    """The event loop is free while a long history is folded."""
    await fill(store)

    def work(pages: Iterator[es.Page[es.LoopEvent]]) -> tuple[int, int]:
        return threading.get_ident(), sum(len(page) for page in pages)

    thread, count = await store.scan(work)
    assert thread != threading.get_ident()
    assert count == 30


@pytest.mark.parametrize("backwards", [False, True])
async def test_a_scan_sees_what_a_read_sees(
    store: es.LogStore[es.LoopEvent], *, backwards: bool
) -> None:
    """The same events in the same order, in pages."""
    await fill(store)

    def work(pages: Iterator[es.Page[es.LoopEvent]]) -> list[es.Recorded[es.LoopEvent]]:
        return [recorded for page in pages for recorded in page]

    scanned = await store.scan(work, stream="otter", after=3, backwards=backwards)
    assert scanned == [r async for r in store.read("otter", after_version=3, backwards=backwards)]


async def test_a_scan_may_leave_data_undecoded(store: es.LogStore[es.LoopEvent]) -> None:
    """Folds that do not look at `data` do not pay for it."""
    event = es.HistoryEvent(es.MergeQueued(), data={"cost": 0.31})
    await store.append("otter", [event], expected_version=es.ANY)

    def work(pages: Iterator[es.Page[es.LoopEvent]]) -> list[object]:
        return [recorded.data for page in pages for recorded in page]

    assert await store.scan(work, data=False) == [None]
    assert await store.scan(work) == [{"cost": 0.31}]


async def test_a_scan_may_stop_early(backend: Backend) -> None:
    """Work that has its answer returns; nothing stays open."""
    async with backend.open() as store:
        await fill(store)

        def work(pages: Iterator[es.Page[es.LoopEvent]]) -> int:
            return next(pages)[0].position

        assert await store.scan(work, backwards=True) == 30
    assert backend.open_handles() == 0


async def test_an_error_in_the_work_of_a_scan_comes_out_as_it_is(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Not wrapped, and the store goes on."""
    await fill(store)

    def work(pages: Iterator[es.Page[es.LoopEvent]]) -> None:
        raise ZeroDivisionError(next(pages)[0].position)

    with pytest.raises(ZeroDivisionError, match="1"):
        await store.scan(work)
    assert len([r async for r in store.read_all()]) == 30
