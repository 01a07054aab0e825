"""What does a log cost that keeps growing: opening it, one of its streams, memory, index?

Logs of 10,000 to 1,000,000 events (`--full`: 10,000,000) over 10,000 streams, one of which has
1,000 events, evenly spread. Each run is a process of its own; its time begins after its imports.

* `open, closed`: open for appending a log that was closed.
* `open, killed`: one whose writer was killed by SIGKILL after up to 7 MB that no index covers.
* `open, no index`: one whose `history.jsonl.d/cache` was deleted.
* `read stream`: open read-only, and read the stream of 1,000 events.

Floor: a bare msgspec decode of `stream`, `version`, `position` and `key` of each line of the same
file, which is what an index is made of. `peak` is memory above what the process began with. The
log is in the page cache.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec

import eventstore as es
from benchmarks._environment import survey
from benchmarks._kept_log import KeptLog
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks._process import SPAWNING, Watch, in_new_process

SIZES: Final = (10_000, 100_000, 1_000_000)
FULL_SIZES: Final = (*SIZES, 10_000_000)
QUICK_SIZES: Final = (2_000, 10_000)
STREAMS: Final = 10_000
LONG_EVENTS: Final = 1_000
_LONG: Final = "long"
_TASKS: Final = 256
_UNINDEXED_EVENTS_MAX: Final = 25_000  # about 7 MB; the index is written every 8 MiB
_CHUNK_BYTES: Final = 2**18  # as the engine reads
_EVENT: Final = es.EventPublished(topic="build.done", payload="x" * 95)


class _GrowthOptions(Options):
    full: bool


class _Line(msgspec.Struct, gc=False):
    """What the floor decodes of a line."""

    stream: str
    version: int
    position: int
    key: str | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the logs, measure, and print."""
    parser = options(__doc__)
    parser.add_argument("--full", action="store_true", help="up to 10,000,000 events")
    chosen = parser.parse_args(arguments, namespace=_GrowthOptions())
    sizes = QUICK_SIZES if chosen.quick else FULL_SIZES if chosen.full else SIZES
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        cases: list[Case] = []
        notes: list[str] = []
        for events in sizes:
            closed = KeptLog(directory / f"closed-{events}")
            anyio.run(_write_log, closed.path, events)
            closed.keep()
            notes.append(closed.describe(events))
            killed = KeptLog(directory / f"killed-{events}")
            shutil.copytree(closed.path.parent, killed.path.parent)
            _kill_a_writer(killed.path, min(events // 10, _UNINDEXED_EVENTS_MAX))
            killed.keep()
            cases += _cases(closed, killed, events)
        results = compare(cases, chosen, warm_up=False)
        report(
            "growth",
            "openings and readings",
            environment,
            results,
            chosen,
            columns=("", "floor"),
            notes=notes,
            as_durations=True,
        )


def _cases(closed: KeptLog, killed: KeptLog, events: int) -> list[Case]:
    def case(name: str, log: KeptLog, work: partial[Run]) -> Case:
        floor = partial(in_new_process, _decode_only, log.path)
        return Case(name, f"{events:,} events", work, floor, size=events)

    return [
        case("open, closed", closed, partial(open_log, closed)),
        case("open, killed", killed, partial(open_log, killed)),
        case("open, no index", closed, partial(open_log, closed, without_index=True)),
        case("read stream", closed, partial(_read, closed)),
    ]


# --- the logs ---


async def _write_log(path: Path, events: int) -> None:
    long_every = max(2, events // LONG_EVENTS)

    async def work(first: int) -> None:
        for number in range(first, events - 1, _TASKS):
            is_long = number % long_every == 0
            stream = _LONG if is_long else f"loop-{number % STREAMS:05}"
            await store.append(stream, [_EVENT], expected_version=es.ANY)

    async with (
        es.open_store(path, durability="written") as store,
        anyio.create_task_group() as group,
    ):
        for first in range(_TASKS):
            group.start_soon(work, first)
    # The lock record vouches for what was synced; the index was written at the close, if that
    # followed a MiB or more.
    async with es.open_store(path) as store:
        await store.append("end", [_EVENT], expected_version=es.NO_STREAM)


def _kill_a_writer(path: Path, events: int) -> None:
    process = SPAWNING.Process(target=_append_and_die, args=(path, events))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, process.exitcode


def _append_and_die(path: Path, events: int) -> None:
    anyio.run(_append_until_killed, path, events)


async def _append_until_killed(path: Path, events: int) -> None:
    async with es.open_store(path) as store:
        for first in range(0, events, 100):
            await store.append(
                f"loop-{first % STREAMS:05}", [_EVENT] * 100, expected_version=es.ANY
            )
        os.kill(os.getpid(), signal.SIGKILL)


# --- what is measured ---


def open_log(log: KeptLog, *, without_index: bool = False) -> Run:
    """Open it for appending in a new process, as it was kept."""
    log.restore(without_index=without_index)
    return in_new_process(_open_only, log.path)


def _open_only(path: Path) -> Run:
    return anyio.run(_open_and_close, path)


async def _open_and_close(path: Path) -> Run:
    watch = Watch()
    async with es.open_store(path) as store:
        run = watch.run()
        assert store.position, "the log is empty"
    return run


def _read(log: KeptLog) -> Run:
    log.restore()
    return in_new_process(_read_only, log.path)


def _read_only(path: Path) -> Run:
    return anyio.run(_read_stream, path)


async def _read_stream(path: Path) -> Run:
    watch = Watch()
    async with es.open_store(path, read_only=True) as store:
        versions = [recorded.version async for recorded in store.read(_LONG)]
        run = watch.run()
    assert versions == list(range(1, LONG_EVENTS + 1)), f"{len(versions)} events"
    return run


# --- the floor ---


def _decode_only(path: Path) -> Run:
    decode = msgspec.json.Decoder(_Line).decode
    count = 0
    begin = time.perf_counter()
    for segment in path.parent.glob("history*.jsonl"):
        rest = b""
        with segment.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                count += len([decode(line) for line in lines])
    taken = time.perf_counter() - begin
    assert count, "the log is empty"
    return Run(1, taken)


if __name__ == "__main__":
    main()
