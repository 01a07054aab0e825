"""Cancellation: whoever waits may stop waiting at any time, and what happened is well defined."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import anyio
import pytest

import eventstore as es
from tests._files import Call, FilesAround, GatedFiles
from tests.contract._backends import ACTIVE, NAMES, Backend, following, take, until

pytestmark = pytest.mark.anyio

EVENT: Final = es.MergeQueued()
SYNC: Final = Call("fdatasync", ACTIVE)

ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param("asyncio", id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop"),
    ],
)
"""`task.cancel()` ignores shields and exists on asyncio only."""


async def append(store: es.LogStore[es.LoopEvent], stream: str, count: int = 1) -> es.Appended:
    """Append to a stream that tells the appends apart."""
    return await store.append(stream, [EVENT] * count, expected_version=es.ANY)


async def streams(backend: Backend) -> list[str]:
    """Where the events are, found by opening the log anew."""
    async with backend.open() as store:
        return [r.stream async for r in store.read_all()]


# --- an append ---


async def test_an_append_cancelled_in_the_queue_is_not_recorded(backend: Backend) -> None:
    """While another commit is at work, what waits can still be taken back."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:
        with files.shut():
            tasks.start_soon(append, store, "first")
            await files.reached()
            tasks.start_soon(append, store, "stays")
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(append, store, "cancelled", 3)
                await anyio.wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
    assert await streams(backend) == ["first", "stays"]


@ASYNCIO
async def test_an_append_whose_task_is_cancelled_in_the_queue_is_not_recorded(
    backend: Backend,
) -> None:
    """The same under a native `task.cancel()`."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store:
        with files.shut():
            first = asyncio.create_task(append(store, "first"))
            await files.reached()
            waiting = asyncio.create_task(append(store, "cancelled", 3))
            await anyio.wait_all_tasks_blocked()
            await _cancel(waiting)
        await first
    assert await streams(backend) == ["first"]


async def test_an_append_cancelled_in_flight_is_recorded_whole(backend: Backend) -> None:
    """Once its commit began it is finished, although nobody waits for it any more."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store:
        with files.shut():
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(append, store, "otter", 3)
                await files.reached()
                impatient.cancel_scope.cancel()
        assert await append(store, "heron") == es.Appended(version=1, position=4)
    assert await streams(backend) == ["otter", "otter", "otter", "heron"]


@ASYNCIO
async def test_an_append_whose_task_is_cancelled_in_flight_is_recorded_whole(
    backend: Backend,
) -> None:
    """The same under a native `task.cancel()`, which no shield stops."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store:
        with files.shut():
            task = asyncio.create_task(append(store, "otter", 3))
            await files.reached()
            await _cancel(task)
        assert await append(store, "heron") == es.Appended(version=1, position=4)
    assert await streams(backend) == ["otter", "otter", "otter", "heron"]


async def test_an_append_waits_for_room(backend: Backend) -> None:
    """When enough bytes wait for the disk an append waits too, and goes on when there is room."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store:
        store._writer._pending_bytes_max = 1_000
        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(append, store, "first", 20)
                await files.reached()
                for number in range(5):
                    tasks.start_soon(append, store, f"later-{number}")
                await anyio.wait_all_tasks_blocked()
                assert store._writer._next.requests == []
    assert sorted(await streams(backend)) == ["first"] * 20 + [f"later-{n}" for n in range(5)]


async def test_an_append_cancelled_while_it_waits_for_room_is_not_recorded(
    backend: Backend,
) -> None:
    """It was never accepted; those behind it are not held up."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store:
        store._writer._pending_bytes_max = 1_000
        async with anyio.create_task_group() as tasks:
            with files.shut():
                tasks.start_soon(append, store, "first", 20)
                await files.reached()
                async with anyio.create_task_group() as impatient:
                    impatient.start_soon(append, store, "cancelled")
                    await anyio.wait_all_tasks_blocked()
                    impatient.cancel_scope.cancel()
        await append(store, "next")
    assert await streams(backend) == ["first"] * 20 + ["next"]


@ASYNCIO
async def test_an_append_whose_task_is_cancelled_while_it_waits_for_room_is_not_recorded(
    backend: Backend,
) -> None:
    """The same under a native `task.cancel()`."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store:
        store._writer._pending_bytes_max = 1_000
        with files.shut():
            first = asyncio.create_task(append(store, "first", 20))
            await files.reached()
            waiting = asyncio.create_task(append(store, "cancelled"))
            await anyio.wait_all_tasks_blocked()
            await _cancel(waiting)
        await first
    assert await streams(backend) == ["first"] * 20


async def test_a_cancelled_append_gives_its_room_back(backend: Backend) -> None:
    """What is taken out of the queue no longer counts against the bound."""
    files = GatedFiles(backend.files, SYNC)
    async with backend.open_over(files) as store, anyio.create_task_group() as tasks:
        with files.shut():
            tasks.start_soon(append, store, "first")
            await files.reached()
            held = store._writer._pending_bytes
            for _ in range(3):
                async with anyio.create_task_group() as impatient:
                    impatient.start_soon(append, store, "cancelled", 100)
                    await anyio.wait_all_tasks_blocked()
                    impatient.cancel_scope.cancel()
            assert store._writer._pending_bytes == held
    assert await streams(backend) == ["first"]


