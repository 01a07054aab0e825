"""How fast is this beside what people keep such a history with today?

Every peer does the same work in its best configuration (`benchmarks/_peers.py`), and ours does it
right before or after: appends of one 200-byte event by 1 or 64 tasks, each to a stream of its own
at the version it knows; 10,000 events in batches; reading all of them back, decoded, to count
them. All on plain asyncio.

Durable is compared with durable. What is *not durable* loses acknowledged events in a power cut;
beside it stands ours with `durability="written"`, which promises as little. The ratio is ours
over theirs. A peer that is not installed is listed below the table:
`pip install --group compare`, in an environment of its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from benchmarks._environment import survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks._peers import PEERS, Peer, Session, installed, open_ours

TASKS: Final = (1, 64)
BATCHES: Final = (100, 1_000, 10_000)
BULK_EVENTS: Final = 10_000
QUICK_BULK_EVENTS: Final = 1_000
SECONDS: Final = 0.25  # of one timed run of appends
QUICK_SECONDS: Final = 0.02

_Open: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Session]]
_Work: TypeAlias = Callable[[Session], Coroutine[Any, Any, Run]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    chosen = options(__doc__).parse_args(arguments, namespace=Options())
    with scratch(chosen.directory) as directory:
        peers = [peer for peer in PEERS if installed(peer)]
        distributions = [peer.distribution for peer in peers if peer.distribution is not None]
        environment = survey(directory, distributions)
        cases = [
            _case(name, work, peer, directory)
            for name, work in _works(quick=chosen.quick).items()
            for peer in peers
        ]
        report(
            "compare",
            "events",
            environment,
            compare(cases, chosen),
            chosen,
            columns=("ours", "theirs"),
            notes=[f"not installed: {peer.name}" for peer in PEERS if peer not in peers],
        )


def _works(*, quick: bool) -> dict[str, _Work]:
    seconds = QUICK_SECONDS if quick else SECONDS
    events = QUICK_BULK_EVENTS if quick else BULK_EVENTS
    works: dict[str, _Work] = {
        f"{tasks} task{'s' * (tasks > 1)}": partial(_append, tasks=tasks, seconds=seconds)
        for tasks in TASKS
    }
    for batch in BATCHES:
        if batch <= events:
            works[f"{events:,} by {batch:,}"] = partial(_append_bulk, events=events, batch=batch)
    works[f"read {events:,}"] = partial(_read, events=events)
    return works


def _case(name: str, work: _Work, peer: Peer, directory: Path) -> Case:
    lossy = "NOT DURABLE, " if peer.durability == "written" else ""
    ours = partial(_run, partial(open_ours, durability=peer.durability), work, directory)
    theirs = partial(_run, peer.open, work, directory)
    return Case(name, f"{peer.name} ({lossy}{peer.note})", ours, theirs)


def _run(opening: _Open, work: _Work, directory: Path) -> Run:
    own = directory / "run"
    own.mkdir()

    async def run() -> Run:
        async with opening(own) as session:
            return await work(session)

    try:
        return anyio.run(run)
    finally:
        shutil.rmtree(own)


# --- what is measured ---


async def _append(session: Session, *, tasks: int, seconds: float) -> Run:
    latencies: list[float] = []
    begin = time.perf_counter()
    deadline = begin + seconds

    async def work(stream: str) -> None:
        before = time.perf_counter()
        first = True
        while first or before < deadline:  # once, however late it begins
            first = False
            await session.append(stream, 1)
            after = time.perf_counter()
            latencies.append(after - before)
            before = after
            # Whoever blocks the loop must let others have it, as a real program would.
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(tasks):
            group.start_soon(work, f"task-{number}")
    return Run(len(latencies), time.perf_counter() - begin, latencies)


async def _append_bulk(session: Session, *, events: int, batch: int) -> Run:
    begin = time.perf_counter()
    for _ in range(events // batch):
        await session.append("bulk", batch)
    return Run(events, time.perf_counter() - begin)


async def _read(session: Session, *, events: int) -> Run:
    await session.append("bulk", events)
    begin = time.perf_counter()
    count = await session.count()
    taken = time.perf_counter() - begin
    assert count == events, f"{count} events of {events}"
    return Run(count, taken)


if __name__ == "__main__":
    main()
