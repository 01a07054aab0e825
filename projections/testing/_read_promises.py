"""What a backend promises of reading, one test each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio

from eventstore import (
    ANY,
    LoopEvent,
    Page,
    Recorded,
)
from projections.testing._promises import (
    EACH,
    HERON,
    OTTER,
    TASKS,
    OpenLog,
    closing,
    completed,
    fill,
    iterations_of,
    raises,
    read_stream,
    sliced,
    slices,
)

__all__ = ["ReadPromises"]


class ReadPromises:
    """Slices, subscriptions, scans."""

    stuck_seconds: float = 30.0

    async def test_reading_a_stream_is_slicing_its_events(self, open_log: OpenLog) -> None:
        """`after_version`, `backwards` and `limit` in every combination."""
        async with open_log() as store:
            await fill(store)
            everything = await read_stream(store)
            assert len(everything) == 5
            for after, backwards, limit in slices(len(everything)):
                found = [
                    recorded
                    async for recorded in store.read(
                        OTTER, after_version=after, backwards=backwards, limit=limit
                    )
                ]
                assert found == sliced(everything, after, limit, backwards=backwards)

    async def test_reading_the_log_is_slicing_its_events(self, open_log: OpenLog) -> None:
        """`after_position`, `backwards` and `limit` in every combination."""
        async with open_log() as store:
            await fill(store)
            everything = [recorded async for recorded in store.read_all()]
            assert len(everything) == 10
            for after, backwards, limit in slices(len(everything)):
                position = everything[after - 1].position if after else 0
                found = [
                    recorded
                    async for recorded in store.read_all(
                        after_position=position, backwards=backwards, limit=limit
                    )
                ]
                assert found == sliced(everything, after, limit, backwards=backwards)

    async def test_a_reader_may_stop_at_any_event(self, open_log: OpenLog) -> None:
        """Leaving an iteration holds nothing: appending and reading go on."""
        async with open_log() as store:
            await fill(store)
            async with closing(store.read_all()) as events:
                await anext(events)
            await store.append(OTTER, completed(6), expected_version=5)
            assert len(await read_stream(store)) == 6

    # --- subscribing ---

    async def test_a_subscriber_sees_the_past_and_then_what_comes(self, open_log: OpenLog) -> None:
        """Every event once, in order, without a gap between history and present."""
        async with open_log() as store, closing(store.subscribe()) as events:
            await store.append(OTTER, completed(1, 2), expected_version=ANY)
            found = await self._take(events, 2)
            for number in (3, 4, 5):
                await store.append(HERON, completed(number), expected_version=ANY)
            found += await self._take(events, 3)
            assert found == [recorded async for recorded in store.read_all()]
            assert iterations_of(found) == [1, 2, 3, 4, 5]

    async def test_a_subscriber_goes_on_from_its_checkpoint(self, open_log: OpenLog) -> None:
        """It sees exactly what stands behind the position it names, be it the log's end."""
        async with open_log() as store:
            await fill(store)
            everything = [recorded async for recorded in store.read_all()]
            for seen in (0, 3, len(everything)):
                position = everything[seen - 1].position if seen else 0
                async with closing(store.subscribe(after_position=position)) as events:
                    found = await self._take(events, len(everything) - seen)
                    assert found == everything[seen:]
            async with closing(store.subscribe(after_position=store.position)) as events:
                await store.append(OTTER, completed(6), expected_version=ANY)
                assert iterations_of(await self._take(events, 1)) == [6]

    async def test_many_subscribers_see_the_same_while_others_write(
        self, open_log: OpenLog
    ) -> None:
        """Each one everything, in one order, whenever it joined."""
        seen: dict[int, list[int]] = {}
        total = TASKS * EACH
        async with open_log() as store, anyio.create_task_group() as tasks:

            async def follow(number: int) -> None:
                async with closing(store.subscribe()) as events:
                    seen[number] = [
                        recorded.position for recorded in await self._take(events, total)
                    ]

            async def write(number: int) -> None:
                for _ in range(EACH):
                    await store.append(f"s{number}", completed(number), expected_version=ANY)

            for number in range(TASKS):
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
            await fill(store)
            for stream in (OTTER, None):
                reading = store.read_all() if stream is None else store.read(stream)
                everything = [recorded async for recorded in reading]
                for after, backwards, _ in slices(len(everything)):
                    place = after
                    if stream is None and after:
                        place = everything[after - 1].position
                    expected = sliced(everything, after, None, backwards=backwards)
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
            await fill(store)
            assert await store.scan(first, stream=OTTER) == 1
            with raises(LookupError):
                await store.scan(fail)
            assert await store.scan(first, stream=OTTER, backwards=True) == 5

    async def _take(
        self, events: AsyncIterator[Recorded[LoopEvent]], count: int
    ) -> list[Recorded[LoopEvent]]:
        with anyio.fail_after(self.stuck_seconds):
            return [await anext(events) for _ in range(count)]
