"""How many durable appends per second, and how long is one awaited?

Each of 1, 64, 256 or 1024 tasks appends one event at a time to a stream of its own that has begun,
at the version it knows, and awaits it. `written` waits for no sync. `bulk` is 1 or 4 tasks that
append 10,000 events at a time; its rate counts events, its latency is that of the append.

Floors: a bare `os.write` and `os.fdatasync` of one 200-byte line after the other; for `bulk`, the
bytes of the log itself, each line encoded from ready values and 10,000 of them joined, written and
synced at a time.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import msgspec

import eventstore as es
from benchmarks._environment import SYNCED_BYTES, survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch

TASKS: Final = (1, 64, 256, 1024)
BULK_EVENTS: Final = 10_000
BULK_TASKS: Final = (1, 4)
SECONDS: Final = 0.5  # of one timed run
QUICK_SECONDS: Final = 0.03
_BULK_APPENDS: Final = 4  # the bulk floor writes the bytes of so many, over and over
# In the line that ralph would write of it this event takes 200 bytes; ours adds its numbers.
_EVENT: Final = es.EventPublished(topic="build.done", payload="x" * 95)

_Floor: TypeAlias = Callable[[Path], Run]


class _AppendOptions(Options):
    trio: bool


class _Line(msgspec.Struct, gc=False):
    """A line of the log, its checksum a value like any other: what the floor encodes."""

    ts: str
    type: es.EventPublished
    stream: str
    version: int
    position: int
    commit: tuple[int, int]
    crc: str


_encode: Final = msgspec.json.Encoder().encode


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = options(__doc__)
    parser.add_argument("--trio", action="store_true", help="measure on trio too")
    chosen = parser.parse_args(arguments, namespace=_AppendOptions())
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        seconds = QUICK_SECONDS if chosen.quick else SECONDS
        cases = _cases(directory, seconds=seconds, with_trio=chosen.trio)
        report("append", "events", environment, compare(cases, chosen), chosen)


def _cases(directory: Path, *, seconds: float, with_trio: bool) -> list[Case]:
    appends = _bulk_lines(directory / "history.jsonl")
    values = [[msgspec.json.decode(line, type=_Line) for line in lines] for lines in appends]
    for lines, ready in zip(appends, values, strict=True):
        assert _encode_lines(ready) == b"".join(lines), "the floor writes other bytes"
    one_line = partial(write_and_sync, bytes(SYNCED_BYTES), seconds=seconds)
    bulk = partial(_encode_and_sync, values, seconds=seconds)
    cases: list[Case] = []
    for loop, backend in loops(with_trio=with_trio).items():
        single: list[tuple[str, int, es.Durability]] = [
            (f"{tasks} task{'s' * (tasks > 1)}", tasks, "synced") for tasks in TASKS
        ]
        single.append(("1 task, written", 1, "written"))
        for name, tasks, durability in single:
            work = partial(append, tasks=tasks, durability=durability, seconds=seconds)
            cases.append(
                case_afresh(
                    name,
                    loop,
                    directory,
                    partial(anyio.run, work, **backend),
                    one_line,
                    tasks=tasks,
                )
            )
        for tasks in BULK_TASKS:
            name = f"bulk, {tasks} task{'s' * (tasks > 1)}"
            work = partial(append_bulk, tasks=tasks, seconds=seconds)
            cases.append(
                case_afresh(name, loop, directory, partial(anyio.run, work, **backend), bulk)
            )
    return cases


def loops(*, with_trio: bool) -> dict[str, dict[str, Any]]:
    """The event loops to measure, and what `anyio.run` needs to be told for each."""
    loops: dict[str, dict[str, Any]] = {"asyncio": {"backend": "asyncio"}}
    if importlib.util.find_spec("uvloop") is not None:
        use_uvloop = {"use_uvloop": True}
        loops["asyncio+uvloop"] = {"backend": "asyncio", "backend_options": use_uvloop}
    if with_trio:
        loops["trio"] = {"backend": "trio"}
    return loops


def case_afresh(
    name: str,
    loop: str,
    directory: Path,
    measure: Callable[[Path], Run],
    floor: _Floor,
    *,
    tasks: int | None = None,
) -> Case:
    """A case whose every run begins with no file."""

    def measure_afresh() -> Run:
        try:
            return measure(directory / "history.jsonl")
        finally:
            _remove_files(directory)

    def floor_afresh() -> Run:
        try:
            return floor(directory / "floor")
        finally:
            _remove_files(directory)

    return Case(name, loop, measure_afresh, floor_afresh, tasks)


def _remove_files(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


# --- what is measured ---


async def append(path: Path, *, tasks: int, durability: es.Durability, seconds: float) -> Run:
    """Append one event at a time in each task, to a stream that begins before the time does."""
    latencies: list[float] = []
    streams = [f"task-{number}" for number in range(tasks)]

    async with es.open_store(path, durability=durability) as store:

        async def create(stream: str) -> None:
            await store.append(stream, [_EVENT], expected_version=es.NO_STREAM)

        async def work(stream: str) -> None:
            version = 1
            before = time.perf_counter()
            while version == 1 or before < deadline:  # once, however late it begins
                done = await store.append(stream, [_EVENT], expected_version=version)
                version = done.version
                after = time.perf_counter()
                latencies.append(after - before)
                before = after

        async with anyio.create_task_group() as group:
            for stream in streams:
                group.start_soon(create, stream)
        begin = time.perf_counter()
        deadline = begin + seconds
        async with anyio.create_task_group() as group:
            for stream in streams:
                group.start_soon(work, stream)
        taken = time.perf_counter() - begin
    return Run(len(latencies), taken, latencies)


async def append_bulk(
    path: Path, *, tasks: int, seconds: float, appends_max: int | None = None
) -> Run:
    """Append 10,000 events at a time in each task; stop after some appends if told so."""
    events = [_EVENT] * BULK_EVENTS
    latencies: list[float] = []
    async with es.open_store(path) as store:
        begin = time.perf_counter()
        deadline = begin + seconds

        async def work(stream: str) -> None:
            version = es.NO_STREAM
            before = time.perf_counter()
            while version == es.NO_STREAM or before < deadline:
                version = (await store.append(stream, events, expected_version=version)).version
                after = time.perf_counter()
                latencies.append(after - before)
                before = after
                if len(latencies) == appends_max:
                    return

        async with anyio.create_task_group() as group:
            for number in range(tasks):
                group.start_soon(work, f"bulk-{number}")
        taken = time.perf_counter() - begin
    return Run(BULK_EVENTS * len(latencies), taken, latencies)


# --- the floors ---


def _bulk_lines(path: Path) -> list[list[bytes]]:
    """The lines of a few bulk appends, as our own code writes them."""
    work = partial(append_bulk, path, tasks=1, seconds=60, appends_max=_BULK_APPENDS)
    count = anyio.run(work).count
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == count, f"{count} events in {len(lines)} lines"
    return [lines[first : first + BULK_EVENTS] for first in range(0, count, BULK_EVENTS)]


def write_and_sync(line: bytes, path: Path, *, seconds: float) -> Run:
    """Write a line and sync it, again and again: the floor."""
    handle = _create(path)
    writes = 0
    try:
        begin = now = time.perf_counter()
        deadline = begin + seconds
        while now < deadline or not writes:
            written = os.write(handle, line)
            os.fdatasync(handle)
            assert written == len(line), "a short write"
            writes += 1
            now = time.perf_counter()
    finally:
        os.close(handle)
    return Run(writes, now - begin)


def _encode_and_sync(appends: Sequence[Sequence[_Line]], path: Path, *, seconds: float) -> Run:
    handle = _create(path)
    events = 0
    try:
        begin = now = time.perf_counter()
        deadline = begin + seconds
        for lines in itertools.cycle(appends):
            data = _encode_lines(lines)
            written = os.write(handle, data)
            os.fdatasync(handle)
            assert written == len(data), "a short write"
            events += len(lines)
            now = time.perf_counter()
            if now >= deadline:
                break
    finally:
        os.close(handle)
    return Run(events, now - begin)


def _encode_lines(lines: Sequence[_Line]) -> bytes:
    encode = _encode
    return b"\n".join([encode(line) for line in lines]) + b"\n"


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)


if __name__ == "__main__":
    main()
