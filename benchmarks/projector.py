"""How many events per second does a projector take in, and what does a restart cost it?

`catch up` is a projector over a log that it has never seen, until its views are of the log's end:
one projection, or all built-in ones. Floor: a bare fold by the same projections over the same pages
(`store.scan`), without views, checkpoints or a way to wait.

`restart` is a projector that finds states saved 100 events before the end; the rate is events that
its views include per second, so it grows with the log if a restart reads only the tail. Floor: the
same without saved states.

`rebuild` folds everything anew, told of each step; floor: the same rebuild as one single step.

All runs are in this process, over a log in the page cache.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

import eventstore as es
import projections as pj
from benchmarks._environment import survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks.rebuild import BUILT_IN, STREAMS, fold_pages, write_log
from projections import _rebuild

EVENTS: Final = 1_000_000
QUICK_EVENTS: Final = 20_000
TAIL_EVENTS: Final = 100


class _ProjectorOptions(Options):
    events: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Write logs, measure, and print."""
    parser = options(__doc__)
    parser.add_argument("--events", type=int, default=0, help=f"default: {EVENTS:,}")
    chosen = parser.parse_args(arguments, namespace=_ProjectorOptions())
    events = chosen.events or (QUICK_EVENTS if chosen.quick else EVENTS)
    if events < 10 * TAIL_EVENTS:
        parser.error(f"there must be at least {10 * TAIL_EVENTS} events")
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        cases = [
            *_catch_up_cases(directory / f"{events}" / "history.jsonl", events),
            *_restart_cases(directory, sorted({events // 100, events // 10, events})),
            _rebuild_case(directory / f"{events}" / "history.jsonl", events),
        ]
        results = compare(cases, chosen)
        report("projector", "events", environment, results, chosen)


# --- catching up ---


def _catch_up_cases(path: Path, events: int) -> list[Case]:
    _write(path, events)
    setting = f"{events:,} events, {STREAMS} streams"
    chosen: dict[str, Sequence[pj.Projection[Any, es.Event]]] = {
        "catch up, SUMMARY": [pj.SUMMARY],
        "catch up, REGISTRY": [pj.REGISTRY],
        "catch up, all": BUILT_IN,
    }
    return [
        Case(
            name,
            setting,
            partial(anyio.run, partial(_catch_up, path, projections, events, None)),
            partial(anyio.run, partial(_fold, path, projections, events)),
        )
        for name, projections in chosen.items()
    ]


async def _catch_up(
    path: Path,
    projections: Sequence[pj.Projection[Any, es.Event]],
    events: int,
    saved: Path | None,
) -> Run:
    async with es.open_store(path, read_only=True) as store:
        begin = time.perf_counter()
        async with pj.open_projector(store, *projections, snapshots=saved) as projector:
            await projector.wait_for(events)
            taken = time.perf_counter() - begin
            for projection in projections:
                known = sum(one.version for one in projector.view(projection).values())
                assert known == events, f"{projection} knows {known} events of {events}"
    return Run(events, taken)


async def _fold(
    path: Path, projections: Sequence[pj.Projection[Any, es.Event]], events: int
) -> Run:
    def work(pages: Iterator[es.Page[es.LoopEvent]]) -> int:
        return fold_pages(pages, projections)

    async with es.open_store(path, read_only=True) as store:
        begin = time.perf_counter()
        folded = await store.scan(work, data=False)
        taken = time.perf_counter() - begin
    assert folded == events, f"{folded} events of {events}"
    return Run(events, taken)


# --- restarting ---


def _restart_cases(directory: Path, sizes: Sequence[int]) -> Iterator[Case]:
    for size in sizes:
        own = directory / f"restart-{size}"
        path = own / "history.jsonl"
        _write(path, size - TAIL_EVENTS)
        anyio.run(_catch_up, path, BUILT_IN, size - TAIL_EVENTS, own / "saved")
        anyio.run(_append_tail, path)
        yield Case(
            "restart, saved states",
            f"{size:,} events, the last {TAIL_EVENTS} not saved",
            partial(_restart, path, size),
            partial(anyio.run, partial(_catch_up, path, BUILT_IN, size, None)),
        )


def _restart(path: Path, events: int) -> Run:
    copy = path.parent / "copy"  # leaving the projector saves its states
    shutil.copytree(path.parent / "saved", copy)
    try:
        return anyio.run(_catch_up, path, BUILT_IN, events, copy)
    finally:
        shutil.rmtree(copy)


async def _append_tail(path: Path) -> None:
    async with es.open_store(path, durability="written", segment_bytes_max=None) as store:
        tail = [es.EventPublished(topic="tail", payload="x") for _ in range(TAIL_EVENTS)]
        await store.append("loop-0000", tail, expected_version=es.ANY)


# --- rebuilding ---


def _rebuild_case(path: Path, events: int) -> Case:
    return Case(
        "rebuild, with progress",
        f"{events:,} events, every {_rebuild._STEP_EVENTS:,} told",
        partial(anyio.run, partial(_rebuild_all, path, _rebuild._STEP_EVENTS)),
        partial(anyio.run, partial(_rebuild_all, path, events)),
    )


async def _rebuild_all(path: Path, step_events: int) -> Run:
    before, _rebuild._STEP_EVENTS = _rebuild._STEP_EVENTS, step_events  # type: ignore[misc]
    told = ""
    try:
        async with (
            es.open_store(path, read_only=True) as store,
            pj.open_projector(store, *BUILT_IN) as projector,
        ):
            await projector.wait_for(store.position)
            begin = time.perf_counter()
            async for progress in projector.rebuild():
                told = f"{progress.position:,} of {progress.total:,}, {progress.eta_seconds:.0f} s"
            taken = time.perf_counter() - begin
            assert told.startswith(f"{store.position:,} of"), told
            return Run(store.position, taken)
    finally:
        _rebuild._STEP_EVENTS = before  # type: ignore[misc]


def _write(path: Path, events: int) -> None:
    path.parent.mkdir()
    anyio.run(write_log, path, events, STREAMS)


if __name__ == "__main__":
    main()
