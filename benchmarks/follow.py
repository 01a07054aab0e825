"""How soon does a subscriber see an append, what does waiting cost, and what does sharing cost?

* `seen, in process` and `seen, other process`: from calling `append` to the event's arrival at a
  subscriber, one append at a time. Floor: the same append until it returns, while nobody
  subscribes.
* `4 processes`: each with 1, 64 or 256 tasks that append to one log, each to a stream of its own.
  Floor: one process with as many tasks as each of the four. Below the table: the slowest process's
  share, where 1 is as many appends as the mean.
* Below the table too: how much of a core an idle subscriber takes, beside an idle event loop.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import Manager
from pathlib import Path
from threading import Barrier, Event
from typing import Final

import anyio
import anyio.to_thread

import eventstore as es
from benchmarks._environment import survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks._process import SPAWNING, in_new_process

PROCESSES: Final = 4
TASKS: Final = (1, 64, 256)
SECONDS: Final = 1.0  # of appending together, or of idling
QUICK_SECONDS: Final = 0.2
APPENDS: Final = 300
QUICK_APPENDS: Final = 30
_PAUSE_SECONDS: Final = 0.002  # between two appends: the subscriber waits again
_LOCK_SECONDS: Final = 60.0  # the lock is not fair: a process may be passed over for long
_IDLE_RUNS: Final = 3
_EVENT: Final = es.EventPublished(topic="build.done", payload="x" * 95)


class _Logs:
    """A new log for every run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def next(self) -> Path:
        self._count += 1
        return self._directory / str(self._count) / "history.jsonl"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    chosen = options(__doc__).parse_args(arguments, namespace=Options())
    seconds = QUICK_SECONDS if chosen.quick else SECONDS
    appends = QUICK_APPENDS if chosen.quick else APPENDS
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        logs = _Logs(directory)
        alone = partial(_append_alone, logs, appends)
        shares: dict[str, list[float]] = {}
        cases = [
            Case("seen, in process", "", partial(_see_in_process, logs, appends), alone),
            Case("seen, other process", "", partial(_see_elsewhere, logs, appends), alone),
        ]
        for tasks in TASKS:
            setting = f"{tasks} task{'s' * (tasks > 1)} each"
            kept = shares.setdefault(setting, [])
            several = partial(_share, logs, PROCESSES, tasks, seconds, kept)
            one = partial(_share, logs, 1, tasks, seconds, [])
            cases.append(Case(f"{PROCESSES} processes", setting, several, one, size=tasks))
        results = compare(cases, chosen, warm_up=False)
        notes = [
            f"{PROCESSES} processes, {setting}: the slowest appended "
            f"{statistics.median(kept):.2f} of the mean ({min(kept):.2f} .. {max(kept):.2f})"
            for setting, kept in shares.items()
        ]
        notes += _idle_costs(logs, seconds)
        report("follow", "appends", environment, results, chosen, notes=notes)


# --- how soon it is seen ---


async def _append_each(store: es.EventStore[es.LoopEvent], appends: int) -> tuple[Run, list[float]]:
    """Append one at a time; the run, and when each began."""
    begun: list[float] = []
    taken: list[float] = []
    for _ in range(appends):
        before = time.perf_counter()
        await store.append("followed", [_EVENT], expected_version=es.ANY)
        begun.append(before)
        taken.append(time.perf_counter() - before)
        await anyio.sleep(_PAUSE_SECONDS)
    return Run(appends, sum(taken), taken), begun


def _append_alone(logs: _Logs, appends: int) -> Run:
    async def run() -> Run:
        async with es.open_store(logs.next()) as store:
            return (await _append_each(store, appends))[0]

    return anyio.run(run)


def _see_in_process(logs: _Logs, appends: int) -> Run:
    async def run() -> Run:
        seen: list[float] = []
        begun: list[float] = []
        async with es.open_store(logs.next()) as store, anyio.create_task_group() as group:
            group.start_soon(_see, store, appends, seen)
            _, begun = await _append_each(store, appends)
        return _between(begun, seen)

    return anyio.run(run)


