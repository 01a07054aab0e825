"""How many events per second does a new process fold, from the log alone?

`SUMMARY` and `REGISTRY` are `load_all` of one projection: a state for each stream. `all` folds
every built-in projection in one pass over the log. Each run is a process of its own; its time goes
from opening the log to the last state, without starting Python and importing. The log is in the
page cache.

Floor, in a process of its own too: a bare msgspec decode of `ts`, `type` and `stream` of each line
of the same file. It verifies nothing and numbers nothing.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

import eventstore as es
import projections as pj
from benchmarks._environment import survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks._process import in_new_process
from projections._projection import split_by

EVENTS: Final = 1_000_000
QUICK_EVENTS: Final = 50_000
STREAMS: Final = 16  # loops that ran side by side
BUILT_IN: Final[tuple[pj.Projection[Any, es.Event], ...]] = (
    pj.LAST_ITERATION,
    pj.COMPLETION,
    pj.PROMPT,
    pj.SUMMARY,
    pj.TIMELINE,
    pj.REGISTRY,
)
_BY_STREAM: Final[Callable[[es.Recorded[es.LoopEvent]], str]] = operator.attrgetter("stream")
APPEND_EVENTS: Final = 100
_CHUNK_BYTES: Final = 2**18  # as the engine reads


class _RebuildOptions(Options):
    events: int
    streams: int


class _Line(msgspec.Struct, gc=False):
    """What the floor decodes of a line."""

    ts: datetime
    type: es.LoopEvent
    stream: str = es.MAIN_STREAM


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a log, measure, and print."""
    parser = options(__doc__)
    parser.add_argument("--events", type=int, default=0, help=f"default: {EVENTS:,}")
    parser.add_argument("--streams", type=int, default=STREAMS, help="default: %(default)s")
    chosen = parser.parse_args(arguments, namespace=_RebuildOptions())
    events = chosen.events or (QUICK_EVENTS if chosen.quick else EVENTS)
    if not 1 <= chosen.streams <= events:
        parser.error("there must be at least one stream, and an event in each")
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        path = directory / "history.jsonl"
        anyio.run(write_log, path, events, chosen.streams)
        setting = f"{events:,} events, {chosen.streams} streams, {path.stat().st_size:,} bytes"
        works = {"SUMMARY": fold_summary, "REGISTRY": _fold_registry, "all": _fold_built_in}
        floor = partial(in_new_process, _decode_only, path, events)
        cases = [
            Case(name, setting, partial(in_new_process, work, path, events), floor)
            for name, work in works.items()
        ]
        results = compare(cases, chosen, warm_up=False)
        report("rebuild", "events", environment, results, chosen)


# --- what is measured ---


def fold_summary(path: Path, events: int) -> Run:
    """Open the log, and fold all its streams by `SUMMARY`; each event must have been folded."""
    return anyio.run(_load_all, pj.SUMMARY, path, events)


def _fold_registry(path: Path, events: int) -> Run:
    return anyio.run(_load_all, pj.REGISTRY, path, events)


async def _load_all(projection: pj.Projection[Any, es.Event], path: Path, events: int) -> Run:
    begin = time.perf_counter()
    async with es.open_store(path, read_only=True) as store:
        loaded = await pj.load_all(store, projection)
        taken = time.perf_counter() - begin
    assert sum(one.version for one in loaded.values()) == events, "a state lacks events"
    return Run(events, taken)


def _fold_built_in(path: Path, events: int) -> Run:
    return anyio.run(_scan, path, events)


async def _scan(path: Path, events: int) -> Run:
    begin = time.perf_counter()
    async with es.open_store(path, read_only=True) as store:
        folded = await store.scan(fold_pages, data=any(each.data for each in BUILT_IN))
        taken = time.perf_counter() - begin
    assert folded == events, f"{folded} events of {events}"
    return Run(folded, taken)


def fold_pages(
    pages: Iterator[es.Page[es.LoopEvent]],
    projections: Sequence[pj.Projection[Any, es.Event]] = BUILT_IN,
) -> int:
    """Fold each page by some projections, one state per stream; all built-in ones are by stream."""
    states: dict[tuple[str, str], Any] = {}
    count = 0
    for page in pages:
        count += len(page)
        parts = split_by(_BY_STREAM, page)
        for (stream, part), projection in itertools.product(parts.items(), projections):
            place = projection.name, stream
            states[place] = projection.fold(states.get(place, projection.initial), part)
    return count


# --- the floor ---


def _decode_only(path: Path, events: int) -> Run:
    decode = msgspec.json.Decoder(_Line).decode
    count = 0
    rest = b""
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            count += len([decode(line) for line in lines])
    taken = time.perf_counter() - begin
    assert count == events, f"{count} lines of {events}"
    return Run(count, taken)


# --- the log ---


async def write_log(
    path: Path,
    events: int,
    streams: int,
    *,
    append_events: int = APPEND_EVENTS,
    segment_bytes_max: int | None = None,
) -> None:
    """Write what an orchestrator would: loops side by side, in one segment unless told otherwise.

    Args:
        path: of the active segment.
        events: in all streams together.
        streams: the loops.
        append_events: how many a loop appends at a time.
        segment_bytes_max: as `open_store` has it.
    """

    async def run_loop(number: int) -> None:
        stream = f"loop-{number:04}"
        left = events // streams + (number < events % streams)
        history = itertools.islice(_loop_events(number), left)
        version = es.NO_STREAM
        while part := list(itertools.islice(history, append_events)):
            version = (await store.append(stream, part, expected_version=version)).version

    async with (
        es.open_store(path, durability="written", segment_bytes_max=segment_bytes_max) as store,
        anyio.create_task_group() as group,
    ):
        for number in range(streams):
            group.start_soon(run_loop, number)


def _loop_events(number: int) -> Iterator[es.LoopEvent]:
    """A loop that goes on and on: three of four events are about iterations."""
    yield es.LoopStarted(prompt=f"Make the tests of package {number} pass, one at a time.")
    for iteration in itertools.count(1):
        yield es.IterationStarted(iteration=iteration)
        yield es.EventPublished(topic="build.done", payload=f"tests: {iteration} passed, 3 failed")
        yield es.IterationCompleted(iteration=iteration, success=iteration % 8 != 0)


if __name__ == "__main__":
    main()
