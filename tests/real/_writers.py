"""Writers that are killed: what they append is decided by numbers, so that anyone can tell it.

A writer has lanes, tasks that append one thing after the other. What lane 2 of writer 3 appends as
its 17th thing follows from the seed alone: a writer that takes over a dead one's lanes, and the
test that judges the log, know it without being told.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Final

import anyio
import msgspec

import eventstore as es
from tests.real._forked import LOOPS

__all__ = ["ACKNOWLEDGED", "LARGE", "OPENED", "OPENING", "Planned", "Task", "planned", "write"]

OPENING: Final = b"opening"
OPENED: Final = b"opened"
LARGE: Final = b"large"
"""What is appended next is written for so long that one can be killed in it."""
ACKNOWLEDGED: Final = struct.Struct("<4q")
"""Lane, count, version, position."""

_LARGE: Final = "x" * 1_000_000
_LARGE_BYTES: Final = 300_000
_STREAMS: Final = 5


class Task(msgspec.Struct, frozen=True):
    """What a writer is started with.

    Attributes:
        path: of the log.
        seed: of everything planned.
        writer: its number.
        counts: for each lane, which thing to append next.
        segment_bytes_max: as `open_store`.
    """

    path: str
    seed: int
    writer: int
    counts: tuple[int, ...]
    segment_bytes_max: int


class Planned(msgspec.Struct, frozen=True):
    """One append."""

    stream: str
    events: tuple[es.EventPublished, ...]
    key: str | None
    durability: es.Durability


def planned(seed: int, writer: int, lane: int, count: int) -> Planned:
    """What a lane appends as its `count`-th thing: 1 to 4 events of 10 B to 1 MB."""
    name = f"{writer}.{lane}.{count}"
    randomness = random.Random(f"{seed}/{name}")
    parts = randomness.choice((1, 1, 1, 2, 4))
    digits = [randomness.uniform(1, 3.5) for _ in range(parts)]
    if randomness.random() < 0.06:  # enough of them to be killed in; all would fill the disk
        digits = [randomness.uniform(5, 6) for _ in digits]
    return Planned(
        stream=f"loop-{randomness.randrange(_STREAMS)}",
        events=tuple(
            es.EventPublished(topic=f"{name}.{part}/{parts}", payload=_LARGE[: int(10**digit)])
            for part, digit in enumerate(digits, start=1)
        ),
        key=name if randomness.random() < 0.7 else None,
        durability=randomness.choice(("synced", "written")),
    )


def write(connection: Connection, task: Task) -> None:
    """Append until killed, and tell of each append after it was acknowledged."""
    backend = LOOPS[(task.writer + sum(task.counts)) % len(LOOPS)]
    anyio.run(_write, connection, task, **backend)


async def _write(connection: Connection, task: Task) -> None:
    connection.send_bytes(OPENING)
    async with es.open_store(task.path, segment_bytes_max=task.segment_bytes_max) as store:
        connection.send_bytes(OPENED)
        async with anyio.create_task_group() as lanes:
            for lane, first in enumerate(task.counts):
                lanes.start_soon(_append, connection, task, store, lane, first)


async def _append(
    connection: Connection,
    task: Task,
    store: es.LogStore[es.LoopEvent],
    lane: int,
    first: int,
) -> None:
    for count in itertools.count(first):
        todo = planned(task.seed, task.writer, lane, count)
        events: Sequence[es.LoopEvent] = todo.events
        if sum(len(event.payload) for event in todo.events) >= _LARGE_BYTES:
            connection.send_bytes(LARGE)
        done = await store.append(
            todo.stream,
            events,
            expected_version=es.ANY,
            key=todo.key,
            durability=todo.durability,
        )
        connection.send_bytes(ACKNOWLEDGED.pack(lane, count, done.version, done.position))
