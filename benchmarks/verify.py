"""How many bytes of a log per second does a full verification check?

A log of lines of about 200 or 300 bytes, as the engine writes them, in commits of one event, of 64
tasks side by side, or of 1,000 events; each in the page cache.

`verify` compares every number of every line too, `checksums` the bytes only
(`es.verify_checksums`).

Floor: a bare loop of `os.pread` and one `zlib.crc32` over the same bytes in the same chunks. It
looks at every byte, and knows nothing of lines, numbers, commits and versions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final
from zlib import crc32

import anyio

import eventstore as es
from benchmarks._environment import survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch

LOG_BYTES: Final = 64 * 2**20
QUICK_LOG_BYTES: Final = 2**20
_CHUNK_BYTES: Final = 2**18  # as the engine reads
_SHAPES: Final = (("1 event", 1, 1), ("64 tasks", 64, 1), ("1,000 events", 1, 1_000))
_LINE_BYTES: Final = (200, 300)
_BASE_BYTES: Final = 205  # of a line whose payload is empty
_STREAM: Final = "loop-{:04}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the logs, measure, and print."""
    chosen = options(__doc__).parse_args(arguments, namespace=Options())
    log_bytes = QUICK_LOG_BYTES if chosen.quick else LOG_BYTES
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        cases: list[Case] = []
        for line_bytes in _LINE_BYTES:
            for name, tasks, events in _SHAPES:
                path = directory / f"{line_bytes}-{tasks}-{events}" / "history.jsonl"
                lines = anyio.run(_write_log, path, log_bytes, line_bytes, tasks, events)
                size = path.stat().st_size
                setting = f"{size / lines:.0f} bytes a line, {lines:,} lines"
                floor = partial(_checksum, path)
                works = {"verify": _verify, "checksums": _verify_checksums}
                cases += [
                    Case(f"{what}, {name} a commit", setting, partial(work, path, lines), floor)
                    for what, work in works.items()
                ]
        report("verify", "bytes", environment, compare(cases, chosen), chosen)


def _verify(path: Path, lines: int) -> Run:
    begin = time.perf_counter()
    found = es.verify_log(path)
    taken = time.perf_counter() - begin
    assert found.is_sound, "the log is not sound"
    assert found.events == lines, f"{found.events} events of {lines}"
    return Run(found.bytes, taken)


def _verify_checksums(path: Path, lines: int) -> Run:
    begin = time.perf_counter()
    found = es.verify_checksums(path)
    taken = time.perf_counter() - begin
    assert found.is_sound, "the log is not sound"
    assert found.lines == lines, f"{found.lines} lines of {lines}"
    return Run(found.bytes, taken)


def _checksum(path: Path) -> Run:
    checksum = offset = 0
    handle = os.open(path, os.O_RDONLY)
    try:
        begin = time.perf_counter()
        while data := os.pread(handle, _CHUNK_BYTES, offset):
            checksum = crc32(data, checksum)
            offset += len(data)
        taken = time.perf_counter() - begin
    finally:
        os.close(handle)
    return Run(offset, taken)


async def _write_log(path: Path, log_bytes: int, line_bytes: int, tasks: int, events: int) -> int:
    """Write a log of about so many bytes in one segment; return how many lines it has."""
    event = es.EventPublished(topic="t", payload="x" * max(0, line_bytes - _BASE_BYTES))
    appends = max(1, log_bytes // line_bytes // events // tasks)

    async def work(stream: str) -> None:
        for _ in range(appends):
            await store.append(stream, [event] * events, expected_version=es.ANY)

    # Synced at the end only: one event a commit would take minutes. The last append is synced, so
    # that the lock record vouches for that one only, as it usually does.
    async with (
        es.open_store(path, durability="written", segment_bytes_max=None) as store,
        anyio.create_task_group() as group,
    ):
        for number in range(tasks):
            group.start_soon(work, _STREAM.format(number))
    async with es.open_store(path, segment_bytes_max=None) as store:
        await store.append("end", [event], expected_version=es.NO_STREAM)
    return appends * tasks * events + 1


if __name__ == "__main__":
    main()
