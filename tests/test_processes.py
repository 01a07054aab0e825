"""Several processes on one log: real ones, that append, follow, stop, fork and delete."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

import eventstore as es
from eventstore._log._names import LogNames
from tests.contract._lines import check_lines

_SPAWN: Final = multiprocessing.get_context("spawn")
_PROCESSES: Final = 8
_STUCK_SECONDS: Final = 60.0
_LOOPS: Final[list[dict[str, Any]]] = [
    {"backend": "asyncio"},
    {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    {"backend": "trio"},
]

Work = Callable[..., Awaitable[Any]]


class Process:
    """A process that runs one async function of this module and sends back what it returns.

    Args:
        number: says which event loop it uses, and is the function's first argument.
        work: is given `number`, a connection to this test, and `args`.
    """

    def __init__(self, number: int, work: Work, *args: Any) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_run, args=(theirs, number, work, args), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process.pid is not None
        return self._process.pid

    def receive(self) -> Any:
        """The next thing the process sends; fails the test if it dies or stays silent."""
        assert self.connection.poll(_STUCK_SECONDS), "a process is stuck"
        try:
            return self.connection.recv()
        except EOFError:
            pytest.fail("a process died; it said why on stderr")

    def send(self, message: object) -> None:
        """Tell the process something."""
        self.connection.send(message)

    def end(self) -> Any:
        """Wait until the process is done, and return its result."""
        result = self.receive()
        self._process.join(_STUCK_SECONDS)
        assert self._process.exitcode == 0
        return result

    def kill(self) -> None:
        """End it, however it is."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Let go of everything that belongs to it."""
        self.kill()
        self.connection.close()
        self._process.close()


def _run(connection: Connection, number: int, work: Work, args: tuple[Any, ...]) -> None:
    async def main() -> Any:
        return await work(number, connection, *args)

    connection.send(anyio.run(main, **_LOOPS[number % len(_LOOPS)]))


class Crew:
    """The processes of one test."""

    def __init__(self) -> None:
        self._started: list[Process] = []

    def start(self, number: int, work: Work, *args: Any) -> Process:
        """Start a process, and wait until it is ready."""
        process = Process(number, work, *args)
        self._started.append(process)
        assert process.receive() == "ready"
        return process

    def run(self, work: Work, *args: Any, processes: int = _PROCESSES) -> list[Any]:
        """Start processes, let them begin at the same moment, and collect their results."""
        started = [Process(number, work, *args) for number in range(processes)]
        self._started += started
        for process in started:
            assert process.receive() == "ready"
        for process in started:
            process.send("go")
        return [process.end() for process in started]

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            process.close()


@pytest.fixture
def crew() -> Iterator[Crew]:
    """Starts processes; none outlives the test."""
    opened = Crew()
    yield opened
    opened.close()


def ready(connection: Connection) -> None:
    """Tell the test that this process is there, and wait until all are."""
    connection.send("ready")
    assert connection.recv() == "go"


def raw(path: Path) -> bytes:
    """All bytes of a log in order."""
    names = LogNames(path.name)
    segments = names.sealed_positions(os.listdir(path.parent))  # noqa: PTH208 - as the log does
    sealed = [path.with_name(names.sealed(first_position)) for first_position in segments]
    return b"".join(file.read_bytes() for file in [*sealed, path])


def label(record: dict[str, Any]) -> str:
    """What `_publish` wrote into a line to tell it by."""
    topic = record["type"]["topic"]
    assert isinstance(topic, str)
    return topic


# --- appending ---

_APPENDS: Final = 2_000
_TASKS: Final = 8


async def _append_many(
    number: int, connection: Connection, path: str
) -> list[tuple[str, int, int]]:
    """Append 2,000 events of 10 B to 100 kB from several tasks; tell where each one stands."""
    randomness = random.Random(number)
    acknowledged: list[tuple[str, int, int]] = []
    payload = "x" * 100_000

    async def append(store: es.LogStore[es.LoopEvent], task: int) -> None:
        for count in range(task, _APPENDS, _TASKS):
            name = f"{number}-{count}"
            size = int(10 ** randomness.uniform(1, 5))  # as many small ones as large ones
            event = es.EventPublished(topic=name, payload=payload[:size])
            stream = f"loop-{randomness.randrange(20)}"
            appended = await store.append(stream, [event], expected_version=es.ANY)
            acknowledged.append((name, appended.version, appended.position))

    async with es.open_store(path) as store:
        ready(connection)
        async with anyio.create_task_group() as tasks:
            for task in range(_TASKS):
                tasks.start_soon(append, store, task)
    return acknowledged


