"""What the demo does, told while it happens. Every number printed was measured or counted."""

from __future__ import annotations

import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

import eventstore as es
from projections._load import load_all
from projections._loop import COMPLETION, LAST_ITERATION, PROMPT, SUMMARY
from projections._loop_entry import LoopEntry, resume_from
from projections._projection import Loaded, Projection
from projections._registry import REGISTRY
from projections._timeline import TIMELINE
from projections.cli._console import open_console
from projections.cli._table import LoopRow, loop_table
from projections.cli._text import clean, count
from projections.cli.demo._kills import DemoError, kill_after, tear
from projections.cli.demo._loops import LOOPS, Acknowledged, drive, record
from projections.cli.demo._writers import IMPORT_EVENT_BYTES, IMPORT_EVENTS

__all__ = ["JQ_LINES", "count_broken", "tell"]

_ACKNOWLEDGEMENTS_BEFORE_KILL: Final = 450  # each loop is about half way then
_MISSING_SHOWN: Final = 10
_PROJECTIONS: Final = (
    REGISTRY,
    SUMMARY,
    TIMELINE,
    LAST_ITERATION,
    COMPLETION,
    PROMPT,
)
JQ_LINES: Final = (
    """jq -r 'select(.type.success == false) | "\\(.stream) \\(.type.iteration)"'""",
    """jq -s 'group_by(.stream) | map({loop: .[0].stream, events: length})'""",
)


def tell() -> int:
    """Run the demo.

    Returns:
        The exit code: 0 if every acknowledged event is in the log and the log is sound.
    """
    path = Path(tempfile.mkdtemp(prefix="loopledger-demo-"), "history.jsonl")
    begun = time.monotonic()
    try:
        heard = _tell_kills(path)
        broken = anyio.run(_tell_recovery, path, heard)
    except (DemoError, es.EventStoreError) as error:
        print(f"\nThe demo failed: {clean(str(error))}\nThe log is {path}")
        return 1
    _tell_end(path, seconds=time.monotonic() - begun)
    return 1 if broken else 0


def count_broken(
    path: Path, heard: Sequence[Acknowledged], recorded: Sequence[es.Recorded[es.LoopEvent]]
) -> int:
    """Compare what was acknowledged with what the log holds, and say it.

    Args:
        path: the log.
        heard: what was acknowledged, by whomever.
        recorded: every event of the log.

    Returns:
        How many acknowledged events are not at the place they were said to have, and one more if
        the log is not sound.
    """
    there = {event.position: (event.stream, event.version, event.kind) for event in recorded}
    missing = [
        event
        for event in heard
        if there.get(event.position) != (event.stream, event.version, event.kind)
    ]
    kept = len(heard) - len(missing)
    print(f"acknowledged {len(heard)}, of these in the log {kept}, missing {len(missing)}")
    print(f"in the log, though the kill came before anyone was told: {len(recorded) - kept}")
    for event in missing[:_MISSING_SHOWN]:
        print(f"MISSING {event.kind} at position {event.position} of {event.stream}")
    found = es.verify_log(path)
    print(
        f"verified {count(found.lines, 'line')}, {count(found.bytes, 'byte')}: "
        f"{'sound' if found.is_sound else 'NOT SOUND'}"
    )
    return len(missing) + (not found.is_sound)


def _tell_kills(path: Path) -> list[Acknowledged]:
    _headline("1. Five loops, one orchestrator, and a SIGKILL in the middle")
    print(f"The log: {path}")
    print(f"An orchestrator process drives {len(LOOPS)} loops with awaited appends ...", flush=True)
    begun = time.perf_counter()
    heard = kill_after(path, _ACKNOWLEDGEMENTS_BEFORE_KILL)
    seconds = time.perf_counter() - begun
    print(f"Killed after {seconds:.1f} s, when {count(len(heard), 'event')} had been acknowledged.")

    _headline("2. Another writer, killed in the middle of one large append")
    megabytes = IMPORT_EVENTS * IMPORT_EVENT_BYTES // 1_000_000
    print(f"Another process appends {IMPORT_EVENTS} events, {megabytes} MB ...", flush=True)
    torn, more = tear(path)
    size = path.stat().st_size
    print(f"Killed while it wrote. The file has {size} bytes, and ends in a torn commit:")
    print(f"  byte {torn.offset}, position {torn.position}: {torn.reason}")
    return heard + more


