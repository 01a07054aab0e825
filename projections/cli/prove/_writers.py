"""The process that is killed: appends without end, and tells its parent what was acknowledged.

    python -m projections.cli.prove PATH SERIAL

On stdout, one JSON line for each thing it tells; an append is told of only after its await.
"""

from __future__ import annotations

import os
import random
import sys
from functools import partial
from typing import Final, TypeAlias

import anyio
import msgspec

import eventstore as es

__all__ = ["Begun", "Done", "Opened", "Told", "topic", "write"]

_SEGMENT_BYTES: Final = 4 * 2**20  # small enough to seal several in a round
_TASKS: Final = 4
_STREAMS: Final = 8
_EVENTS: Final = (1, 1, 1, 1, 3, 20)
_PAYLOAD_BYTES: Final = (10, 100, 100, 2_000)
# Now and then one append that takes milliseconds to write, so that a kill can hit its middle.
_LARGE_ONE_IN: Final = 150
_LARGE_EVENTS: Final = 20
_LARGE_PAYLOAD_BYTES: Final = 150_000


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The log is open; what had to be recovered is."""


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """A large append is about to be written."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """An append was acknowledged: its key, its events, and the numbers of the last one."""

    key: str
    stream: str
    events: int
    version: int
    position: int


Told: TypeAlias = Opened | Begun | Done


def topic(key: str, *, number: int, events: int) -> str:
    """What is written into each event, so that a checker knows it again."""
    return f"{key} {number} {events}"


async def write(path: str, serial: int) -> None:
    """Append until killed.

    Args:
        path: the log.
        serial: different in every process of a campaign; its keys begin with it.
    """
    async with (
        es.open_store(path, segment_bytes_max=_SEGMENT_BYTES) as store,
        anyio.create_task_group() as tasks,
    ):
        _tell(Opened())
        for task in range(_TASKS):
            tasks.start_soon(partial(_append, store, serial=serial, task=task))


async def _append(store: es.EventStore[es.LoopEvent], *, serial: int, task: int) -> None:
    dice = random.Random(f"{serial} {task}")  # noqa: S311 - which sizes are tried is no secret
    count = 0
    while True:
        count += 1
        key = f"{serial}-{task}-{count}"
        is_large = not dice.randrange(_LARGE_ONE_IN)
        events = _LARGE_EVENTS if is_large else dice.choice(_EVENTS)
        payload = "x" * (_LARGE_PAYLOAD_BYTES if is_large else dice.choice(_PAYLOAD_BYTES))
        stream = f"loop-{dice.randrange(_STREAMS)}"
        if is_large:
            _tell(Begun())
        done = await store.append(
            stream,
            [
                es.EventPublished(topic=topic(key, number=number, events=events), payload=payload)
                for number in range(events)
            ],
            expected_version=es.ANY,
            key=key,
        )
        _tell(Done(key, stream, events, done.version, done.position))


def _tell(told: Told) -> None:
    # One write of less than a pipe's buffer: a kill leaves the line out or whole.
    os.write(sys.stdout.fileno(), msgspec.json.encode(told) + b"\n")