def test_eight_processes_append_to_one_file_and_nothing_is_lost(tmp_path: Path, crew: Crew) -> None:
    """16,000 acknowledged events of 10 B to 100 kB: all there, in the places their writers know.

    Positions and versions are gapless, every line is valid JSON and carries the right checksums.
    """
    path = tmp_path / "history.jsonl"
    acknowledged = [place for told in crew.run(_append_many, str(path)) for place in told]
    lines = check_lines(path.read_bytes())
    assert len(lines) == len(acknowledged) == _PROCESSES * _APPENDS
    found = [(label(record), record["version"], record["position"]) for record in lines]
    assert sorted(found) == sorted(acknowledged)


async def _append_over_segments(number: int, connection: Connection, path: str) -> list[int]:
    positions: list[int] = []
    async with es.open_store(path, segment_bytes_max=4_000) as store:
        ready(connection)
        for count in range(100):
            event = es.EventPublished(topic=f"{number}-{count}", payload="x" * (count % 90))
            appended = await store.append("otter", [event], expected_version=es.ANY)
            positions.append(appended.position)
    return positions


def test_processes_that_seal_segments_lose_nothing(tmp_path: Path, crew: Crew) -> None:
    """Whoever finds the file full seals it; the others follow, and the chain goes on."""
    path = tmp_path / "history.jsonl"
    positions = [place for told in crew.run(_append_over_segments, str(path)) for place in told]
    lines = check_lines(raw(path))
    assert sorted(positions) == list(range(1, len(lines) + 1))
    assert len(set(map(label, lines))) == _PROCESSES * 100
    assert len(list(tmp_path.glob("history-*.jsonl"))) > 20


async def _append_keyed(number: int, connection: Connection, path: str) -> list[tuple[int, int]]:
    del number
    results: list[tuple[int, int]] = []
    async with es.open_store(path) as store:
        ready(connection)
        for count in range(50):
            events: list[es.LoopEvent] = [es.IterationStarted(iteration=count), es.MergeQueued()]
            done = await store.append("otter", events, expected_version=es.ANY, key=f"k-{count}")
            results.append((done.version, done.position))
    return results


def test_the_same_key_from_eight_processes_is_one_append(tmp_path: Path, crew: Crew) -> None:
    """One of them records it; all of them get the same result."""
    path = tmp_path / "history.jsonl"
    results = crew.run(_append_keyed, str(path))
    assert results == [results[0]] * _PROCESSES
    keys = Counter(record["key"] for record in check_lines(path.read_bytes()))
    assert keys == {f"k-{count}": 2 for count in range(50)}


async def _increment(number: int, connection: Connection, path: str) -> int:
    del number
    conflicts = 0
    async with es.open_store(path) as store:
        ready(connection)
        for _ in range(50):
            while True:
                version = await store.version("counter")
                event = es.IterationStarted(iteration=version + 1)
                try:
                    await store.append("counter", [event], expected_version=version)
                    break
                except es.VersionConflictError:
                    conflicts += 1
    return conflicts


def test_a_counter_that_processes_increment_loses_no_update(tmp_path: Path, crew: Crew) -> None:
    """Compare-and-append: each of 400 increments saw the one before it."""
    path = tmp_path / "history.jsonl"
    conflicts = sum(crew.run(_increment, str(path)))
    lines = check_lines(path.read_bytes())
    assert [record["type"]["iteration"] for record in lines] == list(range(1, 401))
    assert conflicts > 0, "the processes never met"


# --- following ---