async def _tell_recovery(path: Path, heard: list[Acknowledged]) -> int:
    """Open the log again, finish what was begun, and check what was promised.

    Returns:
        How many promises were broken.
    """
    _headline("3. A new process opens the log")
    begun = time.perf_counter()
    async with es.open_store(path) as store:
        milliseconds = 1000 * (time.perf_counter() - begun)
        _print_recovery(store.recovery, milliseconds)
        loops = await _rebuild(store, _PROJECTIONS)
        await _print_registry(loops)

        _headline("4. Where was each loop? Go on from there")
        resumed = await _resume(store, loops, heard.append)
        print(f"{count(len(resumed), 'loop')} go on to their end ...", flush=True)
        before = len(heard)
        begun = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for loop in LOOPS:
                known = resumed.get(loop.name, Loaded(REGISTRY.initial, 0, 0))
                tasks.start_soon(partial(drive, store, loop, heard.append, known=known))
        seconds = time.perf_counter() - begun
        _print_appends([event.seconds for event in heard[before:]], seconds)
        await _print_registry(await load_all(store, REGISTRY))

        _headline("5. Is everything there that was acknowledged?")
        recorded = [event async for event in store.read_all()]
    return count_broken(path, heard, recorded)


async def _rebuild(
    store: es.EventReader[es.LoopEvent], projections: Sequence[Projection[Any, es.Event]]
) -> Mapping[str, Loaded[LoopEntry]]:
    """Fold every projection from the first event on; nothing was saved but the log."""
    begun = time.perf_counter()
    for projection in projections:
        await load_all(store, projection)
    milliseconds = 1000 * (time.perf_counter() - begun)
    names = ", ".join(projection.name for projection in projections)
    loops = await load_all(store, REGISTRY)
    events = sum(loop.version for loop in loops.values())
    print(f"Rebuilt {len(projections)} projections from {events} events in {milliseconds:.1f} ms:")
    print(f"  {names}")
    return loops


async def _resume(
    store: es.EventStore[es.LoopEvent],
    loops: Mapping[str, Loaded[LoopEntry]],
    acknowledged: Callable[[Acknowledged], None],
) -> dict[str, Loaded[LoopEntry]]:
    """Record for each interrupted loop that it goes on, and from where."""
    resumed = dict(loops)
    for name, known in sorted(loops.items()):
        entry = known.state
        if entry.state != "running":
            continue
        iteration = resume_from(entry)
        why = "was open" if entry.open_iteration is not None else "comes next"
        print(f"  {name:<14} resume at iteration {iteration:>2}, which {why}")
        event = es.LoopResumed(from_iteration=iteration)
        resumed[name] = await record(store, name, event, acknowledged, known=known)
    return resumed


def _print_recovery(recovery: es.Recovery, milliseconds: float) -> None:
    print(f"Opened and recovered in {milliseconds:.1f} ms, up to position {recovery.position}.")
    print(f"Cut {count(recovery.cut_bytes, 'byte')} of the torn commit; they are kept in")
    for quarantined in recovery.quarantine:
        print(f"  {quarantined}")


async def _print_registry(loops: Mapping[str, Loaded[LoopEntry]]) -> None:
    rows = [LoopRow(name, loop.state, loop.version) for name, loop in sorted(loops.items())]
    console = open_console()
    print()
    console.print(loop_table(rows, width=console.width))


def _print_appends(durations: Sequence[float], seconds: float) -> None:
    print(
        f"Appended {count(len(durations), 'event')} in {seconds:.1f} s (the pauses are the agents' "
        f"work); until durable: median {1000 * statistics.median(durations):.2f} ms, "
        f"slowest {1000 * max(durations):.2f} ms."
    )


def _tell_end(path: Path, *, seconds: float) -> None:
    name = shlex.quote(str(path))
    _headline(f"Done in {seconds:.1f} s. Try it yourself")
    for line in JQ_LINES:
        print(f"  {line} {name}")
    print(f"  loopledger show {name}")
    print(f"The log and the quarantine stay until you delete {path.parent}")
    print(f"The log: {path}")


def _headline(text: str) -> None:
    print(f"\n{text}", flush=True)
