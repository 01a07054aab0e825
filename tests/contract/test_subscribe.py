"""Subscribing: history, then live, every event exactly once, whoever appended it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

import eventstore as es
from tests._files import Call, GatedFiles, RecordingFiles
from tests.contract._backends import ACTIVE, Backend, following, take, until

pytestmark = pytest.mark.anyio


async def append(store: es.LogStore[es.LoopEvent], first: int, last: int) -> None:
    """Append events one by one; their numbers are their positions."""
    for number in range(first, last + 1):
        event = es.IterationStarted(iteration=number)
        await store.append(f"loop-{number % 3}", [event], expected_version=es.ANY)


def numbers(found: list[es.Recorded[es.LoopEvent]]) -> list[int]:
    """What `append` put in, checked against the positions."""
    for recorded in found:
        assert recorded.event == es.IterationStarted(iteration=recorded.position)
    return [recorded.position for recorded in found]


async def test_history_comes_first_and_then_what_is_appended(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """There is no gap and no duplicate where history ends and live begins."""
    await append(store, 1, 20)
    async with following(store) as events:
        assert numbers(await take(events, 15)) == list(range(1, 16))
        await append(store, 21, 30)
        assert numbers(await take(events, 15)) == list(range(16, 31))
        await append(store, 31, 31)
        assert numbers(await take(events, 1)) == [31]


@pytest.mark.parametrize("after", [0, 1, 9, 10])
async def test_a_subscription_begins_behind_its_checkpoint(
    store: es.LogStore[es.LoopEvent], after: int
) -> None:
    """`after_position` is the position of the last event already seen."""
    await append(store, 1, 10)
    async with following(store, after_position=after) as events:
        await append(store, 11, 12)
        assert numbers(await take(events, 12 - after)) == list(range(after + 1, 13))


async def test_a_checkpoint_may_lie_ahead(store: es.LogStore[es.LoopEvent]) -> None:
    """Events up to it are left out when they come."""
    async with following(store, after_position=5) as events:
        await append(store, 1, 7)
        assert numbers(await take(events, 2)) == [6, 7]


async def test_the_log_of_a_subscription_may_be_made_later(backend: Backend) -> None:
    """A reader follows a log that does not exist yet."""
    found: list[es.Recorded[es.LoopEvent]] = []
    async with backend.open_reader() as reader, following(reader) as events:
        async with anyio.create_task_group() as tasks:

            async def follow() -> None:
                found.extend(await take(events, 3))

            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            async with backend.open() as store:
                await append(store, 1, 3)
        assert numbers(found) == [1, 2, 3]


async def test_events_of_another_store_are_seen(backend: Backend) -> None:
    """A store's subscription shows what others append to the log."""
    async with backend.open() as one, backend.open() as two, following(one) as events:
        for number in range(1, 30):
            await append(two if number % 3 else one, number, number)
            assert numbers(await take(events, 1)) == [number]


