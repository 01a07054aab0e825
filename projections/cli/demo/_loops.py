"""Five scripted loops, and an orchestrator that drives them through a store.

The orchestrator keeps no state of its own: what a loop does next follows from its registry entry
alone, so a fresh process goes on from the log as if nothing had happened.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias
from zlib import crc32

import anyio
import msgspec

import eventstore as es
from projections._loop_entry import LoopEntry, resume_from
from projections._projection import Loaded
from projections._registry import REGISTRY

__all__ = ["LOOPS", "Acknowledged", "Ending", "ScriptedLoop", "drive", "record"]

_WORK_SECONDS: Final = (0.02, 0.06)  # what the agent needs between two events
_TOPICS: Final = ("build.task", "test.run")  # published by each iteration

Ending: TypeAlias = Literal["completed", "merged", "conflict", "discarded"]


class Acknowledged(msgspec.Struct, frozen=True):
    """An event that an awaited `append` said was durable, and how long that took."""

    stream: str
    version: int
    position: int
    kind: str
    seconds: float = 0.0


class ScriptedLoop(msgspec.Struct, frozen=True):
    """What a loop is asked, how long it will take, and how it will end."""

    name: str
    prompt: str
    iterations: int
    ending: Ending
    failing: frozenset[int] = frozenset()


LOOPS: Final = (
    ScriptedLoop(
        "amber-finch", "Write the migration guide", 31, ending="completed", failing=frozenset({4})
    ),
    ScriptedLoop("bright-otter", "Make the flaky login test deterministic", 35, ending="merged"),
    ScriptedLoop(
        "calm-heron",
        "Move the settings into one typed module and delete the three old ones",
        34,
        ending="merged",
        failing=frozenset({2, 27}),
    ),
    ScriptedLoop(
        "quick-lynx",
        "Add CSV export to the report page",
        33,
        ending="conflict",
        failing=frozenset({9, 10, 29}),
    ),
    ScriptedLoop(
        "silent-mole",
        "Halve the start-up time",
        32,
        ending="discarded",
        failing=frozenset({3, 8, 14, 24, 32}),
    ),
)


async def record(
    store: es.EventStore[es.LoopEvent],
    stream: str,
    event: es.LoopEvent,
    acknowledged: Callable[[Acknowledged], None],
    *,
    known: Loaded[LoopEntry],
) -> Loaded[LoopEntry]:
    """Append one event where the loop is known to stand.

    Args:
        store: the log.
        stream: the loop.
        event: what happened.
        acknowledged: told of it once it is durable.
        known: where the loop stands.

    Returns:
        Where it stands now.
    """
    begun = time.perf_counter()
    done = await store.append(stream, [event], expected_version=known.version)
    seconds = time.perf_counter() - begun
    recorded = es.Recorded[es.LoopEvent](
        event, datetime.now(UTC), done.version, done.position, stream
    )
    acknowledged(Acknowledged(stream, done.version, done.position, recorded.kind, seconds))
    return Loaded(REGISTRY.evolve(known.state, recorded), done.version, done.position)


async def drive(
    store: es.EventStore[es.LoopEvent],
    loop: ScriptedLoop,
    acknowledged: Callable[[Acknowledged], None],
    *,
    known: Loaded[LoopEntry],
) -> None:
    """Append one event after the other until the loop has reached its scripted end.

    Args:
        store: the log.
        loop: the script.
        acknowledged: told of every event that is durable.
        known: where the log says the loop stands.
    """
    pauses = random.Random(loop.name)  # noqa: S311 - how long an agent works is no secret
    published = 0
    while (event := _next_event(loop, known.state, published)) is not None:
        await anyio.sleep(pauses.uniform(*_WORK_SECONDS))
        known = await record(store, loop.name, event, acknowledged, known=known)
        published = published + 1 if isinstance(event, es.EventPublished) else 0


def _next_event(loop: ScriptedLoop, entry: LoopEntry, published: int) -> es.LoopEvent | None:
    """What happens next, or None at the end of the script.

    Args:
        loop: the script.
        entry: where the loop stands.
        published: how many events this iteration published.
    """
    match entry.state:
        case "absent":
            return es.LoopStarted(prompt=loop.prompt)
        case "running":
            return _next_of_run(loop, entry, published)
        case "completed" if loop.ending == "discarded":
            return es.LoopDiscarded(reason="not worth the risk")
        case "completed" if loop.ending != "completed":
            return es.MergeQueued()
        case "queued":
            return es.MergeStarted(pid=os.getpid())
        case "merging" if loop.ending == "conflict":
            return es.MergeFailed(reason="conflict in src/report.py")
        case "merging":
            return es.MergeCompleted(commit=f"{crc32(loop.name.encode()):08x}")
        case _:
            return None


def _next_of_run(loop: ScriptedLoop, entry: LoopEntry, published: int) -> es.LoopEvent:
    current = entry.open_iteration
    if current is None or entry.resumed_from is not None:  # an interrupted iteration begins anew
        following = resume_from(entry)
        if following <= loop.iterations:
            return es.IterationStarted(iteration=following)
        gave_up = loop.ending == "discarded"
        return es.LoopCompleted(reason="max_iterations" if gave_up else "completion_promise")
    if published < len(_TOPICS):
        return es.EventPublished(topic=_TOPICS[published], payload=f"iteration {current}")
    return es.IterationCompleted(iteration=current, success=current not in loop.failing)
