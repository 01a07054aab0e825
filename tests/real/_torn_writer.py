"""A writer whose writes are torn: one process with the C library loaded, forked once per fault.

Run as a program with `LD_PRELOAD`, it takes a fault per line of stdin and answers each with a line.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec

import eventstore as es

__all__ = ["ACTIVE", "BEFORE", "TORN", "Action", "End", "Fault", "clock"]

ACTIVE: Final = "history.jsonl"
BEFORE: Final[list[es.LoopEvent]] = [es.LoopStarted(prompt="p"), es.IterationStarted(iteration=1)]
TORN: Final[list[es.LoopEvent]] = [
    es.EventPublished(topic="small", payload="é\U0001f980"),  # torn within a character, too
    es.EventPublished(topic="large", payload="x" * 3_000),
    es.EventPublished(topic="middle", payload="\n" * 150),
]
"""One commit of about 4 kB."""


class Action(IntEnum):
    """What happens once enough bytes have passed; the numbers of torn_writes.c."""

    SHORT = 1  # the write returns early, and the next one is as any other
    KILL = 2  # the process is no more
    FAIL = 3  # the write returns early, and all further ones fail
    FAIL_SYNC = 4  # the sync of this number fails


class Fault(msgspec.Struct, frozen=True):
    """One fault, and the new directory it happens in."""

    directory: str
    action: Action
    left: int
    error: int = 0


class End(msgspec.Struct, frozen=True):
    """What became of the process.

    Attributes:
        signal: what killed it, or 0.
        fired: whether the fault happened; only known of who survived.
        outcomes: how each append ended: "acknowledged", or an error's name.
    """

    signal: int
    fired: bool
    outcomes: list[str]


def clock() -> int:
    """The same moment always, so that the same events have the same bytes."""
    return 1_795_219_203_255_970_000


def _serve() -> None:
    anyio.run(anyio.sleep, 0)  # so that no child has to import the event loop
    library = ctypes.CDLL(None)
    library.torn_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
    for line in sys.stdin:
        fault = msgspec.json.decode(line, type=Fault)
        sys.stdout.buffer.write(msgspec.json.encode(_meet(library, fault)) + b"\n")
        sys.stdout.buffer.flush()


def _meet(library: ctypes.CDLL, fault: Fault) -> End:
    path = os.path.join(fault.directory, ACTIVE)  # noqa: PTH118 - it becomes bytes
    arm = partial(library.torn_arm, os.fsencode(path), fault.action, fault.left, fault.error)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        outcomes = anyio.run(_append, Path(path), arm)
        end = End(0, bool(library.torn_fired()), outcomes)
        os.write(writing, msgspec.json.encode(end))
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    if os.WIFSIGNALED(status):
        return End(os.WTERMSIG(status), fired=True, outcomes=[])
    return msgspec.json.decode(told, type=End)


async def _append(path: Path, arm: Callable[[], None]) -> list[str]:
    outcomes: list[str] = []
    async with es.open_store(path, clock=clock) as store:
        await store.append("otter", BEFORE, expected_version=es.NO_STREAM)
        arm()
        for number, events in enumerate([TORN, BEFORE, BEFORE], start=1):
            try:
                await store.append("otter", events, expected_version=es.ANY, key=f"k-{number}")
            except es.EventStoreError as error:
                outcomes.append(type(error).__name__)
            else:
                outcomes.append("acknowledged")
    return outcomes


if __name__ == "__main__":
    _serve()
