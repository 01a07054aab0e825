"""What every backend must show: the promises of `EventStore`, one test each."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, cast

import anyio
import anyio.lowlevel

from eventstore import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Appended,
    EventPublished,
    EventRefusedError,
    EventStore,
    ExpectedVersion,
    HistoryEvent,
    IterationCompleted,
    IterationStarted,
    LoopEvent,
    LoopStarted,
    MergeQueued,
    Page,
    Recorded,
    VersionConflictError,
)

__all__ = ["OpenLog", "StoreConformance"]

OpenLog: TypeAlias = Callable[[], AbstractAsyncContextManager[EventStore[LoopEvent]]]
"""Opens one and the same log each time, with the twelve kinds; it is empty at first."""

_OTTER: Final = "bright-otter"
_HERON: Final = "calm-heron"
_TASKS: Final = 16
_EACH: Final = 8


class StoreConformance:
    """The contract of `EventStore`, as tests for a backend of your own.

    Subclass it in a test module, and provide a fixture `open_log` that gives an `OpenLog`::

        @pytest.mark.anyio
        class TestMyStore(StoreConformance):
            @pytest.fixture
            def open_log(self, tmp_path: Path) -> OpenLog:
                return functools.partial(open_my_store, tmp_path / "log")

    A test that your backend cannot pass yet is best overridden and marked `xfail`, with the reason.

    Attributes:
        stuck_seconds: how long a subscriber may wait for what is there.
    """

    stuck_seconds: float = 30.0

    # --- appending and reading ---

    async def test_an_append_tells_where_its_last_event_ended(self, open_log: OpenLog) -> None:
        """Version and position are those of the last event, and the log's position follows."""
        async with open_log() as store:
            first = await store.append(_OTTER, _completed(1, 2), expected_version=ANY)
            assert first == Appended(version=2, position=first.position)
            assert first.position >= first.version
            second = await store.append(_OTTER, _completed(3), expected_version=ANY)
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
                _OTTER, [event], expected_version=ANY, key="a key", meta={"actor": text}
            )
            (found,) = await _read(store)
        assert (found.event, found.data) == (event.event, event.data)
        assert (found.timestamp, found.stream, found.key) == (at, _OTTER, "a key")
        assert dict(found.meta) == {"actor": text}
        assert (found.version, found.position) == (done.version, done.position)

    async def test_an_event_without_a_timestamp_gets_one(self, open_log: OpenLog) -> None:
        """It is aware, and about now."""
        before = datetime.now(UTC)
        async with open_log() as store:
            await store.append(_OTTER, _completed(1), expected_version=ANY)
            (found,) = await _read(store)
        assert found.timestamp.utcoffset() == timedelta()
        assert abs(found.timestamp - before) < timedelta(minutes=10)

    async def test_versions_count_a_streams_events_and_positions_grow(
        self, open_log: OpenLog
    ) -> None:
        """1, 2, 3 in each stream; strictly increasing over the log, in the order of appends."""
        async with open_log() as store:
            for number in range(6):
                stream = (_OTTER, _HERON)[number % 2]
                await store.append(stream, _completed(number, number), expected_version=ANY)
            everything = [recorded async for recorded in store.read_all()]
            for stream in (_OTTER, _HERON):
                own = [recorded for recorded in everything if recorded.stream == stream]
                assert [recorded.version for recorded in own] == [1, 2, 3, 4, 5, 6]
                assert await _read(store, stream) == own
                assert await store.version(stream) == 6
        positions = [recorded.position for recorded in everything]
        assert positions == sorted(set(positions))
        assert _numbers(everything) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]

    async def test_a_stream_that_does_not_exist_is_empty(self, open_log: OpenLog) -> None:
        """Version 0, no events, no error; also in a log that has others."""
        async with open_log() as store:
            assert store.position == 0
            for _ in range(2):
                assert await store.version("nobody") == 0
                assert await _read(store, "nobody") == []
                await store.append(_OTTER, _completed(1), expected_version=ANY)

    async def test_reading_a_stream_is_slicing_its_events(self, open_log: OpenLog) -> None:
        """`after_version`, `backwards` and `limit` in every combination."""
        async with open_log() as store:
            await _fill(store)
            everything = await _read(store)
            assert len(everything) == 5
            for after, backwards, limit in _slices(len(everything)):
                found = [
                    recorded
                    async for recorded in store.read(
                        _OTTER, after_version=after, backwards=backwards, limit=limit
                    )
                ]
                assert found == _slice(everything, after, limit, backwards=backwards)

    async def test_reading_the_log_is_slicing_its_events(self, open_log: OpenLog) -> None:
        """`after_position`, `backwards` and `limit` in every combination."""
        async with open_log() as store:
            await _fill(store)
            everything = [recorded async for recorded in store.read_all()]
            assert len(everything) == 10
            for after, backwards, limit in _slices(len(everything)):
                position = everything[after - 1].position if after else 0
                found = [
                    recorded
                    async for recorded in store.read_all(
                        after_position=position, backwards=backwards, limit=limit
                    )
                ]
                assert found == _slice(everything, after, limit, backwards=backwards)

    async def test_a_reader_may_stop_at_any_event(self, open_log: OpenLog) -> None:
        """Leaving an iteration holds nothing: appending and reading go on."""
        async with open_log() as store:
            await _fill(store)
            async with _closing(store.read_all()) as events:
                await anext(events)
            await store.append(_OTTER, _completed(6), expected_version=5)
            assert len(await _read(store)) == 6

    async def test_what_was_acknowledged_is_there_after_reopening(self, open_log: OpenLog) -> None:
        """With its places, and counting goes on where it was."""
        async with open_log() as store:
            await _fill(store)
            before = [recorded async for recorded in store.read_all()]
            position = store.position
        async with open_log() as store:
            assert [recorded async for recorded in store.read_all()] == before
            assert store.position == position
            done = await store.append(_OTTER, _completed(6), expected_version=5)
            assert done.version == 6
            assert done.position > position

    # --- expected versions ---

    async def test_an_exact_version_is_compared(self, open_log: OpenLog) -> None:
        """The right one records; any other is a conflict, tells the version, records nothing."""
        async with open_log() as store:
            await store.append(_OTTER, _completed(1, 2), expected_version=NO_STREAM)
            for wrong in (0, 1, 3):
                with _raises(VersionConflictError) as raised:
                    await store.append(_OTTER, _completed(9), expected_version=wrong)
                conflict = cast("VersionConflictError", raised[0])
                assert (conflict.stream, conflict.actual) == (_OTTER, 2)
            done = await store.append(_OTTER, _completed(3), expected_version=2)
            assert done.version == 3
            assert _numbers(await _read(store)) == [1, 2, 3]

    async def test_the_named_expectations_are_kept(self, open_log: OpenLog) -> None:
        """NO_STREAM, STREAM_EXISTS and ANY, on a stream that exists and on one that does not."""
        accepted: list[tuple[ExpectedVersion, bool, bool]] = [
            (NO_STREAM, True, False),
            (STREAM_EXISTS, False, True),
            (ANY, True, True),
        ]
        async with open_log() as store:
            await store.append(_OTTER, _completed(1), expected_version=ANY)
            for expectation, if_absent, if_there in accepted:
                for stream, is_accepted in (
                    (f"new-{if_absent}-{if_there}", if_absent),
                    (_OTTER, if_there),
                ):
                    append = functools.partial(
                        store.append, stream, _completed(1), expected_version=expectation
                    )
                    version = await store.version(stream)
                    if is_accepted:
                        await append()
                    else:
                        with _raises(VersionConflictError):
                            await append()
                    assert await store.version(stream) == version + is_accepted

    async def test_of_many_writers_with_one_belief_one_wins(self, open_log: OpenLog) -> None:
        """All the others learn that they were wrong."""
        winners: list[int] = []
        async with open_log() as store, anyio.create_task_group() as tasks:

            async def write(number: int) -> None:
                try:
                    await store.append(_OTTER, _completed(number), expected_version=NO_STREAM)
                except VersionConflictError:
                    return
                winners.append(number)

            for number in range(_TASKS):
                tasks.start_soon(write, number)
        async with open_log() as store:
            assert _numbers(await _read(store)) == winners
        assert len(winners) == 1

    # --- all or nothing ---

    async def test_what_cannot_be_recorded_is_refused_whole(self, open_log: OpenLog) -> None:
        """One bad event, a bad name, no event at all: an error, and nothing is recorded."""
        nan = HistoryEvent[LoopEvent](MergeQueued(), data={"cost": float("nan")})
        no_event: Any = "merge_queued"
        attempts: list[tuple[str, Sequence[LoopEvent | HistoryEvent[LoopEvent]]]] = [
            (_OTTER, []),
            (_OTTER, [MergeQueued(), nan]),
            (_OTTER, [MergeQueued(), no_event]),
            (_OTTER, [LoopStarted(prompt="\ud800")]),
            ("", [MergeQueued()]),
            ("../otter", [MergeQueued()]),
            ("o" * 201, [MergeQueued()]),
        ]
        async with open_log() as store:
            for stream, events in attempts:
                with _raises(EventRefusedError):
                    await store.append(stream, events, expected_version=ANY)
            assert [recorded async for recorded in store.read_all()] == []
            await store.append(_OTTER, _completed(1), expected_version=NO_STREAM)

    async def test_concurrent_appends_are_recorded_once_and_whole(self, open_log: OpenLog) -> None:
        """Every one, its events adjacent, and those of one task in its order."""
        async with open_log() as store:
            async with anyio.create_task_group() as tasks:

                async def write(task: int) -> None:
                    for number in range(_EACH):
                        events = [EventPublished(topic=f"{task}", payload=f"{number}")] * 2
                        await store.append(_OTTER, events, expected_version=ANY)

                for task in range(_TASKS):
                    tasks.start_soon(write, task)
            found = await _read(store)
        events = [cast("EventPublished", recorded.event) for recorded in found]
        assert [recorded.version for recorded in found] == list(range(1, 2 * _TASKS * _EACH + 1))
        assert events[::2] == events[1::2]
        for task in range(_TASKS):
            own = [event.payload for event in events[::2] if event.topic == f"{task}"]
            assert own == [f"{number}" for number in range(_EACH)]

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
                            store.append, stream, _completed(1, 2, 3), expected_version=NO_STREAM
                        )
                    )
                    for _ in range(pauses):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                await store.append(_OTTER, _completed(pauses), expected_version=pauses)
                assert await store.version(stream) in (0, 3)
                assert len(await _read(store, stream)) == await store.version(stream)

    # --- keys ---

    async def test_an_append_with_a_known_key_gives_its_first_result(
        self, open_log: OpenLog
    ) -> None:
        """Whatever is expected, how much was recorded since, and after reopening."""
        for _ in range(2):
            async with open_log() as store:
                first = await store.append(
                    _OTTER, _completed(1, 2), expected_version=ANY, key="one"
                )
                await store.append(_OTTER, _completed(3), expected_version=ANY, key="two")
                for expected in (NO_STREAM, 77, STREAM_EXISTS):
                    again = await store.append(
                        _OTTER, _completed(1, 2), expected_version=expected, key="one"
                    )
                    assert again == first
                assert first.version == 2
                assert _numbers(await _read(store)) == [1, 2, 3]

    async def test_a_key_with_other_events_is_refused(self, open_log: OpenLog) -> None:
        """It would be neither a retry nor a new append; nothing is recorded."""
        async with open_log() as store:
            await store.append(_OTTER, _completed(1), expected_version=ANY, key="one")
            for events in (_completed(2), _completed(1, 1)):
                with _raises(EventRefusedError):
                    await store.append(_OTTER, events, expected_version=ANY, key="one")
            assert _numbers(await _read(store)) == [1]

    async def test_a_key_is_a_streams_own(self, open_log: OpenLog) -> None:
        """Another stream may use the same one."""
        async with open_log() as store:
            for stream in (_OTTER, _HERON):
                await store.append(stream, _completed(1), expected_version=NO_STREAM, key="one")
            assert len([recorded async for recorded in store.read_all()]) == 2

    async def test_of_many_retries_at_once_one_is_recorded(self, open_log: OpenLog) -> None:
        """All get the same result."""
        results: list[Appended] = []
        async with open_log() as store:
            async with anyio.create_task_group() as tasks:

                async def write() -> None:
                    results.append(
                        await store.append(_OTTER, _completed(1), expected_version=0, key="one")
                    )

                for _ in range(_TASKS):
                    tasks.start_soon(write)
            assert _numbers(await _read(store)) == [1]
        assert len(results) == _TASKS
        assert len(set(map(str, results))) == 1

    # --- subscribing ---

    async def test_a_subscriber_sees_the_past_and_then_what_comes(self, open_log: OpenLog) -> None:
        """Every event once, in order, without a gap between history and present."""
        async with open_log() as store, _closing(store.subscribe()) as events:
            await store.append(_OTTER, _completed(1, 2), expected_version=ANY)
            found = await self._take(events, 2)
            for number in (3, 4, 5):
                await store.append(_HERON, _completed(number), expected_version=ANY)
            found += await self._take(events, 3)
            assert found == [recorded async for recorded in store.read_all()]
            assert _numbers(found) == [1, 2, 3, 4, 5]

    async def test_a_subscriber_goes_on_from_its_checkpoint(self, open_log: OpenLog) -> None:
        """It sees exactly what stands behind the position it names, be it the log's end."""
        async with open_log() as store:
            await _fill(store)
            everything = [recorded async for recorded in store.read_all()]
            for seen in (0, 3, len(everything)):
                position = everything[seen - 1].position if seen else 0
                async with _closing(store.subscribe(after_position=position)) as events:
                    found = await self._take(events, len(everything) - seen)
                    assert found == everything[seen:]
            async with _closing(store.subscribe(after_position=store.position)) as events:
                await store.append(_OTTER, _completed(6), expected_version=ANY)
                assert _numbers(await self._take(events, 1)) == [6]

    async def test_many_subscribers_see_the_same_while_others_write(
        self, open_log: OpenLog
    ) -> None:
        """Each one everything, in one order, whenever it joined."""
        seen: dict[int, list[int]] = {}
        total = _TASKS * _EACH
        async with open_log() as store, anyio.create_task_group() as tasks:

            async def follow(number: int) -> None:
                async with _closing(store.subscribe()) as events:
                    seen[number] = [
                        recorded.position for recorded in await self._take(events, total)
                    ]

            async def write(number: int) -> None:
                for _ in range(_EACH):
                    await store.append(f"s{number}", _completed(number), expected_version=ANY)

            for number in range(_TASKS):
                tasks.start_soon(write, number)
                if number % 4 == 0:
                    tasks.start_soon(follow, number)
        async with open_log() as store:
            everything = [recorded.position async for recorded in store.read_all()]
        assert len(everything) == total
        assert list(seen.values()) == [everything] * 4

    # --- scanning ---

    async def test_a_scan_gives_the_pages_of_what_reading_gives(self, open_log: OpenLog) -> None:
        """By stream or all, behind a place, in both directions, with data or without."""

        def collect(pages: Iterator[Page[LoopEvent]]) -> list[Recorded[LoopEvent]]:
            return [recorded for page in pages for recorded in page]

        async with open_log() as store:
            await _fill(store)
            for stream in (_OTTER, None):
                reading = store.read_all() if stream is None else store.read(stream)
                everything = [recorded async for recorded in reading]
                for after, backwards, _ in _slices(len(everything)):
                    place = after
                    if stream is None and after:
                        place = everything[after - 1].position
                    expected = _slice(everything, after, None, backwards=backwards)
                    found = await store.scan(
                        collect, stream=stream, after=place, backwards=backwards
                    )
                    assert found == expected
                    bare = await store.scan(
                        collect, stream=stream, after=place, backwards=backwards, data=False
                    )
                    assert [recorded.data for recorded in bare] == [None] * len(expected)
                    assert [r.position for r in bare] == [r.position for r in expected]

    async def test_a_scan_may_stop_early_and_what_it_raises_is_the_callers(
        self, open_log: OpenLog
    ) -> None:
        """The result or the error of `work` comes back as it is."""

        def first(pages: Iterator[Page[LoopEvent]]) -> int:
            return next(pages)[0].version

        def fail(_: Iterator[Page[LoopEvent]]) -> int:
            msg = "the work failed"
            raise LookupError(msg)

        async with open_log() as store:
            await _fill(store)
            assert await store.scan(first, stream=_OTTER) == 1
            with _raises(LookupError):
                await store.scan(fail)
            assert await store.scan(first, stream=_OTTER, backwards=True) == 5

    async def _take(
        self, events: AsyncIterator[Recorded[LoopEvent]], count: int
    ) -> list[Recorded[LoopEvent]]:
        with anyio.fail_after(self.stuck_seconds):
            return [await anext(events) for _ in range(count)]


