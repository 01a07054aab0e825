"""Does an event cost as much in a long log as in a short one, an opening with many segments too?

Logs of 10,000 to 1,000,000 events (`--full`: 10,000,000), a stream for every 1,000. Each case is
measured beside itself on less, so a ratio of 1.00 means that nothing grows.

* `append`, `bulk`: as in `append`, on a log that already has so many events. Every run begins with
  the same log; opening it, and the first event of each stream of `append`, come before the time.
  Floor: the same on an empty log.
* `fold SUMMARY`: as in `rebuild`. Floor: the same over the smallest log.
* `open, no index`: as in `growth`, by events that the log has. Floor: the smallest log.
* `open, 1,000 segments`: open for appending a log that was closed; its rates are openings per
  second. Floor: a log of as many events in 10 segments.

Appends are in this process, on asyncio; every fold and opening is a process of its own, whose time
begins after its imports. What an opening costs however small the log is lifts the ratios of `fold`
and `open, no index` above 1.00. The logs are in the page cache.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio

from benchmarks._environment import survey
from benchmarks._kept_log import KeptLog
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks._process import in_new_process
from benchmarks.append import QUICK_SECONDS, SECONDS, append, append_bulk
from benchmarks.growth import FULL_SIZES, QUICK_SIZES, SIZES, open_log
from benchmarks.rebuild import fold_summary, write_log

STREAM_EVENTS: Final = 1_000
TASKS: Final = 1024
BULK_TASKS: Final = 4
SEGMENTS_EVENTS: Final = 100_000
SEGMENTS: Final = (10, 1_000)
QUICK_SEGMENTS_EVENTS: Final = 2_000
QUICK_SEGMENTS: Final = (5, 20)

_Work: TypeAlias = Callable[[Path], Coroutine[Any, Any, Run]]


class _FlatOptions(Options):
    full: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the logs, measure, and print."""
    parser = options(__doc__)
    parser.add_argument("--full", action="store_true", help="up to 10,000,000 events")
    chosen = parser.parse_args(arguments, namespace=_FlatOptions())
    sizes = QUICK_SIZES if chosen.quick else FULL_SIZES if chosen.full else SIZES
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        logs = {events: _write(directory, events) for events in sizes}
        appends = list(_appends(directory, logs, QUICK_SECONDS if chosen.quick else SECONDS))
        passes = [*_passes(logs), _segments(directory, quick=chosen.quick)]
        results = [*compare(appends, chosen), *compare(passes, chosen, warm_up=False)]
        report("flat", "events", environment, results, chosen)


def _appends(directory: Path, logs: Mapping[int, KeptLog], seconds: float) -> Iterator[Case]:
    works: dict[str, _Work] = {
        f"append, {TASKS} tasks": partial(
            append, tasks=TASKS, durability="synced", seconds=seconds
        ),
        f"bulk, {BULK_TASKS} tasks": partial(append_bulk, tasks=BULK_TASKS, seconds=seconds),
    }
    for name, work in works.items():
        floor = partial(_append_to_none, directory, work)
        for events, log in logs.items():
            yield Case(name, _setting(events), partial(_append_to, log, work), floor, events)


def _passes(logs: Mapping[int, KeptLog]) -> Iterator[Case]:
    smallest = min(logs)
    for name, work in {"fold SUMMARY": _fold, "open, no index": _open_without_index}.items():
        floor = partial(work, logs[smallest], smallest)
        for events, log in logs.items():
            yield Case(name, _setting(events), partial(work, log, events), floor, events)


def _segments(directory: Path, *, quick: bool) -> Case:
    events = QUICK_SEGMENTS_EVENTS if quick else SEGMENTS_EVENTS
    few, many = (
        _write_segments(directory, events, segments)
        for segments in (QUICK_SEGMENTS if quick else SEGMENTS)
    )
    name, beside = (f"{len(log.segments()):,} segments" for log in (many, few))
    setting = f"{_setting(events)}, beside {beside}"
    return Case(f"open, {name}", setting, partial(_open, many), partial(_open, few))


def _setting(events: int) -> str:
    return f"{events:,} events"


# --- the logs ---


def _write(directory: Path, events: int) -> KeptLog:
    log = KeptLog(directory / f"events-{events}")
    anyio.run(write_log, log.path, events, events // STREAM_EVENTS)
    log.keep()
    return log


def _write_segments(directory: Path, events: int, segments: int) -> KeptLog:
    log = KeptLog(directory / f"segments-{segments}")
    # Each append finds a segment that is large enough, and seals it.
    write = partial(write_log, append_events=events // segments, segment_bytes_max=1)
    anyio.run(write, log.path, events, 1)
    log.keep()
    return log


# --- what is measured ---


def _append_to(log: KeptLog, work: _Work) -> Run:
    log.restore()
    return anyio.run(work, log.path)


def _append_to_none(directory: Path, work: _Work) -> Run:
    with scratch(directory) as own:
        return anyio.run(work, own / "history.jsonl")


def _fold(log: KeptLog, events: int) -> Run:
    log.restore()
    return in_new_process(fold_summary, log.path, events)


def _open_without_index(log: KeptLog, events: int) -> Run:
    return Run(events, open_log(log, without_index=True).seconds)


def _open(log: KeptLog) -> Run:
    return Run(1, open_log(log).seconds)  # its memory is no question here


if __name__ == "__main__":
    main()
