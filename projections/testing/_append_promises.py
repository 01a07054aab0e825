"""What a backend promises of appending, one test each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
import anyio.lowlevel

from eventstore import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Appended,
    EventPublished,
    EventRefusedError,
    ExpectedVersion,
    HistoryEvent,
    LoopEvent,
    LoopStarted,
    MergeQueued,
    VersionConflictError,
)
from projections.testing._promises import (
    EACH,
    HERON,
    OTTER,
    TASKS,
    OpenLog,
    completed,
    fill,
    iterations_of,
    raises,
    read_stream,
)

__all__ = ["AppendPromises"]


class AppendPromises:
    """Places, expected versions, all or nothing, keys."""

    # --- appending and reading ---

    async def test_an_append_tells_where_its_last_event_ended(self, open_log: OpenLog) -> None:
        """Version and position are those of the last event, and the log's position follows."""
        async with open_log() as store:
            first = await store.append(OTTER, completed(1, 2), expected_version=ANY)
            assert first == Appended(version=2, position=first.position)
            assert first.position >= first.version
            second = await store.append(OTTER, completed(3), expected_version=ANY)
            assert second.version == 3
            assert second.position > first.position
            assert store.position == second.position

    async def test_every_event_reads_back_as_it_was_appended(self, open_log: OpenLog) -> None:
        """Event, data, meta, key, timestamp and stream; texts with all of Unicode in them."""
        at = datetime(2026, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)
        text = "a\n\u2028\x00\x7f\U0001f9a6é"
        event = HistoryEvent[LoopEvent](LoopStarted(prompt=text), {"cost": [1, 2.5, None]}, at)
        async with open_log() as store:
            done = await store.append(
                OTTER, [event], expected_version=ANY, key="a key", meta={"actor": text}
            )
            (found,) = await read_stream(store)
        assert (found.event, found.data) == (event.event, event.data)
        assert (found.timestamp, found.stream, found.key) == (at, OTTER, "a key")
        assert dict(found.meta) == {"actor": text}
        assert (found.version, found.position) == (done.version, done.position)

    async def test_an_event_without_a_timestamp_gets_one(self, open_log: OpenLog) -> None:
        """It is aware, and about now."""
        before = datetime.now(UTC)
        async with open_log() as store:
            await store.append(OTTER, completed(1), expected_version=ANY)
            (found,) = await read_stream(store)
        assert found.timestamp.utcoffset() == timedelta()
        assert abs(found.timestamp - before) < timedelta(minutes=10)

    async def test_versions_count_a_streams_events_and_positions_grow(
        self, open_log: OpenLog
    ) -> None:
        """1, 2, 3 in each stream; strictly increasing over the log, in the order of appends."""
        async with open_log() as store:
            for number in range(6):
                stream = (OTTER, HERON)[number % 2]
                await store.append(stream, completed(number, number), expected_version=ANY)
            everything = [recorded async for recorded in store.read_all()]
            for stream in (OTTER, HERON):
                own = [recorded for recorded in everything if recorded.stream == stream]
                assert [recorded.version for recorded in own] == [1, 2, 3, 4, 5, 6]
                assert await read_stream(store, stream) == own
                assert await store.version(stream) == 6
        positions = [recorded.position for recorded in everything]
        assert positions == sorted(set(positions))
        assert iterations_of(everything) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]

    async def test_a_stream_that_does_not_exist_is_empty(self, open_log: OpenLog) -> None:
        """Version 0, no events, no error; also in a log that has others."""
        async with open_log() as store:
            assert store.position == 0
            for _ in range(2):
                assert await store.version("nobody") == 0
                assert await read_stream(store, "nobody") == []
                await store.append(OTTER, completed(1), expected_version=ANY)

    async def test_what_was_acknowledged_is_there_after_reopening(self, open_log: OpenLog) -> None:
        """With its places, and counting goes on where it was."""
        async with open_log() as store:
            await fill(store)
            before = [recorded async for recorded in store.read_all()]
            position = store.position
        async with open_log() as store:
            assert [recorded async for recorded in store.read_all()] == before
            assert store.position == position
            done = await store.append(OTTER, completed(6), expected_version=5)
            assert done.version == 6
            assert done.position > position

    # --- expected versions ---

    async def test_an_exact_version_is_compared(self, open_log: OpenLog) -> None:
        """The right one records; any other is a conflict, tells the version, records nothing."""
        async with open_log() as store:
            await store.append(OTTER, completed(1, 2), expected_version=NO_STREAM)
            for wrong in (0, 1, 3):
                with raises(VersionConflictError) as raised:
                    await store.append(OTTER, completed(9), expected_version=wrong)
                conflict = cast("VersionConflictError", raised[0])
                assert (conflict.stream, conflict.actual) == (OTTER, 2)
            done = await store.append(OTTER, completed(3), expected_version=2)
            assert done.version == 3
            assert iterations_of(await read_stream(store)) == [1, 2, 3]

    async def test_the_named_expectations_are_kept(self, open_log: OpenLog) -> None:
        """NO_STREAM, STREAM_EXISTS and ANY, on a stream that exists and on one that does not."""
        accepted: list[tuple[ExpectedVersion, bool, bool]] = [
            (NO_STREAM, True, False),
            (STREAM_EXISTS, False, True),
            (ANY, True, True),
        ]
        async with open_log() as store:
            await store.append(OTTER, completed(1), expected_version=ANY)
            for expectation, if_absent, if_there in accepted:
                for stream, is_accepted in (
                    (f"new-{if_absent}-{if_there}", if_absent),
                    (OTTER, if_there),
                ):
                    append = functools.partial(
                        store.append, stream, completed(1), expected_version=expectation
                    )
                    version = await store.version(stream)
                    if is_accepted:
                        await append()
                    else:
                        with raises(VersionConflictError):
                            await append()
                    assert await store.version(stream) == version + is_accepted

    async def test_of_many_writers_with_one_belief_one_wins(self, open_log: OpenLog) -> None:
        """All the others learn that they were wrong."""
        winners: list[int] = []
        async with open_log() as store, anyio.create_task_group() as tasks:

            async def write(number: int) -> None:
                try:
                    await store.append(OTTER, completed(number), expected_version=NO_STREAM)
                except VersionConflictError:
                    return
                winners.append(number)

            for number in range(TASKS):
                tasks.start_soon(write, number)
        async with open_log() as store:
            assert iterations_of(await read_stream(store)) == winners
        assert len(winners) == 1

    # --- all or nothing ---

    async def test_what_cannot_be_recorded_is_refused_whole(self, open_log: OpenLog) -> None:
        """One bad event, a bad name, no event at all: an error, and nothing is recorded."""
        nan = HistoryEvent[LoopEvent](MergeQueued(), data={"cost": float("nan")})
        no_event: Any = "merge_queued"
        attempts: list[tuple[str, Sequence[LoopEvent | HistoryEvent[LoopEvent]]]] = [
            (OTTER, []),
            (OTTER, [MergeQueued(), nan]),
            (OTTER, [MergeQueued(), no_event]),
            (OTTER, [LoopStarted(prompt="\ud800")]),
            ("", [MergeQueued()]),
            ("../otter", [MergeQueued()]),
            ("o" * 201, [MergeQueued()]),
        ]
        async with open_log() as store:
            for stream, events in attempts:
                with raises(EventRefusedError):
                    await store.append(stream, events, expected_version=ANY)
            assert [recorded async for recorded in store.read_all()] == []
            await store.append(OTTER, completed(1), expected_version=NO_STREAM)

    async def test_concurrent_appends_are_recorded_once_and_whole(self, open_log: OpenLog) -> None:
        """Every one, its events adjacent, and those of one task in its order."""
        async with open_log() as store:
            async with anyio.create_task_group() as tasks:

                async def write(task: int) -> None:
                    for number in range(EACH):
                        events = [EventPublished(topic=f"{task}", payload=f"{number}")] * 2
                        await store.append(OTTER, events, expected_version=ANY)

                for task in range(TASKS):
                    tasks.start_soon(write, task)
            found = await read_stream(store)
        events = [cast("EventPublished", recorded.event) for recorded in found]
        assert [recorded.version for recorded in found] == list(range(1, 2 * TASKS * EACH + 1))
        assert events[::2] == events[1::2]
        for task in range(TASKS):
            own = [event.payload for event in events[::2] if event.topic == f"{task}"]
            assert own == [f"{number}" for number in range(EACH)]

    async def test_a_cancelled_append_is_recorded_whole_or_not_at_all(
        self, open_log: OpenLog
    ) -> None:
        """However long it was let run; and the store goes on."""
        async with open_log() as store:
            for pauses in range(12):
                stream = f"cancelled-{pauses}"
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(
                        functools.partial(
                            store.append, stream, completed(1, 2, 3), expected_version=NO_STREAM
                        )
                    )
                    for _ in range(pauses):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                await store.append(OTTER, completed(pauses), expected_version=pauses)
                assert await store.version(stream) in (0, 3)
                assert len(await read_stream(store, stream)) == await store.version(stream)

    # --- keys ---

    async def test_an_append_with_a_known_key_gives_its_first_result(
        self, open_log: OpenLog
    ) -> None:
        """Whatever is expected, how much was recorded since, and after reopening."""
        for _ in range(2):
            async with open_log() as store:
                first = await store.append(OTTER, completed(1, 2), expected_version=ANY, key="one")
                await store.append(OTTER, completed(3), expected_version=ANY, key="two")
                for expected in (NO_STREAM, 77, STREAM_EXISTS):
                    again = await store.append(
                        OTTER, completed(1, 2), expected_version=expected, key="one"
                    )
                    assert again == first
                assert first.version == 2
                assert iterations_of(await read_stream(store)) == [1, 2, 3]

    async def test_a_key_with_other_events_is_refused(self, open_log: OpenLog) -> None:
        """It would be neither a retry nor a new append; nothing is recorded."""
        async with open_log() as store:
            await store.append(OTTER, completed(1), expected_version=ANY, key="one")
            for events in (completed(2), completed(1, 1)):
                with raises(EventRefusedError):
                    await store.append(OTTER, events, expected_version=ANY, key="one")
            assert iterations_of(await read_stream(store)) == [1]

    async def test_a_key_is_a_streams_own(self, open_log: OpenLog) -> None:
        """Another stream may use the same one."""
        async with open_log() as store:
            for stream in (OTTER, HERON):
                await store.append(stream, completed(1), expected_version=NO_STREAM, key="one")
            assert len([recorded async for recorded in store.read_all()]) == 2

    async def test_of_many_retries_at_once_one_is_recorded(self, open_log: OpenLog) -> None:
        """All get the same result."""
        results: list[Appended] = []
        async with open_log() as store:
            async with anyio.create_task_group() as tasks:

                async def write() -> None:
                    results.append(
                        await store.append(OTTER, completed(1), expected_version=0, key="one")
                    )

                for _ in range(TASKS):
                    tasks.start_soon(write)
            assert iterations_of(await read_stream(store)) == [1]
        assert len(results) == TASKS
        assert len(set(map(str, results))) == 1