async def test_an_event_of_this_store_is_seen_without_polling(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In process a subscriber is woken by the commit, however long it would sleep otherwise."""
    monkeypatch.setattr("eventstore._log._log_reader._POLL_SECONDS", 3_600.0)
    async with backend.open() as store, following(store) as events:
        found: list[int] = []

        async def follow() -> None:
            found.extend(numbers(await take(events, 3)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for number in range(1, 4):
                await anyio.wait_all_tasks_blocked()
                await append(store, number, number)
    assert found == [1, 2, 3]


async def test_many_subscribers_see_everything_while_many_tasks_append(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """Each gets every event once, in position order, from wherever it began."""
    found: dict[int, list[int]] = {}

    async def follow(after: int) -> None:
        async with following(store, after_position=after) as events:
            found[after] = [recorded.position for recorded in await take(events, 200 - after)]

    async with anyio.create_task_group() as tasks:
        for after in (0, 1, 50, 150):
            tasks.start_soon(follow, after)
        async with anyio.create_task_group() as writers:
            for _ in range(20):
                writers.start_soon(append, store, 1, 10)
    assert found == {after: list(range(after + 1, 201)) for after in (0, 1, 50, 150)}


async def test_a_commit_at_work_is_not_shown_to_subscribers(backend: Backend) -> None:
    """An event is given out only once it is durable."""
    files = GatedFiles(backend.files, Call("fdatasync", ACTIVE))
    shown: list[int] = []

    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:

        async def follow() -> None:
            async with following(store) as events:
                shown.extend(numbers(await take(events, 1)))

        with files.shut():
            tasks.start_soon(append, store, 1, 1)
            await files.reached()
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            assert shown == []
    assert shown == [1]


async def test_a_subscription_that_ended_can_be_continued(
    store: es.LogStore[es.LoopEvent],
) -> None:
    """The last position seen is all that has to be kept."""
    await append(store, 1, 10)
    checkpoint = 0
    seen: list[int] = []
    while checkpoint < 10:
        async with following(store, after_position=checkpoint) as events:
            seen += numbers(await take(events, 2))
            checkpoint = seen[-1]
    assert seen == list(range(1, 11))


async def test_a_cancelled_subscription_leaves_nothing_behind(backend: Backend) -> None:
    """No handle, no lock, and the store goes on."""
    async with backend.open() as store:
        await append(store, 1, 3)
        handles = backend.open_handles()
        async with anyio.create_task_group() as tasks:

            async def follow() -> None:
                async for _ in store.subscribe():
                    pass

            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert backend.open_handles() - handles in (0, 1)  # the reader's own lock handle is kept
        await append(store, 4, 4)
    assert backend.open_handles() == 0


# --- a writer dies beside the subscriber ---


async def tear(backend: Backend, files: RecordingFiles, length: int) -> None:
    """Leave the beginning of a line, as a killed writer does, and let the subscriber see it."""
    async with backend.open() as store:
        line = backend.raw().splitlines(keepends=True)[-1]
        assert store.position
    backend.append_raw(line[:length])
    await looked(files)


async def looked(files: RecordingFiles) -> None:
    """Wait until the subscriber has taken a look that began after now, and read what was there."""
    files.calls.clear()
    # At most three of these belong to each look.
    await until(lambda: files.calls.count(Call("stat", "history.jsonl")) > 6)


@pytest.mark.parametrize("length", [1, 60, 150])
async def test_a_subscriber_outlives_the_death_of_writers(backend: Backend, length: int) -> None:
    """A torn line that the next writer cuts off costs a live subscriber no event and no delay."""
    async with backend.open() as store:
        await append(store, 1, 2)
    files = RecordingFiles(backend.files)
    async with (
        backend.open_over(files) as seat,  # only to be followed
        anyio.create_task_group() as tasks,
    ):
        found: list[int] = []

        async def follow() -> None:
            async with following(seat) as events:
                while True:
                    found.extend(numbers(await take(events, 1)))

        tasks.start_soon(follow)
        await until(lambda: len(found) == 2)
        for death in range(2):
            await tear(backend, files, length)
            async with backend.open() as store:
                assert store.recovery.cut_bytes == length
                await append(store, death + 3, death + 3)
            with anyio.move_on_after(2):
                while len(found) < death + 3:
                    await anyio.lowlevel.checkpoint()
            assert found == list(range(1, death + 4))
        tasks.cancel_scope.cancel()


async def test_a_foreign_line_is_shown_once_it_ends(backend: Backend) -> None:
    """A line that another program is still writing is not shown before its LF."""
    record = b'{"ts":"2026-11-21T00:00:01.000001Z","type":{"kind":"merge_queued"}}'
    found: list[str] = []
    async with backend.open_reader() as reader, anyio.create_task_group() as tasks:

        async def follow() -> None:
            async with following(reader) as events:
                found.append((await take(events, 1))[0].kind)

        backend.append_raw(record)
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        backend.append_raw(b"\n")
    assert found == ["merge_queued"]


@pytest.mark.parametrize("left", [0, 1])
async def test_a_subscription_ends_when_the_log_is_cut_before_what_it_has_seen(
    backend: Backend, left: int
) -> None:
    """What is appended there is not what comes next, and nobody would notice what is missing."""
    async with backend.open() as store:
        await append(store, 1, 3)
    async with backend.open_reader() as reader, following(reader) as events:
        assert numbers(await take(events, 3)) == [1, 2, 3]
        size = left and backend.raw().index(b"\n") + 1
        handle = backend.files.open(ACTIVE, "append")
        backend.files.truncate(handle, size)
        backend.files.close(handle)
        with anyio.fail_after(5), pytest.raises(es.BookmarkLostError, match="position 3"):
            await anext(events)
