"""How long does a new process take to answer what an orchestrator asks after a crash?

Four questions of a loop's history, each asked by a process of its own, from opening the log to the
answer; Python's start and the imports are not counted: the last iteration, whether it is
completed, the prompt (`pj.open_history`), and where to resume (`pj.resume_plan`). The run has once
reached its limit and been resumed, so that what decides stands in the last 64 KiB. The logs have
10,000 to 1,000,000 events (`--full`: 10,000,000), as ours writes them and as the original does,
whose lines have no numbers. Before each run the log is dropped from the page cache, where the
system can do that.

Floor: a bare read and msgspec decode of the last 64 KiB, which is where the newest iteration
stands. `peak` is memory above what the process began with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

import eventstore as es
import projections as pj
from benchmarks._environment import survey
from benchmarks._measure import Case, Options, Run, compare, options, report, scratch
from benchmarks._process import Watch, in_new_process

SIZES: Final = (10_000, 100_000, 1_000_000)
FULL_SIZES: Final = (*SIZES, 10_000_000)
QUICK_SIZES: Final = (2_000,)
PROMPT: Final = "Make the tests of the package pass, one at a time."
_TAIL_BYTES: Final = 2**16
_APPEND_EVENTS: Final = 100
_RESUMED_EVENTS: Final = 200  # behind the completion


class _EndsOptions(Options):
    full: bool


class _Line(msgspec.Struct, gc=False):
    """What the floor decodes of a line, and what the original writes."""

    ts: str
    type: es.LoopEvent


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the logs, measure, and print."""
    parser = options(__doc__)
    parser.add_argument("--full", action="store_true", help="up to 10,000,000 events")
    chosen = parser.parse_args(arguments, namespace=_EndsOptions())
    sizes = QUICK_SIZES if chosen.quick else FULL_SIZES if chosen.full else SIZES
    with scratch(chosen.directory) as directory:
        environment = survey(directory)
        cases: list[Case] = []
        for events in sizes:
            ours = directory / f"ours-{events}" / "history.jsonl"
            anyio.run(_write_ours, ours, events)
            original = directory / f"original-{events}" / "history.jsonl"
            original.parent.mkdir()
            _write_as_the_original(original, events)
            cases += [
                _case(name, question, writer, path, events)
                for writer, path in (("ours", ours), ("original", original))
                for name, question in _QUESTIONS.items()
            ]
        results = compare(cases, chosen, warm_up=False)
        report("ends", "answers", environment, results, chosen, as_durations=True)


def _case(name: str, question: Callable[[Path], Run], writer: str, path: Path, events: int) -> Case:
    return Case(
        f"{name}, {writer}",
        f"{events:,} events",
        partial(_cold, question, path),
        partial(_cold, _read_tail, path),
        size=events,
    )


def _cold(work: Callable[[Path], Run], path: Path) -> Run:
    if hasattr(os, "posix_fadvise"):
        for segment in path.parent.glob("history*.jsonl"):
            handle = os.open(segment, os.O_RDONLY)
            try:
                os.fsync(handle)  # only what is clean can be dropped
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
    return in_new_process(work, path)


# --- the logs ---


async def _write_ours(path: Path, events: int) -> None:
    history = _history(events)
    async with es.open_store(path, durability="written") as store:
        while part := list(islice(history, _APPEND_EVENTS)):
            await store.append(es.MAIN_STREAM, part, expected_version=es.ANY)


def _write_as_the_original(path: Path, events: int) -> None:
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for event in _history(events):
            file.write(encode(_Line("2026-01-01T00:00:00.000000000Z", event)) + b"\n")


def _history(events: int) -> Iterator[es.LoopEvent]:
    """A loop that reached its limit near the end, and was resumed."""
    loop = _loop_events()
    yield from islice(loop, events - _RESUMED_EVENTS - 2)
    yield es.LoopCompleted(reason="max_iterations")
    yield es.LoopResumed(from_iteration=events // 3)
    yield from islice(loop, _RESUMED_EVENTS)


def _loop_events() -> Iterator[es.LoopEvent]:
    """A loop that goes on and on."""
    yield es.LoopStarted(prompt=PROMPT)
    for iteration in count(1):
        yield es.IterationStarted(iteration=iteration)
        yield es.EventPublished(topic="build.done", payload=f"tests: {iteration} passed, 3 failed")
        yield es.IterationCompleted(iteration=iteration, success=iteration % 8 != 0)


# --- what is measured ---


def _last_iteration(path: Path) -> Run:
    run, answer = anyio.run(_ask, path, pj.HistoryReader.last_iteration)
    assert answer, "no iteration"
    return run


def _is_completed(path: Path) -> Run:
    run, answer = anyio.run(_ask, path, pj.HistoryReader.is_completed)
    assert answer, "it was completed"
    return run


def _prompt(path: Path) -> Run:
    run, answer = anyio.run(_ask, path, pj.HistoryReader.get_prompt)
    assert answer == PROMPT, "another prompt"
    return run


async def _ask(path: Path, question: Callable[[pj.HistoryReader], Any]) -> tuple[Run, Any]:
    watch = Watch()
    async with pj.open_history(path, read_only=True) as history:
        answer = await question(history)
        run = watch.run()
    return run, answer


def _resume(path: Path) -> Run:
    return anyio.run(_plan, path)


async def _plan(path: Path) -> Run:
    watch = Watch()
    async with es.open_store(path, read_only=True) as store:
        plan = await pj.resume_plan(store, es.MAIN_STREAM)
        run = watch.run()
    assert plan.prompt == PROMPT, "another prompt"
    return run


_QUESTIONS: Final[dict[str, Callable[[Path], Run]]] = {
    "last iteration": _last_iteration,
    "completed": _is_completed,
    "prompt": _prompt,
    "resume": _resume,
}


# --- the floor ---


def _read_tail(path: Path) -> Run:
    decode = msgspec.json.Decoder(_Line).decode
    begin = time.perf_counter()
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        data = os.pread(handle, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    finally:
        os.close(handle)
    events = [decode(line).type for line in data.splitlines()[1:]]
    newest = next(event for event in reversed(events) if isinstance(event, es.IterationCompleted))
    taken = time.perf_counter() - begin
    assert newest.iteration, "no iteration"
    return Run(1, taken)


if __name__ == "__main__":
    main()