def _completed(*iterations: int) -> list[LoopEvent]:
    return [IterationCompleted(iteration=iteration, success=True) for iteration in iterations]


async def _fill(store: EventStore[LoopEvent]) -> None:
    """Two streams of five events that alternate, with data beside them."""
    for number in range(1, 6):
        for stream in (_OTTER, _HERON):
            event = HistoryEvent[LoopEvent](IterationStarted(iteration=number), data={"n": number})
            await store.append(stream, [event], expected_version=number - 1)


async def _read(store: EventStore[LoopEvent], stream: str = _OTTER) -> list[Recorded[LoopEvent]]:
    return [recorded async for recorded in store.read(stream)]


def _numbers(events: Sequence[Recorded[LoopEvent]]) -> list[int]:
    return [cast("IterationCompleted", recorded.event).iteration for recorded in events]


def _slices(count: int) -> Iterator[tuple[int, bool, int | None]]:
    for after in (0, 1, count - 1, count, count + 3):
        for backwards in (False, True):
            for limit in (None, 0, 1, 3, count + 3):
                yield min(after, count), backwards, limit


def _slice(
    everything: Sequence[Recorded[LoopEvent]], after: int, limit: int | None, *, backwards: bool
) -> Sequence[Recorded[LoopEvent]]:
    wanted = everything[after:]
    return (wanted[::-1] if backwards else wanted)[:limit]


@asynccontextmanager
async def _closing(
    events: AsyncIterator[Recorded[LoopEvent]],
) -> AsyncGenerator[AsyncIterator[Recorded[LoopEvent]]]:
    """End an iteration here and now, which trio wants to be done."""
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


@contextmanager
def _raises(error: type[Exception]) -> Generator[list[Exception]]:
    raised: list[Exception] = []
    try:
        yield raised
    except error as expected:
        raised.append(expected)
        return
    msg = f"{error.__name__} was not raised"
    raise AssertionError(msg)