async def _follow(number: int, connection: Connection, path: str, count: int) -> list[list[Any]]:
    """Follow a log that others write until this many events were seen."""
    del number
    seen: list[list[Any]] = []
    async with es.open_store(path, read_only=True) as reader:
        ready(connection)
        async for recorded in reader.subscribe():
            assert isinstance(recorded.event, es.EventPublished)
            assert recorded.event.payload == "x" * len(recorded.event.payload)
            seen.append([recorded.event.topic, recorded.version, recorded.position])
            if len(seen) == count:
                return seen
    raise AssertionError


async def _publish(number: int, connection: Connection, path: str, segment_bytes: int) -> None:
    randomness = random.Random(number)
    async with es.open_store(path, segment_bytes_max=segment_bytes) as store:
        ready(connection)
        for count in range(150):
            events = [
                es.EventPublished(topic=f"{number}-{count}-{part}", payload="x" * size)
                for part, size in enumerate(randomness.choices([3, 300, 30_000], k=2))
            ]
            await store.append(f"loop-{number}", events, expected_version=2 * count)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("segment_bytes", [2**28, 200_000], ids=["one file", "segments"])
def test_a_reader_that_follows_writers_sees_each_event_once(
    tmp_path: Path, crew: Crew, segment_bytes: int
) -> None:
    """No gap, no duplicate, only whole lines, in the order of the log; it began before the log."""
    path = tmp_path / "history.jsonl"
    writers = 4
    followers = [crew.start(number, _follow, str(path), writers * 300) for number in range(3)]
    for follower in followers:
        follower.send("go")
    crew.run(_publish, str(path), segment_bytes, processes=writers)
    expected = [
        [label(record), record["version"], record["position"]] for record in check_lines(raw(path))
    ]
    for follower in followers:
        assert follower.end() == expected


# --- stopped, deleted, forked ---


async def _hold_lock(number: int, connection: Connection, path: str) -> None:
    """Take the lock as a commit does, and keep it until told to go on."""
    del number
    async with es.open_store(path) as store:
        with store._committer._exclusive():
            ready(connection)


