"""A process that appends until the file system under it is gone: `python -m tests.power._writer`.

It reads orders from stdin and reports to stdout, one JSON document a line, so that what it was
promised is known outside the file system that the promise is about. It outlives the power cuts,
and appends again, with the same key, what it had no answer for.
"""

from __future__ import annotations

import logging
import os
import sys
from random import Random
from typing import Any, Final

import anyio
import msgspec

import eventstore as es

__all__ = ["Acknowledged", "Ended", "Opened", "Opening", "Order", "Report"]

_OPENINGS_MAX: Final = 4  # a store that a failed sync poisoned is opened again
_LOOPS: Final[list[dict[str, Any]]] = [
    {"backend": "asyncio"},
    {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    {"backend": "trio"},
]


class Order(msgspec.Struct, frozen=True):
    """What to do until the power is cut.

    Attributes:
        path: of the log.
        cycle: its number, part of the names of the appends.
        seed: decides what is appended.
        segment_bytes_max: when segments are sealed.
        tasks: how many append at once.
        appends_max: after how many appends each of them ends, power cut or not.
        written_share: how many of the appends are not synced.
        bytes_max: of an event's payload.
    """

    path: str
    cycle: int
    seed: int
    segment_bytes_max: int | None
    tasks: int
    appends_max: int
    written_share: float
    bytes_max: int


class Opening(msgspec.Struct, frozen=True, tag=True):
    """The store is being opened."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The store is open."""

    position: int


class Acknowledged(msgspec.Struct, frozen=True, tag=True):
    """An append returned.

    Attributes:
        name: of the append.
        stream: where.
        count: of its events.
        version: of the stream after them.
        position: of the log after them.
        synced: whether a power cut must not take them.
    """

    name: str
    stream: str
    count: int
    version: int
    position: int
    synced: bool


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Nothing of this order is left to do: the store is closed."""

    reason: str


Report = Opening | Opened | Acknowledged | Ended


class _Append(msgspec.Struct, frozen=True):
    name: str
    stream: str
    sizes: tuple[int, ...]
    synced: bool
    key: str | None

    def events(self) -> list[es.LoopEvent]:
        count = len(self.sizes)
        return [
            es.EventPublished(topic=f"{self.name}/{index}/{count}", payload="x" * size)
            for index, size in enumerate(self.sizes)
        ]


class _Writer:
    def __init__(self, number: int) -> None:
        self._number = number
        self._path = ""
        self._unanswered: list[_Append] = []
        self._reason = ""

    async def follow(self, order: Order) -> None:
        if order.path != self._path:
            self._path = order.path
            self._unanswered.clear()
        self._reason = "every append is done"
        random = Random(f"{order.seed}-{self._number}")
        for opening in range(_OPENINGS_MAX):
            _tell(Opening())
            try:
                async with es.open_store(
                    order.path, segment_bytes_max=order.segment_bytes_max
                ) as store:
                    _tell(Opened(store.position))
                    async with anyio.create_task_group() as tasks:
                        for task in range(order.tasks):
                            name = f"{order.cycle}-{self._number}-{opening}-{task}"
                            tasks.start_soon(self._append, store, order, name, random)
            except es.EventStoreError as error:
                self._reason = f"{type(error).__name__}: {error}"
                break
        _tell(Ended(self._reason))

    async def _append(
        self, store: es.LogStore[es.LoopEvent], order: Order, name: str, random: Random
    ) -> None:
        for count in range(order.appends_max):
            if self._unanswered:
                append = self._unanswered.pop()
            else:
                append = _drawn(order, f"{name}-{count}", random)
            try:
                done = await store.append(
                    append.stream,
                    append.events(),
                    expected_version=es.ANY,
                    key=append.key,
                    durability="synced" if append.synced else "written",
                )
            except es.EventStoreError as error:
                self._reason = f"{type(error).__name__}: {error}"
                if append.key is not None:
                    self._unanswered.append(append)
                return
            _tell(
                Acknowledged(
                    name=append.name,
                    stream=append.stream,
                    count=len(append.sizes),
                    version=done.version,
                    position=done.position,
                    synced=append.synced,
                )
            )


def _drawn(order: Order, name: str, random: Random) -> _Append:
    events = random.choice((1, 1, 1, 2, 5))
    return _Append(
        name=name,
        stream=f"loop-{random.randrange(4)}",
        # As many small ones as large ones; several pages make a torn commit likely.
        sizes=tuple(int(order.bytes_max ** random.random()) for _ in range(events)),
        synced=random.random() >= order.written_share,
        key=name if random.random() < 0.5 else None,
    )


def _tell(report: Report) -> None:
    os.write(1, msgspec.json.encode(report) + b"\n")


def main(number: int) -> None:
    """Follow orders until there are no more."""
    logging.getLogger("eventstore").disabled = True  # a disk that is gone is nothing special here
    writer = _Writer(number)
    for line in sys.stdin.buffer:
        anyio.run(
            writer.follow, msgspec.json.decode(line, type=Order), **_LOOPS[number % len(_LOOPS)]
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