# --- leaving the store ---


class _Host:
    """A task that holds a store open, so that a test can append while it leaves."""

    def __init__(self, backend: Backend, files: FilesAround) -> None:
        self.scope = anyio.CancelScope()
        self.leave = anyio.Event()
        self.has_left = False
        self.was_cancelled = False
        self._backend = backend
        self._files = files
        self._opened = anyio.Event()
        self._store: list[es.LogStore[es.LoopEvent]] = []

    async def run(self) -> None:
        with self.scope:
            try:
                async with self._backend.open_over(self._files) as store:
                    self._store.append(store)
                    self._opened.set()
                    await self.leave.wait()
            finally:
                self.has_left = True
        self.was_cancelled = self.scope.cancelled_caught

    async def store(self) -> es.LogStore[es.LoopEvent]:
        await self._opened.wait()
        return self._store[0]


async def test_leaving_a_store_records_what_it_accepted(backend: Backend) -> None:
    """The commit in flight and all that waits behind it: every caller gets its result."""
    files = GatedFiles(backend.files, SYNC)
    host = _Host(backend, files)
    results: list[es.Appended] = []

    async def append_one(stream: str) -> None:
        results.append(await append(await host.store(), stream))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.store()
        with files.shut():
            tasks.start_soon(append_one, "in-flight")
            await files.reached()
            for _ in range(4):
                tasks.start_soon(append_one, "waiting")
            await anyio.wait_all_tasks_blocked()
            host.leave.set()
            await anyio.wait_all_tasks_blocked()
            assert not host.has_left
    assert sorted(result.position for result in results) == [1, 2, 3, 4, 5]
    assert await streams(backend) == ["in-flight"] + ["waiting"] * 4
    assert backend.open_handles() == 0


async def test_leaving_a_store_refuses_what_it_had_no_room_for(backend: Backend) -> None:
    """An append that was not accepted when the store was left raises; nothing of it is recorded."""
    files = GatedFiles(backend.files, SYNC)
    host = _Host(backend, files)
    outcomes: list[str] = []

    async def append_one(stream: str, count: int) -> None:
        try:
            await append(await host.store(), stream, count)
            outcomes.append("recorded")
        except es.StoreClosedError:
            outcomes.append("closed")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        (await host.store())._writer._pending_bytes_max = 1_000
        with files.shut():
            tasks.start_soon(append_one, "first", 20)
            await files.reached()
            tasks.start_soon(append_one, "no-room", 1)
            await anyio.wait_all_tasks_blocked()
            host.leave.set()
            await anyio.wait_all_tasks_blocked()
            assert outcomes == ["closed"]
    assert outcomes == ["closed", "recorded"]
    assert await streams(backend) == ["first"] * 20


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_body_still_records_what_was_accepted(
    backend: Backend, times: int
) -> None:
    """Leaving waits for the disk also when it is cancelled, once or again and again."""
    files = GatedFiles(backend.files, SYNC)
    host = _Host(backend, files)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        store = await host.store()
        with files.shut():
            tasks.start_soon(append, store, "in-flight", 2)
            await files.reached()
            tasks.start_soon(append, store, "waiting")
            await anyio.wait_all_tasks_blocked()
            for _ in range(times):
                host.scope.cancel()
                await anyio.wait_all_tasks_blocked()
            assert not host.has_left
    assert host.was_cancelled
    assert await streams(backend) == ["in-flight", "in-flight", "waiting"]
    assert backend.open_handles() == 0


@ASYNCIO
@pytest.mark.parametrize("times", [1, 3])
async def test_a_body_whose_task_is_cancelled_still_records_what_was_accepted(
    backend: Backend, times: int
) -> None:
    """The same under a native `task.cancel()` of the task that holds the store."""
    files = GatedFiles(backend.files, SYNC)
    host = _Host(backend, files)
    task = asyncio.create_task(host.run())
    store = await host.store()
    with files.shut():
        in_flight = asyncio.create_task(append(store, "in-flight", 2))
        await files.reached()
        waiting = asyncio.create_task(append(store, "waiting"))
        await anyio.wait_all_tasks_blocked()
        for _ in range(times):
            task.cancel()
            await anyio.wait_all_tasks_blocked()
        assert not host.has_left
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await in_flight, await waiting) == (es.Appended(2, 2), es.Appended(1, 3))
    assert await streams(backend) == ["in-flight", "in-flight", "waiting"]
    assert backend.open_handles() == 0


