"""Processes that race on one log and write down what they did, when, and what they were told."""

from __future__ import annotations

import random
import time
from multiprocessing.connection import Connection
from typing import Final

import anyio
import msgspec
from msgspec.structs import replace

import eventstore as es
from tests.real._forked import LOOPS
from tests.real._histories import Operation

__all__ = ["Race", "race"]

_STREAMS: Final = 4
_TASKS: Final = 2
_KEY_NANOSECONDS: Final = 20_000_000  # who appends with a key within this time takes the same one


class Race(msgspec.Struct, frozen=True):
    """What a racer is started with; moments are of the monotonic clock, in nanoseconds."""

    path: str
    number: int
    begin: int
    end: int
    segment_bytes_max: int


def race(connection: Connection, one: Race) -> None:
    """Race, then send what was written down."""
    operations: list[Operation] = []
    anyio.run(_race, one, operations, **LOOPS[one.number % len(LOOPS)])
    connection.send_bytes(msgspec.msgpack.encode(operations))


async def _race(one: Race, operations: list[Operation]) -> None:
    async with es.open_store(one.path, segment_bytes_max=one.segment_bytes_max) as store:
        await anyio.sleep(max(0, one.begin - time.monotonic_ns()) / 1e9)
        async with anyio.create_task_group() as tasks:
            for task in range(_TASKS):
                tasks.start_soon(_Racer(one, task, store, operations).run)


class _Racer:
    """One task: an operation at a time, until the race is over."""

    def __init__(
        self,
        one: Race,
        task: int,
        store: es.LogStore[es.LoopEvent],
        operations: list[Operation],
    ) -> None:
        self._race = one
        self._name = f"{one.number}.{task}"
        self._store = store
        self._operations = operations
        self._randomness = random.Random(self._name)
        self._versions: dict[str, int] = {}  # as last heard

    async def run(self) -> None:
        """Do something, again and again."""
        count = 0
        while (now := time.monotonic_ns()) < self._race.end:
            count += 1
            stream = f"loop-{self._randomness.randrange(_STREAMS)}"
            name = f"{self._name}.{count}"
            match self._randomness.choice(("expect", "expect", "any", "key", "look")):
                case "expect":
                    await self._append(stream, name, expected=self._versions.get(stream, 0))
                case "any":
                    await self._append(stream, name)
                case "key":
                    shared = now // _KEY_NANOSECONDS
                    await self._append(f"loop-{shared % _STREAMS}", f"k-{shared}", key="it")
                case _:
                    await self._look(stream)

    async def _look(self, stream: str) -> None:
        invoked = time.monotonic_ns()
        version = await self._store.version(stream)
        self._note(Operation(invoked, time.monotonic_ns(), "read", stream, version))

    async def _append(
        self, stream: str, name: str, *, expected: int | None = None, key: str | None = None
    ) -> None:
        count = 1 if key else self._randomness.choice((1, 1, 3))
        events: list[es.LoopEvent] = [
            es.EventPublished(topic=name, payload=f"{part}") for part in range(count)
        ]
        key = None if key is None else name
        durability: es.Durability = self._randomness.choice(("synced", "written"))
        asked = Operation(
            time.monotonic_ns(), 0, "conflict", stream, 0, 0, name, count, expected, key
        )
        try:
            done = await self._store.append(
                stream,
                events,
                expected_version=es.ANY if expected is None else expected,
                key=key,
                durability=durability,
            )
        except es.VersionConflictError as error:
            returned = time.monotonic_ns()
            self._note(replace(asked, returned=returned, version=error.actual))
        else:
            returned = time.monotonic_ns()
            self._note(
                replace(
                    asked,
                    returned=returned,
                    outcome="acknowledged",
                    version=done.version,
                    position=done.position,
                )
            )

    def _note(self, operation: Operation) -> None:
        self._operations.append(operation)
        self._versions[operation.stream] = operation.version