def _see_elsewhere(logs: _Logs, appends: int) -> Run:
    path = logs.next()

    async def run(is_ready: Event) -> list[float]:
        async with es.open_store(path) as store:
            await anyio.to_thread.run_sync(is_ready.wait)
            return (await _append_each(store, appends))[1]

    with (
        Manager() as manager,
        ProcessPoolExecutor(max_workers=1, mp_context=SPAWNING) as process,
    ):
        is_ready = manager.Event()
        path.parent.mkdir()
        path.touch(0o600)
        seeing = process.submit(_see_log, path, appends, is_ready)
        begun = anyio.run(run, is_ready)
        return _between(begun, seeing.result())


def _see_log(path: Path, appends: int, is_ready: Event) -> list[float]:
    async def run() -> list[float]:
        seen: list[float] = []
        async with es.open_store(path, read_only=True) as store:
            is_ready.set()
            await _see(store, appends, seen)
        return seen

    return anyio.run(run)


async def _see(store: es.EventReader[es.LoopEvent], appends: int, seen: list[float]) -> None:
    async for _ in store.subscribe():
        seen.append(time.perf_counter())  # of one clock for all processes of a machine
        if len(seen) == appends:
            break


def _between(begun: Sequence[float], seen: Sequence[float]) -> Run:
    taken = [after - before for before, after in zip(begun, seen, strict=True)]
    return Run(len(taken), sum(taken), taken)


# --- sharing one log ---


def _share(logs: _Logs, processes: int, tasks: int, seconds: float, shares: list[float]) -> Run:
    path = logs.next()
    with (
        Manager() as manager,
        ProcessPoolExecutor(max_workers=processes, mp_context=SPAWNING) as pool,
    ):
        barrier = manager.Barrier(processes)
        working = [
            pool.submit(_work, path, number, tasks, seconds, barrier) for number in range(processes)
        ]
        runs = [work.result() for work in working]
    counts = [run.count for run in runs]
    shares.append(min(counts) / statistics.mean(counts))
    return Run(sum(counts), max(run.seconds for run in runs))


def _work(path: Path, number: int, tasks: int, seconds: float, start: Barrier) -> Run:
    async def run() -> Run:
        count = 0

        async def append(stream: str) -> None:
            nonlocal count
            version = es.NO_STREAM
            while version == es.NO_STREAM or time.perf_counter() < deadline:
                done = await store.append(stream, [_EVENT], expected_version=version)
                version = done.version
                count += 1

        async with es.open_store(path, lock_timeout_seconds=_LOCK_SECONDS) as store:
            await anyio.to_thread.run_sync(start.wait)
            begin = time.perf_counter()
            deadline = begin + seconds
            async with anyio.create_task_group() as group:
                for task in range(tasks):
                    group.start_soon(append, f"loop-{number}-{task}")
            return Run(count, time.perf_counter() - begin)

    return anyio.run(run)


# --- waiting ---


def _idle_costs(logs: _Logs, seconds: float) -> list[str]:
    """What an idle subscriber and an idle event loop take of a core, as lines."""
    path = logs.next()
    anyio.run(_write_one, path)
    lines: list[str] = []
    for name, work in (("subscriber", _idle_subscriber), ("event loop", _idle_loop)):
        runs = [in_new_process(work, path, seconds) for _ in range(_IDLE_RUNS)]
        shares = [100 * run.count / 1e9 / run.seconds for run in runs]
        spread = f"({min(shares):.2f} .. {max(shares):.2f})"
        lines.append(f"idle {name}: {statistics.median(shares):.2f} % of a core {spread}")
    return lines


async def _write_one(path: Path) -> None:
    async with es.open_store(path) as store:
        await store.append("followed", [_EVENT], expected_version=es.NO_STREAM)


def _idle_subscriber(path: Path, seconds: float) -> Run:
    async def run() -> Run:
        caught_up = anyio.Event()

        async def follow() -> None:
            async for _ in store.subscribe():
                caught_up.set()

        spent = Run(0, seconds)
        async with (
            es.open_store(path, read_only=True) as store,
            anyio.create_task_group() as group,
        ):
            group.start_soon(follow)
            await caught_up.wait()
            spent = await _idle(seconds)
            group.cancel_scope.cancel()
        return spent

    return anyio.run(run)


def _idle_loop(path: Path, seconds: float) -> Run:
    del path
    return anyio.run(_idle, seconds)


async def _idle(seconds: float) -> Run:
    """Do nothing; the count is the nanoseconds of CPU that took."""
    begin, cpu = time.perf_counter(), time.process_time_ns()
    await anyio.sleep(seconds)
    return Run(time.process_time_ns() - cpu, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