@pytest.mark.parametrize(
    "error",
    [
        ValueError("of the body"),
        KeyboardInterrupt(),
        SystemExit(3),
        ExceptionGroup("of the body", [ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_in_the_body_comes_out_as_it_is(
    backend: Backend, error: BaseException
) -> None:
    """It is not wrapped in a group, what was accepted is recorded, and everything is closed."""
    with pytest.raises(type(error)) as caught:  # noqa: PT012 - the block under test is the body
        async with backend.open() as store:
            await append(store, "otter")
            raise error
    assert caught.value is error
    assert backend.open_handles() == 0
    assert await streams(backend) == ["otter"]


async def test_a_body_that_is_cancelled_closes_everything(backend: Backend) -> None:
    """Not one descriptor of the log is left, whatever the body was doing."""
    async with anyio.create_task_group() as tasks:

        async def body() -> None:
            async with backend.open() as store, following(store) as events:
                await append(store, "otter")
                await take(events, 1)
                assert backend.open_handles() > 0
                tasks.cancel_scope.cancel()
                await anyio.sleep_forever()

        tasks.start_soon(body)
    assert backend.open_handles() == 0


# --- opening ---


async def _hold_lock(backend: Backend) -> Callable[[], None]:
    """Hold the log's lock as another process would; call the result to let it go."""
    async with backend.open():
        pass
    handle = backend.files.open(NAMES.lock, "update")
    assert backend.files.try_lock(handle, exclusive=True)
    return lambda: backend.files.close(handle)


async def test_a_cancelled_opening_closes_everything(backend: Backend) -> None:
    """Cancelled while it waits for the lock, it ends, and leaves no handle and no lock behind."""
    let_go = await _hold_lock(backend)
    files = GatedFiles(backend.files, Call("try_lock", NAMES.lock))
    async with anyio.create_task_group() as tasks:
        with files.shut():
            tasks.start_soon(_open_and_stay, backend, files)
            await files.reached()
            tasks.cancel_scope.cancel()
            let_go()
    assert backend.open_handles() == 0
    assert await streams(backend) == []


@ASYNCIO
async def test_an_opening_whose_task_is_cancelled_closes_everything(backend: Backend) -> None:
    """The same under a native `task.cancel()`; no handle is used after it was closed."""
    let_go = await _hold_lock(backend)
    files = GatedFiles(backend.files, Call("try_lock", NAMES.lock))
    with files.shut():
        task = asyncio.create_task(_open_and_stay(backend, files))
        await files.reached()
        let_go()
        has_left = threading.Event()
        files.let_go_after(has_left)  # unless opening waits for its thread, which is as well
        await _cancel(task)
        has_left.set()
    await files.passed()
    assert files.used_after_close == []
    await until(lambda: backend.open_handles() == 0)
    assert await streams(backend) == []


async def _open_and_stay(backend: Backend, files: FilesAround) -> None:
    async with backend.open_over(files):
        await anyio.sleep_forever()


# --- reading ---

Reading = Callable[[es.LogStore[es.LoopEvent]], Awaitable[object]]


async def _version(store: es.LogStore[es.LoopEvent]) -> int:
    return await store.version("otter")


async def _read(store: es.LogStore[es.LoopEvent]) -> object:
    return [r async for r in store.read("otter")]


async def _read_backwards(store: es.LogStore[es.LoopEvent]) -> object:
    return [r async for r in store.read_all(backwards=True)]


async def _scan(store: es.LogStore[es.LoopEvent]) -> int:
    def count(pages: Iterator[es.Page[es.LoopEvent]]) -> int:
        return sum(map(len, pages))

    return await store.scan(count)


@pytest.mark.parametrize("reading", [_version, _read, _read_backwards, _scan])
async def test_a_cancelled_read_leaves_nothing_behind(backend: Backend, reading: Reading) -> None:
    """Cancelled with a file open, it lets go of it, and the store goes on."""
    files = GatedFiles(backend.files, Call("fstat", ACTIVE))
    async with backend.open() as other:
        async with backend.open_over(files) as store:
            await append(other, "otter", 3)
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    await reading(store)

                with files.shut():
                    tasks.start_soon(read)
                    await files.reached()
                    tasks.cancel_scope.cancel()
            assert (await append(store, "otter")).version == 4
        assert files.used_after_close == []
    assert backend.open_handles() == 0


@ASYNCIO
@pytest.mark.parametrize("reading", [_version, _read, _read_backwards, _scan])
async def test_leaving_while_an_abandoned_read_is_at_work_is_safe(
    backend: Backend, reading: Reading
) -> None:
    """A native `task.cancel()` leaves the thread running; no handle is closed under its hands."""
    files = GatedFiles(backend.files, Call("fstat", ACTIVE))

    async def read(store: es.LogStore[es.LoopEvent]) -> None:
        await reading(store)

    async with backend.open() as other:
        has_left = threading.Event()
        with ExitStack() as gate:
            async with backend.open_over(files) as store:
                await append(other, "otter", 3)
                gate.enter_context(files.shut())
                task = asyncio.create_task(read(store))
                await files.reached()
                await _cancel(task)
                files.let_go_after(
                    has_left
                )  # unless leaving waits for the thread, which is as well
            has_left.set()
            await files.passed()
        assert files.used_after_close == []
        assert (await append(other, "otter")).version == 4
    await until(lambda: backend.open_handles() == 0)


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
