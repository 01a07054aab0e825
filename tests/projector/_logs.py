"""What the tests write into a log, and what they fold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import anyio

import eventstore as es
import projections as pj

__all__ = ["BROKEN", "COUNT", "append", "counting", "folded", "soon"]

_STUCK_SECONDS: Final = 10.0


def soon() -> AbstractContextManager[object]:
    """A test that waits for longer than this is stuck."""
    return anyio.fail_after(_STUCK_SECONDS)


async def append(store: es.EventStore[es.LoopEvent], count: int, *, streams: int = 3) -> int:
    """Append iterations that have ended, in several streams; return the log's position."""
    position = 0
    for number in range(count):
        event = es.IterationCompleted(iteration=number, success=number % 5 != 0)
        done = await store.append(f"loop-{number % streams}", [event], expected_version=es.ANY)
        position = done.position
    return position


def counting(
    name: str = "count",
    *,
    revision: int = 1,
    step: int = 1,
    breaks_at: Callable[[es.Recorded[es.Event]], bool] = lambda _: False,
) -> pj.Projection[int, es.Event]:
    """A projection that counts events, and can be made to raise."""

    def evolve(state: int, recorded: es.Recorded[es.Event]) -> int:
        if breaks_at(recorded):
            message = "no such thing"
            raise LookupError(message)
        return state + step

    return pj.Projection(name=name, initial=0, evolve=evolve, revision=revision, data=False)


COUNT: Final = counting()
BROKEN: Final = counting("broken", breaks_at=lambda recorded: recorded.position == 5)


async def folded(
    store: es.EventReader[es.LoopEvent], projection: pj.Projection[Any, es.Event]
) -> dict[str, pj.Loaded[Any]]:
    """What a view must be equal to."""
    return dict(await pj.load_all(store, projection))