@contextmanager
def stopped(process: Process) -> Generator[None]:
    """Keep a process stopped."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_stopped_holder_of_the_lock_is_named(tmp_path: Path, crew: Crew) -> None:
    """Its lock is never broken: who waits is told for whom, and reading goes on meanwhile."""
    path = tmp_path / "history.jsonl"

    async def main() -> None:
        async with es.open_store(path, lock_timeout_seconds=0.2) as store:
            await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
            holder = crew.start(0, _hold_lock, str(path))
            with stopped(holder):
                with pytest.raises(
                    es.StoreBusyError, match=f"process {holder.pid} holds"
                ) as caught:
                    await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
                assert caught.value.holder_pid == holder.pid
                assert [r.version async for r in store.read("otter")] == [1]
                async with es.open_store(path, read_only=True) as reader:
                    assert [r.version async for r in reader.read("otter")] == [1]
                with pytest.raises(es.StoreBusyError):
                    async with es.open_store(path, lock_timeout_seconds=0.1):
                        pytest.fail("it opened")
            holder.send("go")
            holder.end()
            appended = await store.append("otter", [es.MergeQueued()], expected_version=1)
            assert appended == es.Appended(version=2, position=2)

    anyio.run(main)


def test_a_killed_holder_of_the_lock_leaves_it_free(tmp_path: Path, crew: Crew) -> None:
    """The system gives the lock back; nobody waits for the dead."""
    path = tmp_path / "history.jsonl"

    async def main() -> None:
        holder = crew.start(0, _hold_lock, str(path))
        holder.kill()
        async with es.open_store(path, lock_timeout_seconds=5) as store:
            await store.append("otter", [es.MergeQueued()], expected_version=es.NO_STREAM)

    anyio.run(main)


async def _append_stubbornly(number: int, connection: Connection, path: str) -> list[str]:
    """Append; whatever error comes, reopen and try again with the same key."""
    ready(connection)
    waiting = [f"{number}-{count}" for count in range(200)]
    acknowledged: list[str] = []
    last_error: es.EventStoreError | None = None
    for _ in range(2_000):
        try:
            async with es.open_store(path) as store:
                while waiting:
                    event = es.EventPublished(topic=waiting[0], payload="x" * 3_000)
                    await store.append("otter", [event], expected_version=es.ANY, key=waiting[0])
                    acknowledged.append(waiting.pop(0))
                return acknowledged
        except es.EventStoreError as error:
            last_error = error
    raise AssertionError from last_error


def test_a_deleted_lock_file_loses_nothing(tmp_path: Path, crew: Crew) -> None:
    """Somebody deletes it again and again while four processes append: all that was said is there.

    For a moment two writers hold two lock files. They notice: an append may then be of unknown
    outcome or be refused, and with its key a retry settles it.
    """
    path = tmp_path / "history.jsonl"
    lock = path.with_name(LogNames(path.name).lock)
    is_over = threading.Event()
    deleted: list[int] = []

    def delete() -> None:
        while len(deleted) < 40 and not is_over.wait(0.01):
            if lock.exists():
                lock.unlink()
                deleted.append(1)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        results = crew.run(_append_stubbornly, str(path), processes=4)
    finally:
        is_over.set()
        deleter.join()
    acknowledged = [name for told in results for name in told]
    assert len(acknowledged) == 4 * 200
    assert deleted

    async def read() -> list[str]:
        async with es.open_store(path) as store:
            found = [r.event async for r in store.read("otter")]
        return [event.topic for event in found if isinstance(event, es.EventPublished)]

    assert sorted(anyio.run(read)) == sorted(acknowledged)


async def _fork(number: int, connection: Connection, path: str, thread: str) -> dict[str, object]:
    """Fork with an open store; in the child, look what is left of it."""
    del number
    async with es.open_store(path) as store:
        ready(connection)
        await store.append("otter", [es.MergeQueued()], expected_version=es.ANY)
        assert [r.version async for r in store.read("otter")] == [1]
        other = es.open_store(path, lock_timeout_seconds=0.1)
        with store._committer._exclusive():  # as in the middle of a commit
            fork = _forked(store, path)
            in_child = fork() if thread == "main" else await anyio.to_thread.run_sync(fork)
            try:
                async with other:
                    is_locked = False
            except es.StoreBusyError:
                is_locked = True
        appended = await store.append("otter", [es.MergeQueued()], expected_version=1)
    return {"child": in_child, "is_locked": is_locked, "version": appended.version}


def _forked(store: es.LogStore[es.LoopEvent], path: str) -> Callable[[], str]:
    def fork() -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, _look_in_child(store, path).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as pipe:
            return pipe.read()

    return fork


def _look_in_child(store: es.LogStore[es.LoopEvent], path: str) -> str:
    """Try to append without an event loop: a closed store says so before it waits for anything."""
    directory = f"{Path(path).parent}/"
    found: list[str] = []
    try:
        store.append("otter", [es.MergeQueued()], expected_version=es.ANY).send(None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent judges it
        found.append(f"{type(error).__name__}: {'forked' in str(error)}")
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - descriptors are no paths
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue
        if target.startswith(directory):
            found.append(target)
    return "\n".join(found)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("thread", ["main", "worker"])
@pytest.mark.parametrize("number", range(3), ids=["asyncio", "asyncio+uvloop", "trio"])
def test_a_forked_child_has_nothing_of_the_store(
    tmp_path: Path, crew: Crew, number: int, thread: str
) -> None:
    """In the child the store is closed and holds no descriptor; the parent's lock is untouched."""
    path = tmp_path / "history.jsonl"
    process = crew.start(number, _fork, str(path), thread)
    process.send("go")
    assert process.end() == {"child": "StoreClosedError: True", "is_locked": True, "version": 2}
    assert len(check_lines(path.read_bytes())) == 2


def test_two_stores_of_one_process_share_a_log(tmp_path: Path) -> None:
    """They exclude each other like two processes, also from two event loops in two threads."""
    path = tmp_path / "history.jsonl"
    told: list[int] = []

    async def main() -> None:
        async with es.open_store(path) as one, es.open_store(path) as two:
            for count in range(100):
                store = one if count % 2 else two
                appended = await store.append("o", [es.MergeQueued()], expected_version=es.ANY)
                told.append(appended.position)

    threads = [
        threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(check_lines(path.read_bytes())) == 200
    assert sorted(told) == list(range(1, 201))
